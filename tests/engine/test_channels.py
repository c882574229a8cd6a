"""Channels: a slow end holds the beginning back, memory stays flat, and no item waits for the next."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import Job, LocalEnvironment
from sage_nb.engine.channels import BATCH, CAPACITY, LOOP_CAPACITY, Inbox, Lane
from sage_nb.engine.loops import LoopEnded
from sage_nb.engine.wire import WINDOW
from sage_nb.errors import PipelineError
from tests.support import LIMIT, Gate, counts, endless, until

ROOT = Path(__file__).parents[2]
SOON = 5.0
"""Seconds; far more than the 10 ms that batching may add."""


def same(item: Any) -> Any:
    return item


# A lane by itself


class Stands:
    """A sender that leaves when told."""

    def __init__(self) -> None:
        self.leaves = False

    def must_leave(self) -> bool:
        return self.leaves

    def is_cut(self) -> bool:
        return False


def send(lane: Lane, item: Any) -> None:
    lane.items.append(item)
    if len(lane.items) > lane.limit:
        lane.press()


def in_a_thread(call: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=call)
    thread.start()
    return thread


def taken(inbox: Inbox) -> Iterator[Any]:
    for _, (items, *_) in inbox.batches():
        yield from items


def test_items_come_out_in_the_order_they_went_in_and_the_end_comes_last() -> None:
    inbox = Inbox("test")
    lane = Lane(inbox, 0)

    def sends() -> None:
        for n in range(20_000):
            send(lane, n)
        lane.end()

    thread = in_a_thread(sends)
    assert list(taken(inbox)) == list(range(20_000))
    thread.join()


def test_the_end_of_one_lane_waits_for_the_others() -> None:
    inbox = Inbox("test")
    first, second = Lane(inbox, 0), Lane(inbox, 1)
    go = threading.Event()

    def sends() -> None:
        send(first, "a")
        first.end()
        assert go.wait(LIMIT)
        send(second, "b")
        second.end()

    thread = in_a_thread(sends)
    items = taken(inbox)
    assert next(items) == "a"
    go.set()
    assert list(items) == ["b"]
    thread.join()


def test_a_full_lane_holds_its_sender_until_there_is_room() -> None:
    inbox = Inbox("test")
    lane = Lane(inbox, 0)

    def sends() -> None:
        for n in range(CAPACITY + 500):
            send(lane, n)
        lane.end()

    thread = in_a_thread(sends)
    until(lambda: lane.appended() == CAPACITY)
    assert list(taken(inbox)) == list(range(CAPACITY + 500))
    thread.join()
    assert lane.blocked > 0


def test_a_held_sender_goes_on_when_nobody_wants_more() -> None:
    inbox = Inbox("test")
    lane = Lane(inbox, 0)

    def sends() -> None:
        for n in range(3 * CAPACITY):
            send(lane, n)

    thread = in_a_thread(sends)
    until(lambda: len(lane.items) == CAPACITY)
    lane.close()
    thread.join(LIMIT)
    assert not thread.is_alive()
    assert len(lane.items) <= 1


def test_a_held_sender_leaves_when_it_must() -> None:
    lane = Lane(Inbox("test"), 0)
    sender = lane.sender = Stands()
    left: list[bool] = []

    def sends() -> None:
        try:
            for n in range(2 * CAPACITY):
                send(lane, n)
        except LoopEnded:
            left.append(True)

    thread = in_a_thread(sends)
    until(lambda: len(lane.items) == CAPACITY)
    sender.leaves = True
    thread.join(LIMIT)
    assert left == [True]


def test_a_lane_that_leads_back_grows_to_its_limit_and_then_says_what_to_do() -> None:
    lane = Lane(Inbox("again"), 0, feedback=True)
    lane.extend(range(CAPACITY * 2), None, None, None)
    assert len(lane.items) == 2 * CAPACITY
    lane.extend(range(LOOP_CAPACITY - 2 * CAPACITY - 1), None, None, None)
    with pytest.raises(PipelineError, match=r"the loop through 'again' holds 1,000,000 items .* let fewer"):
        send(lane, "one more")


def test_a_lane_of_a_loop_is_served_before_others() -> None:
    inbox = Inbox("test")
    outside, loop = Lane(inbox, 0), Lane(inbox, 1)
    loop.first = True
    for n in range(3):
        send(outside, f"outside {n}")
        send(loop, f"loop {n}")
    outside.end()
    loop.end()
    assert list(taken(inbox)) == [*(f"loop {n}" for n in range(3)), *(f"outside {n}" for n in range(3))]


# Back-pressure


ACROSS: dict[str, tuple[str, int, Callable[[Any], Any]]] = {
    # backend, most items that lanes, batches and processes may hold, pipeline
    "one boundary": ("threads", 4, lambda s: s.map(same, parallelism=2)),
    "two boundaries": ("threads", 11, lambda s: s.map(same, parallelism=2).filter(lambda n: True, parallelism=3)),
    "keys": ("threads", 4, lambda s: s.keyby(lambda n: n % 5).map(same, parallelism=2)),
    "a process": ("threads", 5, lambda s: s.map(same, executor="process")),
    "a pool": ("threads", 8, lambda s: s.map(same, executor="process", parallelism=2)),
    "all in processes": ("processes", 10, lambda s: s.map(same, parallelism=2)),
}


def at_rest(job: Job, name: str) -> int:
    """How many items the operator has given, once it gives no more."""
    until(lambda: counts(job)[name][1], SOON)
    before = -1
    while (now := counts(job)[name][1]) != before:
        before = now
        time.sleep(0.5)  # longer than a process takes to tell its counts
    return now


@pytest.mark.parametrize("place", ACROSS)
def test_a_sink_that_does_not_come_back_holds_the_source(place: str) -> None:
    """The source gives what the lanes on the way hold, and no more; then goes on."""
    backend, lanes, build = ACROSS[place]
    with Gate() as gate:
        env = LocalEnvironment("held", backend=backend)
        build(env.from_source(endless, name="numbers")).sink(gate, name="held", executor="thread")
        job = env.submit()
        try:
            gate.wait()
            held = at_rest(job, "numbers")
            assert held > CAPACITY
            assert held <= lanes * (max(CAPACITY, WINDOW) + BATCH)
            assert counts(job)["held"][0] == 1
            gate.open()
            until(lambda: counts(job)["numbers"][1] > held + CAPACITY)
        finally:
            gate.open()
            job.stop(timeout=1)


def test_a_source_that_is_held_shows_it() -> None:
    with Gate() as gate:
        env = LocalEnvironment("shows")
        env.from_source(endless, name="numbers").map(same, parallelism=2).map(gate, name="held").collect("out")
        job = env.submit()
        try:
            gate.wait()
            at_rest(job, "numbers")
            views = {op.name: op for op in job.progress.operators}
            assert views["same"].queued >= CAPACITY
            assert views["held"].queued >= CAPACITY
            until(lambda: (next(op.blocked for op in job.progress.operators if op.name == "numbers") or 0) > 0.5, SOON)
        finally:
            gate.open()
            job.stop(timeout=1)


MEMORY = """
import resource, sys
sys.path.insert(0, {root!r})
from sage_nb import LocalEnvironment

