"""The works by aiostream."""

from __future__ import annotations

import asyncio
from functools import partial

from aiostream import stream

from benchmarks.works import awaits
from benchmarks.works.sinks import Sum

__all__ = ["WORKS"]


async def _naps() -> int:
    sink = Sum()
    source = stream.iterate(range(awaits.ITEMS))
    naps = stream.map(source, awaits.nap, ordered=True, task_limit=awaits.AT_ONCE)
    async with naps.stream() as results:
        async for result in results:
            sink.add(result)
    return sink.total


def w5() -> int:
    return asyncio.run(_naps())


WORKS = {"W5": partial(awaits.beside, w5)}
