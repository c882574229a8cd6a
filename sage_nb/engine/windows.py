"""The state of a window operator: which windows are open, what is in them, and when they fire.

No threads and no timers here. Every call takes an item, a watermark or the time, and returns the results that have
become due by it. Tumbling and sliding windows are a `Grid`: window n begins at n steps from the epoch. The windows of
the latest item are kept at hand, and so the next item, which mostly falls into the same ones, costs a comparison and
not a look-up.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from fractions import Fraction
from heapq import heappop, heappush
from math import floor, lcm, ulp
from typing import Any

from sage_nb.engine.aggregates import Aggregate, aggregate_of
from sage_nb.engine.times import INFINITY, Times, Watermarks
from sage_nb.pipeline.windows import Session, Sliding, Tumbling, WindowResult, WindowSpec

__all__ = ["GridWindows", "Watermarks", "Windows", "make_windows"]

_NOTHING = object()


def make_windows(
    spec: WindowSpec,
    origins: int = 1,
    late: Callable[[Any], object] | None = None,
    clock: Callable[[], float] = time.time,
) -> Windows:
    """The windows of one instance of an operator with `origins` inputs.

    `late` gets the items that come too late. `clock` gives the time where there is no event time.
    """
    from sage_nb.engine.sessions import SessionWindows

    cls = SessionWindows if isinstance(spec.window, Session) else GridWindows
    return cls(spec, origins, late, clock)


class Windows(ABC):
    """What all windows have in common: their watermark, and what is on its way out.

    Results come by the window's end, then its start, then its key's first arrival in it; an item that is late but
    within `lateness` emits its window's new value at once. A call that raises, in a function of the user's, loses
    nothing else: what was due by it comes with the next call.

    With datetimes, watermarks are microseconds since the epoch, as `Watermarks` gives them.
    """

    __slots__ = (
        "_aggregate", "_clock", "_delay", "_due", "_emit_late", "_firing", "_lateness", "_latest", "_marks", "_plain",
        "_ready", "_spec", "_time_of", "_times", "_value_of", "_watermark", "late_count",
    )  # fmt: skip

    def __init__(
        self, spec: WindowSpec, origins: int, late: Callable[[Any], object] | None, clock: Callable[[], float]
    ) -> None:
        self._spec = spec
        self._aggregate: Aggregate = aggregate_of(spec.aggregate, merging=isinstance(spec.window, Session))
        self._value_of = None if spec.aggregate == "count" else spec.value
        self._clock = clock
        self._time_of = spec.event_time or self._now
        self._emit_late = late
        self._times = Times()
        self._plain: type | None = None
        self._marks = Watermarks(spec.out_of_orderness, origins)
        self._latest: float = -INFINITY
        self._watermark: float = -INFINITY
        self._due: float = INFINITY
        """No later than the watermark by which something has to be done."""
        self._ready: list[WindowResult] = []
        self._firing: deque[tuple[Any, Any, Any, Any]] = deque()
        self.late_count = 0
        """How many items came too late."""
        self._set_durations()

    # Event time and arrival

    @abstractmethod
    def item(self, key: Any, item: Any) -> Sequence[WindowResult]:
        """Take in an item of the only input. It moves the watermark, which fires what is due; then it is added."""

    def item_from(self, key: Any, item: Any, origin: int) -> Sequence[WindowResult]:
        """As `item`, where there are several inputs."""
        if self._spec.event_time is None:
            return self.item(key, item)
        time = self._time_of(item)
        return self.item_at(key, item, time, self._marks.stamp(time, origin))

    def item_at(self, key: Any, item: Any, time: Any, watermark: float) -> Sequence[WindowResult]:
        """Take in an item of which time and watermark are known: `time` is what `event_time` returned."""
        if type(time) is not self._plain:
            time = self._number(time)
        if watermark < self._due and self._slip_in(key, item, time):
            if watermark > self._watermark:
                self._watermark = watermark
            return ()
        return self._step(key, item, time, watermark)

    def close(self, origin: int = 0) -> Sequence[WindowResult]:
        """Input `origin` has ended. With event time, what only it held back fires."""
        return () if self._spec.event_time is None else self.advance(self._marks.close(origin))

    def idle(self, origin: int = 0) -> Sequence[WindowResult]:
        """Input `origin` gives nothing for now, and is left out until it does."""
        return () if self._spec.event_time is None else self.advance(self._marks.idle(origin))

    def advance(self, watermark: float) -> Sequence[WindowResult]:
        """Nothing before `watermark` comes any more, but for late items."""
        if watermark > self._watermark:
            self._watermark = watermark
        if self._due <= self._watermark:
            self._fire()
        return self._take()

    def finish(self) -> Sequence[WindowResult]:
        """The stream has ended: everything that has not fired does."""
        return self.advance(INFINITY)

    # Processing time

    def due(self) -> float | None:
        """When the next window ends, by the clock; None while none is open."""
        return None if self._due == INFINITY else self._due

    def tick(self, now: float) -> Sequence[WindowResult]:
        """The clock says `now`."""
        return self.advance(now)

    def _now(self, _: Any) -> float:
        # A clock that is set back would put items into windows that have fired.
        return max(self._clock(), self._latest, self._watermark)

    # How it is done

    @abstractmethod
    def _set_durations(self) -> None:
        """Compute the spec's durations in the unit of the times."""
        self._delay = self._times.duration(self._spec.out_of_orderness)
        self._lateness = self._times.duration(self._spec.lateness)

    @abstractmethod
    def _slip_in(self, key: Any, item: Any, time: float) -> bool:
        """Add an item in the way of most: into windows that are open. False where it has to go the long way."""

    @abstractmethod
    def _place(self, key: Any, item: Any, value: Any, time: float) -> None:
        """Add an item to its windows, or count it as late."""

    @abstractmethod
    def _fire(self) -> None:
        """Emit and drop what the watermark makes due."""

    def _number(self, time: Any) -> float:
        settled = self._times.kind is not None
        number = self._times.number(time)
        if not settled:
            self._plain = self._times.plain
            self._set_durations()
        return number

    def _value(self, item: Any) -> Any:
        return item if self._value_of is None else self._value_of(item)

    def _advance_by(self, key: Any, item: Any, time: float) -> Sequence[WindowResult]:
        """`item`, the long way."""
        return self._step(key, item, time, max(time, self._latest) - self._delay)

    def _step(self, key: Any, item: Any, time: float, watermark: float) -> Sequence[WindowResult]:
        """Fire what `watermark` makes due, then add the item."""
        value = self._value(item)
        if time - time != 0:
            self._times.number(time)  # raises
        if watermark > self._watermark:
            self._watermark = watermark
        try:
            if self._due <= self._watermark:
                self._fire()
        finally:
            self._place(key, item, value, time)
        return self._take()

    def _take(self) -> Sequence[WindowResult]:
        if not self._ready:
            return ()
        ready, self._ready = self._ready, []
        return ready

    def _emit_firing(self) -> None:
        firing, result = self._firing, self._aggregate.result
        due, self._due = self._due, -INFINITY  # if a function of the user's raises, the next call goes on here
        while firing:
            key, start, end, state = firing.popleft()
            self._ready.append(WindowResult(key, start, end, state if result is None else result(state)))
        self._due = due

    def _take_late(self, item: Any) -> None:
        self.late_count += 1
        if self._emit_late is not None:
            self._emit_late(item)


