"""Event times become numbers and come back; watermarks follow the slowest input."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_nb.engine.times import INFINITY, Times, Watermarks


@settings(deadline=None)
@given(st.datetimes() | st.datetimes(timezones=st.timezones() | st.just(timezone(timedelta(hours=-9, minutes=-30)))))
def test_a_datetime_comes_back_equal(time: datetime) -> None:
    times = Times()
    back = times.label(times.number(time))
    if time.tzinfo is None:
        assert back == time
    else:  # `==` of times in a fold is never true across zones
        assert back.tzinfo is UTC
        assert back - time.astimezone(UTC) == timedelta(0)


@pytest.mark.parametrize(
    ("time", "number"),
    [
        (7, 7), (7.5, 7.5), (np.int64(7), 7), (np.float64(7.5), 7.5), (np.float32(7.5), 7.5), (Decimal("7.5"), 7.5),
        (Fraction(15, 2), 7.5), (10**25, 10**25), (-0.5, -0.5),
    ],
)  # fmt: skip
def test_any_number_is_seconds(time: Any, number: float) -> None:
    found = Times().number(time)
    assert (found, type(found)) == (number, type(number))


@pytest.mark.parametrize(
    "time",
    [
        datetime(2013, 1, 1, 5, 15, 0, 1), pd.Timestamp("2013-01-01 05:15:00.000001"),
        pd.Timestamp("2013-01-01 05:15:00.000001999"), np.datetime64("2013-01-01T05:15:00.000001"),
        np.datetime64("2013-01-01T05:15:00.000001999"), pd.Timestamp("2013-01-01 05:15:00.000001", tz="UTC"),
        datetime(2013, 1, 1, 0, 15, 0, 1, timezone(timedelta(hours=-5))),
        pd.Timestamp("2013-01-01 00:15:00.000001", tz="America/New_York"),
    ],
)  # fmt: skip
def test_every_kind_of_datetime_is_whole_microseconds(time: Any) -> None:
    assert Times().number(time) == 1_357_017_300_000_001


class Nowhere(tzinfo):
    """A zone that knows no offset: its times are naive."""

    def utcoffset(self, dt: datetime | None, /) -> None:
        return None

    dst = tzname = utcoffset


def test_a_zone_without_an_offset_is_none() -> None:
    times = Times()
    assert times.label(times.number(datetime(2013, 1, 1, tzinfo=Nowhere()))) == datetime(2013, 1, 1)


def test_a_date_is_its_midnight() -> None:
    times = Times()
    assert times.label(times.number(date(1969, 12, 31))) == datetime(1969, 12, 31)


@pytest.mark.parametrize("time", [None, True, np.True_, "2013-01-01", b"7", 7j, timedelta(1), [7], np.array([7.0])])
def test_what_is_no_time_is_refused_in_words(time: Any) -> None:
    with pytest.raises(TypeError, match=r"event_time returned .*; return the item's time: seconds as a number, or"):
        Times().number(time)


@pytest.mark.parametrize(
    "time", [float("nan"), INFINITY, -INFINITY, pd.NaT, np.datetime64("NaT"), np.float64("nan"), Decimal("nan")]
)
def test_a_time_that_is_unknown_or_endless_is_refused_in_words(time: Any) -> None:
    with pytest.raises(ValueError, match=r"event_time returned .*; return the item's time"):
        Times().number(time)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (1.0, datetime(2013, 1, 1)),
        (datetime(2013, 1, 1), 1.0),
        (datetime(2013, 1, 1), datetime(2013, 1, 1, tzinfo=UTC)),
    ],
)
def test_times_of_two_kinds_are_refused_in_words(first: Any, then: Any) -> None:
    times = Times()
    times.number(first)
    with pytest.raises(TypeError, match=r"event_time returned .*, a .*, where other items have a .*; return times of"):
        times.number(then)


def test_a_watermark_follows_the_latest_time_and_never_goes_back() -> None:
    marks = Watermarks(2)
    assert [marks.stamp(time) for time in (5, 3, 9, 8, 9.5)] == [3, 3, 7, 7, 7.5]


def test_a_watermark_is_that_of_the_slowest_input() -> None:
    marks = Watermarks(0, origins=2)
    assert marks.stamp(5, 0) == -INFINITY
    assert marks.stamp(3, 1) == 3
    assert marks.stamp(9, 0) == 3
    assert marks.stamp(7, 1) == 7
    assert marks.close(1) == 9
    assert marks.close(0) == INFINITY


def test_an_input_that_gave_nothing_and_ended_holds_nothing_back() -> None:
    marks = Watermarks(0, origins=2)
    marks.stamp(5, 0)
    assert marks.close(1) == 5


def test_an_idle_input_is_left_out_until_it_gives_an_item() -> None:
    marks = Watermarks(0, origins=3)
    marks.stamp(5, 0)
    marks.stamp(20, 2)
    assert marks.idle(1) == 5
    assert marks.stamp(8, 0) == 8
    assert marks.stamp(2, 1) == 8
    assert marks.stamp(30, 0) == 8
    assert marks.stamp(10, 1) == 10


def test_an_idle_input_is_not_ended_when_all_others_have() -> None:
    marks = Watermarks(0, origins=2)
    marks.stamp(5, 0)
    marks.stamp(4, 1)
    assert marks.idle(1) == 5
    assert marks.close(0) == 5
    assert marks.stamp(6, 1) == 6
    assert marks.idle(1) == 6
    assert marks.close(1) == INFINITY


def test_watermarks_of_datetimes_are_in_microseconds() -> None:
    assert Watermarks(1.5).stamp(datetime(1970, 1, 1, 0, 0, 10)) == 8_500_000


@pytest.mark.parametrize("time", [float("nan"), INFINITY, -INFINITY])
@pytest.mark.parametrize("before", [[], [1.0]])
def test_a_time_that_is_not_finite_leaves_the_watermark_alone(time: float, before: list[float]) -> None:
    marks = Watermarks(0)
    for one in before:
        marks.stamp(one)
    with pytest.raises(ValueError, match="event_time returned"):
        marks.stamp(time)
    assert marks.stamp(2.0) == 2.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 20), st.sampled_from(["item", "idle", "close"]))))
def test_watermarks_are_the_lowest_of_the_inputs_that_count(steps: list[tuple[int, int, str]]) -> None:
    marks, latest, idle, closed, before = Watermarks(3, origins=3), [-INFINITY] * 3, set[int](), set[int](), -INFINITY
    for origin, time, what in steps:
        if what == "item" and origin not in closed:
            latest[origin] = max(latest[origin], time - 3)
            idle.discard(origin)
            found = marks.stamp(time, origin)
        elif what == "idle":
            idle |= {origin} - closed
            found = marks.idle(origin)
        else:
            closed.add(origin)
            idle.discard(origin)
            found = marks.close(origin)
        counting = [latest[one] for one in range(3) if one not in idle | closed]
        lowest = min(counting) if counting else (before if idle else INFINITY)
        before = max(before, lowest)
        assert found == before
