"""Where the jobs of `LocalEnvironment`s run that do not say so themselves: in this process, unless a place is in use.

`sage-nb run --remote` has a script's jobs run on a server this way, without a change to the script.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from sage_nb.jobs.job import Job

if TYPE_CHECKING:
    from sage_nb.engine.stages import Plan
    from sage_nb.jobs.environment import LocalEnvironment

__all__ = ["Place", "current_place", "use_place"]


class Place(Protocol):
    """What runs the jobs of environments, in place of this process's JobManager."""

    @property
    def jobmanager(self) -> Any:
        """What `env.jobmanager` is of an environment that was submitted here."""

    def start(self, env: LocalEnvironment, plan: Plan, **options: Any) -> Job:
        """Start a job of what `env` declares, all of which has been checked. `options` are those of `submit`."""


_current: Place | None = None


def current_place() -> Place | None:
    """The place that is in use; None for this process."""
    return _current


@contextmanager
def use_place(place: Place) -> Iterator[None]:
    """Have `place` start what `LocalEnvironment.submit` is asked for, in all threads, to the end of the block."""
    global _current
    before, _current = _current, place
    try:
        yield
    finally:
        _current = before
