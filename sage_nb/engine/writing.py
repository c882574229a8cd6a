"""Writes the text of a loop: see `loops` for what it looks like and why."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from operator import length_hint
from time import perf_counter
from types import FunctionType
from typing import Any

from sage_nb.engine.inline import Inlined, Woven, inlined, sharing_globals, weave
from sage_nb.engine.keys import stable_hash
from sage_nb.engine.loops import _DERIVED, FILENAME, Line, Loop, Made, Node, Place, spread
from sage_nb.errors import PipelineError
from sage_nb.pipeline.fields import NO_FIELD
from sage_nb.pipeline.operators import VALUED
from sage_nb.pipeline.sources import is_end

__all__ = ["Parts", "generate", "make"]

_MAX_INDENT = 80  # CPython allows 100 levels
_MAX_LOOPS = 16  # CPython allows 20 nested blocks
_MISSING = object()


@dataclass(slots=True)
class Parts:
    """What a loop is made of: the source, the engine's side of it, and one entry per node.

    `functions`: what each node calls. `others`: of a `take` its limit, of a keyed node its state, of an `append` its
    channel. `contexts`: where the key at hand is put. `size` counts the items of a chunk.
    """

    source: Any
    control: Callable[[], bool]
    within: Callable[[], None]
    idle: Callable[[float], float]
    active: Callable[[], float]
    closed: Callable[[int], None]
    caught: Callable[[int, Any, Exception], None]
    spent: Callable[[int, float], None]
    taken: Callable[[], float] | None
    size: Callable[[Any], int]
    functions: list[Any]
    others: list[Any]
    contexts: list[Any]


_LOCK = threading.Lock()
"""CPython's parser counts the depth of its recursion for all threads together."""

# The user's globals may hide builtins, and an inlined function brings them in; so nothing is looked up there.
_TOOLS: dict[str, Any] = {
    "spread_": spread,
    "is_end_": is_end,
    "hint_": length_hint,
    "now_": perf_counter,
    "len_": len,
    "iter_": iter,
    "list_": list,
    "tuple_": tuple,
    "Exception_": Exception,
    "missing_": _MISSING,
    "TypeError_": TypeError,
    "no_field_": NO_FIELD,
    "hash_": stable_hash,
}
_PARTS = (
    *("source", "control", "within", "idle", "active", "closed"),
    *("caught", "spent", "taken", "size", "functions", "others"),
)


def make(loop: Loop, parts: Parts, inline: bool) -> tuple[Made, Woven | None]:
    """The loop's functions, around `parts`; with `inline`, and what was woven into them."""
    woven: tuple[Woven, dict[str, FunctionType]] | None = None
    if inline and sys.gettrace() is None:
        try:
            with _LOCK:
                woven = _woven(loop, parts.functions)
        except SystemError:  # of that parser, where a thread of the user's parses as well: then nothing is inlined
            woven = None
    if woven is None:
        namespace: dict[str, Any] = {}
        exec(loop.code, namespace)
        factory = namespace["make"]
    else:
        factory = woven[0].bind(woven[1], {})
    run, read, signal, emits = factory(parts, _TOOLS)
    return Made(run, read, signal, emits), woven[0] if woven is not None else None


def _woven(loop: Loop, functions: list[Any]) -> tuple[Woven, dict[str, FunctionType]] | None:
    """The loop with simple lambdas in line; None where there are none."""
    found: dict[str, Inlined] = {}
    lambdas: dict[str, FunctionType] = {}
    for i, node in enumerate(loop.nodes):
        count = _ARGUMENTS.get(node.kind)
        if i and count is not None and (not node.columns or node.kind in VALUED):
            one = inlined(functions[i], count)
            if one is not None:
                found[f"f{i}"], lambdas[f"f{i}"] = one, functions[i]
    if not found:
        return None
    lambdas = sharing_globals(lambdas)
    return weave(loop.text, FILENAME, {name: found[name] for name in lambdas}), lambdas


_ARGUMENTS = {
    "map": 1,
    "filter": 1,
    "flatmap": 1,
    "flatmap_each": 1,
    "keyby": 1,
    "sink": 1,
    "reduce": 2,
    **dict.fromkeys(VALUED, 1),
}
"""How many arguments a function is called with, by its node's kind, where it may be written in line."""


