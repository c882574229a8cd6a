"""Feedback: every loop ends by itself once nothing is under way, and one that only grows fails with clear words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from sage_nb import BaseCoMapFunction, LocalEnvironment, PipelineError
from sage_nb.engine.channels import LOOP_CAPACITY
from tests.faults.support import notes
from tests.support import LIMIT, counts

RUNS = 200


def down(n: int) -> int | None:
    return n - 1 if n > 0 else None


def halves(n: int) -> list[int]:
    return [n // 2, n // 2] if n > 1 else []


async def down_later(n: int) -> int | None:
    return down(n)


def fussy(n: int) -> int | None:
    if n % 3 == 0:
        raise ValueError(n)
    return n - 1


class Both(BaseCoMapFunction):
    def map0(self, data: int) -> int | None:
        return data

    def map1(self, data: int) -> int | None:
        return down(data)


def merged(env: Any, p: int) -> Any:
    again = env.from_future("again")
    stream = env.from_batch(range(9)).connect(again).map(down, parallelism=p)
    stream.fill_future(again)
    return stream


def nothing_goes_round(env: Any, p: int) -> Any:
    again = env.from_future("again")
    stream = env.from_batch(range(9)).connect(again).map(lambda n: n, parallelism=p)
    stream.filter(lambda n: False).fill_future(again)
    return stream


def nothing_comes_in(env: Any, p: int) -> Any:
    again = env.from_future("again")
    stream = env.from_batch([]).connect(again).map(down, parallelism=p)
    stream.fill_future(again)
    return stream


def grows_then_shrinks(env: Any, p: int) -> Any:
    again = env.from_future("again")
    stream = env.from_batch([9, 4]).connect(again).flatmap(halves, parallelism=p)
    stream.fill_future(again)
    return stream


def awaits(env: Any, p: int) -> Any:
    again = env.from_future("again")
    stream = env.from_batch(range(9)).connect(again).map_async(down_later, parallelism=p, concurrency=3)
    stream.fill_future(again)
    return stream


def drops_by_errors(env: Any, p: int) -> Any:
    again = env.from_future("again")
    stream = env.from_batch(range(9)).connect(again).map(fussy, parallelism=p, on_error="skip")
    stream.fill_future(again)
    return stream


def two_loops_side_by_side(env: Any, p: int) -> Any:
    first, second = env.from_future("first"), env.from_future("second")
    source = env.from_batch(range(5))
    one = source.connect(first).map(down, parallelism=p)
    other = source.connect(second).map(down)
    one.fill_future(first)
    other.fill_future(second)
    return one.connect(other).map(lambda n: n)


def one_loop_inside_another(env: Any, p: int) -> Any:
    inner, outer = env.from_future("inner"), env.from_future("outer")
    entered = env.from_batch([3]).connect(outer).map(lambda n: (n, n))
    stream = entered.connect(inner).map(lambda pair: pair, parallelism=p)
    stream.filter(lambda pair: pair[1] > 0).map(lambda pair: (pair[0], pair[1] - 1)).fill_future(inner)
    done = stream.filter(lambda pair: pair[1] == 0).map(lambda pair: pair[0])
    done.filter(lambda n: n > 0).map(lambda n: n - 1).fill_future(outer)
    return done


def one_loop_behind_another(env: Any, p: int) -> Any:
    return again_down(env, again_down(env, env.from_batch(range(4)), p, "first"), p, "second")


def again_down(env: Any, stream: Any, p: int, name: str) -> Any:
    again = env.from_future(name)
    both = stream.connect(again).map(down, parallelism=p)
    both.fill_future(again)
    return both


def told_apart(env: Any, p: int) -> Any:
    again = env.from_future("again")
    stream = env.from_batch(range(9)).connect(again).comap(Both, parallelism=p)
    stream.fill_future(again)
    return stream


def by_key(env: Any, p: int) -> Any:
    again = env.from_future("again")
    keyed = env.from_batch(range(9)).connect(again).keyby(lambda n: n % 3)
    stream = keyed.map(down, parallelism=p)
    stream.fill_future(again)
    return stream


def two_ways_back(env: Any, p: int) -> Any:
    again = env.from_future("again")
    stream = env.from_batch(range(9)).connect(again).map(down, parallelism=p)
    even, odd = stream.filter(lambda n: n % 2 == 0), stream.filter(lambda n: n % 2, parallelism=p)
    even.connect(odd).fill_future(again)
    return stream


def round_a_process(env: Any, p: int) -> Any:
    again = env.from_future("again")
    stream = env.from_batch(range(9)).connect(again).map(down, executor="process", parallelism=p)
    stream.fill_future(again)
    return stream


def countdown(top: int) -> list[int]:
    """What comes out when each number below `top` goes down to 0."""
    return [m for n in range(top) for m in range(n)]


def countdown_fussy(n: int) -> list[int]:
    return [] if n % 3 == 0 else [n - 1, *countdown_fussy(n - 1)]


def halved(n: int) -> list[int]:
    return [] if n < 2 else 2 * [n // 2, *halved(n // 2)]


def outer_rounds() -> list[int]:
    return [3, 2, 1, 0]


SHAPES: dict[str, tuple[Callable[[Any, int], Any], list[int]]] = {
    "merged": (merged, countdown(9)),
    "nothing goes round": (nothing_goes_round, list(range(9))),
    "nothing comes in": (nothing_comes_in, []),
    "grows, then shrinks": (grows_then_shrinks, halved(9) + halved(4)),
    "awaits": (awaits, countdown(9)),
    "drops by errors": (drops_by_errors, [m for n in range(9) for m in countdown_fussy(n)]),
    "two side by side": (two_loops_side_by_side, 2 * countdown(5)),
    "one inside another": (one_loop_inside_another, outer_rounds()),
    "one behind another": (one_loop_behind_another, [m for n in countdown(4) for m in range(n)]),
    "told apart": (told_apart, [m for n in range(9) for m in range(n + 1)]),
    "by key": (by_key, countdown(9)),
    "two ways back": (two_ways_back, countdown(9)),
}


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_loop_ends_by_itself_with_all_that_came_of_it(shape: str, p: int) -> None:
    build, expected = SHAPES[shape]
    env = LocalEnvironment("loop")
    build(env, p).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert Counter(job.results["out"]) == Counter(expected)


@pytest.mark.parametrize("p", [1, 2])
def test_a_loop_through_a_process_ends_by_itself(p: int) -> None:
    env = LocalEnvironment("loop")
    round_a_process(env, p).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert Counter(job.results["out"]) == Counter(countdown(9))


def test_two_hundred_runs_of_a_small_loop_with_instances_inside_lose_nothing() -> None:
    expected = Counter(countdown(6))
    for run in range(RUNS):
        env = LocalEnvironment("loop")
        merged_small(env, run % 3 + 1).collect("out")
        job = env.submit(autostop=True, timeout=LIMIT)
        assert Counter(job.results["out"]) == expected, f"run {run}"


def merged_small(env: Any, p: int) -> Any:
    again = env.from_future("again")
    stream = env.from_batch(range(6)).connect(again).map(down, parallelism=p).filter(lambda n: n >= 0, parallelism=p)
    stream.fill_future(again)
    return stream


def test_an_endless_loop_can_be_stopped() -> None:
    env = LocalEnvironment("loop")
    again = env.from_future("again")
    stream = env.from_batch(range(3)).connect(again).map(lambda n: n, parallelism=2, name="round")
    stream.show("last").fill_future(again)
    job = env.submit()
    try:
        job.wait(0.3)
    except TimeoutError:
        assert job.stop().status == "stopped"
    assert counts(job)["round"][0] > 100


def test_an_endless_loop_runs_into_its_time_limit() -> None:
    env = LocalEnvironment("loop")
    again = env.from_future("again")
    env.from_batch(range(3)).connect(again).map(lambda n: n).show("last").fill_future(again)
    with pytest.raises(TimeoutError):
        env.submit(autostop=True, timeout=0.3)


@pytest.mark.parametrize("p", [1, 2])
def test_a_loop_that_only_grows_fails_at_its_limit_and_names_itself(p: int) -> None:
    """Each item becomes a hundred thousand."""
    env = LocalEnvironment("grows")
    again = env.from_future("again")
    stream = env.from_batch([0]).connect(again).flatmap(lambda n: range(100_000), parallelism=p, name="many")
    stream.show("last").fill_future(again)
    with pytest.raises(PipelineError, match=r"the loop through .* still grows") as caught:
        env.submit(autostop=True, timeout=LIMIT)
    assert f"{LOOP_CAPACITY:,} items" in str(caught.value)
    assert "'again'" in str(caught.value) or "'again'" in notes(caught.value)