class _Window:
    """One window of a grid: its bounds as numbers and as the user sees them, and the state of each key."""

    __slots__ = ("end", "end_label", "start_label", "states")

    def __init__(self, end: float, start_label: Any, end_label: Any) -> None:
        self.end = end
        self.start_label = start_label
        self.end_label = end_label
        self.states: dict[Any, Any] = {}


class _Grid:
    """Windows of `size` every `step`. Bounds are whole where both are, else the floats nearest to what they are.

    Neighbours share their bounds to the bit, so that no time falls between two windows or into one too many.
    """

    __slots__ = ("_parts", "_size", "_step")

    def __init__(self, size: Fraction, step: Fraction) -> None:
        if not step:
            raise ValueError("these windows are too short for datetimes, which tell no less than a microsecond")
        self._parts = lcm(size.denominator, step.denominator)
        self._size, self._step = int(size * self._parts), int(step * self._parts)

    def start(self, n: int) -> float:
        return self._at(n * self._step)

    def end(self, n: int) -> float:
        return self._at(n * self._step + self._size)

    def around(self, time: float) -> tuple[range, float, float]:
        """The windows that hold `time`, and from when to before when a time is held by the same ones."""
        last = self._steps_by(time, 0)
        if self._size == self._step:
            return range(last, last + 1), self.start(last), self.end(last)
        first = self._steps_by(time, self._size) + 1
        low, high = max(self.start(last), self.end(first - 1)), min(self.start(last + 1), self.end(first))
        return range(first, last + 1), low, high

    def _at(self, parts: int) -> float:
        return parts if self._parts == 1 else parts / self._parts

    def _steps_by(self, time: float, offset: int) -> int:
        """The largest n whose n steps, and `offset`, come to `time` or less."""
        if self._parts == 1:
            return (floor(time) - offset) // self._step
        above, below = time.as_integer_ratio()
        n = (above * self._parts - offset * below) // (self._step * below)
        if self._at((n + 1) * self._step + offset) <= time:  # as floats they are the same: 0.3 is below 3/10
            n += 1
            if self._at((n + 1) * self._step + offset) <= time:
                raise ValueError(
                    f"event_time returned {time!r}; floats so large cannot tell apart windows of "
                    f"{self._at(self._step)!r} s: return seconds since the epoch"
                )
        return n


