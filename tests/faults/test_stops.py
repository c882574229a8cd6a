"""Stops, pauses and failures across boundaries: they act soon, every function is closed, and nothing is lost unsaid."""

from __future__ import annotations

import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import Job, LocalEnvironment, MapFunction, SourceFunction
from tests.faults.support import SOON, begin, children, ended_in, ending, mark, wait_for
from tests.support import LIMIT, Gate, counts, endless, until

# A process that does not come back


class Busy(MapFunction):
    """Never returns: it counts, or sleeps."""

    def __init__(self, folder: Path, how: str) -> None:
        self.folder, self.how = folder, how

    def execute(self, data: int) -> int:
        begin(self.folder)
        while True:
            if self.how == "sleeps":
                time.sleep(600)
            data += 1

    def close(self) -> None:
        mark(self.folder, "closed")


@pytest.mark.parametrize("how", ["counts", "sleeps"])
def test_a_process_that_does_not_come_back_is_killed_after_the_grace_and_named(how: str, tmp_path: Path) -> None:
    env = LocalEnvironment("busy")
    env.from_batch([1]).map(Busy, tmp_path, how, executor="process", name="busy").collect("out")
    with ending(env.submit()) as job:
        (pid,) = wait_for(tmp_path)
        assert pid in children()
        began = time.monotonic()
        job.stop(timeout=0.2)
        assert time.monotonic() - began < SOON / 2
        assert job.status == "stopped"
        (note,) = [note for note in job.notes if "did not return" in note]
        assert "the process of map 'busy'" in note
        assert pid not in children()


def test_a_stuck_source_in_a_process_is_given_up(tmp_path: Path) -> None:
    class Stuck(SourceFunction):
        def execute(self) -> int:
            begin(tmp_path)
            time.sleep(600)
            return 1

    env = LocalEnvironment("stuck", backend="processes")
    env.from_source(Stuck).collect("out")
    with ending(env.submit()) as job:
        wait_for(tmp_path)
        began = time.monotonic()
        job.stop()
        assert time.monotonic() - began < SOON / 2
        assert job.status == "stopped"


