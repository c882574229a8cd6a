"""The terminal: lines that stay, and below them one block that is drawn over again.

On what is no terminal, the block is a line now and then.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from sage_nb.jobs.snapshot import JobSnapshot
from sage_nb.notebook.text import render_line
from sage_nb.notebook.words import fit, is_active

__all__ = ["Screen", "width"]

_EVERY = 0.125
"""Seconds between two drawings, at least."""
_LINE_EVERY = 2.0
_HIDE, _SHOW, _TO_END, _BELOW = "\x1b[?25l", "\x1b[?25h", "\x1b[K", "\x1b[J"


def width(out: TextIO | None = None) -> int:
    """Columns of the terminal; 80 where there is none."""
    return shutil.get_terminal_size((80, 24)).columns if (out or sys.stdout).isatty() else 80


class Screen:
    """What is shown on `out`. Any thread may print; one draws."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.redraws = out.isatty() and os.environ.get("TERM") != "dumb"
        self._drawn = 0
        self._next = 0.0
        self._said: dict[str, tuple[str, str]] = {}
        self._lock = threading.RLock()

    def live(self, block: str, jobs: Sequence[JobSnapshot], *, last: bool = False) -> None:
        """Show `block`, or where nothing is drawn over again, a line for each of the jobs: at each new state, and now
        and then. What comes too soon after the one before is left out, unless it is the last."""
        now = time.monotonic()
        due = last or now >= self._next
        if not self.redraws:
            self._next = now + _LINE_EVERY if due else self._next
            for job in jobs:
                self._say(job, due=due)
        elif due:
            self._next = now + _EVERY
            self._draw(block, whole=last)

    def _say(self, job: JobSnapshot, *, due: bool) -> None:
        state, line = self._said.get(job.uuid, ("", ""))
        new = render_line(job)
        if new != line and (job.status != state or (due and is_active(job.status))):
            self._said[job.uuid] = job.status, new
            print(new, file=self._out, flush=True)

    def clear(self) -> None:
        """Take the block away."""
        with self._lock:
            if self._drawn:
                self._out.write(f"{self._up()}{_BELOW}")
                self._out.flush()
                self._drawn = 0

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """While the block is live: no cursor, and what is printed on the same terminal stands above the block."""
        before, shared = sys.stdout, self.redraws and sys.stdout.isatty()
        above = _Above(self, before)
        if shared:
            sys.stdout = above
        self._write(_HIDE)
        try:
            yield
        finally:
            self._write(_SHOW)
            if shared:
                sys.stdout = before
                above.end()

    def _write(self, code: str) -> None:
        if self.redraws:
            self._out.write(code)
            self._out.flush()

    def _draw(self, block: str, *, whole: bool) -> None:
        size = shutil.get_terminal_size()
        lines = [fit(line, size.columns - 1) for line in block.splitlines()]
        if not whole:
            lines = lines[: max(1, size.lines - 1)]  # what scrolls away could not be drawn over again
        with self._lock:
            self._out.write(self._up() + "".join(f"{line}{_TO_END}\n" for line in lines) + _BELOW)
            self._out.flush()
            self._drawn = 0 if whole else len(lines)

    def _up(self) -> str:
        return f"\x1b[{self._drawn}A\r" if self._drawn else ""

    def print_above(self, text: str, out: TextIO) -> None:
        """Print whole lines where the block was; it is drawn again below them."""
        with self._lock:
            self.clear()
            out.write(text)
            out.flush()
            self._next = 0.0


class _Above(io.TextIOBase):
    """`sys.stdout`, while a block is live on the same terminal."""

    def __init__(self, screen: Screen, out: TextIO) -> None:
        self._screen = screen
        self._to = out
        self._begun = ""

    def write(self, text: str) -> int:
        lines, newline, rest = (self._begun + text).rpartition("\n")
        self._begun = rest
        if newline:
            self._screen.print_above(lines + newline, self._to)
        return len(text)

    def end(self) -> None:
        """Print what has no end of line yet."""
        self._to.write(self._begun)
        self._to.flush()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._to.encoding
