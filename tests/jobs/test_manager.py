"""`JobManager` and `JobInfo`: finding, ordering and remembering jobs."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
import weakref
from typing import Any

import pytest

from sage_nb import (
    BaseService,
    JobInfo,
    JobManager,
    JobNotFoundError,
    JobStateError,
    LocalEnvironment,
    MapFunction,
    SubmitError,
)
from tests.support import Gate, endless, until

SUMMARY = {"uuid", "name", "status", "autostop", "start_time", "runtime", "restart_count", "last_update"}
COUNTS = {"task_count", "service_count", "is_running"}
STATUS = SUMMARY | COUNTS | {"environment", "dispatcher", "error", "stop_time"}


def declared(name: str = "job", gate: Gate | None = None) -> LocalEnvironment:
    """An environment that ends at once, or goes on behind a gate."""
    env = LocalEnvironment(name)
    env.register_service("s", BaseService)
    env.from_batch([1], name="numbers").map(gate or (lambda x: x), name="held").collect("out")
    return env


def endlessly(name: str = "endless") -> LocalEnvironment:
    env = LocalEnvironment(name)
    env.from_source(endless, delay=0.001).sink(lambda _: None)
    return env


def test_the_summary_and_the_status_have_these_keys() -> None:
    manager = JobManager()
    before = time.time()
    job = manager.submit_job(declared(), autostop=True)
    summary, status = manager.list_jobs()[0], manager.get_job_status(job)
    assert (set(summary), set(status), set(status["dispatcher"])) == (SUMMARY, STATUS, COUNTS)
    assert status["status"] == "completed"
    assert status["autostop"] is True
    assert (status["uuid"], status["name"], status["environment"]) == (job.uuid, "job", "job")
    assert (status["restart_count"], status["error"]) == (0, None)
    assert before <= status["start_time"] <= status["stop_time"] <= time.time()
    assert status["runtime"] == pytest.approx(status["stop_time"] - status["start_time"])
    assert status["dispatcher"] == {"task_count": 0, "service_count": 0, "is_running": False}


def test_job_info_is_a_dataclass() -> None:
    assert dataclasses.is_dataclass(JobInfo)
    assert "autostop" in {field.name for field in dataclasses.fields(JobInfo)}


def test_the_status_of_a_running_job_counts_what_runs() -> None:
    manager = JobManager()
    with Gate() as gate:
        job = manager.submit_job(declared(gate=gate))
        gate.wait()
        status = manager.get_job_status(job.uuid)
        live = {"task_count": 1, "service_count": 1, "is_running": True}
        assert status["dispatcher"] == live
        assert {key: status[key] for key in COUNTS} == live
        assert (status["status"], status["stop_time"]) == ("running", None)
        assert 0 < status["runtime"] < 30
    job.wait()


def test_the_status_of_a_failed_job_says_why() -> None:
    manager = JobManager()
    env = LocalEnvironment("fails")
    env.from_batch([1]).map(lambda x: x // 0).collect("out")
    with pytest.raises(ZeroDivisionError):
        manager.submit_job(env, autostop=True)
    (summary,) = manager.list_jobs()
    assert summary["status"] == "failed"
    assert manager.get_job_status(summary["uuid"])["error"].startswith("ZeroDivisionError: integer division")


def test_the_dispatcher_can_be_read_while_it_runs_and_is_empty_at_the_end() -> None:
    with Gate() as gate:
        env = declared(gate=gate)
        job = env.submit()
        gate.wait()
        seen: list[Any] = []

        def look() -> None:
            dispatcher = env.jobmanager.jobs[str(env.env_uuid)].dispatcher
            seen.append((set(dispatcher.tasks), set(dispatcher.services), dispatcher.is_running))
            seen.append((dispatcher.tasks, dispatcher.services, dispatcher))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert seen[0] == ({"numbers"}, {"s"}, True)
        tasks, services, dispatcher = seen[1]
        assert isinstance(services["s"], BaseService)
    job.wait()
    assert (dict(tasks), dict(services), dispatcher.is_running) == ({}, {}, False)
    ended = env.jobmanager.jobs[job.uuid].dispatcher
    assert (dict(ended.tasks), dict(ended.services), ended.is_running) == ({}, {}, False)


def test_the_dispatcher_can_be_iterated_while_jobs_end() -> None:
    manager = JobManager()
    ended = threading.Event()
    troubles: list[BaseException] = []

    def look() -> None:
        try:
            while not ended.is_set():
                for info in list(manager.jobs.values()):
                    for _ in info.dispatcher.tasks:
                        info.get_status()
                    list(info.dispatcher.services.items())
        except BaseException as exc:  # noqa: BLE001 - shown below
            troubles.append(exc)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(200):
        manager.submit_job(declared(), autostop=True)
    ended.set()
    thread.join()
    assert troubles == []


def test_a_job_is_found_by_handle_uuid_and_unique_prefix() -> None:
    manager = JobManager()
    job = manager.submit_job(declared(), autostop=True)
    for key in (job, job.uuid, job.uuid[:8], job.uuid[:1]):
        assert manager.find(key) is job.info
        assert manager.get_job(key) is job
        assert manager.get_job_status(key)["uuid"] == job.uuid


@pytest.mark.parametrize("order", ["get_job_status", "pause_job", "continue_job", "stop_job", "delete_job", "get_job"])
@pytest.mark.parametrize("key", ["nonsense", "", "zzzz-zzzz"])
def test_an_unknown_job_is_named_in_one_line(order: str, key: str) -> None:
    manager = JobManager()
    manager.submit_job(declared(), autostop=True)
    with pytest.raises(JobNotFoundError, match=f"no job goes by '{key}'.*list_jobs") as caught:
        getattr(manager, order)(key)
    assert "\n" not in str(caught.value)


def test_a_prefix_of_several_jobs_is_refused() -> None:
    manager = JobManager()
    jobs = [manager.submit_job(declared(), autostop=True) for _ in range(17)]  # 16 first digits: two must share one
    first = [job.uuid[0] for job in jobs]
    shared = next(digit for digit in first if first.count(digit) > 1)
    with pytest.raises(JobNotFoundError, match=f"jobs begin with '{shared}'.*give more"):
        manager.stop_job(shared)


def test_jobs_are_paused_continued_stopped_and_deleted() -> None:
    manager = JobManager()
    job = manager.submit_job(endlessly())
    until(lambda: job.status == "running")
    manager.pause_job(job)
    assert manager.get_job_status(job)["status"] == "paused"
    manager.continue_job(job.uuid[:8])
    assert manager.get_job_status(job)["status"] == "running"
    with pytest.raises(JobStateError, match="'endless' is running; stop it first, or delete with force=True"):
        manager.delete_job(job)
    assert manager.stop_job(job.uuid)["status"] == "stopped"
    assert manager.stop_job(job.uuid)["status"] == "stopped"
    for order in (manager.pause_job, manager.continue_job):
        with pytest.raises(JobStateError, match="is stopped already"):
            order(job)
    manager.delete_job(job)
    assert manager.list_jobs() == []
    with pytest.raises(JobNotFoundError):
        manager.delete_job(job)


def test_a_running_job_can_be_deleted_by_force() -> None:
    manager = JobManager()
    job = manager.submit_job(endlessly())
    manager.delete_job(job, force=True)
    assert job.status == "stopped"
    assert manager.list_jobs() == []


def test_all_jobs_are_stopped_at_once() -> None:
    manager = JobManager()
    done = manager.submit_job(declared(), autostop=True)
    jobs = [manager.submit_job(endlessly(f"job {n}")) for n in range(5)]
    assert manager.stop_all() == jobs
    assert [job.status for job in [done, *jobs]] == ["completed", *["stopped"] * 5]


def test_submitting_to_a_manager_holds_to_the_same_rules_as_the_environments_own_submit() -> None:
    manager = JobManager()
    env = endlessly()
    job = manager.submit_job(env)
    assert env.env_uuid == job.uuid
    assert env.jobmanager is manager
    with pytest.raises(SubmitError, match="already"):
        manager.submit_job(env)
    env.stop()
    assert job.status == "stopped"
    used = LocalEnvironment("used")
    used.from_batch(iter([1])).collect("out")
    manager.submit_job(used, autostop=True)
    with pytest.raises(SubmitError, match="used up"):
        manager.submit_job(used, autostop=True)
    with pytest.raises(SubmitError, match="cleanup"):
        manager.submit_job(declared(), cleanup="sometimes")  # type: ignore[arg-type]
    assert len(manager.list_jobs()) == 2


def test_a_job_may_have_a_name_of_its_own() -> None:
    job = JobManager().submit_job(declared("pipeline"), autostop=True, name="tuesday")
    assert (job.name, job.info.name, job.info.environment) == ("tuesday", "tuesday", "pipeline")


def test_the_jobs_are_listed_oldest_first_and_cannot_be_changed_from_outside() -> None:
    manager = JobManager()
    jobs = [manager.submit_job(declared(f"job {n}"), autostop=True) for n in range(3)]
    assert [entry["name"] for entry in manager.list_jobs()] == ["job 0", "job 1", "job 2"]
    assert list(manager.jobs) == [job.uuid for job in jobs]
    with pytest.raises(TypeError):
        manager.jobs["x"] = jobs[0].info  # type: ignore[index]


def test_the_history_is_bounded_and_keeps_what_runs() -> None:
    manager = JobManager()
    running = manager.submit_job(endlessly())
    env = LocalEnvironment("short")
    env.from_batch([1]).collect("out")
    for _ in range(1_010):
        manager.submit_job(env, autostop=True)
    until(lambda: len(manager.jobs) == 1_000)  # the last one may be just ending
    assert next(iter(manager.jobs)) == running.uuid
    running.stop()


class Heavy:
    """Something of the user's, whose end can be seen."""


