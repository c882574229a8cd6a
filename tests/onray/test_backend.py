"""Pipelines on a real Ray: where they run, what they ask for, what they say, and what is left of them."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from sage_nb import LocalEnvironment, MapFunction
from sage_nb.engine.onray.actor import ActorConnection, unpacked
from sage_nb.engine.wire import Say, pack, unpack
from sage_nb.errors import ClusterError, PipelineError
from tests.faults.support import ending
from tests.onray.support import living_actors, on_ray
from tests.support import LIMIT, Script, counts, endless, until


def test_a_linear_pipeline_is_one_actor() -> None:
    env = on_ray()
    stream = env.from_batch(range(6)).map(lambda n: (n, os.getpid()))
    stream.filter(lambda pair: pair[0] % 2).map(lambda pair: (*pair, os.getpid())).collect("out")
    assert "Stage 1 · an actor" in str(env.explain())
    assert "cut: back in the kernel" in str(env.explain())
    out = list(env.submit(autostop=True).results["out"])
    assert [n for n, _, _ in out] == [1, 3, 5]
    (process,) = {first for _, first, _ in out} | {second for _, _, second in out}
    assert process != os.getpid()
    assert living_actors() == []


def test_instances_are_actors_of_their_own() -> None:
    env = on_ray()
    env.from_batch(range(400)).keyby(lambda n: n).map(lambda n: os.getpid(), parallelism=2).collect("pids")
    job = env.submit(autostop=True)
    assert len(set(job.results["pids"])) == 2
    by_name = {op.name: op for op in job.snapshot().operators}
    assert (by_name["map"].executor, by_name["map"].parallelism) == ("actor", 2)
    assert job.snapshot().backend == "ray"


def test_a_process_executor_is_a_pool_of_actors_that_keeps_the_order() -> None:
    def slowest_first(n: int) -> tuple[int, int]:
        time.sleep(0.02 if n % 8 == 0 else 0)
        return n, os.getpid()

    env = on_ray()
    env.from_batch(range(64)).map(slowest_first, executor="process", parallelism=2).collect("out")
    out = list(env.submit(autostop=True).results["out"])
    assert [n for n, _ in out] == list(range(64))
    assert len({pid for _, pid in out}) == 2


def test_operators_that_ask_for_different_resources_are_different_actors() -> None:
    env = on_ray()
    stream = env.from_batch(range(3)).map(lambda n: os.getpid())
    stream.map(lambda pid: (pid, os.getpid()), ray={"num_cpus": 1}).map(lambda pair: (*pair, os.getpid())).collect(
        "out"
    )
    assert "cut: asks for other resources" in str(env.explain())
    for first, second, third in env.submit(autostop=True).results["out"]:
        assert first != second == third


def test_what_the_cluster_can_never_give_is_refused_at_once() -> None:
    env = on_ray()
    env.from_batch(range(3)).map(lambda n: n, name="embed", ray={"num_gpus": 64}).collect("out")
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"map 'embed' asks for GPU: 64 × 1; .* the Ray on this machine has 0"):
        env.submit(autostop=True)
    assert time.monotonic() - began < LIMIT


def test_an_accelerator_that_is_not_there_is_refused_at_once() -> None:
    env = on_ray()
    env.from_batch(range(3)).map(lambda n: n, name="embed", ray={"accelerator_type": "A100"}).collect("out")
    with pytest.raises(ClusterError, match=r"map 'embed' asks for accelerator_type:A100: .* this machine has 0"):
        env.submit(autostop=True)


def test_a_job_whose_actors_wait_for_a_place_says_so_and_stops_at_once() -> None:
    """On a cluster that is not ours a node may come that has it: nothing is refused. A stop does not wait for it."""
    code = """
import ray, time
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
from sage_nb import LocalEnvironment
from sage_nb.engine.onray import hosting
hosting.PLACE_WITHIN = 0.5

def wait_in_vain(env):
    job = env.submit()
    while not job.snapshot().notes:
        time.sleep(0.01)
    began = time.monotonic()
    job.stop()
    print(job.status, time.monotonic() - began < 5)
    print(job.snapshot().notes[0])

