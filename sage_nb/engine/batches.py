"""`map_batches` at work: gathers items and chunks into batches, and calls the function with them.

`item()`, `chunk()` and `finish()` take what comes and return the chunks that go on. Each is made of two steps, which
may be taken one by one where results are to go on before the next batch is begun: `cut()` gives the batches that are
full, `apply()` calls the function with one.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sage_nb.pipeline.batches import Columns, as_format, is_chunk, is_frame, join, length, record_of, rows, split

__all__ = ["SINGLE_ITEMS", "Batcher", "as_format", "is_chunk", "is_frame", "length", "rows", "split"]

SINGLE_ITEMS = 4096
"""How many single items make a batch where no size is given."""


class Batcher:
    """Calls `call` with batches of `size` rows; None for chunks as they come, and up to 4,096 single items.

    With `failed`, an exception of `call` is given to `failed(exception, batch)` instead of being raised, and what
    comes next goes on.
    """

    __slots__ = ("_call", "_count", "_failed", "_format", "_free", "_held", "_items", "_size", "batch")

    def __init__(
        self,
        call: Callable[[Any], Any],
        size: int | None,
        format: str,
        failed: Callable[[Exception, Any], None] | None = None,
    ) -> None:
        self._call = call
        self._size = size
        self._format = format
        self._failed = failed
        self._items: list[Any] = []
        self._held: deque[Any] = deque()
        """Chunks of the format, in order, of `_count` rows, less than a batch. `_items` came after them."""
        self._count = 0
        self._free = size or SINGLE_ITEMS
        """How many `_items` make a batch, together with what is held."""
        self.batch: Any = None
        """What `call` is at work on, or has failed on."""

    @property
    def pending(self) -> int:
        """The number of rows held back for the next batch."""
        return self._count + len(self._items)

    def item(self, item: Any) -> Sequence[Any]:
        """Take one item."""
        self._items.append(item)
        if len(self._items) < self._free:
            return ()
        return self.finish()

    def chunk(self, chunk: Any) -> list[Any]:
        """Take a chunk: as it is where no size was given, else in parts of that size, the rest held back."""
        return [out for batch in self.cut(chunk) for out in self.apply(batch)]

    def finish(self) -> list[Any]:
        """Call with what is held back. More may come afterwards: an idle stream is flushed so."""
        return [out for batch in self.rest() for out in self.apply(batch)]

    def cut(self, chunk: Any) -> list[Any]:
        """Take a chunk; the batches that are full now, to be given to `apply`."""
        if self._size is None:
            full = self.rest()
            self._hold(chunk)
            return full + self.rest()
        self._hold_items()
        self._hold(chunk)
        full = [batch for _ in range(self._count // self._size) for batch in self._take(self._size)]
        self._free = self._size - self._count
        return full

    def rest(self) -> list[Any]:
        """What is held back, as the batches to be given to `apply`: one or none."""
        self._hold_items()
        self._free = self._size or SINGLE_ITEMS
        return self._take(self._count)

    def apply(self, batch: Any) -> list[Any]:
        """Call the function with a batch; the chunk that goes on, if any."""
        self.batch = batch
        try:
            result = _taken_apart(_columns_back(batch, self._call(batch)))
        except Exception as exc:  # noqa: BLE001 - raised again, or the error policy's
            self._refuse(exc, batch)
            result = None
        self.batch = None
        if result is None:
            return []
        if not is_chunk(result):
            return [[result]]
        return [result] if length(result) else []

    def _refuse(self, exc: Exception, batch: Any) -> None:
        if self._failed is None:
            raise exc
        self._failed(exc, batch)

    def _hold_items(self) -> None:
        if self._items:
            items, self._items = self._items, []
            self._hold(items)

    def _hold(self, chunk: Any) -> None:
        try:
            formed = as_format(chunk, self._format)
        except Exception as exc:  # noqa: BLE001 - raised again, or the error policy's
            self.batch = chunk
            self._refuse(exc, chunk)
            return
        if count := length(formed):
            self._held.append(formed)
            self._count += count

    def _take(self, count: int) -> list[Any]:
        """The first `count` rows of what is held, as one batch; so many there are."""
        taken = []
        self._count -= count
        while count:
            first = self._held.popleft()
            held = length(first)
            if held > count:
                self._held.appendleft(split(first, count, held))
                first = split(first, 0, count)
            taken.append(first)
            count -= min(held, count)
        try:
            return [join(taken, self._format)] if taken else []
        except Exception as exc:  # noqa: BLE001 - raised again, or the error policy's
            self.batch = [row for chunk in taken for row in rows(chunk)]
            self._refuse(exc, self.batch)
            return []


def _taken_apart(result: Any) -> Any:
    """The items of an iterable, such as a generator. What has fields is one item, as are text, dicts and scalars."""
    whole = (str, bytes, bytearray, memoryview, Mapping)
    if isinstance(result, whole) or not isinstance(result, Iterable) or is_chunk(result) or hasattr(result, "dtype"):
        return result
    return result if record_of(result) is not None else list(result)


def _columns_back(batch: Any, result: Any) -> Any:
    """Where columns were given, a dict of arrays that comes back is columns again; any other dict is an item."""
    if not isinstance(batch, Columns) or not isinstance(result, dict) or not result:
        return result
    np = importlib.import_module("numpy")
    others = [name for name, values in result.items() if not isinstance(values, np.ndarray) or not values.ndim]
    if others and not isinstance(result, Columns):
        return result
    if others:
        raise TypeError(f"map_batches: column {others[0]!r} is no array, but {type(result[others[0]]).__name__}")
    if len({len(values) for values in result.values()}) > 1:
        lengths = ", ".join(f"{name!r} has {len(values)}" for name, values in result.items())
        raise ValueError(f"map_batches: the columns of a batch are of one length, but {lengths} rows")
    return Columns(result)
