"""Named results: what `collect` keeps and what `show` shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

from sage_nb.pipeline.graph import Operator

__all__ = ["Result", "Results", "make_results"]


class Result(Sequence[Any]):
    """The items of one named result, live: a sequence that grows while the job runs.

    Of a `collect` all items; of a `show` the last `rows`. `kind` is `"collect"` or `"show"`.
    """

    def __init__(self, name: str, kind: str, rows: int | None) -> None:
        self.name = name
        self.kind = kind
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
        """A pandas DataFrame: of dicts, named tuples and dataclasses one column per field, else one column `value`.

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


class Results(dict[str, Result]):
    """The results of one job, by name."""

    def __missing__(self, name: object) -> Result:
        raise KeyError(f"no result is called {name!r}; there are: {', '.join(self) or 'none'}")


def make_results(operators: Iterable[Operator]) -> Results:
    """An empty result for each `collect` and `show`."""
    found = Results()
    for op in operators:
        if op.kind == "collect":
            found[op.spec] = Result(op.spec, "collect", None)
        elif op.kind == "show":
            name, rows = op.spec
            found[name] = Result(name, "show", rows)
    return found
