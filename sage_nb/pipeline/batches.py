"""Chunks: many items in one object; and `map_batches`, a function that is called with them.

A chunk is a list, a numpy array (its rows lie along the first axis), a pandas DataFrame or Series, or a pyarrow
Table, RecordBatch or Array. What its rows are as items:

*   of a list its elements; of an array of one axis Python values, of more axes the arrays within;
*   of a frame or table dicts, column name → Python value. A pandas index that has a name is a column too, so that
    what `groupby` gives keeps its keys; any other index is left out.

The libraries are imported where a chunk of theirs is asked for, never to find out what something is.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sage_nb.errors import PipelineError
from sage_nb.pipeline.checks import FunctionSpec, function_spec

__all__ = [
    "FORMATS",
    "BatchSpec",
    "Columns",
    "as_format",
    "batch_spec",
    "blocks",
    "columns",
    "is_chunk",
    "is_frame",
    "join",
    "length",
    "narrowed",
    "need",
    "record_of",
    "row_of",
    "rows",
    "split",
]

FORMATS = ("list", "numpy", "pandas", "arrow")
_NEEDS = {"numpy": "numpy", "pandas": "pandas", "arrow": "pyarrow"}
_MOST_POSITIONS = 20
_INSTALL = {"pyarrow": "sage-nb[arrow]", "ray": "sage-nb[ray]"}


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """`size` is the number of items that `function` gets at once, None for as many as come together."""

    function: FunctionSpec
    size: int | None
    format: str


def batch_spec(fn: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any], size: Any, format: str) -> BatchSpec:
    """Check what was given to `map_batches`."""
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise PipelineError(f"map_batches: size is a whole number, 1 or more, not {size!r}")
    if format not in FORMATS:
        raise PipelineError(f"map_batches: format is one of {', '.join(map(repr, FORMATS))}, not {format!r}")
    if format in _NEEDS:
        need(f"map_batches: format {format!r}", _NEEDS[format])
    return BatchSpec(function_spec("map_batches", fn, args, kw), size, format)


def need(what: str, module: str) -> None:
    """Raise `PipelineError` where `module`, which `what` needs, is not installed."""
    if importlib.util.find_spec(module) is None:
        raise PipelineError(f"{what} needs {module}: pip install {_INSTALL.get(module, module)}")


class Columns(dict[Any, Any]):
    """The numpy form of items with fields: field name → array, all of one length."""


# What something is


def _kind(value: Any) -> str | None:
    if isinstance(value, list):
        return "list"
    if isinstance(value, Columns):
        return "columns"
    if isinstance(value, _types("numpy", "ndarray")):
        return "array" if value.ndim else None
    if isinstance(value, _types("pandas", "DataFrame")):
        return "frame"
    if isinstance(value, _types("pandas", "Series")):
        return "series"
    if isinstance(value, _types("pyarrow", "Table", "RecordBatch")):
        return "table"
    if isinstance(value, _types("pyarrow", "Array", "ChunkedArray")):
        return "arrow array"
    return None


def _types(module: str, *names: str) -> Any:
    """The classes of a module, or none: where it is not loaded (or not in full), nothing is an instance of them."""
    found = sys.modules.get(module)
    return tuple(getattr(found, name) for name in names if hasattr(found, name))


def is_chunk(value: Any) -> bool:
    """Whether `value` is a chunk and not a single item."""
    return _kind(value) is not None


def is_frame(value: Any) -> bool:
    """Whether an item is a table by itself: a frame, series, table or record batch, or an array of two axes."""
    kind = _kind(value)
    return kind in ("frame", "series", "table") or (kind == "array" and value.ndim == 2)


def record_of(item: Any) -> dict[Any, Any] | None:
    """The fields of a dict, named tuple, dataclass or `msgspec.Struct`; None for what has none."""
    if isinstance(item, dict):
        return item
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return dict(zip(item._fields, item, strict=False))
    if isinstance(item, type):
        return None
    if dataclasses.is_dataclass(item):
        return {f.name: getattr(item, f.name, None) for f in dataclasses.fields(item)}
    if hasattr(type(item), "__struct_fields__"):
        return {name: getattr(item, name, None) for name in item.__struct_fields__}
    return None


def row_of(item: Any) -> dict[Any, Any] | None:
    """What `item` is in the columns of a table: the fields of a record, of a tuple what it holds by position. None for
    what goes into one column, `value`."""
    record = record_of(item)
    if record is None and isinstance(item, tuple) and 1 <= len(item) <= _MOST_POSITIONS:
        return dict(enumerate(item))
    return record


# Rows, and parts


def length(chunk: Any) -> int:
    """The number of rows."""
    if isinstance(chunk, Columns):
        return len(next(iter(chunk.values()))) if chunk else 0
    return len(chunk)


def split(chunk: Any, start: int, stop: int) -> Any:
    """Rows `start` to `stop`, as a view where the kind of chunk has views."""
    kind = _kind(chunk)
    if kind in ("frame", "series"):
        return chunk.iloc[start:stop]
    if kind in ("table", "arrow array"):
        return chunk.slice(start, max(0, stop - start))
    if kind == "columns":
        return Columns({name: values[start:stop] for name, values in chunk.items()})
    return chunk[start:stop]


def narrowed(frame: Any, width: int) -> Any:
    """The first `width` columns."""
    kind = _kind(frame)
    if kind == "frame":
        return frame.iloc[:, :width]
    if kind == "table":
        return frame.select(frame.column_names[:width])
    return frame[:, :width] if kind == "array" else frame


def blocks(chunk: Any, size: int) -> Iterator[Any]:
    """The chunk in parts of `size` rows."""
    for start in range(0, length(chunk), size):
        yield split(chunk, start, start + size)


def rows(chunk: Any) -> list[Any]:
    """The rows as items."""
    kind = _kind(chunk)
    if kind == "list":
        return chunk  # type: ignore[no-any-return]
    if kind == "array":
        return _values(chunk)
    if kind == "arrow array":
        return chunk.to_pylist()  # type: ignore[no-any-return]
    if kind == "series" and not _has_named_index(chunk):
        return chunk.tolist()  # type: ignore[no-any-return]
    found = columns(chunk)
    if not found:
        return [{} for _ in range(length(chunk))]
    names = list(found)
    return [dict(zip(names, row, strict=True)) for row in zip(*found.values(), strict=True)]


def columns(chunk: Any) -> dict[Any, list[Any]]:
    """The values of each column: of a frame or table its own, of a list of records their fields.

    An array of two axes has the columns 0, 1, ...; what has no columns has one, `value`.
    """
    kind = _kind(chunk)
    if kind == "list":
        return _fields_of(chunk)
    if kind == "columns":
        return {name: _values(values) for name, values in chunk.items()}
    if kind == "array":
        return {name: _values(values) for name, values in _array_columns(chunk).items()}
    if kind == "arrow array":
        return {"value": chunk.to_pylist()}
    if kind == "table":
        return dict(zip(_unique(chunk.column_names), (one.to_pylist() for one in chunk.columns), strict=True))
    frame = _settled(chunk)
    return {name: frame.iloc[:, i].tolist() for i, name in enumerate(_unique(list(frame.columns)))}


def _values(array: Any) -> list[Any]:
    if array.dtype.names:
        return [dict(zip(array.dtype.names, row, strict=True)) for row in array.tolist()]
    if array.ndim == 1 and array.dtype.kind not in "mM":  # a time in nanoseconds would become a bare int
        return array.tolist()  # type: ignore[no-any-return]
    return list(array)


def _array_columns(array: Any) -> dict[Any, Any]:
    if array.dtype.names:
        return {name: array[name] for name in array.dtype.names}
    return {i: array[:, i] for i in range(array.shape[1])} if array.ndim == 2 else {"value": array}


def _fields_of(items: list[Any]) -> dict[Any, list[Any]]:
    """The fields of records, None where one lacks a field that others have; else one column, `value`."""
    records = [record for record in map(record_of, items) if record is not None]
    if not records:
        return {"value": items}
    if len(records) < len(items):
        other = next(item for item in items if record_of(item) is None)
        raise TypeError(f"items with fields and an item without, {type(other).__name__}, do not fit in one batch")
    if all(record.keys() == records[0].keys() for record in records):
        found = {name: [record[name] for record in records] for name in records[0]}
    else:
        names = dict.fromkeys(name for record in records for name in record)
        found = {name: [record.get(name) for record in records] for name in names}
    if not found:
        raise ValueError("items without any field do not fit in the columns of a batch; use format='list'")
    return found


def _unique(names: list[Any]) -> list[Any]:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two columns are called {twice!r}; each column needs a name of its own")
    return names


def _has_named_index(pandas_object: Any) -> bool:
    return any(name is not None for name in pandas_object.index.names)


def _settled(pandas_object: Any) -> Any:
    """A DataFrame of what `pandas_object` holds, with an index that has a name as columns."""
    frame = pandas_object
    if _kind(frame) == "series":
        frame = frame.to_frame("value" if frame.name is None else frame.name)
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index(level=named) if named else frame


# From one format to another


def as_format(chunk: Any, format: str) -> Any:
    """The chunk as one of `FORMATS`; the same object where it is of that format already.

    numpy: an array of plain items, and `Columns` of items with fields. pandas: a DataFrame. arrow: a Table. Of plain
    items, the column is called `value`.
    """
    if format == "numpy":
        return _as_numpy(chunk)
    if format == "pandas":
        return _as_pandas(chunk)
    if format == "arrow":
        return _as_arrow(chunk)
    return rows(chunk)


def _as_numpy(chunk: Any) -> Any:
    kind = _kind(chunk)
    if kind in ("array", "columns"):
        return chunk
    if kind == "list":
        found = _fields_of(chunk) if chunk and record_of(chunk[0]) is not None else None
        return _array(chunk) if found is None else Columns({name: _array(values) for name, values in found.items()})
    if kind == "arrow array":
        return _arrow_values(chunk)
    if kind == "table":
        return Columns(zip(_unique(chunk.column_names), map(_arrow_values, chunk.columns), strict=True))
    if kind == "series" and not _has_named_index(chunk):
        return chunk.to_numpy()
    frame = _settled(chunk)
    return Columns((name, frame.iloc[:, i].to_numpy()) for i, name in enumerate(_unique(list(frame.columns))))


def _arrow_values(values: Any) -> Any:
    if isinstance(values, _types("pyarrow", "ChunkedArray")):
        if values.num_chunks != 1:
            return values.to_numpy()
        values = values.chunk(0)
    return values.to_numpy(zero_copy_only=False)


def _array(items: list[Any]) -> Any:
    """An array of these values; of Python objects where numpy finds no regular shape, or would change them.

    It would turn numbers beside text to text, and take the zeros from the end of bytes.
    """
    np = importlib.import_module("numpy")
    try:
        array = np.array(items)
    except ValueError:
        array = None
    if array is None or array.dtype.kind == "S" or (array.dtype.kind == "U" and not set(map(type, items)) <= {str}):
        array = np.empty(len(items), dtype=object)
        for i, item in enumerate(items):
            array[i] = item
    return array


def _as_pandas(chunk: Any) -> Any:
    pd = importlib.import_module("pandas")
    kind = _kind(chunk)
    if kind in ("frame", "series"):
        return _settled(chunk)
    if kind == "table":
        return chunk.to_pandas(use_threads=False)
    if kind == "array" and chunk.ndim <= 2:
        return pd.DataFrame(chunk) if chunk.ndim == 2 else pd.DataFrame(_array_columns(chunk))
    if kind == "columns":
        return pd.DataFrame({name: values if values.ndim == 1 else list(values) for name, values in chunk.items()})
    return pd.DataFrame(columns(chunk))


def _as_arrow(chunk: Any) -> Any:
    pa = importlib.import_module("pyarrow")
    kind = _kind(chunk)
    if kind == "table":
        return chunk if isinstance(chunk, pa.Table) else pa.Table.from_batches([chunk])
    if kind in ("frame", "series"):
        frame = _settled(chunk)
        return pa.Table.from_pandas(frame, preserve_index=False, nthreads=1).replace_schema_metadata(None)
    if kind == "arrow array":
        found: dict[Any, Any] = {"value": chunk}
    elif kind in ("array", "columns"):
        found = {
            name: pa.array(values if values.ndim == 1 else values.tolist())
            for name, values in (chunk if kind == "columns" else _array_columns(chunk)).items()
        }
    else:
        found = {name: pa.array(values) for name, values in columns(chunk).items()}
    return pa.Table.from_arrays(list(found.values()), names=_unique([str(name) for name in found]))


def join(chunks: list[Any], format: str) -> Any:
    """One chunk of several, all of `format`. Columns that one of them lacks are None in a frame or table."""
    if len(chunks) == 1:
        return chunks[0]
    if format == "list":
        return [item for chunk in chunks for item in chunk]
    if format == "pandas":
        return importlib.import_module("pandas").concat(chunks, ignore_index=True)
    if format == "arrow":
        return importlib.import_module("pyarrow").concat_tables(chunks, promote_options="permissive")
    if not any(isinstance(chunk, Columns) for chunk in chunks):
        return _concatenated(chunks)
    first = chunks[0]
    for chunk in chunks:
        if not isinstance(chunk, Columns) or not isinstance(first, Columns) or chunk.keys() != first.keys():
            raise ValueError(f"batches of different columns cannot be joined: {_said(first)}, and {_said(chunk)}")
    return Columns({name: _concatenated([chunk[name] for chunk in chunks]) for name in first})


def _said(chunk: Any) -> str:
    return ", ".join(map(repr, chunk)) if isinstance(chunk, Columns) else "an array without columns"


def _concatenated(arrays: list[Any]) -> Any:
    np = importlib.import_module("numpy")
    is_text = {array.dtype.kind in "US" for array in arrays}
    if len(is_text) > 1:  # numpy would turn the numbers to text
        arrays = [array.astype(object) for array in arrays]
    return np.concatenate(arrays)
