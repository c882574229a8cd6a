"""The works on Ray, beside what people write by hand with it. Its local cluster is up when the clock starts.

Actors are started before the clock as well, on both sides: a source that waits holds the job back until it runs.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray

from benchmarks.measure import Figure
from benchmarks.works import cpu, ints
from benchmarks.works.sinks import Sum
from sage_nb import DataStream, LocalEnvironment, call_service

__all__ = ["WORKS"]

BATCH = 1000
AHEAD = 16
CALLS = 1000


class Held:
    """A job whose source waits for `go`, so that its actors are there before the clock starts."""

    def __init__(self, items: Iterable[Any], declare: Callable[[DataStream], None]) -> None:
        self._items = items
        self._go = threading.Event()
        env = LocalEnvironment("held", backend="ray")
        declare(env.from_batch(self._waiting()))
        self._job = env.submit()
        while self._job.status == "starting":
            time.sleep(0.01)

    def _waiting(self) -> Iterator[Any]:
        self._go.wait()
        yield from self._items

    def run(self) -> None:
        self._go.set()
        self._job.wait()


class Chain:
    """R1: a million integers through two actors, each of which adds one."""

    def __init__(self) -> None:
        step: Any = ray.remote(num_cpus=0)(Step)
        self._first, self._second = step.remote(), step.remote()
        ray.get(self._second.step.remote(self._first.step.remote([0])))

    def by_hand(self) -> int:
        pending: deque[Any] = deque()
        sink = Sum()
        for start in range(0, ints.ITEMS, BATCH):
            batch = list(range(start, start + BATCH))
            pending.append(self._second.step.remote(self._first.step.remote(batch)))
            while len(pending) > AHEAD:
                for item in ray.get(pending.popleft()):
                    sink.add(item)
        while pending:
            for item in ray.get(pending.popleft()):
                sink.add(item)
        return sink.total

    def measure(self, runs: int) -> Figure:
        waiting: list[tuple[Held, Sum]] = []

        def run() -> int:
            held, sink = waiting.pop()
            held.run()
            return sink.total

        return _turns(run, self.by_hand, lambda: waiting.append(self._held()), runs)

    def _held(self) -> tuple[Held, Sum]:
        sink = Sum()

        def declare(stream: DataStream) -> None:
            first = stream.map(ints.add_one, ray={"num_cpus": 0.01})  # what asks for something else is another actor
            first.map(ints.add_one, ray={"num_cpus": 0.02}).sink(sink.add, executor="thread")

        return Held(range(ints.ITEMS), declare), sink


class Step:
    def step(self, batch: list[int]) -> list[int]:
        return [ints.add_one(item) for item in batch]


def _turns(run: Callable[[], Any], by_hand: Callable[[], Any], prepare: Callable[[], None], runs: int) -> Figure:
    """As `side_by_side`, with something to prepare before each run that the clock does not see."""
    times: list[float] = []

    def timed() -> Any:
        prepare()
        began = time.perf_counter()
        result = run()
        times.append(time.perf_counter() - began)
        return result

    hands: list[float] = []

    def hand() -> Any:
        began = time.perf_counter()
        result = by_hand()
        hands.append(time.perf_counter() - began)
        return result

    wanted = hand()
    for _ in range(runs + 1):
        if timed() != wanted:
            raise AssertionError("the two do not agree")
        hand()
    ours, theirs = times[1:], hands[2:]
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    return Figure(
        statistics.median(ours), runs, statistics.median(theirs), statistics.median(ratios), ratios[0], ratios[-1]
    )


def pool(runs: int) -> Figure:
    """R2: W6 in two actors that keep the order."""
    rounds = cpu.calibrate()
    pieces = [rounds + n for n in range(cpu.PIECES)]
    waiting: list[tuple[Held, list[int]]] = []

    def prepare() -> None:
        found: list[int] = []

        def declare(stream: DataStream) -> None:
            spun = stream.map(cpu.spin, executor="process", parallelism=cpu.PROCESSES)
            spun.sink(found.append, executor="thread")

        waiting.append((Held(pieces, declare), found))

    def run() -> list[int]:
        held, found = waiting.pop()
        held.run()
        return found

    return _turns(run, lambda: [cpu.spin(n) for n in pieces], prepare, runs)


class Service:
    def process(self, x: int) -> int:
        return x + 1


def call(runs: int) -> Figure:
    """R3: calls of a service in an actor, each beside a call of a bare actor."""
    actor: Any = ray.remote(num_cpus=0)(Service).remote()
    ray.get(actor.process.remote(1))
    medians: list[tuple[float, float]] = []

    def compare(_: int) -> None:
        ours, bare = [], []
        for _ in range(CALLS):
            ours.append(_seconds(partial(call_service, "service", 1)))
            bare.append(_seconds(lambda: ray.get(actor.process.remote(1))))
        medians.append((statistics.median(ours), statistics.median(bare)))

    for _ in range(runs + 1):
        env = LocalEnvironment("call")
        env.register_service("service", Service, remote=True)
        env.from_batch([0]).sink(compare)
        env.submit(autostop=True)
    ratios = sorted(a / b for a, b in medians[1:])
    ours, bare = (statistics.median(values) for values in zip(*medians[1:], strict=True))
    return Figure(ours, runs * CALLS, bare, statistics.median(ratios), ratios[0], ratios[-1])


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def beside_ray_data(runs: int) -> Figure:
    """R4: W1; every item comes from the kernel, and goes back there. Ray Data's workers are up from its first run."""
    import ray.data

    from benchmarks.peers.ray import w1

    ray.data.DataContext.get_current().enable_progress_bars = False
    waiting: list[tuple[Held, Sum]] = []

    def prepare() -> None:
        sink = Sum()

        def declare(stream: DataStream) -> None:
            stream.map(ints.add_one).filter(ints.is_even).map(ints.triple).sink(sink.add, executor="thread")

        waiting.append((Held(range(ints.ITEMS), declare), sink))

    def run() -> int:
        held, sink = waiting.pop()
        held.run()
        return sink.total

    return _turns(run, w1, prepare, runs)


def _with_cluster(measure: Callable[[int], Figure]) -> Callable[[int], Figure]:
    def measured(runs: int) -> Figure:
        ray.init(
            address="local", num_cpus=cpu.PROCESSES, include_dashboard=False, log_to_driver=False,
            configure_logging=False,
        )  # fmt: skip
        try:
            return measure(runs)
        finally:
            ray.shutdown()

    return measured


WORKS = {
    "R1": _with_cluster(lambda runs: Chain().measure(runs)),
    "R2": _with_cluster(pool),
    "R2m": cpu.beside_bare,
    "R3": _with_cluster(call),
    "R4": _with_cluster(beside_ray_data),
}
