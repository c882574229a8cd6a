"""How fast a job was, from its start until now, in a few numbers."""

from __future__ import annotations

from itertools import pairwise

__all__ = ["MOST", "RateHistory"]

MOST = 60
_NARROWEST = 0.125


class RateHistory:
    """Takes the number of items at any moments, and gives the rate in each of at most 60 parts of the same length.

    The parts become twice as long when there would be more of them. Between two moments the rate counts as constant.
    """

    def __init__(self) -> None:
        self._width = _NARROWEST
        self._edges: list[float] = [0.0]
        """The items that had come at the end of each part."""
        self._last = (0.0, 0)
        self._looks = 0

    def add(self, elapsed: float, items: int) -> None:
        """So many items had come `elapsed` seconds after the start; fewer than before are those of a new attempt."""
        then, before = self._last
        if items < before:
            self.__init__()  # type: ignore[misc]
            then, before = self._last
        if elapsed <= then:
            return
        self._looks += 1
        while (elapsed - then) / self._width > 2 * MOST:  # nobody has looked for long
            self._widen()
        while (edge := len(self._edges) * self._width) <= elapsed:
            self._edges.append(before + (items - before) * (edge - then) / (elapsed - then))
            if len(self._edges) > MOST:
                self._widen()
        self._last = (elapsed, items)

    def _widen(self) -> None:
        self._edges = self._edges[::2]
        self._width *= 2

    def rates(self) -> tuple[float, ...]:
        """Items per second in each part; of a part that has only begun from its half on.

        Nothing where it was told so seldom that most of them would be guessed.
        """
        if self._looks * 2 < len(self._edges):
            return ()
        found = [(after - before) / self._width for before, after in pairwise(self._edges)]
        elapsed, items = self._last
        since = elapsed - (len(self._edges) - 1) * self._width
        if since >= self._width / 2:
            found.append((items - self._edges[-1]) / since)
        return tuple(max(0.0, rate) for rate in found)
