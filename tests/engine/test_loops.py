"""Generated loops: the same items and the same counts as the obvious interpreter, at the end and at any standstill."""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage_nb import Job, LocalEnvironment
from tests.engine.reference import Boom, Node, Reference, declare, nodes, shapes
from tests.support import LIMIT, Gate, counts, errors, ran, submitted, until

many_examples = settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Acts:
    """Counts the calls of a run, and does something at the one of number `at`."""

    def __init__(self, at: int = 0) -> None:
        self.calls = 0
        self.at = at
        self.node: Node | None = None

    def __call__(self, node: Node) -> None:
        self.calls += 1
        if self.calls == self.at:
            self.node = node
            self.act()

    def act(self) -> None:
        raise Boom


class Holds(Acts):
    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.reached = threading.Event()
        self.opened = threading.Event()

    def act(self) -> None:
        self.reached.set()
        assert self.opened.wait(LIMIT)


def submit(tree: Node, act: Acts) -> tuple[Job, dict[str, list[int]]]:
    env = LocalEnvironment("tree")
    taken = declare(env, tree, act)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a tree has no sink
        return env.submit(), taken


def assert_same(job: Job, taken: dict[str, list[int]], reference: Reference) -> None:
    assert counts(job) == reference.counts()
    collected = {name: list(items) for name, items in job.results.items()}
    assert taken | collected == reference.taken


@many_examples
@given(shapes())
def test_every_tree_gives_each_sink_the_items_of_the_reference_in_the_same_order(tree: Node) -> None:
    """Nothing is lost, nothing is doubled; the counters are exact at the end."""
    reference = Reference(tree, Acts())
    job, taken = submit(tree, Acts())
    job.wait()
    assert_same(job, taken, reference)
    assert errors(job) == {}


def call_number(tree: Node, data: st.DataObject) -> int:
    run = Acts()
    Reference(tree, run)
    return data.draw(st.integers(1, run.calls), label="call") if run.calls else 0


@many_examples
@given(shapes(), st.data())
def test_after_a_failure_at_any_call_every_counter_says_how_far_it_came(tree: Node, data: st.DataObject) -> None:
    """An error is counted at the operator that raised it, and nothing is counted that did not happen."""
    at = call_number(tree, data)
    expected = Acts(at)
    reference = Reference(tree, expected)
    if expected.node is None:
        return
    job, taken = submit(tree, Acts(at))
    with pytest.raises(Boom) as caught:
        job.wait()
    assert_same(job, taken, reference)
    assert errors(job) == {expected.node.name: 1}
    assert f"operator '{expected.node.name}'" in caught.value.__notes__[0]


@many_examples
@given(shapes(), st.data())
def test_while_the_pipeline_waits_in_any_call_every_counter_is_exact(tree: Node, data: st.DataObject) -> None:
    at = call_number(tree, data)
    expected = Acts(at)
    reference = Reference(tree, expected)
    if expected.node is None:
        return
    holds = Holds(at)
    job, taken = submit(tree, holds)
    try:
        assert holds.reached.wait(LIMIT)
        assert_same(job, taken, reference)
    finally:
        holds.opened.set()
    job.wait()
    assert_same(job, taken, Reference(tree, Acts()))


@settings(parent=many_examples, max_examples=25)
@given(shapes(), st.data())
def test_a_call_that_is_given_up_leaves_the_counters_where_they_were(tree: Node, data: st.DataObject) -> None:
    at = call_number(tree, data)
    expected = Acts(at)
    reference = Reference(tree, expected)
    if expected.node is None:
        return
    holds = Holds(at)
    job, taken = submit(tree, holds)
    try:
        assert holds.reached.wait(LIMIT)
        job.stop(timeout=0.01)
        assert_same(job, taken, reference)
    finally:
        holds.opened.set()
    assert job.status == "stopped"
    for thread in job._dispatcher._threads:  # the call that was given up ends now, and changes nothing any more
        thread.join(LIMIT)
    assert_same(job, taken, reference)


@settings(parent=many_examples, max_examples=50)
@given(shapes(), st.data())
def test_a_pause_anywhere_loses_nothing(tree: Node, data: st.DataObject) -> None:
    at = call_number(tree, data)
    if not at:
        return
    holds = Holds(at)
    job, taken = submit(tree, holds)
    assert holds.reached.wait(LIMIT)
    job.pause()
    holds.opened.set()
    job.resume()
    job.wait()
    assert_same(job, taken, Reference(tree, Acts()))


