"""One job's life: stop, pause, time limits, and what is left afterwards."""

from __future__ import annotations

import itertools
import logging
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sage_nb import (
    BaseService,
    BatchFunction,
    Job,
    JobStateError,
    JobTimeout,
    LocalEnvironment,
    MapFunction,
    SourceFunction,
)
from tests.leaks import Leaks
from tests.support import LIMIT, Gate, counts, endless, ran, submitted, until

SOON = 3.0
"""Ten times what the laws promise, in seconds."""


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Opened at the end of the test at the latest."""
    with Gate() as gate:
        yield gate


def stopped_in(job: Job, timeout: float = 10.0) -> float:
    began = time.monotonic()
    job.stop(timeout)
    return time.monotonic() - began


# Latency: an item is visible at once, even if the next one never comes


class SomeThenSleep(SourceFunction):
    def __init__(self, count: int, asleep: threading.Event, gate: Gate) -> None:
        self.left, self.asleep, self.gate = count, asleep, gate

    def execute(self) -> Any:
        self.left -= 1
        if self.left >= 0:
            return self.left
        self.asleep.set()
        return self.gate(None)


def some_then_sleep(count: int, asleep: threading.Event, gate: Gate) -> Iterator[int]:
    yield from range(count - 1, -1, -1)
    asleep.set()
    gate(None)


@pytest.mark.parametrize("count", [1, 10_001])
@pytest.mark.parametrize("source", [SomeThenSleep, some_then_sleep])
def test_the_last_item_before_a_long_wait_is_seen_everywhere_at_once(source: Any, count: int, gate: Gate) -> None:
    """Latency does not wait for throughput; and stop acts whatever the source does."""
    asleep = threading.Event()
    taken: list[int] = []
    env = LocalEnvironment("sleeps")
    env.from_source(source, count, asleep, gate, name="sleeper").sink(taken.append, name="taken").collect("out")
    job = env.submit()
    assert asleep.wait(LIMIT)
    began = time.monotonic()
    until(lambda: counts(job) == {"sleeper": (0, count), "taken": (count, 0), "out": (count, 0)})
    assert time.monotonic() - began < SOON
    assert taken[-1] == 0
    assert job.results["out"][-1] == 0
    assert job.snapshot().results[0].rows[-1] == ("0",)
    assert stopped_in(job) < SOON
    assert job.status == "stopped"
    (note,) = job.notes
    assert "source 'sleeper' (support.py, line" in note
    assert "did not return" in note
    assert counts(job) == {"sleeper": (0, count), "taken": (count, 0), "out": (count, 0)}


@pytest.mark.parametrize(
    "build",
    [
        lambda env: env.from_source(endless),
        lambda env: env.from_source(lambda: 1),
        lambda env: env.from_source(lambda: None),
        lambda env: env.from_batch(range(10**12)),
        lambda env: env.from_batch([1]).flatmap(lambda _: endless()),
        lambda env: env.from_source(endless).filter(lambda _: False),
        lambda env: env.from_source(endless).take(1).flatmap(lambda _: endless()),
        lambda env: env.from_source(endless, delay=3600),
    ],
)
def test_stop_acts_soon_whatever_the_source_does(build: Callable[[LocalEnvironment], Any]) -> None:
    env = LocalEnvironment("endless")
    build(env).sink(lambda _: None)
    job = env.submit()
    until(lambda: job.status == "running")
    assert stopped_in(job) < SOON
    assert (job.status, job.notes) == ("stopped", ())
    assert job.exception() is None


def test_an_item_in_an_operator_is_finished_before_the_stop(gate: Gate) -> None:
    with gate:
        job = submitted(lambda env: env.from_source(endless).map(gate), autostop=False)
        gate.wait()
        job.request_stop()
        until(lambda: job.status == "stopping")
    job.stop()
    assert list(job.results["out"]) == [0]
    assert job.notes == ()


def test_an_operator_that_does_not_come_back_is_given_up_and_named(gate: Gate) -> None:
    env = LocalEnvironment("stuck")
    env.from_batch([1]).map(gate, name="stuck").collect("out")
    job = env.submit()
    gate.wait()
    assert stopped_in(job, timeout=0.1) < SOON
    assert (job.status, list(job.results["out"])) == ("stopped", [])
    assert any("map 'stuck'" in note for note in job.notes)


def test_a_later_stop_can_shorten_the_wait(gate: Gate) -> None:
    job = submitted(lambda env: env.from_batch([1]).map(gate), autostop=False)
    gate.wait()
    job.request_stop(timeout=3600)
    assert stopped_in(job, timeout=0.1) < SOON


def test_an_endless_loop_in_an_operator_is_ended() -> None:
    """Nothing is left running: pure Python code is broken off, and its thread ends."""
    entered = threading.Event()
    threads: list[threading.Thread] = []

    def spins(item: int) -> int:
        threads.append(threading.current_thread())
        entered.set()
        while True:
            item += 1

    job = submitted(lambda env: env.from_batch([1]).map(spins), autostop=False)
    assert entered.wait(LIMIT)
    assert stopped_in(job, timeout=0.1) < SOON
    assert "map 'spins'" in job.notes[0]
    threads[0].join(LIMIT)
    assert not threads[0].is_alive()


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("hook", ["__init__", "open"])
def test_a_source_that_does_not_open_does_not_hold_up_a_stop(gate: Gate, position: int, hook: str) -> None:
    """Nor does it keep the job's other pipelines from closing what they have opened."""
    closed: list[str] = []

    class Connects(BatchFunction):
        def execute(self) -> None:
            return None

    def waits(self: Any) -> None:
        gate(None)

    setattr(Connects, hook, waits)

    class Closes(MapFunction):
        def execute(self, data: Any) -> Any:
            return data

        def close(self) -> None:
            closed.append("closed")

    env = LocalEnvironment("connects")
    sources: list[Callable[[], Any]] = [
        lambda: env.from_batch(Connects, name="connector"),
        lambda: env.from_batch([1]).map(Closes),
    ]
    for source in sources if position == 0 else sources[::-1]:
        source().sink(lambda _: None)
    job = env.submit()
    gate.wait()
    assert stopped_in(job) < SOON
    assert job.status == "stopped"
    (note,) = job.notes
    assert "opening source 'connector' (support.py, line" in note
    until(lambda: closed == ["closed"])


