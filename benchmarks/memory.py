"""How far this process's resident memory moves while 20 M items pass. Each is measured in a process of its own."""

from __future__ import annotations

import psutil

from benchmarks.measure import Figure
from sage_nb import LocalEnvironment

__all__ = ["through_boundaries", "through_one_loop"]

ITEMS = 20_000_000
_EVERY = 0.25
_WARM_UP = 4
"""Samples before the one that the others are compared with: one second, in which buffers and pools fill."""


def through_one_loop() -> Figure:
    """A linear pipeline, half of whose items pass a `flatmap`."""
    env = LocalEnvironment("memory")
    stream = env.from_batch(iter(range(ITEMS))).map(lambda x: (x, str(x))).filter(lambda pair: pair[0] % 3)
    stream.flatmap(lambda pair: [pair, pair]).show("last", rows=5)
    return _sampled(env)


def through_boundaries() -> Figure:
    """Two operators of two instances each: every item is handed over three times, the last time to the sink."""
    env = LocalEnvironment("memory")
    stream = env.from_batch(iter(range(ITEMS))).map(lambda x: (x, str(x)), parallelism=2)
    stream.map(lambda pair: pair[0], parallelism=2).show("last", rows=5)
    return _sampled(env)


def _sampled(env: LocalEnvironment) -> Figure:
    process = psutil.Process()
    job = env.submit()
    seen: list[int] = []
    running = True
    while running:
        try:
            job.wait(_EVERY)
            running = False
        except TimeoutError:
            pass
        seen.append(process.memory_info().rss)
    if len(seen) < 2 * _WARM_UP:
        raise RuntimeError(
            f"the job ended after {len(seen)} samples of its memory, which say nothing; give it more items"
        )
    first, *later = seen[_WARM_UP - 1 :]
    return Figure(max(abs(rss - first) for rss in later) / 1e6, runs=1)
