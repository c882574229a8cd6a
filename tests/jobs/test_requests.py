"""Pipelines as services: each request gets its own reply, or is told why it has none."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from sage_nb import (
    Job,
    LocalEnvironment,
    MapFunction,
    PipelineError,
    ServiceError,
    ServiceStoppedError,
    ServiceTimeout,
    SignatureError,
    call_service,
)
from tests.support import LIMIT, Gate, endless, errors, until


def pipeline(build: Callable[[Any], Any], **options: Any) -> LocalEnvironment:
    """An environment that answers its requests by what `build` does to them."""
    env = LocalEnvironment("inner", **options)
    build(env.from_requests()).reply()
    return env


def caller(inner: LocalEnvironment, items: Any, ask: Callable[..., Any], **options: Any) -> LocalEnvironment:
    """An environment that calls `inner` for each item."""
    env = LocalEnvironment("outer")
    env.register_pipeline("inner", inner)
    env.from_batch(items).map(ask, **options).collect("out")
    return env


def ask(item: Any) -> Any:
    return item, call_service("inner", item)


def squares(requests: Any) -> Any:
    return requests.map(lambda n: n * n)


async def later(item: int) -> int:
    return item * item


INSIDE: dict[str, Callable[[Any], Any]] = {
    "one loop": squares,
    "instances": lambda requests: requests.map(lambda n: n * n, parallelism=3),
    "several stages": lambda requests: requests.map(lambda n: n, parallelism=2).map(lambda n: n * n, parallelism=3),
    "coroutines": lambda requests: requests.map_async(later, ordered=False),
    "a process": lambda requests: requests.map(lambda n: n * n, executor="process"),
    "processes": lambda requests: requests.map(lambda n: n * n, executor="process", parallelism=2),
    "a flatmap and a filter": lambda requests: requests.flatmap(lambda n: [n, n * n]).filter(is_square),
}


def is_square(n: int) -> bool:
    return n in {m * m for m in range(2, 99)}


@pytest.mark.parametrize("inside", INSIDE)
def test_every_caller_gets_the_reply_to_its_own_request(inside: str) -> None:
    """Whatever overtakes what."""
    inner = pipeline(INSIDE[inside])
    items = [5, 2, 3, 7, 11, 2] * 5 if inside == "a flatmap and a filter" else list(range(40))
    job = caller(inner, items, ask, parallelism=4).submit(autostop=True, timeout=LIMIT)
    assert sorted(job.results["out"]) == sorted((n, n * n) for n in items)
    assert inner.job is not None
    assert inner.job.status == "completed"
    assert inner.job.progress.operators[0].items_out == len(items)


def test_a_pipeline_whose_operators_run_in_processes_takes_requests() -> None:
    """They come from the kernel, where its source stays."""
    inner = pipeline(lambda requests: requests.map(lambda n: (n, os.getpid())), backend="processes")
    job = caller(inner, range(5), ask).submit(autostop=True, timeout=LIMIT)
    assert [(n, m) for n, (m, _) in job.results["out"]] == [(n, n) for n in range(5)]
    assert os.getpid() not in {pid for _, (_, pid) in job.results["out"]}


def test_an_idle_pipeline_answers_at_once() -> None:
    """A request does not wait for the next one, nor for a poll."""
    took: list[float] = []

    def timed(item: int) -> int:
        began = time.perf_counter()
        call_service("inner", item)
        took.append(time.perf_counter() - began)
        return item

    inner = pipeline(lambda requests: requests.map(lambda n: n, parallelism=2))
    caller(inner, range(50), timed).submit(autostop=True, timeout=LIMIT)
    assert sorted(took)[25] < 0.1


def test_submit_gives_futures_of_requests_that_are_under_way_together() -> None:
    with Gate(at=3) as third:

        def ask_three(item: int) -> list[int]:
            futures = [call_service("inner").submit(n) for n in (1, 2, 3)]
            assert all(isinstance(one, Future) for one in futures)
            third.wait()
            assert not futures[2].done()
            third.open()
            return [one.result(LIMIT) for one in futures]

        inner = pipeline(lambda requests: requests.map(third).map(lambda n: -n))
        job = caller(inner, [0], ask_three).submit(autostop=True, timeout=LIMIT)
        assert list(job.results["out"]) == [[-1, -2, -3]]


def test_two_callers_share_one_pipeline_of_a_job() -> None:
    inner = pipeline(squares)
    env = LocalEnvironment("outer")
    env.register_pipeline("inner", inner)
    for name, items in (("even", range(0, 40, 2)), ("odd", range(1, 40, 2))):
        env.from_batch(items).map(ask).collect(name)
    job = env.submit(autostop=True, timeout=LIMIT)
    assert list(job.results["even"]) == [(n, n * n) for n in range(0, 40, 2)]
    assert list(job.results["odd"]) == [(n, n * n) for n in range(1, 40, 2)]


def test_a_pipeline_can_call_another() -> None:
    innermost = pipeline(squares)
    inner = LocalEnvironment("middle")
    inner.register_pipeline("inner", innermost)
    inner.from_requests().map(lambda n: call_service("inner", n) + 1).reply()
    job = caller(inner, range(5), ask).submit(autostop=True, timeout=LIMIT)
    assert list(job.results["out"]) == [(n, n * n + 1) for n in range(5)]


def test_calls_come_from_processes_too() -> None:
    job = caller(pipeline(squares), range(10), ask, executor="process").submit(autostop=True, timeout=LIMIT)
    assert list(job.results["out"]) == [(n, n * n) for n in range(10)]


def test_the_same_environments_run_again() -> None:
    inner = pipeline(squares)
    env = caller(inner, range(3), ask)
    for _ in range(3):
        assert list(env.submit(autostop=True, timeout=LIMIT).results["out"]) == [(0, 0), (1, 1), (2, 4)]


def test_false_and_empty_payloads_are_requests_like_others() -> None:
    inner = pipeline(lambda requests: requests.map(lambda payload: (payload,)))
    job = caller(inner, [0, "", [], False], ask).submit(autostop=True, timeout=LIMIT)
    assert list(job.results["out"]) == [(0, (0,)), ("", ("",)), ([], ([],)), (False, (False,))]


# What goes wrong inside


class Refused(Exception):
    """An error of the inner pipeline's."""


