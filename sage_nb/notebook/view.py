"""The live view of a job in a cell.

One widget model per job. A single thread, the pump, sends each live job's whole snapshot, the newest one only:
eight times a second at most; less often when no view is in sight, or where all together would be too many for the page
or take more than a sixtieth of a processor. It lives as long as there is a job to watch. When a job ends, its view
gets the last snapshot, and the cell's output is replaced by HTML and text, which need no kernel.

Flow control. Nothing is queued: a snapshot is made when it is sent, so that a slow page gets fewer of them and none
that is old. The views say whether they are in sight (`{command: "view", id, visible}`), when that changes and every
five seconds. While nobody is there, the server would keep every message for a page that may come back; so it gets one
in ten seconds. Pictures, which are large, are a trait of their own, which is sent only when it changes.

What is saved. A display with a widget cannot be updated: JupyterLab would draw the widget anew. So what a notebook that
is saved meanwhile should show is a trait as well, sent after a second and then every ten, or less often where there are
many views. When the notebook is saved, the page's plugin puts it into the file.
"""

from __future__ import annotations

import importlib.util
import threading
import time
import uuid
import weakref
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from sage_nb.engine.dispatcher import ENDED
from sage_nb.engine.failure import headline, safe_str
from sage_nb.errors import JobNotFoundError
from sage_nb.jobs.job import Job
from sage_nb.jobs.snapshot import JobSnapshot
from sage_nb.notebook.downloads import FORMATS, as_file
from sage_nb.notebook.html import render_html
from sage_nb.notebook.kernel import cell_is_running
from sage_nb.notebook.settings import settings
from sage_nb.notebook.text import render_text

__all__ = ["JobView", "settings", "show_job", "static_bundle"]

_STATIC = Path(__file__).parent / "static"
_INTERVAL = 0.125
_MESSAGES_PER_SECOND = 45  # with 30 views; what these say of themselves, and is answered, makes it less than 60
_SEEN_WITHIN = 1.0
_SHARE = 0.015
"""Of one processor, for the snapshots of all views together."""
_OUT_OF_SIGHT = 5.0
_UNHEARD = 1.0
_NOBODY = 10.0
_GRACE = 15.0  # seconds without a word after which a view counts as gone
_KEPT_VIEWS = 30
_PIECE = 1 << 19
_SAVED_FIRST, _SAVED_EVERY = 1.0, 10.0
_SAVED_SPACING = 0.5
"""Seconds between what all views send for that."""


def static_bundle(snapshot: JobSnapshot) -> dict[str, Any]:
    """The mime bundle that needs no kernel: HTML and text, which say when a job that goes on was so."""
    at = time.time()
    return {"text/html": render_html(snapshot, at=at), "text/plain": render_text(snapshot, at=at)}


class JobWidget(anywidget.AnyWidget):
    """The widget's model: the snapshot, and the commands of its views."""

    _esm = _STATIC / "jobview.js"
    _css = _STATIC / "jobview.css"
    snapshot = traitlets.Dict().tag(sync=True)
    pictures = traitlets.Dict().tag(sync=True)
    """By the name of a result: its newest item, where that is a picture."""
    saved = traitlets.Dict().tag(sync=True)
    """HTML and text, for a notebook that is saved while the job runs: not as new as the snapshot."""
    notify = traitlets.Float(allow_none=True).tag(sync=True)
    """Seconds that the job must have taken for its end to be told to a reader who is elsewhere; None: never."""
    formats = traitlets.List(traitlets.Unicode()).tag(sync=True)
    """What results can be downloaded as."""


