"""Items as rows of a table."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from decimal import Decimal
from typing import Any

import pytest

from sage_nb.engine.rows import cell_text, table_of
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


def test_columns_of_numbers_are_numeric_and_bools_are_not() -> None:
    assert table_of([{"n": 1, "x": 0.5, "b": True, "s": "1", "none": None}, {"n": None}])[1] == (
        *(True, True, False, False, False),
    )


def test_text_is_one_bounded_line() -> None:
    assert cell_text("a\n  b\tc") == "a b c"
    assert len(cell_text("x" * 10_000)) == 200
    assert cell_text(0.1 + 0.2) == "0.3"


def test_a_table_is_bounded_in_width() -> None:
    assert len(table_of([{str(n): n for n in range(500)}])[0]) == 50


# Frames as items


def frame_of(*numbers: int) -> Any:
    return pytest.importorskip("pandas").DataFrame({"n": list(numbers), "s": [f"é{n}" for n in numbers]})


def test_an_item_that_is_a_frame_is_shown_as_its_last_rows() -> None:
    columns, numeric, rows = table_of([frame_of(*range(100))])
    assert (columns, numeric) == (("n", "s"), (True, False))
    assert rows == tuple((str(n), f"é{n}") for n in range(90, 100))


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
        assert table_of([frame]) == (("a", "b"), (True, False), (("1", ""),))
    assert table_of([np.array([[1, 2], [3, 4]])]) == (("0", "1"), (True, True), (("1", "2"), ("3", "4")))
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
