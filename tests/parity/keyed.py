"""Keys: what they may be, where they lead, and the state behind them."""

from __future__ import annotations

import datetime as dt
import enum
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from typing import Any

from sage_nb import FlatMapFunction, KeyByFunction, MapFunction, Tumbling
from tests.parity.case import Cases, by_key
from tests.parity.items import Colour

__all__ = ["KEYS", "cases"]

cases = Cases("keys")


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Mode(enum.StrEnum):
    A = "a"


KEYS: list[Any] = [
    *(0, "", None, False, 0.0, -0.0, 1, True, 1.0, -1, -2, 2**70, float(2**70), 0.5, "a", b"a", b"", "ü"),
    *((), (0,), (False,), (0.0, ("x", None)), (0, ("x", None)), (1, 2), (True, 2.0), Colour.RED, Colour.BLUE),
    *(dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 1, tzinfo=dt.UTC)),
]
"""Some are equal, and go together: 0, False and the zeros; 1, True and 1.0; the tuples of these."""


class Modulo(KeyByFunction):
    def __init__(self, n: int) -> None:
        self.n = n

    def execute(self, data: int) -> int:
        return data % self.n


class SeesKey(MapFunction):
    def execute(self, data: Any) -> tuple[Any, Any]:
        return self.ctx.get_key(), data


class Remembers(MapFunction):
    """The last two items of the key."""

    def execute(self, data: tuple[str, int]) -> tuple[str, list[int]]:
        past = self.ctx.state.setdefault("past", [])
        past.append(data[1])
        return data[0], past[-2:]


class EveryThird(FlatMapFunction):
    """Collects the three items of a key at once."""

    def execute(self, data: int) -> None:
        held = self.ctx.state.setdefault("held", [])
        held.append(data)
        if len(held) == 3:
            self.collect((self.ctx.get_key(), *held))
            held.clear()


async def itself(item: Any) -> Any:
    return item


def counts(keys: Iterable[Any]) -> list[tuple[Any, int]]:
    """What `count` emits."""
    return [(key, n) for key, one in by_key(keys, lambda key: key).items() for n in range(1, len(one) + 1)]


def running(items: Iterable[Any], key: Callable[[Any], Any], value: Callable[[Any], Any]) -> list[tuple[Any, Any]]:
    """What `sum` emits, key by key."""
    return [(k, total) for k, group in by_key(items, key).items() for total in accumulate(map(value, group))]


def first_and_again(item: Any, ctx: Any) -> tuple[Any, bool]:
    again = ctx.state.get("seen", False)
    ctx.state["seen"] = True
    return item, again


def up_to_item(item: tuple[str, int], ctx: Any) -> Iterator[tuple[str, int]]:
    """The numbers that the key has not had yet, up to the item's."""
    begin = ctx.state.get("next", 0)
    yield from ((ctx.get_key(), n) for n in range(begin, item[1]))
    ctx.state["next"] = max(begin, item[1])


WORDS = re.findall(r"\w+", "to be or not to be that is the question whether tis nobler in the mind to suffer")
ITEMS = [("abc"[i % 3], i) for i in range(30)]


@cases.add(counts(WORDS), order="per_key", alone="per_key")
def count(env: Any, p: int) -> Any:
    return env.from_batch(WORDS).keyby(lambda word: word).count(parallelism=p)


@cases.add(counts(k for key in KEYS for k in (key, key)), order="per_key", alone="per_key")
def keys_that_are_equal_go_together(env: Any, p: int) -> Any:
    return env.from_batch(KEYS + KEYS).keyby(lambda key: key).count(parallelism=p)


@cases.add(counts([1, Level.LOW, 1.0, Level.HIGH, 2, "a", Mode.A]), order="per_key", alone="per_key")
def enums_that_equal_numbers_and_text_go_with_them(env: Any, p: int) -> Any:
    keys = [1, Level.LOW, 1.0, Level.HIGH, 2, "a", Mode.A]
    return env.from_batch(keys).keyby(lambda key: key).count(parallelism=p)


@cases.add(counts([k for k in (0, "", None, False) for _ in range(25)]), order="per_key", alone="per_key")
def falsy_keys(env: Any, p: int) -> Any:
    keys = [k for _ in range(25) for k in (0, "", None, False)]
    return env.from_batch(keys).keyby(lambda key: key).count(parallelism=p)


@cases.add([(k, n) for k in range(500) for n in (1, 2, 3)], order="per_key", alone="per_key")
def five_hundred_keys(env: Any, p: int) -> Any:
    return env.from_batch(range(1500)).keyby(Modulo, 500).count(parallelism=p)


@cases.add(running(ITEMS, lambda i: i[0], lambda i: i[1]), order="per_key", alone="per_key")
def sum_of_values(env: Any, p: int) -> Any:
    return env.from_batch(ITEMS).keyby(lambda item: item[0]).sum(lambda item: item[1], parallelism=p)