def test_stopping_twice_and_after_the_end_is_fine() -> None:
    job = submitted(lambda env: env.from_batch([1]))
    assert job.stop() is job
    assert job.stop().status == "completed"


def test_a_job_can_be_stopped_from_its_own_code() -> None:
    env = LocalEnvironment("stops itself")

    def step(item: int) -> int:
        if item == 3:
            assert env.job is not None
            env.job.stop()
        return item

    env.from_source(endless).map(step).collect("out")
    job = env.submit()
    job.wait()
    assert (job.status, list(job.results["out"])) == ("stopped", [0, 1, 2, 3])


@pytest.mark.parametrize("wrong", ["wait", "submit"])
def test_a_job_cannot_wait_for_itself(wrong: str) -> None:
    env = LocalEnvironment("waits for itself")

    def step(item: int) -> Any:
        until(lambda: env.job)
        assert env.job is not None
        return env.job.wait() if wrong == "wait" else env.submit(autostop=True)

    env.from_batch([1]).map(step).collect("out")
    job = env.submit()
    with pytest.raises(RuntimeError, match="cannot wait for itself" if wrong == "wait" else "already"):
        job.wait()


def test_a_job_can_be_stopped_from_a_thread_of_its_service() -> None:
    jobs: list[Job] = []

    class Stops(BaseService):
        def process(self) -> str:
            jobs[0].stop()
            return "asked to"

    env = LocalEnvironment("stops")
    env.register_service("s", Stops)
    came = threading.Event()

    class Asks(MapFunction):
        def execute(self, data: Any) -> Any:
            assert came.wait(LIMIT)
            return self.call_service("s", timeout=LIMIT)

    env.from_batch([1]).map(Asks).collect("out")
    jobs.append(env.submit())
    began = time.monotonic()
    came.set()
    jobs[0].wait()
    assert time.monotonic() - began < SOON
    assert list(jobs[0].results["out"]) == ["asked to"]


# Pause


@pytest.mark.parametrize("kind", [list, iter])
def test_nothing_flows_while_paused_and_nothing_is_lost(kind: Any) -> None:
    gates = [Gate(at=at) for at in (3, 6)]
    taken: list[int] = []
    env = LocalEnvironment("paused")
    env.from_batch(kind(list(range(10)))).map(gates[0]).map(gates[1]).sink(taken.append)
    job = env.submit()
    for gate, upto in zip(gates, (3, 6), strict=True):
        gate.wait()
        job.pause()
        assert job.status == "paused"
        gate.open()
        until(partial(lambda upto: len(taken) == upto, upto))
        threading.Event().wait(0.05)  # nothing to wait for: nothing may come
        assert len(taken) == upto
        job.resume()
        assert job.status == "running"
    job.wait()
    assert taken == list(range(10))


