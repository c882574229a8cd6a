"""Items as rows of a table: what fields an item has, and each value as short text."""

from __future__ import annotations

import numbers
import time
import weakref
from datetime import date, timedelta
from datetime import time as clock
from typing import Any

from sage_nb.engine.failure import safe_repr, safe_text
from sage_nb.pipeline.batches import columns, is_frame, length, narrowed, record_of, split

__all__ = ["as_record", "cell_text", "table_of"]


def as_record(item: Any) -> dict[str, Any] | None:
    """The item's fields by name, or None where it has no names for them."""
    record = record_of(item)
    return None if record is None else {str(key): value for key, value in record.items()}


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
_MAX_COLUMNS = 50
_FRAME_ROWS = 10


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
        elif isinstance(value, (date, clock, timedelta)) or type(value).__name__ in ("datetime64", "timedelta64"):
            text = str(value)
        else:
            text = _quick_repr(value) if not isinstance(value, numbers.Number) else str(value)
    except Exception:  # noqa: BLE001 - a user's number may raise anything
        text = _quick_repr(value)
    text = " ".join(text.split()) if any(c in text for c in "\n\r\t") else text
    return safe_text(text, limit)


def _last_rows(items: list[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for item in reversed(items):
        if len(found) >= _FRAME_ROWS or not is_frame(item):
            break
        try:
            found[:0] = _frame_rows(item, _FRAME_ROWS - len(found))
        except Exception:  # noqa: BLE001 - a frame of the user's, shown as it can be
            found[:0] = [{"value": item}]
    return found


def _frame_rows(frame: Any, count: int) -> list[dict[str, Any]]:
    held = length(frame)
    part = columns(narrowed(split(frame, max(0, held - count), held), _MAX_COLUMNS))
    names = [str(name) for name in part]
    return [dict(zip(names, row, strict=True)) for row in zip(*part.values(), strict=True)]


def table_of(items: list[Any]) -> tuple[tuple[str, ...], tuple[bool, ...], tuple[tuple[str, ...], ...]]:
    """Column names, which columns are numeric, and the rows as text. At most 50 columns, in at most about 0.25 s.

    Each item is a row. But where the last item is a frame, the rows are its last ones, and those of the frames right
    before it where it has few.
    """
    records = [_fields(item) for item in items] if not items or not is_frame(items[-1]) else _last_rows(items)
    names = list(dict.fromkeys(name for record in records for name in record))[:_MAX_COLUMNS]
    numeric = tuple(
        all(isinstance(r[c], numbers.Number) and not isinstance(r[c], bool) for r in records if r.get(c) is not None)
        and any(r.get(c) is not None for r in records)
        for c in names
    )
    stop_at = time.perf_counter() + _TABLE_TIME
    rows = tuple(
        tuple(cell_text(record.get(c)) if time.perf_counter() < stop_at else "…" for c in names) for record in records
    )
    return tuple(safe_text(c, 100) for c in names), numeric, rows
