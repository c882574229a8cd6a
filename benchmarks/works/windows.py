"""W3: a count per key and second of event time, of a million events with a hundred keys."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from benchmarks.measure import Figure, side_by_side

__all__ = ["EVENTS", "KEYS", "SECONDS", "Event", "Result", "beside", "events", "key_of", "time_of"]

EVENTS = 1_000_000
KEYS = 100
SECONDS = 100

Event = tuple[float, str]


class Result(NamedTuple):
    key: str
    start: float
    end: float
    value: int


time_of: Callable[[Event], float] = lambda event: event[0]  # noqa: E731 - only lambdas are inlined
key_of: Callable[[Event], str] = lambda event: event[1]  # noqa: E731 - only lambdas are inlined


@cache
def events() -> list[Event]:
    """In the order of their times, 10,000 a second."""
    rng = random.Random(20130101)
    names = [f"key{n}" for n in range(KEYS)]
    rate = EVENTS // SECONDS
    return [(n / rate, names[rng.randrange(KEYS)]) for n in range(EVENTS)]


def by_hand() -> list[Result]:
    """What a window needs: key, time, watermark, the window an item falls into, its count, and the firing."""
    key, time = key_of, time_of
    fired: list[Result] = []
    put = fired.append
    windows: dict[float, dict[str, int]] = {}
    watermark, next_end = float("-inf"), float("inf")
    late = 0
    for event in events():
        name, at = key(event), time(event)
        if at > watermark:
            watermark = at
            if watermark >= next_end:
                next_end = _fire(windows, watermark, put)
        start = at // 1.0
        counts = windows.get(start)
        if counts is None:
            if start + 1.0 <= watermark:
                late += 1
                continue
            counts = windows[start] = {}
            next_end = min(next_end, start + 1.0)
        counts[name] = counts.get(name, 0) + 1
    _fire(windows, float("inf"), put)
    return fired


def _fire(windows: dict[float, dict[str, int]], watermark: float, put: Callable[[Result], None]) -> float:
    """Hand over the windows that end by `watermark`; the end of the next one."""
    for start in sorted(windows):
        if start + 1.0 > watermark:
            return start + 1.0
        for name, count in windows.pop(start).items():
            put(Result(name, start, start + 1.0, count))
    return float("inf")


def beside(run: Callable[[], list[Result]], runs: int) -> Figure:
    events()
    return side_by_side(run, by_hand, runs, normal=sorted)
