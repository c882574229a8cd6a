"""Operators that look at one item, what items may be, and streams with several consumers."""

from __future__ import annotations

import datetime as dt
import enum
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

from sage_nb import FilterFunction, FlatMapFunction, MapFunction
from tests.parity.case import Cases

__all__ = ["Colour", "Point", "cases"]

cases = Cases("items")


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


@dataclass
class Point:
    x: int
    y: int = 0


class Pair(NamedTuple):
    left: Any
    right: Any


class Times(MapFunction):
    """Gets its factor by the constructor, and its offset in open()."""

    def __init__(self, factor: int, *, offset: int = 0) -> None:
        self.factor, self.wanted = factor, offset

    def open(self) -> None:
        self.offset = self.wanted

    def execute(self, data: int) -> int:
        return data * self.factor + self.offset


class Divides(FilterFunction):
    def __init__(self, by: int) -> None:
        self.by = by

    def execute(self, data: int) -> bool:
        return data % self.by == 0


class Gathers(FlatMapFunction):
    """Returns some items, and collects others."""

    def execute(self, data: int) -> list[int]:
        self.collect(data + 200)
        self.collect(data + 300)
        return [data, data + 100]


class Collects(FlatMapFunction):
    """Only collects."""

    def execute(self, data: int) -> None:
        for i in range(data):
            self.collect((data, i))


class Plain:
    """No base class: any class with the right method will do."""

    def execute(self, data: int) -> str:
        return f"<{data}>"


class Placed(MapFunction):
    """Tells whether its place among the instances is a right one."""

    def execute(self, data: int) -> tuple[int, int, bool]:
        return data, self.ctx.parallelism, 0 <= self.ctx.parallel_index < self.ctx.parallelism


class Numbered(MapFunction):
    """Counts its own items: instances share nothing."""

    def __init__(self) -> None:
        self.n = 0

    def execute(self, data: Any) -> tuple[int, int]:
        self.n += 1
        return self.ctx.parallel_index, self.n


def each_twice(item: Any) -> Iterator[Any]:
    yield item
    yield item


def chunks(size: int, items: Iterable[Any]) -> list[Any]:
    listed = list(items)
    return [listed[i : i + size] for i in range(0, len(listed), size)]


THINGS: list[Any] = [
    *(Colour.RED, Colour.BLUE, Point(1, 2), Pair(1, Point(3)), Decimal("1.10"), Fraction(1, 3), 10**40, -0.0, 1 + 2j),
    *("", "naïve ☃ 𝄞", b"\x00\xff", (), (1, (2, None)), [1, [2]], {"a": {1, 2}}, frozenset({3}), range(3), ...),
    *(dt.datetime(2024, 2, 29, 12, tzinfo=dt.UTC), dt.date(1, 1, 1), dt.timedelta(days=-1), True, None, slice(1, 2)),
]


@cases.add([x * 3 + 1 for x in range(20)])
def a_function_class_with_arguments(env: Any, p: int) -> Any:
    return env.from_batch(range(20)).map(Times, 3, offset=1, parallelism=p)


@cases.add(["<1>", "<2>"])
def a_class_without_a_base(env: Any, p: int) -> Any:
    return env.from_batch([1, 2]).map(Plain, parallelism=p)


@cases.add([1, 3, 5, 7, 9])
def a_map_that_gives_none_drops(env: Any, p: int) -> Any:
    return env.from_batch(range(10)).map(lambda x: x if x % 2 else None, parallelism=p)


@cases.add([0, "", False, 0.0, [], ()])
def a_map_that_gives_falsy_values_keeps_them(env: Any, p: int) -> Any:
    return env.from_batch([0, "", False, 0.0, [], ()]).map(lambda x: x, parallelism=p)


@cases.add([0, 6, 12, 18])
def a_filter_class(env: Any, p: int) -> Any:
    return env.from_batch(range(0, 20, 2)).filter(Divides, 3, parallelism=p)


@cases.add(["a", [0], 1])
def any_truthy_result_passes_the_original_item(env: Any, p: int) -> Any:
    return env.from_batch(["", "a", [], [0], 0, 1, None]).filter(lambda x: x and [x], parallelism=p)


@cases.add([0, 0, 1, 0, 1, 2])
def a_flatmap_of_ranges(env: Any, p: int) -> Any:
    return env.from_batch([0, 1, 2, 3]).flatmap(range, parallelism=p)


@cases.add(["ab", b"cd", "x", 7, "y"])
def text_and_bytes_are_one_item_of_a_flatmap_and_none_is_none(env: Any, p: int) -> Any:
    return env.from_batch(["ab", None, b"cd", ("x", 7, "y")]).flatmap(lambda x: x, parallelism=p)


@cases.add([x for x in range(8) for _ in "ab"])
def a_flatmap_that_is_a_generator(env: Any, p: int) -> Any:
    return env.from_batch(range(8)).flatmap(each_twice, parallelism=p)


@cases.add([x + y for x in (1, 2) for y in (0, 100, 200, 300)])
def a_flatmap_class_that_returns_and_collects(env: Any, p: int) -> Any:
    return env.from_batch([1, 2]).flatmap(Gathers, parallelism=p)


