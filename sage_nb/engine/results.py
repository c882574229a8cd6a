"""Named results: what `collect` keeps and what `show` shows."""

from __future__ import annotations

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from types import SimpleNamespace
from typing import Any, overload

from sage_nb.engine.failure import safe_str
from sage_nb.errors import PipelineError
from sage_nb.pipeline.graph import Operator
from sage_nb.pipeline.operators import RESULTS, ResultSpec

__all__ = ["Latest", "Result", "Results", "make_results", "write_items"]


class Result(Sequence[Any]):
    """The items of one named result, live: a sequence that grows while the job runs.

    Of a `collect` all items; of a `show` the last `rows`. `kind` is `"collect"` or `"show"`.
    """

    def __init__(self, name: str, kind: str, rows: int | None) -> None:
        self.name = name
        self.kind = kind
        self.rows = rows
        self._items: list[Any] | deque[Any] = [] if rows is None else deque(maxlen=rows)
        self.append: Callable[[Any], None] = self._items.append

    def __repr__(self) -> str:
        return f"<Result {self.name!r}: {len(self):,} items>"

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self._snapshot()[index] if isinstance(self._items, deque) else self._items[index]
        return self._items[index]

    def __iter__(self) -> Iterator[Any]:
        """Iterate over what is there now."""
        return iter(self._snapshot())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Result):
            return self is other
        if isinstance(other, Sequence) and not isinstance(other, (str, bytes)):
            return self._snapshot() == list(other)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def _snapshot(self) -> list[Any]:
        return list(self._items.copy())

    def extend(self, items: Iterable[Any]) -> None:
        """Append several."""
        self._items.extend(items)

    def clear(self) -> None:
        """Forget everything, for a new attempt."""
        self._items.clear()

    def tail(self, count: int) -> list[Any]:
        """The last `count` items."""
        return list(self._items[-count:]) if isinstance(self._items, list) else self._snapshot()[-count:]

    def to_list(self) -> list[Any]:
        """A list of what is there now."""
        return self._snapshot()

    def to_pandas(self) -> Any:
        """A pandas DataFrame: of dicts, named tuples and dataclasses one column per field, of tuples one per position,
        else one column `value`.

        Items that are frames or tables themselves are put one below the other.
        """
        import pandas as pd

        from sage_nb.engine.rows import as_record
        from sage_nb.pipeline.batches import as_format, is_frame, join

        items = self._snapshot()
        if items and all(map(is_frame, items)):
            return join([as_format(item, "pandas") for item in items], "pandas")
        records = [record for record in map(as_record, items) if record is not None]
        if records and len(records) == len(items):
            return pd.DataFrame.from_records(records)
        return pd.DataFrame({"value": pd.Series(items, dtype=object).infer_objects()})

    def to_csv(self, path: str | os.PathLike[str], *, encoding: str = "utf-8", delimiter: str = ",") -> None:
        """Write what is there now to a CSV file, compressed where its name ends with `.gz`.

        Rows and columns are those of `to_pandas`, and the rules for values those of `DataStream.to_csv`. The file
        appears when it is complete; a file of that name is replaced then. Raises `PipelineError` where the items do
        not fit in columns or the path is none to write to, and `OSError` where writing fails.
        """
        settings = {"encoding": encoding, "delimiter": delimiter}
        write_items("to_csv", self.name, self._snapshot(), path, settings)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write what is there now to a Parquet file, as `to_csv` does. Needs pyarrow, and one type per column."""
        write_items("to_parquet", self.name, self._snapshot(), path, {})


class Latest(Result):
    """The newest item of each key, in the order in which the keys first came; `dict(result)` of pairs is a table.

    `newest` has them by key. The loop puts them there itself, one store for each item.
    """

    def __init__(self, name: str, kind: str, rows: int | None) -> None:
        super().__init__(name, kind, rows)
        self.newest: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.newest)

    def __getitem__(self, index: int | slice) -> Any:
        return self._snapshot()[index]

    def _snapshot(self) -> list[Any]:
        return list(self.newest.copy().values())

    def clear(self) -> None:
        self.newest.clear()

    def tail(self, count: int) -> list[Any]:
        while True:
            try:
                return list(islice(reversed(self.newest.values()), count))[::-1]
            except RuntimeError:  # a key has just come; it is only looked at, so that it need not be copied
                continue


def write_items(
    kind: str, name: str, items: list[Any], path: Any, settings: dict[str, Any], raw: type[io.FileIO] = io.FileIO
) -> None:
    """Write the items of a result to a file, which is opened as `raw`."""
    from sage_nb.pipeline.files import CsvSink, ParquetSink, check_target

    sink: Any = {"to_csv": CsvSink, "to_parquet": ParquetSink}[kind](check_target(kind, path, settings), **settings)
    sink.raw = raw
    state = SimpleNamespace(failed=False)
    sink.ctx = SimpleNamespace(is_stop_requested=lambda: state.failed, note=lambda _: None)
    sink.open()
    try:
        for item in _of_one_form(items):
            sink.execute(item)
        sink.close()
    except (TypeError, ValueError, OverflowError) as exc:
        state.failed = True
        raise PipelineError(f"the result {name!r} cannot be written: {safe_str(exc)}") from exc
    finally:
        state.failed = True  # what was not closed until here is discarded
        sink.close()


def _of_one_form(items: list[Any]) -> Iterable[Any]:
    """The items; where they are records that lack some fields of others, records with None for these; and where
    single values are among tuples, all as single values."""
    from sage_nb.engine.rows import as_record
    from sage_nb.pipeline.batches import record_of

    records = [record for record in map(as_record, items) if record is not None]
    names = dict.fromkeys(name for record in records for name in record)
    if 0 < len(records) < len(items) and all(record_of(item) is None for item in items):
        return ({"value": item} for item in items)
    if len(records) < len(items) or all(len(record) == len(names) for record in records):
        return items
    return ({name: record.get(name) for name in names} for record in records)


class Results(dict[str, Result]):
    """The results of one job, by name."""

    def __missing__(self, name: object) -> Result:
        raise KeyError(f"no result is called {name!r}; there are: {', '.join(self) or 'none'}")


def make_results(operators: Iterable[Operator]) -> Results:
    """An empty result for each `collect` and `show`."""
    found = Results()
    for op in operators:
        if op.kind in RESULTS:
            spec: ResultSpec = op.spec
            found[spec.name] = (Latest if spec.latest else Result)(spec.name, op.kind, spec.rows)
    return found
