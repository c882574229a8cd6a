"""Processes of a real Ray are killed: what the job says, what is left, and whether the next one runs."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from sage_nb import LocalEnvironment
from sage_nb.errors import WorkerError
from tests.faults.support import begin, ended_in, ending, notes, wait_for
from tests.kernels import Kernel
from tests.onray.losing import DECLARE, Losing
from tests.onray.support import SOON, living_actors, on_ray
from tests.support import LIMIT, Script


def test_a_killed_actor_fails_the_job_which_names_the_operator(tmp_path: Path) -> None:
    def work(n: int) -> int:
        begin(tmp_path)
        time.sleep(0.01)
        return n

    env = on_ray()
    env.from_batch(range(100_000)).map(work, name="work").collect("out")
    with ending(env.submit()) as job:
        (pid,) = wait_for(tmp_path)
        os.kill(pid, signal.SIGKILL)
        assert ended_in(job, SOON) < SOON
        assert job.status == "failed"
        error = job.exception()
        assert isinstance(error, WorkerError)
        assert "the actor of source" in str(error)
        assert f"process {pid}" in str(error)
        assert "'work'" in notes(error)
    assert living_actors() == []


def test_a_killed_actor_is_replaced_by_a_new_attempt(tmp_path: Path) -> None:
    def work(n: int) -> int:
        if n == 50:
            begin(tmp_path)
        time.sleep(0.002)
        return n

    config = {"fault_tolerance": {"strategy": "fixed", "attempts": 2, "delay": 0.1}}
    env = on_ray(config=config)
    env.from_batch(range(300)).map(work, name="work").collect("out")
    with ending(env.submit()) as job:
        (pid,) = wait_for(tmp_path)
        os.kill(pid, signal.SIGKILL)
        job.wait(4 * LIMIT)
        assert list(job.results["out"]) == list(range(300))
        assert job.info.restart_count == 1


@pytest.mark.timeout(300)
def test_a_lost_cluster_fails_the_job_and_the_next_one_gets_another(losing: Losing) -> None:
    """What becomes of the process is looked at by `test_two_minutes`."""
    assert losing.said(3) == ["gcs_server ClusterError True True", "raylet ClusterError True True", "20"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("with_service", [pytest.param(False, marks=pytest.mark.long), True])
def test_a_lost_cluster_is_replaced_where_a_restart_was_asked_for(with_service: bool) -> None:
    """The services that were in its actors are made anew in the other one."""
    code = f"""
{DECLARE}
import psutil
from pathlib import Path
from sage_nb import BaseService

class Adds(BaseService):
    def process(self, n):
        return n + 1000

config = {{"fault_tolerance": {{"strategy": "fixed", "attempts": 1, "delay": 0.1}}}}
env = LocalEnvironment("anew", config, backend="ray")
if {with_service}:
    env.register_service("adds", Adds, remote=True)

def add(n):
    time.sleep(0.005)
    return call_service("adds", n) if {with_service} else n + 1000

env.from_batch(range(500)).map(add, name="add").collect("out")
job = env.submit()
while len(job.results["out"]) < 5:
    time.sleep(0.01)
(found,) = [one for one in psutil.Process().children() if Path(one.exe()).name == "gcs_server"]
found.kill()
job.wait(150)
print(list(job.results["out"]) == list(range(1000, 1500)), job.info.restart_count)
"""
    with Script(code) as script:
        code_, lines, err = script.end(200)
    assert code_ == 0, err
    assert "True 1" in lines, (lines, err)


@pytest.mark.timeout(240)
def test_a_ray_that_is_shut_down_by_the_user_fails_the_job_and_no_other_is_started() -> None:
    """Many functions of Ray start one, or join somebody's, where there is none."""
    code = f"""
{DECLARE}
import ray
env = declare()
env.register_service("echo", dict, remote=True)
job = env.submit()
while len(job.results["out"]) < 20:
    time.sleep(0.01)
ray.shutdown()
began = time.monotonic()
try:
    job.wait(60)
except Exception as exc:
    print(type(exc).__name__, "ray.shutdown() was called" in str(exc), time.monotonic() - began < {SOON})
print("initialized", ray.is_initialized())
print(len(declare(20).submit(autostop=True).results["out"]))
"""
    with Script(code) as script:
        code_, lines, err = script.end(6 * LIMIT)
    assert (code_, lines) == (0, ["ClusterError True True", "initialized False", "20"]), err
    assert "Traceback" not in err


