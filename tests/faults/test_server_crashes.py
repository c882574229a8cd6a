"""A server that is killed, and started again: it knows every job, and each comes to a true end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import BaseService, MapFunction, WorkerError
from sage_nb.remote.history import Entry, History
from sage_nb.remote.protocol import Ended, Kind
from sage_nb.remote.spool import Spool
from tests.faults.servers import Server, gone
from tests.faults.support import begin, is_first, mark, wait_for
from tests.support import LIMIT, until

RESTARTS = {"fault_tolerance": {"strategy": "fixed", "attempts": 3, "delay": 0.01}}


@pytest.fixture
def server(runtime: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, max_running=2, warm=1) as server:
        yield server


class LeavesAFile(BaseService):
    """Leaves the file `cleaned` when it is cleaned up, which takes until there is the file `go`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def process(self) -> None: ...

    def cleanup(self) -> None:
        until(lambda: (self.folder / "go").exists())
        mark(self.folder, "cleaned")


class WaitsTheFirstTime(MapFunction):
    """Holds item 50 until the process is killed, in the first process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def execute(self, data: int) -> int:
        if data == 50 and is_first(self.folder, "been there"):
            wait_until_stopped(self)
        return data


class Waits(MapFunction):
    """Never has a result."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def execute(self, data: int) -> int:
        wait_until_stopped(self)
        return data


def wait_until_stopped(function: Any) -> None:
    begin(function.folder)
    while not function.ctx.is_stop_requested():
        time.sleep(0.01)


def test_every_job_of_a_killed_server_comes_to_its_true_end_on_the_next(server: Server, tmp_path: Path) -> None:
    """What ran has failed, its services cleaned up and its process gone, or begins anew where it asked for that; what
    was queued runs; and those who watched all along hear of it."""
    folders = {name: tmp_path / name for name in ("served", "again")}
    for folder in folders.values():
        folder.mkdir()
    served, again = server.env("served"), server.env("again", RESTARTS)
    served.register_service("files", LeavesAFile, tmp_path)
    served.from_batch([1]).map(Waits, folders["served"]).collect("out")
    again.from_batch(range(200)).map(WaitsTheFirstTime, folders["again"]).collect("out")
    jobs = [served.submit(), again.submit()]
    pids = [*wait_for(folders["served"]), *wait_for(folders["again"])]
    for name in ("third", "fourth"):
        env = server.env(name)
        env.from_batch(range(10)).collect("out")
        jobs.append(env.submit())
    assert [job["status"] for job in server.client.list_jobs()] == ["running", "running", "queued", "queued"]
    seen = jobs[1].results["out"]
    until(lambda: len(seen) == 50)
    token = server.token

    server.kill()
    server.start()
    assert server.token != token
    assert [job["uuid"] for job in server.client.list_jobs()] == [job.uuid for job in jobs]
    until(lambda: jobs[2].status == "completed")
    assert server.client.get_job_status(jobs[0])["status"] == "running", "its process still cleans up"
    mark(tmp_path, "go")
    with pytest.raises(WorkerError, match="the JobManager server ended while the job ran") as caught:
        jobs[0].wait(LIMIT)
    assert (tmp_path / "cleaned").exists()
    gone(*pids)
    for job in jobs[1:]:
        job.wait(LIMIT)
    assert [*seen] == [*jobs[1].results["out"]] == [*range(200)]
    assert jobs[1].info.restart_count == 1
    assert any("begins anew" in note for note in jobs[1].notes)
    assert [job.results["out"] for job in jobs[2:]] == [[*range(10)]] * 2
    told = [(one["status"], one["error"]) for one in server.client.list_jobs()]
    assert told == [("failed", f"WorkerError: {caught.value}")] + [("completed", None)] * 3
    later = server.client.attach(jobs[1])
    later.wait(LIMIT)
    assert [*later.results["out"]] == [*range(200)]


def test_a_job_that_is_stopped_while_a_killed_servers_runner_cleans_up_does_not_begin_anew(
    server: Server, tmp_path: Path
) -> None:
    env = server.env("again", RESTARTS)
    env.register_service("files", LeavesAFile, tmp_path)
    env.from_batch(range(200)).map(WaitsTheFirstTime, tmp_path).collect("out")
    job = env.submit()
    pids = wait_for(tmp_path)
    server.kill()
    server.start()
    job.request_stop()
    mark(tmp_path, "go")
    assert job.wait(LIMIT).status == "stopped"
    assert server.client.get_job_status(job)["status"] == "stopped"
    gone(*pids)


def test_a_server_knows_an_end_that_only_the_log_has_or_only_the_history(runtime: Path, tmp_path: Path) -> None:
    """It may be killed between the two: a job that completed has not failed then, and nobody waits for ever."""
    log, error = tmp_path / "state" / "jobs" / "a", "ValueError: no"
    log.mkdir(parents=True)
    spool = Spool(log, 1 << 20)
    spool.append(Kind.ENDED, Ended("completed", time.time(), True))
    spool.rest()
    history = History(tmp_path / "state" / "history.sqlite")
    history.add(entry("a", status="running", begins_anew=True))
    history.add(entry("b", status="completed"))
    history.add(entry("c", status="failed", error=error))
    history.close()
    with Server(tmp_path) as server:
        assert [one["status"] for one in server.client.list_jobs()] == ["completed", "completed", "failed"]
        for uuid in "ab":
            assert server.client.attach(uuid).wait(LIMIT).status == "completed"
        with pytest.raises(WorkerError, match=error):
            server.client.attach("c").wait(LIMIT)


def entry(uuid: str, **more: Any) -> Entry:
    return Entry(uuid=uuid, name=uuid, environment=uuid, submitted=time.time(), **more)
