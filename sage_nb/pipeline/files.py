"""File sinks: CSV, JSON lines and Parquet. A file appears under its name when it is complete.

The rows go to a hidden file beside the target, which takes the target's name when the job has given its last item.
Where the job was stopped or has failed, the hidden file is removed, and what was there before is as it was.

An item is a row, its fields those of a dict, named tuple, dataclass or `msgspec.Struct`; anything else is a row with
the one field `value`. An item that is a frame, a table or an array of two axes is as many rows as it has.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import importlib
import io
import os
import shutil
import uuid
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

from sage_nb.errors import PipelineError
from sage_nb.pipeline.batches import (
    as_format,
    blocks,
    columns,
    is_chunk,
    is_frame,
    join,
    length,
    need,
    record_of,
    row_of,
    rows,
    split,
)
from sage_nb.pipeline.exact import is_exact, is_missing, lost
from sage_nb.pipeline.functions import SinkFunction
from sage_nb.pipeline.graph import Operator
from sage_nb.pipeline.sources import file_path

__all__ = ["CsvSink", "JsonlSink", "ParquetSink", "check_target", "is_written"]

_BUFFER = 1 << 18
_ROWS_AT_ONCE = 4096
_PLAIN = frozenset({str, int, float, bool, type(None), date, datetime, time, timedelta, Decimal})
"""Types whose values are written as they are, and hold no others."""


def check_target(kind: str, path: Any, settings: dict[str, Any]) -> str:
    """The absolute path of a file sink. Raises `PipelineError` where no file can be written there, or not so."""
    target = os.path.abspath(file_path(kind, path))
    folder = os.path.dirname(target)
    if os.path.isdir(target) or os.fspath(path).endswith(os.sep):
        raise PipelineError(f"{kind}: {target} is a folder; give the name of a file in it")
    if not os.path.isdir(folder):
        raise PipelineError(f"{kind}: there is no folder {folder}; make it first")
    if os.path.exists(target) and not os.path.isfile(target):
        raise PipelineError(f"{kind}: {target} is a device or a pipe, and not a file that could be replaced")
    if target.endswith((".zip", ".bz2", ".xz", ".zst")):
        raise PipelineError(f"{kind}: of compressed files it writes .gz only, not {os.path.basename(target)}")
    _check_settings(kind, **settings)
    return target


def _check_settings(
    kind: str, encoding: Any = "utf-8", delimiter: Any = ",", rows_per_group: Any = 1, **_: Any
) -> None:
    try:
        codecs.lookup(encoding)
    except (LookupError, TypeError):
        raise PipelineError(f"{kind}: there is no encoding {encoding!r}") from None
    try:
        csv.writer(io.StringIO(), delimiter=delimiter)
    except (TypeError, ValueError):
        raise PipelineError(f"{kind}: delimiter is one character, not {delimiter!r}") from None
    if isinstance(rows_per_group, bool) or not isinstance(rows_per_group, int) or rows_per_group < 1:
        raise PipelineError(f"{kind}: rows_per_group is a whole number, 1 or more, not {rows_per_group!r}")
    if kind == "to_parquet":
        need(kind, "pyarrow")


def is_written(op: Operator, target: str) -> bool:
    """Whether `op` is a file sink that writes to `target`, be it by way of a link."""
    if op.kind != "sink" or op.spec.target not in (CsvSink, JsonlSink, ParquetSink):
        return False
    return bool(os.path.realpath(op.spec.args[0]) == os.path.realpath(target))


class _FileSink(SinkFunction):
    """The hidden file and what becomes of it. Subclasses write to the last of `_layers`, and count in `_written`."""

    kind: str
    raw: type[io.FileIO] = io.FileIO
    """What the hidden file is."""

    def __init__(self, path: str) -> None:
        self._written = 0
        """The number of rows."""
        self._target = os.path.realpath(path)  # a link stays one; the file that it leads to is replaced
        self._hidden: str | None = None
        self._layers: list[Any] = []
        """The hidden file, and what was opened on top of it."""
        self._broken: BaseException | None = None
        """What kept a row from being written whole: the file never appears then, whatever the error policy."""
        self._single = {dict, list, tuple, *_PLAIN}
        """Types whose values are one row each."""

    def open(self) -> None:
        """Make the hidden file."""
        folder, name = os.path.split(self._target)
        hidden = os.path.join(folder, f".{name[:40]}.{uuid.uuid4().hex[:8]}.part")
        file = io.BufferedWriter(self.raw(hidden, "xb"), _BUFFER)
        self._hidden = hidden
        self._layers.append(file)
        try:
            self._begin(file)
        except BaseException:
            self._discard()
            raise

    def execute(self, item: Any) -> None:
        """Write an item."""
        kind = type(item)
        if kind not in self._single:
            if is_frame(item):
                self.write_chunk(item)
                return
            if not is_chunk(item):
                self._single.add(kind)
        self._write_row(item)

    def write_chunk(self, chunk: Any) -> None:
        """Write the rows of a chunk."""
        for row in rows(chunk):
            self._write_row(row)

    def close(self) -> None:
        """Let the file appear, unless the job was stopped or has failed."""
        if self._hidden is None:
            return
        try:
            if self.ctx.is_stop_requested():
                self._tell_discarded()
                return
            if self._broken is not None:
                raise self._broken
            self._end()
            while self._layers:
                self._layers.pop().close()
            with suppress(FileNotFoundError):
                shutil.copymode(self._target, self._hidden)
            os.replace(self._hidden, self._target)
            self._hidden = None
        finally:
            self._discard()

    def _tell_discarded(self) -> None:
        if self._written:
            rows = "the row that it had was" if self._written == 1 else f"the {self._written:,} rows that it had were"
            name = os.path.basename(self._target)
            self.ctx.note(f"{self.kind} {name!r}: the job was stopped or has failed; {rows} discarded")

    def _discard(self) -> None:
        while self._layers:
            with suppress(Exception):  # of a file that nobody will see; a full disk, say, has been told already
                self._layers.pop().close()
        if self._hidden is not None:
            hidden, self._hidden = self._hidden, None
            with suppress(FileNotFoundError):
                os.remove(hidden)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Around a write that cannot be taken back where it fails half-way."""
        if self._broken is not None:
            raise self._broken
        try:
            yield
        except BaseException as exc:
            self._broken = exc
            raise

    def _compressed(self, file: Any) -> Any:
        """`file`, or a layer that compresses what goes to it."""
        if not self._target.endswith(".gz"):
            return file
        self._layers.append(gzip.GzipFile(self._target, "wb", compresslevel=6, fileobj=file))
        return self._layers[-1]

    @abstractmethod
    def _begin(self, file: Any) -> None:
        """Get ready to write to `file`."""

    @abstractmethod
    def _write_row(self, item: Any) -> None:
        """Write one item, or raise and write nothing."""

    def _end(self) -> None:
        """Write what is held back."""


