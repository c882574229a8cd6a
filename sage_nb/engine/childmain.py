"""A worker process, from within: how it begins, and how it ends.

It ends when its pipe does, whatever it is doing: so when the process that started it is gone, however that went, it
goes too. Imports little, as every worker waits for it.
"""

from __future__ import annotations

import importlib
import io
import marshal
import os
import select
import signal
import sys
import threading
from collections.abc import Callable

from sage_nb.engine.buffers import Buffer
from sage_nb.engine.frames import Connection, ConnectionClosed
from sage_nb.engine.rebuild import StandIn

__all__ = ["ERR", "GRACE", "OUT", "ChildConnection", "main"]

GRACE = 1.0
"""Seconds that a worker has, from the end of its pipe, to close what it opened."""

ERR, OUT = b"\x12", b"\x14"
"""Between them is what was written to `sys.stderr`. One pipe for both keeps the order."""

_KEPT: list[object] = []
"""The `__main__` that the process began with: the interpreter still runs it."""


class ChildConnection(Connection):
    """The worker's side. `ended` is set when the pipe has ended; what `on_end` was given is called then."""

    def __init__(self, reading: int, writing: int) -> None:
        super().__init__(reading, writing)
        self.ended = threading.Event()
        self.grace = GRACE
        """Seconds from the end of the pipe to the end of the process, at most."""
        self._hooks: list[Callable[[], object]] = []

    def on_end(self, hook: Callable[[], object]) -> None:
        """Call `hook` on a thread of its own when the pipe ends. All hooks have `grace` seconds together."""
        self._hooks.append(hook)

    def watch(self) -> None:
        """Wait, without reading, for the end of the pipe; then see to it that the process ends."""
        poll = select.poll()
        poll.register(self.reading, 0)  # that the other side has gone is told also to who asks for nothing
        poll.poll()
        _exit_within(self.grace)
        self.ended.set()
        for hook in self._hooks:
            threading.Thread(target=hook, name="sage_nb end", daemon=True).start()


def _exit_within(seconds: float) -> None:
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def main(reading: int, writing: int) -> None:
    """Run a worker process to its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it decides
    connection = ChildConnection(reading, writing)
    threading.Thread(target=connection.watch, name="sage_nb watch", daemon=True).start()
    try:
        _, buffers = connection.receive()
    except ConnectionClosed:
        return
    entry, sys.argv[:] = marshal.loads(buffers[0])
    _KEPT.append(sys.modules["__main__"])
    sys.modules["__main__"] = StandIn("__main__")
    _make_line_buffered()
    module, _, function = entry.partition(":")
    try:
        getattr(importlib.import_module(module), function)(connection)
    except ConnectionClosed:
        return
    finally:
        _exit_within(GRACE)  # a thread that the user started must not keep the process


def _make_line_buffered() -> None:
    sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)  # type: ignore[union-attr]
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Marked()), encoding="utf-8", errors="backslashreplace", line_buffering=True
    )


class _Marked(io.RawIOBase):
    """`stderr`, with a mark before and behind what is written. No part is too large to be written as one."""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2

    def write(self, data: Buffer) -> int:  # type: ignore[override]
        part = bytes(data[: select.PIPE_BUF - 2])
        os.write(2, ERR + part + OUT)
        return len(part)
