"""W2: a running sum per key, of a million pairs with a thousand keys."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

from benchmarks.measure import Figure, side_by_side
from benchmarks.works.sinks import Pairs

__all__ = ["ITEMS", "KEYS", "Pair", "add_values", "beside", "beside_final", "key_of", "pairs"]

ITEMS = 1_000_000
KEYS = 1_000

Pair = tuple[str, int]

key_of: Callable[[Pair], str] = lambda pair: pair[0]  # noqa: E731 - only lambdas are inlined
add_values: Callable[[Pair, Pair], Pair] = lambda so_far, pair: (so_far[0], so_far[1] + pair[1])  # noqa: E731 - only lambdas are inlined


@cache
def pairs() -> list[Pair]:
    """Keys are text, because Bytewax takes no others."""
    rng = random.Random(20130101)
    names = [f"key{n}" for n in range(KEYS)]
    return [(names[rng.randrange(KEYS)], rng.randrange(100)) for _ in range(ITEMS)]


def by_hand() -> int:
    key, reduce = key_of, add_values
    sink = Pairs()
    add = sink.add
    sums: dict[str, Pair] = {}
    for pair in pairs():
        name = key(pair)
        if name in sums:
            pair = reduce(sums[name], pair)
        sums[name] = pair
        add(pair)
    return sink.total


def beside(run: Callable[[], int], runs: int) -> Figure:
    """`run` adds up all the running sums."""
    pairs()
    return side_by_side(run, by_hand, runs)


def final_by_hand() -> list[Pair]:
    key, reduce = key_of, add_values
    sums: dict[str, Pair] = {}
    for pair in pairs():
        name = key(pair)
        if name in sums:
            pair = reduce(sums[name], pair)
        sums[name] = pair
    return list(sums.values())


def beside_final(run: Callable[[], list[Pair]], runs: int) -> Figure:
    """For those that give each key's sum at the end only. The loop by hand does no more then either."""
    pairs()
    return side_by_side(run, final_by_hand, runs, normal=sorted)
