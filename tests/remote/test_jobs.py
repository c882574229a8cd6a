"""Jobs on a server, as the one who submits them sees them."""

from __future__ import annotations

import asyncio
import os
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import (
    BaseService,
    JobManagerServer,
    JobNotFoundError,
    JobStateError,
    JobTimeout,
    RemoteEnvironment,
    ShippingError,
    WorkerError,
    attach,
    call_service,
)
from sage_nb.remote.attaching import snapshots
from tests.support import LIMIT, endless, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobManagerServer]:
    state = tmp_path_factory.mktemp("state")
    with JobManagerServer(port=0, warm=2, state=state, max_running=3, spool_limit=4) as one:
        yield one


@pytest.fixture
def env(server: JobManagerServer) -> Iterator[RemoteEnvironment]:
    with RemoteEnvironment("test", port=server.port) as one:
        yield one


class Noted(BaseService):
    """A service that writes what happens to it into a file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def setup(self) -> None:
        self.note("setup")

    def process(self, item: int) -> int:
        return item * 10

    def cleanup(self) -> None:
        self.note("cleanup")

    def note(self, what: str) -> None:
        with open(self.file, "a") as out:
            print(what, file=out)


def wait_for_file(file: str) -> Iterator[int]:
    """One item, then nothing until the file is there, then another."""
    import os
    import time

    yield 1
    while not os.path.exists(file):
        time.sleep(0.005)
    yield 2


def numbers() -> Iterator[int]:
    """0, 1, 2, ... 100 a second."""
    import itertools
    import time

    for n in itertools.count():
        time.sleep(0.01)
        yield n


def test_submit_with_autostop_returns_when_the_job_and_its_cleanup_are_done(
    env: RemoteEnvironment, tmp_path: Path
) -> None:
    env.register_service("noted", Noted, str(tmp_path / "notes"))
    env.from_batch(range(5)).map(lambda item: call_service("noted", item)).collect("out")
    job = env.submit(autostop=True)
    assert job.status == "completed"
    assert job.results["out"] == [0, 10, 20, 30, 40]
    assert (tmp_path / "notes").read_text().split() == ["setup", "cleanup"]
    assert env.env_uuid == job.uuid
    assert [op.items_in for op in job.progress.operators] == [0, 5, 5]


def test_arrays_can_be_written_to_there_and_here(env: RemoteEnvironment) -> None:
    numpy = pytest.importorskip("numpy")
    big = numpy.zeros(100_000)

    def add_one(item: int) -> Any:
        big[:] += item
        return big.copy()

    env.from_batch([1, 2]).map(add_one).collect("out")
    out = env.submit(autostop=True).results["out"]
    out[1][0] = 7.0
    assert [array[1] for array in out] == [1.0, 3.0]
    assert big[1] == 0.0


def test_results_come_while_the_job_runs(env: RemoteEnvironment, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    env.from_batch(wait_for_file, str(gate)).collect("out")
    job = env.submit()
    out = job.results["out"]  # as early as that
    until(lambda: list(out) == [1])
    assert job.status == "running"
    gate.touch()
    assert job.wait(LIMIT).results["out"] == [1, 2]


def test_a_failure_has_its_own_type_its_item_and_the_line(env: RemoteEnvironment) -> None:
    env.from_batch([3, 2, 1, 0]).map(lambda item: 6 // item).collect("out")
    with pytest.raises(ZeroDivisionError) as caught:
        env.submit(autostop=True)
    notes = "\n".join(caught.value.__notes__)
    assert "test_jobs.py, line" in notes
    assert "on the item 0" in notes
    assert env.job is not None
    assert env.job.status == "failed"
    assert env.job.results["out"] == [2, 3, 6]
    assert env.job.snapshot().error is not None


def test_a_stop_ends_the_job_with_its_cleanup(env: RemoteEnvironment, tmp_path: Path) -> None:
    env.register_service("noted", Noted, str(tmp_path / "notes"))
    env.from_source(numbers).sink(lambda item: call_service("noted", item))
    job = env.submit()
    until(lambda: job.snapshot().items > 3)
    assert job.stop().status == "stopped"
    assert (tmp_path / "notes").read_text().split() == ["setup", "cleanup"]


def test_a_paused_job_moves_no_item_until_it_is_resumed(env: RemoteEnvironment) -> None:
    env.from_source(numbers).collect("out")
    job = env.submit()
    until(lambda: len(job.results["out"]) > 3)
    job.pause()
    assert job.status == "paused"
    with pytest.raises(JobStateError, match="is paused"):
        env.jobmanager.delete_job(job)
    held = len(job.results["out"])
    job.resume()
    assert job.status == "running"
    until(lambda: len(job.results["out"]) > held + 3)
    job.stop()
    with pytest.raises(JobStateError, match="stopped"):
        job.pause()


def test_the_record_of_a_job_names_its_tasks_and_services_while_it_runs(env: RemoteEnvironment, tmp_path: Path) -> None:
    """The one that its handle has, and the one that the server's list has."""
    env.register_service("noted", Noted, str(tmp_path / "notes"))
    env.from_source(endless, delay=0.01).map(lambda n: n, name="same", parallelism=2).collect("out")
    job = env.submit()
    until(lambda: job.status == "running" and len(job.results["out"]) > 0)
    for info in (job.info, env.jobmanager.jobs[job.uuid]):
        seen = info.dispatcher
        until(lambda seen=seen: len(seen.tasks) == env.jobmanager.get_job_status(job)["task_count"] > 2)
        assert {"same[0]", "same[1]"} < {*seen.tasks}
        assert ([*seen.services], seen.is_running) == (["noted"], True)
        status = info.get_status()
        assert (status["task_count"], status["service_count"], status["is_running"]) == (len(seen.tasks), 1, True)
    job.stop()
    for info in (job.info, env.jobmanager.jobs[job.uuid]):
        assert (dict(info.dispatcher.tasks), dict(info.dispatcher.services)) == ({}, {})
        assert not info.dispatcher.is_running
    assert (dict(seen.tasks), dict(seen.services), seen.is_running) == ({}, {}, False)


