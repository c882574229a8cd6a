"""What one job prints: how much of it goes straight to the cell, and what is kept of the rest.

A page that gets ten thousand lines a second answers no click, and a notebook that keeps a million cannot be opened. So
a job has room for a number of lines and characters, which grows again while it prints less. What goes beyond is
counted, and its last lines are kept. Where the job prints less again, and at its end, one line says how much is not
shown, and the last of it follows.

Who takes in what threads print (the notebook, a runner) asks `of_job` whose it is. Where nobody asks, as in a terminal,
nothing is held back.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

__all__ = ["Limits", "Printed", "limits_for", "of_job", "printing_of"]

_KEPT = 500  # lines
_WIDTH = 1000  # characters of a kept line
_AGAIN = 20  # of the kept lines, those that follow in the cell
_TRIM = 1 << 16
_FLUSH = 0.1
_SMALL = 4096  # characters
_COUNT_AT, _COUNT_WITHIN = 1000, 0.05
_STEERING = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?")
_CUT = f"… more than a cell should show: from here on lines are counted, and the last {_KEPT} are in the job's view\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a job may print into its cell."""

    lines: int = 1_000
    """At once."""
    size: int = 256 << 10
    """Characters at once."""
    displays: int = 100
    """At once; those that only change one that is there have as many places again."""
    seconds: float = 100.0
    """In which all that room is there again."""
    most: int = 10
    """How often all that room is there in the job's whole life."""


_WATCHED = Limits(lines=200, size=64 << 10)
"""So that the view and its Stop stay near."""
_UNWATCHED = Limits(lines=10_000, size=2_560 << 10, displays=1_000)


def limits_for(watched: bool | None) -> Limits:
    """How much a job may print for somebody who looks at a page, for nobody, or for who knows whom."""
    return Limits() if watched is None else _WATCHED if watched else _UNWATCHED


class _Room:
    """How much may still pass: it fills up again by itself."""

    def __init__(self, size: int, seconds: float, most: float) -> None:
        self.left: float = size
        self._size, self._pace, self._most = size, size / seconds, size * most
        self._at = time.monotonic()

    def look(self, now: float) -> float:
        self.left = min(self._size, self._most, self.left + (now - self._at) * self._pace)
        self._at = now
        return self.left

    def take(self, count: float) -> None:
        self.left -= count
        self._most -= count

    def refuse(self, count: float) -> None:
        """What did not pass keeps the room from filling up, so that it is there again once less comes."""
        self.left = max(0.0, self.left - count)

    def is_there_again(self) -> bool:
        return self.left >= self._size / 5


