"""The works by Ray: W1 by Ray Data, W6 by tasks. Its local cluster is up when the clock starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
import ray.data

from benchmarks.measure import Figure
from benchmarks.works import cpu, ints
from benchmarks.works.sinks import Sum

__all__ = ["WORKS"]


def w1() -> int:
    rows = ray.data.range(ints.ITEMS)
    rows = rows.map(lambda row: {"x": ints.add_one(row["id"])})
    rows = rows.filter(lambda row: ints.is_even(row["x"]))
    rows = rows.map(lambda row: {"x": ints.triple(row["x"])})
    sink = Sum()
    for row in rows.iter_rows():
        sink.add(row["x"])
    return sink.total


def w6(pieces: list[int]) -> list[int]:
    spin: Any = ray.remote(cpu.spin)
    return list(ray.get([spin.remote(rounds) for rounds in pieces]))


def _with_cluster(beside: Callable[..., Figure], run: Callable[..., Any]) -> Callable[[int], Figure]:
    def measure(runs: int) -> Figure:
        ray.init(num_cpus=cpu.PROCESSES, include_dashboard=False, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        try:
            return beside(run, runs)
        finally:
            ray.shutdown()

    return measure


WORKS = {"W1": _with_cluster(ints.beside, w1), "W6": _with_cluster(cpu.beside, w6)}
