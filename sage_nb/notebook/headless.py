"""Waiting at the end of a cell that nobody watches: nbclient, papermill, IPython in a terminal.

There, what comes after the cell's end is lost, and a failed job must fail the cell.
"""

from __future__ import annotations

import sys
import uuid
from typing import Any

from sage_nb.jobs.job import Job
from sage_nb.notebook.kernel import Cell
from sage_nb.notebook.text import render_line, render_text
from sage_nb.notebook.view import static_bundle

__all__ = ["wait_at_cell_end"]

_FIRST_UPDATE = 1.0
_UPDATE_EVERY = 2.0


def wait_at_cell_end(job: Job, shell: Any, cell: Cell) -> None:
    """Show the job until it ends. Raises the job's exception where it failed."""
    __tracebackhide__ = True
    if cell.kernel:
        _wait_in_kernel(job, shell)
    else:
        _wait_in_terminal(job)
    job.wait()


def _wait_in_kernel(job: Job, shell: Any) -> None:
    display_id = uuid.uuid4().hex
    update = False
    while True:
        ended = job._dispatcher.done.wait(_UPDATE_EVERY if update else _FIRST_UPDATE)
        shell.display_pub.publish(
            data=static_bundle(job.snapshot()),
            metadata={"sage_nb": {"job": job.uuid}},
            transient={"display_id": display_id},
            update=update,
        )
        if ended:
            return
        update = True


def _wait_in_terminal(job: Job) -> None:
    tty = sys.stderr.isatty()
    while not job._dispatcher.done.wait(0.25):
        if tty:
            print(f"\r\x1b[K{render_line(job.snapshot())}", end="", file=sys.stderr, flush=True)
    if tty:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(render_text(job.snapshot()))
