"""The interval join: every pair once, and nothing kept that waits for nothing."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_nb.engine.joins import IntervalJoin
from sage_nb.pipeline.operators import IntervalSpec

Item = tuple[Any, float, int]


def time_of(item: Any) -> Any:
    return item[1]


def joined(lower: float, upper: float, disorder: float = 0, origins: tuple[int, int] = (1, 1)) -> IntervalJoin:
    return IntervalJoin(IntervalSpec(lower, upper, (time_of, time_of), disorder), origins)


def nested_loop(steps: list[tuple[int, Any, float]], lower: float, upper: float) -> list[tuple[Item, Item]]:
    """What `steps` of (tag, key, time) make, item by item."""
    seen: tuple[list[Any], list[Any]] = ([], [])
    pairs: list[tuple[Item, Item]] = []
    for n, (tag, key, time) in enumerate(steps):
        for other in sorted(seen[1 - tag], key=lambda item: (item[1], item[2])):
            mine = (key, time, n)
            left, right = (mine, other) if tag == 0 else (other, mine)
            if left[0] == right[0] and lower <= right[1] - left[1] <= upper:
                pairs.append((left, right))
        seen[tag].append((key, time, n))
    return pairs


def nearly_sorted(times: list[float], disorder: float) -> list[float]:
    """`times` in an order in which none is behind an earlier one by more than `disorder`."""
    # Moving each by less than the disorder before they are sorted cannot put two further out of order.
    return sorted(times, key=lambda time: time + disorder * (hash(time) * 7 % 10 / 10))


TIMES = st.integers(0, 30) | st.floats(0, 30)
BOUNDS = st.tuples(st.integers(-8, 8) | st.floats(-8, 8), st.integers(0, 8) | st.floats(0, 8))
STEPS = st.lists(st.tuples(st.integers(0, 1), st.sampled_from([None, 0, False, "", 1]), TIMES), max_size=40)


@settings(deadline=None)
@given(STEPS, BOUNDS)
def test_with_enough_disorder_allowed_it_is_a_nested_loop(steps: list[Any], bounds: tuple[float, float]) -> None:
    lower, upper = float(bounds[0]), float(bounds[0] + bounds[1])
    join = joined(lower, upper, disorder=30)
    pairs = [
        pair
        for n, (tag, key, time) in enumerate(steps)
        for pair in join.execute((key, time, n), key, tag)
    ]  # fmt: skip
    assert pairs == nested_loop(steps, lower, upper)
    assert join.late_count == 0


@settings(deadline=None)
@given(STEPS, BOUNDS, st.sampled_from([0, 2, 6]), st.booleans())
def test_nothing_is_missed_though_items_are_forgotten(
    steps: list[Any], bounds: tuple[float, float], disorder: int, closing: bool
) -> None:
    lower, upper = float(bounds[0]), float(bounds[0] + bounds[1])
    # Each side is nearly in the order of its times; how the two interleave is free.
    times = {tag: iter(nearly_sorted([time for one, _, time in steps if one == tag], disorder)) for tag in (0, 1)}
    steps = [(tag, key, next(times[tag])) for tag, key, _ in steps]
    join, pairs = joined(lower, upper, disorder), []
    for n, (tag, key, time) in enumerate(steps):
        pairs += join.execute((key, time, n), key, tag)
        if closing and tag not in [one for one, _, _ in steps[n + 1 :]]:
            join.close(tag)
    assert pairs == nested_loop(steps, lower, upper)
    assert join.late_count == 0


@pytest.mark.parametrize(("lower", "upper"), [(0, 5), (-5, 5), (3, 5), (-5, -3)])
@pytest.mark.parametrize("keys", [1, 100, 10_000_000])
def test_memory_stays_bounded_for_a_long_stream(lower: float, upper: float, keys: int) -> None:
    join, pairs = joined(lower, upper), 0
    for time in range(10_000):
        for tag in (0, 1):
            pairs += len(join.execute((None, time), time % keys, tag))
        assert len(join) <= 14
    assert pairs >= (0 if keys > 1 else 9_990 * (upper - lower + 1))
    for side in join._sides:  # also of keys that never come again, and of places that are free again
        assert len(side._rows) <= 7
        assert len(side._heap) <= 8
        assert sum(len(row.times) + len(row.items) for row in side._rows.values()) <= 2 * 2 * 64


def test_the_waiting_items_of_many_keys_go_without_a_walk_over_the_keys() -> None:
    join = joined(0, 5)
    for n in range(1000):
        join.execute((n, float(n)), n, 0)
    assert len(join) == 1000
    join.execute((0, 500.0), 0, 1)
    assert len(join) == 505  # from 495 on; the right one waits for none, for the left ones have passed it
    join.execute((0, 10_000.0), 0, 1)
    assert len(join) == 1


def test_items_out_of_order_are_forgotten_once() -> None:
    join = joined(0, 5, disorder=10)
    for time in (8, 5, 3):
        join.execute(("left", time), 0, 0)
    assert [left[1] for left, _ in join.execute(("right", 8), 0, 1)] == [3, 5, 8]
    join.execute(("right", 19), 0, 1)  # whose watermark is 9: only the left one at 3 is over
    assert len(join._sides[0]) == 2
    assert [left[1] for left, _ in join.execute(("right", 9), 0, 1)] == [5, 8]
    join.execute(("left", 4), 0, 0)
    join.execute(("right", 40), 0, 1)
    assert [len(side) for side in join._sides] == [0, 4]
    assert [len(side._heap) for side in join._sides] == [0, 1]
    join.execute(("left", 60), 0, 0)
    assert [len(side) for side in join._sides] == [1, 0]


def test_once_a_side_has_ended_the_other_keeps_nothing() -> None:
    join = joined(0, 5)
    join.execute((0, 1), 0, 0)
    join.execute((0, 1), 0, 1)
    join.close(1)
    assert len(join) == 1
    assert join.execute((1, 1), 0, 0) == [((1, 1), (0, 1))]
    assert len(join) == 1
    join.close(0)
    assert len(join) == 0


def test_a_side_has_ended_when_all_its_inputs_have() -> None:
    join = joined(0, 5, origins=(1, 2))
    join.execute((0, 1), 0, 0)
    join.close(1, 0)
    assert len(join) == 1
    join.execute((0, 7), 0, 1, 1)
    assert len(join) == 1
    join.execute((0, 7), 0, 0)
    assert len(join) == 2
    join.close(1, 1)
    assert len(join) == 1


def test_a_slow_input_of_a_side_holds_its_partners() -> None:
    join = joined(0, 5, origins=(1, 2))
    join.execute(("left", 1), 0, 0)
    join.execute(("fast", 100), 0, 1, 0)
    assert join.execute(("slow", 3), 0, 1, 1) == [(("left", 1), ("slow", 3))]


def test_a_late_item_meets_what_is_kept_and_is_counted() -> None:
    join = joined(0, 5)
    for time in (1, 8):
        join.execute(("left", time), 0, 0)
    join.execute(("right", 10), 0, 1)
    assert join.execute(("late", 9), 0, 1) == [(("left", 8), ("late", 9))]
    assert join.execute(("late", 2), 0, 1) == []
    assert join.late_count == 2


def test_keys_that_are_equal_go_together_and_falsy_ones_are_keys() -> None:
    join = joined(0, 0)
    for key in (None, 0, "", False):
        join.execute((repr(key), 1), key, 0)
    found = {repr(key): [left[0] for left, _ in join.execute((0, 1), key, 1)] for key in (None, 0.0, "", False)}
    assert found == {"None": ["None"], "0.0": ["0", "False"], "''": ["''"], "False": ["0", "False"]}


def test_datetimes_join_exactly() -> None:
    join = joined(0.1, 0.1)
    start = datetime(2013, 1, 1)
    join.execute(("left", start), 0, 0)
    join.execute(("left", start - timedelta(microseconds=1)), 0, 0)
    pairs = join.execute(("right", start + timedelta(milliseconds=100)), 0, 1)
    assert pairs == [(("left", start), ("right", start + timedelta(milliseconds=100)))]


def test_without_bounds_all_pairs_of_a_key_are_found() -> None:
    join = joined(float("-inf"), float("inf"))
    for time in (1, 1000):
        join.execute(("left", time), 0, 0)
    assert [left[1] for left, _ in join.execute(("right", 500), 0, 1)] == [1, 1000]
    join.close(0)
    assert len(join) == 2
    assert len(join.execute(("right", 600), 0, 1)) == 2
    assert len(join) == 2
    join.close(1)
    assert len(join) == 0


def test_times_of_two_kinds_are_refused() -> None:
    join = joined(0, 1)
    join.execute((0, 1), 0, 0)
    with pytest.raises(TypeError, match="event_time returned"):
        join.execute((0, datetime(2013, 1, 1)), 0, 1)