env = LocalEnvironment("embeds", backend="ray")
env.from_batch(range(3)).map(lambda n: n, name="embed", ray={"num_gpus": 2}).collect("out")
wait_in_vain(env)
env = LocalEnvironment("served")
env.register_service("model", dict, remote=True, ray={"resources": {"tpu": 1}})
env.from_batch(range(3)).collect("out")
wait_in_vain(env)
ray.shutdown()
"""
    with Script(code) as script:
        code_, lines, err = script.end(4 * LIMIT)
    waits = "has waited 0.5 s for a place, and waits on: it asks for"
    assert (code_, lines) == (
        0,
        [
            "stopped True",
            f"the actor of map 'embed' {waits} GPU: 2 on one node, of 0 in all, 0 free",
            "stopped True",
            f"the actor of service 'model' {waits} tpu: 1 on one node, of 0 in all, 0 free",
        ],
    ), err


def test_what_the_cluster_says_goes_to_the_log_of_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    """Ray prints it, and a kernel puts that below whatever cell is the newest."""
    gate = threading.Event()
    env = on_ray()
    env.from_batch(range(3)).map(lambda n: n).sink(lambda n: gate.wait(LIMIT), executor="thread")
    with ending(env.submit()) as job:
        until(lambda: job.status == "running", 4 * LIMIT)
        worker = ray._private.worker.global_worker
        ray._private.utils.publish_error_to_driver("worker_pool_large", "too many", gcs_client=worker.gcs_client)
        until(lambda: any(line.source == "ray" and line.text == "too many" for line in job.logs()))
        gate.set()
        job.wait()
    assert job.snapshot().notes == ()
    assert "too many" not in capsys.readouterr().out


def test_what_is_not_heard_in_the_kernel_holds_an_actor() -> None:
    """One that prints without end fills neither memory nor the object store."""
    connection = ActorConnection()
    parcels = connection.parcels()
    for n in range(64):
        connection.send(Say.OUTPUT, pack(str(n)))
        assert [unpack(*buffers) for _, buffers in unpacked(next(parcels))] == [(str(n),)]
    connection.send(Say.OUTPUT, pack("held"))
    held = threading.Thread(target=lambda: next(parcels), daemon=True)
    held.start()
    held.join(0.3)
    assert held.is_alive()
    connection.take([(Say.HEARD, [bytearray(pack(1))])])
    held.join(LIMIT)
    assert not held.is_alive()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_gpu": 1}, "ray has no option 'num_gpu'; did you mean 'num_gpus'"),
        ({"num_cpus": "two"}, "ray's num_cpus is a number, 0 or more, not 'two'"),
        ({"num_cpus": -1}, "ray's num_cpus is a number, 0 or more, not -1"),
        ({"resources": ["tpu"]}, "ray's resources is a dict of names and amounts"),
        ({"scheduling_strategy": "SPRAED"}, "ray has no scheduling_strategy 'SPRAED'; did you mean 'SPREAD'"),
        ({"max_restarts": 2}, "ray has no option 'max_restarts'"),
        ("spread", "ray is a dict of options such as"),
    ],
)
def test_options_that_make_no_sense_are_refused_where_they_are_declared(options: Any, said: str) -> None:
    with pytest.raises(PipelineError, match=said):
        on_ray().from_batch(range(3)).map(lambda n: n, ray=options)


def test_on_other_backends_the_options_of_ray_mean_nothing() -> None:
    env = LocalEnvironment("here")
    env.from_batch(range(3)).map(lambda n: n + 1, ray={"num_gpus": 8}).collect("out")
    assert list(env.submit(autostop=True).results["out"]) == [1, 2, 3]


def test_prints_and_logs_reach_the_job(capsys: pytest.CaptureFixture[str]) -> None:
    class Talks(MapFunction):
        def execute(self, n: int) -> int:
            print(f"printed {n}")
            self.logger.warning("logged %d", n)
            return n

        def close(self) -> None:
            print("printed at the end")
            os.write(2, b"written past Python\n")

    env = on_ray()
    env.from_batch(range(2)).map(Talks).collect("out")
    job = env.submit(autostop=True)
    printed = capsys.readouterr().out
    assert [printed.count(text) for text in ("printed 0\n", "printed 1\n", "at the end\n", "past Python\n")] == [1] * 4
    assert [line.text for line in job.logs() if line.level == "WARNING"] == ["logged 0", "logged 1"]


def test_an_error_keeps_its_type_its_item_and_its_line() -> None:
    class Refused(ValueError):
        pass

    def check(n: int) -> int:
        if n == 3:
            raise Refused(f"not {n}")
        return n

    env = on_ray()
    env.from_batch(range(5)).map(check, name="check").collect("out")
    with pytest.raises(Refused, match="not 3") as caught:
        env.submit(autostop=True)
    notes = "\n".join(caught.value.__notes__)
    assert "operator 'check' (map)" in notes
    assert "test_backend.py" in notes
    assert "on the item 3" in notes


def test_arrays_arrive_whole_and_can_be_written_to() -> None:
    def change(array: Any) -> Any:
        array += 1
        return array

    env = on_ray()
    env.from_batch([np.zeros(200_000), np.zeros(3)]).map(change).map(change, parallelism=2).collect("out")
    out = sorted(env.submit(autostop=True).results["out"], key=len)
    assert [array.tolist() == [2.0] * len(array) for array in out] == [True, True]
    out[1][0] = 5.0


def test_a_slow_sink_holds_the_source_back_by_bytes() -> None:
    """Items of a megabyte: only some are under way at a time, however many a channel would hold."""

    def megabytes() -> Iterator[Any]:
        for n in range(1000):
            yield np.full(131_072, n)

    gate = threading.Event()
    env = on_ray()
    stream = env.from_batch(megabytes, name="megabytes").map(lambda array: int(array[0]))
    stream.map(lambda n: np.full(131_072, n)).sink(lambda array: gate.wait(LIMIT), executor="thread", name="slow")
    job = env.submit()
    try:
        until(lambda: counts(job)["slow"][0] > 0)
        before = -1
        while before != (now := counts(job)["megabytes"][1]):
            before = now
            time.sleep(1.0)  # longer than counts take to come
        assert now < 400
    finally:
        gate.set()
        job.stop()


def test_a_stop_ends_an_endless_stream_soon_and_leaves_nothing() -> None:
    env = on_ray()
    env.from_source(endless).map(lambda n: n, parallelism=2).collect("out")
    job = env.submit()
    until(lambda: len(job.results["out"]) > 100)
    began = time.monotonic()
    assert job.stop().status == "stopped"
    assert time.monotonic() - began < LIMIT / 3
    assert living_actors() == []


def test_a_stop_while_ray_starts_does_not_wait_for_it() -> None:
    code = """
