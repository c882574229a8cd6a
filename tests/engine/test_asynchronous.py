"""Coroutine functions: how many are under way, in which order they come out, and what ends them."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_nb import BaseService, ItemTimeout, LocalEnvironment, MapFunction, call_service, call_service_async
from tests.support import LIMIT, Gate, counts, endless, errors, until


class Meets:
    """A coroutine function that counts how many are under way; each waits until `count` are, or a moment."""

    def __init__(self, count: int) -> None:
        self.count, self.now, self.most = count, 0, 0

    async def __call__(self, item: int) -> int:
        self.now += 1
        self.most = max(self.most, self.now)
        for _ in range(20):
            if self.now >= self.count:
                break
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        self.now -= 1
        return item


def run(fn: Any, items: Any = range(10), backend: str = "threads", **options: Any) -> Any:
    """The ended job of `items` through `map_async`."""
    env = LocalEnvironment("async", backend=backend)
    env.from_batch(items).map_async(fn, name="awaits", **options).collect("out")
    job = env.submit()
    assert job._dispatcher.clean.wait(LIMIT)
    return job


def notes(exc: BaseException | None) -> str:
    return "\n".join(getattr(exc, "__notes__", ()))


# How many, and in which order


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 3, 10])
def test_as_many_are_under_way_as_may_be_and_no_more(concurrency: int, ordered: bool) -> None:
    meets = Meets(concurrency)
    job = run(meets, range(40), concurrency=concurrency, ordered=ordered)
    assert meets.most == concurrency
    assert sorted(job.results["out"]) == list(range(40))


def test_each_instance_has_its_own_number_under_way() -> None:
    seen: dict[int, int] = {}
    most: dict[int, int] = {}

    class Counts(MapFunction):
        async def execute(self, data: int) -> int:
            index = self.ctx.parallel_index
            seen[index] = seen.get(index, 0) + 1
            most[index] = max(most.get(index, 0), seen[index])
            await asyncio.sleep(0.002)
            seen[index] -= 1
            return data

    job = run(Counts, range(100), concurrency=4, parallelism=2)
    assert sorted(job.results["out"]) == list(range(100))
    assert most == {0: 4, 1: 4}


async def earlier_ones_take_longer(item: int) -> int:
    await asyncio.sleep(0.03 if item % 5 == 0 else 0)
    return item


def test_results_keep_the_order_of_the_items() -> None:
    assert list(run(earlier_ones_take_longer, range(50), concurrency=7).results["out"]) == list(range(50))


def test_results_come_as_they_are_ready_where_order_does_not_matter() -> None:
    out = list(run(earlier_ones_take_longer, range(5), ordered=False).results["out"])
    assert out == [1, 2, 3, 4, 0]


def test_a_result_that_is_ready_does_not_wait_for_one_that_never_is() -> None:
    async def waits(item: int) -> int:
        if item == 0:
            await asyncio.sleep(3600)
        return item

    env = LocalEnvironment("ready")
    env.from_batch(range(5)).map_async(waits, ordered=False).collect("out")
    job = env.submit()
    until(lambda: len(job.results["out"]) == 4)
    job.stop(timeout=0.1)
    assert list(job.results["out"]) == [1, 2, 3, 4]


def test_a_slow_first_item_holds_back_the_results_but_only_so_many_items() -> None:
    begun: list[int] = []

    async def waits(item: int) -> int:
        begun.append(item)
        if item == 0:
            await asyncio.sleep(3600)
        return item

    env = LocalEnvironment("held")
    env.from_source(endless).map_async(waits, concurrency=5).collect("out")
    job = env.submit()
    until(lambda: len(begun) >= 20)
    time.sleep(0.05)  # whether more are begun can only be told after a time
    assert len(begun) == 4 * 5
    assert len(job.results["out"]) == 0
    job.stop(timeout=0.1)


def test_none_drops_and_other_false_results_stay() -> None:
    async def passes(item: Any) -> Any:
        return item

    assert list(run(passes, [0, None, "", False, 1]).results["out"]) == [0, "", False, 1]


def test_many_items_that_never_wait_pass_in_order() -> None:
    async def at_once(item: int) -> int:
        return item

    assert list(run(at_once, range(20_000)).results["out"]) == list(range(20_000))


def test_a_coroutine_function_given_to_map_is_awaited() -> None:
    env = LocalEnvironment("map")
    env.from_batch(range(50)).map(earlier_ones_take_longer).collect("out")
    assert list(env.submit(autostop=True, timeout=LIMIT).results["out"]) == list(range(50))


def test_two_thousand_short_waits_overlap() -> None:
    async def waits(item: int) -> int:
        await asyncio.sleep(0.01)
        return item

    began = time.monotonic()
    run(waits, range(2000), concurrency=100)
    assert time.monotonic() - began < 4  # 20 s one after the other, 0.2 s at best


# Limits of time


async def too_long(item: int) -> int:
    await asyncio.sleep(3600 if item == 1 else 0)
    return item


def test_an_item_that_takes_too_long_fails_the_job_and_is_named() -> None:
    job = run(too_long, range(3), item_timeout=0.05)
    exc = job.exception()
    assert type(exc) is ItemTimeout
    assert "item_timeout of 0.05 s" in str(exc)
    assert "operator 'awaits'" in notes(exc)
    assert "on the item 1" in notes(exc)
    assert errors(job) == {"awaits": 1}


@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
@pytest.mark.parametrize("ordered", [True, False])
def test_an_item_that_takes_too_long_is_left_out_where_the_policy_says_so(policy: str, ordered: bool) -> None:
    job = run(too_long, range(4), item_timeout=0.05, on_error=policy, ordered=ordered, concurrency=1)
    assert job.status == "completed"
    assert list(job.results["out"]) == [0, 2, 3]
    assert errors(job) == {"awaits": 1}
    letters = [(one.item, type(one.error)) for one in job.dead_letters["awaits"]]
    assert letters == ([(1, ItemTimeout)] if policy == "dead_letter" else [])


def test_the_coroutine_of_an_item_that_takes_too_long_is_cancelled() -> None:
    ended: list[str] = []

    async def tidy(item: int) -> int:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        finally:
            ended.append("finally")
        return item

    run(tidy, [1], item_timeout=0.05, on_error="skip")
    assert ended == ["cancelled", "finally"]


def test_a_timeout_error_of_the_users_own_is_not_taken_for_ours() -> None:
    async def own(item: int) -> int:
        raise TimeoutError("mine")

    job = run(own, [1], item_timeout=60)
    assert (type(job.exception()), str(job.exception())) == (TimeoutError, "mine")


# What ends them


@pytest.mark.parametrize("how", ["stop", "failure", "failure elsewhere", "take"])
def test_coroutines_under_way_are_cancelled_and_tidy_up(how: str) -> None:
    begun, ended = [], []

    async def tidy(item: int) -> int:
        begun.append(item)
        try:
            if item == 0:
                while len(begun) < 3:
                    await asyncio.sleep(0.001)
                if how == "failure":
                    raise LookupError("mine")
                return item
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.append(item)
        return item

    env = LocalEnvironment("tidy")
    stream = env.from_batch([0, 1, 2]).map_async(tidy, name="tidy")
    if how == "failure elsewhere":
        stream = stream.map(lambda n: 1 // n)
    elif how == "take":
        stream = stream.take(1)
    stream.collect("out")
    job = env.submit()
    until(lambda: len(begun) == 3)
    began = time.monotonic()
    if how == "stop":
        until(lambda: len(job.results["out"]) == 1)
        job.stop()
    assert job._dispatcher.clean.wait(LIMIT)
    assert time.monotonic() - began < 3
    assert job.status == {"stop": "stopped", "take": "completed"}.get(how, "failed")
    assert sorted(ended) == [0, 1, 2]


def test_a_stop_lets_coroutines_end_that_are_nearly_done() -> None:
    """What was taken from the source is finished, if it can be at once."""
    begun: list[int] = []
    go = threading.Event()

    async def soon(item: int) -> int:
        begun.append(item)
        while not go.is_set():
            await asyncio.sleep(0.001)
        return item

    env = LocalEnvironment("soon")
    env.from_batch(range(3)).map_async(soon).collect("out")
    job = env.submit()
    until(lambda: len(begun) == 3)
    job.request_stop()
    go.set()
    job.stop()
    assert list(job.results["out"]) == [0, 1, 2]
    assert job.notes == ()


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_coroutine_that_raises_cancelled_itself_is_a_failure(policy: str) -> None:
    """It is no plain exception, so no policy takes it; and the job does not wait for it."""

    async def cancels(item: int) -> int:
        raise asyncio.CancelledError("mine")

    job = run(cancels, [1, 2], on_error=policy)
    assert job.status == "failed"
    assert type(job.exception()) is asyncio.CancelledError
    assert "operator 'awaits'" in notes(job.exception())


def test_a_coroutine_that_awaits_what_was_cancelled_is_a_failure() -> None:
    async def awaits_cancelled(item: int) -> int:
        task = asyncio.ensure_future(asyncio.sleep(3600))
        task.cancel()
        await task
        return item

    job = run(awaits_cancelled, [1])
    assert (job.status, type(job.exception())) == ("failed", asyncio.CancelledError)


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, StopAsyncIteration])
def test_exceptions_with_a_meaning_to_python_are_failures_too(error: type[BaseException]) -> None:
    async def fails(item: int) -> int:
        await asyncio.sleep(0)
        raise error("mine")

    job = run(fails, [1])
    assert job.status == "failed"
    exc = job.exception()
    # Python itself turns these two into a RuntimeError where they leave a coroutine.
    expected = RuntimeError if error in (StopIteration, StopAsyncIteration) and type(exc) is RuntimeError else error
    assert type(exc) is expected
    assert "operator 'awaits'" in notes(exc)


async def inner(item: int) -> float:
    await asyncio.sleep(0)
    return 1 / item


async def outer(item: int) -> float:
    return await inner(item)


@pytest.mark.parametrize("options", [{}, {"executor": "process"}, {"parallelism": 2}])
def test_an_exception_is_told_at_the_users_innermost_line(options: dict[str, Any]) -> None:
    job = run(outer, [1, 0], **options)
    exc = job.exception()
    line = inner.__code__.co_firstlineno + 2
    assert type(exc) is ZeroDivisionError
    assert f"operator 'awaits' (async), test_asynchronous.py, line {line}: return 1 / item" in notes(exc)
    assert "on the item 0" in notes(exc)
    assert job.snapshot().error.item == "0"
    assert errors(job) == {"awaits": 1}


def test_a_failure_behind_a_coroutine_is_put_on_the_operator_behind() -> None:
    env = LocalEnvironment("behind")
    env.from_batch([1, 0]).map_async(earlier_ones_take_longer).map(lambda n: 1 // n, name="at fault").collect("out")
    job = env.submit()
    assert job._dispatcher.clean.wait(LIMIT)
    assert type(job.exception()) is ZeroDivisionError
    assert "operator 'at fault' (map)" in notes(job.exception())
    assert errors(job) == {"at fault": 1}


# Services, and what blocks


class Doubles(BaseService):
    def process(self, value: int) -> int:
        if value == 13:
            raise LookupError("not thirteen")
        return 2 * value


def with_service(fn: Callable[[int], Any], items: Any, **options: Any) -> Any:
    env = LocalEnvironment("services")
    env.register_service("doubles", Doubles)
    env.from_batch(items).map_async(fn, **options).collect("out")
    return env.submit(autostop=True, timeout=LIMIT)


async def awaits_future(item: int) -> Any:
    return await asyncio.wrap_future(call_service_async("doubles", item))


async def calls(item: int) -> Any:
    return call_service("doubles", item)


class Method(MapFunction):
    async def execute(self, data: int) -> Any:
        return await asyncio.wrap_future(self.call_service_async("doubles", data))


@pytest.mark.parametrize("options", [{}, {"executor": "process"}])
@pytest.mark.parametrize("fn", [awaits_future, calls, Method])
def test_services_are_called_from_coroutines(fn: Any, options: dict[str, Any]) -> None:
    assert list(with_service(fn, range(10), **options).results["out"]) == [2 * n for n in range(10)]


def test_an_error_of_a_service_that_a_coroutine_awaits_keeps_its_type() -> None:
    with pytest.raises(LookupError, match="not thirteen"):
        with_service(awaits_future, [12, 13])


def test_a_slow_sink_holds_the_coroutines_and_the_source() -> None:
    with Gate() as gate:
        env = LocalEnvironment("slow")
        stream = env.from_source(endless, name="numbers").map_async(earlier_ones_take_longer, concurrency=10)
        stream.sink(gate, name="held")
        job = env.submit()
        gate.wait()
        before = -1
        while (now := counts(job)["numbers"][1]) != before:
            before = now
            time.sleep(0.3)  # whether nothing happens can only be told after a time
        assert now < 20_000
        gate.open()
        until(lambda: counts(job)["numbers"][1] > now)
        job.stop()
        assert job.status == "stopped"


def test_nothing_is_begun_while_paused() -> None:
    begun: list[int] = []

    async def notes_it(item: int) -> int:
        begun.append(item)
        await asyncio.sleep(0.001)
        return item

    env = LocalEnvironment("paused")
    env.from_source(endless).map_async(notes_it, concurrency=3).collect("out")
    job = env.submit()
    until(lambda: len(begun) > 10)
    job.pause()
    time.sleep(0.2)  # what is under way ends
    before = len(begun)
    time.sleep(0.2)  # whether nothing happens can only be told after a time
    assert len(begun) == before
    job.resume()
    until(lambda: len(job.results["out"]) > before)
    out = list(job.results["out"])
    job.stop()
    assert out == list(range(len(out)))


def test_results_before_a_stop_have_no_gap() -> None:
    """Of items on their way, the stop lets the first ones come out, and none behind one that does not."""

    async def waits(item: int) -> int:
        await asyncio.sleep(0.001)
        return item

    env = LocalEnvironment("gap")
    env.from_source(endless).map_async(waits, concurrency=3).collect("out")
    for _ in range(8):
        job = env.submit()
        until_more(job, 10)
        job.stop()
        out = list(job.results["out"])
        assert out == list(range(len(out)))


def until_more(job: Any, count: int) -> None:
    """Wait for more results than that."""
    until(lambda: len(job.results["out"]) > count)


# In a process


async def with_pid(item: int) -> tuple[int, int]:
    await asyncio.sleep(0.001)
    return item, os.getpid()


@pytest.mark.parametrize("parallelism", [1, 2])
def test_coroutines_run_in_processes_of_their_own(parallelism: int) -> None:
    out = list(run(with_pid, range(100), executor="process", parallelism=parallelism).results["out"])
    assert sorted(n for n, _ in out) == list(range(100))
    assert os.getpid() not in {pid for _, pid in out}
    assert len({pid for _, pid in out}) == parallelism
    if parallelism == 1:
        assert [n for n, _ in out] == list(range(100))


def test_a_stop_reaches_the_coroutines_of_a_process(tmp_path: Path) -> None:
    class Tidy(MapFunction):
        async def execute(self, data: int) -> int:
            (tmp_path / "begun").touch()
            try:
                await asyncio.sleep(3600)
            finally:
                (tmp_path / "ended").touch()
            return data

        def close(self) -> None:
            (tmp_path / "closed").touch()

    env = LocalEnvironment("process")
    env.from_batch([1]).map_async(Tidy, executor="process").collect("out")
    job = env.submit()
    until((tmp_path / "begun").exists)
    began = time.monotonic()
    job.stop(timeout=2)
    assert time.monotonic() - began < 5
    assert (tmp_path / "ended").exists()
    assert (tmp_path / "closed").exists()


def test_no_event_loop_is_left_and_one_that_runs_here_is_left_alone() -> None:
    async def main() -> list[int]:
        env = LocalEnvironment("loop")
        env.from_batch(range(3)).map_async(earlier_ones_take_longer).collect("out")
        job = await env.submit_async(autostop=True)
        return list(job.results["out"])

    assert asyncio.run(main()) == [0, 1, 2]
