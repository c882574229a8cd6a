"""The one description of a job that every view draws.

A `JobSnapshot` is plain data: numbers, and text that is already formatted for people. It holds no object of
the user's, so it can be kept in the history, sent to a page and written into a notebook. The widget, the
static HTML and the text view all draw from it and from nothing else; whatever two views show of a job is
therefore the same.

Times are seconds; `started` and `LogView.time` are seconds since the epoch; rates are items per second over
the last two seconds while the job runs, and the mean over the whole run afterwards.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sage_nb.engine.rows import ColumnType
from sage_nb.jobs.drawing import Drawing, drawing_of
from sage_nb.jobs.plain import plain

__all__ = [
    "CodeLine",
    "ColumnType",
    "DeadLetterView",
    "ErrorView",
    "JobSnapshot",
    "LogView",
    "OperatorView",
    "OutputView",
    "Progress",
    "ResultView",
    "ServiceView",
]


class _View(msgspec.Struct, frozen=True, kw_only=True):
    """A record whose fields can be read by key as well: `view["name"]`."""

    def __getitem__(self, key: str) -> Any:
        if key not in self.__struct_fields__:
            raise KeyError(key)
        return getattr(self, key)


Status = Literal[
    "created",
    "queued",
    "starting",
    "running",
    "paused",
    "stopping",
    "restarting",
    "completed",
    "failed",
    "stopped",
]


class OperatorView(_View, frozen=True, kw_only=True):
    """One operator: its place in the picture and its counters."""

    id: int
    name: str
    kind: str
    """`source`, `future` (a feedback edge's head), `late` (a window's late items), `map`, `filter`, `flatmap`, `async`,
    `batches`, `take`, `keyby`, `reduce`, `count`, `sum`, `min`, `max`, `mean`, `process`, `window`, `comap`,
    `join`, `interval_join`, `sink`, `print`, `collect` or `show`."""
    col: int
    row: int
    """Place in the picture, from 0. The data flow from low columns to high ones."""
    upstream: tuple[int, ...] = ()
    """Ids of the operators whose items this one gets: several where streams merge, a later one where a loop closes."""
    stage: int = 0
    """The number of its stage in the plan, from 1; operators of one stage run as one loop. 0 where there is no plan."""
    parallelism: int = 1
    """Instances of it that run at the same time."""
    executor: Literal["thread", "process", "actor"] = "thread"
    items_in: int = 0
    items_out: int = 0
    rate: float = 0.0
    busy: float | None = None
    """Share of the time, 0 to 1, in which the operator was seen at work; None until it was looked at often enough."""
    queued: int = 0
    """Items that wait before it."""
    blocked: float | None = None
    """Share of the last seconds, 0 to 1, in which it waited for the next operators to take its items; None where it
    hands them to nobody, or was not looked at often enough."""
    p50: float | None = None
    """Seconds that half of the items take at most, by a sample; None where none was timed."""
    p99: float | None = None
    errors: int = 0
    """Items at which it failed, also those that were skipped or kept as dead letters."""
    late: int = 0
    """Items that came too late for their windows and that nothing takes."""
    where: str | None = None
    """Where it was declared, as a person would say it: `Cell In[3], line 4`."""


class ServiceView(_View, frozen=True, kw_only=True):
    """One service."""

    name: str
    type: str
    state: str
    """`waiting`, `starting`, `running`, `stopping`, `stopped`, `kept`, `failed` or `hung`."""
    calls: int = 0
    note: str | None = None


class ResultView(_View, frozen=True, kw_only=True):
    """The last rows of one named result, as text."""

    name: str
    kind: str
    """`collect` or `show`."""
    total: int
    """Items so far; more than `rows` holds where the last ones only are shown."""
    columns: tuple[str, ...]
    types: tuple[ColumnType, ...] = ()
    """For each column, what its values are: by that they are sorted, and numbers are aligned to the right."""
    rows: tuple[tuple[str, ...], ...]
    shape: tuple[int, int] | None = None
    """Rows and columns of the newest item, where that is a frame or a table by itself."""
    picture: str | None = None
    """The newest item as a picture, where it is one: a `data:` address of a PNG or JPEG file."""
    kept: int | None = None
    """How many of the items the job still has; None for all."""

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column, whether it holds numbers."""
        return tuple(one == "number" for one in self.types)


