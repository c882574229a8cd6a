"""The works by Pathway: items come by a Python connector, the text by its own reader, results leave by `subscribe`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pathway as pw
from pathway.internals.parse_graph import G

from benchmarks.works import ints, keyed, windows, words
from benchmarks.works.sinks import Sum

__all__ = ["WORKS"]


class _Int(pw.Schema):
    x: int


class _Pair(pw.Schema):
    key: str
    value: int


class _Event(pw.Schema):
    time: float
    key: str


class _Rows(pw.io.python.ConnectorSubject):
    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        super().__init__()
        self._rows = rows

    def run(self) -> None:
        for row in self._rows:
            self.next(**row)


def _read(rows: Iterable[dict[str, Any]], schema: Any) -> Any:
    return pw.io.python.read(_Rows(rows), schema=schema, autocommit_duration_ms=1_000)


def _run(table: Any, put: Callable[[dict[str, Any]], object]) -> None:
    """`put` gets the rows that are still valid at the end, or all, where none was ever replaced."""
    pw.io.subscribe(table, on_change=lambda key, row, time, is_addition: put(row) if is_addition else None)
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    G.clear()


def w1() -> int:
    sink = Sum()
    table = _read(({"x": x} for x in range(ints.ITEMS)), _Int)
    table = table.select(x=pw.apply_with_type(ints.add_one, int, pw.this.x))
    table = table.filter(pw.apply_with_type(ints.is_even, bool, pw.this.x))
    table = table.select(x=pw.apply_with_type(ints.triple, int, pw.this.x))
    _run(table, lambda row: sink.add(row["x"]))
    return sink.total


def w2() -> list[keyed.Pair]:
    """Sums that change are emitted once per commit, not once per item, and by its own adder."""
    sums: dict[str, int] = {}
    table = _read(({"key": key, "value": value} for key, value in keyed.pairs()), _Pair)
    table = table.groupby(pw.this.key).reduce(pw.this.key, total=pw.reducers.sum(pw.this.value))
    _run(table, lambda row: sums.update({row["key"]: row["total"]}))
    return list(sums.items())


def w3() -> list[windows.Result]:
    counts: dict[tuple[str, float], int] = {}

    def put(row: dict[str, Any]) -> None:
        counts[row["key"], row["start"]] = row["count"]

    table = _read(({"time": time, "key": key} for time, key in windows.events()), _Event)
    tumbling = pw.temporal.tumbling(duration=1.0, origin=0.0)
    table = table.windowby(pw.this.time, window=tumbling, instance=pw.this.key).reduce(
        key=pw.this._pw_instance, start=pw.this._pw_window_start, count=pw.reducers.count()
    )
    _run(table, put)
    return [windows.Result(key, start, start + 1.0, count) for (key, start), count in counts.items()]


def w4(path: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    table = pw.io.plaintext.read(str(path), mode="static")
    table = table.select(word=pw.apply_with_type(words.split, list[str], pw.this.data)).flatten(pw.this.word)
    table = table.groupby(pw.this.word).reduce(pw.this.word, count=pw.reducers.count())
    _run(table, lambda row: counts.update({row["word"]: row["count"]}))
    return counts


WORKS = {
    "W1": partial(ints.beside, w1),
    "W2": partial(keyed.beside_final, w2),
    "W3": partial(windows.beside, w3),
    "W4k": partial(words.beside_keyed, w4),
}
