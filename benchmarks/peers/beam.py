"""The works by Apache Beam on its local FnApiRunner.

That is what `DirectRunner` takes for these pipelines where there is no Prism, which is a program to download.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from benchmarks.works import ints, keyed, windows, words
from benchmarks.works.sinks import Pairs, Sum

__all__ = ["WORKS"]

_put: Callable[[Any], object] = print
"""What the sink calls. Beam pickles what it is given, so that only a module's global is the same one behind it."""


def _write(item: Any) -> None:
    _put(item)


class _Items(beam.PTransform):  # type: ignore[misc]
    """A source that makes its items where it runs: `Create` would encode each, and take longer than all the rest."""

    def __init__(self, items: Callable[[], Iterable[Any]]) -> None:
        super().__init__()
        self._items = items

    def expand(self, begin: Any) -> Any:
        items = self._items
        return begin | beam.Impulse() | beam.FlatMap(lambda _: items())


def _run(put: Callable[[Any], object], *steps: Any) -> None:
    global _put
    _put = put
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        stream: Any = pipeline
        for n, step in enumerate((*steps, beam.Map(_write))):
            stream = stream | f"step {n}" >> step


def w1() -> int:
    sink = Sum()
    _run(
        sink.add,
        _Items(lambda: range(ints.ITEMS)),
        beam.Map(ints.add_one),
        beam.Filter(ints.is_even),
        beam.Map(ints.triple),
    )
    return sink.total


class _Running(beam.DoFn):  # type: ignore[misc]
    SUM = beam.transforms.userstate.ReadModifyWriteStateSpec("sum", beam.coders.PickleCoder())

    def process(self, item: tuple[str, keyed.Pair], sum: Any = beam.DoFn.StateParam(SUM)) -> Any:  # noqa: B008 - Beam's way
        so_far, pair = sum.read(), item[1]
        if so_far is not None:
            pair = keyed.add_values(so_far, pair)
        sum.write(pair)
        yield pair


def w2() -> int:
    sink = Pairs()
    _run(
        sink.add,
        _Items(keyed.pairs),
        beam.WithKeys(keyed.key_of),
        beam.ParDo(_Running()),
    )
    return sink.total


def _result(item: tuple[str, int], window: Any = beam.DoFn.WindowParam) -> windows.Result:
    key, count = item
    return windows.Result(key, float(window.start), float(window.end), count)


def w3() -> list[windows.Result]:
    fired: list[windows.Result] = []
    _run(
        fired.append,
        _Items(windows.events),
        beam.Map(lambda event: TimestampedValue(event, windows.time_of(event))),
        beam.WindowInto(FixedWindows(1)),
        beam.Map(windows.key_of),
        beam.combiners.Count.PerElement(),
        beam.Map(_result),
    )
    return fired


def w4(path: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    _run(
        lambda pair: counts.update([pair]),
        beam.io.ReadFromText(str(path)),
        beam.FlatMap(words.split),
        beam.combiners.Count.PerElement(),
    )
    return counts


WORKS = {
    "W1": partial(ints.beside, w1),
    "W2": partial(keyed.beside, w2),
    "W3": partial(windows.beside, w3),
    "W4k": partial(words.beside_keyed, w4),
}
