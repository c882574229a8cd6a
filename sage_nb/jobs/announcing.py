"""Who is told of the jobs of this process: those that it runs, and those of servers that it holds handles on.

A kernel under a Jupyter server that has sage_nb's extension tells that one; see `sage_nb.notebook.announce`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sage_nb.jobs.job import Job

__all__ = ["announce", "use_announcer"]

_announce: Callable[[Job], None] = lambda job: None  # noqa: E731


def use_announcer(announcer: Callable[[Job], None]) -> None:
    """Have `announcer(job)` called for each job that is submitted or attached to, on the thread that does it, when the
    job can be asked for a snapshot. It returns at once, and raises nothing."""
    global _announce
    _announce = announcer


def announce(job: Job) -> None:
    """Tell of a job."""
    _announce(job)
