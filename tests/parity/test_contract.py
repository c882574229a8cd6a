"""What users may rely on, beyond the items that come out: instances, their place, their keys and their ends."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from sage_nb import MapFunction, SageError
from tests.parity.backends import BACKENDS
from tests.parity.case import dead_items
from tests.support import LIMIT, errors, until

Make = Callable[[str], Any]


@pytest.fixture(params=BACKENDS)
def make(request: pytest.FixtureRequest) -> Make:
    """Makes an environment of each backend."""
    return BACKENDS[request.param]


class Diary:
    """Lines in a file: what instances say, in whichever process they are."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def add(self, *words: Any) -> None:
        """One write, so that lines of several processes do not mix."""
        file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, (" ".join(map(str, words)) + "\n").encode())
        finally:
            os.close(file)

    def lines(self, of: str) -> list[tuple[int, ...]]:
        """The numbers in the lines that begin with a word."""
        if not os.path.exists(self.path):
            return []
        lines = [line.split() for line in Path(self.path).read_text().splitlines()]
        return [tuple(map(int, numbers)) for word, *numbers in lines if word == of]


class Written(MapFunction):
    """Writes down its making, its opening and its end; fails at `bad`."""

    def __init__(self, diary: Diary, bad: int | None = None) -> None:
        self.diary, self.bad, self.items = diary, bad, 0
        diary.add("made")

    def open(self) -> None:
        self.diary.add("opened", self.ctx.parallel_index, self.ctx.parallelism)

    def execute(self, data: int) -> int:
        if data == self.bad:
            raise ZeroDivisionError(f"bad {data}")
        self.items += 1
        return data

    def close(self) -> None:
        self.diary.add("closed", self.ctx.parallel_index, self.items)


class Placed(MapFunction):
    """Tells which instance has which key and item."""

    def execute(self, data: Any) -> tuple[int, Any, Any]:
        return self.ctx.parallel_index, self.ctx.get_key(), data


class Unstable:
    """Its hash is its place in memory: another one in each process, and in each run."""

    def __init__(self, number: int) -> None:
        self.number = number


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary.txt")


def out(env: Any, stream: Any) -> list[Any]:
    stream.collect("out")
    return list(env.submit(autostop=True, timeout=LIMIT).results["out"])


# Instances


