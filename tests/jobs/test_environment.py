"""`LocalEnvironment`: submitting, and submitting again."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from sage_nb import BaseService, JobStateError, LocalEnvironment, SubmitError
from tests.support import LIMIT, Gate, endless, until


def test_submit_returns_at_once_and_the_job_cleans_up_after_itself() -> None:
    stopped = threading.Event()

    class Service(BaseService):
        def stop(self) -> None:
            stopped.set()

    with Gate() as gate:
        env = LocalEnvironment("later")
        env.register_service("s", Service)
        env.from_batch([1]).map(gate).collect("out")
        job = env.submit()
        gate.wait()
        assert job.status == "running"
        assert not stopped.is_set()
    assert stopped.wait(LIMIT)
    until(lambda: job.status == "completed")


@pytest.mark.parametrize(
    ("options", "waits"),
    [
        ({"autostop": True}, True),
        ({"wait": True}, True),
        ({"autostop": True, "wait": False}, False),
        ({"autostop": False}, False),
        ({}, False),
    ],
)
def test_wait_is_autostop_unless_given(options: dict[str, Any], waits: bool) -> None:
    gate = Gate()
    if waits:
        gate.open()
    env = LocalEnvironment("waits")
    env.from_batch([1]).map(gate).collect("out")
    job = env.submit(**options)
    assert (job.status == "completed") is waits
    assert job.info.autostop is options.get("autostop", False)
    gate.open()
    job.wait()


def test_an_environment_has_no_job_before_the_first_submit() -> None:
    env = LocalEnvironment("new")
    assert (env.env_uuid, env.job) == (None, None)
    env.stop()
    for order in (env.pause, env.resume):
        with pytest.raises(JobStateError, match="submit it first"):
            order()


def test_each_submit_is_a_new_job() -> None:
    env = LocalEnvironment("again")
    env.from_batch([1, 2]).collect("out")
    first = env.submit(autostop=True)
    assert env.env_uuid == first.uuid
    second = env.submit(autostop=True)
    assert env.env_uuid == second.uuid != first.uuid
    assert list(first.results["out"]) == list(second.results["out"]) == [1, 2]
    assert first.results["out"] is not second.results["out"]


def test_what_is_declared_later_is_part_of_the_next_job_only() -> None:
    env = LocalEnvironment("grows")
    stream = env.from_batch([1])
    stream.collect("a")
    first = env.submit(autostop=True)
    stream.map(lambda x: -x).collect("b")
    second = env.submit(autostop=True)
    assert list(first.results) == ["a"]
    assert list(second.results["b"]) == [-1]


def test_a_running_environment_cannot_be_submitted() -> None:
    env = LocalEnvironment("busy")
    env.from_source(endless).sink(lambda _: None)
    job = env.submit()
    with pytest.raises(SubmitError, match=f"'busy' already runs job {job.uuid[:8]} .*env.stop"):
        env.submit()
    assert env.job is job
    env.stop()
    assert env.submit().stop().status == "stopped"


def test_services_that_were_kept_hold_the_environment() -> None:
    env = LocalEnvironment("kept")
    env.register_service("s", BaseService)
    env.from_batch([1]).collect("out")
    job = env.submit(autostop=True, cleanup="never")
    with pytest.raises(SubmitError, match="keeps the services of job"):
        env.submit()
    job.stop()
    env.submit(autostop=True)


@pytest.mark.parametrize("declare", [lambda env: None, lambda env: env.register_service("s", BaseService)])
def test_an_environment_without_a_source_is_refused(declare: Any) -> None:
    env = LocalEnvironment("empty")
    declare(env)
    with pytest.raises(SubmitError, match=r"'empty' has no source: begin with env\.from_batch"):
        env.submit()
    assert env.env_uuid is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "above 0"),
        ({"timeout": -1}, "above 0"),
        ({"timeout": "10"}, "number of seconds"),
        ({"timeout": True}, "number of seconds"),
        ({"cleanup": "sometimes"}, "there are: always, never, on_success"),
        ({"cleanup": "allways"}, "did you mean 'always'"),
    ],
)
def test_unknown_options_are_refused_before_anything_starts(options: dict[str, Any], message: str) -> None:
    env = LocalEnvironment("options")
    env.from_batch(iter([1])).collect("out")
    known = len(env.jobmanager.jobs)
    with pytest.raises(SubmitError, match=message):
        env.submit(**options)
    assert len(env.jobmanager.jobs) == known
    assert list(env.submit(autostop=True).results["out"]) == [1]


def test_a_block_ends_with_its_job() -> None:
    with LocalEnvironment("block") as env:
        env.from_source(endless).sink(lambda _: None)
        job = env.submit()
    assert job.status == "stopped"
    with pytest.raises(SubmitError, match="make a new one"):
        env.submit()


def test_an_error_in_a_block_stops_the_job_and_goes_on() -> None:
    env = LocalEnvironment("block")
    env.from_source(endless).sink(lambda _: None)

    def block() -> None:
        with env:
            env.submit()
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        block()
    assert env.job is not None
    assert env.job.status == "stopped"


def test_environments_pause_and_resume_their_job() -> None:
    env = LocalEnvironment("pauses")
    env.from_source(endless).collect("out")
    job = env.submit()
    until(lambda: len(job.results["out"]) > 10)
    env.pause()
    assert job.status == "paused"
    env.resume()
    assert job.status == "running"
    env.close()
    assert job.status == "stopped"


def test_submit_async_waits_without_holding_the_event_loop() -> None:
    gate = Gate()

    async def main() -> Any:
        env = LocalEnvironment("async")
        env.from_batch([1]).map(gate).collect("out")
        waiting = asyncio.create_task(env.submit_async(autostop=True))
        await asyncio.to_thread(gate.wait)
        assert not waiting.done()
        gate.open()
        return await waiting

    job = asyncio.run(main())
    assert (job.status, list(job.results["out"])) == ("completed", [1])


def test_submit_async_returns_at_once_and_raises_like_submit() -> None:
    async def main() -> None:
        env = LocalEnvironment("async")
        env.from_batch([1]).map(lambda x: x // 0).collect("out")
        job = await env.submit_async()
        with pytest.raises(ZeroDivisionError) as caught:
            await job
        assert "operator 'map'" in caught.value.__notes__[0]
        with pytest.raises(ZeroDivisionError):
            await env.submit_async(autostop=True)

    asyncio.run(main())


def test_the_repr_says_what_is_declared() -> None:
    env = LocalEnvironment("shown")
    stream = env.from_batch([1]).map(int, name="number")
    assert repr(env) == "<LocalEnvironment 'shown': 2 operators, 0 services>"
    assert repr(stream) == "<DataStream behind 'number' of 'shown'>"
