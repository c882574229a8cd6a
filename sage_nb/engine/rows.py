"""Items as rows of a table: what fields an item has, and each value as short text."""

from __future__ import annotations

import dataclasses
import numbers
import time
import weakref
from typing import Any

from sage_nb.engine.failure import safe_repr, safe_text

__all__ = ["as_record", "cell_text", "table_of"]


def as_record(item: Any) -> dict[str, Any] | None:
    """The item's fields by name, or None where it has no names for them."""
    if isinstance(item, dict):
        return {str(key): value for key, value in item.items()}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return dict(zip(item._fields, item, strict=False))
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return {f.name: getattr(item, f.name, None) for f in dataclasses.fields(item)}
    return None


def _fields(item: Any) -> dict[str, Any]:
    try:
        record = as_record(item)
    except Exception:  # noqa: BLE001 - keys and attributes of a user's object may raise anything
        record = None
    if record is not None:
        return record
    if isinstance(item, (tuple, list)) and 1 <= len(item) <= 20:
        return {str(n): value for n, value in enumerate(item)}
    return {"value": item}


_slow_types: weakref.WeakSet[type] = weakref.WeakSet()
_SLOW = 0.05
_TABLE_TIME = 0.25


def _quick_repr(value: Any) -> str:
    """`repr(value)`, but of a type whose repr() has taken more than 50 ms only the type's name."""
    kind = type(value)
    if kind in _slow_types:
        return f"<{kind.__name__}>"
    began = time.perf_counter()
    text = safe_repr(value)
    if time.perf_counter() - began > _SLOW and kind.__module__ != "builtins":
        _slow_types.add(kind)
    return text


def cell_text(value: Any, limit: int = 200) -> str:
    """A value as the text of a table's cell, on one line."""
    if value is None:
        return ""
    try:
        if isinstance(value, str):
            text = value[: 2 * limit]
        elif isinstance(value, float):
            text = f"{value:.6g}"
        else:
            text = _quick_repr(value) if not isinstance(value, numbers.Number) else str(value)
    except Exception:  # noqa: BLE001 - a user's number may raise anything
        text = _quick_repr(value)
    text = " ".join(text.split()) if any(c in text for c in "\n\r\t") else text
    return safe_text(text, limit)


def table_of(items: list[Any]) -> tuple[tuple[str, ...], tuple[bool, ...], tuple[tuple[str, ...], ...]]:
    """Column names, which columns are numeric, and the rows as text. At most 50 columns, in at most about 0.25 s."""
    records = [_fields(item) for item in items]
    columns = list(dict.fromkeys(name for record in records for name in record))[:50]
    numeric = tuple(
        all(isinstance(r[c], numbers.Number) and not isinstance(r[c], bool) for r in records if r.get(c) is not None)
        and any(r.get(c) is not None for r in records)
        for c in columns
    )
    stop_at = time.perf_counter() + _TABLE_TIME
    rows = tuple(
        tuple(cell_text(record.get(c)) if time.perf_counter() < stop_at else "…" for c in columns) for record in records
    )
    return tuple(safe_text(c, 100) for c in columns), numeric, rows
