"""Waiting at the end of a cell that nobody watches: nbclient, papermill, IPython in a terminal.

There, what comes after the cell's end is lost, and a failed job must fail the cell.

A log, such as papermill's, has each display as it was at first, and no update of one. So the job's last state is a
display of its own. What is there before is for those that read updates, and for a notebook that is written while its
cells run: it becomes one line, so that the notebook has the job once. A log hears of a long run by lines on stderr.
"""

from __future__ import annotations

import sys
import time
import uuid
from typing import Any

from sage_nb.jobs.job import Job
from sage_nb.notebook import words
from sage_nb.notebook.kernel import Cell
from sage_nb.notebook.text import render_line, render_text
from sage_nb.notebook.view import static_bundle

__all__ = ["wait_at_cell_end"]

_FIRST_UPDATE = 10.0
_UPDATE_EVERY = 2.0
_FIRST_SIGN = 10.0
_SIGN_EVERY = 300.0
_OURS = "sage_nb: "


def wait_at_cell_end(job: Job, shell: Any, cell: Cell) -> None:
    """Show the job until it ends. Raises the job's exception where it failed.

    An interrupt raises `KeyboardInterrupt`, wherever it comes, and stops a job that ends with its waiter.
    """
    __tracebackhide__ = True
    try:
        if cell.kernel:
            _wait_in_kernel(job, shell)
        else:
            _wait_in_terminal(job)
        job.wait()
    except KeyboardInterrupt as exc:
        raise job._waiter_interrupted(exc) from None


class _Signs:
    """Lines on stderr that a job goes on: after 10 s, then whenever it has run twice as long, or five minutes more."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._began = time.monotonic()
        self._due = _FIRST_SIGN

    def look(self) -> None:
        """Print one where it is time."""
        if time.monotonic() - self._began >= self._due:
            self._due += min(self._due, _SIGN_EVERY)
            print(f"{_OURS}{render_line(self._job.snapshot(), 80 - len(_OURS))}", file=sys.stderr, flush=True)


def _wait_in_kernel(job: Job, shell: Any) -> None:
    __tracebackhide__ = True
    signs, live = _Signs(job), uuid.uuid4().hex
    ours = {"sage_nb": {"job": job.uuid}}

    def publish(bundle: dict[str, Any], *, of: str, update: bool = False) -> None:
        shell.display_pub.publish(data=bundle, metadata=ours, transient={"display_id": of}, update=update)

    began = time.time()
    if not job._wait_done(_FIRST_UPDATE):
        snapshot = job.snapshot()
        publish(static_bundle(snapshot) | {"text/plain": render_line(snapshot)}, of=live)
        while not job._wait_done(_UPDATE_EVERY):
            publish(static_bundle(job.snapshot()), of=live, update=True)
            signs.look()
        took = f"{job.name}: {words.clock(began)} to {words.clock(time.time())}"
        publish({"text/plain": words.fit(words.plain(took), 80)}, of=live, update=True)
    publish(static_bundle(job.snapshot()), of=uuid.uuid4().hex)


def _wait_in_terminal(job: Job) -> None:
    __tracebackhide__ = True
    tty, signs = sys.stderr.isatty(), _Signs(job)
    while not job._wait_done(0.25):
        if tty:
            print(f"\r\x1b[K{render_line(job.snapshot())}", end="", file=sys.stderr, flush=True)
        else:
            signs.look()
    if tty:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(render_text(job.snapshot()))