@cases.add(running(range(40), lambda x: x % 4, lambda x: x), order="per_key", alone="per_key")
def sum_of_the_items_themselves(env: Any, p: int) -> Any:
    return env.from_batch(range(40)).keyby(lambda x: x % 4).sum(parallelism=p)


@cases.add(["a", "b", "ac", "bd", "ace"], order="per_key", key=lambda text: text[0])
def reduce_gives_the_new_value_in_the_order_of_the_key(env: Any, p: int) -> Any:
    letters = env.from_batch("abcde").keyby(lambda letter: ord(letter) % 2)
    return letters.reduce(lambda so_far, letter: so_far + letter, parallelism=p)


@cases.add([(k, max(7 * i % 11 for i in range(n))) for n in range(1, 11) for k in "xy"], order="per_key")
def reduce_to_the_greatest(env: Any, p: int) -> Any:
    items = [(k, 7 * n % 11) for n in range(10) for k in "xy"]
    return env.from_batch(items).keyby(lambda item: item[0]).reduce(max, parallelism=p)


@cases.add([(k, n) for n in range(1, 11) for k in "ab"], order="per_key")
def keys_that_expire_much_later(env: Any, p: int) -> Any:
    return env.from_batch("ab" * 10).keyby(str).count(expire_after=3600, parallelism=p)


@cases.add([(k, [n - 3, n] if n > 2 else [n]) for n, k in enumerate("abc" * 5)], order="per_key")
def process_with_the_state_of_the_key(env: Any, p: int) -> Any:
    items = [(k, n) for n, k in enumerate("abc" * 5)]
    return env.from_batch(items).keyby(lambda item: item[0]).process(Remembers, parallelism=p)


@cases.add([(x, i >= 5) for i, x in enumerate([0, 1, 2, 3, 4] * 3)], order="per_key")
def process_with_the_context_as_an_argument(env: Any, p: int) -> Any:
    return env.from_batch([0, 1, 2, 3, 4] * 3).keyby(lambda x: x).process(first_and_again, parallelism=p)


@cases.add([("a", 0), ("a", 1), ("b", 0), ("a", 2), ("b", 1), ("b", 2), ("b", 3)], order="per_key")
def process_by_a_generator(env: Any, p: int) -> Any:
    items = [("a", 2), ("b", 1), ("a", 3), ("a", 1), ("b", 4)]
    return env.from_batch(items).keyby(lambda item: item[0]).process(up_to_item, parallelism=p)


@cases.add([(k, *range(n + k, n + 9 + k, 3)) for n in (0, 9, 18) for k in range(3)], order="per_key")
def process_by_a_class_that_collects(env: Any, p: int) -> Any:
    return env.from_batch(range(29)).keyby(Modulo, 3).process(EveryThird, parallelism=p)


@cases.add([(x % 3, x) for x in range(12) if x % 2], order="per_key")
def process_that_gives_none_emits_nothing(env: Any, p: int) -> Any:
    stream = env.from_batch(range(12)).keyby(Modulo, 3)
    return stream.process(lambda x, ctx: (ctx.get_key(), x) if x % 2 else None, parallelism=p)


@cases.add([(x % 3, x + 10) for x in range(20) if x % 2], order="per_key", alone="per_key")
def the_key_travels_through_map_filter_and_flatmap(env: Any, p: int) -> Any:
    stream = env.from_batch(range(20)).keyby(Modulo, 3).map(lambda x: x + 10, parallelism=p)
    stream = stream.filter(lambda x: x % 2, parallelism=p + 1).flatmap(lambda x: [x], parallelism=p)
    return stream.map(SeesKey, parallelism=p)


@cases.add(counts(x % 3 for x in range(30)), order="last_per_key", alone="per_key")
def every_operator_with_several_instances(env: Any, p: int) -> Any:
    stream = env.from_batch(range(30)).map(lambda x: x, parallelism=p).keyby(Modulo, 3, parallelism=p)
    return stream.map(str, parallelism=p).count(parallelism=p)


@cases.add(running(WORDS, len, len), order="last_per_key", alone="per_key")
def two_keybys(env: Any, p: int) -> Any:
    counted = env.from_batch(WORDS).keyby(lambda word: word).count(parallelism=p)
    return counted.keyby(lambda pair: len(pair[0]), parallelism=p).sum(lambda pair: len(pair[0]), parallelism=p)


@cases.add([(0, x) for x in range(10)])
def the_key_of_the_later_keyby_counts(env: Any, p: int) -> Any:
    stream = env.from_batch(range(10)).keyby(lambda x: x).map(lambda x: x, parallelism=p).keyby(lambda x: 0)
    return stream.map(SeesKey, parallelism=p)


@cases.add([(x % 2, x) for x in range(20)])
def round_robin_gives_each_item_once(env: Any, p: int) -> Any:
    return env.from_batch(range(20)).keyby(Modulo, 2, strategy="round_robin").map(SeesKey, parallelism=p)


