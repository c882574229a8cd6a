"""`on_error` of every operator that calls the user's code: fail, skip, dead_letter; given or by default."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from sage_nb import BaseCoMapFunction, BaseJoinFunction, LocalEnvironment, PipelineError, Tumbling
from tests.faults.support import notes
from tests.support import LIMIT, counts, errors


class Bad(Exception):
    """What the functions here raise at `bad` items."""


BAD = 3
ITEMS = [1, 2, 3, 4, 3, 5]
GOOD = [1, 2, 4, 5]


def checked(item: int) -> int:
    if item == BAD:
        raise Bad(f"not {item}")
    return item


async def checked_later(item: int) -> int:
    return checked(item)


def plus(so_far: int, item: int) -> int:
    return so_far + checked(item)


def stateful(item: int, ctx: Any) -> int:
    ctx.state["seen"] = ctx.state.get("seen", 0) + 1
    return checked(item)


def all_checked(some: list[int]) -> list[int]:
    return [checked(one) for one in some]


class Both(BaseCoMapFunction):
    def map0(self, data: int) -> int:
        return checked(data)

    def map1(self, data: int) -> int:
        return -data


class Joins(BaseJoinFunction):
    def execute(self, payload: int, key: Any, tag: int) -> list[int]:
        return [checked(payload)] if tag == 0 else []


@dataclass(frozen=True)
class Kind:
    """`declare(stream, **options)` adds the operator, which is called `at fault`; `out` comes out of the good items."""

    declare: Callable[..., Any]
    out: list[Any]
    dead: list[Any]


KINDS = {
    "map": Kind(lambda s, **o: s.map(checked, **o), GOOD, [3, 3]),
    "filter": Kind(lambda s, **o: s.filter(checked, **o), GOOD, [3, 3]),
    "flatmap": Kind(lambda s, **o: s.flatmap(lambda n: [checked(n)] * 2, **o), [1, 1, 2, 2, 4, 4, 5, 5], [3, 3]),
    "map_async": Kind(lambda s, **o: s.map_async(checked_later, **o), GOOD, [3, 3]),
    "keyby": Kind(lambda s, **o: s.keyby(checked, **o), GOOD, [3, 3]),
    "reduce": Kind(lambda s, **o: s.keyby(lambda n: 0).reduce(plus, **o), [1, 3, 7, 12], [3, 3]),
    "min": Kind(lambda s, **o: s.keyby(lambda n: 0).min(checked, **o), [(0, 1)] * 4, [3, 3]),
    "max": Kind(lambda s, **o: s.keyby(lambda n: 0).max(checked, **o), [(0, 1), (0, 2), (0, 4), (0, 5)], [3, 3]),
    "mean": Kind(
        lambda s, **o: s.keyby(lambda n: 0).mean(checked, **o), [(0, 1), (0, 1.5), (0, 7 / 3), (0, 3)], [3, 3]
    ),
    "sum": Kind(lambda s, **o: s.keyby(lambda n: 0).sum(checked, **o), [(0, 1), (0, 3), (0, 7), (0, 12)], [3, 3]),
    "process": Kind(lambda s, **o: s.keyby(lambda n: 0).process(stateful, **o), GOOD, [3, 3]),
    "map_batches": Kind(lambda s, **o: s.map_batches(all_checked, size=1, **o), GOOD, [3, 3]),
    "comap": Kind(lambda s, **o: s.connect(s._env.from_batch([7])).comap(Both, **o), [*GOOD, -7], [3, 3]),
    "join": Kind(
        lambda s, **o: s.keyby(lambda n: 0).connect(s._env.from_batch([7]).keyby(lambda n: 0)).join(Joins, **o),
        GOOD,
        [3, 3],
    ),
    "sink": Kind(lambda s, **o: s.sink(checked, **o), ITEMS, [3, 3]),
}


def run(kind: str, *, submit: dict[str, Any] | None = None, **options: Any) -> Any:
    """The job, ended, of ITEMS through the operator; failed or not."""
    env = LocalEnvironment("policies")
    KINDS[kind].declare(env.from_batch(ITEMS), name="at fault", **options).collect("out")
    job = env.submit(**(submit or {}))
    assert job._dispatcher.clean.wait(LIMIT)
    return job


def by_size(items: Any) -> list[Any]:
    return sorted(items, key=repr)


@pytest.mark.parametrize("how", ["operator", "submit"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_item_that_fails_is_left_out_and_counted(kind: str, how: str) -> None:
    job = run(kind, on_error="skip") if how == "operator" else run(kind, submit={"on_error": "skip"})
    assert job.status == "completed"
    assert by_size(job.results["out"]) == by_size(KINDS[kind].out)
    assert errors(job) == {"at fault": 2}
    assert counts(job)["at fault"][0] == (7 if kind in ("comap", "join") else 6)
    assert not job.dead_letters["at fault"]
    assert dict(job.dead_letters) == {}
    (line,) = [line for line in job.logs() if line.source == "at fault"]
    assert (line.level, line.text.split(":")[0]) == ("WARNING", "an item is skipped, as are others that fail so")
    assert "Bad: not 3" in line.text


@pytest.mark.parametrize("how", ["operator", "submit"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_item_that_fails_is_kept_with_its_error_and_time(kind: str, how: str) -> None:
    began = time.time()
    options: dict[str, Any] = {"on_error": "dead_letter"} if how == "operator" else {}
    job = run(kind, submit={"on_error": "dead_letter"} if how == "submit" else {}, **options)
    letters = job.dead_letters["at fault"]
    assert job.status == "completed"
    assert by_size(job.results["out"]) == by_size(KINDS[kind].out)
    assert [one.item for one in letters] == KINDS[kind].dead
    assert [(type(one.error), str(one.error)) for one in letters] == [(Bad, "not 3")] * 2
    assert all(began <= one.time <= time.time() for one in letters)
    assert (len(letters), letters.total) == (2, 2)
    assert errors(job) == {"at fault": 2}
    assert [line.text.split(":")[0] for line in job.logs() if line.source == "at fault"] == [
        "an item is kept as a dead letter, as are others that fail so"
    ]
    (view,) = [view for view in job.snapshot().dead_letters if view.total]
    assert (view.operator, view.total, view.rows[-1][1]) == ("at fault", 2, "Bad: not 3")


@pytest.mark.parametrize("how", ["default", "operator"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_item_that_fails_ends_the_job_unless_said_otherwise(kind: str, how: str) -> None:
    """What an operator says goes before what `submit` says."""
    job = run(kind, on_error="fail", submit={"on_error": "skip"}) if how == "operator" else run(kind)
    assert job.status == "failed"
    assert type(job.exception()) is Bad
    assert "operator 'at fault'" in notes(job.exception())
    assert "test_policies.py" in notes(job.exception())
    assert "raise Bad(" in notes(job.exception())
    assert errors(job) == {"at fault": 1}


@pytest.mark.parametrize(("kind", "parallelism"), [("map", 1), ("flatmap", 2), ("sink", 2), ("map_async", 2)])
def test_dead_letters_come_from_processes_too(kind: str, parallelism: int) -> None:
    job = run(kind, on_error="dead_letter", executor="process", parallelism=parallelism)
    assert job.status == "completed"
    assert by_size(job.results["out"]) == by_size(KINDS[kind].out)
    assert [(one.item, type(one.error), str(one.error)) for one in job.dead_letters["at fault"]] == [
        (3, Bad, "not 3")
    ] * 2
    assert errors(job) == {"at fault": 2}


def test_what_fails_in_one_branch_reaches_the_other() -> None:
    env = LocalEnvironment("branches")
    stream = env.from_batch(ITEMS)
    stream.map(checked, on_error="skip").collect("good")
    stream.collect("all")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert (list(job.results["good"]), list(job.results["all"])) == (GOOD, ITEMS)


def test_a_failure_behind_an_operator_is_not_put_on_it() -> None:
    """Whose function raised counts, not who emitted."""
    env = LocalEnvironment("behind")
    stream = env.from_batch(ITEMS).flatmap(lambda n: [n], name="before", on_error="skip")
    stream.map(checked, name="at fault").collect("out")
    job = env.submit()
    assert job._dispatcher.clean.wait(LIMIT)
    assert (type(job.exception()), errors(job)) == (Bad, {"at fault": 1})


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_plain_exception_is_never_skipped(error: type[BaseException]) -> None:
    def ends(item: int) -> int:
        raise error("mine")

    env = LocalEnvironment("ends")
    env.from_batch([1]).map(ends, on_error="skip").collect("out")
    job = env.submit()
    assert job._dispatcher.clean.wait(LIMIT)
    assert (job.status, type(job.exception())) == ("failed", error)


def test_a_source_that_fails_ends_the_job_whatever_the_policy() -> None:
    def numbers() -> Any:
        yield 1
        raise Bad("no more")

    env = LocalEnvironment("source")
    env.from_batch(numbers).collect("out")
    job = env.submit(on_error="skip")
    assert job._dispatcher.clean.wait(LIMIT)
    assert (job.status, type(job.exception())) == ("failed", Bad)
    assert list(job.results["out"]) == [1]


def test_a_constructor_that_fails_ends_the_job_whatever_the_policy() -> None:
    class Broken:
        def __init__(self) -> None:
            raise Bad("from the start")

        def execute(self, item: int) -> int:
            return item

    env = LocalEnvironment("constructor")
    env.from_batch([1]).map(Broken, on_error="skip").collect("out")
    job = env.submit()
    assert job._dispatcher.clean.wait(LIMIT)
    assert (job.status, type(job.exception())) == ("failed", Bad)


def test_an_event_time_that_cannot_be_had_fails_the_job_and_names_the_window() -> None:
    env = LocalEnvironment("window")
    env.from_batch(ITEMS).window(Tumbling(1), event_time=checked).count(name="at fault").collect("out")
    job = env.submit()
    assert job._dispatcher.clean.wait(LIMIT)
    assert type(job.exception()) is Bad
    assert "operator 'at fault'" in notes(job.exception())


def test_the_last_ten_thousand_dead_letters_are_kept_and_all_are_counted() -> None:
    env = LocalEnvironment("many")
    env.from_batch(range(10_500)).map(lambda n: n // 0, on_error="dead_letter", name="at fault").collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    letters = job.dead_letters["at fault"]
    assert (len(letters), letters.total) == (10_000, 10_500)
    assert (letters[0].item, letters[-1].item) == (500, 10_499)
    assert errors(job) == {"at fault": 10_500}
    assert len([line for line in job.logs() if line.source == "at fault"]) == 1


def test_a_policy_that_is_none_is_refused_with_those_there_are() -> None:
    env = LocalEnvironment("none")
    stream = env.from_batch([1]).collect("out")
    with pytest.raises(PipelineError, match="dead_letter"):
        stream.map(checked, on_error="ignore")
    with pytest.raises(PipelineError, match="dead_letter"):
        env.submit(on_error="ignore")


@pytest.mark.parametrize("kind", ["sum", "min", "max", "mean"])
def test_a_value_that_goes_with_no_other_changes_nothing(kind: str) -> None:
    env = LocalEnvironment("values")
    getattr(env.from_batch([4, "x", 2]).keyby(lambda _: 0), kind)(on_error="skip").collect("out")
    job = env.submit(autostop=True)
    last = {"sum": 6, "min": 2, "max": 4, "mean": 3}[kind]
    assert (list(job.results["out"]), errors(job)) == ([(0, 4), (0, last)], {kind: 1})


def test_a_first_value_that_has_no_mean_is_not_kept() -> None:
    env = LocalEnvironment("first")
    env.from_batch(["x", 2]).keyby(lambda _: 0).mean(on_error="skip").collect("out")
    job = env.submit(autostop=True)
    assert (list(job.results["out"]), errors(job)) == ([(0, 2.0)], {"mean": 1})
