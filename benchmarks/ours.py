"""The works by sage_nb, and what only it is asked for: a live view that costs nothing, memory that stays flat."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measure import latency
from benchmarks.memory import through_boundaries, through_one_loop
from benchmarks.viewing import view_on_and_off
from benchmarks.works import arrays, awaits, cpu, ints, keyed, windows, words
from benchmarks.works.sinks import Pairs, Sum
from sage_nb import LocalEnvironment, Tumbling

__all__ = ["WORKS"]

PLAIN = {"inline": False}


def w1(config: dict[str, Any] | None = None) -> int:
    sink = Sum()
    env = LocalEnvironment("w1", config=config)
    env.from_batch(range(ints.ITEMS)).map(ints.add_one).filter(ints.is_even).map(ints.triple).sink(sink.add)
    env.submit(autostop=True)
    return sink.total


def w2() -> int:
    sink = Pairs()
    env = LocalEnvironment("w2")
    env.from_batch(keyed.pairs()).keyby(keyed.key_of).reduce(keyed.add_values).sink(sink.add)
    env.submit(autostop=True)
    return sink.total


def w3() -> list[windows.Result]:
    fired: list[windows.Result] = []
    env = LocalEnvironment("w3")
    stream = env.from_batch(windows.events()).keyby(windows.key_of)
    stream.window(Tumbling(1), event_time=windows.time_of).count().sink(fired.append)
    env.submit(autostop=True)
    return fired


def w4(path: Path) -> dict[str, int]:
    sink = words.Counts()
    env = LocalEnvironment("w4")
    env.from_text(path).flatmap(words.split).sink(sink.add)
    env.submit(autostop=True)
    return sink.counts


def w4_keyed(path: Path) -> dict[str, int]:
    sink = words.Latest()
    env = LocalEnvironment("w4")
    env.from_text(path).flatmap(words.split).keyby(words.word_itself).count().sink(sink.put)
    env.submit(autostop=True)
    return sink.counts


def w5() -> int:
    sink = Sum()
    env = LocalEnvironment("w5")
    env.from_batch(range(awaits.ITEMS)).map_async(awaits.nap, concurrency=awaits.AT_ONCE).sink(sink.add)
    env.submit(autostop=True)
    return sink.total


def w6(pieces: list[int]) -> list[int]:
    results: list[int] = []
    env = LocalEnvironment("w6")
    env.from_batch(pieces).map(cpu.spin, executor="process", parallelism=cpu.PROCESSES).sink(results.append)
    env.submit(autostop=True)
    return results


class _Service:
    def setup(self) -> None:
        self.up = True

    def process(self, x: int) -> int:
        return x

    def cleanup(self) -> None:
        self.up = False


def w7(*, service: bool) -> Callable[[], object]:
    env = LocalEnvironment("w7")
    if service:
        env.register_service("s", _Service)
    env.from_batch([1]).sink(lambda x: None)
    return lambda: env.submit(autostop=True)


def thread() -> None:
    """What every job does besides its work: begin a thread, and hear of its end."""
    ended = threading.Event()
    threading.Thread(target=ended.set, daemon=True).start()
    ended.wait()


def w8(array: Any) -> int:
    sink = Sum()
    env = LocalEnvironment("w8")
    stream = env.from_batch(array).map_batches(arrays.add_one, size=arrays.SIZE, format="numpy")
    for step in (arrays.evens, arrays.triple, arrays.total):
        stream = stream.map_batches(step, format="numpy")
    stream.sink(sink.add)
    env.submit(autostop=True)
    return sink.total


WORKS = {
    "W1": partial(ints.beside, partial(w1, PLAIN)),
    "W1i": partial(ints.beside, w1),
    "W2": partial(keyed.beside, w2),
    "W3": partial(windows.beside, w3),
    "W4": partial(words.beside, w4),
    "W4k": partial(words.beside_keyed, w4_keyed),
    "W5": partial(awaits.beside, w5),
    "W6": partial(cpu.beside, w6),
    "W6m": cpu.beside_bare,
    "W7": lambda runs: latency(partial(w7, service=False)),
    "W7s": lambda runs: latency(partial(w7, service=True)),
    "W7m": lambda runs: latency(lambda: thread),
    "W8": partial(arrays.beside, w8),
    "view": view_on_and_off,
    "memory": lambda runs: through_one_loop(),
    "memory2": lambda runs: through_boundaries(),
}
