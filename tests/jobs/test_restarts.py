"""Restart strategies: how often and when a job that failed is run anew, and what an attempt leaves to the next."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage_nb import BaseService, Job, LocalEnvironment, MapFunction, PipelineError, SourceFunction, call_service
from sage_nb.pipeline.restarts import Restarts, restarts
from tests.support import LIMIT, Gate, counts, errors, until


def fixed(attempts: int = 3, delay: float = 0.0) -> dict[str, Any]:
    return {"fault_tolerance": {"strategy": "fixed", "attempts": attempts, "delay": delay}}


class Fails:
    """A function that fails at item `at` in the first `times` attempts."""

    def __init__(self, times: int, at: int = 3) -> None:
        self.left, self.at = times, at
        self.moments: list[float] = []

    def __call__(self, item: int) -> int:
        if item == self.at and self.left:
            self.left -= 1
            self.moments.append(time.monotonic())
            raise LookupError(f"{self.left} to go")
        return item

    def gaps(self) -> list[float]:
        return [after - before for before, after in itertools.pairwise(self.moments)]


def run(fails: Callable[[int], int], config: dict[str, Any], **options: Any) -> Job:
    """The ended job of 0 to 5 through `fails`."""
    env = LocalEnvironment("restarts", config=config)
    env.from_batch(range(6)).map(fails, name="fails", **options).collect("out")
    job = env.submit()
    assert job._dispatcher.clean.wait(LIMIT)
    return job


# How often, and when


@pytest.mark.parametrize("options", [{}, {"parallelism": 2}])
def test_a_job_goes_on_until_an_attempt_succeeds(options: dict[str, Any]) -> None:
    """Results, counters and dead letters are those of the last attempt."""
    job = run(Fails(2), fixed(), **options)
    assert job.status == "completed"
    assert sorted(job.results["out"]) == list(range(6))
    assert (job.info.restart_count, job.snapshot().attempt, job.info.get_summary()["restart_count"]) == (2, 3, 2)
    assert counts(job) == {"source": (0, 6), "fails": (6, 6), "out": (6, 0)}
    assert errors(job) == {}
    assert job.exception() is None
    assert job.info.error is None
    assert job.snapshot().error is None
    assert [note.split(",")[0] for note in job.notes] == [
        "attempt 2 begins after 0 s",
        "attempt 3 begins after 0 s",
    ]
    assert "because of LookupError: 1 to go" in job.notes[0]
    assert job.wait() is job


def test_after_the_last_attempt_the_job_fails_with_the_last_error() -> None:
    fails = Fails(10)
    job = run(fails, fixed(attempts=2))
    assert job.status == "failed"
    assert len(fails.moments) == 3
    assert job.info.restart_count == 2
    assert str(job.exception()) == "7 to go"
    assert job.notes[-1] == "no restart any more after 3 failures"
    assert errors(job) == {"fails": 1}
    with pytest.raises(LookupError, match="7 to go"):
        job.wait()


def test_no_attempts_mean_no_restart() -> None:
    job = run(Fails(1), fixed(attempts=0))
    assert (job.status, job.info.restart_count) == ("failed", 0)


def test_a_fixed_delay_lies_between_attempts() -> None:
    fails = Fails(3)
    run(fails, fixed(delay=0.1))
    assert len(fails.gaps()) == 2
    assert all(0.1 <= gap < 2 for gap in fails.gaps())


def test_an_exponential_delay_grows_up_to_its_limit() -> None:
    fails = Fails(4)
    setting = {"strategy": "exponential", "attempts": 5, "delay": 0.05, "factor": 3, "max_delay": 0.2}
    job = run(fails, {"fault_tolerance": setting})
    assert job.status == "completed"
    first, second, third = fails.gaps()
    assert 0.05 <= first < 1
    assert 0.15 <= second < 1.2
    assert 0.2 <= third < 1.3
    assert [note.split(",")[0].split("after ")[1] for note in job.notes] == ["0.05 s", "0.15 s", "0.2 s", "0.2 s"]


def test_a_failure_rate_gives_up_after_too_many_at_once() -> None:
    setting = {"strategy": "failure_rate", "failures": 2, "within": 60, "delay": 0}
    fails = Fails(10)
    job = run(fails, {"fault_tolerance": setting})
    assert (job.status, len(fails.moments), job.info.restart_count) == ("failed", 3, 2)


def test_a_failure_rate_forgets_what_is_long_ago() -> None:
    setting = {"strategy": "failure_rate", "failures": 1, "within": 0.05, "delay": 0.1}
    job = run(Fails(4), {"fault_tolerance": setting})
    assert (job.status, job.info.restart_count) == ("completed", 4)


@pytest.mark.parametrize(
    ("setting", "failures", "expected"),
    [
        ({"strategy": "fixed", "attempts": 2, "delay": 5}, [0.0], 5),
        ({"strategy": "fixed", "attempts": 2, "delay": 5}, [0.0, 1.0], 5),
        ({"strategy": "fixed", "attempts": 2, "delay": 5}, [0.0, 1.0, 2.0], None),
        ({"strategy": "fixed"}, [0.0, 1.0, 2.0], 1.0),
        ({"strategy": "fixed"}, [0.0, 1.0, 2.0, 3.0], None),
        ({"strategy": "exponential"}, [0.0], 1.0),
        ({"strategy": "exponential"}, [0.0] * 4, 8.0),
        ({"strategy": "exponential"}, [0.0] * 10, 60.0),
        ({"strategy": "exponential"}, [0.0] * 11, None),
        ({"strategy": "failure_rate"}, [0.0, 1.0, 2.0], 1.0),
        ({"strategy": "failure_rate"}, [0.0, 1.0, 2.0, 3.0], None),
        ({"strategy": "failure_rate"}, [0.0, 1.0, 2.0, 302.0], 1.0),
    ],
)
def test_strategies_give_their_delays(setting: dict[str, Any], failures: list[float], expected: float | None) -> None:
    strategy = restarts(setting)
    assert isinstance(strategy, Restarts)
    assert strategy.delay_after(failures) == expected


# While it happens


def test_the_status_between_attempts_is_restarting_and_a_stop_ends_it_at_once() -> None:
    env = LocalEnvironment("waits", config=fixed(delay=3600))
    env.from_batch([1]).map(lambda n: 1 // 0).collect("out")
    job = env.submit()
    until(lambda: job.status == "restarting")
    assert job.snapshot().status == "restarting"
    assert job.info.status == "restarting"
    assert job.info.restart_count == 1
    began = time.monotonic()
    job.stop()
    assert time.monotonic() - began < 3
    assert job.status == "stopped"


def test_a_time_limit_ends_the_wait_for_an_attempt() -> None:
    env = LocalEnvironment("waits", config=fixed(delay=3600))
    env.from_batch([1]).map(lambda n: 1 // 0).collect("out")
    with pytest.raises(TimeoutError):
        env.submit(autostop=True, timeout=0.3)


def test_a_job_between_attempts_can_neither_be_paused_nor_submitted_again() -> None:
    env = LocalEnvironment("waits", config=fixed(delay=3600))
    env.from_batch([1]).map(lambda n: 1 // 0).collect("out")
    job = env.submit()
    until(lambda: job.status == "restarting")
    with pytest.raises(RuntimeError, match="restarting"):
        job.pause()
    with pytest.raises(RuntimeError, match="already runs"):
        env.submit()
    job.stop()


def test_results_of_a_failed_attempt_are_gone_when_the_next_begins() -> None:
    """A sink of the user's sees items again; named results do not."""
    seen: list[int] = []
    fails = Fails(1, at=4)
    with Gate(at=6) as gate:
        env = LocalEnvironment("results", config=fixed())
        stream = env.from_batch(range(6)).sink(seen.append).map(fails).map(gate)
        stream.collect("out").show("last", rows=3)
        job = env.submit()
        gate.wait()
        assert list(job.results["out"]) == [0]
        assert job.status == "running"
    job.wait()
    assert list(job.results["out"]) == list(range(6))
    assert list(job.results["last"]) == [3, 4, 5]
    assert seen == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5]


