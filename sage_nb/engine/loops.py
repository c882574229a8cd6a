"""One generated Python function per shape of pipeline.

A linear pipeline becomes `for x in source:` with the operators' calls in line, so that running it costs
little more than the loop a person would write. For `source.map(f).filter(g).sink(s)`:

    for x0 in items:
        if flag: control()
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
    raises `LoopEnded`. `within()` does so between the items of a flatmap, and lets the rest pass if it does at once.
*   Counters are closure variables that `read()` returns from any thread, so a loop that blocks in the source
    has nothing left to publish. Only what is dropped or multiplied is counted; the rest is derived
    (`Loop.counts`). They are floats, because CPython adds floats without allocating and ints not; exact to
    2**53. What comes out of a range, a tuple or a flatmap's list is not even counted: the iterator knows what is left.
*   Every line belongs to an operator. The line that the loop's frame is at says which operator runs (`position`),
    and the line of a traceback which one failed, and on which item; neither costs the loop anything. The
    counters are corrected by it: what an item in flight has not reached yet does not count it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from operator import length_hint
from types import CodeType
from typing import Any

from sage_nb.errors import PipelineError
from sage_nb.pipeline.sources import is_end

__all__ = ["FILENAME", "Counts", "Loop", "LoopEnded", "Node", "Place", "gather", "generate", "spread", "taken_of"]

FILENAME = "<sage_nb loop>"
_MAX_INDENT = 80  # CPython allows 100 levels
_MAX_LOOPS = 17  # CPython allows 20 nested blocks


Run = Callable[[], None]
Read = Callable[[], tuple[float, ...]]
Signal = Callable[[bool], None]


class LoopEnded(BaseException):
    """Raised inside a loop to leave it: a stop was asked for, or no `take` wants more. Never leaves the engine."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operator as the loop sees it: its kind and the positions of its consumers.

    Kinds: `iterate`, `iterate_sized`, `poll`, `poll_batch` (sources), `map`, `filter`, `flatmap` (of a function that
    may well return lists), `flatmap_each` (of one that does not), `take`, `sink`.
    """

    kind: str
    upstream: int
    consumers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Place:
    """What a line of the loop is part of: operator `index`; `runs` says that its call is under way."""

    index: int
    runs: bool
    held: bool = False
    """The line where an item waits that no operator has seen yet."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Items that went in and out of one operator."""

    items_in: int
    items_out: int


@dataclass(frozen=True, slots=True)
class Loop:
    """A generated loop for one shape."""

    code: CodeType
    text: str
    nodes: tuple[Node, ...]
    places: tuple[Place | None, ...]
    """By line, from line 1 at index 1."""
    variables: tuple[str, ...]
    """For each operator, the name of the variable that holds the item it is given."""
    bases: tuple[int, ...]
    """For each operator, the nearest operator above it, or itself, that has a counter of what it emits."""
    regions: tuple[tuple[int, int], ...]
    """For each such operator, the lines in which the item at hand is counted but may not be through."""

    def make(self) -> Callable[..., tuple[Run, Read, Signal]]:
        """The factory: `(source, control, within, idle, closed, functions, limits, taken) -> (run, read, signal)`."""
        namespace: dict[str, Any] = {"spread": spread, "is_end": is_end, "length_hint": length_hint}
        exec(self.code, namespace)
        made: Callable[..., tuple[Run, Read, Signal]] = namespace["make"]
        return made

    def place_at(self, line: int | None) -> Place | None:
        return self.places[line] if line is not None and line < len(self.places) else None

    def counts(self, raw: tuple[float, ...], line: int | None) -> list[Counts]:
        """Items in and out of every operator, from the raw counters and the line the loop is at, if it runs."""
        place = self.place_at(line)
        emitted: list[int] = []
        found: list[Counts] = []
        for i, node in enumerate(self.nodes):
            # An iterator that counts by itself has counted the item that waits at the check of the flag.
            held = place is not None and place.held and place.index == i and node.kind in ("iterate_sized", "flatmap")
            if i == 0:
                emitted.append(int(raw[0]) - held)
                found.append(Counts(0, emitted[0]))
                continue
            given = emitted[node.upstream]
            start, end = self.regions[self.bases[node.upstream]]
            in_flight = place is not None and line is not None and start <= line <= end
            ahead = in_flight and place is not None and i > place.index
            here = in_flight and place is not None and i == place.index and place.runs
            if node.kind in ("map", "filter"):
                emitted.append(given - int(raw[i]))
                found.append(Counts(given - ahead, emitted[i] - (ahead or here)))
            else:
                emitted.append(int(raw[i]) - held)
                found.append(Counts(given - ahead, emitted[i]))
        return found


def spread(result: Any) -> Any:
    """What a flatmap's result stands for: None for nothing, text for itself, anything else for its items."""
    if result is None:
        return ()
    if isinstance(result, (str, bytes, bytearray)):
        return (result,)
    return result


