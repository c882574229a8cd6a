"""Sources: where items come from.

Each class here is a frozen description; `open()` runs where the job runs, and gives a `Reader`. A reader is
either iterated or polled: an iterator ends at its own end, a polled function by what it returns.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import io
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from sage_nb.errors import PipelineError, SignatureError
from sage_nb.pipeline.batches import blocks, is_chunk, length, rows
from sage_nb.pipeline.checks import check_arity, check_constructor, function_name, has_execute, reject_reserved
from sage_nb.pipeline.functions import BatchFunction, StopSignal
from sage_nb.pipeline.spelling import did_you_mean

__all__ = [
    "ChunkSource",
    "CsvSource",
    "IterableSource",
    "MadeSource",
    "ParquetSource",
    "Reader",
    "TextSource",
    "source_spec",
]


@dataclass(slots=True)
class Reader:
    """An open source: exactly one of `items` and `poll` is set.

    `ends_on_none` says what a polled None means: the end, or nothing now. `total` is the number of items where it is
    known, `fraction` gives the share that was read, 0 to 1.
    """

    items: Iterator[Any] | None = None
    poll: Callable[[], Any] | None = None
    ends_on_none: bool = True
    total: int | None = None
    sized: Sized | None = None
    """What `items` iterates over, where counting what is left of it counts what was taken."""
    fraction: Callable[[], float] | None = None
    close: Callable[[], None] | None = None
    chunks: Callable[[int | None], Iterator[Any]] | None = None
    """Gives the same items in chunks (see `batches`) of that size, or one that suits; in the place of `items`."""


@dataclass(frozen=True, slots=True)
class IterableSource:
    """An iterable of the user's. An iterator can be used once only; `once` is True then."""

    iterable: Iterable[Any]

    @property
    def once(self) -> bool:
        return isinstance(self.iterable, Iterator)

    def open(self, make: Callable[..., Any]) -> Reader:
        return reader_of(self.iterable)


