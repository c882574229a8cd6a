"""A job's process that ends, or does not end, on a server: its job says so, and no other hears of it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import Job, MapFunction, WorkerError
from sage_nb.engine.reaper import Reaper
from sage_nb.remote.runners import Runner
from tests.faults.servers import Server, alive, family, gone
from tests.faults.support import SOON, begin, ended_in, kill, wait_for
from tests.support import LIMIT, endless, until


class Waits(MapFunction):
    """Passes items on once a file is there, which it waits for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def execute(self, data: Any) -> Any:
        begin(self.folder)
        until(lambda: (self.folder / "go").exists())
        return data


def folder_in(path: Path, name: str) -> Path:
    folder = path / name
    folder.mkdir()
    return folder


@pytest.fixture
def neighbour(server: Server, tmp_path: Path) -> Iterator[Job]:
    """A job in another process, which completes after the fault; so does one that is begun then."""
    folder = folder_in(tmp_path, "neighbour")
    env = server.env("neighbour")
    env.from_batch(range(100)).map(Waits, folder).collect("out")
    job = env.submit()
    (pid,) = wait_for(folder)
    yield job
    assert alive(pid)
    (folder / "go").touch()
    assert job.wait(LIMIT).results["out"] == list(range(100))
    later = server.env("later")
    later.from_batch([1, 2]).collect("out")
    assert later.submit(autostop=True).results["out"] == [1, 2]
    gone(pid)


def test_a_killed_runner_fails_its_job_which_names_the_process_and_the_signal(
    server: Server, neighbour: Job, tmp_path: Path
) -> None:
    env = server.env("killed")
    env.from_source(endless, delay=0.001).map(TellsPid).collect("out")
    job = env.submit()
    until(lambda: "out" in job.results and len(job.results["out"]) > 10)
    pid = job.results["out"][0]
    kill(pid)
    ended_in(job)
    exc = job.exception()
    assert (job.status, type(exc)) == ("failed", WorkerError)
    assert f"(process {pid}) was killed by signal 9 (SIGKILL)" in str(exc)
    status = server.client.get_job_status(job)
    assert (status["status"], status["is_running"]) == ("failed", False)
    assert str(exc) in status["error"]
    error = job.snapshot().error
    assert error is not None
    assert "SIGKILL" in error.message


class TellsPid(MapFunction):
    def execute(self, data: Any) -> int:
        return os.getpid()


def test_user_code_that_ends_the_runner_fails_the_job_with_its_exit(server: Server, neighbour: Job) -> None:
    env = server.env("exits")
    env.from_batch([1]).map(lambda _: os._exit(3)).collect("out")
    with pytest.raises(WorkerError, match="ended with exit code 3"):
        env.submit(autostop=True)


def pow_for_ever(_: int) -> int:
    return pow(7, 10**10) % 2  # one call of C, for hours


def loop_for_ever(_: int) -> int:
    while True:
        pass


def ignore_everything(_: int) -> int:
    while True:
        try:
            time.sleep(600)
        except BaseException:  # noqa: BLE001, S112 - that is the point
            continue


ENDLESS: dict[str, Callable[[int], Any]] = {
    "a power": pow_for_ever,
    "a loop": loop_for_ever,
    "a sleeper": ignore_everything,
}


class Begins(MapFunction):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def execute(self, data: int) -> int:
        begin(self.folder)
        # It is in the runner's group, and would outlive it.
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        return data


def test_what_never_returns_is_ended_within_the_graces_of_a_stop(
    server: Server, neighbour: Job, tmp_path: Path
) -> None:
    """Asked, then SIGTERM, then SIGKILL: whether it is Python or C that does not return."""
    jobs = []
    for name, function in ENDLESS.items():
        env = server.env(name)
        env.from_batch([1]).map(Begins, tmp_path).map(function).collect("out")
        jobs.append(env.submit())
    pids = wait_for(tmp_path, len(jobs))
    until(lambda: len(family_of(pids)) == len(jobs))
    every = [*pids, *family_of(pids)]
    for job in jobs:
        job.request_stop(0.2)
    for job in jobs:
        ended_in(job, SOON)
    gone(*every)
    assert [job.status for job in jobs] == ["stopped"] * len(jobs)
    assert [job.exception() for job in jobs] == [None] * len(jobs)
    assert {job.name: job.notes for job in jobs if not job.notes} == {}
    assert any("SIGKILL" in note for note in jobs[0].notes)


def family_of(pids: list[int]) -> list[int]:
    return [one for pid in pids for one in family(pid)]


def test_a_runner_that_is_told_to_end_before_its_process_is_there_ends_then() -> None:
    reaper = Reaper()
    runner = Runner(reaper)
    runner.end(0.0)
    runner.warm.wait(LIMIT)
    gone(runner.pid)
    runner.close()
    reaper.end()


def test_a_runner_has_no_more_memory_than_the_server_gives_it(runtime: Path, tmp_path: Path) -> None:
    """Its job fails; the server, and what needs less, do not."""
    with Server(tmp_path, memory_limit=2048, warm=2, max_running=2) as server:
        hungry, modest = server.env("hungry"), server.env("modest")
        hungry.from_batch([1]).map(lambda _: len(bytearray(4 << 30))).collect("out")
        modest.from_batch([1]).map(lambda _: len(bytearray(1 << 20))).collect("out")
        with pytest.raises(MemoryError) as caught:
            hungry.submit(autostop=True)
        assert "operator" in "\n".join(caught.value.__notes__)
        assert modest.submit(autostop=True).results["out"] == [1 << 20]


@pytest.mark.timeout(120)
def test_what_holds_the_interpreter_ends_a_while_after_a_server_that_was_killed(runtime: Path, tmp_path: Path) -> None:
    """Nothing else runs in such a process, so that it cannot end itself."""
    with Server(tmp_path) as server:
        kill_amid_a_power(server, tmp_path)


def kill_amid_a_power(server: Server, tmp_path: Path) -> None:
    env = server.env("a power")
    env.from_batch([1]).map(Begins, tmp_path).map(pow_for_ever).collect("out")
    job = env.submit()
    pids = wait_for(tmp_path)
    until(lambda: len(family_of(pids)) == 1)
    every = [*pids, *family_of(pids)]
    server.kill()
    gone(*every)
    server.start()
    with pytest.raises(WorkerError, match="the JobManager server ended while the job ran"):
        job.wait(LIMIT)