@dataclass(slots=True)
class _Writer:
    nodes: tuple[Node, ...]
    lines: list[str] = field(default_factory=list)
    places: list[Place | None] = field(default_factory=lambda: [None])
    variables: list[str] = field(default_factory=list)
    calls: dict[Line, Place] = field(default_factory=dict)
    open: list[int] = field(default_factory=list)
    function: str = ""
    timing: bool = False
    indent: int = 0
    loops: int = 0

    # Lines

    def put(self, text: str, index: int | None = None, *, runs: bool = False, held: bool = False) -> None:
        self.lines.append("    " * self.indent + text)
        self.places.append(None if index is None else Place(index, runs, held, frozenset(self.open)))

    def begin(self, text: str, index: int | None = None, *, runs: bool = False) -> None:
        self.put(text, index, runs=runs)
        self.indent += 1
        if self.indent > _MAX_INDENT or self.loops > _MAX_LOOPS:
            raise PipelineError(
                "this pipeline branches or flatmaps too deep for one loop: more than "
                f"{_MAX_LOOPS} flatmaps in a row, or a side branch of about {_MAX_INDENT} operators; split it"
            )

    def end(self) -> None:
        self.indent -= 1

    @contextmanager
    def block(self, text: str, index: int | None = None, *, runs: bool = False) -> Iterator[None]:
        self.begin(text, index, runs=runs)
        yield
        self.end()

    def call(self, i: int, before: str, call: str, fallback: str) -> None:
        """`before + call`; on an error that the operator's policy takes, `fallback`."""
        node = self.nodes[i]
        self.calls[(self.function, i)] = Place(i, True, False, frozenset(self.open))
        if node.sets_key:
            self.put(f"c{i}.key = {self.key}", i)
        if self.timing:
            self.put("b = now_()", i)
        if node.catches:
            with self.block("try:", i, runs=True):
                self.evaluate(i, before, call)
            with self.block("except Exception_ as error:", i, runs=True):
                self.put(f"caught({i}, {self.variables[i]}, error)", i, runs=True)
                if fallback:
                    self.put(before + fallback, i, runs=True)
        else:
            self.evaluate(i, before, call)
        if self.timing:
            self.put(f"spent({i}, now_() - b)", i)

    def evaluate(self, i: int, before: str, call: str) -> None:
        """`before + call`; a column is looked up, and what has none of that name is left to the call."""
        if (field := self.nodes[i].field) is None:
            self.put(before + call, i, runs=True)
            return
        with self.block("try:", i, runs=True):
            self.put(f"{before}{self.variables[i]}[{field!r}]", i, runs=True)
        with self.block("except no_field_:", i, runs=True):
            self.put(before + call, i, runs=True)

    key: str = "None"
    columns: dict[str, str] = field(default_factory=dict)

    def arguments(self, i: int, var: str) -> str:
        """The item and what else the node's function is given."""
        node, known = self.nodes[i], {**self.columns, "k": self.key}
        given = [known.get(column, "None") for column in node.columns if column != "v"]
        return ", ".join([self.key, var, *given] if node.emits == "windows" else [var, *given])

    # The tree

    def branch(self, i: int, var: str, tail: bool) -> None:
        """The consumers of node `i`; `tail` says that `continue` may end the work on this item."""
        consumers = [c for c in self.nodes[i].consumers if self.nodes[c].kind not in _EMITTERS]
        key = self.key
        for n, consumer in enumerate(consumers):
            self.key = key
            self.node(consumer, var, tail and n == len(consumers) - 1)
        self.key = key

    def node(self, i: int, var: str, tail: bool) -> None:
        self.variables[i] = var
        kind = self.nodes[i].kind
        if kind == "pass":
            self.branch(i, var, tail)
        elif kind in ("map", "comap"):
            function = f"f{i}[{self.columns.get('t', '0')}]" if kind == "comap" else f"f{i}"
            self.call(i, f"x{i} = ", f"{function}({self.arguments(i, var)})", "None")
            self.drop(i, f"x{i} is None", f"x{i} is not None", f"x{i}", tail)
        elif kind == "filter":
            self.filter(i, var, tail)
        elif kind == "keyby":
            self.keyby(i, var, tail)
        elif kind in _FOLDS:
            self.fold(i, var, tail)
        elif kind in ("flatmap", "flatmap_each"):
            self.flatmap(i, var, counts_itself=kind == "flatmap")
        elif kind == "results":
            self.call(i, f"r{i} = ", f"f{i}({self.arguments(i, var)})", "()")
            with self.block(f"if r{i}:", i, runs=True):
                self.each(i, f"r{i}")
        elif kind == "take":
            self.take(i, var)
        elif kind == "latest":
            self.keyed(i, f"s{i}[{self.key}] = {var}")
        elif kind == "append":
            self.put(f"f{i}({var})", i, runs=True)
            self.put(f"if len_(l{i}) > n{i}.limit: n{i}.press()", i, runs=True)
        else:
            self.call(i, "", f"f{i}({self.arguments(i, var)})", "")

    def filter(self, i: int, var: str, tail: bool) -> None:
        test = f"f{i}({self.arguments(i, var)})"
        if self.nodes[i].catches or self.timing:
            self.call(i, f"r{i} = ", test, "False")
            test = f"r{i}"
        else:
            self.calls[(self.function, i)] = Place(i, True, False, frozenset(self.open))
            if self.nodes[i].sets_key:
                self.put(f"c{i}.key = {self.key}", i)
        self.drop(i, f"not {test}", test, var, tail)

    def drop(self, i: int, lost: str, kept: str, var: str, tail: bool) -> None:
        if tail:
            with self.block(f"if {lost}:", i, runs=True):
                self.put(f"d{i} += 1.0", i, runs=True)
                self.put("continue", i)
            self.branch(i, var, tail)
            return
        with self.block(f"if {kept}:", i, runs=True):
            self.branch(i, var, tail)
            self.put("pass", i)
        with self.block("else:", i):
            self.put(f"d{i} += 1.0", i, runs=True)

    def keyby(self, i: int, var: str, tail: bool) -> None:
        self.call(i, f"k{i} = ", f"f{i}({self.arguments(i, var)})", "missing_")
        if self.nodes[i].catches:
            self.key = f"k{i}"
            self.drop(i, f"k{i} is missing_", f"k{i} is not missing_", var, tail)
        else:
            self.key = f"k{i}"
            self.branch(i, var, tail)

    def fold(self, i: int, var: str, tail: bool) -> None:
        """A value per key, in a dict that holds nothing else."""
        node, key = self.nodes[i], self.key
        if node.kind == "count":
            self.keyed(i, f"a{i} = s{i}[{key}] = g{i}({key}, 0) + 1")
            self.put(f"x{i} = ({key}, a{i})", i, runs=True)
            self.branch(i, f"x{i}", tail)
            return
        value = var
        if node.kind in VALUED and node.columns:
            self.call(i, f"v{i} = ", f"f{i}({var})", "missing_")
            value = f"v{i}"
        if node.catches:
            self.guarded_fold(i, value, tail)
            return
        self.keyed(i, f"a{i} = g{i}({key}, missing_)")
        with self.block(f"if a{i} is missing_:", i, runs=True):
            self.put(f"x{i} = {self.first(i, value)}", i, runs=True)
        with self.block("else:", i, runs=True):
            if node.kind == "reduce":
                self.call(i, f"x{i} = ", self.next(i, value), "")
            else:
                self.put(f"x{i} = {self.next(i, value)}", i, runs=True)
        self.put(f"s{i}[{key}] = x{i}", i, runs=True)
        if node.kind != "reduce":
            self.put(f"x{i} = {self.emitted(i)}", i, runs=True)
        self.branch(i, f"x{i}", tail)

    def first(self, i: int, value: str) -> str:
        """What is kept of a key's first value."""
        return f"({value}, 1)" if self.nodes[i].kind == "mean" else value

    def next(self, i: int, value: str) -> str:
        """What is kept after a further one."""
        return _STEPS[self.nodes[i].kind].format(f=f"f{i}", a=f"a{i}", v=value)

    def emitted(self, i: int) -> str:
        """What comes out, of what is kept."""
        kind = self.nodes[i].kind
        if kind == "reduce":
            return f"x{i}"
        return f"({self.key}, x{i}[0] / x{i}[1])" if kind == "mean" else f"({self.key}, x{i})"

    def keyed(self, i: int, line: str) -> None:
        """A line that looks up the key. That it cannot be hashed is said of the `keyby`, where that is in this loop."""
        with self.block("try:", i, runs=True):
            self.put(line, i, runs=True)
        maker = i if self.key == "None" else int(self.key[1:])
        at = maker if self.nodes[maker].kind == "keyby" else i
        with self.block("except TypeError_:", at, runs=True):
            self.put(f"hash_({self.key})", at, runs=True)
            self.put("raise", i, runs=True)

    def guarded_fold(self, i: int, value: str, tail: bool) -> None:
        """As `fold`, but what fails changes nothing."""
        node, key = self.nodes[i], self.key
        kept = f"{self.first(i, value)} if a{i} is missing_ else {self.next(i, value)}"
        if node.sets_key:
            self.put(f"c{i}.key = {key}", i)
        with self.block("try:", i, runs=True):
            if value.startswith("v"):
                with self.block(f"if {value} is not missing_:", i, runs=True):
                    self.keep(i, kept)
                with self.block("else:", i, runs=True):
                    self.put(f"x{i} = missing_", i, runs=True)
            else:
                self.keep(i, kept)
        with self.block("except Exception_ as error:", i, runs=True):
            self.put(f"x{i} = missing_", i, runs=True)
            self.put(f"caught({i}, {self.variables[i]}, error)", i, runs=True)
        self.drop(i, f"x{i} is missing_", f"x{i} is not missing_", f"x{i}", tail)

    def keep(self, i: int, kept: str) -> None:
        """Keep what comes of an item by its key, once it is sure what is emitted."""
        self.put(f"a{i} = g{i}({self.key}, missing_)", i, runs=True)
        self.put(f"x{i} = {kept}", i, runs=True)
        self.put(f"e{i} = {self.emitted(i)}", i, runs=True)
        self.put(f"s{i}[{self.key}] = x{i}", i, runs=True)
        self.put(f"x{i} = e{i}", i, runs=True)

    def flatmap(self, i: int, var: str, counts_itself: bool) -> None:
        catches = self.nodes[i].catches
        counts_itself = counts_itself and not catches
        given = self.variables[i]
        self.call(i, f"r{i} = ", f"f{i}({self.arguments(i, var)})", "()")
        if counts_itself:
            self.put(f"if r{i}.__class__ is list_: r{i} = tuple_(r{i})", i, runs=True)
            with self.block(f"if r{i}.__class__ is tuple_:", i, runs=True):
                self.put(f"d{i} += len_(r{i})", i, runs=True)
                self.put(f"i{i} = iter_(r{i})", i, runs=True)
            self.put(f"else: i{i} = each{i}(spread_(r{i}), {given})", i, runs=True)
            items = f"i{i}"
        elif catches:
            items = f"guarded{i}(r{i}, {given})"
        else:
            items = f"spread_(r{i})"
        self.loops += 1
        self.begin(f"for x{i} in {items}:", i, runs=True)
        self.put("if flag: within()", i, held=True)
        if not counts_itself:
            self.put(f"d{i} += 1.0", i, runs=True)
        self.open.append(i)
        full = self.full(i)
        self.branch(i, f"x{i}", tail=not full)
        last = self.last(i)
        if full:
            with self.block(f"if {full}:", last):
                if counts_itself:  # what is left was counted, and is not taken
                    self.put(f"d{i} -= hint_(i{i})", last)
                    self.put(f"i{i} = iter_(())", last)
                self.put("break", last)
        else:
            self.put("pass", last)
        self.open.pop()
        self.end()
        self.loops -= 1

    def each(self, i: int, items: str, flag: bool = False) -> None:
        """Let `items` come out of node `i`."""
        node = self.nodes[i]
        self.loops += 1
        pairs = f"x{i}, k{i}" if node.emits == "keyed" else f"x{i}"
        self.begin(f"for {pairs} in {items}:", i, runs=True)
        if flag:
            self.put("if flag: within()", i, held=True)
        self.put(f"d{i} += size(x{i})" if node.chunks else f"d{i} += 1.0", i, runs=True)
        key = self.key
        if node.emits == "windows":
            self.put(f"k{i} = x{i}.key", i, runs=True)
        if node.emits in ("windows", "keyed"):
            self.key = f"k{i}"
        self.open.append(i)
        self.branch(i, f"x{i}", tail=True)
        self.put("pass", self.last(i))
        self.open.pop()
        self.key = key
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

    def take(self, i: int, var: str) -> None:
        with self.block(f"if d{i} < n{i}:", i, runs=True):
            self.put(f"d{i} += 1.0", i, runs=True)
            self.open.append(i)
            self.branch(i, var, False)
            self.put(f"if d{i} >= n{i}: closed({i})", self.last(i))
            self.open.pop()

    def last(self, i: int) -> int:
        """The last node of the branch that begins at `i`: positions number branches without gaps."""
        while self.nodes[i].consumers:
            i = self.nodes[i].consumers[-1]
        return i

    # The functions

    def run(self, names: str) -> None:
        head = self.nodes[0]
        self.loops += 1
        if head.kind == "driven":
            self.put("pass")
        elif head.kind in ("poll", "poll_batch"):
            self.put("pause = 0.001", 0, runs=True)
            self.begin("while True:", 0, runs=True)
            self.put("x0 = source()", 0, runs=True)
            self.check(names)
            with self.block("if x0 is None:", 0, runs=True):
                if head.kind == "poll_batch":
                    self.put("break", 0, runs=True)
                else:
                    self.put("pause = idle(pause)", 0, runs=True)
                    self.put("continue", 0, runs=True)
            self.put("if is_end_(x0): break", 0, runs=True)
            if head.kind == "poll":
                self.put("if pause > 0.001: pause = active()", 0, runs=True)
            self.body()
            self.end()
        else:
            self.begin(f"for {names} in source:", 0, runs=True)
            self.check(names)
            self.body()
            self.end()
        self.loops -= 1

    def check(self, names: str) -> None:
        with self.block("if flag and control():", 0, runs=False):
            self.places[-1] = Place(0, False, True)
            ends = " and x0 is not None and not is_end_(x0)" if self.nodes[0].kind.startswith("poll") else ""
            if ends:
                with self.block(f"if {ends[5:]}:", 0):
                    self.timed_call(names)
            else:
                self.timed_call(names)

    def timed_call(self, names: str) -> None:
        self.put(f"timed({names})", 0)
        self.put("continue", 0)

    def body(self) -> None:
        """What becomes of one item of the head."""
        head = self.nodes[0]
        if head.kind == "chunks":
            self.put("d0 += size(x0)", 0, runs=True)
        elif head.kind != "iterate_sized":
            self.put("d0 += 1.0", 0, runs=True)
        self.open.append(0)
        self.branch(0, "x0", True)
        self.put("pass", self.last(0))
        self.open.pop()