def gather(instance: Any) -> Callable[[Any], Any]:
    """`execute` of a `FlatMapFunction`: its result's items first, then what it collected meanwhile."""
    execute = instance.execute
    unfinished = False

    def collected() -> Any:
        nonlocal unfinished
        while instance._collected:
            items, instance._collected = instance._collected, None
            yield from items
        unfinished = False

    def call(item: Any) -> Any:
        nonlocal unfinished
        if unfinished:  # nothing below wanted all that came of the item before
            instance._collected = None
        unfinished = True
        return chain(spread(execute(item)), collected())

    return call


@dataclass(slots=True)
class _Writer:
    nodes: tuple[Node, ...]
    lines: list[str] = field(default_factory=list)
    places: list[Place | None] = field(default_factory=lambda: [None])
    variables: list[str] = field(default_factory=list)
    regions: list[tuple[int, int]] = field(default_factory=list)
    indent: int = 0
    loops: int = 0

    def put(self, text: str, place: Place | None = None) -> None:
        self.lines.append("    " * self.indent + text)
        self.places.append(place)

    def begin(self, text: str, place: Place | None = None) -> None:
        self.put(text, place)
        self.indent += 1
        if self.indent > _MAX_INDENT or self.loops > _MAX_LOOPS:
            raise PipelineError(
                "this pipeline branches or flatmaps too deep for one loop: more than "
                f"{_MAX_LOOPS} flatmaps in a row, or a side branch of about {_MAX_INDENT} operators; split it"
            )

    def end(self) -> None:
        self.indent -= 1

    @property
    def next_line(self) -> int:
        return len(self.lines) + 1

    def check_flag(self, i: int) -> None:
        self.put("if flag: control()" if i == 0 else "if flag: within()", Place(i, runs=False, held=True))

    def branch(self, i: int, var: str, tail: bool) -> None:
        """The consumers of operator `i`; `tail` says that `continue` may end the work on this item."""
        consumers = self.nodes[i].consumers
        for n, consumer in enumerate(consumers):
            self.operator(consumer, var, tail and n == len(consumers) - 1)

    def operator(self, i: int, var: str, tail: bool) -> None:
        self.variables[i] = var
        kind = self.nodes[i].kind
        if kind == "map":
            self.put(f"x{i} = f{i}({var})", Place(i, runs=True))
            self.drop(i, f"x{i} is None", f"x{i} is not None", f"x{i}", tail)
        elif kind == "filter":
            if tail:
                self.drop(i, f"not f{i}({var})", "", var, tail)
            else:
                self.drop(i, "", f"f{i}({var})", var, tail)
        elif kind in ("flatmap", "flatmap_each"):
            self.flatmap(i, var, counts_itself=kind == "flatmap")
        elif kind == "take":
            self.take(i, var)
        else:
            self.put(f"f{i}({var})", Place(i, runs=True))

    def drop(self, i: int, lost: str, kept: str, var: str, tail: bool) -> None:
        runs, after = Place(i, runs=True), Place(i, runs=False)
        if tail:
            self.begin(f"if {lost}:", runs)
            self.put(f"d{i} += 1.0", runs)
            self.put("continue", after)
            self.end()
            self.branch(i, var, tail)
            return
        self.begin(f"if {kept}:", runs)
        self.branch(i, var, tail)
        self.put("pass", after)
        self.end()
        self.begin("else:", after)
        self.put(f"d{i} += 1.0", runs)
        self.end()

    def flatmap(self, i: int, var: str, counts_itself: bool) -> None:
        runs = Place(i, runs=True)
        self.put(f"r{i} = f{i}({var})", runs)
        if counts_itself:
            self.put(f"if r{i}.__class__ is list: r{i} = tuple(r{i})", runs)
            self.begin(f"if r{i}.__class__ is tuple:", runs)
            self.put(f"d{i} += len(r{i})", runs)
            self.put(f"i{i} = iter(r{i})", runs)
            self.end()
            self.put(f"else: i{i} = each{i}(spread(r{i}))", runs)
        self.loops += 1
        self.begin(f"for x{i} in " + (f"i{i}:" if counts_itself else f"spread(r{i}):"), runs)
        self.check_flag(i)
        if not counts_itself:
            self.put(f"d{i} += 1.0", runs)
        start = self.next_line
        full = self.full(i)
        self.branch(i, f"x{i}", tail=not full)
        done = Place(self.last(i), runs=False)
        if full:
            self.begin(f"if {full}:", done)
            if counts_itself:  # what is left was counted, and is not taken
                self.put(f"d{i} -= length_hint(i{i})", done)
                self.put(f"i{i} = iter(())", done)
            self.put("break", done)
            self.end()
        else:
            self.put("pass", done)
        self.regions[i] = (start, len(self.lines))
        self.end()
        self.loops -= 1

    def full(self, i: int) -> str:
        """The condition under which nothing below `i` wants more; empty where that is never so."""
        node = self.nodes[i]
        below = [self.full(consumer) for consumer in node.consumers]
        rest = " and ".join(below) if below and all(below) else ""
        if node.kind != "take":
            return rest
        own = f"d{i} >= n{i}"
        return f"({own} or {rest})" if rest else own

    def counting_generator(self, i: int) -> None:
        """For results of a flatmap that are neither list nor tuple: count what is taken."""
        self.begin(f"def each{i}(items):")
        self.put(f"nonlocal d{i}")
        self.begin("for item in items:", Place(i, runs=True))
        self.put(f"d{i} += 1.0")
        self.put("yield item", Place(i, runs=True))
        self.end()
        self.end()

    def take(self, i: int, var: str) -> None:
        runs = Place(i, runs=True)
        self.begin(f"if d{i} < n{i}:", runs)
        self.put(f"d{i} += 1.0", runs)
        start = self.next_line
        self.branch(i, var, False)
        self.put(f"if d{i} >= n{i}: closed({i})", Place(self.last(i), runs=False))
        self.regions[i] = (start, len(self.lines))
        self.end()

    def last(self, i: int) -> int:
        """The last operator of the branch that begins at `i`: positions number branches without gaps."""
        while self.nodes[i].consumers:
            i = self.nodes[i].consumers[-1]
        return i

    def source(self) -> None:
        kind = self.nodes[0].kind
        runs = Place(0, runs=True)
        self.loops += 1
        if kind.startswith("iterate"):
            self.begin("for x0 in source:", runs)
            self.check_flag(0)
        else:
            self.put("pause = 0.001", runs)
            self.begin("while True:", runs)
            self.put("x0 = source()", runs)
            self.check_flag(0)
            self.begin("if x0 is None:", runs)
            if kind == "poll_batch":
                self.put("break", runs)
            else:
                self.put("pause = idle(pause)", runs)
                self.put("continue", runs)
            self.end()
            self.put("if is_end(x0): break", runs)
            if kind == "poll":
                self.put("pause = 0.001", runs)
        if kind != "iterate_sized":
            self.put("d0 += 1.0", runs)
        start = self.next_line
        self.branch(0, "x0", True)
        self.put("pass", Place(self.last(0), runs=False))
        self.regions[0] = (start, len(self.lines))
        self.end()


