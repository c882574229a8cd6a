"""W1: a million integers through map, filter, map and a sum."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measure import Figure, side_by_side
from benchmarks.works.sinks import Sum

__all__ = ["ITEMS", "add_one", "beside", "by_hand", "is_even", "triple"]

ITEMS = 1_000_000

add_one: Callable[[int], int] = lambda x: x + 1  # noqa: E731 - only lambdas are inlined
is_even: Callable[[int], bool] = lambda x: x % 2 == 0  # noqa: E731 - only lambdas are inlined
triple: Callable[[int], int] = lambda x: x * 3  # noqa: E731 - only lambdas are inlined


def by_hand() -> int:
    f, g, h = add_one, is_even, triple
    sink = Sum()
    add = sink.add
    for x in range(ITEMS):
        y = f(x)
        if g(y):
            add(h(y))
    return sink.total


def beside(run: Callable[[], int], runs: int) -> Figure:
    return side_by_side(run, by_hand, runs)
