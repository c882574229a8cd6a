"""Windows in event time: their results do not depend on when or where an item comes."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

from sage_nb.pipeline.windows import AGGREGATES, Session, Sliding, Tumbling, WindowResult
from tests.parity.case import Cases, by_key

__all__ = ["cases"]

cases = Cases("windows")

TIMES = [3, 0, 7, 5, 12, 9, 11, 26, 14, 23, 31, 30, 44, 40, 58, 51]
"""Out of order by up to 12 s, with a gap here and there."""
EVENTS = [(k, t, t * t) for t in TIMES for k in "ab"] + [("c", 100, 1)]
LATE = [(k, t) for t in (1, 12, 3, 38, 4, 33) for k in "ab"]
"""At 12, the 3 comes late for its window by 2 s; at 38, the 4 by 28 s; the 33 is in time."""
UTC = dt.UTC

Event = tuple[str, int, int]


def key(event: Any) -> str:
    return str(event[0])


def time(event: Any) -> int:
    return int(event[1])


def value(event: Event) -> int:
    return event[2]


def spread(values: list[int]) -> int:
    return max(values) - min(values)


def in_windows(
    events: list[Any], begins: Callable[[int], list[int]], size: int, of: Callable[[list[Any]], Any]
) -> list[WindowResult]:
    """The events of each key in windows `size` long, of which `begins(time)` gives the beginnings."""
    placed = [(event, begin) for event in events for begin in begins(time(event))]
    groups = by_key(placed, lambda pair: (key(pair[0]), pair[1]))
    return [WindowResult(k, b, b + size, of([event for event, _ in group])) for (k, b), group in groups.items()]


def sessions(events: list[Any], gap: int) -> list[WindowResult]:
    """The number of events of each key with less than `gap` between one and the next."""
    found = []
    for k, group in by_key(events, key).items():
        times = sorted(map(time, group))
        cuts = [0, *(i for i in range(1, len(times)) if times[i] - times[i - 1] >= gap), len(times)]
        for a, b in pairwise(cuts):
            found.append(WindowResult(k, times[a], times[b - 1] + gap, b - a))
    return found


def tens(at: int) -> list[int]:
    return [at // 10 * 10]


def twenties_every_five(at: int) -> list[int]:
    return [begin for begin in range(-20, at + 1, 5) if begin <= at < begin + 20]


NAMED: dict[str, Callable[[list[Event]], Any]] = {
    "count": len,
    "sum": lambda events: sum(map(value, events)),
    "mean": lambda events: sum(map(value, events)) / len(events),
    "min": lambda events: min(map(value, events)),
    "max": lambda events: max(map(value, events)),
    "first": lambda events: value(events[0]),
    "last": lambda events: value(events[-1]),
    "list": lambda events: list(map(value, events)),
}


def disordered(env: Any, window: Any, p: int) -> Any:
    """The events' windows, of a source of the known disorder."""
    return env.from_batch(EVENTS).keyby(key).window(window, event_time=time, out_of_orderness=12)


@cases.add(in_windows(EVENTS, tens, 10, len), alone="any")
def tumbling_count(env: Any, p: int) -> Any:
    return disordered(env, Tumbling(10), p).count(parallelism=p)


@cases.add(in_windows(EVENTS, tens, 10, NAMED["sum"]), alone="any")
def tumbling_sum(env: Any, p: int) -> Any:
    return disordered(env, Tumbling(dt.timedelta(seconds=10)), p).sum(value, parallelism=p)


@cases.add(
    [(name, one) for name, of in NAMED.items() for one in in_windows(EVENTS, tens, 10, of)],
    alone="any",
)
def every_aggregate_by_name(env: Any, p: int) -> Any:
    def named(name: str) -> Any:
        results = disordered(env, Tumbling(10), p).aggregate(name, value, name=name, parallelism=p)
        return results.map(lambda one: (name, one), name=f"named {name}")

    first, *others = map(named, AGGREGATES)
    return first.connect(*others)


@cases.add(in_windows(EVENTS, tens, 10, lambda events: spread(list(map(value, events)))), alone="any")
def an_aggregate_by_function(env: Any, p: int) -> Any:
    return disordered(env, Tumbling(10), p).aggregate(spread, value, parallelism=p)


@cases.add(in_windows(EVENTS, tens, 10, lambda events: list(events)), alone="any")
def an_aggregate_of_whole_items_in_the_order_of_arrival(env: Any, p: int) -> Any:
    return disordered(env, Tumbling(10), p).aggregate(lambda events: events, parallelism=p)


@cases.add(in_windows(EVENTS, twenties_every_five, 20, len), alone="any")
def sliding_count(env: Any, p: int) -> Any:
    return disordered(env, Sliding(20, 5), p).count(parallelism=p)