@lru_cache(maxsize=256)
def generate(nodes: tuple[Node, ...]) -> Loop:
    """The loop for `nodes`, the source first and every branch without a gap. Cached by shape.

    Raises `PipelineError` where it would be nested too deep for Python.
    """
    try:
        return _generate(nodes)
    except RecursionError:
        raise PipelineError("more than about 300 operators in a row are too many for one loop; join some") from None


def _generate(nodes: tuple[Node, ...]) -> Loop:
    count = len(nodes)
    writer = _Writer(nodes, variables=["x0"] * count, regions=[(0, -1)] * count)
    counted = [i for i, node in enumerate(nodes) if node.kind not in ("sink", "iterate_sized")]
    called = [i for i, node in enumerate(nodes) if i and node.kind != "take"]
    writer.begin("def make(source, control, within, idle, closed, functions, limits, taken):")
    writer.put("flag = False")
    for i in counted:
        writer.put(f"d{i} = 0.0")
    for i, node in enumerate(nodes):
        if node.kind == "take":
            writer.put(f"n{i} = limits[{i}]")
    listed = [i for i, node in enumerate(nodes) if node.kind == "flatmap"]
    for i in listed:
        writer.put(f"i{i} = iter(())")
        writer.counting_generator(i)
    writer.begin("def run():")
    if counted:
        writer.put("nonlocal " + ", ".join([*(f"d{i}" for i in counted), *(f"i{i}" for i in listed)]))
    for i in called:
        writer.put(f"f{i} = functions[{i}]")
    writer.source()
    writer.end()
    writer.begin("def read():")
    taken = "taken()" if nodes[0].kind == "iterate_sized" else "d0"
    values = [taken, *(_counter(i, i in counted, i in listed) for i in range(1, count))]
    writer.put(f"return ({', '.join(values)},)")
    writer.end()
    writer.begin("def signal(value):")
    writer.put("nonlocal flag")
    writer.put("flag = value")
    writer.end()
    writer.put("return run, read, signal")
    text = "\n".join(writer.lines) + "\n"
    return Loop(
        compile(text, FILENAME, "exec"),
        text,
        nodes,
        tuple(writer.places),
        tuple(writer.variables),
        tuple(_bases(nodes)),
        tuple(writer.regions),
    )


def _counter(i: int, counted: bool, listed: bool) -> str:
    if listed:
        return f"d{i} - length_hint(i{i})"
    return f"d{i}" if counted else "0.0"


def _bases(nodes: tuple[Node, ...]) -> list[int]:
    bases: list[int] = []
    for i, node in enumerate(nodes):
        bases.append(bases[node.upstream] if node.kind in ("map", "filter", "sink") else i)
    return bases


def taken_of(sized: Any, items: Any) -> Callable[[], float]:
    """How many items of a list, tuple or range its iterator has given."""
    return lambda: float(len(sized) - length_hint(items))