def _names(head: Node) -> str:
    return ", ".join(["x0", *(f"{column}0" for column in head.columns)])


@lru_cache(maxsize=256)
def generate(nodes: tuple[Node, ...]) -> Loop:
    """The loop for `nodes`, the head first and every branch without a gap. Cached by shape.

    Raises `PipelineError` where it would be nested too deep for Python.
    """
    try:
        return _generate(nodes)
    except RecursionError:
        raise PipelineError("more than about 300 operators in a row are too many for one loop; join some") from None


def _generate(nodes: tuple[Node, ...]) -> Loop:
    writer = _Writer(nodes, variables=["x0"] * len(nodes))
    head = nodes[0]
    writer.columns = {column: f"{column}0" for column in head.columns}
    writer.key = writer.columns.get("k", "None")
    uncounted = _WAYS_OUT
    counted = [i for i, n in enumerate(nodes) if n.kind not in uncounted and not (i == 0 and n.kind in _SELF_COUNTED)]
    listed = [i for i, n in enumerate(nodes) if n.kind == "flatmap" and not n.catches]
    writer.begin("def make(parts, tools):")
    for name in _PARTS:
        writer.put(f"{name} = parts.{name}")
    for name in _TOOLS:
        writer.put(f"{name} = tools[{name!r}]")
    writer.put("flag = False")
    _prepare(writer, counted, listed)
    shared = ", ".join([*(f"d{i}" for i in counted), *(f"i{i}" for i in listed)])

    @contextmanager
    def function(name: str, arguments: str) -> Iterator[None]:
        writer.function = name
        with writer.block(f"def {name}({arguments}):"):
            if shared:
                writer.put(f"nonlocal {shared}")
            yield

    names = _names(head)
    if head.kind != "driven":
        with function("timed", names):
            writer.timing = True
            writer.begin("for _ in (None,):", 0)
            writer.body()
            writer.end()
            writer.timing = False
    with function("run", ""):
        for i, node in enumerate(nodes):
            if i and node.kind not in _UNCALLED:
                writer.put(f"f{i} = functions[{i}]")
        writer.run(names)
    for i, node in enumerate(nodes):
        if node.emits:
            key, writer.key = writer.key, "None"
            with function(f"emit{i}", "items"):
                writer.each(i, "items", flag=True)
            writer.key = key
    with writer.block("def read():"):
        first = "taken()" if head.kind in _SELF_COUNTED else "d0"
        values = [first, *(_counter(i, i in counted, i in listed) for i in range(1, len(nodes)))]
        writer.put(f"return ({', '.join(values)},)")
    with writer.block("def signal(value):"):
        writer.put("nonlocal flag")
        writer.put("flag = value")
    emits = ", ".join(f"emit{i}" if node.emits else "None" for i, node in enumerate(nodes))
    writer.put(f"return run, read, signal, ({emits},)")
    text = "\n".join(writer.lines) + "\n"
    return Loop(
        compile(text, FILENAME, "exec"),
        text,
        nodes,
        tuple(writer.places),
        tuple(writer.variables),
        tuple(_bases(nodes)),
        writer.calls,
    )


