"""Nothing is lost, whoever is slow and whoever ends first; what is there goes on without waiting for more."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage_nb import BaseCoMapFunction, BaseJoinFunction, LocalEnvironment, MapFunction
from tests.support import LIMIT, Gate, counts, until

RUNS = 200
SOON = 3.0
"""Seconds; far more than the 10 ms that batching may add."""


def again_and_again(build: Callable[[LocalEnvironment, int], Any], expected: list[Any]) -> None:
    """Run what `build` declares, with the number of the run; the items that come out have to be the `expected` ones."""
    for run in range(RUNS):
        env = LocalEnvironment("run")
        build(env, run).collect("out")
        got = Counter(env.submit(autostop=True, timeout=LIMIT).results["out"])
        assert got == Counter(expected), f"run {run}: lost {Counter(expected) - got}, besides {got - Counter(expected)}"


class SlowFirst(MapFunction):
    """The first instance takes its time with each item."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.never = threading.Event()

    def execute(self, data: int) -> int:
        if self.ctx.parallel_index == 0:
            self.never.wait(self.seconds)
        return data


class Tells(BaseCoMapFunction):
    def map0(self, data: int) -> tuple[str, int]:
        return "few", data

    def map1(self, data: int) -> tuple[str, int]:
        return "many", data


class Pairs(BaseJoinFunction):
    def __init__(self) -> None:
        self.seen: dict[Any, tuple[list[Any], list[Any]]] = {}

    def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
        both = self.seen.setdefault(key, ([], []))
        both[tag].append(payload)
        return [(payload, other) if tag == 0 else (other, payload) for other in both[1 - tag]]


def until_told(items: range, ended: threading.Event, before: threading.Event | None) -> Iterator[int]:
    """The items, the last one only after `before`; says when it is at its end."""
    yield from items[:-1]
    if before is not None:
        assert before.wait(LIMIT)
    yield items[-1]
    ended.set()


def test_a_slow_instance_beside_fast_ones_loses_nothing() -> None:
    def build(env: LocalEnvironment, run: int) -> Any:
        stream = env.from_batch(range(30)).keyby(lambda x: x, strategy="round_robin")
        return stream.map(SlowFirst, 0.0002, parallelism=3).map(lambda x: -x, parallelism=run % 3 + 1)

    again_and_again(build, [-x for x in range(30)])


def test_three_items_beside_thirty_all_reach_the_comap() -> None:
    def build(env: LocalEnvironment, run: int) -> Any:
        few, many = env.from_batch(range(3)), env.from_batch(range(30))
        return few.connect(many).comap(Tells, parallelism=run % 4 + 1)

    again_and_again(build, [*(("few", x) for x in range(3)), *(("many", x) for x in range(30))])


@pytest.mark.parametrize("first", [0, 1], ids=["the left ends first", "the right ends first"])
def test_a_join_whose_sources_end_at_different_times_gives_every_pair(first: int) -> None:
    def build(env: LocalEnvironment, run: int) -> Any:
        ended = threading.Event(), threading.Event()
        sides = []
        for side, items in enumerate((range(12), range(100, 115))):
            before = None if side == first else ended[first]
            sides.append(env.from_batch(until_told, items, ended[side], before).keyby(lambda x: x % 5))
        return sides[0].connect(sides[1]).join(Pairs, parallelism=run % 4 + 1)

    again_and_again(build, [(a, b) for a in range(12) for b in range(100, 115) if a % 5 == b % 5])


def test_falsy_keys_over_three_instances_count_every_item() -> None:
    keys = [0, "", None, False]  # the first and the last are equal, and one key

    def build(env: LocalEnvironment, run: int) -> Any:
        return env.from_batch(keys * 10).keyby(lambda key: key).count(parallelism=3)

    again_and_again(build, [*((k, n) for k in ("", None) for n in range(1, 11)), *((0, n) for n in range(1, 21))])


def test_a_loop_beside_a_branch_ends_by_itself_with_every_item() -> None:
    def build(env: LocalEnvironment, run: int) -> Any:
        source, again = env.from_batch(range(6)), env.from_future("again")
        loop = source.connect(again).map(lambda n: n, parallelism=run % 3 + 1)
        loop.filter(lambda n: n > 0).map(lambda n: n - 1, parallelism=2).fill_future(again)
        return loop.connect(source.map(lambda n: -n, parallelism=2)).map(lambda n: n)

    again_and_again(build, [m for n in range(6) for m in [*range(n + 1), -n]])


# Latency does not wait for throughput, also behind a boundary


def some_then_wait(count: int, gate: Gate) -> Iterator[int]:
    yield from range(count)
    gate(None)


async def later(item: int) -> int:
    return item


BOUNDARIES: dict[str, Callable[[Any], Any]] = {
    "instances": lambda stream: stream.map(lambda x: x, parallelism=2),
    "two boundaries": lambda stream: stream.map(lambda x: x, parallelism=2).filter(lambda x: True, parallelism=3),
    "keys": lambda stream: stream.keyby(lambda x: x % 7).count(parallelism=2),
    "coroutines": lambda stream: stream.map_async(later),
    "a merge": lambda stream: stream.connect(stream._env.from_batch([])).map(lambda x: x),
}


@pytest.mark.parametrize("count", [1, 10_000])
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_all_items_reach_the_sink_though_the_next_never_comes(boundary: str, count: int) -> None:
    taken: list[Any] = []
    env = LocalEnvironment("waits")
    with Gate() as gate:
        source = env.from_source(some_then_wait, count, gate)
        BOUNDARIES[boundary](source).collect("out").sink(taken.append, name="taken")
        job = env.submit(timeout=LIMIT)
        gate.wait()
        until(lambda: len(taken) == count, SOON)
        until(lambda: counts(job)["taken"] == (count, 0), SOON)
        assert len(job.results["out"]) == count
        assert job.status == "running"
    job.wait()
    assert len(taken) == count