@pytest.mark.parametrize("p", [1, 4])
def test_each_instance_is_made_and_opened_and_closed_once(make: Make, diary: Diary, p: int) -> None:
    """And it is closed after all its input."""
    env = make("instances")
    stream = env.from_batch(range(40)).keyby(lambda x: x, strategy="round_robin").map(Written, diary, parallelism=p)
    assert sorted(out(env, stream)) == list(range(40))
    assert diary.lines("made") == [()] * p
    assert sorted(diary.lines("opened")) == [(i, p) for i in range(p)]
    assert sorted(diary.lines("closed")) == [(i, 40 // p) for i in range(p)]


@pytest.mark.parametrize("p", [1, 3])
def test_instances_of_an_executor_are_made_and_closed_once_too(make: Make, diary: Diary, p: int) -> None:
    env = make("instances")
    stream = env.from_batch(range(40)).map(Written, diary, parallelism=p, executor="process")
    assert out(env, stream) == list(range(40))
    assert sorted(diary.lines("opened")) == [(i, p) for i in range(p)]
    closed = sorted(diary.lines("closed"))
    assert [i for i, _ in closed] == list(range(p))
    assert sum(n for _, n in closed) == 40


def test_instances_without_an_item_are_closed_as_well(make: Make, diary: Diary) -> None:
    env = make("instances")
    assert out(env, env.from_batch([]).map(Written, diary, parallelism=3)) == []
    assert sorted(diary.lines("closed")) == [(0, 0), (1, 0), (2, 0)]


def test_after_a_failure_of_one_instance_each_that_was_opened_is_closed_once(make: Make, diary: Diary) -> None:
    env = make("instances")
    env.from_batch(count()).map(Written, diary, 100, parallelism=3, name="fails").sink(lambda _: None)
    with pytest.raises(ZeroDivisionError, match="bad 100") as caught:
        env.submit(autostop=True, timeout=LIMIT)
    assert any("'fails'" in note for note in caught.value.__notes__)
    assert sorted(i for i, _ in diary.lines("closed")) == sorted(i for i, _ in diary.lines("opened"))


def test_a_stop_closes_every_instance_once(make: Make, diary: Diary) -> None:
    env = make("instances")
    env.from_batch(count()).map(Written, diary, parallelism=3).sink(lambda _: None)
    job = env.submit()
    until(lambda: len(diary.lines("opened")) == 3)
    job.stop()
    assert job.status == "stopped"
    assert sorted(i for i, _ in diary.lines("closed")) == [0, 1, 2]


# Keys


@pytest.mark.parametrize("executor", [None, "process"])
def test_hash_leads_all_items_of_a_key_to_one_instance(make: Make, executor: str | None) -> None:
    env = make("keys")
    stream = env.from_batch(range(60)).keyby(lambda x: x % 12).map(Placed, parallelism=3, executor=executor)
    places = {(key, place) for place, key, _ in out(env, stream)}
    assert len(places) == 12
    assert len({place for _, place in places}) > 1


def test_hash_leads_a_key_to_the_same_instance_from_several_streams_and_in_every_run(make: Make) -> None:
    places = set()
    for _ in range(2):
        env = make("keys")
        left, right = (env.from_batch(list("abcdefgh")).keyby(lambda x: x) for _ in "lr")
        places |= {(key, place) for place, key, _ in out(env, left.connect(right).map(Placed, parallelism=4))}
    assert len(places) == 8


def test_broadcast_gives_each_item_to_every_instance(make: Make) -> None:
    env = make("keys")
    stream = env.from_batch("abc").keyby(str.upper, strategy="broadcast").map(Placed, parallelism=3)
    assert Counter(out(env, stream)) == Counter((i, x.upper(), x) for i in range(3) for x in "abc")


def test_round_robin_gives_each_instance_the_next_item(make: Make) -> None:
    env = make("keys")
    stream = env.from_batch(range(12)).keyby(lambda x: 0, strategy="round_robin").map(Placed, parallelism=3)
    assert sorted(out(env, stream)) == sorted((x % 3, 0, x) for x in range(12))


@pytest.mark.parametrize("key", [Unstable, lambda x: (x, Unstable(x)), lambda x: frozenset({Unstable(x)})])
def test_a_key_without_a_stable_hash_fails_the_job_and_is_named(make: Make, key: Callable[[int], Any]) -> None:
    """Rather than leading the same key here and there."""
    env = make("keys")
    env.from_batch(range(5)).keyby(key, name="by object").count(parallelism=2).sink(lambda _: None)
    with pytest.raises(SageError, match="Unstable") as caught:
        env.submit(autostop=True, timeout=LIMIT)
    assert "by object" in "\n".join([str(caught.value), *caught.value.__notes__])


def test_reduce_gives_the_value_and_count_and_sum_the_key_with_it(make: Make) -> None:
    env = make("keys")
    keyed = env.from_batch([1, 2, 3, 4]).keyby(lambda x: "odd" if x % 2 else "even")
    keyed.count().collect("count")
    keyed.sum().collect("sum")
    keyed.reduce(lambda so_far, item: so_far * 10 + item).collect("reduce")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert list(job.results["count"]) == [("odd", 1), ("even", 1), ("odd", 2), ("even", 2)]
    assert list(job.results["sum"]) == [("odd", 1), ("even", 2), ("odd", 4), ("even", 6)]
    assert list(job.results["reduce"]) == [1, 2, 13, 24]


# Loops, and errors


def test_a_loop_that_is_left_open_is_refused_at_submit(make: Make) -> None:
    env = make("open")
    env.from_batch([1]).connect(env.from_future("never filled")).collect("out")
    with pytest.raises(SageError, match="never filled"):
        env.submit(autostop=True)


def test_batches_in_a_loop_are_refused_as_what_they_keep_back_would_never_come_out(make: Make) -> None:
    env = make("loop")
    again = env.from_future("again")
    env.from_batch([1]).connect(again).map_batches(list, size=4, name="fours").fill_future(again)
    with pytest.raises(SageError, match="fours"):
        env.submit(autostop=True)


def test_a_failure_in_a_loop_fails_the_job_with_its_own_type(make: Make) -> None:
    env = make("loop")
    again = env.from_future("again")
    less = env.from_batch([3, 2]).connect(again).map(lambda n: 1 // n and n - 1, parallelism=2, name="less")
    less.fill_future(again)
    less.sink(lambda _: None)
    with pytest.raises(ZeroDivisionError) as caught:
        env.submit(autostop=True, timeout=LIMIT)
    assert any("'less'" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("p", [1, 3])
@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
def test_errors_that_do_not_fail_the_job_are_counted_and_kept(make: Make, policy: str, p: int) -> None:
    env = make("errors")
    stream = env.from_batch([1, 0, 2, 0, 4]).map(lambda x: 4 // x, on_error=policy, name="divide", parallelism=p)
    stream.collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert job.status == "completed"
    assert Counter(job.results["out"]) == Counter([4, 2, 1])
    assert errors(job) == {"divide": 2}
    if policy == "dead_letter":
        assert dead_items(job, "divide") == [0, 0]
        assert all(isinstance(letter.error, ZeroDivisionError) for letter in job.dead_letters["divide"])
    else:
        assert not job.dead_letters.get("divide")


def yields(n: int) -> Iterator[int]:
    yield from range(n)


def test_an_environment_can_be_submitted_again(make: Make) -> None:
    env = make("again")
    env.from_batch(yields, 10).keyby(lambda x: x % 2).sum(parallelism=2).collect("out")
    first, second = (Counter(env.submit(autostop=True, timeout=LIMIT).results["out"]) for _ in "ab")
    assert first == second
    assert first.total() == 10