_SINGLE = ("value",)


class _TableSink(_FileSink):
    """A file with columns, which are the fields of the first item."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._names: tuple[Any, ...] | None = None
        self._known: Set[Any] = frozenset()

    def execute(self, item: Any) -> None:
        """Write an item."""
        if type(item) is dict and tuple(item) == self._names:
            self._write_values(item.values())
        else:
            super().execute(item)

    def _write_row(self, item: Any) -> None:
        if isinstance(item, tuple) and self._names is not None and getattr(item, "_fields", None) == self._names:
            self._write_values(item)
            return
        single = self._names == _SINGLE  # then a tuple is a value like those before it
        record = item if type(item) is dict else record_of(item) if single else row_of(item)
        self._write_values(self._in_order({"value": item} if record is None else record))

    @abstractmethod
    def _write_values(self, values: Collection[Any]) -> None:
        """Write one row, or raise and write nothing."""

    def _in_order(self, record: dict[Any, Any]) -> Collection[Any]:
        names = self._names
        if names is None:
            if not record:
                raise ValueError(f"{self.kind}: the first item has no fields, so there are no columns to write")
            if len(set(map(str, record))) < len(record):
                raise ValueError(f"{self.kind}: two columns have the same name among {_listing(record)}")
            self._names, self._known = tuple(record), record.keys() - ()
            self._columns_known()
            return record.values()
        if record.keys() == self._known:
            return [record[name] for name in names]
        missing = [name for name in names if name not in record]
        extra = [name for name in record if name not in names]
        said = [f"{name!r} is missing" for name in missing] + [f"{name!r} is no column" for name in extra]
        raise ValueError(
            f"{self.kind}: an item has the fields {_listing(record)}, but the first one had {_listing(names)}: "
            f"{', '.join(said[:5])}"
        )

    def _columns_known(self) -> None:
        """Called once, with the first item."""


def _listing(names: Iterable[Any]) -> str:
    shown = [repr(name) for name in names]
    return ", ".join(shown if len(shown) <= 20 else [*shown[:20], "..."]) or "none"


class CsvSink(_TableSink):
    """Rows of a CSV file; lines end with a newline. None is written as nothing, an array as a list of its values."""

    kind = "to_csv"

    def __init__(self, path: str, encoding: str = "utf-8", delimiter: str = ",") -> None:
        super().__init__(path)
        self._encoding = encoding
        self._delimiter = delimiter

    def _begin(self, file: Any) -> None:
        text = io.TextIOWrapper(self._compressed(file), encoding=self._encoding, newline="")
        self._layers.append(text)
        # With "\n" as the end of a line, this writer would leave a lone "\r" in a field without quotes.
        lines = SimpleNamespace(write=self._line_writer(text.write))
        self._writer = csv.writer(lines, delimiter=self._delimiter, lineterminator="\r\n")
        self._writerow = self._writer.writerow

    def _line_writer(self, write: Callable[[str], Any]) -> Callable[[str], None]:
        def write_line(line: str) -> None:
            try:
                write(line[:-2] + "\n")
            except UnicodeEncodeError:
                raise  # nothing was written
            except BaseException as exc:
                self._broken = exc
                raise

        return write_line

    def _columns_known(self) -> None:
        self._writerow(self._names or ())

    def _write_values(self, values: Collection[Any]) -> None:
        if self._broken is not None:
            raise self._broken
        self._writerow(values if _PLAIN.issuperset(map(type, values)) else map(_cell, values))
        self._written += 1

    def write_chunk(self, chunk: Any) -> None:
        """Write the rows of a chunk."""
        if isinstance(chunk, list):
            super().write_chunk(chunk)
            return
        self._in_order(columns(split(chunk, 0, 0)))
        with self._whole():
            for block in blocks(chunk, _ROWS_AT_ONCE):
                self._writer.writerows(zip(*map(_cells, self._in_order(columns(block))), strict=True))
                self._written += length(block)


def _cells(values: list[Any]) -> list[Any]:
    return values if _PLAIN.issuperset(map(type, values)) else list(map(_cell, values))


def _cell(value: Any) -> Any:
    if is_chunk(value):  # the text of an array or a frame leaves most of it out
        return value if isinstance(value, list) else [_builtin(row) for row in rows(value)]
    return None if is_missing(value) else value


def _builtin(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


class JsonlSink(_FileSink):
    """One JSON value per line, in UTF-8.

    Dicts, named tuples and dataclasses are objects; lists, tuples, sets and arrays are arrays; dates and times are
    text in ISO 8601, decimals and UUIDs text too, bytes text in base64. Numbers that JSON does not know, NaN and the
    infinities, are null, as are pandas' NaT and NA. Anything else is a `TypeError`.
    """

    kind = "to_jsonl"

    def _begin(self, file: Any) -> None:
        import msgspec.json

        out = self._compressed(file)
        if out is not file:
            out = io.BufferedWriter(out, _BUFFER)
            self._layers.append(out)
        self._write = out.write
        self._encode = msgspec.json.Encoder(enc_hook=_special).encode

    def _write_row(self, item: Any) -> None:
        if type(item) is dict and _PLAIN.issuperset(map(type, item.values())):
            line = self._encode(item)
        else:
            line = self._encode(_jsonable(item))
        if self._broken is not None:
            raise self._broken
        try:
            self._write(line + b"\n")
        except BaseException as exc:
            self._broken = exc
            raise
        self._written += 1


def _jsonable(value: Any) -> Any:
    """The same, with objects in the place of named tuples, which would be arrays."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in (list, tuple) or isinstance(value, (set, frozenset)):
        return [_jsonable(one) for one in value]
    if hasattr(kind, "__struct_fields__"):
        return value  # it may say how it is to be written
    record = record_of(value)
    return value if record is None else {key: _jsonable(one) for key, one in record.items()}


