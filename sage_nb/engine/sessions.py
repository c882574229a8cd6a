"""Sessions: windows that grow with every item, merge where an item bridges two, and end after a gap.

An item at `time` claims the span from `time` to `time + gap`. What claims overlapping spans belongs together. Heaps
hold when sessions end; an entry is not moved as its session grows, but looked at again when it comes up.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from heapq import heappop, heappush
from itertools import count
from operator import attrgetter
from typing import Any

from sage_nb.engine.times import INFINITY
from sage_nb.engine.windows import Windows
from sage_nb.pipeline.windows import Session, WindowResult, WindowSpec

__all__ = ["SessionWindows"]

_START, _END = attrgetter("start"), attrgetter("end")
_BEGAN, _ORDER = attrgetter("began"), attrgetter("end", "start", "began")
_NONE = -1


class _Session:
    """One session of a key. `began` is the number of its first arrival, `entry` that of its place in a heap."""

    __slots__ = ("began", "end", "entry", "fired", "key", "start", "state")

    def __init__(self, key: Any, start: float, end: float, began: int, state: Any) -> None:
        self.key = key
        self.start = start
        self.end = end
        self.began = began
        self.state = state
        self.fired = False
        self.entry = _NONE


_Heap = list[tuple[float, int, _Session]]


class SessionWindows(Windows):
    """The sessions of every key, in the order of their starts; those of one key never overlap."""

    __slots__ = ("_arrival", "_gap", "_kept", "_open", "_sessions", "_stamped")

    def __init__(
        self, spec: WindowSpec, origins: int, late: Callable[[Any], object] | None, clock: Callable[[], float]
    ) -> None:
        self._sessions: dict[Any, list[_Session]] = {}
        self._arrival = count()
        self._open: _Heap = []
        """Heap of those that have not fired, each once, by an end that it had."""
        self._kept: _Heap = []
        """Heap of those that have, by an end that they had."""
        super().__init__(spec, origins, late, clock)
        self._stamped = self._aggregate.stamped

    def item(self, key: Any, item: Any) -> Sequence[WindowResult]:
        time: Any = self._time_of(item)
        if type(time) is not self._plain:
            time = self._number(time)
        if not (time - self._delay < self._due and self._slip_in(key, item, time)):
            return self._advance_by(key, item, time)
        if time > self._latest:
            self._latest = time
        return ()

    def _slip_in(self, key: Any, item: Any, time: float) -> bool:
        row = self._sessions.get(key)
        if row is None:
            return False
        session, end = row[-1], time + self._gap
        if session.fired or not session.start <= time < session.end or end > self._times.last:
            return False
        value = self._value(item)
        session.state = self._aggregate.fold(session.state, (next(self._arrival), value) if self._stamped else value)
        if end > session.end:
            session.end = end
        return True

    def _set_durations(self) -> None:
        super()._set_durations()
        assert isinstance(self._spec.window, Session)
        self._gap = self._times.duration(self._spec.window.gap)
        if not self._gap:
            raise ValueError("this session's gap is too short for datetimes, which tell no less than a microsecond")

    def _place(self, key: Any, item: Any, value: Any, time: float) -> None:
        end = time + self._gap
        if not time < end <= self._times.last:
            self._times.label(end)  # raises where it is no datetime
            raise ValueError(
                f"event_time returned {time!r}; a float so large cannot tell a gap of {self._gap!r} s: "
                "return seconds since the epoch"
            )
        arrival = next(self._arrival)
        if self._stamped:
            value = arrival, value
        row = self._sessions.get(key, [])
        low, high = bisect_right(row, time, key=_END), bisect_left(row, end, key=_START)
        if low < high:
            state = self._aggregate.fold(self._state_of(row[low:high]), value)
            session = self._merge(row, low, high)
            session.state = state
            session.start, session.end = min(session.start, time), max(session.end, end)
            if session.fired and session.end > self._watermark:
                self._enter(session)
        elif end + self._lateness > self._watermark:
            session = _Session(key, time, end, arrival, self._aggregate.start(value))
            row.insert(low, session)
            self._sessions[key] = row
            self._enter(session)
        else:
            self._take_late(item)
            return
        if session.fired:
            self._to_firing(session)
            self._emit_firing()

    def _state_of(self, sessions: list[_Session]) -> Any:
        """The state that sessions have together."""
        return reduce(self._aggregate.merge, [session.state for session in sorted(sessions, key=_BEGAN)])

    def _merge(self, row: list[_Session], low: int, high: int) -> _Session:
        """Make one of the sessions from `low` to below `high`, but for its state."""
        kept = row[low]
        for other in row[low + 1 : high]:
            kept.began, kept.end = min(kept.began, other.began), max(kept.end, other.end)
            other.entry = _NONE
        del row[low + 1 : high]
        return kept

    def _enter(self, session: _Session) -> None:
        """Put a session into the heap that it belongs to by the watermark."""
        session.fired = session.end <= self._watermark
        session.entry = next(self._arrival)
        heappush(self._kept if session.fired else self._open, (session.end, session.entry, session))
        self._due = min(self._due, session.end + self._lateness if session.fired else session.end)

    def _to_firing(self, session: _Session) -> None:
        label = self._times.label
        self._firing.append((session.key, label(session.start), label(session.end), session.state))

    def _fire(self) -> None:
        ended = list(self._pop(self._open, 0))
        for session in sorted(ended, key=_ORDER):
            self._to_firing(session)
            self._enter(session)
        for session in self._pop(self._kept, self._lateness):
            self._forget(session)
        self._emit_firing()
        next_end = self._open[0][0] if self._open else INFINITY
        self._due = min(next_end, self._kept[0][0] + self._lateness) if self._kept else next_end

    def _pop(self, heap: _Heap, after: float) -> Iterator[_Session]:
        """Take off the sessions whose end, and `after`, the watermark has passed."""
        while heap and heap[0][0] + after <= self._watermark:
            _, entry, session = heappop(heap)
            if entry == session.entry and session.end + after > self._watermark:
                self._enter(session)  # it has grown since it came here
            elif entry == session.entry:
                yield session

    def _forget(self, session: _Session) -> None:
        row = self._sessions[session.key]
        del row[bisect_left(row, session.start, key=_START)]
        if not row:
            del self._sessions[session.key]
