"""The works by Dask, on a local cluster in this process, which is up when the clock starts."""

from __future__ import annotations

from collections.abc import Callable

from dask.distributed import Client

from benchmarks.measure import Figure, latency

__all__ = ["WORKS"]


def w7(runs: int) -> Figure:
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None) as client:

        def declare() -> Callable[[], object]:
            return lambda: client.submit(lambda x: None, 1, pure=False).result()

        return latency(declare)


WORKS = {"W7": w7}
