"""A worker process that ends while it is needed: the job fails, says where and how, and leaves nothing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import LocalEnvironment, MapFunction, WorkerError
from tests.faults.support import SOON, begin, children, crash, ended_in, ending, is_first, kill, notes, wait_for
from tests.support import LIMIT, endless, errors, until

HALF, ALL = 300, 600


def with_pid(item: int) -> tuple[int, int]:
    return item, os.getpid()


def pids(item: Any) -> int:
    return os.getpid()


def in_a_process(env: Any) -> Any:
    return env.from_source(endless, delay=0.001).map(with_pid, executor="process", name="victim")


def in_a_pool(env: Any) -> Any:
    stream = env.from_source(endless, delay=0.001)
    return stream.map(with_pid, executor="process", parallelism=2, name="victim")


def with_keys(env: Any) -> Any:
    keyed = env.from_source(endless, delay=0.001).keyby(lambda n: n % 5)
    return keyed.map(with_pid, executor="process", parallelism=2, name="victim")


def in_the_source(env: Any) -> Any:
    return env.from_source(tells_pid, name="victim")


def tells_pid() -> Iterator[tuple[int, int]]:
    for item in endless():
        yield item, os.getpid()
        time.sleep(0.001)


PLACES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "a process": ("threads", in_a_process),
    "a pool": ("threads", in_a_pool),
    "a keyed stage": ("threads", with_keys),
    "a source": ("processes", in_the_source),
    "every stage": ("processes", in_a_pool),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_killed_worker_fails_the_job_which_names_the_operator_and_the_signal(place: str) -> None:
    """Half-way, by `kill -9`: soon, and whatever else runs."""
    backend, build = PLACES[place]
    env = LocalEnvironment("killed", backend=backend)
    build(env).collect("out")
    with ending(env.submit()) as job:
        until(lambda: len(job.results["out"]) >= HALF or job.exception(), 2 * SOON)
        victim = job.results["out"][-1][1]
        assert victim in children()
        kill(victim)
        ended_in(job)
    exc = job.exception()
    assert (job.status, type(exc)) == ("failed", WorkerError)
    assert f"'victim' (process {victim}) was killed by signal 9 (SIGKILL)" in str(exc)
    assert "operator 'victim'" in notes(exc)
    error = job.snapshot().error
    assert error is not None
    assert error.operator == "victim"
    assert "test_crashes.py" in str(error.where)


class Exits(MapFunction):
    """Ends its process in one of several ways at item HALF."""

    def __init__(self, how: str, folder: Path | None = None) -> None:
        self.how, self.folder = how, folder

    def execute(self, data: int) -> int:
        if data == HALF and (self.folder is None or is_first(self.folder, "crashed")):
            if self.how == "exit":
                os._exit(3)
            elif self.how == "abort":
                os.kill(os.getpid(), signal.SIGABRT)
            crash()
        return data


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("exit", "ended with exit code 3"),
        ("abort", "was killed by signal 6 (SIGABRT)"),
        ("kill", "was killed by signal 9 (SIGKILL)"),
    ],
)
def test_user_code_that_ends_its_process_fails_the_job_with_its_exit(how: str, said: str) -> None:
    env = LocalEnvironment("exits")
    env.from_batch(range(ALL)).map(Exits, how, executor="process", name="victim").collect("out")
    with pytest.raises(WorkerError, match="victim") as caught:
        env.submit(autostop=True, timeout=LIMIT)
    assert said in str(caught.value)
    assert "operator 'victim' (map)" in notes(caught.value)


def no_memory(item: int) -> int:
    raise MemoryError("no room for more")


@pytest.mark.parametrize("options", [{}, {"executor": "process"}, {"executor": "process", "parallelism": 2}])
def test_a_memory_error_is_a_failure_like_others(options: dict[str, Any]) -> None:
    env = LocalEnvironment("memory")
    env.from_batch([1]).map(no_memory, name="hungry", **options).collect("out")
    with pytest.raises(MemoryError, match="no room") as caught:
        env.submit(autostop=True, timeout=LIMIT)
    assert "operator 'hungry' (map), test_crashes.py, line" in notes(caught.value)
    assert "raise MemoryError" in notes(caught.value)
    assert "on the item 1" in notes(caught.value)
    assert env.job is not None
    assert errors(env.job) == {"hungry": 1}


class DiesInConstructor(MapFunction):
    def __init__(self) -> None:
        os._exit(4)

    def execute(self, data: int) -> int:
        return data


class DiesInClose(MapFunction):
    def execute(self, data: int) -> int:
        return data

    def close(self) -> None:
        os._exit(5)


@pytest.mark.parametrize(("cls", "code"), [(DiesInConstructor, 4), (DiesInClose, 5)])
def test_a_process_that_ends_before_or_after_its_items_fails_the_job(cls: type, code: int) -> None:
    env = LocalEnvironment("early")
    env.from_batch(range(3)).map(cls, executor="process", name="victim").collect("out")
    with pytest.raises(WorkerError, match=f"exit code {code}"):
        env.submit(autostop=True, timeout=LIMIT)


def test_a_killed_worker_beside_one_that_is_stuck_ends_the_job_soon(tmp_path: Path) -> None:
    """The failure waits for nobody's sleep."""
    env = LocalEnvironment("stuck")
    env.from_batch(range(10)).map(Sleeps, tmp_path, executor="process", name="stuck").collect("slept")
    env.from_source(endless, delay=0.001).map(pids, executor="process", name="victim").collect("out")
    with ending(env.submit()) as job:
        wait_for(tmp_path)
        until(lambda: len(job.results["out"]))
        kill(job.results["out"][0])
        ended_in(job, SOON / 2)
    assert isinstance(job.exception(), WorkerError)


