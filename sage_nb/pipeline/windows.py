"""Windows: which items of a stream belong together in time.

The terms are those of Flink: a *tumbling* window follows the last without a gap, a *sliding* one begins every
`step`, a *session* ends once no item came for `gap`. In event time, the watermark says up to where the stream is
complete: the latest time seen, less `out_of_orderness`. A window fires when the watermark passes its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

from sage_nb.errors import PipelineError

__all__ = ["AGGREGATES", "Session", "Sliding", "Tumbling", "WindowResult", "WindowSpec", "duration"]

AGGREGATES = ("count", "sum", "mean", "min", "max", "first", "last", "list")


def duration(what: str, value: Any, *, zero: bool = False) -> float:
    """Seconds, from a number or a `timedelta`. Raises `PipelineError` where not above 0; with `zero`, where below."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not is_number or not (seconds >= 0 if zero else seconds > 0) or seconds == float("inf"):
        least = "0 or more" if zero else "above 0"
        raise PipelineError(f"{what} is a number of seconds {least}, or a timedelta; not {value!r}")
    return float(seconds)


@dataclass(frozen=True, slots=True, init=False)
class Tumbling:
    """Windows of `size` seconds (or a `timedelta`), one after the other, aligned to the epoch."""

    size: float

    def __init__(self, size: float | timedelta) -> None:
        object.__setattr__(self, "size", duration("Tumbling: size", size))


@dataclass(frozen=True, slots=True, init=False)
class Sliding:
    """Windows of `size` seconds (or a `timedelta`) that begin every `step`, aligned to the epoch."""

    size: float
    step: float

    def __init__(self, size: float | timedelta, step: float | timedelta) -> None:
        object.__setattr__(self, "size", duration("Sliding: size", size))
        object.__setattr__(self, "step", duration("Sliding: step", step))
        if self.step > self.size:
            raise PipelineError(
                f"Sliding: a step of {self.step:g} s above the size of {self.size:g} s would leave items out"
            )


@dataclass(frozen=True, slots=True, init=False)
class Session:
    """Windows that end once no item of the key came for `gap` seconds (or a `timedelta`)."""

    gap: float

    def __init__(self, gap: float | timedelta) -> None:
        object.__setattr__(self, "gap", duration("Session: gap", gap))


class WindowResult(NamedTuple):
    """What a window emits. `start` and `end` are seconds since the epoch, or `datetime`s where the event times are.

    The end is exclusive: of a session, the last item's time plus the gap. Of other windows, both are whole numbers
    where size and step are. Windows are aligned to the epoch in UTC; `datetime`s without a time zone are taken as UTC
    and come back without one, those with a time zone come back in UTC.
    """

    key: Any
    start: Any
    end: Any
    value: Any


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """A window operator: which windows, in which time, and what becomes of a window's items."""

    window: Tumbling | Sliding | Session
    event_time: Callable[[Any], Any] | None
    """Gives an item's time: seconds since the epoch as any number, or a `datetime`, `date` or numpy's `datetime64`.

    None for the clock's time of arrival.
    """
    out_of_orderness: float
    lateness: float
    aggregate: str | Callable[[list[Any]], Any]
    """One of `AGGREGATES`, or a function of the list of the window's values, in order of arrival."""
    value: Callable[[Any], Any] | None
    """Gives the value of an item that is aggregated; None for the item itself."""
