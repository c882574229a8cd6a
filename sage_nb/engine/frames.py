"""Messages over a pair of pipes: a kind, and any number of buffers, none of which is copied on the way out."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import weakref
from collections.abc import Sequence

from sage_nb.engine.buffers import Buffer

__all__ = ["Connection", "ConnectionClosed", "Frame"]

_HEAD = struct.Struct("<BxxxIQ")
"""The kind, how many buffers, and the size of the first; the sizes of the others follow."""
_AT_ONCE = 1000  # buffers in one system call; the limit is 1,024
_PIPE_SIZE = 1 << 20
_MOST = 1 << 24  # buffers in one message: user code that writes to the pipe must not make this side ask for more memory

Frame = tuple[int, list[bytearray]]


class ConnectionClosed(EOFError):
    """The other side has closed the connection, or has ended."""


class Connection:
    """Both directions. Any thread may send; one thread at a time may receive.

    When the other side has closed or ended, `receive` raises `ConnectionClosed`, and `send` `BrokenPipeError`.
    """

    def __init__(self, reading: int, writing: int) -> None:
        self.reading = reading
        self.writing = writing
        self._sending = threading.Lock()
        for fd in (reading, writing):
            os.set_inheritable(fd, False)
        _grow(writing)
        _OPEN.add(self)

    def send(self, kind: int, *buffers: Buffer) -> None:
        """Send a message: a number from 0 to 255, and what belongs to it."""
        views = [memoryview(one).cast("B") for one in buffers]
        sizes = [view.nbytes for view in views]
        head = _HEAD.pack(kind, len(sizes), sizes[0] if sizes else 0)
        if len(sizes) > 1:
            head += struct.pack(f"<{len(sizes) - 1}Q", *sizes[1:])
        with self._sending:
            if self.writing < 0:
                raise BrokenPipeError("the connection is closed")
            _write(self.writing, [memoryview(head), *(view for view in views if view.nbytes)])

    def receive(self) -> Frame:
        """The next message; waits for it."""
        head = bytearray(_HEAD.size)
        self._read([memoryview(head)])
        kind, count, first = _HEAD.unpack(head)
        if not count:
            return kind, []
        sizes: tuple[int, ...] = (first,)
        if count > _MOST:
            raise ConnectionClosed("the other process sends what is no message")
        if count > 1:
            rest = bytearray(8 * (count - 1))
            self._read([memoryview(rest)])
            sizes += struct.unpack(f"<{count - 1}Q", rest)
        buffers = [bytearray(size) for size in sizes]
        self._read([memoryview(one) for one in buffers if one])
        return kind, buffers

    def _read(self, views: list[memoryview]) -> None:
        while views:
            if self.reading < 0:
                raise ConnectionClosed("the connection is closed")
            count = os.readv(self.reading, views[:_AT_ONCE])
            if not count:
                raise ConnectionClosed("the other process has closed the connection")
            views = _after(views, count)

    def close(self) -> None:
        """Close both directions; not while another thread receives."""
        _OPEN.discard(self)
        self.close_sending()
        reading, self.reading = self.reading, -1
        if reading >= 0:
            os.close(reading)

    def close_sending(self) -> None:
        """Tell the other side that no more will come."""
        with self._sending:
            writing, self.writing = self.writing, -1
        if writing >= 0:
            os.close(writing)


def _write(fd: int, views: list[memoryview]) -> None:
    while views:
        views = _after(views, os.writev(fd, views[:_AT_ONCE]))


def _after(views: Sequence[memoryview], count: int) -> list[memoryview]:
    """What is left of `views` after `count` bytes."""
    for index, view in enumerate(views):
        if count < view.nbytes:
            return [view[count:], *views[index + 1 :]]
        count -= view.nbytes
    return []


def _grow(fd: int) -> None:
    """Let a pipe hold more, so that both sides work at the same time; where the system allows it."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    except (AttributeError, OSError):
        return


_OPEN: weakref.WeakSet[Connection] = weakref.WeakSet()


def _close_in_fork() -> None:
    """A process that was forked off must not hold the pipes open, or neither side would see the other's end."""
    for one in list(_OPEN):
        for fd in (one.reading, one.writing):
            if fd >= 0:
                os.close(fd)
        one.reading = one.writing = -1


os.register_at_fork(after_in_child=_close_in_fork)
