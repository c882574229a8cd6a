"""`Job`: waiting, streaming, looking."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sage_nb import BaseService, Job, LocalEnvironment
from tests.support import Gate, endless, submitted, until


def running() -> Job:
    return submitted(lambda env: env.from_source(endless, delay=0.001), autostop=False)


def test_a_job_is_known_by_its_uuid_and_name() -> None:
    job = submitted(lambda env: env.from_batch([1]))
    assert str(job) == job.uuid
    assert len(job.uuid) == 36
    assert job.name == "test"
    assert repr(job) == f"<Job 'test' {job.uuid[:8]}: completed>"


def test_wait_gives_up_after_its_time_and_the_job_goes_on() -> None:
    job = running()
    until(lambda: job.status == "running")
    with pytest.raises(TimeoutError, match=r"'test' is still running after 0\.05 s; it goes on"):
        job.wait(timeout=0.05)
    assert job.status == "running"
    job.stop()
    assert job.wait() is job


def test_many_can_wait_for_one_job() -> None:
    with Gate() as gate:
        job = submitted(lambda env: env.from_batch([1]).map(gate), autostop=False)
        ended: list[str] = []
        threads = [threading.Thread(target=lambda: ended.append(job.wait().status)) for _ in range(5)]
        for thread in threads:
            thread.start()
        gate.wait()
    for thread in threads:
        thread.join()
    assert ended == ["completed"] * 5


def test_await_gives_the_job() -> None:
    async def main() -> Job:
        job = submitted(lambda env: env.from_batch([1]), autostop=False)
        assert await job is job
        return await job

    assert asyncio.run(main()).status == "completed"


def test_await_turns_a_stop_iteration_into_what_a_coroutine_can_raise() -> None:
    def fails(item: int) -> None:
        raise StopIteration

    async def main() -> None:
        with pytest.raises(RuntimeError, match="StopIteration") as caught:
            await submitted(lambda env: env.from_batch([1]).map(fails), autostop=False)
        assert isinstance(caught.value.__cause__, StopIteration)

    asyncio.run(main())


def test_cancelling_an_await_stops_the_job_and_its_services() -> None:
    """Nothing is left running after an interrupt of a cell that waits for the job."""
    life: list[str] = []

    class Service(BaseService):
        def stop(self) -> None:
            life.append("stopped")

    async def main() -> Job:
        env = LocalEnvironment("cancelled")
        env.register_service("s", Service)
        env.from_source(endless, delay=0.001).collect("out")
        job = env.submit()
        waiting = asyncio.ensure_future(job)
        await asyncio.sleep(0.01)  # let it begin to wait
        while not len(job.results["out"]):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return job

    job = asyncio.run(main())
    assert (job.status, life) == ("stopped", ["stopped"])


def test_a_stream_gives_each_item_as_it_comes() -> None:
    gates = [Gate(at=1), Gate(at=2)]

    async def main() -> list[int]:
        env = LocalEnvironment("streams")
        env.from_batch([10, 20]).map(gates[0]).map(gates[1]).collect("out")
        job = env.submit()
        got: list[int] = []
        gates[0].open()
        async for item in job.stream("out"):
            got.append(item)
            if len(got) == 1:  # the first one is here while the second one is held
                assert gates[1].reached.wait(30)
                assert len(job.results["out"]) == 1
                gates[1].open()
        assert job.status == "completed"
        return got

    assert asyncio.run(main()) == [10, 20]


async def collected(stream: AsyncIterator[Any], into: list[Any]) -> None:
    async for item in stream:
        into.append(item)


def test_a_stream_of_a_finished_job_gives_all_and_of_a_failed_one_its_error_last() -> None:
    done = submitted(lambda env: env.from_batch([1, 2]))
    failing = submitted(lambda env: env.from_batch([2, 1, 0]).map(lambda x: 2 // x), autostop=False)
    got: list[int] = []
    asyncio.run(collected(done.stream("out"), got))
    with pytest.raises(ZeroDivisionError):
        asyncio.run(collected(failing.stream("out"), got))
    assert got == [1, 2, 1, 2]


def test_a_stream_of_an_unknown_name_says_which_there_are() -> None:
    env = LocalEnvironment("names")
    env.from_batch([1]).collect("all").show("some")
    job = env.submit(autostop=True)
    for name in ("other", "some"):
        with pytest.raises(KeyError, match="there are: all"):
            asyncio.run(collected(job.stream(name), []))


def test_progress_reads_as_a_table_with_a_line_per_operator() -> None:
    env = LocalEnvironment("table")
    env.register_service("keeps\ntime", BaseService)
    env.from_batch(range(1000)).filter(lambda x: x % 2, name="odd").collect("all")
    progress = env.submit(autostop=True).progress
    heads, *operators, service = repr(progress).split("\n")
    assert heads.split() == ["name", "kind", "items_in", "items_out", "rate", "busy", "queued", "errors"]
    assert [line.split()[:4] for line in operators] == [
        ["source", "source", "0", "1,000"],
        ["odd", "filter", "1,000", "500"],
        ["all", "collect", "500", "0"],
    ]
    assert len({len(line) for line in (heads, *operators)}) == 1
    assert service == "service keeps time: stopped"


def test_progress_has_one_entry_per_operator_in_order_of_declaration() -> None:
    env = LocalEnvironment("progress")
    env.register_service("db", BaseService)
    stream = env.from_batch(range(10), name="numbers")
    odd = stream.filter(lambda x: x % 2, name="odd")
    stream.collect("all")
    odd.collect("some")
    progress = env.submit(autostop=True).progress
    assert [op.name for op in progress.operators] == ["numbers", "odd", "all", "some"]
    odd_view = progress.operators[1]
    assert (odd_view.items_in, odd_view.items_out, odd_view.errors, odd_view.queued) == (10, 5, 0, 0)
    assert odd_view["items_in"] == 10
    assert odd_view.rate > 0
    assert [(s.name, s.state) for s in progress.services] == [("db", "stopped")]


def test_the_rate_follows_the_items() -> None:
    with Gate(at=500) as gate:
        env = LocalEnvironment("rates")
        env.from_source(endless, delay=0.001).map(gate).sink(lambda _: None)
        job = env.submit()
        job.progress  # noqa: B018 - the first look begins the measuring
        gate.wait()
        assert job.progress.operators[1].rate > 0
        assert 0 < job.snapshot().rate < 1_000
    job.stop()
    ended = job.progress.operators[0]
    assert ended.rate == pytest.approx(ended.items_out / job.snapshot().elapsed, rel=0.01)


def test_the_busy_operator_is_seen() -> None:
    with Gate() as gate:
        job = submitted(lambda env: env.from_batch([1]).map(lambda x: x).map(gate, name="slow"), autostop=False)
        gate.wait()
        for _ in range(20):
            busy = {op.name: op.busy for op in job.progress.operators}
        assert busy["slow"] is not None
        assert busy["slow"] > 0.8
    job.wait()


def test_exception_and_logs_can_be_looked_at_without_raising() -> None:
    job = submitted(lambda env: env.from_batch([1]).map(lambda x: x // 0), autostop=False)
    until(lambda: job.status == "failed")
    assert type(job.exception()) is ZeroDivisionError
    (line,) = job.logs()
    assert (line.level, line.source) == ("ERROR", "map")
    assert "ZeroDivisionError" in line.text
    with pytest.raises(ZeroDivisionError):
        job.wait()
    assert submitted(lambda env: env.from_batch([1])).exception() is None


def test_the_log_keeps_the_last_lines_and_counts_all() -> None:
    from sage_nb import MapFunction

    class Logs(MapFunction):
        def execute(self, data: int) -> int:
            self.logger.info("%d", data)
            return data

    job = submitted(lambda env: env.from_batch(range(12_000)).map(Logs))
    assert (len(job.logs()), job.logs()[-1].text, job.snapshot().log_total) == (10_000, "11999", 12_000)


def test_a_looker_on_who_fails_does_not_keep_the_job_from_ending() -> None:
    def fails(job: Job) -> None:
        raise LookupError

    with Gate() as gate:
        job = submitted(lambda env: env.from_batch([1]).map(gate), autostop=False)
        job._listen(fails)
        gate.wait()
    began = time.monotonic()
    job.wait()
    assert time.monotonic() - began < 5
    assert (job.status, list(job.results["out"])) == ("completed", [1])
