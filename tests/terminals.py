"""A terminal for tests: runs a command in one, and knows what stands on it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence

__all__ = ["Terminal"]

_CODE = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n])")


class Terminal:
    """A command in a terminal of 80 columns. Lines that have scrolled away are kept."""

    def __init__(self, command: Sequence[str], rows: int = 24, **options: object) -> None:
        self._main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 80, 0, 0))
        options["env"] = {**os.environ, **options.get("env", {}), "TERM": "xterm"}  # type: ignore[dict-item]
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            command, stdin=other, stdout=other, stderr=other, start_new_session=True, **options
        )  # type: ignore[call-overload]
        os.close(other)
        self.lines = [""]
        self.widest = 0
        self._rows = rows
        self._row = self._column = 0
        self.cursor = True
        self._rest = ""
        self.frames = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._main)

    @property
    def text(self) -> str:
        """All lines."""
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def until(self, seen: Callable[[str], bool], limit: float = 30.0) -> str:
        """Read until the text is so."""
        deadline = time.monotonic() + limit
        while not seen(self.text):
            assert time.monotonic() < deadline, self.text
            assert self._read(deadline) or seen(self.text), f"ended with\n{self.text}"
        return self.text

    def end(self, limit: float = 30.0) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + limit
        while self._read(deadline):
            assert time.monotonic() < deadline, self.text
        return self.process.wait(limit)

    def _read(self, deadline: float) -> bool:
        if not select.select([self._main], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return True
        try:
            data = os.read(self._main, 1 << 16)
        except OSError:  # how Linux says that nobody has the terminal open any more
            return False
        self._take(self._rest + data.decode(errors="surrogateescape"))
        return bool(data)

    def _take(self, text: str) -> None:
        cut = text.rfind("\x1b")
        whole = cut < 0 or _CODE.match(text, cut) is not None
        text, self._rest = (text, "") if whole else (text[:cut], text[cut:])
        for number, code, back, down, char in _CODE.findall(text):
            if char:
                line = self.lines[self._row].ljust(self._column)
                self.lines[self._row] = line[: self._column] + char + line[self._column + 1 :]
                self._column += 1
                self.widest = max(self.widest, self._column)
            elif back:
                self._column = 0
            elif down:
                self._row += 1
                self.lines += [""] * (self._row + 1 - len(self.lines))
            else:
                self._obey(number, code)

    def _obey(self, number: str, code: str) -> None:
        if code == "A":
            up = int(number or 1)
            assert up < self._rows, "a line that has scrolled away cannot be reached"
            self._row -= up
            self.frames += 1
        elif code == "K":
            self.lines[self._row] = self.lines[self._row][: self._column]
        elif code == "J":
            self.lines[self._row :] = [self.lines[self._row][: self._column]]
        elif number == "?25":
            self.cursor = code == "h"
        else:
            raise AssertionError(f"not understood: {number}{code}")
