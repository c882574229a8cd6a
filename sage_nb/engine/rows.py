"""Items as rows of a table: what fields an item has, and each value as short text."""

from __future__ import annotations

import base64
import io
import math
import numbers
import time
import weakref
from collections.abc import Iterable
from datetime import date, timedelta
from datetime import time as clock
from typing import Any, Literal

from sage_nb.engine.failure import safe_repr, safe_text
from sage_nb.pipeline.batches import columns, is_frame, length, narrowed, row_of, split

__all__ = ["ColumnType", "as_record", "cell_text", "frame_shape", "picture_of", "table_of"]

ColumnType = Literal["number", "text", "time", "duration", "bool"]


def as_record(item: Any) -> dict[str, Any] | None:
    """The item's fields by name, those of a tuple by position; or None where it has none."""
    record = row_of(item)
    return None if record is None else {str(key): value for key, value in record.items()}


def _fields(item: Any) -> dict[str, Any]:
    try:
        record = as_record(item)
    except Exception:  # noqa: BLE001 - keys and attributes of a user's object may raise anything
        record = None
    return {"value": item} if record is None else record


_slow_types: weakref.WeakSet[type] = weakref.WeakSet()
_SLOW = 0.05
_TABLE_TIME = 0.25
_MAX_COLUMNS = 50
_FRAME_ROWS = 10
_FEWER_ROWS = (100, 50, 20, 10)
_PIXELS = 800
_SMALL_PICTURE, _LARGEST_PICTURE = 1 << 16, 1 << 19


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


def cell_text(value: Any, limit: int = 200, decimals: int = 0) -> str:
    """A value as the text of a table's cell, on one line; a float with so many decimals at least."""
    if value is None:
        return ""
    try:
        if isinstance(value, str):
            text = value[: 2 * limit]
        elif isinstance(value, float):
            text = _float_text(value, decimals)
        elif isinstance(value, (date, clock, timedelta)) or type(value).__name__ in ("datetime64", "timedelta64"):
            text = str(value)
        else:
            text = _quick_repr(value) if not isinstance(value, numbers.Number) else str(value)
    except Exception:  # noqa: BLE001 - a user's number may raise anything
        text = _quick_repr(value)
    text = " ".join(text.split()) if any(c in text for c in "\n\r\t") else text
    return safe_text(text, limit)


def _float_text(value: float, decimals: int = 0) -> str:
    """Six figures, and of a large number all before the point and two behind it; with so many decimals at least."""
    size = abs(value)
    if value and not 1e-4 <= size < 1e15:  # also NaN
        return f"{value:.6g}"
    most = max(2, 5 - math.floor(math.log10(size))) if value else 1
    whole, _, rest = f"{value:.{max(most, decimals)}f}".partition(".")
    return f"{whole}.{rest[:decimals] + rest[decimals:].rstrip('0') or '0'}"


def _decimals(values: Iterable[Any]) -> int:
    """How many decimals the floats of a column need, so that their points are one below the other."""
    texts = [_float_text(value) for value in values if type(value) is float or type(value).__name__ == "float64"]
    return max((len(text.partition(".")[2]) for text in texts if "e" not in text), default=0)


def _last_rows(items: list[Any]) -> list[dict[str, Any]]:
    """The first rows of the newest frame; where it has few, also those of the frames right before it."""
    found: list[dict[str, Any]] = []
    for item in reversed(items):
        if len(found) >= _FRAME_ROWS or not _is_table(item):
            break
        try:
            found[:0] = _frame_rows(item, _FRAME_ROWS - len(found), last=bool(found))
        except Exception:  # noqa: BLE001 - a frame of the user's, shown as it can be
            found[:0] = [{"value": item}]
    return found


def _frame_rows(frame: Any, count: int, *, last: bool) -> list[dict[str, Any]]:
    held = length(frame)
    start = max(0, held - count) if last else 0
    if not is_frame(frame):
        found = frame[:, :_MAX_COLUMNS][start : start + count].to_dicts()
        return [{str(name): value for name, value in row.items()} for row in found]
    part = columns(narrowed(split(frame, start, min(held, start + count)), _MAX_COLUMNS))
    names = [str(name) for name in part]
    return [dict(zip(names, row, strict=True)) for row in zip(*part.values(), strict=True)]


def _is_table(item: Any) -> bool:
    """Whether it is a frame, also of polars."""
    return is_frame(item) or (_module(item) == "polars" and hasattr(type(item), "to_dicts"))