class GridWindows(Windows):
    """Tumbling and sliding windows."""

    __slots__ = ("_counting", "_counts", "_current", "_grid", "_high", "_kept", "_low", "_open", "_windows")

    def __init__(
        self, spec: WindowSpec, origins: int, late: Callable[[Any], object] | None, clock: Callable[[], float]
    ) -> None:
        self._counts = spec.aggregate == "count"
        self._windows: dict[int, _Window] = {}
        self._open: list[int] = []
        """Heap of the windows that have not fired; by number is by end."""
        self._kept: list[int] = []
        """Heap of those that have, and may again."""
        self._current: list[dict[Any, Any]] = []
        """The states of the windows that a time from `_low` to below `_high` falls into.

        None of these windows has fired, and no such time makes one fire.
        """
        self._counting: dict[Any, Any] | None = None
        """The one of `_current`, where it is one and its items are counted."""
        self._low: float = INFINITY
        self._high: float = INFINITY
        super().__init__(spec, origins, late, clock)

    def item(self, key: Any, item: Any) -> Sequence[WindowResult]:
        time: Any = self._time_of(item)
        if type(time) is not self._plain:
            time = self._number(time)
        if not self._low <= time < self._high:
            return self._advance_by(key, item, time)
        states = self._counting
        if states is not None:
            states[key] = states.get(key, 0) + 1
        else:
            self._add(key, item if self._value_of is None else self._value_of(item))
        if time > self._latest:
            self._latest = time
        return ()

    def _slip_in(self, key: Any, item: Any, time: float) -> bool:
        if not self._low <= time < self._high:
            return False
        self._add(key, self._value(item))
        return True

    def _add(self, key: Any, value: Any) -> None:
        start, fold = self._aggregate.start, self._aggregate.fold
        for states in self._current:
            state = states.get(key, _NOTHING)
            states[key] = start(value) if state is _NOTHING else fold(state, value)

    def _set_durations(self) -> None:
        super()._set_durations()
        window, exact = self._spec.window, self._times.exact
        assert isinstance(window, (Tumbling, Sliding))
        step = window.step if isinstance(window, Sliding) else window.size
        self._grid = _Grid(exact(window.size), exact(step))

    def _place(self, key: Any, item: Any, value: Any, time: float) -> None:
        numbers, low, high = self._grid.around(time)
        windows = [window for n in numbers if (window := self._window(n)) is not None]
        if not windows:
            self._take_late(item)
            return
        self._current = [window.states for window in windows]
        self._counting = self._current[0] if self._counts and len(windows) == 1 else None
        self._low = self._high = INFINITY
        if windows[0].end > self._watermark:
            self._low, self._high = low, min(high, self._latest_before_due())
        self._add(key, value)
        for window in windows:
            if window.end > self._watermark:
                break
            self._firing.append((key, window.start_label, window.end_label, window.states[key]))
        self._emit_firing()

    def _latest_before_due(self) -> float:
        """Times below this make nothing due. A little less than it could be, for differences of floats are rounded."""
        due, delay = self._due, self._delay
        return due + delay - 4 * ulp(max(abs(due), abs(due + delay))) if delay else due

    def _window(self, n: int) -> _Window | None:
        """Window n, made where it is new; None where it is gone."""
        window = self._windows.get(n)
        if window is None:
            end = self._grid.end(n)
            gone = end + self._lateness
            if gone <= self._watermark:
                return None
            window = _Window(end, self._times.label(self._grid.start(n)), self._times.label(end))
            self._windows[n] = window
            fired = end <= self._watermark
            heappush(self._kept if fired else self._open, n)
            self._due = min(self._due, gone if fired else end)
        return window

    def _fire(self) -> None:
        self._low = self._high = INFINITY
        windows, lateness = self._windows, self._lateness
        while self._open and windows[self._open[0]].end <= self._watermark:
            n = heappop(self._open)
            heappush(self._kept, n)
            window = windows[n]
            start, end = window.start_label, window.end_label
            self._firing.extend((key, start, end, state) for key, state in window.states.items())
        while self._kept and windows[self._kept[0]].end + lateness <= self._watermark:
            del windows[heappop(self._kept)]
        self._emit_firing()
        next_end = windows[self._open[0]].end if self._open else INFINITY
        self._due = min(next_end, windows[self._kept[0]].end + lateness) if self._kept else next_end