@cases.add(lambda p: [(x % 2, x) for x in range(20) for _ in range(p)])
def broadcast_gives_each_item_to_every_instance(env: Any, p: int) -> Any:
    return env.from_batch(range(20)).keyby(Modulo, 2, strategy="broadcast").map(SeesKey, parallelism=p)


@cases.add(lambda p: [(k, n * p) for k in "ab" for n in range(1, 6)], order="last_per_key", alone="per_key")
def what_was_broadcast_is_counted_behind_another_keyby(env: Any, p: int) -> Any:
    stream = env.from_batch("ab" * 5).keyby(str, strategy="broadcast").map(lambda x: x, parallelism=p)
    return stream.keyby(str).count(parallelism=p)


NUMBERS = [("xyz"[i % 3], 7 * i % 11 - 4) for i in range(30)]


def folded(fold: Callable[[list[int]], Any]) -> list[tuple[str, Any]]:
    """What comes of the numbers of each key so far, key by key."""
    groups = by_key(NUMBERS, lambda pair: pair[0])
    return [(k, fold([n for _, n in group[: i + 1]])) for k, group in groups.items() for i in range(len(group))]


@cases.add(folded(min), order="per_key", alone="per_key")
def the_least(env: Any, p: int) -> Any:
    return env.from_batch(NUMBERS).keyby(lambda pair: pair[0]).min(lambda pair: pair[1], parallelism=p)


@cases.add(folded(max), order="per_key", alone="per_key")
def the_greatest(env: Any, p: int) -> Any:
    return env.from_batch(NUMBERS).keyby(lambda pair: pair[0]).max(lambda pair: pair[1], parallelism=p)


@cases.add(folded(lambda numbers: sum(numbers) / len(numbers)), order="per_key", alone="per_key")
def the_mean(env: Any, p: int) -> Any:
    rows = env.from_batch([{"letter": letter, "n": n} for letter, n in NUMBERS])
    return rows.keyby("letter").mean("n", parallelism=p, on_error="skip")


@cases.add(running(ITEMS, lambda i: i[0], lambda i: i[1]), order="per_key", alone="per_key")
def by_the_names_of_columns(env: Any, p: int) -> Any:
    rows = env.from_batch([{"letter": letter, "n": n} for letter, n in ITEMS])
    return rows.keyby("letter").sum("n", parallelism=p)


@cases.add(
    [{"letter": k, "sum": n} for k, n in running(ITEMS, lambda i: i[0], lambda i: i[1])],
    order="per_key",
    alone="per_key",
    key=lambda row: row["letter"],
)
def with_names_for_their_parts(env: Any, p: int) -> Any:
    return env.from_batch(ITEMS).keyby(lambda i: i[0]).sum(lambda i: i[1], parallelism=p).named("letter", "sum")


LAST = {key: (key, total) for key, total in running(ITEMS, lambda i: i[0], lambda i: i[1])}


@cases.add(ITEMS, more={"sums": list(LAST.values()), "shown": list(LAST.values()), "texts": ["c0", "c1", "c2", "c3"]})
def the_newest_of_each_key(env: Any, p: int) -> Any:
    items = env.from_batch(ITEMS)
    sums = items.keyby(lambda item: item[0]).sum(lambda item: item[1], parallelism=p)
    sums.collect("sums", latest=True).show("shown", latest=True)
    keyed = items.keyby(lambda item: item[1] % 4, parallelism=1).map(SeesKey, parallelism=p)
    keyed.map(lambda pair: f"c{pair[0]}", parallelism=p).collect("texts", latest=True)
    return items


@cases.add(
    range(40), more={name: [36, 37, 38, 39] for name in ("async", "many", "state", "window", "pairs", "process")}
)
def the_newest_behind_operators_of_all_kinds(env: Any, p: int) -> Any:
    numbers = env.from_batch(range(40))
    keyed = numbers.keyby(Modulo, 4)
    keyed.map_async(itself, parallelism=p).collect("async", latest=True)
    keyed.flatmap(lambda x: [x, x], parallelism=p).collect("many", latest=True)
    keyed.process(lambda x: x, parallelism=p).collect("state", latest=True)
    windows = keyed.window(Tumbling(100), event_time=lambda x: x).aggregate("max", parallelism=p)
    windows.map(lambda window: window.value).collect("window", latest=True)
    pairs = keyed.interval_join(keyed, 0, 0, event_time=lambda x: x, parallelism=p)
    pairs.map(lambda pair: pair[0]).collect("pairs", latest=True)
    keyed.map(lambda x: x, executor="process").collect("process", latest=True)
    return numbers


@cases.add([], more={"sums": []})
def nothing_with_keys(env: Any, p: int) -> Any:
    stream = env.from_batch([]).keyby(Modulo, 3)
    stream.sum(parallelism=p).collect("sums")
    return stream.reduce(lambda a, b: a + b, parallelism=p)
