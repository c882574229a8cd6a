"""The table of `%sage_jobs`: live where a person watches and a job runs, HTML and text otherwise.

The newest table is the live one; those before it stay as they were. One thread asks for the jobs twice a second and
sends their rows when they have changed, as long as the table is in sight; it ends with the last live job, and leaves
HTML and text that need no kernel. Jobs that are submitted meanwhile are in the table too.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from sage_nb.engine.dispatcher import ENDED
from sage_nb.jobs.board import JobRow, row_of
from sage_nb.notebook.known import Found, Known
from sage_nb.notebook.listing import jobs_bundle

__all__ = ["show_jobs"]

_STATIC = Path(__file__).parent / "static"
_INTERVAL = 0.5
_NOBODY = 10.0
_KEPT = 10
_GRACE = 15.0  # seconds without a word after which a view counts as gone
_PLACE = "this kernel"


class JobsWidget(anywidget.AnyWidget):
    """The widget's model: a row for each job (`JobRow`), the newest first, and the commands of its views."""

    _esm = _STATIC / "jobs.js"
    _css = "".join((_STATIC / name).read_text() for name in ("jobview.css", "jobs.css"))
    kit = traitlets.Unicode().tag(sync=True)
    """The text of the module that it draws with: what comes from a Blob can import no file."""
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)


def show_jobs(
    known: Known, limit: int, shell: Any, *, live: bool, cells: Callable[[], Mapping[str, str]] = dict
) -> None:
    """Show the newest `limit` jobs below the running cell. `cells` gives the cell of each job that has one, by uuid."""
    for table in _tables:
        table.end()
    while len(_tables) > _KEPT:
        _tables.popleft().close()
    found, why_not = known.all()
    if live and why_not is None and _running(found):
        table = JobsTable(known, limit, shell, cells)
        _tables.append(table)
        table.show(found)
    else:
        shell.display_pub.publish(data=jobs_bundle(found, limit, why_not))


class JobsTable:
    """One live table."""

    def __init__(self, known: Known, limit: int, shell: Any, cells: Callable[[], Mapping[str, str]]) -> None:
        self._known = known
        self._limit = limit
        self._shell = shell
        self._cells = cells
        self._display_id = uuid.uuid4().hex
        self._woken = threading.Event()
        self._over = False
        self._views: dict[str, tuple[bool, float]] = {}
        """By view: whether it is in sight, and when it said so."""
        self._heard = time.monotonic()
        self._widget = JobsWidget(kit=(_STATIC / "jobview.js").read_text())
        self._widget.on_msg(self._on_message)

    def show(self, found: list[Found]) -> None:
        """Put the table below the running cell, and keep it up to date from now on."""
        self._widget.rows = self._rows(found)
        view = {"version_major": 2, "version_minor": 1, "model_id": self._widget.model_id}
        self._publish(
            {"application/vnd.jupyter.widget-view+json": view, **jobs_bundle(found, self._limit, live=True)},
            update=False,
        )
        threading.Thread(target=self._run, name="sage_nb table", daemon=True).start()

    def end(self) -> None:
        """Leave it as it is now, as HTML and text."""
        self._over = True
        self._woken.set()

    def close(self) -> None:
        """Let go of the widget's models."""
        self._widget.layout.close()
        self._widget.close()

    def _run(self) -> None:
        sent = time.monotonic()
        while True:
            now = time.monotonic()
            self._woken.wait(max(_INTERVAL, self._interval(now) - (now - sent)))
            self._woken.clear()
            found = self._known.at_hand()[::-1]
            over = self._over or not _running(found)
            now = time.monotonic()
            if over or now - sent >= self._interval(now):
                self._widget.rows, sent = self._rows(found), now
            if over:
                self._publish(jobs_bundle(found, self._limit), update=True)
                return

    def _interval(self, now: float) -> float:
        seen = any(visible and now - said < _GRACE for visible, said in list(self._views.values()))
        return 0.0 if seen or (not self._views and now - self._heard < _GRACE) else _NOBODY

    def _rows(self, found: list[Found]) -> list[dict[str, Any]]:
        cells = self._cells()
        newest = found[: -self._limit - 1 : -1]
        return [_row(one, cells.get(one.uuid)).to_dict() for one in newest]

    def _publish(self, bundle: dict[str, Any], *, update: bool) -> None:
        self._shell.display_pub.publish(
            data=bundle,
            metadata={"sage_nb": {"table": True}},
            transient={"display_id": self._display_id},
            update=update,
        )

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """What a view says. It may come on any thread, so nothing here waits."""
        said = content if isinstance(content, dict) else {}
        if said.get("command") == "view":
            key = str(said.get("id"))
            if said.get("open") is False:
                self._views.pop(key, None)
            else:
                self._views[key] = said.get("visible", True) is not False, time.monotonic()
            self._woken.set()
        elif said.get("command") == "stop":
            job = next((one for one in self._known.at_hand() if one.uuid == said.get("job")), None)
            if job is not None:
                _stop(job)


def _stop(job: Found) -> None:
    """Ask a job to stop, and wait for nothing."""
    if job.held is not None:
        job.held._dispatcher.ask("stop")
    elif job.client is not None:
        from sage_nb.remote.portal import portal

        def tell(answer: Future[Any]) -> None:
            if not answer.cancelled() and (error := answer.exception()) is not None:
                print(f"sage_nb: job {job.info.name!r} {job.uuid[:8]} was not stopped: {error}", file=sys.stderr)

        portal.run(job.client.aio.stop_job(job.uuid)).add_done_callback(tell)


def _running(found: list[Found]) -> bool:
    return any(_status(one) not in ENDED for one in found)


def _status(one: Found) -> str:
    return one.info.status if one.held is None else one.held.status


def _row(one: Found, cell: str | None) -> JobRow:
    info, path = one.info, os.environ.get("JPY_SESSION_NAME")
    place = Path(path).name if path else _PLACE
    snapshot = info.snapshot or (one.held.snapshot() if one.held is not None else None)
    if snapshot is not None:
        return row_of(snapshot, place=place, path=path, cell=cell, number=one.number)
    return JobRow(
        uuid=info.uuid,
        name=info.name,
        status=info.status,  # type: ignore[arg-type]
        where="server" if one.where else "kernel",
        place=one.where or place,
        number=one.number,
        started=info.start_time,
        elapsed=info.runtime,
        error=(info.error or "").partition("\n")[0] or None,
    )


_tables: deque[JobsTable] = deque()
"""The newest last. Those before it have ended; a page that was loaded again still draws them."""
