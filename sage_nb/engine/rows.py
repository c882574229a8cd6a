"""Items as rows of a table: what fields an item has, and each value as short text."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

from sage_nb.engine.failure import safe_repr

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


def cell_text(value: Any, limit: int = 200) -> str:
    """A value as the text of a table's cell, on one line."""
    if value is None:
        return ""
    try:
        if isinstance(value, str):
            text = value
        elif isinstance(value, float):
            text = f"{value:.6g}"
        else:
            text = safe_repr(value) if not isinstance(value, numbers.Number) else str(value)
    except Exception:  # noqa: BLE001 - a user's number may raise anything
        text = safe_repr(value)
    text = " ".join(text.split()) if any(c in text for c in "\n\r\t") else text
    return text if len(text) <= limit else text[: limit - 1] + "…"


def table_of(items: list[Any]) -> tuple[tuple[str, ...], tuple[bool, ...], tuple[tuple[str, ...], ...]]:
    """Column names, which columns are numeric, and the rows as text. At most 50 columns."""
    records = [_fields(item) for item in items]
    columns = list(dict.fromkeys(name for record in records for name in record))[:50]
    numeric = tuple(
        all(isinstance(r[c], numbers.Number) and not isinstance(r[c], bool) for r in records if r.get(c) is not None)
        and any(r.get(c) is not None for r in records)
        for c in columns
    )
    rows = tuple(tuple(cell_text(record.get(c)) for c in columns) for record in records)
    return tuple(columns), numeric, rows
