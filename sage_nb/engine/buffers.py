"""What is sent: a stream, and beside it the memory of large arrays, which is not copied."""

from __future__ import annotations

import pickle

__all__ = ["Buffer", "Buffers", "size_of"]

Buffer = bytes | bytearray | memoryview

_IN_STREAM = 1 << 14
"""Bytes up to which copying an array into the stream costs less than a buffer of its own."""


def size_of(buffer: Buffer) -> int:
    """In bytes."""
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


class Buffers(list[Buffer]):
    """The memory of large objects, in the order in which a stream refers to it."""

    def take(self, buffer: pickle.PickleBuffer) -> bool:
        """For a pickler's `buffer_callback`: whether it is to copy the buffer into the stream."""
        raw = buffer.raw()
        if raw.nbytes <= _IN_STREAM:
            return True
        self.append(raw)
        return False
