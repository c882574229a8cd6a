"""W5: 2,000 awaits of 10 ms, 100 of them at once. No one can be faster than 0.2 s."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks.measure import Figure, side_by_side
from benchmarks.works.sinks import Sum

__all__ = ["AT_ONCE", "ITEMS", "beside", "nap"]

ITEMS = 2_000
AT_ONCE = 100


async def nap(x: int) -> int:
    await asyncio.sleep(0.01)
    return x


def by_hand() -> int:
    return asyncio.run(_gather())


async def _gather() -> int:
    gate = asyncio.Semaphore(AT_ONCE)
    sink = Sum()

    async def one(x: int) -> int:
        async with gate:
            return await nap(x)

    for result in await asyncio.gather(*map(one, range(ITEMS))):
        sink.add(result)
    return sink.total


def beside(run: Callable[[], int], runs: int) -> Figure:
    return side_by_side(run, by_hand, runs)
