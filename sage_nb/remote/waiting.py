"""The jobs of a server that wait for a runner."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["Queue"]

_T = TypeVar("_T")


class Queue(Generic[_T]):
    """What waits, in its order. The places are counted once after a change, and not for each one who asks: every
    watcher of thousands does."""

    def __init__(self) -> None:
        self._waiting: dict[_T, None] = {}
        self._places: dict[_T, int] | None = None

    def append(self, one: _T) -> None:
        """It comes after all others."""
        self._waiting[one] = self._places = None

    def pop(self) -> _T:
        """Take the first."""
        one = next(iter(self._waiting))
        self.remove(one)
        return one

    def remove(self, one: _T) -> None:
        """It waits no more."""
        del self._waiting[one]
        self._places = None

    def clear(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()
        self._places = None

    def place(self, one: _T) -> int | None:
        """Which it is, from 1; None where it does not wait."""
        if self._places is None:
            self._places = {each: n for n, each in enumerate(self._waiting, 1)}
        return self._places.get(one)

    def __contains__(self, one: object) -> bool:
        return one in self._waiting

    def __iter__(self) -> Iterator[_T]:
        return iter(list(self._waiting))

    def __len__(self) -> int:
        return len(self._waiting)