_SELF_COUNTED = ("iterate_sized", "driven")
_FOLDS = ("reduce", "count", *VALUED)
_STEPS = {
    "reduce": "{f}({a}, {v})",
    "sum": "{a} + {v}",
    "min": "({v} if {v} < {a} else {a})",
    "max": "({v} if {v} > {a} else {a})",
    "mean": "({a}[0] + {v}, {a}[1] + 1)",
}
"""What is kept of a key's values, `a` so far, when there is a further one, `v`."""
_EMITTERS = ("emitter", "late")
_UNCALLED = ("take", "pass", "count", "latest", *_EMITTERS)
_WAYS_OUT = ("sink", "latest", "append", "send")


def _prepare(writer: _Writer, counted: list[int], listed: list[int]) -> None:
    """The variables that the functions share."""
    for i in counted:
        writer.put(f"d{i} = 0.0")
    for i, node in enumerate(writer.nodes):
        if i and node.kind not in _UNCALLED:
            writer.put(f"f{i} = functions[{i}]")
        if node.kind in ("take", "append"):
            writer.put(f"n{i} = others[{i}]")
        if node.kind == "append":
            writer.put(f"l{i} = n{i}.items")
        if node.kind in (*_FOLDS, "latest"):
            writer.put(f"s{i} = others[{i}]")
        if node.kind in _FOLDS:
            writer.put(f"g{i} = s{i}.get")
        if node.sets_key:
            writer.put(f"c{i} = parts.contexts[{i}]")
        if node.catches and node.kind in ("flatmap", "flatmap_each"):
            _guard(writer, i)
    for i in listed:
        writer.put(f"i{i} = iter_(())")
        with writer.block(f"def each{i}(items, {_given(writer.nodes, i)}):"):  # the item, for what is told of a failure
            writer.put(f"nonlocal d{i}")
            with writer.block("for item in items:", i, runs=True):
                writer.put(f"d{i} += 1.0")
                writer.put("yield item", i, runs=True)


def _given(nodes: tuple[Node, ...], i: int) -> str:
    """The variable that holds the item that node `i` is given."""
    i = nodes[i].upstream
    while nodes[i].kind in ("pass", "filter", "keyby", "take"):
        i = nodes[i].upstream
    return f"x{i}"


def _guard(writer: _Writer, i: int) -> None:
    """For a flatmap whose errors are taken: those of its generator come while it is iterated."""
    with writer.block(f"def guarded{i}(items, given):"):
        with writer.block("try:"):
            writer.put("yield from spread_(items)")
        with writer.block("except Exception_ as error:"):
            writer.put(f"caught({i}, given, error)")


def _counter(i: int, counted: bool, listed: bool) -> str:
    if listed:
        return f"d{i} - hint_(i{i})"
    return f"d{i}" if counted else "0.0"


def _bases(nodes: tuple[Node, ...]) -> list[int]:
    bases: list[int] = []
    derived = {*_DERIVED, *_WAYS_OUT}
    for i, node in enumerate(nodes):
        bases.append(bases[node.upstream] if i and node.kind in derived else i)
    return bases
