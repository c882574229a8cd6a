"""One generated Python function per shape of stage.

A linear pipeline becomes `for x in source:` with the operators' calls in line, so that running it costs
little more than the loop a person would write. For `source.map(f).filter(g).sink(s)`:

    for x0 in items:
        if flag and control():
            timed(x0)
            continue
        x1 = f1(x0)
        if x1 is None:
            d1 += 1.0
            continue
        if not f2(x1):
            d2 += 1.0
            continue
        f3(x1)

How the rest of the engine sees into it:

*   `flag` is the one variable tested per item. `signal()` sets it from any thread; `control()` then pauses, or
    raises `LoopEnded`, or asks for this item to be timed. `within()` does so between the items of a flatmap, and
    lets the rest pass if it does at once.
*   Counters are closure variables that `read()` returns from any thread, so a loop that blocks in the source
    has nothing left to publish. Only what is dropped or multiplied is counted; the rest is derived
    (`Loop.counts`). They are floats, because CPython adds floats without allocating and ints not; exact to
    2**53. What comes out of a range, a tuple or a flatmap's list is not even counted: the iterator knows what is left.
*   Every line belongs to an operator. The lines that the loop's frames are at say which operator runs, and those of a
    traceback which one failed, and on which item; neither costs the loop anything. The counters are corrected by
    them: what an item in flight has not reached yet does not count it.
*   `emits[i](items)` lets items come out of operator `i` while the loop waits or when it has ended: a window that
    fires, a coroutine that is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from operator import length_hint
from types import CodeType
from typing import Any, NamedTuple

from sage_nb.engine.inline import LINES
from sage_nb.pipeline.operators import VALUED

__all__ = ["FILENAME", "Counts", "Line", "Loop", "LoopEnded", "Made", "Node", "Place", "gather", "spread", "taken_of"]

FILENAME = "<sage_nb loop>"
Line = tuple[str, int]
"""Where a frame of generated code is: the function's name and the line."""


class LoopEnded(BaseException):
    """Raised inside a loop to leave it: a stop was asked for, or no `take` wants more. Never leaves the engine."""


class Node(NamedTuple):
    """One member of a stage as the loop sees it: its kind and the positions of its consumers.

    Heads: `iterate`, `iterate_sized`, `poll`, `poll_batch`, `chunks` (lists, arrays or frames of items), `inbox`, and
    `driven`, whose items come by `emits` only. `columns` says what comes with each item of an inbox: `k`ey, `t`ag,
    `w`hen (the event time), water`m`ark, `o`rigin, `r`ank, `s`equence; and, for other nodes, what their function is
    given after the item.

    Others: `pass`, `map`, `filter`, `flatmap` (of a function that may well return lists), `flatmap_each` (of one that
    does not), `comap`, `keyby`, `reduce`, `count`, `sum`, `min`, `max`, `mean` (`columns` is `v` with a function of
    the value), `results` (gives what comes of an item, mostly nothing), `emitter` and `late` (emit from outside only),
    `take`, `sink`, `latest` (keeps the item by its key), `append` (to a channel), `send`.
    """

    kind: str
    upstream: int
    consumers: tuple[int, ...] = ()
    columns: str = ""
    sets_key: bool = False
    """Whether the function looks at the key in its context."""
    catches: bool = False
    """Whether an item on which the function fails is skipped."""
    emits: str = ""
    """What its `emits` takes: nothing (it has none), `items`, `keyed` (pairs of item and key), or `windows`."""
    chunks: bool = False
    """Whether what it emits are chunks."""
    field: str | None = None
    """The column that its function gives, which is looked up in line."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a line of the loop is part of: node `index`; `runs` says that its call is under way.

    `open` are the nodes whose last item is counted but may not be through. `held` is the line where an item waits
    that no operator has seen yet.
    """

    index: int
    runs: bool
    held: bool = False
    open: frozenset[int] = frozenset()


class Counts(NamedTuple):
    """Items that went in and out of one operator."""

    items_in: int
    items_out: int


@dataclass(frozen=True, slots=True)
class Made:
    """A loop at work. `emits` by node; None where a node emits in the loop only."""

    run: Callable[[], None]
    read: Callable[[], tuple[float, ...]]
    signal: Callable[[bool], None]
    emits: tuple[Callable[[Any], None] | None, ...]


@dataclass(frozen=True, slots=True)
class Loop:
    """A generated loop for one shape."""

    code: CodeType
    text: str
    nodes: tuple[Node, ...]
    places: tuple[Place | None, ...]
    """By line, from line 1 at index 1."""
    variables: tuple[str, ...]
    """For each node, the name of the variable that holds the item it is given."""
    bases: tuple[int, ...]
    """For each node, the nearest one above it, or itself, that has a counter of what it emits."""
    calls: dict[Line, Place]
    """The place of each node's call, by the function it is in and the node; for calls that are inlined."""

    def place_at(self, line: Line | None) -> Place | None:
        if line is None:
            return None
        name, number = line
        if number >= LINES:
            return self.calls.get((name, number // LINES - 1))
        return self.places[number] if number < len(self.places) else None

    def counts(self, raw: tuple[float, ...], lines: list[Line]) -> list[Counts]:
        """Items in and out of every node, from the raw counters and the lines its frames are at, if it runs."""
        places = [place for place in map(self.place_at, lines) if place is not None]
        held = {place.index for place in places if place.held}
        emitted: list[int] = []
        found: list[Counts] = []
        for i, node in enumerate(self.nodes):
            # An iterator that counts by itself has counted the item that waits at the check of the flag.
            waits = i in held and node.kind in ("iterate_sized", "flatmap")
            if i == 0:
                emitted.append(int(raw[0]) - waits)
                found.append(Counts(0, emitted[0]))
                continue
            given = emitted[node.upstream]
            base = self.bases[node.upstream]
            place = next((place for place in places if base in place.open), None)
            ahead = place is not None and i > place.index
            here = place is not None and i == place.index and place.runs
            if node.kind in _DERIVED:
                emitted.append(given - int(raw[i]))
                found.append(Counts(given - ahead, emitted[i] - (ahead or here)))
            else:
                emitted.append(int(raw[i]) - waits)
                found.append(Counts(emitted[i] if node.kind == "late" else given - ahead, emitted[i]))
        return found


_DERIVED = frozenset({"map", "filter", "comap", "keyby", "reduce", "count", *VALUED, "pass"})
"""Kinds that emit one item for one, or none: what they emit is what they are given, less what they drop."""


def spread(result: Any) -> Any:
    """What a flatmap's result stands for: None for nothing, text for itself, anything else for its items."""
    if result is None:
        return ()
    if isinstance(result, (str, bytes, bytearray)):
        return (result,)
    return result


def gather(instance: Any) -> Callable[..., Any]:
    """`execute` of a `FlatMapFunction`: its result's items first, then what it collected meanwhile."""
    execute = instance.execute
    unfinished = False

    def collected() -> Any:
        nonlocal unfinished
        while instance._collected:
            items, instance._collected = instance._collected, None
            yield from items
        unfinished = False

    def call(*args: Any) -> Any:
        nonlocal unfinished
        if unfinished:  # nothing below wanted all that came of the item before
            instance._collected = None
        unfinished = True
        return chain(spread(execute(*args)), collected())

    return call


def taken_of(sized: Any, items: Any) -> Callable[[], float]:
    """How many items of a list, tuple or range its iterator has given."""
    return lambda: float(len(sized) - length_hint(items))