def keyed(env: LocalEnvironment, work: Callable[[int], int]) -> None:
    """A shuffle: two instances of each stage, so four actors, and every item may go to either."""
    stream = env.from_batch(range(400)).map(lambda n: n, parallelism=2, name="spread")
    stream.keyby(lambda n: n % 7).map(work, parallelism=4, name="work").collect("out")


def work_until_killed(folder: Path, at: int) -> Callable[[int], int]:
    def work(n: int) -> int:
        if n >= at:
            begin(folder)
        time.sleep(0.003)
        return n

    return work


def test_an_actor_killed_amid_a_shuffle_is_named_soon_and_nothing_is_left(tmp_path: Path) -> None:
    env = on_ray()
    keyed(env, work_until_killed(tmp_path, 0))
    with ending(env.submit()) as job:
        pid = wait_for(tmp_path, 4)[0]
        os.kill(pid, signal.SIGKILL)
        assert ended_in(job, SOON) < SOON
        error = job.exception()
        assert isinstance(error, WorkerError)
        assert re.search(rf"the actor [1-4] of 4 of map 'work' \(process {pid}\) has died", str(error))
    assert living_actors() == []


@pytest.mark.long
def test_a_shuffle_whose_actor_was_killed_gives_all_results_after_a_restart(tmp_path: Path) -> None:
    env = on_ray(config={"fault_tolerance": {"strategy": "fixed", "attempts": 2, "delay": 0.1}})
    keyed(env, work_until_killed(tmp_path, 40))
    with ending(env.submit()) as job:
        os.kill(wait_for(tmp_path)[0], signal.SIGKILL)
        job.wait(8 * LIMIT)
        assert sorted(job.results["out"]) == list(range(400))
        assert job.info.restart_count == 1
    assert living_actors() == []


def test_a_killed_process_takes_its_ray_along() -> None:
    code = f"""
{DECLARE}
import psutil
env = declare()
job = env.submit()
while len(job.results["out"]) < 20:
    time.sleep(0.01)
for one in psutil.Process().children(recursive=True):
    print(one.pid)
print("running")
time.sleep(600)
"""
    with Script(code) as script:
        pids = [int(line) for line in script.wait_for("running")]
        script.kill()
        left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
        _, alive = psutil.wait_procs(left, timeout=LIMIT)
    assert len(pids) > 4
    assert not alive


def started(kernel: Kernel) -> None:
    kernel.run(DECLARE)
    kernel.run("env = declare(); job = env.submit()", timeout=2 * LIMIT)
    kernel.run("while len(job.results['out']) < 20: time.sleep(0.01)", timeout=2 * LIMIT)


def actors(kernel: Kernel) -> str | None:
    said = kernel.run(
        "from ray._private.state import actors; sum(one['State'] != 'DEAD' for one in actors().values())", timeout=LIMIT
    )
    return said.result


def test_an_interrupt_of_a_cell_that_waits_stops_the_job_and_reaches_no_actor(
    kernel: Callable[..., Kernel],
) -> None:
    one = kernel()
    started(one)
    assert actors(one) in ("2", "3")  # the source may be through
    waiting = one.start("print('waiting'); job.wait()")
    one.until(lambda: "waiting" in waiting.stdout)
    one.interrupt()
    one.wait(waiting, timeout=LIMIT)
    assert waiting.error is not None
    assert waiting.error[0] == "KeyboardInterrupt"
    assert one.run("job.stop().status", timeout=LIMIT).result == "'stopped'"
    assert actors(one) == "0"
    assert one.run("len(declare(20).submit(autostop=True).results['out'])", timeout=2 * LIMIT).result == "20"


def test_a_kernel_restart_leaves_nothing(kernel: Callable[..., Kernel]) -> None:
    one = kernel()
    started(one)
    before = psutil.Process(one.pid).children(recursive=True)
    assert len(before) > 4
    one.restart()
    _, alive = psutil.wait_procs(before, timeout=LIMIT)
    assert not alive
