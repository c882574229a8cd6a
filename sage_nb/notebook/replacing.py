"""What the cells of a notebook have submitted and shown: a cell that runs again replaces it."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from sage_nb.errors import ServerError
from sage_nb.jobs.job import Job
from sage_nb.notebook.kernel import Cell
from sage_nb.notebook.view import JobView

__all__ = ["Shown"]


@dataclass(frozen=True, slots=True)
class _One:
    """A job below a cell. While it runs, a JobManager holds it; then whoever wants its results."""

    run: str | None
    job: weakref.ref[Job]
    view: JobView | None
    submitted: bool
    """Whether the cell submitted it; else it has attached to it."""


class Shown:
    """The jobs below each cell."""

    def __init__(self) -> None:
        self._by_cell: dict[str, list[_One]] = {}
        self._newest: dict[str, int] = {}

    def note(self, job: Job, count: int) -> None:
        """The whole of `job` is shown below the execution of that number."""
        self._newest = {uuid: at for uuid, at in self._newest.items() if at >= count - 1} | {job.uuid: count}

    def is_just_above(self, job: Job, count: int) -> bool:
        """Whether the execution of that number, or the one before, shows the whole of `job`."""
        return self._newest.get(job.uuid, -1) >= count - 1

    def add(self, cell: Cell, job: Job, view: JobView | None, *, submitted: bool) -> None:
        """`job` is below `cell` from now on."""
        if cell.id is not None:
            self._by_cell.setdefault(cell.id, []).append(_One(cell.run, weakref.ref(job), view, submitted))

    def cells(self) -> dict[str, str]:
        """The cell that each job is below, by the job's uuid; of several, the one that submitted it."""
        shown = [(one, cell) for cell, ones in list(self._by_cell.items()) for one in list(ones)]
        shown.sort(key=lambda pair: pair[0].submitted)
        return {job.uuid: cell for one, cell in shown if (job := one.job()) is not None}

    def replace(self, cell: Cell, *, spare: str | None = None) -> None:
        """Stop and clean what earlier runs of `cell` submitted, but for the job `spare`, and close its views."""
        if cell.id is None:
            return
        ones = self._by_cell.pop(cell.id, [])
        earlier = [one for one in ones if one.run != cell.run]
        self._by_cell[cell.id] = [one for one in ones if one.run == cell.run]
        jobs = [job for one in earlier if one.submitted and (job := one.job()) is not None and job.uuid != spare]
        for one in earlier:
            if one.view is not None:
                one.view.close()
        for job in [job for job in jobs if _done(job, job.request_stop)]:
            _done(job, job.stop)


def _done(job: Job, order: Callable[[], object]) -> bool:
    """Whether a job could be given an order: a server may be gone, and that must not keep the cell from running."""
    try:
        order()
    except ServerError as exc:
        print(f"sage_nb: job {job.name!r} {job.uuid[:8]} was not stopped, and may still run: {exc}", file=sys.stderr)
        return False
    return True