import time
from sage_nb import LocalEnvironment
env = LocalEnvironment("early", backend="ray")
env.from_batch(range(3)).collect("out")
env.from_source(lambda: 1).map(lambda n: n).collect("more")
job = env.submit()
while job.snapshot().waiting_for != "Ray to start":
    assert job.status == "starting"
began = time.monotonic()
job.stop()
print(job.status, time.monotonic() - began < 1.5)
env.submit()
env.job.stop()
"""
    with Script(code) as script:
        assert script.end(3 * LIMIT)[:2] == (0, ["stopped True"])


def test_a_job_says_that_it_waits_for_its_actors() -> None:
    env = on_ray()
    env.from_batch(range(3)).map(lambda n: n, parallelism=2).collect("out")
    job = env.submit()
    seen: set[str | None] = set()
    until(lambda: seen.add(job.snapshot().waiting_for) or job.status != "starting")  # type: ignore[func-returns-value]
    job.wait()
    assert seen & {"3 actors to start", "2 actors to start", "an actor to start"}


def test_files_and_folders_are_those_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGE_NB_TEST", "seen")
    env = on_ray()
    env.from_batch(range(2)).map(lambda n: f"{n} {os.environ['SAGE_NB_TEST']} {os.getcwd()}").to_jsonl("out.jsonl")
    env.submit(autostop=True)
    assert (tmp_path / "out.jsonl").read_text() == f'"0 seen {tmp_path}"\n"1 seen {tmp_path}"\n'


def test_without_ray_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(PipelineError, match=r"^backend='ray' needs ray: pip install sage-nb\[ray\]$"):
        on_ray()
    with pytest.raises(PipelineError, match=r"remote=True needs ray: pip install sage-nb\[ray\]$"):
        LocalEnvironment("here").register_service("model", dict, remote=True)


def test_a_ray_that_runs_in_the_process_is_used_and_left_as_it_was() -> None:
    code = """
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, configure_logging=False)
before = ray.get_runtime_context().gcs_address
from sage_nb import LocalEnvironment
env = LocalEnvironment("theirs", backend="ray")
env.from_batch(range(3)).map(lambda n: n + 1).collect("out")
print(list(env.submit(autostop=True).results["out"]))
other = LocalEnvironment("other", {"ray": {"address": "10.0.0.1:6379"}}, backend="ray")
other.from_batch(range(3)).map(lambda n: n + 1).collect("out")
try:
    other.submit(autostop=True)
