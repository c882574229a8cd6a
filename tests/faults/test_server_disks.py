"""A server whose disk is full: it says so, loses nothing silently, and goes on when there is room again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import MapFunction, ServerBusyError, ServerError, WorkerError
from tests.faults.servers import Server
from tests.faults.support import begin, ended_in, wait_for
from tests.support import LIMIT, endless, until

MB = 1 << 20


@pytest.fixture
def server(runtime: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, max_running=3, warm=3) as server:
        yield server


class Waits(MapFunction):
    """Waits for a file, then passes items on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def execute(self, data: Any) -> Any:
        begin(self.folder)
        while not (self.folder / "go").exists():
            time.sleep(0.01)
        return data


class Big(MapFunction):
    """Makes items of 100 kB."""

    def execute(self, data: int) -> tuple[int, bytes]:
        return data, bytes(100_000)


def test_without_room_no_job_is_taken_in_and_those_that_run_come_to_their_true_ends(
    server: Server, tmp_path: Path
) -> None:
    """What could not be written is written when there is room; nothing has to happen for that."""
    silent = server.env("silent")
    silent.from_batch([1]).map(Waits, tmp_path).sink(lambda _: None)
    running = silent.submit()
    wait_for(tmp_path)
    server.room(0)
    refused = server.env("refused")
    refused.from_batch([1, 2]).collect("out")
    with pytest.raises(ServerBusyError, match=r"the server cannot keep the job: .* is the disk full"):
        refused.submit()
    assert server.health()["status"] == "degraded"
    with pytest.raises(ServerError, match="cannot"):
        server.client.health_check()
    (tmp_path / "go").touch()
    ended_in(running, LIMIT)  # its log cannot be written either
    assert [one["name"] for one in server.client.list_jobs()] == ["silent"]
    status = server.client.get_job_status(running)
    assert status["status"] == running.status

    server.room(None)
    until(lambda: server.health() == {"status": "ok"})
    assert refused.submit(autostop=True).results["out"] == [1, 2]
    server.kill()
    server.start()
    told = [(one["name"], one["status"]) for one in server.client.list_jobs()]
    assert told == [("silent", status["status"]), ("refused", "completed")]
    assert not [*server.state.glob("*.part")]


def test_a_job_whose_results_find_no_room_fails_and_says_why(server: Server) -> None:
    """Also to those who look later; and the others, whose results are small, complete."""
    large, small = server.env("large"), server.env("small")
    large.from_batch(endless).map(Big).collect("out")
    small.from_source(endless, delay=0.01).take(200).collect("out")
    server.room(4 * MB)
    jobs = large.submit(), small.submit()
    with pytest.raises(WorkerError, match=r"the server could not keep what the job gave: .*File too large"):
        jobs[0].wait(LIMIT)
    got = [item for item, _ in jobs[0].results["out"]]
    assert got == [*range(len(got))], "what came is a beginning"
    assert jobs[1].wait(LIMIT).results["out"] == [*range(200)]
    assert server.health() == {"status": "ok"}
    with pytest.raises(WorkerError, match="could not keep"):
        server.client.attach(jobs[0]).wait(LIMIT)
    server.room(None)
    with pytest.raises(WorkerError, match="could not keep"):
        server.client.attach(jobs[0]).wait(LIMIT)


def test_the_end_of_a_job_that_the_log_cannot_take_is_told_all_the_same(server: Server, tmp_path: Path) -> None:
    """To one who watched all along, and to one who comes then."""
    env = server.env("held")
    env.from_batch([1]).map(Waits, tmp_path).collect("out")
    job = env.submit()
    wait_for(tmp_path)
    server.room(0)
    (tmp_path / "go").touch()
    with pytest.raises(WorkerError, match="could not keep"):
        job.wait(LIMIT)
    with pytest.raises(WorkerError, match="could not keep"):
        server.client.attach(job).wait(LIMIT)
    assert server.client.wait_job(job)["status"] == "failed"


def test_a_job_whose_turn_comes_while_there_is_no_room_begins_when_there_is(runtime: Path, tmp_path: Path) -> None:
    """It is not begun before that is written down: a later server would run it once more."""
    with Server(tmp_path, max_running=1, warm=2) as server:
        first, second = server.env("first"), server.env("second")
        first.from_batch([1]).map(Waits, tmp_path).collect("out")
        second.from_batch(range(3)).collect("out")
        jobs = first.submit(), second.submit()
        wait_for(tmp_path)
        server.room(0)
        (tmp_path / "go").touch()
        with pytest.raises(WorkerError, match="could not keep"):
            jobs[0].wait(LIMIT)
        before = server.get("/v1/server")["uptime"]
        until(lambda: server.client.get_job_status(jobs[1])["status"] != "queued")
        until(lambda: server.get("/v1/server")["uptime"] > 2 + before)  # it would have run long ago
        server.room(None)
        assert jobs[1].wait(LIMIT).results["out"] == [0, 1, 2]


def test_a_job_that_waits_for_room_can_be_stopped(runtime: Path, tmp_path: Path) -> None:
    with Server(tmp_path, max_running=1, warm=2) as server:
        first, second = server.env("first"), server.env("second")
        first.from_batch([1]).map(Waits, tmp_path).collect("out")
        second.from_batch(range(3)).collect("out")
        jobs = first.submit(), second.submit()
        wait_for(tmp_path)
        server.room(0)
        (tmp_path / "go").touch()
        until(lambda: server.client.get_job_status(jobs[1])["status"] != "queued")
        assert server.client.stop_job(jobs[1], 0.1)["status"] == "stopped"
