"""A column by its name, where an operator takes a function that gives a value of an item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sage_nb.pipeline.batches import record_of
from sage_nb.pipeline.spelling import nearest

__all__ = ["NO_FIELD", "Field", "as_function"]

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
