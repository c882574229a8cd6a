"""Many items at once, and files. Large libraries are loaded where they are used: workers load this module too."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from tests.parity.case import Cases
from tests.parity.items import Pair, Point

__all__ = ["cases"]

cases = Cases("batches")

ROWS: list[dict[str, Any]] = [{"k": "ab"[i % 2], "n": i} for i in range(25)]


class Sized:
    """Squares, and fails where it gets more at once than it should."""

    def __init__(self, most: int) -> None:
        self.most = most

    def execute(self, some: list[int]) -> list[int]:
        assert isinstance(some, list)
        assert 1 <= len(some) <= self.most
        return [one * one for one in some]


def doubled_array(array: Any) -> Any:
    assert type(array).__name__ == "ndarray"
    return array * 2


def with_square(frame: Any) -> Any:
    assert type(frame).__name__ == "DataFrame"
    return frame.assign(square=frame["n"] ** 2)


def evens(table: Any) -> Any:
    import pyarrow.compute as pc

    assert type(table).__name__ == "Table"
    return table.filter(pc.equal(pc.bit_wise_and(table["n"], 1), 0))


def read_csv(folder: Path) -> list[Any]:
    with open(folder / "out.csv", encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def read_jsonl(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def read_parquet(folder: Path) -> list[Any]:
    import pyarrow.parquet as pq

    return list(pq.read_table(folder / "out.parquet").to_pylist())


@cases.add([x * x for x in range(30)])
def lists_with_a_remainder(env: Any, p: int) -> Any:
    return env.from_batch(range(30)).map_batches(Sized, 7, size=7, parallelism=p)


@cases.add([x * x for x in range(9)])
def lists_of_one(env: Any, p: int) -> Any:
    return env.from_batch(range(9)).map_batches(Sized, 1, size=1, parallelism=p)


@cases.add([x * x for x in range(9)])
def a_size_above_the_number_of_items(env: Any, p: int) -> Any:
    return env.from_batch(range(9)).map_batches(Sized, most=1000, size=1000, parallelism=p)


@cases.add([0, 1, 4, 9, 16], scales=False)
def what_take_lets_pass_is_no_full_batch(env: Any, p: int) -> Any:
    return env.from_batch(range(100)).take(5).map_batches(Sized, 2, size=2)


@cases.add([x + 1 for x in range(10_000)])
def lists_of_any_size(env: Any, p: int) -> Any:
    return env.from_batch(range(10_000)).map_batches(lambda some: [x + 1 for x in some], parallelism=p)


@cases.add([45], scales=False)
def a_result_that_is_no_list_is_one_item(env: Any, p: int) -> Any:
    return env.from_batch(range(10)).map_batches(sum, size=100)


@cases.add([[0, 1, 2], [3, 4, 5], [6]], scales=False)
def a_list_within_a_list_is_an_item(env: Any, p: int) -> Any:
    return env.from_batch(range(7)).map_batches(lambda some: [some], size=3)


@cases.add([])
def none_is_no_item(env: Any, p: int) -> Any:
    return env.from_batch(range(30)).map_batches(lambda some: None, size=4, parallelism=p)


@cases.add([])
def no_batch_without_items(env: Any, p: int) -> Any:
    return env.from_batch([]).map_batches(Sized, 7, size=7, parallelism=p)


@cases.add([x * 2 for x in range(30)])
def arrays(env: Any, p: int) -> Any:
    return env.from_batch(range(30)).map_batches(doubled_array, size=8, format="numpy", parallelism=p)


@cases.add([x * 4 + 1 for x in range(1000)])
def an_array_through_two_of_them(env: Any, p: int) -> Any:
    import numpy as np

    stream = env.from_batch(np.arange(1000)).map_batches(doubled_array, size=128, format="numpy", parallelism=p)
    doubled = stream.map_batches(doubled_array, size=100, format="numpy", parallelism=p)
    return doubled.map(lambda x: int(x) + 1)


@cases.add([(i, i + 1) for i in range(0, 24, 2)])
def the_rows_of_a_table_of_numbers(env: Any, p: int) -> Any:
    import numpy as np

    stream = env.from_batch(np.arange(24).reshape(12, 2)).map_batches(lambda rows: rows, format="numpy", parallelism=p)
    return stream.map(lambda row: tuple(row.tolist()))


@cases.add([row | {"square": row["n"] ** 2} for row in ROWS])
def frames(env: Any, p: int) -> Any:
    return env.from_batch(ROWS).map_batches(with_square, size=10, format="pandas", parallelism=p)


@cases.add([row | {"square": row["n"] ** 2} for row in ROWS])
def the_rows_of_a_dataframe(env: Any, p: int) -> Any:
    import pandas as pd

    return env.from_dataframe(pd.DataFrame(ROWS)).map_batches(with_square, format="pandas", parallelism=p)


@cases.add([row for row in ROWS if row["n"] % 2 == 0])
def arrow_tables(env: Any, p: int) -> Any:
    return env.from_batch(ROWS).map_batches(evens, size=6, format="arrow", parallelism=p)


@cases.add([row | {"square": row["n"] ** 2} for row in ROWS if row["n"] % 2 == 0])
def a_table_then_a_frame(env: Any, p: int) -> Any:
    tables = env.from_batch(ROWS).map_batches(evens, size=9, format="arrow", parallelism=p)
    return tables.map_batches(with_square, size=4, format="pandas", parallelism=p)


@cases.add(
    [["x", "y"], *([str(x), str(-x)] for x in range(20))], files=True, read=read_csv, more={"n": list(range(20))}
)
def a_csv_file(env: Any, p: int, folder: Path) -> None:
    points = env.from_batch(range(20)).map(lambda x: Point(x, -x), parallelism=p)
    points.to_csv(folder / "out.csv").map(lambda point: point.x, parallelism=p).collect("n")


@cases.add([{"left": x, "right": "é"} for x in range(20)], files=True, read=read_jsonl)
def a_file_of_json_lines(env: Any, p: int, folder: Path) -> None:
    rows = env.from_batch(range(20)).map(lambda x: Pair(x, "é")._asdict(), parallelism=p)
    rows.to_jsonl(folder / "out.jsonl")


@cases.add(ROWS, files=True, read=read_parquet)
def a_parquet_file(env: Any, p: int, folder: Path) -> None:
    env.from_batch(ROWS).map(lambda row: row, parallelism=p).to_parquet(folder / "out.parquet", rows_per_group=7)