def _special(value: Any) -> Any:
    """What the encoder does not know by itself."""
    if is_missing(value):
        return None
    if isinstance(value, date | time | timedelta) and hasattr(value, "isoformat"):
        return value.isoformat()
    if is_chunk(value):
        return _jsonable(list(rows(value)))
    if hasattr(value, "dtype") and hasattr(value, "item"):  # a numpy scalar, or an array without axes
        if value.dtype.kind in "mM":
            return None if str(value) == "NaT" else str(value)
        return _jsonable(value.item())
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"to_jsonl: JSON has no form for {type(value).__name__}; turn it into text or numbers first")


class ParquetSink(_TableSink):
    """Rows of a Parquet file. The types of the columns are those of the first `rows_per_group` rows.

    In a column that does not hold floats, NaN is null. A value that the type of its column cannot hold as it is fails
    the job.
    """

    kind = "to_parquet"

    def __init__(self, path: str, rows_per_group: int = 65_536) -> None:
        super().__init__(path)
        self._group = rows_per_group
        self._rows: list[tuple[Any, ...]] = []
        self._tables: list[Any] = []
        self._held = 0
        """The number of rows in `_tables`; `_rows` came after them."""
        self._schema: Any = None

    def _begin(self, file: Any) -> None:
        self._arrow = importlib.import_module("pyarrow")
        self._parquet = importlib.import_module("pyarrow.parquet")
        self._refusals = (self._arrow.ArrowException, TypeError, ValueError, OverflowError)
        self._out = file
        self._writer: Any = None

    def _write_row(self, item: Any) -> None:
        if isinstance(item, tuple) and (self._names == _SINGLE or row_of(item) is None):
            raise TypeError(
                f"to_parquet: a tuple of {len(item)} after single values, or with no or too many values, has no "
                "columns; make a dict of each item in a map() before"
            )
        super()._write_row(item)

    def _write_values(self, values: Collection[Any]) -> None:
        if self._broken is not None:
            raise self._broken
        self._rows.append(tuple(values))
        self._written += 1
        if len(self._rows) + self._held >= self._group:
            self._flush(last=False)

    def write_chunk(self, chunk: Any) -> None:
        """Write the rows of a chunk."""
        if isinstance(chunk, list):
            super().write_chunk(chunk)
            return
        table = as_format(chunk, "arrow")
        self._in_order(dict.fromkeys(table.column_names))
        self._hold_rows()
        self._tables.append(self._fitted(table.select(list(map(str, self._names or ())))))
        self._held += len(table)
        self._written += len(table)
        if self._held >= self._group:
            self._flush(last=False)

    def _end(self) -> None:
        self._flush(last=True)

    def _flush(self, last: bool) -> None:
        """Write all whole groups of what is held, and what is left where it is the last."""
        self._hold_rows()
        if self._tables or self._writer is None:
            with self._whole():
                self._write_groups(join(self._tables, "arrow") if self._tables else self._arrow.table({}), last)

    def _write_groups(self, table: Any, last: bool) -> None:
        if self._writer is None:
            self._schema = table.schema
            self._writer = self._parquet.ParquetWriter(self._out, table.schema)
            self._layers.append(self._writer)
        keep = 0 if last else len(table) % self._group
        self._writer.write_table(table.slice(0, len(table) - keep), row_group_size=self._group)
        self._tables, self._held = ([table.slice(len(table) - keep)] if keep else []), keep

    def _hold_rows(self) -> None:
        if not self._rows:
            return
        held, self._rows = self._rows, []
        names = list(map(str, self._names or ()))
        with self._whole():
            arrays = [self._array(name, one) for name, one in zip(names, zip(*held, strict=True), strict=True)]
            self._tables.append(self._arrow.Table.from_arrays(arrays, names=names))
            self._held += len(held)

    def _array(self, name: str, values: Sequence[Any]) -> Any:
        """A column of these values, and of no others: Arrow makes a date of a datetime, and takes a field it lacks
        from a dict."""
        kind = None if self._schema is None else self._schema.field(name).type
        for nan_is_null in (False, True):
            try:
                array = self._arrow.array(values, type=kind, from_pandas=nan_is_null)
            except self._refusals as exc:
                problem: Exception | None = exc
                continue
            problem = None
            changed = [] if is_exact(array.type, values) else list(lost(array, values))
            if not changed:
                return array
        if problem is None:
            raise ValueError(self._refusal(name, array.type, changed[0]))
        for value in values if kind is not None else ():
            if self._is_lost(kind, value):
                raise ValueError(self._refusal(name, kind, value)) from problem
        raise ValueError(f"to_parquet: column {name!r}: {problem}; convert it in a map() before") from problem

    def _is_lost(self, kind: Any, value: Any) -> bool:
        try:
            return any(True for _ in lost(self._arrow.array([value], type=kind, from_pandas=True), [value]))
        except self._refusals:
            return True

    def _refusal(self, name: str, kind: Any, value: Any) -> str:
        return (
            f"to_parquet: column {name!r}, which is {kind} as of the first rows, cannot hold the "
            f"{type(value).__name__} {value!r:.100} as it is; convert the column in a map() before, or let the first "
            "rows have the type of all"
        )

    def _fitted(self, table: Any) -> Any:
        if self._schema is None or table.schema.equals(self._schema):
            return table
        fitted = [self._column(field, column) for field, column in zip(self._schema, table.columns, strict=True)]
        return self._arrow.Table.from_arrays(fitted, schema=self._schema)

    def _column(self, field: Any, column: Any) -> Any:
        if column.type == field.type:
            return column
        if {str(column.type), str(field.type)} == {"int64", "double"}:
            with suppress(self._arrow.ArrowInvalid):  # of a number that the other type does not have
                return column.cast(field.type)
        return self._array(field.name, column.to_pylist())
