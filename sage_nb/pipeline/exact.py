"""Whether an Arrow array holds the values that it was made of.

Arrow makes a date of a datetime where the column is one of dates, an int of a float, and leaves out a field of a dict
that its type lacks. For most columns the types alone say that nothing of the kind can happen; else each value is
compared with what came of it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence, Set
from datetime import date, datetime, time, timedelta
from itertools import chain
from typing import Any

from sage_nb.pipeline.batches import is_chunk, rows

__all__ = ["is_exact", "is_missing", "lost"]

_EXACT: dict[str, Set[type]] = {
    "int64": {int},
    "double": {int, float},  # Arrow itself refuses an int that no float is equal to
    "bool": {bool},
    "string": {str},
    "binary": {bytes},
    "date32[day]": {date},
    "time64[us]": {time},
    "duration[us]": {timedelta},
}
"""By the name of Arrow's type, the types of which it keeps every value."""


def is_missing(value: Any) -> bool:
    """Whether it is one of pandas' own values for nothing."""
    return type(value).__name__ in ("NaTType", "NAType") and "pandas" in sys.modules


def is_exact(form: Any, values: Sequence[Any]) -> bool:
    """Whether the types alone say that an array of the type `form` holds these values; where not, it may still."""
    kinds = {float if issubclass(kind, float) else kind for kind in set(map(type, values))} - {type(None)}
    if kinds == {datetime}:
        zoned = {value.tzinfo is not None for value in values if value is not None}
        return str(form).startswith("timestamp[us") and zoned == {form.tz is not None}
    if kinds == {dict} and type(form).__name__ == "StructType":
        found = [value for value in values if value is not None]
        return set().union(*found) <= {field.name for field in form} and all(
            is_exact(field.type, [value.get(field.name) for value in found]) for field in form
        )
    if kinds and kinds <= {list, tuple} and type(form).__name__ == "ListType":
        return is_exact(form.value_type, list(chain.from_iterable(value for value in values if value is not None)))
    return kinds <= _EXACT.get(str(form), set())


def lost(array: Any, values: Sequence[Any]) -> Iterator[Any]:
    """The values that the array does not hold as they are."""
    return (value for value, kept in zip(values, array.to_pylist(), strict=True) if not _is_kept(value, kept))


def _is_kept(value: Any, kept: Any) -> bool:
    """Whether `kept`, which came out of an array, is what went in: NaN may be null, a field that lacks too."""
    if value is None or kept is None:
        return kept is None and (value is None or is_missing(value) or bool(value != value))
    if is_chunk(value) and not isinstance(value, list):
        value = rows(value)
    elif hasattr(value, "dtype") and hasattr(value, "item"):
        value = value.item()
    if isinstance(kept, dict):
        return (
            isinstance(value, dict)
            and value.keys() <= kept.keys()
            and all(_is_kept(value.get(name), one) for name, one in kept.items())
        )
    if isinstance(kept, list):
        return (
            isinstance(value, Iterable) and len(items := list(value)) == len(kept) and all(map(_is_kept, items, kept))
        )
    if isinstance(value, bool) is not isinstance(kept, bool):
        return False
    return bool(value == kept or (value != value and kept != kept))
