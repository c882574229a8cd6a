"""Operators: what reaches a sink."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from sage_nb import FilterFunction, FlatMapFunction, LocalEnvironment, MapFunction, SinkFunction
from tests.support import Gate, counts, endless, ran, submitted


def test_map_replaces_each_item() -> None:
    assert ran(lambda env: env.from_batch([1, 2, 3]).map(lambda x: x * 10)) == [10, 20, 30]


def test_map_to_none_emits_nothing() -> None:
    assert ran(lambda env: env.from_batch(range(6)).map(lambda x: x if x % 2 else None)) == [1, 3, 5]


def test_map_emits_what_is_false_but_not_none() -> None:
    assert ran(lambda env: env.from_batch([0, 1]).map(lambda x: [0, ""][x])) == [0, ""]


def test_a_none_of_an_iterable_arrives_whole() -> None:
    """Nothing is lost: None is an item where no function returned it."""
    taken: list[Any] = []
    env = LocalEnvironment("nones")
    env.from_batch([1, 2, None, 4]).sink(taken.append)
    env.submit(autostop=True)
    assert taken == [1, 2, None, 4]


def test_what_keeps_a_result_is_called_after_it() -> None:
    env = LocalEnvironment("names")
    env.from_batch([1], name="late").collect("late").map(abs, name="collect more").collect("more").show("abs").show(
        "map"
    )
    job = env.submit(autostop=True)
    assert list(counts(job)) == ["late", "collect late", "collect more", "more", "abs", "map"]
    assert list(job.results) == ["late", "more", "abs", "map"]


@pytest.mark.parametrize("passes", [1, "x", [0], object()])
@pytest.mark.parametrize("drops", [0, "", [], None])
def test_filter_goes_by_truth_and_passes_the_item_itself(passes: object, drops: object) -> None:
    item = {"id": 1}
    (got,) = ran(lambda env: env.from_batch([item, 2]).filter(lambda x: passes if x is item else drops))
    assert got is item


@pytest.mark.parametrize("kind", [list, tuple, iter, lambda items: (x for x in items), dict.fromkeys])
def test_flatmap_takes_any_iterable(kind: Any) -> None:
    assert ran(lambda env: env.from_batch([2, 0, 1]).flatmap(lambda n: kind(range(n)))) == [0, 1, 0]


@pytest.mark.parametrize("text", ["word", "", b"bytes", bytearray(b"more")])
def test_flatmap_takes_text_as_one_item(text: Any) -> None:
    assert ran(lambda env: env.from_batch([1]).flatmap(lambda _: text)) == [text]


def test_flatmap_to_none_emits_nothing() -> None:
    assert ran(lambda env: env.from_batch([1, 2]).flatmap(lambda x: [x] if x == 2 else None)) == [2]


def test_flatmap_emits_a_none_that_is_in_the_iterable() -> None:
    assert ran(lambda env: env.from_batch([1]).flatmap(lambda x: [x, None])) == [1, None]


def test_flatmap_of_an_endless_generator_flows_item_by_item() -> None:
    assert ran(lambda env: env.from_batch([5]).flatmap(itertools.count).take(3)) == [5, 6, 7]


class ReturnsAndCollects(FlatMapFunction):
    def execute(self, data: int) -> list[str]:
        self.collect(f"{data} collected")
        self.collect(None)
        return [f"{data} returned"]


def test_what_a_flatmap_returns_comes_before_what_it_collects() -> None:
    got = ran(lambda env: env.from_batch([1, 2]).flatmap(ReturnsAndCollects))
    assert got == ["1 returned", "1 collected", None, "2 returned", "2 collected", None]


class YieldsAndCollects(FlatMapFunction):
    def execute(self, data: int) -> Iterator[str]:
        self.collect(f"{data} collected")
        yield f"{data} yielded"
        self.collect(f"{data} collected late")


def test_a_generator_that_collects_loses_nothing() -> None:
    got = ran(lambda env: env.from_batch([1, 2]).flatmap(YieldsAndCollects))
    assert got == ["1 yielded", "1 collected", "1 collected late", "2 yielded", "2 collected", "2 collected late"]


class OnlyCollects(FlatMapFunction):
    def execute(self, data: int) -> None:
        for n in range(data):
            self.collect(n)


def test_a_flatmap_may_only_collect() -> None:
    assert ran(lambda env: env.from_batch([2, 0, 1]).flatmap(OnlyCollects)) == [0, 1, 0]


@pytest.mark.parametrize(("n", "expected"), [(0, []), (1, [0]), (3, [0, 1, 2]), (9, [0, 1, 2, 3])])
def test_take_lets_the_first_items_pass(n: int, expected: list[int]) -> None:
    assert ran(lambda env: env.from_batch(range(4)).take(n)) == expected


def test_take_ends_an_endless_source_without_asking_it_once_more() -> None:
    asked: list[int] = []

    def numbers() -> Iterator[int]:
        for n in itertools.count():
            asked.append(n)
            yield n

    assert ran(lambda env: env.from_batch(numbers).take(3)) == [0, 1, 2]
    assert asked == [0, 1, 2]


def test_take_of_nothing_never_asks_the_source() -> None:
    asked: list[int] = []

    def untouched() -> Iterator[int]:
        asked.append(1)
        yield 1

    assert ran(lambda env: env.from_batch(untouched).take(0)) == []
    assert asked == []


def test_the_job_ends_when_every_take_has_had_enough() -> None:
    env = LocalEnvironment("takes")
    numbers = env.from_source(endless)
    numbers.take(2).collect("two")
    numbers.filter(lambda x: x % 2).take(3).collect("odd")
    job = env.submit(autostop=True)
    assert list(job.results["two"]) == [0, 1]
    assert list(job.results["odd"]) == [1, 3, 5]
    assert job.status == "completed"


def test_a_take_behind_another_counts_for_itself() -> None:
    assert ran(lambda env: env.from_source(endless).take(10).map(lambda x: x or None).take(2)) == [1, 2]


def test_a_take_in_one_branch_leaves_an_endless_other_branch_alone() -> None:
    with Gate(at=1_000) as gate:
        env = LocalEnvironment("branches")
        numbers = env.from_source(endless)
        numbers.take(2).collect("two")
        numbers.map(gate).collect("all")
        job = env.submit()
        gate.wait()
        assert list(job.results["two"]) == [0, 1]
        assert list(job.results["all"]) == list(range(999))
    assert job.stop().status == "stopped"


def test_two_consumers_both_get_every_item_in_order_of_declaration() -> None:
    order: list[str] = []
    env = LocalEnvironment("fan-out")
    numbers = env.from_batch([1, 2])
    numbers.map(lambda x: x * 10).sink(lambda x: order.append(f"first {x}"))
    numbers.filter(lambda x: x > 1).sink(lambda x: order.append(f"second {x}"))
    numbers.sink(lambda x: order.append(f"third {x}"))
    env.submit(autostop=True)
    assert order == ["first 10", "third 1", "first 20", "second 2", "third 2"]


def test_a_sink_taps_the_stream_in_passing() -> None:
    tapped: list[int] = []
    got = ran(lambda env: env.from_batch([1, 2]).sink(tapped.append).map(lambda x: -x).sink(tapped.append))
    assert got == [-1, -2]
    assert tapped == [1, -1, 2, -2]


def test_what_a_sink_returns_changes_nothing() -> None:
    env = LocalEnvironment("sink")
    env.from_batch([1, 2]).sink(lambda x: None).sink(lambda x: x * 100).collect("out")
    assert list(env.submit(autostop=True).results["out"]) == [1, 2]


def test_pipelines_that_are_not_connected_run_at_the_same_time() -> None:
    with Gate() as first, Gate() as second:
        env = LocalEnvironment("two")
        env.from_batch(["a"]).map(first).collect("first")
        env.from_batch(["b"]).map(second).collect("second")
        job = env.submit()
        first.wait()
        second.wait()
    job.wait()
    assert (list(job.results["first"]), list(job.results["second"])) == (["a"], ["b"])


def test_a_deep_pipeline_and_a_wide_one_run() -> None:
    def deep(env: LocalEnvironment) -> Any:
        stream = env.from_batch([0])
        for _ in range(300):
            stream = stream.map(lambda x: x + 1)
        return stream

    assert ran(deep) == [300]
    env = LocalEnvironment("wide")
    numbers = env.from_batch([1])
    for n in range(200):
        numbers.map(lambda x, n=n: x + n).collect(f"r{n}")
    job = env.submit(autostop=True)
    assert [list(job.results[f"r{n}"]) for n in range(200)] == [[n + 1] for n in range(200)]


def test_a_pipeline_too_deep_for_one_loop_is_refused_in_one_line() -> None:
    env = LocalEnvironment("towers")
    stream = env.from_batch([0])
    for _ in range(30):
        stream = stream.flatmap(lambda x: [x])
    stream.collect("out")
    with pytest.raises(ValueError, match="split it"):
        env.submit(autostop=True)


class Adds(MapFunction):
    def __init__(self, amount: int, *, twice: bool = False) -> None:
        self.amount = amount * (2 if twice else 1)

    def execute(self, data: int) -> int:
        return data + self.amount


class AtLeast(FilterFunction):
    def __init__(self, limit: int) -> None:
        self.limit = limit

    def execute(self, data: int) -> bool:
        return data >= self.limit


class Fills(SinkFunction):
    def __init__(self, target: list[Any]) -> None:
        self.target = target

    def execute(self, data: Any) -> None:
        self.target.append(data)


def test_function_classes_get_their_constructor_arguments() -> None:
    taken: list[int] = []
    env = LocalEnvironment("classes")
    env.from_batch([1, 2]).map(Adds, 5, twice=True).filter(AtLeast, limit=12).sink(Fills, taken)
    env.submit(autostop=True)
    assert taken == [12]


class Duck:
    def execute(self, item: int) -> int:
        return -item


def test_any_class_with_execute_fits() -> None:
    assert ran(lambda env: env.from_batch([1, 2]).map(Duck)) == [-1, -2]


def test_a_class_without_execute_is_a_callable() -> None:
    assert ran(lambda env: env.from_batch(["1", "2"]).map(int)) == [1, 2]


def test_operators_are_named_after_their_functions_and_numbered() -> None:
    job = submitted(lambda env: env.from_batch([1]).map(Duck).map(Duck).map(int).map(lambda x: x).take(1_000))
    assert list(counts(job)) == ["source", "Duck", "Duck_2", "int", "map", "take 1,000", "out"]


def test_operators_carry_the_names_given() -> None:
    job = submitted(lambda env: env.from_batch([1], name="in").map(int, name="number").filter(bool, name="is it?"))
    assert list(counts(job)) == ["in", "number", "is it?", "out"]


def test_print_writes_each_item_with_its_prefix(capsys: pytest.CaptureFixture[str]) -> None:
    env = LocalEnvironment("print")
    env.from_batch([1, None]).print().print("seen:")
    env.submit(autostop=True)
    assert capsys.readouterr().out == "1\nseen: 1\nNone\nseen: None\n"


def test_show_keeps_the_last_rows_and_collect_keeps_all() -> None:
    env = LocalEnvironment("results")
    env.from_batch(range(100)).show("last", rows=3).collect("all").show("ten")
    job = env.submit(autostop=True)
    assert list(job.results["last"]) == [97, 98, 99]
    assert list(job.results["all"]) == list(range(100))
    assert len(job.results["ten"]) == 10
