"""The sinks that several works share."""

from __future__ import annotations

__all__ = ["Pairs", "Sum"]


class Sum:
    """Adds up numbers."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, x: int) -> None:
        self.total += x


class Pairs:
    """Adds up the second of each pair."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, pair: tuple[str, int]) -> None:
        self.total += pair[1]