def test_a_time_limit_fails_the_job_with_job_timeout(env: RemoteEnvironment) -> None:
    env.from_source(numbers).collect("out")
    with pytest.raises(JobTimeout):
        env.submit(autostop=True, timeout=0.3)


def test_services_that_are_kept_run_until_the_job_is_stopped(env: RemoteEnvironment, tmp_path: Path) -> None:
    env.register_service("noted", Noted, str(tmp_path / "notes"))
    env.from_batch([1]).collect("out")
    job = env.submit(wait=True, cleanup="never")
    assert job.status == "completed"
    assert (tmp_path / "notes").read_text().split() == ["setup"]
    job.stop()
    assert (tmp_path / "notes").read_text().split() == ["setup", "cleanup"]


def test_a_stop_of_a_running_job_keeps_no_service(env: RemoteEnvironment, tmp_path: Path) -> None:
    env.register_service("noted", Noted, str(tmp_path / "notes"))
    env.from_source(numbers).collect("out")
    job = env.submit(cleanup="never")
    until(lambda: len(job.results["out"]) > 0)
    job.stop()
    assert job.status == "stopped"
    assert (tmp_path / "notes").read_text().split() == ["setup", "cleanup"]


def test_a_job_that_begins_anew_gives_the_results_of_its_last_attempt(server: JobManagerServer, tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    def fails_once(item: int) -> int:
        if item == 50 and not flag.exists():
            flag.touch()
            raise OSError("once")
        return item

    config = {"fault_tolerance": {"strategy": "fixed", "attempts": 2, "delay": 0.05}}
    env = RemoteEnvironment("anew", config, port=server.port)
    env.from_batch(range(100)).map(fails_once).collect("out")
    job = env.submit(autostop=True)
    assert job.results["out"] == list(range(100))
    assert job.info.restart_count == 1


def test_dead_letters_come_with_their_items_and_errors(env: RemoteEnvironment) -> None:
    env.from_batch([1, 0, 2]).map(lambda item: 2 // item, name="halve", on_error="dead_letter").collect("out")
    job = env.submit(autostop=True)
    assert job.results["out"] == [2, 1]
    (letter,) = job.dead_letters["halve"]
    assert letter.item == 0
    assert isinstance(letter.error, ZeroDivisionError)


def test_what_is_printed_and_logged_comes_before_the_end(
    env: RemoteEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    env.from_batch([1, 2]).print("got")
    job = env.submit(autostop=True)
    assert capsys.readouterr().out.split("\n")[:2] == ["got 1", "got 2"]
    assert job.status == "completed"


def test_an_attached_handle_has_everything_from_the_start(server: JobManagerServer, env: RemoteEnvironment) -> None:
    env.from_batch(range(100)).map(lambda item: item + 1).collect("out")
    done = env.submit(autostop=True)
    again = attach(done.uuid[:8], port=server.port)
    assert again is not done
    assert again.status == "completed"
    assert again.results["out"] == list(range(1, 101))
    assert again.snapshot() == done.snapshot()


def test_an_attached_handle_follows_a_job_that_runs(
    server: JobManagerServer, env: RemoteEnvironment, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    env.from_batch(wait_for_file, str(gate)).collect("out")
    job = env.submit()
    until(lambda: list(job.results["out"]) == [1])
    other = attach(job, port=server.port)
    assert other.results["out"] == [1]
    gate.touch()
    assert other.wait(LIMIT).results["out"] == [1, 2]


def test_a_job_that_is_deleted_counts_as_ended_with_a_note(env: RemoteEnvironment) -> None:
    env.from_source(numbers).collect("out")
    job = env.submit()
    until(lambda: len(job.results["out"]) > 3)
    env.jobmanager.delete_job(job, force=True)
    assert job.wait(LIMIT).status == "stopped"
    with pytest.raises(JobNotFoundError):
        env.jobmanager.get_job_status(job)


def test_an_item_that_cannot_travel_fails_the_job_and_is_named(env: RemoteEnvironment) -> None:
    def locks(item: int) -> Any:
        return threading.Lock() if item == 3 else item

    env.from_batch(range(5)).map(locks).collect("out")
    with pytest.raises(TypeError, match="lock"):
        env.submit(autostop=True)
    assert env.job is not None
    assert env.job.results["out"] == [0, 1, 2]


class Exits:
    """Asks for the end of the process when it is to travel, or has come."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __getstate__(self) -> str:
        if self.where == "there":
            raise SystemExit("there")
        return self.where

    def __setstate__(self, state: str) -> None:
        raise SystemExit(state)


@pytest.mark.parametrize(("where", "said"), [("there", "pickling it raised"), ("here", "could not be put together")])
def test_an_item_that_asks_for_the_end_of_the_process_fails_the_job(
    env: RemoteEnvironment, where: str, said: str
) -> None:
    """And a job after it runs."""
    env.from_source(endless).map(lambda n, where=where: Exits(where) if n == 1000 else n).take(100_000).collect("out")
    job = env.submit()
    with pytest.raises(ShippingError, match=said):
        job.wait(LIMIT)
    after = RemoteEnvironment("after", port=env.port)
    after.from_batch([1]).collect("out")
    assert after.submit().wait(LIMIT).results["out"] == [1]


def test_a_slow_loop_over_a_stream_holds_the_job_back_and_gets_every_item_once(server: JobManagerServer) -> None:
    """Law 6: memory is bounded: back-pressure reaches the source."""
    with RemoteEnvironment("fast", port=server.port) as env:
        env.from_batch(range(3000)).map(lambda n: n.to_bytes(2, "big") * 5000).collect("out")
        got: list[int] = []

        async def read() -> None:
            job = env.submit()
            async for item in job.stream("out"):
                got.append(int.from_bytes(item[:2], "big"))
                if len(got) == 1:  # the log is full before the second item is asked for
                    await asyncio.to_thread(until, lambda: held(env))
                    assert env.jobmanager.get_job_status(job)["status"] == "running"
                if len(got) == 3000:
                    break

        asyncio.run(read())
        assert got == list(range(3000))


def held(env: RemoteEnvironment) -> bool:
    """Whether the job waits for a reader."""
    assert env.job is not None
    first = next(iter(snapshots(env.jobmanager.attach(env.job))))
    return first.waiting_for is not None and "reader" in first.waiting_for


def test_more_jobs_than_may_run_wait_in_line_and_say_where(server: JobManagerServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    envs = [RemoteEnvironment(f"job {n}", port=server.port) for n in range(5)]
    for env in envs:
        env.from_batch(wait_for_file, str(gate)).collect("out")
    jobs = [env.submit() for env in envs]
    until(lambda: [job.status for job in jobs] == ["running"] * 3 + ["queued"] * 2)
    until(lambda: jobs[4].snapshot().waiting_for == "a runner: 1 job is before it")
    assert envs[4].jobmanager.get_job_status(jobs[4])["position"] == 2
    jobs[3].stop()
    assert jobs[3].status == "stopped"
    until(lambda: jobs[4].snapshot().waiting_for == "a runner: it is the next")
    gate.touch()
    for job in (*jobs[:3], jobs[4]):
        assert job.wait(LIMIT).results["out"] == [1, 2]


def test_a_job_can_be_awaited(env: RemoteEnvironment) -> None:
    env.from_batch(range(3)).collect("out")

    async def run() -> list[int]:
        job = await env.submit_async()
        return [item async for item in (await job).stream("out")]

    assert asyncio.run(run()) == [0, 1, 2]


def invert(n: int) -> float:
    return 1 / n  # here


def test_a_failure_shows_its_line_and_its_notes_no_more_than_in_the_kernel(env: RemoteEnvironment) -> None:
    env.from_batch([0]).map(invert).collect("out")
    with pytest.raises(ZeroDivisionError) as caught:
        env.submit(autostop=True)
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("division by zero") == 1
    assert shown.count("on the item 0") == 1
    assert shown.count("in operator 'invert'") == 1
    assert shown.count("return 1 / n  # here") == 2  # in the traceback, and in the note


def chained(n: int) -> float:
    try:
        return 1 / n
    except ZeroDivisionError as exc:
        raise ValueError("outer") from exc


def test_the_cause_of_a_failure_is_shown_with_its_traceback_there(env: RemoteEnvironment) -> None:
    env.from_batch([0]).map(chained).collect("out")
    with pytest.raises(ValueError, match="outer") as caught:
        env.submit(autostop=True)
    (there,) = [note for note in caught.value.__notes__ if note.startswith("sage_nb: on the server")]
    assert "return 1 / n" in there
    assert there.rstrip().endswith('raise ValueError("outer") from exc')


def test_a_process_that_ends_at_once_has_its_error_in_the_view(
    env: RemoteEnvironment, server: JobManagerServer
) -> None:
    env.from_batch([1]).map(lambda _: os._exit(3)).collect("out")
    with pytest.raises(WorkerError) as caught:
        env.submit(autostop=True)
    assert not hasattr(caught.value, "__notes__")  # they would say the same again
    assert env.job is not None
    for job in (env.job, attach(env.job.uuid, port=server.port)):
        error = job.snapshot().error
        assert error is not None
        assert (error.type, "exit code 3" in error.message) == ("WorkerError", True)


def test_a_sink_that_fills_a_list_is_warned_of_once_by_the_name_of_the_list(
    env: RemoteEnvironment, server: JobManagerServer
) -> None:
    mine: list[int] = []
    env.from_batch(range(3)).sink(lambda n: mine.append(n))
    job = env.submit(autostop=True)
    for one in (job, attach(job.uuid, port=server.port)):
        (note,) = one.snapshot().notes
        assert "it fills a copy of mine, not yours; use collect()" in note
        assert [line for line in one.logs() if "a copy of" in str(line)] == one.logs()
        assert len(one.logs()) == 1


class Dot:
    def _repr_png_(self) -> bytes:
        return b"png"


def test_pictures_frames_and_types_are_described_by_the_server(env: RemoteEnvironment) -> None:
    """Its snapshot says what one of a job in the kernel says, and its results are written to files here."""
    pd = pytest.importorskip("pandas")
    env.from_batch(range(2)).map(lambda n: Dot()).collect("dots")
    env.from_batch([1]).map(lambda n: pd.DataFrame({"n": [n] * 30})).collect("frames")
    job = env.submit(autostop=True)
    dots, frames = job.snapshot().results
    assert dots.picture == "data:image/png;base64,cG5n"
    assert (frames.shape, frames.types, len(frames.rows)) == ((30, 1), ("number",), 10)
    assert job.snapshot().drawing is not None
    assert job.results["frames"].to_pandas()["n"].sum() == 30
