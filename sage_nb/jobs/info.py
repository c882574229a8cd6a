"""`JobInfo`: the record of one job, which stays in the history without the user's objects."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from sage_nb.jobs.snapshot import JobSnapshot

__all__ = ["EndedDispatcher", "JobInfo"]


class _DispatcherFace(Protocol):
    @property
    def tasks(self) -> Mapping[str, Any]: ...
    @property
    def services(self) -> Mapping[str, Any]: ...
    @property
    def is_running(self) -> bool: ...


class EndedDispatcher:
    """What a record keeps of a dispatcher whose job has ended: nothing."""

    tasks: Mapping[str, Any] = MappingProxyType({})
    services: Mapping[str, Any] = MappingProxyType({})
    is_running = False


@dataclass
class JobInfo:
    """The record of one job. Times are seconds since the epoch."""

    uuid: str
    name: str
    environment: str
    status: str = "created"
    autostop: bool = False
    start_time: float | None = None
    stop_time: float | None = None
    restart_count: int = 0
    last_update: float = field(default_factory=time.time)
    error: str | None = None
    dispatcher: _DispatcherFace = field(default_factory=EndedDispatcher, repr=False, compare=False)
    snapshot: JobSnapshot | None = field(default=None, repr=False, compare=False)
    """The last description of the job; None until it has ended."""
    told: bool = field(default=False, repr=False, compare=False)
    """Whether somebody has been given the job's exception."""

    @property
    def runtime(self) -> float:
        """Seconds from the start to the end, or until now."""
        if self.start_time is None:
            return 0.0
        return (self.stop_time or time.time()) - self.start_time

    def get_summary(self) -> dict[str, Any]:
        """The record in short."""
        return {
            "uuid": self.uuid,
            "name": self.name,
            "status": self.status,
            "autostop": self.autostop,
            "start_time": self.start_time,
            "runtime": self.runtime,
            "restart_count": self.restart_count,
            "last_update": self.last_update,
        }

    def get_status(self) -> dict[str, Any]:
        """The record in full; tasks and services are counted as they are now."""
        live = {
            "task_count": len(self.dispatcher.tasks),
            "service_count": len(self.dispatcher.services),
            "is_running": self.dispatcher.is_running,
        }
        return {
            **self.get_summary(),
            **live,
            "environment": self.environment,
            "dispatcher": dict(live),
            "error": self.error,
            "stop_time": self.stop_time,
        }
