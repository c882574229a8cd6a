"""Columns by name: where an operator takes a function that gives a value of an item, and for the parts of tuples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sage_nb.errors import PipelineError
from sage_nb.pipeline.batches import record_of
from sage_nb.pipeline.spelling import nearest

__all__ = ["NO_FIELD", "Field", "Named", "as_function", "check_names"]

NO_FIELD = (KeyError, TypeError, IndexError)
"""What `item[name]` raises where there is none, or the item is none to look in."""


@dataclass(frozen=True, slots=True)
class Field:
    """`Field("store")(item)` is `item["store"]`, of a named tuple or dataclass its field `store`."""

    field: str

    @property
    def __name__(self) -> str:
        return self.field

    def __call__(self, item: Any) -> Any:
        try:
            return item[self.field]
        except NO_FIELD:
            record = record_of(item)
            if record is None:
                raise TypeError(
                    f"an item of type {type(item).__name__} has no column {self.field!r}; give a function of an item"
                ) from None
            if self.field not in record:
                raise KeyError(self._missing(record)) from None
            return record[self.field]

    def _missing(self, record: dict[Any, Any]) -> str:
        names = [str(name) for name in record]
        near = nearest(self.field, names)
        there = ", ".join(names[:50]) or "none"
        return f"no column {self.field!r}; there are: {there}" + (f"; did you mean {near!r}?" if near else "")


def as_function(given: Any) -> Any:
    """What is called with an item: a name stands for the column of that name."""
    return Field(given) if isinstance(given, str) else given


@dataclass(frozen=True, slots=True)
class Named:
    """`Named(("store", "total"))(("Rome", 3))` is `{"store": "Rome", "total": 3}`."""

    columns: tuple[str, ...]

    @property
    def __name__(self) -> str:
        return "named"

    def __call__(self, item: Any) -> dict[str, Any]:
        if not isinstance(item, (tuple, list)):
            raise TypeError(f"{self} names the parts of a tuple; this item is of type {type(item).__name__}")
        if len(item) != len(self.columns):
            raise ValueError(f"{self} names {len(self.columns)} parts; this item has {len(item)}")
        return dict(zip(self.columns, item, strict=True))

    def __str__(self) -> str:
        return f"named({', '.join(map(repr, self.columns))})"


def check_names(columns: tuple[Any, ...]) -> Named:
    """What names the parts of a tuple. Raises `PipelineError` where these are no names, or one is there twice."""
    if not columns:
        raise PipelineError("named: give a name for each part of an item, such as named('store', 'total')")
    for column in columns:
        if not isinstance(column, str) or not column.strip():
            hint = (
                "; give the names one by one, such as named('store', 'total')"
                if isinstance(column, (tuple, list))
                else ""
            )
            raise PipelineError(f"named: a column's name is a string of at least one character, not {column!r}{hint}")
    twice = next((column for n, column in enumerate(columns) if column in columns[:n]), None)
    if twice is not None:
        raise PipelineError(f"named: {twice!r} is there twice; each column needs a name of its own")
    return Named(columns)
