"""The works by Bytewax, one worker, batches of 1,000."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.dataflow import Dataflow
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from benchmarks.measure import latency
from benchmarks.works import ints, keyed, windows, words
from benchmarks.works.sinks import Pairs, Sum

__all__ = ["WORKS"]

BATCH = 1_000
EPOCH = datetime.fromtimestamp(0, UTC)


class _Part(StatelessSourcePartition[Any]):
    def __init__(self, items: Iterable[Any]) -> None:
        self._items = iter(items)

    def next_batch(self) -> list[Any]:
        batch = list(islice(self._items, BATCH))
        if not batch:
            raise StopIteration
        return batch


class _Source(DynamicSource[Any]):
    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Part:
        return _Part(self._items)


class _Writer(StatelessSinkPartition[Any]):
    def __init__(self, put: Callable[[Any], None]) -> None:
        self._put = put

    def write_batch(self, items: list[Any]) -> None:
        put = self._put
        for item in items:
            put(item)


class _Sink(DynamicSink[Any]):
    def __init__(self, put: Callable[[Any], None]) -> None:
        self._put = put

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Writer:
        return _Writer(self._put)


def _begin(items: Iterable[Any]) -> tuple[Dataflow, Any]:
    flow = Dataflow("work")
    return flow, op.input("in", flow, _Source(items))


def w1() -> int:
    sink = Sum()
    flow, stream = _begin(range(ints.ITEMS))
    stream = op.map("add one", stream, ints.add_one)
    stream = op.filter("even", stream, ints.is_even)
    stream = op.map("triple", stream, ints.triple)
    op.output("out", stream, _Sink(sink.add))
    run_main(flow)
    return sink.total


def w2() -> int:
    def running(so_far: keyed.Pair | None, pair: keyed.Pair) -> tuple[keyed.Pair, keyed.Pair]:
        new = pair if so_far is None else keyed.add_values(so_far, pair)
        return new, new

    sink = Pairs()
    flow, stream = _begin(keyed.pairs())
    stream = op.key_on("key", stream, keyed.key_of)
    stream = op.stateful_map("sum", stream, running)
    stream = op.map("values", stream, lambda item: item[1])
    op.output("out", stream, _Sink(sink.add))
    run_main(flow)
    return sink.total


def w3(events: list[tuple[datetime, str]]) -> list[windows.Result]:
    fired: list[windows.Result] = []

    def put(item: tuple[str, tuple[int, int]]) -> None:
        key, (start, count) = item
        fired.append(windows.Result(key, float(start), start + 1.0, count))

    # Its watermark moves on with the system's clock as well: without some patience it drops items that are in order.
    clock = win.EventClock(windows.time_of, wait_for_system_duration=timedelta(seconds=10))
    flow, stream = _begin(events)
    tumbling = win.TumblingWindower(length=timedelta(seconds=1), align_to=EPOCH)
    counted = win.count_window("count", stream, clock, tumbling, windows.key_of)
    op.output("out", counted.down, _Sink(put))
    run_main(flow)
    return fired


def _w3_beside(runs: int) -> Any:
    """Bytewax takes datetimes only; it gets them ready-made."""
    events = [(EPOCH + timedelta(seconds=time), key) for time, key in windows.events()]
    return windows.beside(lambda: w3(events), runs)


def w4(path: Path) -> Counter[str]:
    sink = words.Counts()
    with open(path, encoding="utf-8") as lines:
        flow, stream = _begin(lines)
        stream = op.flat_map("split", stream, words.split)
        op.output("out", stream, _Sink(sink.add))
        run_main(flow)
    return sink.counts


def w4_keyed(path: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    with open(path, encoding="utf-8") as lines:
        flow, stream = _begin(lines)
        stream = op.flat_map("split", stream, words.split)
        stream = op.count_final("count", stream, words.word_itself)
        op.output("out", stream, _Sink(lambda pair: counts.update([pair])))
        run_main(flow)
    return counts


def w7() -> Callable[[], object]:
    flow, stream = _begin([1])
    op.output("out", stream, _Sink(lambda x: None))
    return lambda: run_main(flow)


WORKS = {
    "W1": partial(ints.beside, w1),
    "W2": partial(keyed.beside, w2),
    "W3": _w3_beside,
    "W4": partial(words.beside, w4),
    "W4k": partial(words.beside_keyed, w4_keyed),
    "W7": lambda runs: latency(w7),
}
