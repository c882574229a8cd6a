"""Event times and watermarks.

What `event_time` returns becomes a number that computes exactly, and a number becomes what the user sees again:
numbers are seconds as they are, datetimes are whole microseconds since the epoch. A stream keeps to one kind, which
its first time settles. Watermarks are in the same unit.
"""

from __future__ import annotations

import reprlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

__all__ = ["INFINITY", "Times", "Watermarks", "plain"]

INFINITY = float("inf")
_NUMBER, _NAIVE, _AWARE = "a number", "a datetime without a time zone", "a datetime with a time zone"
_EPOCHS = {_NAIVE: datetime(1970, 1, 1), _AWARE: datetime(1970, 1, 1, tzinfo=UTC)}
_MICROSECOND = timedelta(microseconds=1)
_LAST = (datetime.max - _EPOCHS[_NAIVE]) // _MICROSECOND
_RETURN = "return the item's time: seconds as a number, or a datetime"


def plain(fraction: Fraction) -> float:
    """An int where it is whole, else the nearest float."""
    return fraction.numerator if fraction.denominator == 1 else float(fraction)


class Times:
    """The times of one stream. Naive datetimes are computed with as if they were UTC; aware ones come back in UTC."""

    __slots__ = ("kind", "last", "plain")

    def __init__(self) -> None:
        self.kind: str | None = None
        self.plain: type | None = None
        """Times of exactly this type are their own numbers, unless they are not finite."""
        self.last = INFINITY
        """The largest number that has a label."""

    def number(self, time: Any) -> float:
        """The number of `time`. Raises `TypeError` or `ValueError` that says what `event_time` should return."""
        kind, number = _read(time)
        if kind != self.kind:
            self._settle(kind, time)
        return number

    def _settle(self, kind: str, time: Any) -> None:
        if self.kind is not None:
            raise TypeError(
                f"event_time returned {reprlib.repr(time)}, {kind}, where other items have {self.kind}; "
                "return times of one kind"
            )
        self.kind = kind
        if kind != _NUMBER:
            self.last = _LAST
        elif type(time) in (int, float):
            self.plain = type(time)

    def label(self, number: float) -> Any:
        """The time that `number` stands for, of the stream's own kind."""
        if self.kind is None or self.kind == _NUMBER:
            return number
        try:
            return _EPOCHS[self.kind] + number * _MICROSECOND
        except OverflowError:
            raise ValueError("a window of event_time would reach out of the years 1 to 9999 of a datetime") from None

    def exact(self, seconds: float) -> Fraction:
        """A duration in the unit of the numbers, as the decimal that it is written as: 0.1 is a tenth.

        With datetimes it is rounded to a microsecond, as in a `timedelta`.
        """
        written = Fraction(repr(seconds))
        return written if self.kind is None or self.kind == _NUMBER else Fraction(round(written * 1_000_000))

    def duration(self, seconds: float) -> float:
        """As `exact`, as a plain number; infinity stays what it is."""
        return seconds if seconds in (INFINITY, -INFINITY) else plain(self.exact(seconds))


def _read(time: Any) -> tuple[str, float]:
    if isinstance(time, datetime):
        return _read_datetime(time)
    if isinstance(time, (float, Real, Decimal)) and not isinstance(time, bool):
        if isinstance(time, (int, Integral)):
            return _NUMBER, int(time)
        number = float(time)
        if number - number != 0:
            raise ValueError(f"event_time returned {time!r}; {_RETURN}")
        return _NUMBER, number
    if isinstance(time, date):
        return _NAIVE, (time.toordinal() - _EPOCHS[_NAIVE].toordinal()) * 86_400_000_000
    if getattr(getattr(time, "dtype", None), "kind", None) == "M" and time.shape == ():  # numpy's datetime64
        if time != time:
            raise ValueError(f"event_time returned {time!r}; {_RETURN}")
        return _NAIVE, int(time.astype("datetime64[us]").astype("int64"))
    hint = " (datetime.fromisoformat() reads most texts)" if isinstance(time, str) else ""
    raise TypeError(f"event_time returned {reprlib.repr(time)}; {_RETURN}{hint}")


def _read_datetime(time: datetime) -> tuple[str, float]:
    if type(time) is not datetime:  # a subclass, as pandas' Timestamp, may compute in another way and unit
        if time != time:  # pandas' NaT
            raise ValueError(f"event_time returned {time!r}; {_RETURN}")
        time = datetime(
            time.year, time.month, time.day, time.hour, time.minute, time.second, time.microsecond, time.tzinfo,
            fold=time.fold,
        )  # fmt: skip
    kind = _NAIVE if time.utcoffset() is None else _AWARE
    since = time - _EPOCHS[kind]
    return kind, (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


class Watermarks:
    """Up to where a stream of several inputs is complete: the lowest of its inputs' latest times, less the disorder.

    It never goes back. Its unit is that of the numbers of `Times`.
    """

    __slots__ = ("_delay", "_disorder", "_idle", "_marks", "_plain", "_single", "_times", "watermark")

    def __init__(self, out_of_orderness: float, origins: int = 1) -> None:
        self._disorder = out_of_orderness
        self._times = Times()
        self._plain: type | None = None
        self._delay: float = 0
        self._marks: list[float] = [-INFINITY] * origins
        self._idle: set[int] = set()
        self._single = origins == 1
        self.watermark: float = -INFINITY

    def stamp(self, time: Any, origin: int = 0) -> float:
        """Note the time of an item of input `origin`; the watermark by which that item is judged."""
        if type(time) is not self._plain:
            time = self._number(time)
        mark: float = time - self._delay
        before, moved = self._marks[origin], False
        if mark > before:
            if mark == INFINITY:
                self._times.number(time)  # raises
            self._marks[origin] = mark
            if self._single:
                self.watermark = mark
                return mark
            moved = before <= self.watermark  # the lowest mark moves only with the input that holds it
        elif mark - mark != 0:
            self._times.number(time)  # raises
        if self._idle:
            self._idle.discard(origin)
            moved = True
        return self._lowest() if moved else self.watermark

    def close(self, origin: int) -> float:
        """Input `origin` has ended: it holds nothing back any more. When all have, the watermark is infinite."""
        self._marks[origin] = INFINITY
        self._idle.discard(origin)
        return self._lowest()

    def idle(self, origin: int) -> float:
        """Input `origin` gives nothing for now: it is left out until it gives an item again."""
        if self._marks[origin] < INFINITY:
            self._idle.add(origin)
        return self._lowest()

    def _lowest(self) -> float:
        marks = self._marks
        if self._idle:
            marks = [mark for origin, mark in enumerate(marks) if origin not in self._idle and mark < INFINITY]
        self.watermark = max(self.watermark, min(marks, default=self.watermark))
        return self.watermark

    def _number(self, time: Any) -> float:
        settled = self._times.kind is not None
        number = self._times.number(time)
        if not settled:
            self._plain = self._times.plain
            self._delay = self._times.duration(self._disorder)
        return number
