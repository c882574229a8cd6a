"""Feedback: items go round until something drops them, and the job ends when nothing is under way any more."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from tests.parity.case import Cases

__all__ = ["cases"]

cases = Cases("loops")


def collatz(pair: tuple[int, int, int]) -> tuple[int, int, int]:
    start, n, steps = pair
    return (start, n // 2, steps + 1) if n % 2 == 0 else (start, 3 * n + 1, steps + 1)


def collatz_steps(n: int) -> int:
    steps = 0
    while n != 1:
        n, steps = (n // 2 if n % 2 == 0 else 3 * n + 1), steps + 1
    return steps


def children(path: str) -> list[str]:
    return [path + letter for letter in "lmr"] if len(path) < 4 else []


def tree(path: str = "") -> Iterator[str]:
    for child in children(path):
        yield child
        yield from tree(child)


ROADS = {"a": "bc", "b": "ad", "c": "d", "d": "ae", "e": "", "x": "a"}


def first_visit(place: str, ctx: Any) -> str | None:
    if "visited" in ctx.state:
        return None
    ctx.state["visited"] = True
    return place


async def less_one(n: int) -> int:
    await asyncio.sleep(0)
    return n - 1


@cases.add([m for n in range(12) for m in range(n, 0, -1)], alone="any")
def count_down(env: Any, p: int) -> Any:
    again = env.from_future("again")
    both = env.from_batch(range(12)).connect(again).filter(lambda n: n > 0, parallelism=p)
    both.map(lambda n: n - 1, parallelism=p).fill_future(again)
    return both


@cases.add([0] * 8, alone="any")
def items_go_round_until_they_are_done(env: Any, p: int) -> Any:
    again = env.from_future("again")
    less = env.from_batch(range(1, 9)).connect(again).map(lambda n: n - 1, parallelism=p)
    less.filter(lambda n: n > 0).fill_future(again)
    return less.filter(lambda n: n == 0, parallelism=p)


@cases.add([(n, collatz_steps(n)) for n in range(1, 40)], alone="any")
def collatz_lengths(env: Any, p: int) -> Any:
    again = env.from_future("again")
    all = env.from_batch([(n, n, 0) for n in range(1, 40)]).connect(again)
    all.filter(lambda item: item[1] != 1).map(collatz, parallelism=p).fill_future(again)
    return all.filter(lambda item: item[1] == 1, parallelism=p).map(lambda item: (item[0], item[2]))


@cases.add(list(tree()), alone="any")
def a_tree_that_grows(env: Any, p: int) -> Any:
    again = env.from_future("again")
    grown = env.from_batch([""]).connect(again).flatmap(children, parallelism=p)
    grown.fill_future(again)
    return grown


@cases.add([0, 1, 2, 3], alone="any")
def a_loop_that_drops_everything(env: Any, p: int) -> Any:
    again = env.from_future("again")
    all = env.from_batch(range(4)).connect(again).map(lambda x: x, parallelism=p)
    all.filter(lambda x: False).fill_future(again)
    return all


@cases.add([], alone="any")
def a_loop_without_items(env: Any, p: int) -> Any:
    again = env.from_future("again")
    all = env.from_batch([]).connect(again).map(lambda x: x, parallelism=p)
    all.fill_future(again)
    return all


@cases.add([m for n in range(6) for m in range(n, -1, -1)], alone="any", more={"beside": [n * n for n in range(6)]})
def a_loop_beside_another_branch(env: Any, p: int) -> Any:
    source = env.from_batch(range(6))
    source.map(lambda n: n * n, parallelism=p).collect("beside")
    again = env.from_future("again")
    all = source.connect(again).map(lambda n: n, parallelism=p)
    all.filter(lambda n: n > 0).map(lambda n: n - 1).fill_future(again)
    return all


@cases.add([4, 3, 2, 1, 0] * 5, alone="any", more={"up": [5] * 5})
def two_loops_one_after_the_other(env: Any, p: int) -> Any:
    up = env.from_future("up")
    rising = env.from_batch(range(1, 6)).connect(up).map(lambda n: n, parallelism=p)
    rising.filter(lambda n: n < 5).map(lambda n: n + 1).fill_future(up)
    risen = rising.filter(lambda n: n == 5).collect("up")
    down = env.from_future("down")
    falling = risen.connect(down).map(lambda n: n - 1, parallelism=p)
    falling.filter(lambda n: n > 0).fill_future(down)
    return falling


@cases.add([(m, k) for n in range(4) for m in range(n + 1) for k in range(3)], alone="any")
def a_loop_within_a_loop(env: Any, p: int) -> Any:
    outer, inner = env.from_future("outer"), env.from_future("inner")
    started = env.from_batch([(n, 0) for n in range(4)]).connect(outer)
    all = started.connect(inner).map(lambda item: item, parallelism=p)
    all.filter(lambda item: item[1] < 2).map(lambda item: (item[0], item[1] + 1)).fill_future(inner)
    done = all.filter(lambda item: item[1] == 2 and item[0] > 0, parallelism=p)
    done.map(lambda item: (item[0] - 1, 0)).fill_future(outer)
    return all


@cases.add(sorted("abcde"), alone="any")
def places_within_reach(env: Any, p: int) -> Any:
    again = env.from_future("again")
    new = env.from_batch("a").connect(again).keyby(lambda place: place).process(first_visit, parallelism=p)
    new.flatmap(lambda place: list(ROADS[place]), parallelism=p).fill_future(again)
    return new


@cases.add([m for n in (3, 1, 2) for m in range(n)], alone="any")
def a_loop_over_coroutines(env: Any, p: int) -> Any:
    again = env.from_future("again")
    less = env.from_batch([3, 1, 2]).connect(again).map_async(less_one, ordered=False, parallelism=p)
    less.filter(lambda n: n > 0).fill_future(again)
    return less


@cases.add([n * n for m in range(10) for n in range(m)], alone="any")
def batches_behind_a_loop(env: Any, p: int) -> Any:
    again = env.from_future("again")
    less = env.from_batch(range(10)).connect(again).filter(bool, parallelism=p).map(lambda n: n - 1)
    less.fill_future(again)
    return less.map_batches(lambda some: [n * n for n in some], size=4, parallelism=p)


@cases.add([m for n in range(500) for m in (n, n + 1000, n + 2000)], alone="any")
def a_loop_of_many_items(env: Any, p: int) -> Any:
    again = env.from_future("again")
    all = env.from_batch(range(500)).connect(again).map(lambda n: n, parallelism=p)
    all.filter(lambda n: n < 2000, parallelism=p).map(lambda n: n + 1000).fill_future(again)
    return all