class Sleeps(MapFunction):
    """Never comes back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def execute(self, data: int) -> int:
        begin(self.folder)
        time.sleep(600)
        return data


# With a restart strategy

RESTART = {"fault_tolerance": {"strategy": "fixed", "attempts": 3, "delay": 0.01}}


def test_a_killed_worker_is_replaced_by_a_new_attempt_with_the_right_results(tmp_path: Path) -> None:
    def one(env: Any) -> Any:
        return env.from_batch(range(ALL)).map(Exits, "kill", tmp_path, executor="process", name="victim")

    check_restarted(one, "threads", list(range(ALL)))


def test_a_killed_worker_of_a_pool_leaves_the_order_of_the_results_as_it_was(tmp_path: Path) -> None:
    def pool(env: Any) -> Any:
        stream = env.from_batch(range(ALL))
        return stream.map(Exits, "kill", tmp_path, executor="process", parallelism=2, name="victim")

    check_restarted(pool, "threads", list(range(ALL)))


def test_a_killed_worker_with_keys_counts_from_the_beginning(tmp_path: Path) -> None:
    def keyed(env: Any) -> Any:
        stream = env.from_batch(range(ALL)).map(Exits, "kill", tmp_path, name="victim")
        return stream.keyby(lambda n: n % 3).count(parallelism=2)

    expected = sorted((key, n) for key in range(3) for n in range(1, ALL // 3 + 1))
    check_restarted(keyed, "processes", expected, sort=True)


def check_restarted(build: Callable[[Any], Any], backend: str, expected: list[Any], sort: bool = False) -> None:
    env = LocalEnvironment("again", config=RESTART, backend=backend)
    build(env).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    out = list(job.results["out"])
    assert (sorted(out) if sort else out) == expected
    assert (job.status, job.info.restart_count, job.snapshot().attempt) == ("completed", 1, 2)
    assert "attempt 2 begins after 0.01 s, because of WorkerError: the process" in job.notes[0]
    assert "SIGKILL" in job.notes[0]
    assert errors(job) == {}
