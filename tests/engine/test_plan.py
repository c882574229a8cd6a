"""The plan: what runs as one loop, where it is cut, and why; by the names of the operators in each stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from sage_nb import BaseCoMapFunction, BaseJoinFunction, LocalEnvironment, SubmitError, Tumbling
from sage_nb.engine.plan import make_plan
from sage_nb.engine.stages import Plan, circles


def f(item: Any) -> Any:
    return item


async def later(item: Any) -> Any:
    return item


class Both(BaseCoMapFunction):
    def map0(self, data: Any) -> Any:
        return data

    def map1(self, data: Any) -> Any:
        return data


class Joins(BaseJoinFunction):
    def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
        return [payload]


def plan_of(build: Callable[[Any], Any], backend: str = "threads") -> Plan:
    """The plan of a pipeline whose last stream is collected as `out`."""
    env = LocalEnvironment("plan", backend=backend)
    build(env).collect("out")
    return make_plan(env._graph, "plan", backend)


@dataclass(frozen=True)
class Cut:
    """`stages` are the operators' names by stage; `hows`, for each stage, how it gets its items."""

    build: Callable[[Any], Any]
    stages: list[str]
    hows: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    places: str = ""
    backend: str = "threads"


def source(env: Any, name: str = "s", **options: Any) -> Any:
    return env.from_batch([1], name=name, **options)


def keyed(env: Any, **options: Any) -> Any:
    return source(env).keyby(f, name="k", **options)


def event_time(item: Any) -> float:
    return float(item)


FUSED = {
    "a chain": Cut(
        lambda env: (
            source(env)
            .map(f, name="m")
            .filter(f, name="f")
            .flatmap(f, name="fm")
            .sink(f, name="t")
            .take(3, name="take")
        ),
        ["s m f fm t take out"],
    ),
    "a fan-out": Cut(
        lambda env: (stream := source(env), stream.map(f, name="a").collect("x"), stream.map(f, name="b"))[-1],
        ["s a x b out"],
    ),
    "keys with one instance": Cut(lambda env: keyed(env).reduce(lambda a, b: a, name="r"), ["s k r out"]),
    "a count and a process": Cut(
        lambda env: keyed(env).count(name="c").keyby(f, name="k2").process(f, name="p"), ["s k c k2 p out"]
    ),
    "batches": Cut(lambda env: source(env).map_batches(f, name="b"), ["s b out"]),
    "an event-time window": Cut(
        lambda env: keyed(env).window(Tumbling(1), event_time=event_time).count(name="w"), ["s k w out"]
    ),
    "a window and its late items": Cut(
        lambda env: (
            window := source(env).window(Tumbling(1), event_time=event_time),
            window.late("late").map(f, name="m").collect("x"),
            window.count(name="w"),
        )[-1],
        ["s w out late m x"],
    ),
}

