"""The tasks and services of a job on a server, as its newest description names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sage_nb.engine.dispatcher import ENDED
from sage_nb.engine.live import LiveView
from sage_nb.jobs.snapshot import JobSnapshot, OperatorView, ServiceView

__all__ = ["SeenDispatcher"]

_BEFORE = ("created", "queued")
_UP = ("starting", "running", "stopping")


class SeenDispatcher:
    """What the record of a job has as its `dispatcher` where the job runs on a server: live mappings, which are empty
    at the end. `describe` gives the newest description."""

    def __init__(self, describe: Callable[[], JobSnapshot]) -> None:
        self._describe = describe

    @property
    def tasks(self) -> Mapping[str, OperatorView]:
        """By name, the operator with which each task begins."""
        return LiveView(self._tasks)

    @property
    def services(self) -> Mapping[str, ServiceView]:
        """The services that are up, by name."""
        return LiveView(lambda: {one.name: one for one in self._describe().services if one.state in _UP})

    @property
    def is_running(self) -> bool:
        """Whether the job has begun, and has not ended."""
        return _runs(self._describe())

    def _tasks(self) -> dict[str, OperatorView]:
        seen = self._describe()
        heads: dict[int, OperatorView] = {}
        for one in seen.operators if _runs(seen) else ():
            heads.setdefault(one.stage, one)
        return {
            head.name if head.parallelism == 1 else f"{head.name}[{n}]": head
            for head in heads.values()
            for n in range(head.parallelism)
        }


def _runs(seen: JobSnapshot) -> bool:
    return seen.status not in ENDED and seen.status not in _BEFORE