def test_pause_holds_every_pipeline_and_every_kind_of_loop() -> None:
    env = LocalEnvironment("paused")
    seen = [itertools.count() for _ in range(3)]
    last = [0, 0, 0]

    def note(n: int) -> Callable[[Any], None]:
        def sink(_: Any) -> None:
            last[n] = next(seen[n])

        return sink

    env.from_source(endless).sink(note(0))
    env.from_source(lambda: 1).sink(note(1))
    env.from_batch([1]).flatmap(lambda _: endless()).sink(note(2))
    job = env.submit()
    until(lambda: min(last) > 10)
    job.pause()
    before = counts(job)
    threading.Event().wait(0.1)  # nothing to wait for: nothing may come but the item that was under way
    for name, (items_in, items_out) in counts(job).items():
        assert items_in <= before[name][0] + 2, name
        assert items_out <= before[name][1] + 2, name
    job.resume()
    at = list(last)
    until(lambda: all(now > then for now, then in zip(last, at, strict=True)))
    assert job.stop().status == "stopped"


def test_a_paused_job_can_be_stopped() -> None:
    job = submitted(lambda env: env.from_source(endless).map(lambda x: x), autostop=False)
    until(lambda: len(job.results["out"]) > 0)
    job.pause()
    assert stopped_in(job) < SOON
    assert job.status == "stopped"


def test_a_paused_job_can_run_out_of_time() -> None:
    job = submitted(lambda env: env.from_source(endless).map(lambda x: x), autostop=False, timeout=0.2)
    until(lambda: job.status == "running")
    job.pause()
    with pytest.raises(JobTimeout):
        job.wait()


def test_pause_and_resume_say_when_they_cannot(gate: Gate) -> None:
    with gate:
        job = submitted(lambda env: env.from_batch([1]).map(gate), autostop=False)
        gate.wait()
        job.resume()  # runs already
        job.pause()
        job.pause()
        job.resume()
    job.wait()
    for order in (job.pause, job.resume):
        with pytest.raises(JobStateError, match="is completed"):
            order()


def test_many_pauses_in_a_row_lose_nothing() -> None:
    job = submitted(lambda env: env.from_batch(iter(range(200_000))), autostop=False)
    for _ in range(100):
        try:
            job.pause()
            job.resume()
        except JobStateError:
            if job.status == "starting":
                continue
            break
    job.wait()
    assert list(job.results["out"]) == list(range(200_000))


# Time limits


@pytest.mark.parametrize("where", ["source", "operator", "loop", "service"])
def test_a_job_that_takes_too_long_is_stopped_and_says_so(where: str, gate: Gate) -> None:
    env = LocalEnvironment("slow")

    class Starts(BaseService):
        def start(self) -> None:
            if where == "service":
                gate(None)

    env.register_service("s", Starts)
    stream = env.from_source(lambda: gate(1) if where == "source" else 1)
    stream.map(lambda x: gate(x) if where == "operator" else x).sink(lambda _: None)
    began = time.monotonic()
    with pytest.raises(JobTimeout, match=r"'slow' ran longer than its timeout of 0\.1 s"):
        env.submit(autostop=True, timeout=0.1)
    assert time.monotonic() - began < 2 + SOON
    assert env.job is not None
    assert env.job.status == "failed"
    assert not [note for note in env.job.notes if "ran longer" in note]  # the error says it
    assert sum("ran longer" in line.text for line in env.job.logs()) == 1
    gate.open()


def test_a_time_limit_that_is_not_reached_changes_nothing() -> None:
    assert list(submitted(lambda env: env.from_batch([1]), timeout=3600).results["out"]) == [1]


# What is left


