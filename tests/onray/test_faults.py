"""Processes of a real Ray are killed: what the job says, what is left, and whether the next one runs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from sage_nb.errors import WorkerError
from tests.faults.support import begin, ended_in, ending, notes, wait_for
from tests.kernels import Kernel
from tests.onray.support import SOON, living_actors, on_ray
from tests.support import LIMIT, Script

DECLARE = """
import os, time
from sage_nb import LocalEnvironment, call_service

def slowly(n):
    time.sleep(0.01)
    return n, os.getpid()

def declare(count=100_000, **options):
    env = LocalEnvironment("slow", backend="ray", **options)
    env.from_batch(range(count)).map(slowly, parallelism=2, name="slowly").collect("out")
    return env
"""


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
def test_a_lost_cluster_fails_the_job_and_the_process_lives_on() -> None:
    """Ray would end the process a minute later; a new job gets a new Ray."""
    code = f"""
{DECLARE}
import psutil, ray
from pathlib import Path

def lose(program):
    env = declare()
    job = env.submit()
    while len(job.results["out"]) < 20:
        time.sleep(0.01)
    (found,) = [one for one in psutil.Process().children() if Path(one.exe()).name == program]
    found.kill()
    began = time.monotonic()
    try:
        job.wait(60)
    except Exception as exc:
        print(program, type(exc).__name__, "the Ray cluster is lost" in str(exc), time.monotonic() - began < {SOON})

lose("gcs_server")
began = time.monotonic()
lose("raylet")
print(len(declare(20).submit(autostop=True).results["out"]))
time.sleep(max(0, 65 - (time.monotonic() - began)))
print("lives", len(declare(20).submit(autostop=True).results["out"]))
"""
    with Script(code) as script:
        code_, lines, err = script.end(8 * LIMIT)
    expected = ["gcs_server ClusterError True True", "raylet ClusterError True True", "20", "lives 20"]
    assert (code_, [line for line in lines if line in expected]) == (0, expected), (lines, err)  # Ray says more


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