@cases.add(in_windows(EVENTS, twenties_every_five, 20, lambda e: median(map(value, e))), alone="any")
def sliding_median(env: Any, p: int) -> Any:
    return disordered(env, Sliding(20, dt.timedelta(seconds=5)), p).aggregate(median, value, parallelism=p)


@cases.add(sessions(EVENTS, 6), alone="any")
def sessions_that_disorder_joins(env: Any, p: int) -> Any:
    return disordered(env, Session(6), p).count(parallelism=p)


@cases.add([WindowResult("a", 0, 24, 3), WindowResult("a", 90, 100, 1)], alone="any")
def an_item_that_bridges_two_sessions(env: Any, p: int) -> Any:
    events = [("a", t) for t in (0, 14, 7, 90)]
    return env.from_batch(events).keyby(key).window(Session(10), event_time=time, out_of_orderness=10).count()


@cases.add([WindowResult(None, b, b + 10, n) for b, n in ((0, 10), (10, 6), (20, 4))], alone="any", scales=False)
def a_window_without_a_key(env: Any, p: int) -> Any:
    events = [event for event in EVENTS if time(event) < 30]
    return env.from_batch(events).window(Tumbling(10), event_time=time, out_of_orderness=12).count()


@cases.add(in_windows(EVENTS, tens, 10, len), alone="any")
def behind_instances_that_disorder_the_items(env: Any, p: int) -> Any:
    stream = env.from_batch(EVENTS).map(lambda event: event, parallelism=p).keyby(key, parallelism=p)
    return stream.window(Tumbling(10), event_time=time, out_of_orderness=1000).count(parallelism=p)


@cases.add(
    [WindowResult(k, b, b + 10, n) for k in "ab" for b, n in ((0, 1), (0, 2), (10, 1), (30, 1))],
    alone="any",
    more={"late": []},
)
def a_late_item_lets_its_window_fire_again(env: Any, p: int) -> Any:
    events = [event for event in LATE if time(event) not in (4, 33)]
    window = env.from_batch(events).keyby(key).window(Tumbling(10), event_time=time, lateness=5)
    results = window.count(parallelism=p)
    window.late("too late").collect("late")
    return results


@cases.add(
    [WindowResult(k, b, b + 10, n) for k in "ab" for b, n in ((0, 1), (10, 1), (30, 2))],
    alone="any",
    more={"late": [(k, t) for t in (3, 4) for k in "ab"]},
)
def what_comes_too_late_is_in_the_side_output(env: Any, p: int) -> Any:
    window = env.from_batch(LATE).keyby(key).window(Tumbling(10), event_time=time)
    window.late("too late").map(lambda event: event, parallelism=p).collect("late")
    return window.count(parallelism=p)


@cases.add(
    [WindowResult(k, b, b + 10, n) for k in "ab" for b, n in ((0, 1), (0, 2), (10, 1), (30, 2))],
    alone="any",
    more={"late": [(k, 4) for k in "ab"]},
)
def lateness_and_a_side_output(env: Any, p: int) -> Any:
    window = env.from_batch(LATE).keyby(key).window(Tumbling(10), event_time=time, lateness=5)
    results = window.count(parallelism=p)
    window.late("too late").collect("late")
    return results


@cases.add(
    [
        WindowResult("x", dt.datetime(2024, 3, 1, h, tzinfo=UTC), dt.datetime(2024, 3, 1, h + 1, tzinfo=UTC), n)
        for h, n in ((9, 2), (10, 1), (12, 1))
    ],
    alone="any",
)
def datetimes_give_datetimes(env: Any, p: int) -> Any:
    stamps = [(9, 0), (9, 59), (10, 30), (12, 0)]
    events = [("x", dt.datetime(2024, 3, 1, h, m, tzinfo=UTC)) for h, m in stamps]
    stream = env.from_batch(events).keyby(key)
    return stream.window(Tumbling(dt.timedelta(hours=1)), event_time=lambda event: event[1]).count(parallelism=p)


def totals() -> list[WindowResult]:
    """The counts in tens, summed in fifties by when they end."""
    counted = in_windows(EVENTS, tens, 10, len)
    groups = by_key(counted, lambda one: (one.key, (one.end - 1) // 50 * 50))
    return [WindowResult(k, b, b + 50, sum(one.value for one in group)) for (k, b), group in groups.items()]


@cases.add(totals(), alone="any")
def a_window_of_windows(env: Any, p: int) -> Any:
    counted = disordered(env, Tumbling(10), p).count(parallelism=p).keyby(lambda one: one.key)
    fifties = counted.window(Tumbling(50), event_time=lambda one: one.end - 1, out_of_orderness=1000)
    return fifties.sum(lambda one: one.value, parallelism=p)


@cases.add([], alone="any", more={"late": []})
def no_window_without_items(env: Any, p: int) -> Any:
    window = env.from_batch([]).keyby(key).window(Tumbling(10), event_time=time)
    window.late("too late").collect("late")
    return window.count(parallelism=p)
