"""Times measured in turn, so that a machine whose speed drifts slows both alike, and the figure that comes of them."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["Disagreement", "Figure", "latency", "seconds", "side_by_side", "timed"]

T = TypeVar("T")

SLOW = 20.0
"""A run of more seconds than this is made `FEW` times only, and the first one counts."""
FEW = 3


class Disagreement(Exception):
    """The loop by hand found something else, so that the two times say nothing about each other."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What was found: a median, where there is one beside a loop by hand, and the median of the ratios run by run."""

    value: float
    """Seconds; of memory, MB."""
    runs: int
    hand: float | None = None
    ratio: float | None = None
    """Time ÷ that of the loop by hand, or what `faster` says."""
    low: float | None = None
    high: float | None = None
    """The smallest and the largest ratio; of a latency, `high` is its 95th percentile in seconds."""


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Wall-clock seconds of one run, and what it returned."""
    gc.collect()
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one run."""
    return timed(work)[0]


def side_by_side(
    run: Callable[[], T],
    by_hand: Callable[[], T],
    runs: int,
    *,
    normal: Callable[[T], object] = lambda result: result,
    faster: bool = False,
) -> Figure:
    """Run both `runs` times, alternately and each first in turn, after one run that does not count.

    Both must return the same, once put in order by `normal`. With `faster`, the ratio is that of the loop by hand to
    the run: how many times faster the run is.
    """
    wanted = normal(by_hand())

    def checked() -> float:
        took, result = timed(run)
        if (found := normal(result)) != wanted:
            raise Disagreement(f"the loop by hand found {_short(wanted)}, and not {_short(found)}")
        return took

    mine: list[float] = []
    other: list[float] = []
    if (first := checked()) > SLOW:
        runs = min(runs, FEW)
        mine.append(first)
        other.append(seconds(by_hand))
    while len(mine) < runs:
        if len(mine) % 2:
            mine.append(checked())
            other.append(seconds(by_hand))
        else:
            other.append(seconds(by_hand))
            mine.append(checked())
    ratios = sorted(b / a if faster else a / b for a, b in zip(mine, other, strict=True))
    return Figure(
        statistics.median(mine), runs, statistics.median(other), statistics.median(ratios), ratios[0], ratios[-1]
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def latency(declare: Callable[[], Callable[[], object]], runs: int = 300, warm_up: int = 20) -> Figure:
    """Each time `declare` a job anew and time what it returns, which runs the job: the median and the 95th percentile.

    The clock does not run while the job is declared.
    """
    times: list[float] = []
    for _ in range(warm_up + runs):
        submit = declare()
        began = time.perf_counter()
        submit()
        times.append(time.perf_counter() - began)
    counted = sorted(times[warm_up:])
    return Figure(statistics.median(counted), runs, high=counted[int(len(counted) * 0.95)])
