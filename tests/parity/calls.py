"""Coroutines, processes, and services that operators call."""

from __future__ import annotations

import asyncio
from typing import Any

from sage_nb import BaseService, FlatMapFunction, MapFunction, call_service
from tests.parity.case import Cases
from tests.parity.items import Gathers, Point
from tests.parity.keyed import Modulo, Remembers

__all__ = ["cases"]

cases = Cases("calls")


async def slow_first(x: int) -> int:
    """The earlier an item, the longer it takes."""
    await asyncio.sleep(0.01 if x < 3 else 0)
    return x * 10


async def odd_only(x: int) -> int | None:
    await asyncio.sleep(0)
    return x if x % 2 else None


async def hangs_on_seven(x: int) -> int:
    await asyncio.sleep(60 if x == 7 else 0)
    return x


class Fetches(MapFunction):
    """Its execute is a coroutine function."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    async def execute(self, data: int) -> str:
        await asyncio.sleep(0.001)
        return f"{self.prefix}{data}"


class Shop(BaseService):
    """Has prices, and counts the questions."""

    def __init__(self, prices: dict[str, int]) -> None:
        self.prices, self.asked = prices, 0

    def setup(self) -> None:
        self.open = True

    def process(self, name: str, times: int = 1) -> int:
        assert self.open
        self.asked += 1
        return self.prices[name] * times

    def number(self) -> int:
        self.asked += 1
        return self.asked


class Till(BaseService):
    """Asks another service."""

    def process(self, name: str) -> int:
        return int(self.call_service("shop", name)) + 1


class Asks(MapFunction):
    def execute(self, data: str) -> tuple[str, int, int]:
        later = self.call_service_async("shop", data, times=3)
        return data, self.call_service("shop", data, times=2), later.result(10)


class AsksTill(FlatMapFunction):
    def execute(self, data: str) -> list[int]:
        return [self.call_service("till").process(data)]


PRICES = {"tea": 3, "jam": 5, "egg": 1}
WANTED = list(PRICES) * 4


def triple(x: int) -> int:
    return x * 3


# Coroutines


@cases.add([x * 10 for x in range(12)])
def coroutines_in_order(env: Any, p: int) -> Any:
    return env.from_batch(range(12)).map_async(slow_first, parallelism=p)


@cases.add([x * 10 for x in range(12)], alone="any")
def coroutines_as_they_are_ready(env: Any, p: int) -> Any:
    return env.from_batch(range(12)).map_async(slow_first, ordered=False, concurrency=4, parallelism=p)


@cases.add([x * 10 for x in range(8)])
def a_coroutine_function_given_to_map(env: Any, p: int) -> Any:
    return env.from_batch(range(8)).map(slow_first, concurrency=3, parallelism=p)


@cases.add([f"n{x}" for x in range(8)])
def a_class_with_a_coroutine(env: Any, p: int) -> Any:
    return env.from_batch(range(8)).map_async(Fetches, "n", concurrency=1, parallelism=p)


@cases.add([1, 3, 5, 7, 9])
def a_coroutine_that_gives_none_drops(env: Any, p: int) -> Any:
    return env.from_batch(range(10)).map_async(odd_only, parallelism=p).filter(lambda x: True)


@cases.add([x for x in range(10) if x != 7], errors={"hangs": 1})
def a_coroutine_that_takes_too_long_is_skipped(env: Any, p: int) -> Any:
    stream = env.from_batch(range(10))
    return stream.map_async(hangs_on_seven, item_timeout=0.05, on_error="skip", name="hangs", parallelism=p)


@cases.add([])
def coroutines_of_nothing(env: Any, p: int) -> Any:
    return env.from_batch([]).map_async(slow_first, parallelism=p)


# Processes


@cases.add([x * 3 for x in range(200)], order="exact")
def a_map_in_processes_keeps_the_order(env: Any, p: int) -> Any:
    return env.from_batch(range(200)).map(triple, parallelism=p, executor="process")


@cases.add([y for x in range(0, 20, 2) for y in (x, x + 100, x + 200, x + 300)], order="exact")
def a_filter_and_a_flatmap_in_processes(env: Any, p: int) -> Any:
    stream = env.from_batch(range(20)).filter(lambda x: x % 2 == 0, parallelism=p, executor="process")
    return stream.flatmap(Gathers, parallelism=p, executor="process")


@cases.add([Point(x, 1) for x in range(10)], order="exact")
def the_callers_classes_come_back_from_processes(env: Any, p: int) -> Any:
    stream = env.from_batch([Point(x) for x in range(10)])
    return stream.map(lambda point: Point(point.x, point.y + 1), parallelism=p, executor="process")


@cases.add([(k, [n - 2, n] if n > 1 else [n]) for n, k in enumerate("ab" * 8)], order="per_key")
def state_of_keys_in_processes(env: Any, p: int) -> Any:
    items = [(k, n) for n, k in enumerate("ab" * 8)]
    return env.from_batch(items).keyby(lambda item: item[0]).process(Remembers, parallelism=p, executor="process")


@cases.add([(k, n) for n in range(1, 11) for k in range(3)], order="per_key")
def threads_behind_processes_behind_threads(env: Any, p: int) -> Any:
    stream = env.from_batch(range(30)).map(lambda x: x + 3, executor="process").keyby(Modulo, 3)
    return stream.filter(lambda x: True, parallelism=p, executor="process").count(parallelism=p)


# Services


@cases.add([PRICES[one] for one in WANTED])
def a_service_called_from_a_plain_function(env: Any, p: int) -> Any:
    env.register_service("shop", Shop, PRICES)
    return env.from_batch(WANTED).map(lambda name: call_service("shop", name), parallelism=p)


@cases.add([(one, PRICES[one] * 2, PRICES[one] * 3) for one in WANTED])
def a_service_called_from_a_class_now_and_later(env: Any, p: int) -> Any:
    env.register_service("shop", Shop, prices=PRICES)
    return env.from_batch(WANTED).map(Asks, parallelism=p)


@cases.add([PRICES[one] + 1 for one in WANTED])
def a_service_that_calls_another(env: Any, p: int) -> Any:
    env.register_service("shop", Shop, PRICES)
    env.register_service("till", Till)
    return env.from_batch(WANTED).flatmap(AsksTill, parallelism=p)


@cases.add(range(1, 41))
def all_instances_call_one_service(env: Any, p: int) -> Any:
    env.register_service_factory("shop", lambda: Shop({}))
    return env.from_batch(range(40)).map(lambda _: call_service("shop").number(), parallelism=p)
