"""Windows: what is in them, when they fire, and what is late."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import nextafter
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_nb.engine.sessions import SessionWindows
from sage_nb.engine.times import INFINITY, Watermarks
from sage_nb.engine.windows import GridWindows, Windows, make_windows
from sage_nb.pipeline.windows import AGGREGATES, Session, Sliding, Tumbling, WindowResult, WindowSpec

Item = tuple[Any, Any, Any]  # key, time, value
AnyWindow = Tumbling | Sliding | Session


def spec(window: AnyWindow, aggregate: Any = "list", *, disorder: float = 0, lateness: float = 0) -> WindowSpec:
    return WindowSpec(window, operator.itemgetter(1), disorder, lateness, aggregate, operator.itemgetter(2))


def run(windows: Windows, items: list[Item]) -> list[WindowResult]:
    fired = [result for item in items for result in windows.item(item[0], item)]
    return [*fired, *windows.finish()]


def made(window: AnyWindow, items: list[Item], aggregate: Any = "list", **kw: Any) -> list[tuple[Any, ...]]:
    return [tuple(result) for result in run(make_windows(spec(window, aggregate, **kw)), items)]


def at(*times: Any) -> list[Item]:
    """Items of one key at `times`, whose values are their numbers."""
    return [("a", time, n) for n, time in enumerate(times)]


# A second, slow and obvious way to the same results


class Reference:
    """Keeps every window ever in one list; an item, and a watermark, looks at all of them."""

    def __init__(self, spec: WindowSpec) -> None:
        self.spec, self.mark, self.live, self.late = spec, -INFINITY, list[dict[str, Any]](), list[Item]()

    def spans(self, time: float) -> Iterator[tuple[float, float]]:
        window = self.spec.window
        if isinstance(window, Session):
            yield time, time + window.gap
            return
        step = window.step if isinstance(window, Sliding) else window.size
        n = time // step + 1
        while n * step + window.size > time:
            if n * step <= time:
                yield n * step, n * step + window.size
            n -= 1

    def item(self, item: Item, watermark: float) -> list[tuple[Any, ...]]:
        key, time, _ = item
        fired, found = self.advance(watermark), []
        for start, end in sorted(self.spans(time)):
            same = [one for one in self.live if one["key"] == key and self.meets(one, start, end)]
            if not same and end + self.spec.lateness <= self.mark:
                continue
            start, end = min([start, *(one["start"] for one in same)]), max([end, *(one["end"] for one in same)])
            items = [n for one in same for n in one["items"]]
            key = min(same, key=lambda one: one["items"][0][0])["key"] if same else key
            self.live = [one for one in self.live if one not in same]
            items = [*sorted(items, key=operator.itemgetter(0)), (self.arrival, item)]
            self.live.append({"key": key, "start": start, "end": end, "items": items, "fired": end <= self.mark})
            if end <= self.mark:
                fired.append(self.result(self.live[-1]))
            found.append(start)
        self.arrival += 1
        if not found:
            self.late.append(item)
        return fired

    arrival = 0

    def meets(self, one: dict[str, Any], start: float, end: float) -> bool:
        if isinstance(self.spec.window, Session):
            return bool(one["start"] < end and start < one["end"])
        return bool(one["start"] == start)

    def advance(self, watermark: float) -> list[tuple[Any, ...]]:
        self.mark = max(self.mark, watermark)
        due = [one for one in self.live if one["end"] <= self.mark and not one["fired"]]
        due.sort(key=lambda one: (one["end"], one["start"], one["items"][0][0]))
        for one in due:
            one["fired"] = True
        self.live = [one for one in self.live if one["end"] + self.spec.lateness > self.mark]
        return [self.result(one) for one in due]

    def result(self, one: dict[str, Any]) -> tuple[Any, ...]:
        values = [item[2] for _, item in one["items"]]
        return one["key"], one["start"], one["end"], BY_HAND[self.spec.aggregate](values)


BY_HAND: dict[Any, Callable[[list[Any]], Any]] = {
    "count": len, "sum": sum, "mean": lambda values: sum(values) / len(values), "min": min, "max": max,
    "first": lambda values: values[0], "last": lambda values: values[-1], "list": list, sum: sum,
}  # fmt: skip

WINDOWS = st.one_of(
    st.builds(Tumbling, st.sampled_from([1, 5, 2.5])),
    st.builds(
        lambda step, more: Sliding(step + more, step), st.sampled_from([1, 2, 0.5]), st.sampled_from([0, 1, 3.5])
    ),
    st.builds(Session, st.sampled_from([1, 4, 2.5])),
)
ITEMS = st.lists(
    st.tuples(
        st.sampled_from([None, 0, False, "", "a"]),
        st.integers(-30, 30) | st.integers(-120, 120).map(lambda quarters: quarters / 4),
        st.integers(-5, 5),
    ),
    max_size=30,
)
SPECS = st.builds(
    lambda window, aggregate, disorder, lateness: spec(window, aggregate, disorder=disorder, lateness=lateness),
    WINDOWS, st.sampled_from([*AGGREGATES, sum]), st.sampled_from([0, 3, 0.5, 20]), st.sampled_from([0, 2, 7.5]),
)  # fmt: skip


@settings(deadline=None)
@given(SPECS, ITEMS)
def test_every_emission_is_that_of_the_reference(spec: WindowSpec, items: list[Item]) -> None:
    late: list[Item] = []
    windows, reference, watermarks = (
        make_windows(spec, late=late.append),
        Reference(spec),
        Watermarks(spec.out_of_orderness),
    )
    for item in items:
        found = list(windows.item(item[0], item))
        assert found == reference.item(item, watermarks.stamp(item[1]))
        assert late == reference.late
    assert list(windows.finish()) == reference.advance(INFINITY)
    assert windows.late_count == len(late)
    assert is_empty(windows)


def is_empty(windows: Windows) -> bool:
    assert isinstance(windows, (GridWindows, SessionWindows))
    held = windows._windows if isinstance(windows, GridWindows) else windows._sessions
    return not held and not windows._open and not windows._kept and windows.due() is None


@settings(deadline=None)
@given(
    SPECS,
    st.lists(st.tuples(st.sampled_from("ab"), st.floats(-20, 20) | st.integers(-20, 20), st.integers(-5, 5))),
    st.integers(0, 5) | st.floats(0, 5),
)
def test_watermarks_from_upstream_give_the_same(spec: WindowSpec, items: list[Item], disorder: float) -> None:
    spec = replace(spec, out_of_orderness=float(disorder))
    here, there, watermarks = make_windows(spec), make_windows(spec), Watermarks(spec.out_of_orderness)
    for item in items:
        found = there.item_at(item[0], item, item[1], watermarks.stamp(item[1]))
        assert list(here.item(item[0], item)) == list(found)
    assert list(here.finish()) == list(there.finish())
    assert here.late_count == there.late_count


@settings(deadline=None)
@given(SPECS, st.lists(st.tuples(st.integers(0, 2), ITEMS.filter(bool).map(operator.itemgetter(0)))))
def test_several_inputs_give_what_their_watermarks_give(spec: WindowSpec, steps: list[tuple[int, Item]]) -> None:
    here, there, watermarks = make_windows(spec, origins=3), make_windows(spec), Watermarks(spec.out_of_orderness, 3)
    for n, (origin, item) in enumerate(steps):
        found = there.item_at(item[0], item, item[1], watermarks.stamp(item[1], origin))
        assert list(here.item_from(item[0], item, origin)) == list(found)
        if origin not in [one for one, _ in steps[n + 1 :]]:
            assert list(here.close(origin)) == list(there.advance(watermarks.close(origin)))
    assert list(here.finish()) == list(there.finish())


@settings(deadline=None)
@given(SPECS, ITEMS, st.integers(0, 30))
def test_a_disorder_that_is_allowed_makes_nothing_late(spec: WindowSpec, items: list[Item], disorder: int) -> None:
    latest, kept = -INFINITY, []
    for item in items:
        if item[1] >= latest - disorder:
            latest = max(latest, item[1])
            kept.append(item)
    windows = make_windows(replace(spec, out_of_orderness=disorder))
    run(windows, kept)
    assert windows.late_count == 0


# Against pandas


def last_values(results: list[WindowResult]) -> dict[Any, Any]:
    return {result[:3]: result.value for result in results}


@settings(deadline=None)
@given(ITEMS, st.sampled_from([1, 5, 2.5]), st.sampled_from([0, 4]), st.sampled_from([0, 9]))
def test_tumbling_windows_end_up_as_pandas_has_them(
    items: list[Item], size: float, disorder: int, lateness: int
) -> None:
    items, late = [(repr(key), time, n) for key, time, n in items], list[Item]()
    windows = make_windows(spec(Tumbling(size), "sum", disorder=disorder, lateness=lateness), late=late.append)
    found = last_values(run(windows, items))
    for one in late:
        items.remove(one)
    frame = pd.DataFrame([(key, time // size * size, n) for key, time, n in items], columns=["key", "start", "n"])
    sums = frame.groupby(["key", "start"], as_index=False)["n"].sum()
    expected = {(key, start): n for key, start, n in sums.itertuples(index=False)}
    assert {(key, start): value for (key, start, _), value in found.items()} == expected
    assert windows.late_count == len(late)


@settings(deadline=None)
@given(ITEMS, st.sampled_from([1, 2, 0.5]), st.sampled_from([0, 1, 3.5]))
def test_sliding_windows_in_order_are_as_pandas_has_them(items: list[Item], step: float, more: float) -> None:
    items = sorted([("a", time, n) for _, time, n in items], key=operator.itemgetter(1))
    size = step + more
    found = {start: value for _, start, _, value in made(Sliding(size, step), items, "count")}
    times = pd.Series([float(time) for _, time, _ in items], dtype=float)
    starts = np.arange(-60, 61) * step
    counts = {start: int(times.between(start, start + size, inclusive="left").sum()) for start in starts}
    assert {start: count for start, count in counts.items() if count and -60 * step < start < 60 * step} == {
        start: count for start, count in found.items() if -60 * step < start < 60 * step
    }


@settings(deadline=None)
@given(ITEMS, st.sampled_from([1, 4, 2.5]))
def test_sessions_are_as_sorting_and_splitting_has_them(items: list[Item], gap: float) -> None:
    expected = []
    for key in ("", "a", None):
        mine = sorted((time, n) for name, time, n in items if name == key)
        while mine:
            end = next((i for i in range(1, len(mine)) if mine[i][0] - mine[i - 1][0] >= gap), len(mine))
            expected.append((key, mine[0][0], mine[end - 1][0] + gap, sorted(n for _, n in mine[:end])))
            mine = mine[end:]
    items = [item for item in items if item[0] in ("", "a", None) and item[0] is not False]
    found = [(key, start, end, sorted(values)) for key, start, end, values in made(Session(gap), items, disorder=70)]
    assert sorted(found, key=repr) == sorted(expected, key=repr)


# Bounds


@settings(deadline=None)
@given(st.decimals(-1000, 1000, places=3), st.sampled_from(["0.1", "0.7", "0.001", "2.3", "1", "60"]))
def test_a_decimal_time_falls_into_the_window_that_its_digits_say(time: Decimal, size: str) -> None:
    [(_, start, end, _)] = made(Tumbling(float(size)), at(float(time)))
    n = time / Decimal(size) // 1 - (time < 0 and time % Decimal(size) != 0)
    assert (start, end) == (float(n * Decimal(size)), float((n + 1) * Decimal(size)))


@settings(deadline=None)
@given(
    st.floats(-1e9, 1e9) | st.integers(-(10**9), 10**9),
    st.floats(1e-3, 1e3) | st.integers(1, 1000),
    st.floats(0.1, 1),
)
def test_each_time_is_inside_its_windows_and_these_leave_no_gap(time: float, size: float, share: float) -> None:
    [(_, start, end, _)] = made(Tumbling(size), at(time))
    assert start <= time < end
    step = size * share
    found = made(Sliding(size, step), at(time))
    assert all(start <= time < end for _, start, end, _ in found)
    exact, wide = Fraction(repr(float(step))), Fraction(repr(float(size)))
    first = Fraction(found[0][1]) / exact
    assert [start for _, start, _, _ in found] == [float((round(first) + n) * exact) for n in range(len(found))]
    # one more before or after would not hold the time
    assert float((round(first) - 1) * exact + wide) <= time
    assert float((round(first) + len(found)) * exact) > time


@pytest.mark.parametrize(("size", "time"), [(60, 0), (60, 59.9), (60.0, 59), (timedelta(minutes=1), 0.5)])
def test_bounds_are_whole_numbers_where_the_size_is(size: Any, time: float) -> None:
    assert repr(made(Tumbling(size), at(time), "count")) == "[('a', 0, 60, 1)]"


def test_bounds_of_whole_nanoseconds_are_exact() -> None:
    assert made(Tumbling(10), at(1_700_000_000_123_456_789)) == [
        ("a", 1_700_000_000_123_456_780, 1_700_000_000_123_456_790, [0])
    ]


@pytest.mark.parametrize("window", [Tumbling(0.1), Sliding(0.2, 0.1), Session(1)])
def test_a_float_too_large_for_its_window_is_refused_in_words(window: AnyWindow) -> None:
    with pytest.raises(ValueError, match=r"event_time returned 1e\+300; .* return seconds since the epoch"):
        made(window, at(1e300))


DAY = datetime(2013, 1, 1)


def test_datetimes_come_back_as_datetimes() -> None:
    times = [DAY + timedelta(minutes=n) for n in (0, 59, 61)]
    expected = [("a", DAY, DAY + timedelta(hours=1), [0, 1]), ("a", *(DAY + timedelta(hours=n) for n in (1, 2)), [2])]
    assert made(Tumbling(3600), at(*times)) == expected
    assert made(Tumbling(3600), at(*map(pd.Timestamp, times))) == expected
    assert made(Tumbling(3600), at(*map(np.datetime64, times))) == expected


def test_datetimes_with_a_zone_come_back_in_utc() -> None:
    zone = "America/New_York"
    times = [pd.Timestamp("2013-01-01 05:15", tz=zone), datetime(2013, 1, 1, 10, 20, tzinfo=UTC)]
    [(_, start, end, values)] = made(Tumbling(3600), at(*times))
    assert (start, end, values) == (*(datetime(2013, 1, 1, hour, tzinfo=UTC) for hour in (10, 11)), [0, 1])
    assert start.tzinfo is UTC


def test_sessions_of_datetimes() -> None:
    times = [DAY, DAY + timedelta(seconds=3), DAY + timedelta(seconds=8)]
    assert made(Session(5), at(*times)) == [
        ("a", DAY, DAY + timedelta(seconds=8), [0, 1]),
        ("a", DAY + timedelta(seconds=8), DAY + timedelta(seconds=13), [2]),
    ]


@settings(deadline=None)
@given(st.datetimes(datetime(1, 2, 1), datetime(9999, 11, 1)), st.sampled_from([0.1, 0.000001, 3600, 0.25]))
def test_datetimes_of_all_years_fall_exactly_into_their_windows(time: datetime, size: float) -> None:
    [(_, start, end, _)] = made(Tumbling(size), at(time))
    assert start <= time < end
    assert end - start == timedelta(seconds=size)
    assert (start - datetime(1970, 1, 1)) % timedelta(seconds=size) == timedelta(0)


def test_out_of_orderness_and_lateness_of_datetimes_are_seconds_too() -> None:
    times = [DAY + timedelta(seconds=n) for n in (0, 11, 12, 5, 13, 14, 1)]
    windows = make_windows(spec(Tumbling(10), "count", disorder=2, lateness=2))
    found = [(n, result.value) for n, item in enumerate(at(*times)) for result in windows.item("a", item)]
    assert found == [(2, 1), (3, 2)]
    assert windows.late_count == 1


@pytest.mark.parametrize("window", [Tumbling(86_400), Sliding(86_400, 3600), Session(86_400)])
def test_a_datetime_at_the_end_of_the_calendar_is_refused_in_words(window: AnyWindow) -> None:
    with pytest.raises(ValueError, match="years 1 to 9999"):
        made(window, at(datetime.max))


def test_a_session_does_not_grow_past_the_end_of_the_calendar() -> None:
    windows = make_windows(spec(Session(10), "count"))
    windows.item("a", ("a", datetime.max - timedelta(seconds=15), 0))
    with pytest.raises(ValueError, match="years 1 to 9999"):
        windows.item("a", ("a", datetime.max - timedelta(seconds=9), 0))
    assert [one.value for one in windows.finish()] == [1]


@pytest.mark.parametrize("window", [Tumbling(1e-7), Sliding(1, 1e-7), Session(1e-7)])
def test_a_window_too_short_for_datetimes_is_refused_in_words(window: AnyWindow) -> None:
    with pytest.raises(ValueError, match="too short for datetimes"):
        made(window, at(DAY))


@pytest.mark.parametrize("window", [Tumbling(10), Session(10)])
@pytest.mark.parametrize("time", [None, float("nan"), INFINITY, "2013-01-01", True])
def test_a_time_that_is_none_changes_nothing(window: AnyWindow, time: Any) -> None:
    windows = make_windows(spec(window))
    windows.item("a", ("a", 1.0, 0))
    with pytest.raises((TypeError, ValueError), match="event_time returned"):
        windows.item("a", ("a", time, 1))
    assert [one.value for one in run(windows, [("a", 2.0, 2)])] == [[0, 2]]


# Aggregates


@pytest.mark.parametrize("window", [Tumbling(10), Sliding(10, 10), Session(10)])
@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([timedelta(1), timedelta(2)], timedelta(3)),
        ([Decimal("0.1"), Decimal("0.2")], Decimal("0.3")),
        ([1, 2], 3),
        (["a", "b"], "ab"),
        ([[1], [2]], [1, 2]),
    ],
)
def test_a_sum_begins_from_the_first_value(window: AnyWindow, values: list[Any], total: Any) -> None:
    before = [list(value) if isinstance(value, list) else value for value in values]
    [(_, _, _, found)] = made(window, [("a", 1, value) for value in values], "sum")
    assert found == total
    assert values == before


def test_a_mean_is_a_sum_by_a_count() -> None:
    assert made(Tumbling(10), [("a", 1, timedelta(1)), ("a", 2, timedelta(2))], "mean")[0][3] == timedelta(1.5)
    assert made(Tumbling(10), [("a", 1, 1), ("a", 2, 2)], "mean")[0][3] == 1.5


@pytest.mark.parametrize("window", [Tumbling(10), Session(10)])
@pytest.mark.parametrize("aggregate", ["list", lambda values: values])
def test_an_emitted_list_is_the_users_own(window: AnyWindow, aggregate: Any) -> None:
    windows = make_windows(spec(window, aggregate, lateness=100))
    windows.item("a", ("a", 1, 1))
    [first] = windows.item("b", ("b", 25, 0))
    first.value.append("mine")
    [again] = windows.item("a", ("a", 2, 2))
    assert (first.value, again.value) == ([1, "mine"], [1, 2])


def test_a_count_does_not_ask_for_values() -> None:
    assert made(Tumbling(10), [("a", 1)], "count") == [("a", 0, 10, 1)]  # type: ignore[list-item]


def test_without_a_value_function_the_item_is_the_value() -> None:
    windows = make_windows(WindowSpec(Tumbling(10), lambda x: x, 0, 0, "list", None))
    windows.item(None, 3)
    assert list(windows.finish()) == [(None, 0, 10, [3])]


# Firing


def test_windows_fire_by_end_then_start_then_first_arrival_of_the_key() -> None:
    items = [("b", 12, 0), ("a", 11, 0), ("c", 1, 0), ("b", 2, 0), ("a", 3, 0), ("c", 13, 0)]
    found = [(key, start) for key, start, _, _ in made(Tumbling(10), items, disorder=20)]
    assert found == [("c", 0), ("b", 0), ("a", 0), ("b", 10), ("a", 10), ("c", 10)]
    items = [("b", 4, 0), ("a", 6, 0), ("c", 6, 0), ("d", 6, 0), ("c", 2, 0)]
    sessions = [(key, start, end) for key, start, end, _ in made(Session(5), items, disorder=20)]
    assert sessions == [("b", 4, 9), ("c", 2, 11), ("a", 6, 11), ("d", 6, 11)]


def test_an_item_fires_what_ends_before_it_and_is_added_then() -> None:
    windows = make_windows(spec(Tumbling(10)))
    items = [("a", 0, 0), ("b", 9.99, 1), ("a", 10, 2), ("b", 35, 3), ("a", 35, 4)]
    fired = [list(windows.item(item[0], item)) for item in items]
    assert fired == [[], [], [("a", 0, 10, [0]), ("b", 0, 10, [1])], [("a", 10, 20, [2])], []]
    assert [tuple(one) for one in windows.finish()] == [("b", 30, 40, [3]), ("a", 30, 40, [4])]


@pytest.mark.parametrize("ulps", range(-8, 9))
@pytest.mark.parametrize("disorder", [0.1, 0.3, 0.7])
def test_a_window_fires_at_the_very_time_that_makes_the_watermark_pass_its_end(disorder: float, ulps: int) -> None:
    time = 10 + disorder
    for _ in range(abs(ulps)):
        time = nextafter(time, INFINITY * ulps)
    windows = make_windows(spec(Tumbling(10), disorder=disorder))
    windows.item("a", ("a", 1.0, 0))
    windows.item("a", ("a", 10.05, 1))
    assert len(windows.item("a", ("a", time, 2))) == (time - disorder >= 10)


@pytest.mark.parametrize("window", [Tumbling(10), Sliding(10, 10), Session(4)])
def test_an_item_for_a_window_that_a_watermark_fired_is_late(window: AnyWindow) -> None:
    windows = make_windows(spec(window))
    windows.item("a", ("a", 5, 0))
    assert [one.value for one in windows.advance(10)] == [[0]]
    assert windows.item("a", ("a", 6, 1)) == ()
    assert (windows.late_count, windows.finish()) == (1, ())


def test_a_call_that_fires_nothing_costs_no_list() -> None:
    windows = make_windows(spec(Tumbling(10)))
    assert windows.item("a", ("a", 1, 1)) is windows.item("a", ("a", 2, 1)) == ()


def test_a_late_item_counts_in_the_sliding_windows_that_remain() -> None:
    late: list[Item] = []
    windows = make_windows(spec(Sliding(10, 5)), late=late.append)
    windows.item("a", ("a", 16, 0))
    windows.item("a", ("a", 11, 1))
    windows.item("a", ("a", 9, 2))
    assert [tuple(one) for one in windows.finish()] == [("a", 10, 20, [0, 1]), ("a", 15, 25, [0])]
    assert late == [("a", 9, 2)]


def test_an_item_that_bridges_two_sessions_makes_them_one_in_order_of_arrival() -> None:
    items = [("a", 20, "x"), ("a", 10, "y"), ("a", 21, "z"), ("a", 15, "bridge"), ("a", 11, "w")]
    values = {name: made(Session(6), items, name, disorder=50)[0] for name in ("list", "first", "last", "count")}
    assert values == {
        "list": ("a", 10, 27, ["x", "y", "z", "bridge", "w"]), "first": ("a", 10, 27, "x"),
        "last": ("a", 10, 27, "w"), "count": ("a", 10, 27, 5),
    }  # fmt: skip


def test_a_session_that_has_fired_and_merges_within_lateness_fires_as_one() -> None:
    windows = make_windows(spec(Session(5), lateness=10))
    calls = [("a", 0, 0), ("b", 7, 1), ("a", 1, 2), ("a", 4, 3), ("b", 9, 4)]
    fired = [[tuple(one) for one in windows.item(item[0], item)] for item in calls]
    assert fired == [[], [("a", 0, 5, [0])], [("a", 0, 6, [0, 2])], [], [("a", 0, 9, [0, 2, 3])]]


def test_a_session_that_fires_again_and_again_is_kept_no_more_often_than_lateness_asks() -> None:
    windows = make_windows(spec(Session(5), "count", lateness=100))
    assert isinstance(windows, SessionWindows)
    held = 0
    for time in range(0, 10_000, 4):
        windows.item("a", ("a", time, 0))
        assert len(windows.advance(time + 5)) == 1
        held = max(held, len(windows._open) + len(windows._kept))
    assert held <= 100 // 4 + 2


# Errors in the user's functions


def failing_once() -> Callable[[list[Any]], int]:
    failed: list[Any] = []

    def total(values: list[Any]) -> int:
        if "bad" in values and not failed:
            failed.append(values)
            raise RuntimeError("bad")
        return len(values)

    return total


@pytest.mark.parametrize("window", [Tumbling(10), Session(5)])
def test_an_aggregate_that_raises_loses_its_own_window_only(window: AnyWindow) -> None:
    windows = make_windows(spec(window, failing_once()))
    for key, value in [("a", 1), ("b", "bad"), ("c", 1)]:
        windows.item(key, (key, 1, value))
    with pytest.raises(RuntimeError, match="bad"):
        windows.item("d", ("d", 20, 1))
    assert [one.key for one in windows.item("d", ("d", 21, 1))] == ["a", "c"]
    assert [(one.key, one.value) for one in windows.finish()] == [("d", 2)]


@pytest.mark.parametrize("window", [Tumbling(10), Session(5)])
def test_a_value_that_cannot_be_added_loses_itself_only(window: AnyWindow) -> None:
    windows = make_windows(spec(window, "sum"))
    windows.item("b", ("b", 1, 1))
    windows.item("a", ("a", 11, 1))
    with pytest.raises(TypeError):
        windows.item("a", ("a", 12, "x"))
    windows.item("a", ("a", 12, 2))
    assert [(one.key, one.value) for one in windows.finish()] == [("a", 3)]


def test_an_item_whose_value_raises_moves_nothing() -> None:
    windows = make_windows(spec(Tumbling(10)))
    windows.item("a", ("a", 1, 1))
    with pytest.raises(IndexError):
        windows.item("a", ("a", 99))
    assert windows.item("a", ("a", 2, 2)) == ()
    assert [one.value for one in windows.finish()] == [[1, 2]]


# Processing time


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def by_clock(window: AnyWindow, clock: Clock) -> Windows:
    return make_windows(WindowSpec(window, None, 0, 0, "list", None), clock=clock)


def test_by_the_clock_a_window_ends_while_no_item_comes() -> None:
    clock = Clock(103.0)
    windows = by_clock(Tumbling(10), clock)
    assert windows.due() is None
    assert windows.item("a", 1) == ()
    assert windows.due() == 110
    assert windows.tick(109.9) == ()
    assert [tuple(one) for one in windows.tick(110)] == [("a", 100, 110, [1])]
    assert windows.due() is None
    assert windows.close(0) == ()


def test_by_the_clock_an_item_fires_what_has_ended() -> None:
    clock = Clock(103.0)
    windows = by_clock(Sliding(10, 5), clock)
    windows.item("a", 1)
    clock.now = 106.0
    assert [tuple(one) for one in windows.item("a", 2)] == [("a", 95, 105, [1])]
    clock.now = 107.0
    assert windows.item_from("a", 3, 0) == ()
    assert [tuple(one) for one in windows.finish()] == [("a", 100, 110, [1, 2, 3]), ("a", 105, 115, [2, 3])]


def test_by_the_clock_a_session_ends_a_gap_after_its_last_item() -> None:
    clock = Clock(100.0)
    windows = by_clock(Session(5), clock)
    windows.item("a", 1)
    clock.now = 104.0
    windows.item("a", 2)
    assert windows.tick(105.0) == ()
    assert windows.due() == 109
    assert [tuple(one) for one in windows.tick(109)] == [("a", 100.0, 109.0, [1, 2])]


def test_a_clock_that_is_set_back_makes_nothing_late() -> None:
    clock = Clock(109.0)
    windows = by_clock(Tumbling(10), clock)
    windows.item("a", 1)
    windows.tick(112.0)
    clock.now = 50.0
    windows.item("a", 2)
    assert [tuple(one) for one in windows.finish()] == [("a", 110, 120, [2])]
    assert windows.late_count == 0


# Memory


@pytest.mark.parametrize("window", [Tumbling(10), Sliding(10, 5), Session(5)])
@pytest.mark.parametrize("keys", [1, 3, 10_000_000])
def test_memory_stays_bounded_for_a_long_stream(window: AnyWindow, keys: int) -> None:
    windows = make_windows(spec(window, "sum", disorder=3, lateness=7))
    assert isinstance(windows, (GridWindows, SessionWindows))
    held = 0
    for n in range(5_000):
        windows.item(n % keys, (n % keys, n, 1))
        states = (
            sum(len(one.states) for one in windows._windows.values())
            if isinstance(windows, GridWindows)
            else sum(map(len, windows._sessions.values()))
        )
        held = max(held, states, len(windows._open), len(windows._kept))
    assert held <= 60
