"""The works by streamz. It has no keyed state: the running sums are a dict in `accumulate`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from streamz import Stream

from benchmarks.measure import latency
from benchmarks.works import awaits, ints, keyed, words
from benchmarks.works.sinks import Pairs, Sum

__all__ = ["WORKS"]


def w1() -> int:
    sink = Sum()
    source = Stream()
    source.map(ints.add_one).filter(ints.is_even).map(ints.triple).sink(sink.add)
    for x in range(ints.ITEMS):
        source.emit(x)
    return sink.total


def w2() -> int:
    def update(sums: dict[str, keyed.Pair], pair: keyed.Pair) -> tuple[dict[str, keyed.Pair], keyed.Pair]:
        name = keyed.key_of(pair)
        if name in sums:
            pair = keyed.add_values(sums[name], pair)
        sums[name] = pair
        return sums, pair

    sink = Pairs()
    source = Stream()
    source.accumulate(update, returns_state=True, start={}).sink(sink.add)
    for pair in keyed.pairs():
        source.emit(pair)
    return sink.total


def w4(path: Path) -> Counter[str]:
    sink = words.Counts()
    source = Stream()
    source.map(words.split).flatten().sink(sink.add)
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            source.emit(line)
    return sink.counts


def w5() -> int:
    return asyncio.run(_naps())


def w4_keyed(path: Path) -> dict[str, int]:
    def count(counts: dict[str, int], word: str) -> tuple[dict[str, int], tuple[str, int]]:
        key = words.word_itself(word)
        n = counts[key] = counts.get(key, 0) + 1
        return counts, (key, n)

    sink = words.Latest()
    source = Stream()
    source.map(words.split).flatten().accumulate(count, returns_state=True, start={}).sink(sink.put)
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            source.emit(line)
    return sink.counts


async def _naps() -> int:
    sink = Sum()
    all_done = asyncio.Event()
    left = awaits.ITEMS

    def put(x: int) -> None:
        nonlocal left
        sink.add(x)
        left -= 1
        if not left:
            all_done.set()

    source = Stream(asynchronous=True)
    naps = source.map_async(awaits.nap, parallelism=awaits.AT_ONCE)
    naps.sink(put)
    for x in range(awaits.ITEMS):
        await source.emit(x)
    await all_done.wait()
    naps.stop()
    return sink.total


def w7() -> Callable[[], object]:
    source = Stream()
    source.sink(lambda x: None)
    return lambda: source.emit(1)


WORKS = {
    "W1": partial(ints.beside, w1),
    "W2": partial(keyed.beside, w2),
    "W4": partial(words.beside, w4),
    "W4k": partial(words.beside_keyed, w4_keyed),
    "W5": partial(awaits.beside, w5),
    "W7": lambda runs: latency(w7),
}