class JobView:
    """One job shown in one cell. Once the job has ended, the view holds it no longer, nor its results."""

    def __init__(self, job: Job, shell: Any) -> None:
        self._job: Job | None = job
        self._results = weakref.ref(job)
        """To download results from; they can be had as long as somebody holds the job."""
        self._uuid = job.uuid
        self._shell = shell
        self._display_id = uuid.uuid4().hex
        self._views: dict[str, tuple[bool, float]] = {}
        """By view: whether it is in sight, and when it said so."""
        self._heard = False
        self._born = time.monotonic()
        self._last: float = 0.0
        self.cost = 0.0
        """Seconds of processor time that a snapshot takes, about."""
        self._status = ""
        self._saved_due = self._born + _SAVED_FIRST
        self._ended = False
        snapshot, pictures = _in_two(job.snapshot())
        self._widget = JobWidget(
            snapshot=snapshot,
            pictures=pictures,
            notify=settings.notify_after,
            formats=[name for name, needs in FORMATS.items() if not needs or importlib.util.find_spec(needs)],
        )
        self._widget.on_msg(self._on_message)

    def show(self) -> None:
        """Put the view below the running cell, and keep it up to date from now on."""
        assert self._job is not None
        snapshot = self._job.snapshot()
        bundle = {
            "application/vnd.jupyter.widget-view+json": {
                "version_major": 2,
                "version_minor": 1,
                "model_id": self._widget.model_id,
            },
            **static_bundle(snapshot),
        }
        self._publish(bundle, update=False)
        self._job._listen(self._job_changed)
        _pump.add(self)

    def due(self, crowd: float, load: float) -> float:
        """The moment, on the monotonic clock, at which the next snapshot may go out: `crowd` times as late as if this
        view were the only one, and `load` times, but then within a second where somebody looks."""
        interval = self.interval()
        return self._last + max(interval * crowd, min(interval * load, max(interval, _SEEN_WITHIN)))

    def interval(self) -> float:
        """Seconds between two snapshots."""
        now, views = time.monotonic(), list(self._views.values())  # which other threads change
        if any(seen and now - said < _GRACE for seen, said in views):
            return _INTERVAL
        if not self._heard and now - self._born < _GRACE:  # the page may still be loading
            return _INTERVAL
        if any(seen for seen, _ in views) and cell_is_running():  # which may keep us from hearing
            return _UNHEARD
        return _OUT_OF_SIGHT if any(now - said < _GRACE for _, said in views) else _NOBODY

    def send(self, live: int) -> bool:
        """Send the newest snapshot of this one of the `live` views. True where it was the last one."""
        job = self._job
        if job is None:
            return True
        ended, began = job.status in ENDED, time.thread_time()
        snapshot = job.snapshot()
        self._last, self._status = time.monotonic(), snapshot.status
        plain, pictures = _in_two(snapshot)
        if pictures != self._widget.pictures:
            self._widget.pictures = pictures
        self._widget.snapshot = plain
        if ended:
            self._ended, self._job = True, None
            self._publish(static_bundle(snapshot), update=True)
        elif self._last >= self._saved_due:
            self._saved_due = self._last + max(_SAVED_EVERY, live * _SAVED_SPACING)
            self._widget.saved = static_bundle(snapshot)
        self.cost += (time.thread_time() - began - self.cost) / 4
        return ended

    def tell(self, text: str) -> None:
        """Say something in the job's log."""
        if self._job is not None:
            self._job._dispatcher.say(text, "ERROR")

    def ended(self) -> bool:
        """Whether the last snapshot is due, or sent."""
        return self._job is None or self._job.status in ENDED

    def _job_changed(self, job: Job) -> None:
        if job.status != self._status:
            self._last = 0.0  # that is seen at once
        _pump.wake()
        if self._ended and job._dispatcher.clean.is_set():
            job._unlisten(self._job_changed)
            snapshot = job.snapshot()
            if snapshot.services:  # that were kept, and are stopped now
                self._publish(static_bundle(snapshot), update=True)

    def close(self) -> None:
        """Send nothing more, and let go of the job and of the widget's models."""
        _pump.drop(self)
        if self._job is not None:
            self._job._unlisten(self._job_changed)
        self._ended, self._job = False, None
        self._widget.on_msg(self._on_message, remove=True)
        self._widget.layout.close()
        self._widget.close()

    def _publish(self, bundle: dict[str, Any], *, update: bool) -> None:
        self._shell.display_pub.publish(
            data=bundle,
            metadata={"sage_nb": {"job": self._uuid}},
            transient={"display_id": self._display_id},
            update=update,
        )

    def _on_message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        """A command of a view. It may come on any thread, so nothing here waits."""
        command = content.get("command") if isinstance(content, dict) else None
        job = self._job
        if command == "view":
            self._view_changed(content)
        elif job is not None and command in ("stop", "pause", "resume"):
            job._dispatcher.ask(command)
        elif command == "download":
            work = threading.Thread(target=self._download, args=(content,), name="sage_nb download", daemon=True)
            work.start()
        _pump.wake()

    def _download(self, content: dict[str, Any]) -> None:
        """Send a result as a file, or say why that cannot be."""
        name, format, data = str(content.get("result")), str(content.get("format")), b""
        try:
            job = self._results()
            if job is None:
                raise JobNotFoundError("the results are gone with the job; keep it in a variable")
            data = as_file(job.results[name], format)
            error = None
        except Exception as exc:  # noqa: BLE001 - the reader is told, whatever it is
            error = safe_str(exc)
        pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
        self._widget.send({"result": name, "format": format, "error": error}, buffers=pieces)

    def _view_changed(self, content: dict[str, Any]) -> None:
        self._heard, key = True, str(content.get("id"))
        if content.get("open") is False:
            self._views.pop(key, None)
        else:
            self._views[key] = content.get("visible", True) is not False, time.monotonic()