def quick(index: int) -> None:
    class Service(BaseService):
        def process(self, item: int) -> int:
            return item

    class Adds(MapFunction):
        def execute(self, data: int) -> int:
            timeout = LIMIT if index % 10 == 0 else None
            return int(self.call_service("s", data, timeout=timeout)) + 1

    env = LocalEnvironment(f"job {index}")
    env.register_service("s", Service)
    env.from_batch([index]).map(Adds).collect("out")
    if index % 5 == 0:
        env.from_text(__file__).take(2).collect("lines")
    if index % 7 == 0:
        env.from_batch([0]).map(lambda x: 1 // x).collect("fails")
        with pytest.raises(ZeroDivisionError):
            env.submit(autostop=True)
    else:
        assert list(env.submit(autostop=True).results["out"]) == [index + 1]


def test_a_thousand_submits_leave_the_same_threads_and_files(leaks: Leaks) -> None:
    """Nothing is left running."""
    for index in range(1_000):
        quick(index)
        if index % 100 == 0:
            leaks.check()


def test_memory_stays_flat_over_two_million_items() -> None:
    """Memory is bounded whatever the length of the stream."""
    page = resource.getpagesize()

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page

    looks: list[int] = []

    def look(n: int) -> None:
        if n % 500_000 == 100_000:
            looks.append(resident())

    env = LocalEnvironment("long")
    words = env.from_source(endless).take(2_000_000).map(lambda n: (n, str(n)))
    words.filter(lambda word: word[0] % 2).flatmap(lambda word: [word, word]).show("last")
    words.sink(lambda word: look(word[0]))
    env.submit(autostop=True)
    assert len(looks) == 4
    assert max(looks) - looks[0] < 20_000_000


# The user's process is the user's


def test_a_submit_touches_no_signal_handler_no_logging_and_no_port() -> None:
    handlers = [signal.getsignal(number) for number in signal.valid_signals()]
    root = logging.getLogger()
    before = (list(root.handlers), root.level, list(logging._handlerList))  # type: ignore[attr-defined]
    sockets: list[Any] = []

    class Logs(MapFunction):
        def execute(self, data: Any) -> Any:
            self.logger.warning("hello")
            sockets.extend(name for name in open_sockets())
            return data

    ran(lambda env: env.from_batch([1]).map(Logs))
    assert [signal.getsignal(number) for number in signal.valid_signals()] == handlers
    assert (list(root.handlers), root.level, list(logging._handlerList)) == before  # type: ignore[attr-defined]
    assert sockets == open_sockets()


def open_sockets() -> list[str]:
    return [name for name in map(_target, Path("/proc/self/fd").iterdir()) if name.startswith("socket:")]


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except FileNotFoundError:
        return ""


def test_open_sockets_are_noticed() -> None:
    before = open_sockets()
    with socket.socket():
        assert len(open_sockets()) == len(before) + 1


def test_the_jobs_log_reaches_the_users_own_handler(caplog: pytest.LogCaptureFixture) -> None:
    class Logs(MapFunction):
        def execute(self, data: Any) -> Any:
            self.logger.warning("hello")
            return data

    with caplog.at_level(logging.INFO):
        ran(lambda env: env.from_batch([1]).map(Logs, name="greeter"))
    assert [(record.name, record.getMessage()) for record in caplog.records] == [("greeter", "hello")]


def test_submit_works_from_any_thread_and_twenty_at_once() -> None:
    """Two jobs share nothing."""
    together = threading.Barrier(20)
    results: dict[int, list[int]] = {}

    def submit(index: int) -> None:
        together.wait(LIMIT)
        results[index] = ran(lambda env: env.from_batch(range(100)).map(lambda x: x + index))

    threads = [threading.Thread(target=submit, args=(index,)) for index in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert results == {index: list(range(index, index + 100)) for index in range(20)}


def test_one_pipeline_of_a_running_job_can_wait_for_another_job() -> None:
    inner = ran(lambda env: env.from_batch([1, 2]).map(lambda x: ran(lambda other: other.from_batch([x, x]))))
    assert inner == [[1, 1], [2, 2]]


def test_a_context_variable_of_the_submitter_is_seen_by_the_job() -> None:
    from contextvars import ContextVar

    who: ContextVar[str] = ContextVar("who", default="nobody")
    token = who.set("the submitter")
    try:
        assert ran(lambda env: env.from_batch([1]).map(lambda _: who.get())) == ["the submitter"]
    finally:
        who.reset(token)


def test_a_wait_for_a_job_minds_no_thread_that_has_not_begun() -> None:
    """A stop that comes with the end starts one that nobody needs any more."""
    job = submitted(lambda env: env.from_batch([1]))
    job._dispatcher._threads.append(threading.Thread())  # type: ignore[attr-defined]
    assert job.wait().status == "completed"
