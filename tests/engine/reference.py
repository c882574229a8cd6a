"""A second, slow and obvious way to run a tree of operators: what the engine is compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from sage_nb import DataStream, FlatMapFunction, LocalEnvironment, StopSignal

__all__ = ["Boom", "Node", "Reference", "declare", "nodes", "shapes"]


class Boom(Exception):
    """Raised by the call that was chosen to fail."""


@dataclass
class Node:
    """One operator: its kind, a number that shapes what it does, and its consumers."""

    kind: str
    n: int
    children: list[Node] = field(default_factory=list)
    name: str = ""


def nodes(tree: Node) -> list[Node]:
    """All operators of a tree, depth first."""
    return [tree, *(node for child in tree.children for node in nodes(child))]


LEAVES = st.builds(Node, st.sampled_from(["sink", "collect", "map", "filter", "flatmap"]), st.integers(0, 5))
INNER = st.sampled_from(["map", "filter", "flatmap", "flatmap generator", "flatmap gather", "take"])


def _named(tree: Node) -> Node:
    for i, node in enumerate(nodes(tree)):
        node.name = f"{i} {node.kind}"
    return tree


def shapes() -> st.SearchStrategy[Node]:
    """Trees of up to about ten operators behind a source of up to twelve items."""
    below = st.recursive(
        LEAVES,
        lambda more: st.builds(Node, INNER, st.integers(0, 5), st.lists(more, min_size=1, max_size=3)),
        max_leaves=6,
    )
    source = st.sampled_from(["list", "range", "iterator", "generator function", "batch", "polled"])
    return st.builds(Node, source, st.integers(0, 12), st.lists(below, min_size=1, max_size=3)).map(_named)


# What each kind does, for both ways of running it


def mapped(n: int, item: int) -> int | None:
    return None if item % 4 == n else item + 1


def kept(n: int, item: int) -> int:
    return (item + n) % 3


def many(n: int, item: int) -> list[int]:
    return [item + k for k in range((item + n) % 4)]


Act = Callable[[Node], None]
"""Called at the beginning of each call of an operator, and before each item of a source or generator."""


def _generated(node: Node, items: list[int], act: Act) -> Iterator[int]:
    for item in items:
        act(node)
        yield item
    act(node)


class Ended(Exception):
    """No take wants more."""


class Reference:
    """Runs a tree; `ins`, `outs` and `taken` are what came of it, by the operators' names."""

    def __init__(self, tree: Node, act: Act) -> None:
        self._act = act
        self._open = {node.name for node in nodes(tree) if not node.children}
        self.ins = {node.name: 0 for node in nodes(tree)}
        self.outs = dict(self.ins)
        self.taken: dict[str, list[int]] = {node.name: [] for node in nodes(tree) if node.kind in ("sink", "collect")}
        for node in nodes(tree):
            if node.kind == "take" and node.n == 0:
                self._close(node)
        self.error: Boom | None = None
        try:
            if self._open:
                self._source(tree)
        except Ended:
            pass
        except Boom as error:
            self.error = error

    def counts(self) -> dict[str, tuple[int, int]]:
        return {name: (self.ins[name], self.outs[name]) for name in self.ins}

    def _source(self, tree: Node) -> None:
        acts = tree.kind not in ("list", "range")
        for item in _generated(tree, list(range(tree.n)), self._act if acts else lambda _: None):
            self._emit(tree, item)

    def _emit(self, node: Node, item: int) -> None:
        self.outs[node.name] += 1
        for child in node.children:
            self._give(child, item)

    def _give(self, node: Node, item: int) -> None:
        self.ins[node.name] += 1
        if node.kind == "take":
            self._take(node, item)
            return
        if node.kind == "collect":
            self.taken[node.name].append(item)
            return
        if node.kind != "flatmap generator":
            self._act(node)
        if node.kind == "sink":
            self.taken[node.name].append(item)
        elif node.kind == "map":
            if (result := mapped(node.n, item)) is not None:
                self._emit(node, result)
        elif node.kind == "filter":
            if kept(node.n, item):
                self._emit(node, item)
        elif node.kind == "flatmap generator":
            for one in _generated(node, many(node.n, item), self._act):
                self._emit(node, one)
                if not self._wanted(node):
                    break
        else:
            for one in many(node.n, item):
                self._emit(node, one)
                if not self._wanted(node):
                    break

    def _take(self, node: Node, item: int) -> None:
        if self.outs[node.name] < node.n:
            self._emit(node, item)
            if self.outs[node.name] >= node.n:
                self._close(node)
                if not self._open:
                    raise Ended

    def _wanted(self, node: Node) -> bool:
        """Whether anything below `node` takes more."""
        return any(leaf.name in self._open for leaf in nodes(node))

    def _close(self, take: Node) -> None:
        self._open -= {node.name for node in nodes(take) if not node.children}


# The same tree, for the engine


def declare(env: LocalEnvironment, tree: Node, act: Act) -> dict[str, list[int]]:
    """Declare the tree; the lists that its sinks will fill, by name."""
    taken: dict[str, list[int]] = {}
    source = _source_of(env, tree, act)
    pending = [(child, source) for child in reversed(tree.children)]
    while pending:
        node, stream = pending.pop()
        behind = _behind(stream, node, act, taken)
        pending.extend((child, behind) for child in reversed(node.children))
    return taken


def _source_of(env: LocalEnvironment, node: Node, act: Act) -> DataStream:
    items = list(range(node.n))
    if node.kind == "list":
        return env.from_batch(items, name=node.name)
    if node.kind == "range":
        return env.from_batch(range(node.n), name=node.name)
    if node.kind == "iterator":
        return env.from_batch(_generated(node, items, act), name=node.name)
    if node.kind == "generator function":
        return env.from_source(_generated, node, items, act, name=node.name)
    answers = iter(items)

    def ask(end: Any) -> Any:
        act(node)
        return next(answers, end)

    if node.kind == "batch":
        return env.from_batch(ask, None, name=node.name)
    return env.from_source(ask, StopSignal(), name=node.name)


class Gathers(FlatMapFunction):
    def __init__(self, node: Node, act: Act) -> None:
        self.node, self.act = node, act

    def execute(self, data: int) -> list[int]:
        self.act(self.node)
        items = many(self.node.n, data)
        for item in items[1:]:
            self.collect(item)
        return items[:1]


def _behind(stream: DataStream, node: Node, act: Act, taken: dict[str, list[int]]) -> DataStream:
    def acting(fn: Callable[[int, int], Any]) -> Callable[[int], Any]:
        def call(item: int) -> Any:
            act(node)
            return fn(node.n, item)

        return call

    if node.kind == "map":
        return stream.map(acting(mapped), name=node.name)
    if node.kind == "filter":
        return stream.filter(acting(kept), name=node.name)
    if node.kind == "flatmap":
        return stream.flatmap(acting(many), name=node.name)
    if node.kind == "flatmap generator":
        return stream.flatmap(lambda item: _generated(node, many(node.n, item), act), name=node.name)
    if node.kind == "flatmap gather":
        return stream.flatmap(Gathers, node, act, name=node.name)
    if node.kind == "take":
        return stream.take(node.n, name=node.name)
    if node.kind == "collect":
        return stream.collect(node.name)
    items = taken.setdefault(node.name, [])
    return stream.sink(acting(lambda _, item: items.append(item)), name=node.name)
