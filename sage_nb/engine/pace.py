"""How many items may be under way at a time, so that they are few where they are large."""

from __future__ import annotations

from collections.abc import Sequence

from sage_nb.engine.buffers import Buffer, size_of
from sage_nb.engine.channels import BATCH, Lane

__all__ = ["Pace"]

_AT_ONCE = 4 << 20
"""Bytes of items in one message, about."""
_UNDER_WAY = 64 << 20
"""Bytes of one lane that are under way to a process, or from it, about."""
_FIRST = 8
"""Items in the first message, when nothing is known of their size."""


class Pace:
    """Of one lane. It goes by the sizes of the items that were sent. `most` may be under way however small they are."""

    __slots__ = ("_mean", "most")

    def __init__(self, most: int) -> None:
        self.most = most
        self._mean = _AT_ONCE / _FIRST

    def at_once(self) -> int:
        """How many items go into a message."""
        return max(1, min(BATCH, int(_AT_ONCE / self._mean)))

    def window(self) -> int:
        """How many may be under way."""
        return max(1, min(self.most, int(_UNDER_WAY / self._mean)))

    def sent(self, count: int, buffers: Sequence[Buffer]) -> None:
        """So many items made this message. It soon believes that they are large, and slowly that they are small."""
        size = max(1.0, sum(map(size_of, buffers)) / count)
        self._mean = size if size > self._mean or size * self.most < _UNDER_WAY / 8 else (self._mean + size) / 2

    def limit(self, lane: Lane) -> None:
        """Let the lane hold no more than may be under way, where the items are large.

        One that comes from another process is held by what that may have under way: who reads from it is never held.
        """
        window = self.window()
        if window < min(self.most, lane.capacity) and not lane.feedback and lane.on_taken is None:
            lane.capacity = max(2, window)
            lane.limit = min(lane.limit, lane.capacity - 1)