def _module(item: Any) -> str:
    return str(type(item).__module__).partition(".")[0]


def frame_shape(item: Any) -> tuple[int, int] | None:
    """Rows and columns of an item that is a frame or a table by itself."""
    if not _is_table(item):
        return None
    try:
        shape = item.shape
        return int(shape[0]), int(shape[1]) if len(shape) > 1 else 1
    except Exception:  # noqa: BLE001 - of a record batch, and of whatever a user's own class may do
        return length(item), int(getattr(item, "num_columns", 1))


def picture_of(item: Any) -> str | None:
    """A picture that can show itself, as a `data:` address of at most 512 KB; None for anything else.

    That is what Jupyter shows as a picture as well: what has `_repr_png_` or `_repr_jpeg_`, as images of PIL, and
    figures of matplotlib. An image is made smaller first; of the two files the smaller is taken.
    """
    kind = type(item)
    found: list[tuple[str, bytes]] = []
    try:
        if hasattr(kind, "savefig"):
            file = io.BytesIO()
            item.savefig(file, format="png", bbox_inches="tight")
            found.append(("png", file.getvalue()))
        elif hasattr(kind, "_repr_png_") or hasattr(kind, "_repr_jpeg_"):
            if _module(item) == "PIL":
                item = item.copy()
                item.thumbnail((_PIXELS, _PIXELS))
            for name in ("png", "jpeg"):
                if hasattr(kind, f"_repr_{name}_") and (data := _bytes(getattr(item, f"_repr_{name}_")())):
                    found.append((name, data))
                    if len(data) <= _SMALL_PICTURE:
                        break
    except Exception:  # noqa: BLE001 - the user's own class; its text is shown then
        return None
    name, data = min(found, key=lambda one: len(one[1]), default=("", b""))
    if not data or len(data) > _LARGEST_PICTURE:
        return None
    return f"data:image/{name};base64,{base64.b64encode(data).decode()}"


def _bytes(data: Any) -> bytes | None:
    """What a `_repr_png_` gave: bytes, their text in base 64, either with a dict of sizes beside it, or None."""
    if isinstance(data, tuple):
        data = data[0]
    return base64.b64decode(data) if isinstance(data, str) else data


def _type_of(values: list[Any]) -> ColumnType:
    """What all of these values are, None left out."""
    known = [value for value in values if value is not None]
    for name, kinds in _TYPES.items():
        if known and all(isinstance(value, kinds) or type(value).__name__ in _NAMED[name] for value in known):
            return name
    return "text"


_TYPES: dict[ColumnType, tuple[type, ...]] = {
    "bool": (bool,),
    "duration": (timedelta,),
    "number": (numbers.Number,),
    "time": (date, clock),
}
_NAMED: dict[ColumnType, tuple[str, ...]] = {
    "bool": ("bool", "bool_"),
    "duration": ("timedelta64",),
    "number": (),
    "time": ("datetime64",),
}
"""Classes of numpy by their name, so that it need not be imported. Its times are numbers, too, so they come first."""


def table_of(
    items: list[Any], size: int | None = None
) -> tuple[tuple[str, ...], tuple[ColumnType, ...], tuple[tuple[str, ...], ...]]:
    """Column names, what the columns hold, and the rows as text. At most 50 columns, in at most about 0.25 s.

    Each item is a row. But where the last item is a frame, the rows are its first ones; where it has few, those of
    the frames right before it come before. Where the rows have more than `size` characters, the newest 100, 50, 20
    are given that have not, and ten at least.
    """
    records = [_fields(item) for item in items] if not items or not _is_table(items[-1]) else _last_rows(items)
    names = list(dict.fromkeys(name for record in records for name in record))[:_MAX_COLUMNS]
    types = tuple(_type_of([record.get(c) for record in records]) for c in names)
    decimals = [_decimals(record.get(c) for record in records) for c in names]
    stop_at = time.perf_counter() + _TABLE_TIME
    rows: list[tuple[str, ...]] = []
    held = 0
    for record in reversed(records):
        row = tuple(
            cell_text(record.get(c), decimals=many) if time.perf_counter() < stop_at else "…"
            for c, many in zip(names, decimals, strict=True)
        )
        held += sum(map(len, row)) + 4 * len(row)
        if size is not None and held > size and len(rows) >= _FEWER_ROWS[-1]:
            del rows[next(few for few in _FEWER_ROWS if few <= len(rows)) :]
            break
        rows.append(row)
    return tuple(safe_text(c, 100) for c in names), types, tuple(reversed(rows))