class _Tail:
    """The last lines of a text of any length."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0

    def add(self, text: str) -> None:
        self._parts.append(text)
        self._size += len(text)
        if self._size > _TRIM:
            self._parts = ["\n".join(self._trimmed())]
            self._size = len(self._parts[0])

    def _trimmed(self) -> list[str]:
        """What a terminal would show of the last lines; the last one is not ended yet."""
        lines = "".join(self._parts).split("\n")[-_KEPT - 1 :]
        return [line.rstrip("\r").rpartition("\r")[2][:_WIDTH] for line in lines]

    def lines(self, most: int) -> list[str]:
        lines = self._trimmed()
        if not lines[-1]:
            lines.pop()
        return [_STEERING.sub("", line) + "…" * (len(line) == _WIDTH) for line in lines[-most:]]


class Printed:
    """What one job prints. All may be called from any thread."""

    def __init__(self, limits: Limits | None = None) -> None:
        limits = limits or Limits()
        self._lock = threading.RLock()  # a thread that is given up may be told so in the midst of a print
        self._lines = _Room(limits.lines, limits.seconds, limits.most)
        self._size = _Room(limits.size, limits.seconds, limits.most)
        self._displays = _Room(limits.displays, limits.seconds, limits.most)
        self._updates = _Room(limits.displays, limits.seconds / 10, float("inf"))
        self.lines = 0
        """Lines in all."""
        self.held = 0
        """Lines that were not passed on, and characters."""
        self.held_size = 0
        self._held_displays = 0
        self._ended = True
        """Whether what passed ends with a line's end."""
        self._tail = _Tail()
        self._waiting: deque[str] = deque()
        """What is held back and not counted yet."""
        self._counted = 0.0
        self._flushed = 0.0
        self._flush: Callable[[], object] | None = None
        self._write: Callable[[str], object] | None = None
        """What takes on the text, while some is held back."""
        self._gap = self._gap_size = 0
        self._late: dict[str, Callable[[], object]] = {}

    def take(self, text: str, write: Callable[[str], object], flush: Callable[[], object] | None = None) -> int:
        """A thread of the job prints `text`: pass it on with `write`, or keep it. Returns its length, as `write` of a
        file does. Where there is a `flush`, it is called before another stream is written to, which keeps the order."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        size = len(text)
        if self._write is not None and size < _SMALL:  # a flood, which costs its job as little as may be
            self._waiting.append(text)
            if len(self._waiting) < _COUNT_AT and time.monotonic() - self._counted < _COUNT_WITHIN:
                return size
            text = ""
        with self._lock:
            self._settle(text, write, flush)
        return size

    def _settle(self, text: str, write: Callable[[str], object], flush: Callable[[], object] | None) -> None:
        """Pass on or keep `text`, after what waits."""
        text = "".join(self._waiting.popleft() for _ in range(len(self._waiting))) + text
        count, now = text.count("\n"), time.monotonic()
        size = len(text) if count or text[:1] != "\r" else len(text) // 10  # it takes the place of what is there
        self.lines += count
        self._counted = now
        left, left_size = self._lines.look(now), self._size.look(now)
        if self._write is not None:
            self._hold(text, count)
            if self._lines.is_there_again() and self._size.is_there_again():
                self._open()
            else:
                self._lines.refuse(count)
                self._size.refuse(size)
            return
        if flush != self._flush:
            self._turn_to(flush)
        if count <= left and size <= left_size:
            self._lines.take(count)
            self._size.take(size)
            if self.held_size:
                self._tail.add(text)
            if text:
                self._ended = text[-1] == "\n"
            write(text)
        else:
            self._close(text, write)

    def _turn_to(self, flush: Callable[[], object] | None) -> None:
        """Another stream than before is written to."""
        if self._flush is not None:
            self._flush()
        self._flush = flush

    def _close(self, text: str, write: Callable[[str], object]) -> None:
        """Pass on as much as there is room for."""
        end = 0
        for _ in range(max(0, int(self._lines.left))):
            found = text.find("\n", end)
            if found < 0:
                end = len(text)
                break
            end = found + 1
        end = max(0, min(end, int(self._size.left)))
        passed, rest = text[:end], text[end:]
        self._lines.take(passed.count("\n"))
        self._size.take(end)
        ended = passed.endswith("\n") if passed else self._ended
        write(passed + ("" if ended else "\n") + _CUT)
        self._write, self._ended = write, True
        self._hold(rest, rest.count("\n"))

    def _hold(self, text: str, count: int) -> None:
        self.held += count
        self.held_size += len(text)
        self._gap += count
        self._gap_size += len(text)
        self._tail.add(text)

    def _open(self) -> None:
        """Say what was held back, and pass on what comes."""
        write, last = self._write, self._tail.lines(min(_AGAIN, self._gap + 1))
        assert write is not None
        self._write = None
        if not self._gap_size:
            return
        size = f"{self._gap_size / 1e6:,.1f} MB" if self._gap_size >= 100_000 else f"{self._gap_size:,} characters"
        what = f"{self._gap:,} lines ({size})" if self._gap != 1 else f"1 line ({size})"
        self._gap = self._gap_size = 0
        text = "\n".join([f"… {what} are not shown here; the last of them:", *last, ""])
        self._lines.take(len(last) + 1)
        self._size.take(len(text))
        write(text)

    def may_flush(self) -> bool:
        """Whether what has passed should be sent at once; else it is sent within 0.2 s anyway."""
        if self._write is not None or (now := time.monotonic()) - self._flushed < _FLUSH:
            return False
        self._flushed = now
        return True

    def display(self, publish: Callable[[], object], update: str | None) -> None:
        """A thread of the job displays something, or changes what it has displayed as `update`: the last change is
        never lost."""
        with self._lock:
            room = self._displays if update is None else self._updates
            if room.look(time.monotonic()) >= 1:
                room.take(1)
                if update is not None:
                    self._late.pop(update, None)
            elif update is None:
                self._held_displays += 1
                return
            else:
                self._late[update] = publish
                return
        token = of_job.set(None)  # it sends what was printed before
        try:
            publish()
        finally:
            of_job.reset(token)

    def last(self, most: int) -> list[str]:
        """The last lines; none where nothing is held back."""
        with self._lock:
            if self._write is not None:
                self._keep_waiting()
            return self._tail.lines(most) if self.held_size else []

    def _keep_waiting(self) -> None:
        """Count and keep what waits. Only threads of the job pass on what there is room for again: what others write
        goes below another cell."""
        text = "".join(self._waiting.popleft() for _ in range(len(self._waiting)))
        count, now = text.count("\n"), time.monotonic()
        self.lines += count
        self._counted = now
        for room, size in ((self._lines, count), (self._size, len(text))):
            room.look(now)
            room.refuse(size)
        self._hold(text, count)

    def end(self) -> None:
        """The job has ended: say what was held back. On a thread of the job's."""
        with self._lock:
            late, self._late = list(self._late.values()), {}
            displays, self._held_displays = self._held_displays, 0
            if self._write is not None:
                self._settle("", self._write, None)
            if self._write is not None:
                self._open()
        for publish in late:
            publish()
        if displays:
            print(f"… {displays:,} displays are not shown" if displays != 1 else "… 1 display is not shown")


of_job: ContextVar[Printed | None] = ContextVar("sage_nb_printed", default=None)
"""That of the job whose thread asks; None on threads of the user's."""


@contextmanager
def printing_of(printed: Printed, context: Callable[[], AbstractContextManager[Any]]) -> Iterator[None]:
    """What prints within is of that job, and goes where `context` leads it."""
    token = of_job.set(printed)
    try:
        with context():
            yield
    finally:
        of_job.reset(token)
