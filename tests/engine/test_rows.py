"""Items as rows of a table."""

from __future__ import annotations

import base64
import dataclasses
import math
from collections import namedtuple
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from sage_nb.engine.rows import cell_text, frame_shape, picture_of, table_of
from tests.support import submitted

Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Half:
    a: int
    b: int = dataclasses.field(init=False)


class NoFormat(float):
    def __format__(self, spec: str) -> str:
        raise ValueError(spec)


class NoText(Decimal):
    def __str__(self) -> str:
        raise ValueError


class NoKeyText:
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("items", "columns", "rows"),
    [
        ([{"a": 1, "b": "x"}, {"b": "y", "c": None}], ("a", "b", "c"), (("1", "x", ""), ("", "y", ""))),
        ([Point(1, 2)], ("x", "y"), (("1", "2"),)),
        ([Half(1)], ("a", "b"), (("1", ""),)),
        ([(1, "x")], ("0", "1"), (("1", "x"),)),
        ([7, "x", None], ("value",), (("7",), ("x",), ("",))),
        ([], (), ()),
    ],
)
def test_fields_become_columns(items: list[Any], columns: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> None:
    assert (table_of(items)[0], table_of(items)[2]) == (columns, rows)


def test_columns_have_the_type_of_what_they_hold() -> None:
    """By that they are sorted and aligned; a column of several types, and one of nothing, are text."""
    noon = datetime(2025, 1, 1, 12)
    first = {"n": 1, "x": 0.5, "b": True, "s": "1", "none": None, "at": noon, "took": timedelta(1), "mixed": 1}
    assert table_of([first, {"n": None, "at": noon.date(), "mixed": "a", "b": None}])[1] == (
        *("number", "number", "bool", "text", "text", "time", "duration", "text"),
    )
    np = pytest.importorskip("numpy")
    of_numpy = {"n": np.int8(1), "b": np.bool_(True), "at": np.datetime64("2025-01-01"), "took": np.timedelta64(5, "s")}
    assert table_of([of_numpy])[1] == ("number", "bool", "time", "duration")


def test_text_is_one_bounded_line() -> None:
    assert cell_text("a\n  b\tc") == "a b c"
    assert len(cell_text("x" * 10_000)) == 200


def test_the_points_of_a_column_are_one_below_the_other() -> None:
    """Each number with its own digits, none made up."""
    _, _, rows = table_of([{"a": a} for a in (6.41, 8.7, 1_297_050.456789, 4, math.nan, 1e-9, 0.0, "x")])
    assert [cell for (cell,) in rows] == ["6.41", "8.70", "1297050.46", "4", "nan", "1e-09", "0.00", "x"]
    _, _, rows = table_of([(1 / 3,), (1_297_050.456789,)])
    assert rows == (("0.333333",), ("1297050.456789",))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1 + 0.2, "0.3"),
        (1 / 3, "0.333333"),
        (1_297_050.456, "1297050.46"),  # money
        (1_795_820_000.125, "1795820000.12"),  # seconds since the epoch
        (13.0, "13.0"),
        (-4.2, "-4.2"),
        (123.456789, "123.457"),
        (0.00012345678, "0.000123457"),
        (1.5e-7, "1.5e-07"),
        (2.5e18, "2.5e+18"),
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (999_999.999, "1000000.0"),
    ],
)
def test_a_number_is_shown_with_all_that_stands_before_its_point(value: float, text: str) -> None:
    assert cell_text(value) == text


def test_a_table_is_bounded_in_width() -> None:
    assert len(table_of([{str(n): n for n in range(500)}])[0]) == 50


# Frames as items


def frame_of(*numbers: int) -> Any:
    return pytest.importorskip("pandas").DataFrame({"n": list(numbers), "s": [f"é{n}" for n in numbers]})


def test_a_table_is_bounded_in_size_but_has_ten_rows() -> None:
    rows = table_of([{"text": "x" * 100, "n": n} for n in range(100)], 3_000)[2]
    assert [row[1] for row in rows] == [str(n) for n in range(80, 100)]  # 27 have room: a round number of them
    assert len(table_of([{"text": "x" * 100} for _ in range(100)], 0)[2]) == 10


def test_an_item_that_is_a_frame_is_shown_as_its_first_rows() -> None:
    columns, types, rows = table_of([frame_of(*range(100))])
    assert (columns, types) == (("n", "s"), ("number", "text"))
    assert rows == tuple((str(n), f"é{n}") for n in range(10))
    assert frame_shape(frame_of(*range(100))) == (100, 2)
    assert frame_shape([1, 2]) is None


def test_small_frames_are_shown_together() -> None:
    assert table_of([frame_of(*range(100)), frame_of(1, 2), frame_of(3)])[2] == (
        *((str(n), f"é{n}") for n in range(93, 100)),
        *(("1", "é1"), ("2", "é2"), ("3", "é3")),
    )


