"""What a `Job` asks of that which runs it: a dispatcher in this process, or the stand-in of one on a server."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

from sage_nb.engine.dispatcher import Order
from sage_nb.engine.failure import Failure
from sage_nb.engine.letters import Letters
from sage_nb.engine.log import JobLog
from sage_nb.engine.results import Result
from sage_nb.jobs.snapshot import JobSnapshot, Progress

__all__ = ["Description", "Run"]


class Run(Protocol):
    """One run of a pipeline. All may be asked from any thread."""

    @property
    def status(self) -> str: ...
    @property
    def results(self) -> Mapping[str, Result]: ...
    @property
    def dead_letters(self) -> Mapping[str, Letters]: ...
    @property
    def notes(self) -> list[str]: ...
    @property
    def log(self) -> JobLog: ...
    @property
    def error(self) -> BaseException | None: ...
    @property
    def failure(self) -> Failure | None: ...
    @property
    def done(self) -> threading.Event:
        """Set when the job has ended."""

    @property
    def clean(self) -> threading.Event:
        """Set when nothing of the job is left; with services that are kept, later than `done`."""

    @property
    def ends_with_its_waiter(self) -> bool:
        """Whether an interrupt of what waits for the job stops it."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def stop(self, grace: float = 10.0) -> None:
        """Ask for the end; returns at once."""

    def ask(self, order: Order) -> None:
        """Give an order as a click in a view does: on any thread, without waiting for what comes of it. Where it cannot
        be given, the job says so; one that comes too late is no matter."""

    def join(self) -> None:
        """After the end, wait for the last words of the job's own threads."""

    def is_own_thread(self) -> bool:
        """Whether the caller runs on a thread of the job, which cannot wait for the job's end."""

    def stream(self, name: str) -> AsyncIterator[list[Any]] | None:
        """The items of a `collect` as they come, at the pace of the one who iterates; None where `results` are all
        there is."""

    def say(self, text: str, level: str = "INFO") -> None:
        """A line for the log; from WARNING on, a note of the job too."""


class Description(Protocol):
    """What describes a run."""

    def progress(self) -> Progress: ...
    def snapshot(self) -> JobSnapshot: ...