def _in_two(snapshot: JobSnapshot) -> tuple[dict[str, Any], dict[str, str]]:
    """The snapshot as data without its pictures, and those by the names of their results."""
    plain = snapshot.to_dict()
    pictures = {result["name"]: result["picture"] for result in plain["results"] if result["picture"]}
    for result in plain["results"]:
        result["picture"] = None
    return plain, pictures


class _Pump:
    """Sends the snapshots of all live views from one thread, which ends with the last live job."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: list[JobView] = []
        self._kept: list[JobView] = []
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, view: JobView) -> None:
        with self._lock:
            self._live.append(view)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="sage_nb views", daemon=True)
                self._thread.start()
        self.wake()

    def drop(self, view: JobView) -> None:
        with self._lock:
            self._live = [other for other in self._live if other is not view]
            self._kept = [other for other in self._kept if other is not view]

    def wake(self) -> None:
        self._woken.set()

    def _run(self) -> None:
        while True:
            self._woken.clear()  # before looking: a view that is added after the look sets it again
            with self._lock:
                if not self._live:
                    self._thread = None
                    return
                live = list(self._live)
            rates = [1 / view.interval() for view in live]
            crowd = max(1.0, sum(rates) / _MESSAGES_PER_SECOND)
            load = sum(rate * view.cost for rate, view in zip(rates, live, strict=True)) / _SHARE
            now = time.monotonic()
            for view in live:
                if view.ended() or now >= view.due(crowd, load):
                    self._send(view, len(live))
            wait = min((view.due(crowd, load) for view in live), default=now) - time.monotonic()
            if wait > 0:
                self._woken.wait(wait)

    def _send(self, view: JobView, live: int) -> None:
        try:
            last = view.send(live)
        except Exception as exc:  # noqa: BLE001 - one view that cannot be sent must not end all others
            view.tell(f"its view could not be sent, and is given up: {headline(exc)}")
            last = True
        if last:
            with self._lock:
                if view not in self._live:
                    return
                self._live.remove(view)
                self._kept.append(view)
                gone = self._kept[:-_KEPT_VIEWS]
                del self._kept[:-_KEPT_VIEWS]
            for old in gone:
                old.close()


_pump = _Pump()


def show_job(job: Job, shell: Any, *, live: bool) -> JobView | None:
    """Show a job below the running cell: as a live view, or as it is now."""
    if live and job.status not in ENDED:
        view = JobView(job, shell)
        view.show()
        return view
    shell.display_pub.publish(data=static_bundle(job.snapshot()), metadata={"sage_nb": {"job": job.uuid}})
    return None
