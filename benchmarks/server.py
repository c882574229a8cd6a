"""Jobs on a JobManager server on this machine, which is up, and has a runner warm, when the clock starts."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil

from benchmarks.measure import Figure
from sage_nb import BaseService, Job, RemoteEnvironment, call_service

__all__ = ["WORKS"]

ITEMS = 1_000_000
MANY = 20_000_000
SUBMITS = 30
PACED = 200
PAUSE = 0.01
_EVERY = 0.25
_WARM_UP = 4
_SERVER = """
import logging, sys
from pathlib import Path
from sage_nb.remote.server import serve
from sage_nb.remote.settings import Settings
serve(Settings(port=0, warm=2, state=Path(sys.argv[1])), lambda serving: print(serving.port, flush=True))
"""


@contextlib.contextmanager
def server() -> Iterator[tuple[int, int]]:
    """A server in a process of its own: its port, and its process id."""
    with tempfile.TemporaryDirectory() as state:
        process = subprocess.Popen([sys.executable, "-c", _SERVER, state], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline()), process.pid
        finally:
            process.terminate()
            process.wait()


def environment(port: int) -> RemoteEnvironment:
    """One to submit from, once a runner is warm."""
    env = RemoteEnvironment("measured", port=port)
    while env.jobmanager.get_server_info()["warm"] < 2:
        time.sleep(0.05)
    time.sleep(0.1)  # what the last one left has ended
    return env


class Counting(BaseService):
    def setup(self) -> None:
        self.count = 0

    def process(self, item: Any) -> Any:
        self.count += 1
        return item

    def cleanup(self) -> None:
        self.count = 0


def submit(runs: int) -> Figure:
    """S1: from the submit of a job of one item to its return, cleaned up."""

    def once(port: int) -> float:
        env = environment(port)
        env.from_batch([1]).collect("out")
        began = time.perf_counter()
        job = env.submit(autostop=True)
        took = time.perf_counter() - began
        assert job.results["out"] == [1]
        return took

    return _each(once, SUBMITS)


def end(runs: int) -> Figure:
    """S2: from the last item's end in the operator to the return of the submit, with a service that is cleaned up."""

    def once(port: int) -> float:
        env = environment(port)
        env.register_service("counting", Counting)
        env.from_batch(range(100)).map(lambda item: (call_service("counting", item), time.time())).collect("out")
        job = env.submit(autostop=True)
        returned = time.time()
        return float(returned - job.results["out"][-1][1])

    return _each(once, SUBMITS)


def paced() -> Iterator[float]:
    for _ in range(PACED):
        time.sleep(PAUSE)
        yield time.time()


def item(runs: int) -> Figure:
    """S3: from an item's emission to its being in the results here; 100 items a second."""

    def seen(job: Job) -> list[float]:
        found: list[float] = []
        arrived = threading.Event()
        result = job.results["out"]
        append = result.extend

        def extend(items: Any) -> None:
            now = time.time()
            items = list(items)
            found.extend(now - sent for sent in items)
            append(items)
            arrived.set()

        result.extend = extend  # type: ignore[method-assign]
        job.wait()
        return found

    with server() as (port, _):
        env = environment(port)
        env.from_batch(paced).collect("out")
        times = sorted(seen(env.submit())[1:])
    return _latency(times)


def throughput(runs: int) -> Figure:
    """S4: a million ints, collected here; from the submit to the return."""

    def once(port: int) -> float:
        env = environment(port)
        env.from_batch(range(ITEMS)).collect("out")
        began = time.perf_counter()
        job = env.submit(autostop=True)
        took = time.perf_counter() - began
        assert len(job.results["out"]) == ITEMS
        assert job.results["out"][ITEMS - 1] == ITEMS - 1
        return took

    return _each(once, runs)


def memory(runs: int) -> Figure:
    """S5: how far the server's resident memory moves while 20 M items pass through it, in MB."""
    with server() as (port, pid):
        process = psutil.Process(pid)
        env = environment(port)
        env.from_batch(range(MANY)).collect("out")
        job = env.submit()
        seen: list[int] = []
        while not job._dispatcher.done.wait(_EVERY):
            seen.append(process.memory_info().rss)
        seen.append(process.memory_info().rss)
        assert len(job.results["out"]) == MANY
    first, *later = seen[min(_WARM_UP, len(seen) // 2) - 1 :]
    return Figure(max(abs(rss - first) for rss in later) / 1e6, runs=1)


def _each(once: Callable[[int], float], runs: int) -> Figure:
    with server() as (port, _):
        times = [once(port) for _ in range(runs + 2)][2:]
    return _latency(sorted(times))


def _latency(times: list[float]) -> Figure:
    return Figure(statistics.median(times), len(times), high=times[int(len(times) * 0.95)])


WORKS = {"S1": submit, "S2": end, "S3": item, "S4": throughput, "S5": memory}