@cases.add([(n, i) for n in (0, 3, 1) for i in range(n)])
def a_flatmap_class_that_only_collects(env: Any, p: int) -> Any:
    return env.from_batch([0, 3, 1]).flatmap(Collects, parallelism=p)


@cases.add([[0, 1, 2], [3, 4, 5], [6]])
def a_partial(env: Any, p: int) -> Any:
    return env.from_batch([range(7)]).flatmap(partial(chunks, 3), parallelism=p)


@cases.add(lambda p: [(x, p, True) for x in range(12)])
def instances_know_their_place(env: Any, p: int) -> Any:
    return env.from_batch(range(12)).map(Placed, parallelism=p)


@cases.add(lambda p: [(i, n) for n in range(1, 13) for i in range(p)], order="per_key")
def round_robin_gives_every_instance_the_same_number(env: Any, p: int) -> Any:
    return env.from_batch(range(12 * p)).keyby(lambda x: 0, strategy="round_robin").map(Numbered, parallelism=p)


@cases.add([x for x in range(300) if x % 7 == 0], alone="any")
def as_many_boundaries_as_operators(env: Any, p: int) -> Any:
    stream = env.from_batch(range(300)).map(lambda x: x + 1, parallelism=p).filter(bool, parallelism=p % 4 + 1)
    return stream.map(lambda x: x - 1, parallelism=p).filter(lambda x: x % 7 == 0)


@cases.add(range(0, 20_000, 2), alone="any")
def ten_thousand_items_over_two_boundaries(env: Any, p: int) -> Any:
    return env.from_batch(range(10_000)).map(lambda x: x * 2, parallelism=p).map(lambda x: x, parallelism=p + 1)


@cases.add([0, 1, 2, 3])
def take_lets_the_first_ones_pass(env: Any, p: int) -> Any:
    return env.from_batch(range(100)).take(4).map(lambda x: x, parallelism=p)


@cases.add(["one"] * 5)
def take_behind_several_instances(env: Any, p: int) -> Any:
    return env.from_batch(range(50)).map(lambda x: x, parallelism=p).take(5).map(lambda x: "one")


@cases.add([])
def take_of_nothing(env: Any, p: int) -> Any:
    return env.from_batch(range(50)).map(lambda x: x, parallelism=p).take(0)


@cases.add(THINGS, alone="any")
def items_of_any_type_come_back_equal(env: Any, p: int) -> Any:
    stream = env.from_batch(THINGS).filter(lambda x: True, parallelism=p)
    return stream.filter(lambda x: True, parallelism=p + 1)


@cases.add([Point(x, x + 1) for x in range(10)])
def instances_of_the_callers_classes(env: Any, p: int) -> Any:
    points = env.from_batch([Point(x) for x in range(10)])
    return points.filter(lambda at: isinstance(at, Point), parallelism=p).map(lambda at: Point(at.x, at.x + 1))


@cases.add([(Pair(Colour.RED, 1), True), (Pair(Colour.BLUE, 2), False)])
def named_tuples_and_enums(env: Any, p: int) -> Any:
    pairs = [Pair(Colour.RED, 1), Pair(Colour.BLUE, 2)]
    return env.from_batch(pairs).map(lambda pair: (pair, pair.left is Colour.RED), parallelism=p)


@cases.add([(i, 1_000_000, zlib.crc32(bytes([i]) * 1_000_000)) for i in range(6)], alone="any")
def large_items(env: Any, p: int) -> Any:
    data = env.from_batch(range(6)).map(lambda i: bytes([i]) * 1_000_000, parallelism=p)
    return data.map(lambda data: (data[0], len(data), zlib.crc32(data)), parallelism=p + 1)


@cases.add([sum(range(n)) for n in range(8)])
def arrays_as_items(env: Any, p: int) -> Any:
    import numpy as np  # here, as each worker that needs anything of this module would load it

    return env.from_batch(range(8)).map(np.arange, parallelism=p).map(lambda array: int(array.sum()))


@cases.add([x + 1 for x in range(9)], more={"other": [x * 2 for x in range(9)]})
def two_consumers_both_get_every_item(env: Any, p: int) -> Any:
    stream = env.from_batch(range(9))
    stream.map(lambda x: x * 2, parallelism=p).collect("other")
    return stream.map(lambda x: x + 1, parallelism=p)


@cases.add([x * x for x in range(30)], more={"raw": list(range(30)), "odd": list(range(1, 30, 2))})
def taps_on_the_way(env: Any, p: int) -> Any:
    stream = env.from_batch(range(30)).map(lambda x: x, parallelism=p).collect("raw")
    stream.filter(lambda x: x % 2, parallelism=p).collect("odd")
    return stream.map(lambda x: x * x)


@cases.add([x + 1 for x in range(20)], more={"last": [17, 18, 19]}, scales=False)
def show_keeps_the_last_rows(env: Any, p: int) -> Any:
    return env.from_batch(range(20)).show("last", 3).map(lambda x: x + 1)


@cases.add(list(range(5)), more={"b": list("xyz")}, alone="any")
def pipelines_that_are_not_connected(env: Any, p: int) -> Any:
    env.from_batch("xyz").map(lambda x: x, parallelism=p).collect("b")
    return env.from_batch(range(5)).map(lambda x: x, parallelism=p)
