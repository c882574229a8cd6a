"""Where items come from. Large libraries are loaded where they are used: workers load this module too."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_nb import BatchFunction, SourceFunction, StopSignal
from tests.parity.case import Cases

__all__ = ["cases"]

cases = Cases("source")


def squares_to(n: int, start: int = 0) -> Iterator[int]:
    for i in range(start, n):
        yield i * i


class CountTo(BatchFunction):
    """0, 1, ... until None."""

    def __init__(self, n: int, step: int = 1) -> None:
        self.items = iter(range(0, n, step))

    def execute(self) -> Any:
        return next(self.items, None)


class Stutters(SourceFunction):
    """Has nothing now and then, and says when it is at its end."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.calls = 0

    def execute(self) -> Any:
        self.calls += 1
        if self.calls > 2 * self.n:
            return StopSignal("done")
        return self.calls // 2 if self.calls % 2 == 0 else None


class Yields(SourceFunction):
    """A source whose execute is a generator."""

    def execute(self) -> Iterator[int]:
        yield from (3, 1, 2)


class Letters:
    """Any class that can be iterated."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __iter__(self) -> Iterator[str]:
        return iter(self.text)


class Next:
    """A callable that gives one item after the other, then `end`."""

    def __init__(self, n: int, end: Any) -> None:
        self.left, self.end = n, end

    def __call__(self) -> Any:
        self.left -= 1
        return self.left if self.left >= 0 else self.end


@cases.add([0, 10, 20, 30])
def a_list(env: Any, p: int) -> Any:
    return env.from_batch([0, 1, 2, 3]).map(lambda x: x * 10, parallelism=p)


@cases.add([x + 1 for x in range(1000)])
def a_range(env: Any, p: int) -> Any:
    return env.from_collection(range(1000)).map(lambda x: x + 1, parallelism=p)


@cases.add([(0,), (1,), (4,), (9,)])
def a_generator_function(env: Any, p: int) -> Any:
    return env.from_batch(squares_to, 4).map(lambda x: (x,), parallelism=p)


@cases.add([-4, -9, -16])
def a_generator_function_with_keywords(env: Any, p: int) -> Any:
    return env.from_source(squares_to, 5, start=2).map(lambda x: -x, parallelism=p)


@cases.add([0, 3, 6, 9])
def a_batch_class_that_ends_with_none(env: Any, p: int) -> Any:
    return env.from_batch(CountTo, 10, step=3).map(lambda x: x, parallelism=p)


@cases.add([1, 2, 3])
def none_from_a_batch_class_ends_an_unbounded_source_too(env: Any, p: int) -> Any:
    return env.from_source(CountTo, 3).map(lambda x: x + 1, parallelism=p)


@cases.add([1, 2, 3, 4])
def a_source_class_that_has_nothing_now_and_then(env: Any, p: int) -> Any:
    return env.from_source(Stutters, 4).map(lambda x: x, parallelism=p)


@cases.add([3, 1, 2])
def a_class_whose_execute_is_a_generator(env: Any, p: int) -> Any:
    return env.from_source(Yields).filter(lambda x: True, parallelism=p)


@cases.add(["A", "B", "C"])
def a_class_that_can_be_iterated(env: Any, p: int) -> Any:
    return env.from_batch(Letters, "abc").map(str.upper, parallelism=p)


@cases.add([3, 2, 1, 0])
def a_callable_until_none(env: Any, p: int) -> Any:
    return env.from_batch(Next(4, None)).map(lambda x: x, parallelism=p)


@cases.add([1, 0])
def a_callable_until_a_stop_signal(env: Any, p: int) -> Any:
    return env.from_source(Next(2, StopSignal())).map(lambda x: x, parallelism=p)


@cases.add(["ALPHA", "", "ÖMEGA ", "LAST"], files=True)
def the_lines_of_a_text(env: Any, p: int, folder: Path) -> Any:
    path = folder / "lines.txt"
    path.write_text("alpha\n\nömega \nlast", encoding="utf-8")
    return env.from_text(path).map(str.upper, parallelism=p)


@cases.add([{"city": "Oslo", "n": 2}, {"city": "Graz, Süd", "n": 3}], files=True)
def the_rows_of_a_zipped_csv(env: Any, p: int, folder: Path) -> Any:
    path = folder / "rows.csv.gz"
    path.write_bytes(gzip.compress('city,n\nOslo,1\n"Graz, Süd",2\n'.encode()))
    return env.from_csv(path).map(lambda row: row | {"n": int(row["n"]) + 1}, parallelism=p)


@cases.add([("a", 1, True), ("b", 2, False)])
def the_rows_of_a_dataframe(env: Any, p: int) -> Any:
    import pandas as pd

    frame = pd.DataFrame({"k": ["a", "b"], "n": [1, 2], "yes": [True, False]})
    return env.from_dataframe(frame).map(lambda row: (row["k"], row["n"], row["yes"]), parallelism=p)


@cases.add([(i, f"t{i}") for i in range(0, 100, 3)], files=True)
def the_rows_of_a_parquet_file(env: Any, p: int, folder: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "rows.parquet"
    table = pa.table({"i": list(range(100)), "t": [f"t{i}" for i in range(100)]})
    pq.write_table(table, path, row_group_size=30)
    rows = env.from_parquet(path).filter(lambda row: row["i"] % 3 == 0, parallelism=p)
    return rows.map(lambda row: (row["i"], row["t"]))


@cases.add([math.sqrt(x) for x in range(50)])
def an_array_item_by_item(env: Any, p: int) -> Any:
    import numpy as np

    return env.from_batch(np.arange(50)).map(lambda x: math.sqrt(x), parallelism=p)


@cases.add([])
def an_empty_list(env: Any, p: int) -> Any:
    return env.from_batch([]).map(lambda x: x, parallelism=p)


@cases.add([], alone="any")
def an_empty_generator_before_two_boundaries(env: Any, p: int) -> Any:
    return env.from_batch(squares_to, 0).map(lambda x: x, parallelism=p).filter(bool, parallelism=p + 1)


@cases.add([])
def an_empty_batch_class(env: Any, p: int) -> Any:
    return env.from_batch(CountTo, 0).flatmap(lambda x: [x, x], parallelism=p)


@cases.add([43])
def a_single_item(env: Any, p: int) -> Any:
    return env.from_batch([42]).map(lambda x: x + 1, parallelism=p)


@cases.add([True, False, True, False, True])
def nones_are_items(env: Any, p: int) -> Any:
    return env.from_batch([None, 0, None, "", None]).map(lambda x: x is None, parallelism=p)


@cases.add([None, None, None], alone="any")
def nones_pass_filters_and_boundaries(env: Any, p: int) -> Any:
    stream = env.from_batch([None, 1, None, 2, None]).filter(lambda x: x is None, parallelism=p)
    return stream.filter(lambda x: x != 1, parallelism=p + 1)


@cases.add([None, 0, None])
def nones_come_out_of_flatmaps(env: Any, p: int) -> Any:
    return env.from_batch([[None, 0], [], [None]]).flatmap(lambda x: x, parallelism=p)
