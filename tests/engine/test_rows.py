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


@pytest.mark.parametrize(
    "item", [Half(1), NoFormat(1.5), NoText("1.5"), {NoKeyText(): 1}], ids=lambda item: type(item).__name__
)
def test_an_item_that_cannot_be_shown_does_not_keep_a_job_from_ending(item: Any) -> None:
    job = submitted(lambda env: env.from_batch([item]))
    assert job.status == "completed"
    assert len(job.results["out"]) == 1
    assert job.snapshot().results[0].total == 1