PAGE = resource.getpagesize()

def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE / 1e6

def sample(n):
    if n % {every} == 0:
        samples.append(rss())
    return n

def same(n):
    return n

def pairs(n):
    return (n, str(n))

samples = []
env = LocalEnvironment("memory")
stream = env.from_batch(iter(range({items}))).map(pairs, parallelism=2{options})
stream.map(lambda pair: pair[0], parallelism=2).map(sample).show("last")
env.submit(autostop=True)
warm = samples[len(samples) // 5:]
print(len(samples), max(warm) - min(warm))
"""


@pytest.mark.parametrize(
    ("items", "options"), [(1_500_000, ""), (150_000, ", executor='process'")], ids=["threads", "processes"]
)
def test_memory_stays_flat_however_many_items_pass_two_boundaries(items: int, options: str) -> None:
    code = MEMORY.format(root=str(ROOT), items=items, options=options, every=items // 50)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    count, spread = done.stdout.split()
    assert int(count) == 50
    assert float(spread) < 50, "MB"


# Latency


def through_a_process(env: Any, source: Any, *args: Any) -> Any:
    return env.from_source(source, *args).map(same, executor="process")


def through_a_pool(env: Any, source: Any, *args: Any) -> Any:
    return env.from_source(source, *args).map(same, executor="process", parallelism=2)


def by_key_in_processes(env: Any, source: Any, *args: Any) -> Any:
    keyed = env.from_source(source, *args).keyby(lambda n: n % 7)
    return keyed.map(same, executor="process", parallelism=2)


def through_instances(env: Any, source: Any, *args: Any) -> Any:
    return env.from_source(source, *args).map(same, parallelism=2).map(same, parallelism=3)


def then_waits(count: int, gate: Gate) -> Iterator[int]:
    yield from range(count)
    gate(None)


def then_sleeps(count: int) -> Iterator[int]:
    yield from range(count)
    time.sleep(600)


@pytest.mark.parametrize("count", [1, 10_000])
@pytest.mark.parametrize("build", [through_a_process, through_a_pool, by_key_in_processes])
def test_all_items_come_out_of_processes_though_the_next_never_comes(build: Any, count: int) -> None:
    env = LocalEnvironment("waits")
    with Gate() as gate:
        build(env, then_waits, count, gate).collect("out")
        job = env.submit(timeout=LIMIT)
        gate.wait()
        until(lambda: len(job.results["out"]) == count, SOON)
    job.wait()
    assert sorted(job.results["out"]) == list(range(count))


@pytest.mark.parametrize("count", [1, 10_000])
def test_all_items_come_out_of_a_source_in_a_process_that_waits(count: int) -> None:
    env = LocalEnvironment("waits", backend="processes")
    env.from_source(then_sleeps, count).map(same, parallelism=2).collect("out")
    job = env.submit()
    try:
        until(lambda: len(job.results["out"]) == count, 2 * SOON)
    finally:
        job.stop(timeout=0.1)
    assert sorted(job.results["out"]) == list(range(count))


def clock() -> Iterator[float]:
    for _ in range(60):
        yield time.monotonic()
        time.sleep(0.005)


@pytest.mark.parametrize("build", [through_instances, through_a_process, through_a_pool])
def test_an_item_is_at_the_sink_soon_after_it_came(build: Any) -> None:
    took: list[float] = []
    env = LocalEnvironment("soon")
    build(env, clock).sink(lambda began: took.append(time.monotonic() - began))
    env.submit(autostop=True, timeout=LIMIT)
    assert len(took) == 60
    assert statistics.median(took) < 0.1


def test_processes_do_the_work_of_their_instances() -> None:
    """What is measured here does run in processes."""
    env = LocalEnvironment("pids")
    through_a_pool(env, clock).map(lambda _: os.getpid(), executor="process", parallelism=2).collect("pids")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert os.getpid() not in job.results["pids"]