def test_dead_letters_and_errors_of_a_failed_attempt_are_gone_too() -> None:
    fails = Fails(1, at=4)
    env = LocalEnvironment("letters", config=fixed())
    stream = env.from_batch(range(6)).map(lambda n: (1 // (n - 1), n)[1], on_error="dead_letter", name="letters")
    stream.map(fails).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert job.info.restart_count == 1
    assert [letter.item for letter in job.dead_letters["letters"]] == [1]
    assert errors(job) == {"letters": 1}


def test_keyed_state_begins_anew() -> None:
    fails = Fails(1, at=4)
    env = LocalEnvironment("state", config=fixed())
    env.from_batch(range(6)).keyby(lambda n: n % 2).map(fails).count(parallelism=2).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert sorted(job.results["out"]) == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]


def test_every_attempt_makes_its_functions_anew_and_closes_them_before_the_next() -> None:
    diary: list[str] = []

    class Noted(MapFunction):
        def __init__(self) -> None:
            self.calls = 0
            diary.append("made")

        def execute(self, data: int) -> int:
            self.calls += 1
            if diary.count("made") < 3 and data == 2:
                raise LookupError("not yet")
            assert self.calls == data + 1
            return data

        def close(self) -> None:
            diary.append("closed")

    env = LocalEnvironment("noted", config=fixed())
    env.from_batch(range(4)).map(Noted).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert list(job.results["out"]) == list(range(4))
    assert diary == ["made", "closed"] * 3


def test_services_live_through_restarts() -> None:
    calls: list[str] = []

    class Stands(BaseService):
        def setup(self) -> None:
            calls.append("set up")

        def process(self, item: int) -> int:
            return item

        def cleanup(self) -> None:
            calls.append("cleaned")

    fails = Fails(2)
    env = LocalEnvironment("services", config=fixed())
    env.register_service("stands", Stands)
    env.from_batch(range(6)).map(fails).map(lambda n: call_service("stands", n)).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert list(job.results["out"]) == list(range(6))
    assert (calls, job.info.restart_count) == (["set up", "cleaned"], 2)
    assert job.progress.services[0].calls == 6 + 2 * 3


def test_a_service_that_does_not_start_is_no_reason_to_try_again() -> None:
    """A restart runs the pipeline anew; its services have to be there."""
    tries: list[int] = []

    class Broken(BaseService):
        def setup(self) -> None:
            tries.append(1)
            raise ConnectionError("no database")

    env = LocalEnvironment("broken", config=fixed())
    env.register_service("broken", Broken)
    env.from_batch([1]).collect("out")
    with pytest.raises(ConnectionError):
        env.submit(autostop=True, timeout=LIMIT)
    assert tries == [1]


@pytest.mark.parametrize("phase", ["__init__", "open", "close"])
def test_a_failure_outside_execute_is_a_reason_as_well(phase: str) -> None:
    left = [1]

    def fails_once(self: Any) -> None:
        if left:
            left.pop()
            raise LookupError(phase)

    cls = type("Own", (MapFunction,), {"execute": lambda self, data: data, phase: fails_once})
    env = LocalEnvironment("phases", config=fixed())
    env.from_batch(range(3)).map(cls).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert (list(job.results["out"]), job.info.restart_count) == ([0, 1, 2], 1)


def test_a_stop_in_a_second_attempt_stops_the_job() -> None:
    fails = Fails(1)
    with Gate(at=4) as gate:
        env = LocalEnvironment("stop", config=fixed())
        env.from_batch(range(6)).map(fails).map(gate).collect("out")
        job = env.submit()
        gate.wait()
        job.request_stop()
    job.stop()
    assert job.status == "stopped"


def test_an_instance_that_is_stuck_in_a_failed_attempt_does_not_mix_into_the_next() -> None:
    """What it still emits when it comes back reaches nobody."""
    release = Gate()
    left = [1]

    def both(item: int) -> int:
        if item == 0 and left:
            return int(release(item)) - 100
        if item == 1 and left:
            release.wait()
            left.pop()
            raise LookupError("the other one")
        return item

    env = LocalEnvironment("stuck", config=fixed())
    with release:
        stream = env.from_batch([0, 1]).keyby(lambda n: n, strategy="round_robin")
        stream.map(both, parallelism=2).collect("out")
        job = env.submit()
        release.wait()
        until(lambda: not left)
    job.wait(LIMIT)
    assert sorted(job.results["out"]) == [0, 1]
    assert job.info.restart_count == 1


def test_an_environment_whose_job_restarted_can_be_submitted_again() -> None:
    fails = Fails(1)
    env = LocalEnvironment("again", config=fixed())
    env.from_batch(range(6)).map(fails).collect("out")
    first = env.submit(autostop=True, timeout=LIMIT)
    second = env.submit(autostop=True, timeout=LIMIT)
    assert (first.info.restart_count, second.info.restart_count) == (1, 0)
    assert list(second.results["out"]) == list(range(6))


# What is refused


def generator() -> Iterator[int]:
    yield from range(3)


class Polled(SourceFunction):
    def __init__(self) -> None:
        self.n = 0

    def execute(self) -> int | None:
        self.n += 1
        return self.n if self.n < 4 else None


@pytest.mark.parametrize(
    ("source", "name"),
    [(iter([1]), "source"), ((n for n in [1]), "source"), (lambda: None, "lambda"), (map(int, ["1"]), "source")],
)
def test_a_source_that_cannot_begin_anew_is_refused_at_submit_by_name(source: Any, name: str) -> None:
    env = LocalEnvironment("once", config=fixed())
    stream = env.from_batch(source)
    stream.collect("out")
    with pytest.raises(PipelineError, match=f"source '{stream.name}' is .* cannot begin anew.*fault_tolerance"):
        env.submit()
    assert env.job is None


@pytest.mark.parametrize("source", [[1, 2, 3], range(1, 4), generator, Polled])
def test_a_source_that_can_begin_anew_gives_all_its_items_again(source: Any) -> None:
    fails = Fails(1, at=2)
    env = LocalEnvironment("anew", config=fixed())
    env.from_batch(source).map(fails).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert list(job.results["out"]) == ([0, 1, 2] if source is generator else [1, 2, 3])
    assert job.info.restart_count == 1


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("fixed", "a dict with a strategy"),
        ({}, "a dict with a strategy"),
        ({"attempts": 3}, "a dict with a strategy"),
        ({"strategy": "often"}, "'fixed', 'exponential', 'failure_rate'; not"),
        ({"strategy": "fixed", "tries": 3}, "'fixed' has no 'tries'; there are: attempts, delay"),
        ({"strategy": "fixed", "factor": 3}, "has no 'factor'"),
        ({"strategy": "fixed", "attempts": 1.5}, "attempts is a whole number, 0 or more, not 1.5"),
        ({"strategy": "fixed", "attempts": True}, "attempts is a whole number"),
        ({"strategy": "fixed", "attempts": -1}, "attempts is a whole number"),
        ({"strategy": "fixed", "delay": "1 s"}, "delay is a number, 0 or more, not '1 s'"),
        ({"strategy": "fixed", "delay": float("nan")}, "delay is a number"),
        ({"strategy": "failure_rate", "failures": None}, "failures is a whole number"),
    ],
)
def test_a_setting_that_is_wrong_is_refused_where_it_is_given(setting: Any, said: str) -> None:
    with pytest.raises(PipelineError, match="config: fault_tolerance") as caught:
        LocalEnvironment("wrong", config={"fault_tolerance": setting})
    assert said in str(caught.value)
