"""The state of an interval join: items that wait for a partner, per key and side, by their times.

An item waits until the other side's watermark says that no partner comes any more. A heap holds, of each row of
waiting items, the earliest time, so that what has to go is found without a walk over the keys.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from heapq import heappop, heappush
from itertools import count
from typing import Any

from sage_nb.engine.times import INFINITY, Times, Watermarks
from sage_nb.pipeline.operators import IntervalSpec

__all__ = ["IntervalJoin"]

_COMPACT = 64
"""So many items that are gone may stand before those that wait."""


class _Row:
    """The waiting items of one key and side, by time and then arrival, from `head` on."""

    __slots__ = ("entry", "head", "items", "key", "times")

    def __init__(self, key: Any) -> None:
        self.key = key
        self.entry = -1
        self.head = 0
        self.times: list[float] = []
        self.items: list[Any] = []

    def add(self, time: float, item: Any) -> bool:
        """Whether it is now the first."""
        at = bisect_right(self.times, time, self.head)
        self.times.insert(at, time)
        self.items.insert(at, item)
        return at == self.head

    def within(self, time: float, low: float, high: float) -> list[Any]:
        """The items whose times are `low` to `high` after `time`."""
        first = bisect_left(self.times, low, self.head, key=lambda other: other - time)
        return self.items[first : bisect_right(self.times, high, first, key=lambda other: other - time)]

    def drop(self, count: int) -> None:
        """Forget the first `count` items."""
        self.items[self.head : self.head + count] = [None] * count
        self.head += count
        if self.head >= _COMPACT and self.head * 2 >= len(self.times):
            del self.times[: self.head], self.items[: self.head]
            self.head = 0


class _Side:
    """The waiting items of one side. `reach` is how long after an item its partner may come at the latest."""

    __slots__ = ("_entries", "_heap", "_rows", "reach")

    def __init__(self) -> None:
        self.reach: float = 0
        self._rows: dict[Any, _Row] = {}
        self._heap: list[tuple[float, int, _Row]] = []
        self._entries = count()

    def __len__(self) -> int:
        return sum(len(row.times) - row.head for row in self._rows.values())

    def row(self, key: Any) -> _Row | None:
        return self._rows.get(key)

    def add(self, key: Any, time: float, item: Any) -> None:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = _Row(key)
        if row.add(time, item):
            self._enter(row)

    def clear(self) -> None:
        self._rows.clear()
        self._heap.clear()

    def is_over(self, time: float, watermark: float) -> bool:
        """Whether an item of `time` can find no partner from `watermark` on."""
        return watermark - time > self.reach

    def evict(self, watermark: float) -> None:
        """Forget what can find no partner from `watermark` on."""
        heap = self._heap
        while heap and self.is_over(heap[0][0], watermark):
            _, entry, row = heappop(heap)
            if entry != row.entry:
                continue
            stays = bisect_left(row.times, True, row.head, key=lambda time: not self.is_over(time, watermark))
            row.drop(stays - row.head)
            if row.head == len(row.times):
                del self._rows[row.key]
            else:
                self._enter(row)

    def _enter(self, row: _Row) -> None:
        row.entry = next(self._entries)
        heappush(self._heap, (row.times[row.head], row.entry, row))


class IntervalJoin:
    """Pairs of a left (tag 0) and a right item (tag 1) of one key, with `lower <= right's time - left's <= upper`.

    `origins` is the number of inputs on each side. Every pair is found if no side is out of order by more than
    `out_of_orderness`; an item that comes later still meets those that are kept.
    """

    __slots__ = ("_closed", "_lower", "_marks", "_plain", "_sides", "_spec", "_times", "_upper", "late_count")

    def __init__(self, spec: IntervalSpec, origins: tuple[int, int] = (1, 1)) -> None:
        self._spec = spec
        self._times = Times()
        self._plain: type | None = None
        self._marks = tuple(Watermarks(spec.out_of_orderness, number) for number in origins)
        self._sides = (_Side(), _Side())
        self._closed = [False, False]
        self.late_count = 0
        """How many items were behind their side's watermark, and so may have missed partners."""
        self._set_bounds()

    def __len__(self) -> int:
        """How many items wait."""
        return sum(map(len, self._sides))

    def execute(self, payload: Any, key: Any, tag: int, origin: int = 0) -> list[tuple[Any, Any]]:
        """The pairs that `payload` makes with what waits, by its partners' times and then their arrival."""
        returned: Any = self._spec.times[tag](payload)
        time: Any = returned if type(returned) is self._plain else self._number(returned)
        watermark = self._marks[tag].stamp(returned, origin)
        if time < watermark:
            self.late_count += 1
        mine, others = self._sides[tag], self._sides[1 - tag]
        others.evict(watermark)
        row = others.row(key)
        if not self._closed[1 - tag] and not mine.is_over(time, self._marks[1 - tag].watermark):
            mine.add(key, time, payload)
        if row is None:
            return []
        if tag == 0:
            return [(payload, other) for other in row.within(time, self._lower, self._upper)]
        return [(other, payload) for other in row.within(time, -self._upper, -self._lower)]

    def close(self, tag: int, origin: int = 0) -> None:
        """An input has ended. Once all of a side have, the other side's items wait for nothing."""
        watermark = self._marks[tag].close(origin)
        if watermark == INFINITY:
            self._closed[tag] = True
            self._sides[1 - tag].clear()
        else:
            self._sides[1 - tag].evict(watermark)

    def _number(self, time: Any) -> float:
        settled = self._times.kind is not None
        number = self._times.number(time)
        if not settled:
            self._plain = self._times.plain
            self._set_bounds()
        return number

    def _set_bounds(self) -> None:
        self._lower, self._upper = self._times.duration(self._spec.lower), self._times.duration(self._spec.upper)
        left, right = self._sides
        left.reach, right.reach = self._upper, -self._lower