def refuses(item: int) -> int:
    if item == 3:
        raise Refused("not three")
    return item


def reported(item: int) -> str:
    """The type of what a call raises, and its text."""
    try:
        return str(call_service("inner", item))
    except Exception as exc:  # noqa: BLE001 - it is looked at
        return f"{type(exc).__name__}: {exc}"


def test_a_failure_inside_reaches_the_caller_with_its_type() -> None:
    inner = pipeline(lambda requests: requests.map(refuses, name="refuses"))
    env = caller(inner, [1, 3], ask)
    with pytest.raises(Refused, match="not three") as caught:
        env.submit(autostop=True, timeout=LIMIT)
    assert inner.job is not None
    assert inner.job.status == "failed"
    assert errors(inner.job) == {"refuses": 1}
    assert "operator 'refuses'" in "".join(caught.value.__notes__)


def test_after_a_failure_inside_every_further_call_is_told_of_it() -> None:
    inner = pipeline(lambda requests: requests.map(refuses))
    env = LocalEnvironment("outer")
    env.register_pipeline("inner", inner)
    env.from_batch([1, 3, 4]).map(reported).collect("out")
    job = env.submit()
    assert job._dispatcher.clean.wait(LIMIT)
    assert list(job.results["out"]) == ["1", "Refused: not three", "Refused: not three"]


@pytest.mark.parametrize("parallelism", [1, 3])
def test_a_request_that_the_pipeline_drops_is_an_error_for_its_caller(parallelism: int) -> None:
    """When it is known at the latest: as the pipeline ends. Nobody waits for ever."""
    inner = pipeline(lambda requests: requests.filter(lambda n: n != 3, parallelism=parallelism))
    futures: list[Future[Any]] = []

    def hand_in(item: int) -> int:
        futures.append(call_service("inner").submit(item))
        return item

    caller(inner, range(5), hand_in).submit(autostop=True, timeout=LIMIT)
    assert [one.result(LIMIT) for n, one in enumerate(futures) if n != 3] == [0, 1, 2, 4]
    with pytest.raises(ServiceError, match="without a reply"):
        futures[3].result(LIMIT)


def test_a_request_that_is_skipped_on_error_is_an_error_for_its_caller() -> None:
    inner = pipeline(lambda requests: requests.map(refuses, on_error="skip"))
    futures: list[Future[Any]] = []

    def hand_in(item: int) -> int:
        futures.append(call_service("inner").submit(item))
        return item

    caller(inner, range(5), hand_in).submit(autostop=True, timeout=LIMIT)
    assert [type(one.exception(LIMIT)) for one in futures] == [type(None)] * 3 + [ServiceError, type(None)]


def test_a_request_that_gets_two_replies_fails_the_inner_pipeline() -> None:
    inner = pipeline(lambda requests: requests.flatmap(lambda n: [n, n]))
    env = caller(inner, [1], ask)
    with pytest.raises(ServiceError, match="has had its reply"):
        env.submit(autostop=True, timeout=LIMIT)