def test_only_the_frames_after_the_last_other_item_are_shown_as_tables() -> None:
    assert table_of([frame_of(1), 5, frame_of(2)])[2] == (("2", "é2"),)
    assert len(table_of([frame_of(1), 5])[2]) == 2


def test_every_kind_of_frame_is_shown_as_a_table() -> None:
    np, pa, pd = pytest.importorskip("numpy"), pytest.importorskip("pyarrow"), pytest.importorskip("pandas")
    table = pa.table({"a": [1], "b": [None]})
    for frame in (table, table.to_batches()[0]):
        assert frame_shape(frame) == (1, 2)
        assert table_of([frame]) == (("a", "b"), ("number", "text"), (("1", ""),))
    assert table_of([np.array([[1, 2], [3, 4]])]) == (("0", "1"), ("number", "number"), (("1", "2"), ("3", "4")))
    assert table_of([pd.Series([1, 2])])[::2] == (("value",), (("1",), ("2",)))
    keyed = frame_of(1, 1, 2).groupby("s")["n"].sum()
    assert table_of([keyed])[::2] == (("s", "n"), (("é1", "2"), ("é2", "2")))
    assert table_of([np.array([1, 2])])[2] == (("array([1, 2])",),)


def test_a_frame_that_has_no_table_is_shown_as_it_can_be() -> None:
    pd = pytest.importorskip("pandas")
    assert table_of([pd.DataFrame([[1, 2]], columns=["a", "a"])])[0] == ("value",)
    assert table_of([pd.DataFrame()]) == ((), (), ())


def test_a_wide_frame_is_bounded_too() -> None:
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    wide = np.zeros((1, 500))
    assert len(table_of([wide])[0]) == 50
    assert len(table_of([pd.DataFrame(wide)])[0]) == 50


def test_frames_are_shown_in_a_job_and_put_together_for_pandas() -> None:
    pd = pytest.importorskip("pandas")
    job = submitted(lambda env: env.from_batch([1, 2]).map(frame_of))
    assert job.snapshot().results[0].rows == (("1", "é1"), ("2", "é2"))
    pd.testing.assert_frame_equal(job.results["out"].to_pandas(), frame_of(1, 2))
    mixed = submitted(lambda env: env.from_batch([frame_of(1), 5])).results["out"].to_pandas()
    assert list(mixed.columns) == ["value"]


@pytest.mark.parametrize(
    "item", [Half(1), NoFormat(1.5), NoText("1.5"), {NoKeyText(): 1}], ids=lambda item: type(item).__name__
)
def test_an_item_that_cannot_be_shown_does_not_keep_a_job_from_ending(item: Any) -> None:
    job = submitted(lambda env: env.from_batch([item]))
    assert job.status == "completed"
    assert len(job.results["out"]) == 1
    assert job.snapshot().results[0].total == 1


# Pictures as items

DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class Dot:
    def __init__(self, data: Any = DOT) -> None:
        self.data = data

    def _repr_png_(self) -> Any:
        if isinstance(self.data, Exception):
            raise self.data
        return self.data


class Photo(Dot):
    def _repr_jpeg_(self) -> bytes:
        return b"jpeg"


class Figure:
    def savefig(self, file: Any, format: str, **_: Any) -> None:
        file.write(DOT if format == "png" else b"")


@pytest.mark.parametrize(
    "data", [DOT, base64.b64encode(DOT).decode(), (DOT, {"width": 1})], ids=["bytes", "text", "pair"]
)
def test_an_item_that_shows_itself_as_a_picture_is_one(data: Any) -> None:
    """Whatever form of it Jupyter takes; a figure is asked for its file."""
    address = f"data:image/png;base64,{base64.b64encode(DOT).decode()}"
    assert picture_of(Dot(data)) == address
    assert picture_of(Figure()) == address


def test_of_a_large_picture_the_smaller_file_is_taken_and_at_most_512_kilobytes() -> None:
    assert picture_of(Photo(b"x" * 200_000)) == "data:image/jpeg;base64," + base64.b64encode(b"jpeg").decode()
    assert picture_of(Dot(b"x" * 500_000)) is not None
    assert picture_of(Dot(b"x" * 600_000)) is None


@pytest.mark.parametrize("item", [5, "x", None, Dot(ValueError("no")), Dot(None), Dot(7), Dot, Figure])
def test_what_is_no_picture_or_fails_to_become_one_is_shown_as_text(item: Any) -> None:
    assert picture_of(item) is None
    assert len(table_of([item])[2]) == 1


def test_the_newest_picture_of_a_result_is_in_the_snapshot_and_made_once() -> None:
    made = []

    class Counted(Dot):
        def _repr_png_(self) -> bytes:
            made.append(self)
            return DOT

    job = submitted(lambda env: env.from_batch([1, 2]).map(Counted))
    before = len(made)
    assert [job.snapshot().results[0].picture is not None for _ in range(3)] == [True] * 3
    assert len(made) - before <= 1
    assert made[-1].data == 2