def reader_of(iterable: Iterable[Any]) -> Reader:
    """A reader over `iterable`."""
    items = iter(iterable)
    total = len(iterable) if isinstance(iterable, Sized) else None
    # Only for these is the iterator's length hint exact, and free of the user's code.
    sized = iterable if type(iterable) in (tuple, range) else None
    close = getattr(items, "close", None) if inspect.isgenerator(items) else None
    return Reader(items=items, total=total, sized=sized, close=close)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class MadeSource:
    """A class or callable of the user's. `ends_on_none` as in `Reader`."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    kw: dict[str, Any]
    ends_on_none: bool

    def open(self, make: Callable[..., Any]) -> Reader:
        """`make(cls, args, kw)` gives an instance with its context set and opened."""
        if not isinstance(self.target, type):
            if inspect.isgeneratorfunction(_unwrapped(self.target)):
                return reader_of(self.target(*self.args, **self.kw))
            poll = partial(self.target, *self.args, **self.kw) if self.args or self.kw else self.target
            return Reader(poll=poll, ends_on_none=self.ends_on_none)
        instance = make(self.target, self.args, self.kw)
        if not has_execute(self.target):
            return reader_of(instance)
        if inspect.isgeneratorfunction(instance.execute):
            return reader_of(instance.execute())
        return Reader(poll=instance.execute, ends_on_none=self.ends_on_none)


def is_replayable(spec: MadeSource) -> bool:
    """Whether opening it again gives the same items from the first one on: it is made anew, or a generator is."""
    return isinstance(spec.target, type) or inspect.isgeneratorfunction(_unwrapped(spec.target))


def _unwrapped(fn: Any) -> Any:
    while isinstance(fn, partial):
        fn = fn.func
    return fn


@dataclass(frozen=True, slots=True)
class _File:
    """A text file, plain, `.gz` or `.zip` (one member), and how much of it was read."""

    path: str
    encoding: str
    newline: str | None

    def open_text(self) -> tuple[io.TextIOWrapper, Callable[[], float] | None, Callable[[], None]]:
        opened: list[Any] = [open(self.path, "rb")]  # noqa: SIM115 - closed with the reader
        try:
            raw = opened[0]
            size, position = os.fstat(raw.fileno()).st_size, raw.raw.tell
            data: Any = raw
            if self.path.endswith(".gz"):
                import gzip  # this and zipfile are slow to import, for a worker process at its start

                data = gzip.GzipFile(fileobj=raw)
                opened.append(data)
            elif self.path.endswith(".zip"):
                import zipfile

                archive = zipfile.ZipFile(raw)
                opened.append(archive)
                names = [info for info in archive.infolist() if not info.is_dir()]
                if len(names) != 1:
                    raise PipelineError(f"{self.path} holds {len(names)} files; a source reads a .zip of one file")
                data = archive.open(names[0])
                opened.append(data)
                size, position = names[0].file_size, data.tell
            text = io.TextIOWrapper(data, encoding=self.encoding, newline=self.newline)
        except BaseException:
            _close_all(opened)
            raise
        opened.append(text)
        fraction = partial(_share, position, size) if _is_regular(self.path) else None
        return text, fraction, partial(_close_all, opened)


def _is_regular(path: str) -> bool:
    """Whether `path` is a file with a size, and not a pipe or a device."""
    return stat.S_ISREG(os.stat(path).st_mode)


def _share(position: Callable[[], int], size: int) -> float:
    try:
        return min(1.0, position() / size) if size else 1.0
    except (ValueError, OSError):  # the file is closed: it was read to its end, or will not be read further
        return 1.0


def _close_all(opened: list[Any]) -> None:
    for one in reversed(opened):
        one.close()


@dataclass(frozen=True, slots=True)
class TextSource(_File):
    """The lines of a text file, without their line ends."""

    def open(self, make: Callable[..., Any]) -> Reader:
        text, fraction, close = self.open_text()
        if _is_regular(self.path):
            items: Iterator[str] = chain.from_iterable(_line_blocks(text))
        else:  # of a pipe, a whole block may be long in coming
            items = map(_strip_newline, text)
        return Reader(items=items, fraction=fraction, close=close)


def _strip_newline(line: str) -> str:
    return line.removesuffix("\n")


def _line_blocks(text: io.TextIOWrapper, size: int = 1 << 16) -> Iterator[list[str]]:
    begun: list[str] = []  # the parts of a line that is longer than a block
    while block := text.read(size):
        lines = block.split("\n")
        begun.append(lines.pop(0))
        if lines:
            first, begun = "".join(begun), [lines.pop()]
            yield [first, *lines]
    if rest := "".join(begun):
        yield [rest]


@dataclass(frozen=True, slots=True)
class CsvSource(_File):
    """The rows of a CSV file as dicts, column name → text, or what `types` makes of the text."""

    format: dict[str, Any] = field(default_factory=dict)
    types: dict[str, Callable[[str], Any]] = field(default_factory=dict)

    def open(self, make: Callable[..., Any]) -> Reader:
        text, fraction, close = self.open_text()
        rows = _csv_rows(self.path, text, self.format, self.types)
        return Reader(items=rows, fraction=fraction, close=close)


def column_types(kind: str, types: Any) -> dict[str, Callable[[str], Any]]:
    """Checked: by the names of columns, functions of a text."""
    if types is None:
        return {}
    if not isinstance(types, Mapping) or not all(isinstance(name, str) for name in types):
        raise SignatureError(f"{kind}: types is a dict, by columns, such as {{'qty': int}}, not {types!r}")
    for name, read in types.items():
        if not callable(read):
            raise SignatureError(f"{kind}: types[{name!r}] is a function of a text, such as int, not {read!r}")
        if read is bool:
            raise PipelineError(
                f"{kind}: types[{name!r}]: bool() of any text but the empty one is True, of 'false' as well; "
                "give a function, such as lambda text: text == 'true'"
            )
        check_arity(kind, read, 1, f"types[{name!r}]")
    return dict(types)


def _csv_rows(
    path: str, text: io.TextIOWrapper, form: dict[str, Any], types: dict[str, Callable[[str], Any]]
) -> Iterator[dict[str, Any]]:
    rows = csv.reader(text, **form)
    header = next(rows, None)
    if header is None:
        return
    if len(set(header)) != len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise PipelineError(f"{path}: two columns are called {twice[0]!r}; each column needs a name of its own")
    for name in types:
        if name not in header:
            raise PipelineError(f"{path}: types names a column {name!r}{did_you_mean(name, header)}")
    width = len(header)
    for row in rows:
        if len(row) == width:
            item: dict[str, Any] = dict(zip(header, row, strict=True))
            for name, read in types.items():
                try:
                    item[name] = read(item[name])
                except Exception as exc:
                    what = f"{path}, line {rows.line_num}, column {name!r}: {item[name]!r}"
                    by = function_name(read) or repr(read)
                    raise ValueError(f"{what} cannot be read by {by}: {type(exc).__name__}: {exc}") from exc
            yield item
        elif row:
            raise ValueError(f"{path}, line {rows.line_num}: {len(row)} fields, but the header has {width}")


_ROWS_AT_ONCE = 4096
_CHUNK_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class ChunkSource:
    """The rows of an array, a pandas DataFrame or Series, or a pyarrow Table, RecordBatch or Array."""

    chunk: Any

    def open(self, make: Callable[..., Any]) -> Reader:
        items = chain.from_iterable(map(rows, blocks(self.chunk, _ROWS_AT_ONCE)))
        return Reader(items=items, total=length(self.chunk), chunks=self._chunks)

    def _chunks(self, size: int | None) -> Iterator[Any]:
        return map(_protected, blocks(self.chunk, size or _CHUNK_ROWS))


def _protected(part: Any) -> Any:
    """A view that cannot be written through: what an operator does to its batch is not done to the user's array."""
    if hasattr(part, "setflags"):
        part.setflags(write=False)
    elif hasattr(part, "iloc") and not _copies_on_write():
        part = part.copy()
    return part


