"""W6: 200 pieces of pure Python of 20 ms each, on two processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable

from benchmarks.measure import Figure, seconds, side_by_side

__all__ = ["PIECES", "PROCESSES", "beside", "beside_bare", "serve", "spin"]

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


def beside_bare(runs: int) -> Figure:
    """Two processes that are up when the clock starts, and do half of the pieces each."""
    rounds = calibrate()
    halves = [[rounds + n for n in range(PIECES)][k::PROCESSES] for k in range(PROCESSES)]
    code = "from benchmarks.works.cpu import serve; serve({!r})"
    started = [
        subprocess.Popen([sys.executable, "-c", code.format(half)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for half in halves
    ]

    def both() -> bool:
        pipes = [(one.stdin, one.stdout) for one in started]
        for asked, _ in pipes:
            assert asked is not None
            asked.write(b"\n")
            asked.flush()
        return all(answer is not None and answer.readline() for _, answer in pipes)

    def one_by_one() -> bool:
        return sum(len([spin(n) for n in half]) for half in halves) == PIECES

    try:
        return side_by_side(both, one_by_one, runs, faster=True)
    finally:
        for one in started:
            one.communicate()


def serve(pieces: list[int]) -> None:
    """Do the pieces once for each line read."""
    for _ in sys.stdin:
        for n in pieces:
            spin(n)
        print("done", flush=True)


def beside(run: Callable[[list[int]], list[int]], runs: int) -> Figure:
    """`run` gives the results in the order of the pieces; one after the other is what it stands beside."""
    rounds = calibrate()
    pieces = [rounds + n for n in range(PIECES)]  # no two alike, so that a wrong order shows
    return side_by_side(lambda: run(pieces), lambda: [spin(n) for n in pieces], runs, faster=True)