@pytest.mark.parametrize("ending", ["completed", "failed", "stopped"])
def test_the_history_keeps_none_of_the_users_objects(ending: str) -> None:
    """Finished jobs stay in the history, without the user's objects."""
    manager = JobManager()
    objects: weakref.WeakSet[Any] = weakref.WeakSet()

    def heavy() -> Any:
        made = Heavy()
        objects.add(made)
        return made

    class Service(BaseService):
        def __init__(self) -> None:
            self.cache = heavy()

    def run() -> str:
        held = heavy()

        def step(item: Any) -> Any:
            assert held is not None
            if ending == "failed":
                raise LookupError(item)
            return item

        env = LocalEnvironment("heavy")
        env.register_service("s", Service)
        items = (heavy() for _ in range(3)) if ending != "stopped" else iter(heavy, None)
        env.from_batch(items).map(step).show("out")
        job = manager.submit_job(env)
        if ending == "stopped":
            until(lambda: len(objects) > 3)
            job.stop()
        elif ending == "failed":
            with pytest.raises(LookupError):
                job.wait()
        else:
            job.wait()
        assert len(objects) >= 2
        return job.uuid

    uuid = run()
    until(lambda: gc.collect() >= 0 and not objects)  # the last of the job's threads may just be ending
    info = manager.jobs[uuid]
    assert info.status == ending
    assert info.snapshot is not None
    assert info.snapshot.name == "heavy"
    assert manager.get_job(uuid) is None


def test_a_finished_job_that_is_still_held_has_let_go_of_its_instances() -> None:
    made: weakref.WeakSet[Any] = weakref.WeakSet()

    class Service(BaseService):
        def __init__(self) -> None:
            made.add(self)

    class Maps(MapFunction):
        def __init__(self) -> None:
            made.add(self)

        def execute(self, data: Any) -> Any:
            assert len(made) == 2
            return data

    env = LocalEnvironment("held")
    env.register_service("s", Service)
    env.from_batch([1]).map(Maps).collect("out")
    job = env.submit(autostop=True)
    gc.collect()
    assert len(made) == 0
    assert list(job.results["out"]) == [1]