def test_no_payload_is_no_request() -> None:
    env = caller(pipeline(squares), [0], lambda _: call_service("inner", None))
    with pytest.raises(ServiceError, match="None is none"):
        env.submit(autostop=True, timeout=LIMIT)


def test_a_call_that_takes_too_long_is_given_up() -> None:
    with Gate() as gate:

        def brief(item: int) -> str:
            try:
                call_service("inner", item, timeout=0.05)
            except ServiceTimeout:
                gate.open()
                return "too long"
            return "in time"

        inner = pipeline(lambda requests: requests.map(gate))
        job = caller(inner, [1], brief).submit(autostop=True, timeout=LIMIT)
        assert list(job.results["out"]) == ["too long"]


# Endings


def test_the_pipeline_ends_with_the_job_after_its_last_reply() -> None:
    closed: list[bool] = []

    class Closes(MapFunction):
        def execute(self, data: int) -> int:
            return data

        def close(self) -> None:
            closed.append(True)

    inner = pipeline(lambda requests: requests.map(Closes, parallelism=2))
    job = caller(inner, range(5), ask).submit(autostop=True, timeout=LIMIT)
    assert inner.job is not None
    assert (job.status, inner.job.status, closed) == ("completed", "completed", [True, True])
    assert (job.notes, inner.job.notes) == ((), ())


def test_a_stop_of_the_caller_ends_the_pipeline_too() -> None:
    inner = pipeline(squares)
    env = caller(inner, endless, ask)
    job = env.submit()
    until(lambda: len(job.results["out"]) > 20)
    began = time.monotonic()
    assert job.stop().status == "stopped"
    assert time.monotonic() - began < 3
    assert inner.job is not None
    assert inner.job.status == "completed"


def test_a_stop_with_a_call_under_way_ends_both() -> None:
    with Gate() as gate:
        inner = pipeline(lambda requests: requests.map(gate))
        job = caller(inner, [1], ask).submit()
        gate.wait()
        job.request_stop(timeout=0.2)
        threading.Timer(0.5, gate.open).start()
        job.stop(timeout=0.2)
        assert job.status == "stopped"
    assert inner.job is not None
    until(lambda: inner.job is not None and inner.job.status in ("completed", "stopped"))


def test_a_failure_of_the_caller_ends_the_pipeline() -> None:
    inner = pipeline(squares)
    env = LocalEnvironment("outer")
    env.register_pipeline("inner", inner)
    env.from_batch([1, 0]).map(lambda n: 1 // n).map(ask).collect("out")
    with pytest.raises(ZeroDivisionError):
        env.submit(autostop=True, timeout=LIMIT)
    assert inner.job is not None
    assert inner.job.status == "completed"


def test_a_stop_of_the_inner_job_tells_the_callers() -> None:
    inner = pipeline(squares)

    def stop_then_ask(item: int) -> str:
        job: Job | None = inner.job
        assert job is not None
        job.stop()
        until(lambda: job._dispatcher.clean.is_set())
        return reported(item)

    env = caller(inner, [1], stop_then_ask)
    job = env.submit(autostop=True, timeout=LIMIT)
    assert str(job.results["out"][0]).startswith(("ServiceStoppedError: ", "ServiceError: the pipeline ended"))


def test_a_request_outside_a_run_is_refused() -> None:
    inner = pipeline(squares)
    with pytest.raises(ServiceStoppedError, match="not running"):
        inner._requests.submit(1)
    caller(inner, [1], ask).submit(autostop=True, timeout=LIMIT)
    with pytest.raises(ServiceStoppedError, match=r"ended|stopping"):
        inner._requests.submit(1)


# What is refused


def test_only_an_environment_that_takes_requests_can_be_a_service() -> None:
    env, other = LocalEnvironment("outer"), LocalEnvironment("other")
    other.from_batch([1]).collect("out")
    with pytest.raises(PipelineError, match="takes no requests; begin it with from_requests"):
        env.register_pipeline("inner", other)
    with pytest.raises(PipelineError, match="of itself"):
        env.register_pipeline("inner", env)
    with pytest.raises(SignatureError, match="takes an environment, not list"):
        env.register_pipeline("inner", [])  # type: ignore[arg-type]


def test_a_reply_without_the_requests_own_key_is_refused() -> None:
    env = LocalEnvironment("inner")
    with pytest.raises(PipelineError, match="reply: the stream does not have its request's number for a key"):
        env.from_batch([7]).keyby(lambda n: n).reply()
    with pytest.raises(PipelineError, match=r"keyby\(\) replaces it"):
        env.from_requests().keyby(lambda n: n).reply()