except Exception as exc:
    print(type(exc).__name__, "leave the address out" in str(exc))
print(ray.is_initialized(), ray.get_runtime_context().gcs_address == before)
ray.shutdown()
"""
    with Script(code) as script:
        code_, lines, err = script.end(3 * LIMIT)
    assert (code_, lines) == (0, ["[1, 2, 3]", "ClusterError True", "True True"]), err


def test_an_address_that_nobody_answers_at_fails_the_job() -> None:
    code = """
from sage_nb import LocalEnvironment
env = LocalEnvironment("nobody", {"ray": {"address": "127.0.0.1:1"}}, backend="ray")
env.from_batch(range(3)).map(lambda n: n + 1).collect("out")
try:
    env.submit(autostop=True)
except Exception as exc:
    print(type(exc).__name__, exc)
"""
    with Script(code) as script:
        assert script.end(3 * LIMIT)[:2] == (
            0,
            ["ClusterError Ray at 127.0.0.1:1 cannot be reached: Connection refused"],
        )


@pytest.mark.long
def test_a_private_ray_ends_when_nobody_has_used_it_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import threading, time, psutil, ray
from sage_nb.engine.onray import cluster
from sage_nb import LocalEnvironment
cluster.IDLE = 1.0
def run():
    env = LocalEnvironment("idle", backend="ray")
    env.from_batch(range(3)).map(lambda n: n + 1).collect("out")
    return list(env.submit(autostop=True).results["out"])
print(run())
deadline = time.monotonic() + 30
while (ray.is_initialized() or psutil.Process().children()) and time.monotonic() < deadline:
    time.sleep(0.05)
print(ray.is_initialized(), psutil.Process().children())
print(run())
"""
    with Script(code) as script:
        assert script.end(4 * LIMIT)[:2] == (0, ["[1, 2, 3]", "False []", "[1, 2, 3]"])


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_job_that_comes_while_the_private_ray_ends_gets_another() -> None:
    code = """
import threading, ray
from sage_nb.engine.onray import cluster
from sage_nb import LocalEnvironment
begun, submitted = threading.Event(), threading.Event()
shutdown = ray.shutdown
def late(*args, **kw):
    begun.set()
    submitted.wait(60)
    shutdown(*args, **kw)
def submit():
    env = LocalEnvironment("late", backend="ray")
    env.from_batch(range(3)).map(lambda n: n + 1).collect("out")
    return env.submit()
submit().wait()
ray.shutdown = late
cluster.IDLE = 0.0
begun.wait(60)
job = submit()
submitted.set()
job.wait()
print(list(job.results["out"]))
"""
    with Script(code) as script:
        code_, lines, err = script.end(6 * LIMIT)
    assert (code_, lines) == (0, ["[1, 2, 3]"]), err


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(PipelineError, match="ray is a dict such as"):
        on_ray(config={"ray": "auto"})