CUT = {
    "more instances": Cut(
        lambda env: source(env).map(f, name="m", parallelism=3), ["s", "m", "out"], ["rebalance", "gather"], [1, 3, 1]
    ),
    "the same number again": Cut(
        lambda env: source(env).map(f, name="a", parallelism=3).filter(f, name="b", parallelism=3),
        ["s", "a b", "out"],
        ["rebalance", "gather"],
        [1, 3, 1],
    ),
    "another number": Cut(
        lambda env: source(env).map(f, name="a", parallelism=3).map(f, name="b", parallelism=2),
        ["s", "a", "b", "out"],
        ["rebalance", "rebalance", "gather"],
        [1, 3, 2, 1],
    ),
    "back to one": Cut(
        lambda env: source(env).map(f, name="a", parallelism=3).map(f, name="b"),
        ["s", "a", "b out"],
        ["rebalance", "gather"],
        [1, 3, 1],
    ),
    "two consumers of as many instances": Cut(
        lambda env: (
            stream := source(env),
            stream.map(f, name="a", parallelism=2).collect("x"),
            stream.map(f, name="b", parallelism=2),
        )[-1],
        ["s", "a b", "x", "out"],
        ["rebalance", "gather", "gather"],
        [1, 2, 1, 1],
    ),
    "a key over instances": Cut(
        lambda env: keyed(env).count(name="c", parallelism=3), ["s k", "c", "out"], ["hash", "gather"], [1, 3, 1]
    ),
    "a key that is kept": Cut(
        lambda env: keyed(env).reduce(lambda a, b: a, name="r", parallelism=3).map(f, name="m", parallelism=3),
        ["s k", "r m", "out"],
        ["hash", "gather"],
        [1, 3, 1],
    ),
    "a new key": Cut(
        lambda env: keyed(env).count(name="c", parallelism=2).keyby(f, name="k2").count(name="c2", parallelism=2),
        ["s k", "c k2", "c2", "out"],
        ["hash", "hash", "gather"],
        [1, 2, 2, 1],
    ),
    "a key by turns": Cut(
        lambda env: keyed(env, strategy="round_robin").map(f, name="m", parallelism=2),
        ["s k", "m", "out"],
        ["round_robin", "gather"],
        [1, 2, 1],
    ),
    "a key to all": Cut(
        lambda env: keyed(env, strategy="broadcast").map(f, name="m", parallelism=2),
        ["s k", "m", "out"],
        ["broadcast", "gather"],
        [1, 2, 1],
    ),
    "a merge": Cut(
        lambda env: source(env, "a").connect(source(env, "b")).map(f, name="m"),
        ["a", "b", "m out"],
        ["forward forward"],
    ),
    "a comap": Cut(
        lambda env: source(env, "a").connect(source(env, "b")).comap(Both, name="c", parallelism=2),
        ["a", "b", "c", "out"],
        ["rebalance rebalance", "gather"],
        [1, 1, 2, 1],
    ),
    "a join": Cut(
        lambda env: (
            source(env, "a")
            .keyby(f, name="ka")
            .connect(source(env, "b").keyby(f, name="kb"))
            .join(Joins, name="j", parallelism=2)
        ),
        ["a ka", "b kb", "j", "out"],
        ["hash hash", "gather"],
        [1, 1, 2, 1],
    ),
    "a coroutine function": Cut(
        lambda env: source(env).map_async(later, name="a").map(f, name="m"), ["s", "a m out"], ["forward"]
    ),
    "coroutine functions in a row": Cut(
        lambda env: source(env).map_async(later, name="a").map_async(later, name="b"),
        ["s", "a", "b out"],
        ["forward", "forward"],
    ),
    "a window by the clock": Cut(
        lambda env: keyed(env).window(Tumbling(1)).count(name="w"), ["s k", "w out"], ["forward"]
    ),
    "two windows by the clock": Cut(
        lambda env: keyed(env).window(Tumbling(1)).count(name="w").window(Tumbling(9)).count(name="v"),
        ["s k", "w v out"],
        ["forward"],
    ),
    "an event-time window of instances": Cut(
        lambda env: keyed(env).window(Tumbling(1), event_time=event_time).count(name="w", parallelism=2),
        ["s k", "w", "out"],
        ["hash", "gather"],
        [1, 2, 1],
    ),
    "a process": Cut(
        lambda env: source(env).map(f, name="m", executor="process").filter(f, name="f", executor="process"),
        ["s", "m f", "out"],
        ["forward", "forward"],
        [1, 1, 1],
        "thread process thread",
    ),
    "a process and back": Cut(
        lambda env: source(env).map(f, name="m", executor="process").filter(f, name="f"),
        ["s", "m", "f out"],
        ["forward", "forward"],
        [1, 1, 1],
        "thread process thread",
    ),
    "a pool keeps its order": Cut(
        lambda env: (
            source(env)
            .map(f, name="m", executor="process", parallelism=2)
            .filter(f, name="f", executor="process", parallelism=2)
        ),
        ["s", "m f", "out"],
        ["ordered", "gather"],
        [1, 2, 1],
        "thread process thread",
    ),
    "a pool of sinks": Cut(
        lambda env: source(env).sink(f, name="t", executor="process", parallelism=2),
        ["s out", "t"],
        ["ordered"],
        [1, 2],
        "thread process",
    ),
    "keys in processes": Cut(
        lambda env: keyed(env).map(f, name="m", executor="process", parallelism=2),
        ["s k", "m", "out"],
        ["hash", "gather"],
        [1, 2, 1],
        "thread process thread",
    ),
    "all in processes": Cut(
        lambda env: source(env).map(f, name="m").take(3, name="take"),
        ["s m take", "out"],
        ["forward"],
        [1, 1],
        "process thread",
        "processes",
    ),
    "all in processes but one": Cut(
        lambda env: source(env).map(f, name="m", executor="thread").map(f, name="n"),
        ["s", "m", "n", "out"],
        ["forward", "forward", "forward"],
        [1, 1, 1, 1],
        "process thread process thread",
        "processes",
    ),
    "an iterator stays here": Cut(
        lambda env: env.from_batch(iter([1]), name="s").map(f, name="m"),
        ["s", "m", "out"],
        ["forward", "forward"],
        [1, 1, 1],
        "thread process thread",
        "processes",
    ),
    "a print stays here": Cut(
        lambda env: source(env).print(name="p").map(f, name="m"),
        ["s m", "p", "out"],
        ["forward", "forward"],
        [1, 1, 1],
        "process thread thread",
        "processes",
    ),
}


@pytest.mark.parametrize("case", [*FUSED, *CUT])
def test_a_pipeline_is_cut_where_concurrency_is_asked_for_and_nowhere_else(case: str) -> None:
    cut = {**FUSED, **CUT}[case]
    plan = plan_of(cut.build, cut.backend)
    assert sorted(" ".join(op.name for op in stage.operators) for stage in plan.stages) == sorted(cut.stages)
    by_names = {" ".join(op.name for op in stage.operators): stage for stage in plan.stages}
    stages = [by_names[names] for names in cut.stages]
    hows = [" ".join(edge.how for edge in stage.inputs) for stage in stages if stage.inputs]
    assert hows == cut.hows
    assert [stage.parallelism for stage in stages] == (cut.counts or [1] * len(stages))
    if cut.places:
        assert " ".join(stage.place for stage in stages) == cut.places