def test_the_trees_hold_every_kind_of_operator() -> None:
    """The comparison above means something only while its trees do."""
    seen: set[str] = set()

    @settings(max_examples=300, deadline=None, database=None)
    @given(shapes())
    def look(tree: Node) -> None:
        if len(nodes(tree)) >= 3:
            seen.update(node.kind for node in nodes(tree))

    look()
    assert seen == {
        *("list", "range", "iterator", "generator function", "batch", "polled"),
        *("map", "filter", "flatmap", "flatmap generator", "flatmap gather", "take", "sink", "collect"),
    }


def test_counters_while_a_map_waits_in_the_middle_of_a_fan_out_below_a_flatmap() -> None:
    with Gate(at=2) as gate:
        env = LocalEnvironment("held")
        three = env.from_batch([10, 20], name="source").flatmap(lambda x: [x, x + 1, x + 2], name="three")
        three.sink(lambda _: None, name="before")
        three.map(gate, name="held").filter(lambda x: x > 10, name="big").sink(lambda _: None, name="behind")
        three.collect("after")
        job = env.submit()
        gate.wait()
        assert counts(job) == {
            "source": (0, 1),
            "three": (1, 2),
            "before": (2, 0),
            "held": (2, 1),
            "big": (1, 0),
            "behind": (0, 0),
            "after": (1, 0),
        }
    job.wait()
    assert counts(job) == {
        "source": (0, 2),
        "three": (2, 6),
        "before": (6, 0),
        "held": (6, 6),
        "big": (6, 5),
        "behind": (5, 0),
        "after": (6, 0),
    }


@pytest.mark.parametrize("kind", [list, iter])
def test_counters_while_the_pipeline_is_paused_between_two_items(kind: Any) -> None:
    with Gate(at=3) as gate:
        job = submitted(lambda env: env.from_batch(kind(list(range(9)))).map(gate, name="held"), autostop=False)
        gate.wait()
        job.pause()
    until(lambda: len(job.results["out"]) == 3)
    until(lambda: counts(job) == {"source": (0, 3), "held": (3, 3), "out": (3, 0)})
    job.resume()
    job.wait()
    assert list(job.results["out"]) == list(range(9))


def test_counters_never_run_backwards_while_items_flow() -> None:
    env = LocalEnvironment("fast")
    stream = env.from_source(lambda: 1).flatmap(lambda x: [x, x]).filter(bool)
    stream.map(lambda x: x, name="left").sink(lambda _: None)
    stream.sink(lambda _: None)
    job = env.submit()
    until(lambda: counts(job)["left"][0] > 1_000)
    looks = [counts(job) for _ in range(300)]
    job.stop()
    for before, after in itertools.pairwise(looks):
        for name in before:
            assert after[name][0] >= before[name][0] - 2  # a look may catch the item at hand half-way
            assert after[name][1] >= before[name][1] - 2
    final = counts(job)
    assert final["left"] == (final["bool"][1], final["bool"][1])


def test_one_shape_is_generated_once() -> None:
    from sage_nb.engine.writing import generate

    ran(lambda env: env.from_batch([1]).map(int).filter(bool))
    before = generate.cache_info()
    ran(lambda env: env.from_batch([2]).map(str).filter(len))
    after = generate.cache_info()
    assert (after.misses, after.hits) == (before.misses, before.hits + 1)


def test_items_are_taken_one_by_one() -> None:
    order: list[str] = []

    def numbers() -> Iterator[int]:
        for n in range(2):
            order.append(f"made {n}")
            yield n

    def step(n: int) -> int:
        order.append(f"mapped {n}")
        return n

    ran(lambda env: env.from_batch(numbers).map(step))
    assert order == ["made 0", "mapped 0", "made 1", "mapped 1"]


def test_a_flatmap_without_end_lets_go_once_nothing_below_it_wants_more() -> None:
    """What other consumers of the source get does not depend on a take beside them."""
    env = LocalEnvironment("takes")
    numbers = env.from_batch([1, 2])
    endless = numbers.flatmap(lambda _: itertools.count())
    endless.take(3).collect("three")
    endless.filter(lambda n: n % 5 == 0).take(2).map(str).collect("fives")
    numbers.collect("all")
    job = env.submit(autostop=True, timeout=30)
    assert {name: list(result) for name, result in job.results.items()} == {
        "three": [0, 1, 2],
        "fives": ["0", "5"],
        "all": [1, 2],
    }
