"""W6: 200 pieces of pure Python of 20 ms each, on two processes."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.measure import Figure, seconds, side_by_side

__all__ = ["PIECES", "PROCESSES", "beside", "spin"]

PIECES = 200
PROCESSES = 2
_SECONDS = 0.02


def spin(rounds: int) -> int:
    total = 0
    for n in range(rounds):
        total += n * n % 7
    return total


def calibrate() -> int:
    """How many rounds take 20 ms here. The work is then so many rounds, whatever the clock says later."""
    probe = 200_000
    once = statistics.median(seconds(lambda: spin(probe)) for _ in range(15))
    return int(probe * _SECONDS / once)


def beside(run: Callable[[list[int]], list[int]], runs: int) -> Figure:
    """`run` gives the results in the order of the pieces; one after the other is what it stands beside."""
    rounds = calibrate()
    pieces = [rounds + n for n in range(PIECES)]  # no two alike, so that a wrong order shows
    return side_by_side(lambda: run(pieces), lambda: [spin(n) for n in pieces], runs, faster=True)