@pytest.mark.parametrize("case", [*FUSED, *CUT])
def test_every_plan_hangs_together(case: str) -> None:
    """Each operator is in one stage; each edge leads out of one stage and into one; feeding stages come first."""
    cut = {**FUSED, **CUT}[case]
    plan = plan_of(cut.build, cut.backend)
    assert [stage.number for stage in plan.stages] == list(range(len(plan.stages)))
    ids = [op.id for stage in plan.stages for op in stage.operators]
    assert sorted(ids) == list(range(len(ids)))
    into = {edge.number: edge for stage in plan.stages for edge in stage.inputs}
    out = {edge.number: edge for stage in plan.stages for edge in stage.outputs}
    assert into == out
    for stage in plan.stages:
        assert all(edge.downstream == stage.number and edge.upstream < stage.number for edge in stage.inputs)
        assert all(edge.upstream == stage.number for edge in stage.outputs)
        assert stage.members[0].upstream == -1
        assert all(0 <= member.upstream < i for i, member in enumerate(stage.members) if i)
        assert (stage.head == "source") == (not stage.inputs)
        assert bool(stage.why) == (stage.head != "source")


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda env: source(env).map(f, parallelism=3), "3 instances"),
        (lambda env: keyed(env).count(parallelism=3), "3 instances by key 'k'"),
        (lambda env: source(env).map(f, executor="process"), "a process"),
        (lambda env: source(env).map(f, executor="process", parallelism=2), "2 instances, processes"),
        (lambda env: source(env).map_async(later), "event loop"),
        (lambda env: source(env).connect(source(env, "b")).map(f), "merges 2 streams"),
        (lambda env: source(env).window(Tumbling(1)).count(), "fires by the clock"),
    ],
)
def test_the_plan_says_why_it_is_cut(build: Callable[[Any], Any], why: str) -> None:
    env = LocalEnvironment("why")
    build(env).collect("out")
    assert why in [stage.why for stage in make_plan(env._graph, "why").stages]
    assert f"cut: {why}" in str(env.explain())


@pytest.mark.parametrize(("last", "why"), [("collect", "back to one instance"), ("sink", "back to one instance")])
def test_the_plan_says_why_it_comes_back_together(last: str, why: str) -> None:
    env = LocalEnvironment("back")
    stream = source(env).map(f, parallelism=2)
    stream.collect("out") if last == "collect" else stream.sink(f)
    assert make_plan(env._graph, "back").stages[-1].why == why


def test_a_loop_is_its_own_circle_of_stages() -> None:
    env = LocalEnvironment("loop")
    again = env.from_future("again")
    stream = source(env).connect(again).map(f, name="m", parallelism=2)
    stream.filter(f, name="f").fill_future(again)
    stream.collect("out")
    plan = make_plan(env._graph, "loop")
    names = {stage.number: stage.name for stage in plan.stages}
    (circle,) = circles(plan)
    assert sorted(names[number] for number in circle) == ["again", "f", "m"]
    assert [edge.feedback for stage in plan.stages for edge in stage.inputs if stage.name == "again"] == [True]
    assert "round the loop" in str(env.explain())


def test_two_loops_are_two_circles() -> None:
    env = LocalEnvironment("loops")
    for name in ("one", "two"):
        again = env.from_future(name)
        stream = source(env, f"s {name}").connect(again).map(f)
        stream.fill_future(again)
        stream.collect(f"out {name}")
    assert len(circles(make_plan(env._graph, "loops"))) == 2


# What is refused before anything is started


def test_a_pipeline_without_a_source_is_refused() -> None:
    with pytest.raises(SubmitError, match="'empty' has no source"):
        LocalEnvironment("empty").submit()


def test_an_open_loop_is_refused_by_name() -> None:
    env = LocalEnvironment("open")
    source(env).connect(env.from_future("again")).map(f).collect("out")
    with pytest.raises(SubmitError, match="the future 'again' is open"):
        env.explain()


def test_what_keeps_items_back_is_refused_inside_a_loop() -> None:
    for what in ("window", "map_batches"):
        env = LocalEnvironment("back")
        again = env.from_future("again")
        stream = source(env).connect(again).map(f)
        held = (
            stream.map_batches(f, name="held")
            if what == "map_batches"
            else stream.window(Tumbling(1)).count(name="held")
        )
        held.fill_future(again)
        with pytest.raises(SubmitError, match=f"is a {what} inside a loop"):
            env.submit()


def test_an_iterator_of_two_sources_is_refused() -> None:
    env = LocalEnvironment("shared")
    items = iter([1])
    env.from_batch(items, name="a").collect("x")
    env.from_batch(items, name="b").collect("y")
    with pytest.raises(SubmitError, match="'a' and 'b' share one iterator"):
        env.submit()