class Closes(MapFunction):
    """Says when each instance has been closed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def execute(self, data: int) -> int:
        return data

    def close(self) -> None:
        mark(self.folder, f"closed {self.name} {self.ctx.parallel_index}")


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_a_stop_closes_the_functions_of_every_process(backend: str, tmp_path: Path) -> None:
    env = LocalEnvironment("closes", backend=backend)
    stream = env.from_source(endless).map(Closes, tmp_path, name="first", executor="process")
    stream.keyby(lambda n: n).map(Closes, tmp_path, name="second", executor="process", parallelism=2).collect("out")
    with ending(env.submit()) as job:
        until(lambda: len(job.results["out"]))
        job.stop()
        assert job.status == "stopped"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["closed first 0", "closed second 0", "closed second 1"]


# Pause


ACROSS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "threads": ("threads", lambda stream: stream.map(lambda n: n, parallelism=2).map(lambda n: n)),
    "coroutines": ("threads", lambda stream: stream.map_async(itself)),
    "a process": ("threads", lambda stream: stream.map(lambda n: n, executor="process")),
    "a pool": ("threads", lambda stream: stream.map(lambda n: n, executor="process", parallelism=2)),
    "all in processes": ("processes", lambda stream: stream.map(lambda n: n)),
}


async def itself(item: int) -> int:
    return item


def slowly() -> Iterator[int]:
    for n in itertools.count():
        yield n
        time.sleep(0.0005)


@pytest.mark.parametrize("place", ACROSS)
def test_nothing_moves_while_paused_and_nothing_is_lost_by_it(place: str) -> None:
    backend, build = ACROSS[place]
    env = LocalEnvironment("paused", backend=backend)
    build(env.from_source(slowly)).collect("out")
    with ending(env.submit()) as job:
        for _ in range(2):
            until_more(job, len(job.results["out"]) + 20)
            job.pause()
            assert job.status == "paused"
            time.sleep(0.5)  # longer than what is at hand takes, and than a process takes to tell its counts
            assert stands(job)
            job.resume()
        job.stop()
        out = list(job.results["out"])
        assert sorted(out) == list(range(len(out)))


def until_more(job: Job, count: int) -> None:
    """Wait for more results than that."""
    until(lambda: len(job.results["out"]) > count)


def stands(job: Job) -> bool:
    """Whether nothing is given or comes for a while."""
    before = counts(job)["slowly"], len(job.results["out"])
    time.sleep(0.5)
    return (counts(job)["slowly"], len(job.results["out"])) == before


# Items on their way


ON_THE_WAY: dict[str, Callable[[Any], Any]] = {
    "one boundary": lambda stream: stream.map(lambda n: n, parallelism=2),
    "two boundaries": lambda stream: stream.map(lambda n: n, parallelism=2).filter(lambda n: True, parallelism=3),
    "keys": lambda stream: stream.keyby(lambda n: n % 9).map(lambda n: n, parallelism=3),
    "batches": lambda stream: stream.map_batches(lambda batch: batch, size=16),
    "batches of two": lambda stream: stream.map_batches(lambda batch: batch, size=160, parallelism=2),
    "batches in a process": lambda stream: stream.map_batches(lambda batch: batch, size=160, executor="process"),
    "a process": lambda stream: stream.map(lambda n: n, executor="process"),
    "a pool": lambda stream: stream.map(lambda n: n, executor="process", parallelism=2),
}


@pytest.mark.parametrize("seconds", [0, 0.02], ids=["a fast sink", "a slow sink"])
@pytest.mark.parametrize("place", ON_THE_WAY)
def test_what_a_source_gave_before_a_stop_reaches_the_sink_or_is_told(place: str, seconds: float) -> None:
    taken: list[int] = []

    def take(item: int) -> None:
        if seconds:
            time.sleep(seconds)
        taken.append(item)

    env = LocalEnvironment("way")
    ON_THE_WAY[place](env.from_batch(endless, name="numbers")).sink(take, name="taken")
    with ending(env.submit()) as job:
        until(lambda: len(taken) > 5)
        job.stop()
    assert len(set(taken)) == len(taken)
    given, waiting = counts(job)["numbers"][1], told(job)
    assert len(taken) + waiting == given, f"{given} given, {len(taken)} taken, {waiting} told: {job.notes}"
    assert counts(job)["taken"][0] == len(taken)


def told(job: Job) -> int:
    """How many items the job says that it has dropped."""
    found = [re.search(r"before (an|[\d,]+) items? that waited", note) for note in job.notes]
    return sum(1 if one[1] == "an" else int(one[1].replace(",", "")) for one in found if one)


def paced() -> Iterator[int]:
    for n in itertools.count():
        time.sleep(0.0005)
        yield n


def silent_after_fifty() -> Iterator[int]:
    yield from range(50)
    time.sleep(1.5)


@pytest.mark.parametrize("options", [{}, {"parallelism": 2}, {"executor": "process"}], ids=["fused", "two", "process"])
@pytest.mark.parametrize("source", [paced, silent_after_fifty])
def test_what_waits_for_the_rest_of_its_batch_at_a_stop_is_told(source: Any, options: dict[str, Any]) -> None:
    env = LocalEnvironment("waits")
    env.from_source(source, name="numbers").map_batches(lambda batch: batch, size=100_000, **options).collect("out")
    with ending(env.submit()) as job:
        until(lambda: counts(job)["map_batches"][0] >= 50)
        job.stop()
    assert job.results["out"] == []
    assert told(job) == counts(job)["numbers"][1] >= 50, job.notes


def test_what_waits_for_its_batch_behind_an_operator_that_hangs_is_told() -> None:
    gate = Gate(at=20)
    env = LocalEnvironment("hangs")
    hangs = env.from_batch(range(30), name="numbers").map(lambda n: n, parallelism=2).map(gate, parallelism=1)
    hangs.map_batches(lambda batch: batch, size=100).collect("out")
    job = env.submit()
    try:
        assert gate.reached.wait(LIMIT)
        until(lambda: counts(job)["numbers"][1] == 30)
        job.stop(0.3)
        assert told(job) == 29, job.notes  # and one that hangs
    finally:
        gate.open()


@pytest.mark.parametrize(("options", "runs"), [({"parallelism": 40}, 12), ({"executor": "process"}, 2)])
def test_what_a_source_gave_before_a_stop_reaches_tasks_that_have_not_begun_by_then(
    options: dict[str, Any], runs: int
) -> None:
    for _ in range(runs):
        taken: list[int] = []
        given = threading.Event()
        env = LocalEnvironment("early")
        env.from_batch(tell_of, 200, given, name="numbers").map(lambda n: n, **options).sink(taken.append)
        with ending(env.submit()) as job:
            assert given.wait(20)
            job.stop()
        assert len(taken) + told(job) == counts(job)["numbers"][1], job.notes


def tell_of(count: int, given: threading.Event) -> Iterator[int]:
    """Numbers without end; says when so many were given."""
    for n in itertools.count():
        yield n
        if n == count:
            given.set()


@pytest.mark.parametrize("options", [{}, {"parallelism": 2}, {"executor": "process"}], ids=["fused", "two", "process"])
def test_an_item_that_an_operator_finishes_within_the_grace_of_a_stop_reaches_the_sink(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """However long the operator takes, up to the grace: what is behind it waits."""

    def slow(item: int) -> int:
        begin(tmp_path)
        time.sleep(0.7)
        return item

    env = LocalEnvironment("grace")
    env.from_batch([1]).map(slow, **options).collect("out")
    with ending(env.submit()) as job:
        wait_for(tmp_path)
        job.stop(timeout=SOON)
        assert (list(job.results["out"]), job.notes) == ([1], ())


@pytest.mark.parametrize("place", ON_THE_WAY)
def test_a_take_behind_boundaries_ends_an_endless_source_and_closes_it(place: str) -> None:
    closed: list[bool] = []

    def numbers() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.append(True)

    env = LocalEnvironment("take")
    ON_THE_WAY[place](env.from_source(numbers)).take(50).map(lambda n: n, parallelism=2).collect("out")
    job = env.submit(autostop=True, timeout=SOON)
    assert len(set(job.results["out"])) == 50
    assert closed == [True]
    assert (job.status, job.notes) == ("completed", ())


def test_a_take_ends_an_endless_source_in_a_process(tmp_path: Path) -> None:
    env = LocalEnvironment("take", backend="processes")
    env.from_source(endless).map(Closes, tmp_path, parallelism=2, name="on").take(50).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert len(set(job.results["out"])) == 50
    assert sorted(path.name for path in tmp_path.iterdir()) == ["closed on 0", "closed on 1"]


def test_a_take_of_one_branch_leaves_the_other_its_items_across_boundaries() -> None:
    env = LocalEnvironment("branches")
    numbers = env.from_batch(range(20_000))
    numbers.map(lambda n: n, parallelism=2).take(3).collect("three")
    numbers.map(lambda n: -n, parallelism=2).collect("all")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert len(job.results["three"]) == 3
    assert len(job.results["all"]) == 20_000


# Failures downstream


FAILS: dict[str, tuple[str, Callable[[Any, Any], Any]]] = {
    "instances": ("threads", lambda stream, fn: stream.map(fn, parallelism=2, name="fails")),
    "behind instances": ("threads", lambda stream, fn: stream.map(same, parallelism=2).map(fn, name="fails")),
    "a process": ("threads", lambda stream, fn: stream.map(fn, executor="process", name="fails")),
    "behind a process": ("threads", lambda stream, fn: stream.map(same, executor="process").map(fn, name="fails")),
    "all in processes": ("processes", lambda stream, fn: stream.keyby(same).map(fn, parallelism=2, name="fails")),
}


def same(item: Any) -> Any:
    return item


def fails_later(item: int) -> int:
    if item == 5000:
        raise LookupError("enough")
    return item


@pytest.mark.parametrize("place", FAILS)
def test_a_failure_downstream_stops_an_endless_source_soon(place: str) -> None:
    backend, build = FAILS[place]
    env = LocalEnvironment("fails", backend=backend)
    build(env.from_source(endless, name="numbers"), fails_later).collect("out")
    with ending(env.submit()) as job:
        until(lambda: job.exception() is not None)
        assert ended_in(job) < SOON / 2
        assert isinstance(job.exception(), LookupError)
        assert (job.status, job.notes) == ("failed", ())
        assert [op.errors for op in job.progress.operators if op.name == "fails"] == [1]


def test_a_failure_downstream_reaches_a_source_that_waits_for_room() -> None:
    """The source is held by a full lane, and the one that held it fails."""
    with Gate() as gate:

        def holds_then_fails(item: int) -> int:
            gate(item)
            raise LookupError("at last")

        env = LocalEnvironment("full")
        env.from_source(endless, name="numbers").map(holds_then_fails, parallelism=2).collect("out")
        with ending(env.submit()) as job:
            gate.wait()
            until(lambda: job.exception() is not None or counts(job)["numbers"][1] > 1000)
            gate.open()
            until(lambda: job.exception() is not None)
            assert ended_in(job) < SOON / 2
            assert isinstance(job.exception(), LookupError)


def test_an_instance_that_is_stuck_beside_one_that_fails_is_given_up_and_named() -> None:
    with Gate() as gate:

        def stuck_or_fails(item: int) -> int:
            if item == 0:
                return int(gate(item))
            gate.wait()
            raise LookupError("the other one")

        env = LocalEnvironment("stuck")
        keyed = env.from_batch([0, 1]).keyby(same, strategy="round_robin")
        keyed.map(stuck_or_fails, parallelism=2, name="both").collect("out")
        with ending(env.submit()) as job:
            until(lambda: job.exception() is not None)
            job.stop(timeout=0.1)
            assert (job.status, type(job.exception())) == ("failed", LookupError)
            assert any("map 'both'" in note and "did not return" in note for note in job.notes)


def test_of_two_failures_the_first_is_raised_and_the_other_is_in_the_log() -> None:
    with Gate() as gate:

        def both(item: int) -> int:
            if item == 0:
                gate(item)
                raise KeyError("second")
            gate.wait()
            raise LookupError("first")

        env = LocalEnvironment("two")
        keyed = env.from_batch([0, 1]).keyby(same, strategy="round_robin")
        keyed.map(both, parallelism=2, name="both").collect("out")
        with ending(env.submit()) as job:
            until(lambda: job.exception() is not None)
            gate.open()
            ended_in(job)
            assert type(job.exception()) is LookupError
            assert any("then also operator 'both'" in line.text and "KeyError" in line.text for line in job.logs())


def test_a_stop_before_the_processes_are_up_leaves_nothing() -> None:
    for seconds in (0.0, 0.05, 0.2):
        env = LocalEnvironment("early", backend="processes")
        env.from_source(endless).map(lambda n: n, parallelism=2).collect("out")
        job = env.submit()
        time.sleep(seconds)  # the moment of the stop is what this test is about
        began = time.monotonic()
        assert job.stop(timeout=1).status == "stopped"
        assert time.monotonic() - began < SOON / 2
    assert os.getpid() not in children()
