"""Behind what awaits, and behind processes whose results are put in order, streams go on as they do elsewhere."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage_nb import Job, LocalEnvironment, Tumbling, WindowResult
from sage_nb.engine.channels import Inbox, Lane
from tests.support import LIMIT, counts, endless, until


def itself(item: Any) -> Any:
    return item


async def awaited(item: Any) -> Any:
    return item


BEHIND: dict[str, Callable[[Any], Any]] = {
    "a thread": lambda stream: stream.map(itself),
    "threads": lambda stream: stream.map(itself, parallelism=2),
    "coroutines": lambda stream: stream.map_async(awaited),
    "a process": lambda stream: stream.map(itself, executor="process"),
    "a pool": lambda stream: stream.map(itself, executor="process", parallelism=2),
}
behind = pytest.mark.parametrize("place", BEHIND)


@behind
@pytest.mark.parametrize("keys", [0, 1, 2], ids=["no keys", "one instance", "two instances"])
def test_event_time_windows_work_behind_everything(place: str, keys: int) -> None:
    env = LocalEnvironment("windows")
    stream = BEHIND[place](env.from_batch(range(20)))
    if place == "threads":
        stream = stream.map(itself)
    if keys:
        stream = stream.keyby(lambda n: n % 2)
    window = stream.window(Tumbling(5), event_time=float, out_of_orderness=20)
    window.count(parallelism=max(1, keys)).collect("out")
    out = list(env.submit(autostop=True).results["out"])
    assert sum(result.value for result in out) == 20
    assert {(result.key, result.start) for result in out} == {(n % 2 if keys else None, n // 5 * 5) for n in range(20)}


@behind
def test_a_window_by_the_clock_fires_while_its_input_is_silent(place: str) -> None:
    released = threading.Event()

    def five() -> Iterator[int]:
        yield from range(5)
        assert released.wait(LIMIT)

    env = LocalEnvironment("clock")
    fired: list[WindowResult] = []
    window = BEHIND[place](env.from_source(five, parallelism=1)).window(Tumbling(0.2)).count()
    window.sink(fired.append)
    job = env.submit()
    try:
        until(lambda: sum(result.value for result in fired) == 5)
    finally:
        released.set()
    assert job.wait(LIMIT).status == "completed"


@behind
def test_a_source_that_has_nothing_holds_up_no_window(place: str) -> None:
    """Whatever stands behind it: what it says of itself goes through."""

    class Once:
        given = False

        def execute(self) -> int | None:
            given, self.given = self.given, True
            return None if given else 0

    env = LocalEnvironment("idle")
    fired: list[WindowResult] = []
    busy = env.from_source(endless, delay=0.001)
    quiet = BEHIND[place](env.from_source(Once))
    quiet.connect(busy).window(Tumbling(5), event_time=float).count().sink(fired.append)
    job = env.submit()
    until(lambda: len(fired) > 3)
    job.stop()


def test_a_free_place_is_taken_at_once_beside_an_item_that_takes_long() -> None:
    release: list[asyncio.Event] = []
    began: list[str] = []
    third = threading.Event()

    def items() -> Iterator[str]:
        yield from ("slow", "quick")
        until(lambda: len(began) == 2)
        time.sleep(0.2)  # the driver has found nothing more, and waits
        yield "third"
        assert third.wait(LIMIT)

    async def work(item: str) -> str:
        began.append(item)
        if item == "slow":
            release.append(asyncio.Event())
            await release[0].wait()
        if item == "third":
            third.set()
            release[0].set()
        return item

    env = LocalEnvironment("places")
    env.from_batch(items).map_async(work, concurrency=2, ordered=False).collect("out")
    assert sorted(env.submit(autostop=True, timeout=LIMIT).results["out"]) == ["quick", "slow", "third"]


def test_what_is_awaited_when_a_stop_comes_is_told() -> None:
    async def forever(_: int) -> None:
        await asyncio.sleep(600)

    env = LocalEnvironment("awaited")
    env.from_batch(range(50)).map_async(forever, name="forever").collect("out")
    job = env.submit()
    until(lambda: counts(job)["forever"][0] == 50)
    job.stop()
    assert job.notes == ("the stop came before 50 items that waited for 'forever'",)


def told(job: Job) -> int:
    found = [re.search(r"before (an|[\d,]+) items? that waited", note) for note in job.notes]
    return sum(1 if one[1] == "an" else int(one[1].replace(",", "")) for one in found if one)


STOPPED: dict[str, Callable[[Any], Any]] = {
    **{name: BEHIND[name] for name in ("coroutines", "a process", "a pool")},
    "processes by key": lambda s: s.keyby(lambda n: n % 10).map(itself, parallelism=2, executor="process"),
}


@pytest.mark.parametrize("place", STOPPED)
def test_a_stop_drops_what_waits_before_a_slow_operator_soon_and_tells(place: str) -> None:
    def slow(item: int) -> int:
        time.sleep(0.002)
        return item

    for _ in range(5):
        env = LocalEnvironment("stopped")
        taken: list[int] = []
        STOPPED[place](env.from_batch(endless, name="numbers")).map(slow).sink(taken.append)
        job = env.submit()
        until(lambda taken=taken: len(taken) > 30)  # type: ignore[misc]
        began = time.monotonic()
        job.stop(LIMIT)
        assert time.monotonic() - began < LIMIT / 10
        assert [note for note in job.notes if "before" not in note] == []
        assert len(taken) + told(job) == counts(job)["numbers"][1]


def test_an_item_at_work_further_up_comes_through_a_window_that_a_stop_cuts() -> None:
    at_work, over = threading.Event(), threading.Event()

    def items() -> Iterator[Any]:
        yield from range(20)
        time.sleep(0.5)  # some windows fire
        yield "last"
        assert over.wait(LIMIT)

    def up(item: Any) -> Any:
        if item == "last":
            at_work.set()
            time.sleep(1.0)
        return item

    env = LocalEnvironment("cut")
    written: list[Any] = []
    stream = env.from_batch(items).map(up).connect(env.from_batch([])).map(itself)
    stream.sink(written.append)
    stream.keyby(itself).window(Tumbling(0.3)).count().sink(lambda _: time.sleep(0.05))
    job = env.submit()
    assert at_work.wait(LIMIT)
    job.stop(LIMIT)
    over.set()
    assert "last" in written


def test_a_pool_keeps_the_order_however_its_threads_are_switched() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(4):
            env = LocalEnvironment("switched")
            env.from_batch(range(50_000)).map(itself, parallelism=2, executor="process").collect("out")
            assert list(env.submit(autostop=True, timeout=2 * LIMIT).results["out"]) == list(range(50_000))
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_skipped_item_need_not_be_one_that_travels(executor: str) -> None:
    def with_lock(n: int) -> tuple[Any, int]:
        return threading.Lock(), n

    def use(pair: tuple[Any, int]) -> int:
        if pair[1] == 3:
            raise ValueError("three")
        return pair[1]

    for policy in ("skip", "dead_letter"):
        env = LocalEnvironment("skipped")
        stream = env.from_batch(range(6)).map(with_lock, executor=executor)
        stream.map(use, executor=executor, on_error=policy, name="use").collect("out")
        job = env.submit(autostop=True)
        assert list(job.results["out"]) == [0, 1, 2, 4, 5]
    (letter,) = job.dead_letters["use"]
    assert str(letter.error) == "three"
    assert "lock" in repr(letter.item)


@pytest.mark.parametrize("place", ["a thread", "coroutines", "a process", "by the clock"])
def test_a_stop_iteration_is_the_users_own_everywhere(place: str) -> None:
    def boom(_: Any) -> None:
        raise StopIteration("mine")

    env = LocalEnvironment("stop iteration")
    stream: Any = env.from_batch([1])
    stream = stream.window(Tumbling(0.1)).count() if place == "by the clock" else BEHIND[place](stream)
    stream.map(boom, name="boom").collect("out")
    with pytest.raises(StopIteration, match="mine") as caught:
        env.submit(autostop=True)
    assert "operator 'boom' (map)" in "\n".join(caught.value.__notes__)


class Add:
    """Adds, and asks for its key."""

    def execute(self, a: Any, b: Any) -> Any:
        return (a[0] + b[0], self.ctx.get_key())  # type: ignore[attr-defined]


class Value:
    def execute(self, pair: tuple[int, Any]) -> int:
        return pair[0]


class Batch:
    def execute(self, pairs: list[Any]) -> list[Any]:
        return pairs


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_classes_have_a_context_on_keyed_streams(policy: str) -> None:
    env = LocalEnvironment("classes")
    stream = env.from_batch([(n, None) for n in range(6)]).keyby(lambda pair: pair[0] % 2)
    stream.reduce(Add, on_error=policy).collect("reduced")
    stream.sum(Value, on_error=policy).collect("summed")
    stream.map_batches(Batch, on_error=policy).collect("batches")
    results = env.submit(autostop=True).results
    assert list(results["reduced"]) == [(0, None), (1, None), (2, 0), (4, 1), (6, 0), (9, 1)]
    assert list(results["summed"]) == [(0, 0), (1, 1), (0, 2), (1, 4), (0, 6), (1, 9)]
    assert list(results["batches"]) == [(n, None) for n in range(6)]


def test_dropping_what_waits_parts_no_item_from_its_key() -> None:
    """The sender may be between the two when it happens."""
    lane = Lane(Inbox("x"), 0, keyed=True)
    assert lane.keys is not None
    lane.keys.append("k1")
    lane.drop()
    lane.items.append("i1")
    lane.keys.append("k2")
    lane.items.append("i2")
    items, keys, _, _ = lane.take(10)
    assert list(zip(items, keys, strict=True)) == [("i1", "k1"), ("i2", "k2")]
