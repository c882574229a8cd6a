"""Pairs of times measured in turn, so that a machine whose speed drifts slows both alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Pair", "seconds", "side_by_side"]


@dataclass(frozen=True, slots=True)
class Pair:
    """Medians in seconds, and the median of the ratios run by run."""

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one run."""
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def side_by_side(ours: Callable[[], object], theirs: Callable[[], object], runs: int) -> Pair:
    """Run both `runs` times, alternately and each first in turn, after one run that does not count."""
    ours()
    theirs()
    mine: list[float] = []
    other: list[float] = []
    for n in range(runs):
        if n % 2:
            mine.append(seconds(ours))
            other.append(seconds(theirs))
        else:
            other.append(seconds(theirs))
            mine.append(seconds(ours))
    ratios = sorted(a / b for a, b in zip(mine, other, strict=True))
    return Pair(statistics.median(mine), statistics.median(other), statistics.median(ratios), ratios[0], ratios[-1])
