"""Who still wants items: a path from a stage's head to a leaf is closed once one of its takes has had enough, or the
lanes that it ends in are."""

from __future__ import annotations

from typing import Any

from sage_nb.engine.loops import Node

__all__ = ["Takes"]


class Takes:
    """The open paths of one task. `limits` gives, for each `take`, the number it lets pass."""

    def __init__(self, nodes: tuple[Node, ...], limits: list[Any]) -> None:
        self._open: dict[int, frozenset[int]] = {}
        for leaf, node in enumerate(nodes):
            if not node.consumers:
                on_path, i = [], leaf
                while i >= 0:
                    if nodes[i].kind == "take":
                        on_path.append(i)
                    i = nodes[i].upstream
                self._open[leaf] = frozenset(on_path)
        for i, node in enumerate(nodes):
            if node.kind == "take" and limits[i] == 0:
                self.close_take(i)

    def close_take(self, i: int) -> None:
        """The take at node `i` has had enough."""
        for leaf, takes in list(self._open.items()):
            if i in takes:
                self.close_leaf(leaf)

    def close_leaf(self, leaf: int) -> None:
        """Nobody wants what comes out at `leaf`."""
        self._open.pop(leaf, None)

    def all_closed(self) -> bool:
        """Whether nobody wants anything more."""
        return not self._open