def _copies_on_write() -> bool:
    return int(sys.modules["pandas"].__version__.split(".")[0]) >= 3


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """The rows of a Parquet file as dicts, column name → Python value, read on the job's own thread."""

    path: str
    columns: tuple[str, ...] | None = None

    def open(self, make: Callable[..., Any]) -> Reader:
        open(self.path, "rb").close()  # for errors of the usual kind where there is no such file, or a folder
        pyarrow, parquet = importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
        try:
            file = parquet.ParquetFile(self.path, pre_buffer=False)  # which would read on a thread that stays
        except pyarrow.ArrowInvalid as exc:
            raise PipelineError(f"{self.path} is no Parquet file, or a damaged one: {exc}") from exc
        try:
            self._check_columns(file.schema_arrow.names)
        except BaseException:
            file.close()
            raise
        chunks = partial(self._chunks, file)
        items = chain.from_iterable(rows(part) for chunk in chunks(None) for part in blocks(chunk, _ROWS_AT_ONCE))
        return Reader(items=items, total=file.metadata.num_rows, chunks=chunks, close=file.close)

    def _chunks(self, file: Any, size: int | None) -> Iterator[Any]:
        return iter(file.iter_batches(batch_size=size or _CHUNK_ROWS, columns=self.columns, use_threads=False))

    def _check_columns(self, names: list[str]) -> None:
        for wanted in self.columns or ():
            if wanted not in names:
                raise PipelineError(f"{self.path} has no column {wanted!r}; there are: {', '.join(names)}")
        for name in self.columns or names:
            if names.count(name) > 1:
                raise PipelineError(f"{self.path}: two columns are called {name!r}; each needs a name of its own")


def column_names(kind: str, columns: Any) -> tuple[str, ...] | None:
    """The checked `columns` of a source; None for all."""
    if columns is None:
        return None
    if isinstance(columns, str) or not isinstance(columns, Iterable):
        raise SignatureError(f"{kind}: columns is a list of names, not {columns!r}")
    names = tuple(columns)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise PipelineError(f"{kind}: columns is a list of different names, at least one, not {list(names)!r}")
    return names


def source_spec(
    kind: str, source: Any, args: tuple[Any, ...], kw: dict[str, Any], *, bounded: bool
) -> tuple[IterableSource | ChunkSource | MadeSource, str]:
    """Check what was given to `from_batch` and its kin; also the name to suggest for the operator."""
    reject_reserved(kind, kw, source)
    if isinstance(source, type):
        if not has_execute(source) and not hasattr(source, "__iter__"):
            raise SignatureError(f"{kind}: {source.__name__} has neither execute() nor __iter__()")
        check_constructor(kind, source, args, kw)
        if has_execute(source) and inspect.isfunction(execute := inspect.getattr_static(source, "execute")):
            check_arity(kind, execute.__get__(object()), 0, f"{source.__name__}.execute")
        ends = bounded or issubclass(source, BatchFunction)
        return MadeSource(source, args, kw, ends), function_name(source) or "source"
    if hasattr(source, "execute") and not isinstance(source, Iterable):
        name = type(source).__name__
        raise SignatureError(f"{kind}: give the class and its arguments, {kind}({name}, ...), not an instance")
    is_given = is_chunk(source) and not isinstance(source, list)
    if is_given or isinstance(source, Iterable):
        if args or kw:
            raise SignatureError(f"{kind}: takes no arguments after an iterable, but got {_listing(args, kw)}")
        if type(source).__name__ == "DataFrame":
            raise SignatureError(f"{kind}: iterating a DataFrame gives its column names; use from_dataframe(df)")
        return ChunkSource(source) if is_given else IterableSource(source), "source"
    if callable(source):
        if inspect.iscoroutinefunction(source) or inspect.isasyncgenfunction(source):
            raise SignatureError(f"{kind}: {function_name(source)} is asynchronous; use a plain function or generator")
        check_constructor(kind, source, args, kw)
        return MadeSource(source, args, kw, bounded), function_name(source) or "source"
    raise SignatureError(f"{kind}: takes an iterable, a callable or a class, and {type(source).__name__} is none")


def _listing(args: tuple[Any, ...], kw: dict[str, Any]) -> str:
    return ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in kw.items())])


def file_path(kind: str, path: str | os.PathLike[str]) -> str:
    """`path` as text. Raises `SignatureError` where it is none."""
    if not isinstance(path, (str, os.PathLike)):
        raise SignatureError(f"{kind}: takes a path, not {type(path).__name__}")
    return str(Path(path).expanduser())


def is_end(item: Any) -> bool:
    """Whether a polled item says that nothing more will come."""
    return isinstance(item, StopSignal)