class DeadLetterView(_View, frozen=True, kw_only=True):
    """The last of the items at which one operator failed, and why."""

    operator: str
    total: int
    """Dead letters so far; more than `rows` holds where the last ones only are shown."""
    rows: tuple[tuple[str, str], ...] = ()
    """The item, and the error in one line."""


class LogView(_View, frozen=True, kw_only=True):
    """One line of the job's log."""

    time: float
    level: str
    """`DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`."""
    source: str
    """The operator or service that said it; `job` for the job itself."""
    text: str


class OutputView(_View, frozen=True, kw_only=True):
    """What a job has printed, where that was more than goes into its cell."""

    total: int
    """Lines in all."""
    held: int
    """Lines that are not in the cell."""
    lines: tuple[str, ...] = ()
    """The last ones."""


class CodeLine(_View, frozen=True, kw_only=True):
    """One line of the user's code around an error."""

    number: int
    text: str
    marked: bool = False


class ErrorView(_View, frozen=True, kw_only=True):
    """Why a job failed."""

    type: str
    message: str
    operator: str | None = None
    item: str | None = None
    where: str | None = None
    code: tuple[CodeLine, ...] = ()
    traceback: str = ""


class Progress(_View, frozen=True, kw_only=True):
    """What `job.progress` gives: one entry per operator, in the order of their declaration, and one per service."""

    operators: tuple[OperatorView, ...]
    services: tuple[ServiceView, ...]

    def __repr__(self) -> str:
        """A line for each, below the names of what can be asked of it."""
        heads = ("name", "kind", "items_in", "items_out", "rate", "busy", "queued", "errors", "late")
        rows = [heads, *(_counters(op) for op in self.operators)]
        if not any(op.late for op in self.operators):
            rows = [row[:-1] for row in rows]
        sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join([*map(str.ljust, row[:2], sizes), *map(str.rjust, row[2:], sizes[2:])]) for row in rows]
        lines += [f"service {plain(service.name)}: {service.state}" for service in self.services]
        return "\n".join(lines)


def _counters(op: OperatorView) -> tuple[str, ...]:
    busy = "" if op.busy is None else f"{op.busy:.0%}"
    counts = (f"{op.items_in:,}", f"{op.items_out:,}", f"{op.rate:,.1f}", busy, f"{op.queued:,}", f"{op.errors:,}")
    return plain(op.name), op.kind, *counts, f"{op.late:,}"


class JobSnapshot(_View, frozen=True, kw_only=True):
    """A job at one moment."""

    uuid: str
    name: str
    status: Status
    backend: str = "threads"
    server: str | None = None
    """`HOST:PORT` of the JobManager server that runs it; None where the kernel does."""
    attempt: int = 1
    """2 or more after restarts; counters and results are those of this attempt."""
    started: float | None = None
    elapsed: float = 0.0
    items: int = 0
    """Items that the sources have emitted so far."""
    rate: float = 0.0
    total: int | None = None
    """Items that the sources hold in all, where that is known."""
    fraction: float | None = None
    """Share of the sources' input that has been read, 0 to 1, where that is known."""
    eta: float | None = None
    """Estimated seconds to the end, where that is known."""
    rates: tuple[float, ...] = ()
    """Items per second from the start until now, in at most 60 parts of the same length; empty in the first moments."""
    waiting_for: str | None = None
    """What a start or a stop is waiting for at this moment."""
    operators: tuple[OperatorView, ...] = ()
    drawing: Drawing | None = None
    """Where the operators lie in the picture; `to_dict` adds it where it is not known."""
    services: tuple[ServiceView, ...] = ()
    results: tuple[ResultView, ...] = ()
    dead_letters: tuple[DeadLetterView, ...] = ()
    logs: tuple[LogView, ...] = ()
    """The last lines only; `log_total` counts all."""
    log_total: int = 0
    output: OutputView | None = None
    """None where the cell has all that was printed."""
    error: ErrorView | None = None
    reason: str | None = None
    """Why it has stopped, where nobody asked it to: `its kernel is gone`."""
    notes: tuple[str, ...] = ()
    """What the reader should know beside the state: warnings, calls that could not be interrupted."""

    def to_dict(self) -> dict[str, Any]:
        """The snapshot as JSON-able data: dicts, lists, numbers, strings and None."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        if self.drawing is None:
            data["drawing"] = msgspec.to_builtins(drawing_of(self.operators))
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> JobSnapshot:
        """The inverse of `to_dict`. Raises `msgspec.ValidationError` where `data` is not of that form."""
        return msgspec.convert(data, cls)
