"""Several streams: merged, told apart, and joined. Each ends at a time of its own."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sage_nb import BaseCoMapFunction, BaseJoinFunction
from tests.parity.case import Cases
from tests.parity.keyed import Modulo, SeesKey, running

__all__ = ["Matches", "Tags2", "cases"]

cases = Cases("several streams")


class Tags2(BaseCoMapFunction):
    """Tells the streams apart."""

    def map0(self, data: Any) -> Any:
        return 0, data

    def map1(self, data: Any) -> Any:
        return 1, data


class Tags4(Tags2):
    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def map2(self, data: Any) -> Any:
        return self.prefix, 2, data

    def map3(self, data: Any) -> Any:
        return None if data % 2 else (self.prefix, 3, data)


class Totals(BaseCoMapFunction):
    """Both methods share one instance."""

    def __init__(self) -> None:
        self.total = 0

    def map0(self, data: int) -> int:
        self.total += data
        return self.total

    def map1(self, data: int) -> int:
        return self.map0(data)


class Matches(BaseJoinFunction):
    """Each item with each of the other streams that has its key."""

    def __init__(self) -> None:
        self.seen: dict[Any, list[tuple[int, Any]]] = defaultdict(list)

    def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
        others = [(tag, payload, one) for one in self.seen[key] if one[0] != tag]
        self.seen[key].append((tag, payload))
        return [(key, *sorted([(tag, payload), other])) for tag, payload, other in others]


class OneSided(BaseJoinFunction):
    """Lets the items of the second stream pass."""

    def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
        return [(key, payload)] * tag


def time(item: Any) -> float:
    return float(item[1])


def seconds(item: Any) -> float:
    return float(item["at"])


def pairs(left: list[Any], right: list[Any], lower: float, upper: float) -> list[tuple[Any, Any]]:
    """What an interval join gives."""
    return [(a, b) for a in left for b in right if a[0] == b[0] and lower <= b[1] - a[1] <= upper]


CLICKS = [(k, t) for t in (1, 4, 3, 9, 20, 18, 40) for k in "ab"]
VIEWS = [(k, t) for t in (0, 2, 6, 5, 19, 21, 33) for k in "ac"]


@cases.add([*range(10), *range(100, 103)], alone="any")
def merged_map(env: Any, p: int) -> Any:
    return env.from_batch(range(10)).connect(env.from_batch(range(100, 103))).map(lambda x: x, parallelism=p)


@cases.add([0, 1, 2, 10, 11, 20], alone="any", scales=False)
def three_streams_in_one_sink(env: Any, p: int) -> Any:
    return env.from_batch(range(3)).connect(env.from_batch([10, 11]), env.from_batch([20]))


@cases.add([1, 2, 3], alone="any")
def merged_with_an_empty_stream(env: Any, p: int) -> Any:
    return env.from_batch([]).connect(env.from_batch([1, 2, 3]), env.from_batch([])).filter(bool, parallelism=p)


@cases.add([], alone="any")
def nothing_merged_with_nothing(env: Any, p: int) -> Any:
    return env.from_batch([]).connect(env.from_batch([])).comap(Tags2, parallelism=p)


@cases.add([y for x in range(20) for y in (x, -x)], alone="any")
def a_diamond(env: Any, p: int) -> Any:
    stream = env.from_batch(range(20))
    left = stream.map(lambda x: x, parallelism=p)
    return left.connect(stream.map(lambda x: -x, parallelism=p + 1)).map(lambda x: x, parallelism=p)


@cases.add([y for x in range(20) for y in (x, x + 100)], alone="any")
def a_diamond_with_one_straight_side(env: Any, p: int) -> Any:
    stream = env.from_batch(range(20)).map(lambda x: x, parallelism=p)
    return stream.connect(stream.map(lambda x: x + 100, parallelism=p)).filter(lambda x: True)


@cases.add([(0, x) for x in range(3)] + [(1, x) for x in range(30)], alone="any")
def comap_of_three_items_beside_thirty(env: Any, p: int) -> Any:
    return env.from_batch(range(3)).connect(env.from_batch(range(30))).comap(Tags2, parallelism=p)


@cases.add([(1, x) for x in range(30)], alone="any")
def comap_of_no_item_beside_thirty(env: Any, p: int) -> Any:
    return env.from_batch([]).connect(env.from_batch(range(30))).comap(Tags2, parallelism=p)


@cases.add([(0, 0), ("t", 2, 0), ("t", 2, 1), *((1, x) for x in range(30))], alone="any")
def comap_of_three(env: Any, p: int) -> Any:
    streams = [env.from_batch(range(n)) for n in (30, 2)]
    return env.from_batch(range(1)).connect(*streams).comap(Tags4, "t", parallelism=p)


@cases.add(
    [*((0, x) for x in range(5)), *(("t", 3, x) for x in range(0, 30, 2)), (1, 0), ("t", 2, 0), ("t", 2, 1)],
    alone="any",
)
def comap_of_four_of_which_one_drops_some(env: Any, p: int) -> Any:
    streams = [env.from_batch(range(n)).map(lambda x: x, parallelism=p) for n in (1, 2, 30)]
    return env.from_batch(range(5)).connect(*streams).comap(Tags4, prefix="t", parallelism=p)


@cases.add([0, 45], order="last_per_key", alone="last_per_key", key=lambda item: 0, scales=False)
def comap_methods_share_an_instance(env: Any, p: int) -> Any:
    stream = env.from_batch(range(10))
    both = stream.map(lambda x: 0).connect(stream).comap(Totals)
    return both.keyby(lambda total: 0).reduce(max)


@cases.add(running([*range(20), *range(100, 110)], lambda x: x % 3, lambda x: 1), order="last_per_key", alone="per_key")
def counts_over_two_keyed_streams(env: Any, p: int) -> Any:
    left, right = (env.from_batch(items).keyby(Modulo, 3) for items in (range(20), range(100, 110)))
    return left.connect(right).filter(lambda x: True, parallelism=p).count(parallelism=p)


@cases.add([(0, (0, x)) for x in range(0, 9, 3)] + [(x % 3, (1, x)) for x in range(12)], alone="any")
def comap_keeps_the_keys(env: Any, p: int) -> Any:
    left, right = (env.from_batch(items).keyby(Modulo, 3) for items in (range(0, 9, 3), range(12)))
    return left.connect(right).comap(Tags2, parallelism=p).map(SeesKey, parallelism=p)


@cases.add([(a % 5, (0, a), (1, b)) for a in range(12) for b in range(100, 130) if a % 5 == b % 5], alone="any")
def join(env: Any, p: int) -> Any:
    left, right = (env.from_batch(items).keyby(Modulo, 5) for items in (range(12), range(100, 130)))
    return left.connect(right).join(Matches, parallelism=p)


@cases.add(
    [
        (key, (i, a), (j, b))
        for (i, one), (j, other) in [((0, "abc"), (1, "bcd")), ((0, "abc"), (2, "ca")), ((1, "bcd"), (2, "ca"))]
        for a in one
        for b in other
        for key in {a} & {b}
    ],
    alone="any",
)
def join_of_three(env: Any, p: int) -> Any:
    first, *others = (env.from_batch(text).keyby(str) for text in ("abc", "bcd", "ca"))
    return first.connect(*others).join(Matches, parallelism=p)


@cases.add([], alone="any")
def join_with_an_empty_stream(env: Any, p: int) -> Any:
    left, right = (env.from_batch(range(n)).keyby(Modulo, 5) for n in (0, 30))
    return left.connect(right).join(Matches, parallelism=p)


@cases.add([(k, k) for k in (None, 0, "", "x")], alone="any")
def join_by_the_tag(env: Any, p: int) -> Any:
    left, right = (env.from_batch(items).keyby(lambda x: x) for items in ([1, 2, 3], [None, 0, "", "x"]))
    return left.connect(right).join(OneSided, parallelism=p)


@cases.add(pairs(CLICKS, VIEWS, -2, 3), alone="any")
def interval_join(env: Any, p: int) -> Any:
    clicks, views = (env.from_batch(items).keyby(lambda item: item[0]) for items in (CLICKS, VIEWS))
    return clicks.interval_join(views, -2, 3, event_time=time, out_of_orderness=2, parallelism=p)


@cases.add(pairs([("k", t) for t in range(3)], [("k", t) for t in range(30)], 0, 5), alone="any")
def interval_join_of_three_items_beside_thirty(env: Any, p: int) -> Any:
    few, many = (env.from_batch([("k", t) for t in range(n)]).keyby(lambda item: item[0]) for n in (3, 30))
    return few.interval_join(many, 0, 5, event_time=time, parallelism=p)


@cases.add([(("k", 10), {"k": "k", "at": t}) for t in (11, 12)], alone="any")
def interval_join_of_streams_with_different_times(env: Any, p: int) -> Any:
    left = env.from_batch([("k", 10), ("j", 10)]).keyby(lambda item: item[0])
    right = env.from_batch([{"k": "k", "at": t} for t in (9, 10, 11, 12, 13)]).keyby(lambda item: item["k"])
    return left.interval_join(right, 1, 2, event_time=(time, seconds), parallelism=p)


@cases.add([], alone="any")
def interval_join_with_an_empty_stream(env: Any, p: int) -> Any:
    left, right = (env.from_batch(items).keyby(lambda item: item[0]) for items in (CLICKS, []))
    return left.interval_join(right, 0, 100, event_time=time, out_of_orderness=2, parallelism=p)
