"""Random graphs of operators, and the slow and obvious way to run them: lists, one operator after the other."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

from hypothesis import strategies as st

from sage_nb import BaseCoMapFunction, BaseJoinFunction, LocalEnvironment
from sage_nb.pipeline.windows import Sliding, Tumbling

__all__ = ["Op", "Stream", "answers", "declare", "graphs"]


@dataclass(frozen=True)
class Op:
    """One operator: what it does, a number that shapes it, its instances, and the numbers of those that feed it."""

    kind: str
    n: int
    p: int
    inputs: tuple[int, ...]
    tapped: bool
    """Whether its items are collected though others get them too."""


class Stream(NamedTuple):
    """What an operator emits: `(key, item)` pairs, and what is promised of their order."""

    items: list[tuple[Any, int]]
    order: str
    """`all`: that of the list; `key`: that of each key; empty: none."""
    keyed: bool


# Small functions over ints


def mapped(n: int, item: int) -> int | None:
    return None if item % 4 == n else item + 1


def kept(n: int, item: int) -> bool:
    return (item + n) % 3 > 0


def many(n: int, item: int) -> list[int]:
    return [item + k for k in range((item + n) % 3)]


def key_of(n: int, item: int) -> Any:
    return (None, 0, "", False, "k", (1, None))[item % (n + 1)]


def added(so_far: int, item: int) -> int:
    return (so_far * 2 + item) % 1000


def half(n: int, item: int) -> int | None:
    """What goes round in a loop: less each time, until it would be 0."""
    return item // (n + 2) or None


async def mapped_later(n: int, item: int) -> int | None:
    await asyncio.sleep(0)
    return mapped(n, item)


def same(item: Any) -> Any:
    return item


class Told(BaseCoMapFunction):
    def map0(self, data: int) -> int:
        return data

    def map1(self, data: int) -> int:
        return data + 1

    def map2(self, data: int) -> int | None:
        return data if data % 2 else None


class Matched(BaseJoinFunction):
    def __init__(self) -> None:
        self.seen: dict[Any, list[tuple[int, int]]] = defaultdict(list)

    def execute(self, payload: int, key: Any, tag: int) -> list[int]:
        self.seen[key].append((tag, payload))
        return [payload * one % 100 for other, one in self.seen[key] if other != tag]


# The reference


def answers(ops: list[Op]) -> list[Stream]:
    """What each operator emits."""
    streams: list[Stream] = []
    for op in ops:
        streams.append(_answer(op, [streams[one] for one in op.inputs]))
    return streams


def _answer(op: Op, inputs: list[Stream]) -> Stream:
    if op.kind == "source":
        return Stream([(None, item) for item in range(op.n)], "all", False)
    keyed = all(one.keyed for one in inputs)
    items = [(key if keyed else None, item) for one in inputs for key, item in one.items]
    order = inputs[0].order if len(inputs) == 1 else ""
    if op.p > 1:
        order = "key" if keyed and order else ""
    if op.kind in ONE_BY_ONE:
        one_by_one = ONE_BY_ONE[op.kind]
        found = [(key, new) for key, item in items for new in one_by_one(op.n, item)]
        return Stream(found, order, keyed)
    return BY_KIND[op.kind](op, items, order, inputs)


def _keyby(op: Op, items: list[tuple[Any, int]], order: str, inputs: list[Stream]) -> Stream:
    return Stream([(key_of(op.n, item), item) for _, item in items], order if order == "all" else "", True)


def _batches(op: Op, items: list[tuple[Any, int]], order: str, inputs: list[Stream]) -> Stream:
    return _keyby(op, [(None, item + op.n) for _, item in items], order, inputs)


def _stateful(op: Op, items: list[tuple[Any, int]], order: str, inputs: list[Stream]) -> Stream:
    groups: dict[Any, list[int]] = defaultdict(list)
    for key, item in items:
        groups[key].append(item)
    results: dict[Any, Any] = {
        key: iter(range(1, len(group) + 1) if op.kind == "count" else accumulate(group, added))
        for key, group in groups.items()
    }
    return Stream([(key, next(results[key])) for key, _ in items], order, True)


def _spread(op: Op, items: list[tuple[Any, int]], order: str, inputs: list[Stream]) -> Stream:
    copies = op.p if op.kind == "broadcast" else 1
    return Stream([(key_of(op.n, item), item) for _, item in items for _ in range(copies)], "", True)


def _window(op: Op, items: list[tuple[Any, int]], order: str, inputs: list[Stream]) -> Stream:
    counts: dict[Any, int] = defaultdict(int)
    for key, item in items:
        step = op.n + 1
        for begin in range(item // step * step, item // step * step - 2 * step, -step):
            if item < begin + (step if op.n % 2 else 2 * step):
                counts[key, begin] += 1
    return Stream([(key, n) for (key, _), n in counts.items()], "", inputs[0].keyed)


def _comap(op: Op, items: list[tuple[Any, int]], order: str, inputs: list[Stream]) -> Stream:
    keyed, told = all(one.keyed for one in inputs), Told()
    found = []
    for tag, one in enumerate(inputs):
        new = ((key, getattr(told, f"map{tag}")(item)) for key, item in one.items)
        found += [(key if keyed else None, item) for key, item in new if item is not None]
    return Stream(found, "", keyed)


def _join(op: Op, items: list[tuple[Any, int]], order: str, inputs: list[Stream]) -> Stream:
    left, right = inputs
    pairs = [(key, a * b % 100) for key, a in left.items for other, b in right.items if key == other]
    return Stream(pairs, "", True)


def _take(op: Op, items: list[tuple[Any, int]], order: str, inputs: list[Stream]) -> Stream:
    return Stream(items[: op.n], order, inputs[0].keyed)


def _loop(op: Op, items: list[tuple[Any, int]], order: str, inputs: list[Stream]) -> Stream:
    all, going = [], [item for _, item in items]
    while going:
        body = [new for item in going for new in many(op.n, item)]
        all += body
        going = [new for item in body if (new := half(op.n, item)) is not None]
    return Stream([(None, item) for item in all], "", False)


def _maybe(item: int | None) -> list[int]:
    return [] if item is None else [item]


ONE_BY_ONE: dict[str, Callable[[int, int], list[int]]] = {
    "map": lambda n, item: _maybe(mapped(n, item)),
    "filter": lambda n, item: [item] if kept(n, item) else [],
    "flatmap": many,
    "async": lambda n, item: _maybe(mapped(n, item)),
    "merge": lambda n, item: [item + n],
}
BY_KIND: dict[str, Callable[[Op, list[tuple[Any, int]], str, list[Stream]], Stream]] = {
    "keyby": _keyby,
    "batches": _batches,
    "reduce": _stateful,
    "count": _stateful,
    "broadcast": _spread,
    "round_robin": _spread,
    "window": _window,
    "comap": _comap,
    "join": _join,
    "take": _take,
    "loop": _loop,
}


# The same graph, for the engine


def declare(env: LocalEnvironment, ops: list[Op]) -> None:
    """Declare the graph; what its ends emit, and what is tapped, is collected under the operator's number."""
    streams: list[Any] = []
    for i, op in enumerate(ops):
        inputs = [streams[one] for one in op.inputs]
        if op.kind == "source":
            streams.append(env.from_batch(range(op.n)))
        else:
            stream = inputs[0].connect(*inputs[1:]) if len(inputs) > 1 else inputs[0]
            again = env.from_future(f"again {i}") if op.kind == "loop" else None
            streams.append(_looped(stream, op, again) if again else DECLARED[op.kind](stream, op))
        if op.tapped or not any(i in other.inputs for other in ops):
            streams[i].collect(str(i))


def _spread_out(stream: Any, op: Op) -> Any:
    key = partial(key_of, op.n)
    return stream.keyby(key, strategy=op.kind).map(same, parallelism=op.p).keyby(key)


def _batched(stream: Any, op: Op) -> Any:
    """With a new key behind it: the rows of a batch are no longer the items that had one."""
    batches = stream.map_batches(lambda some: [item + op.n for item in some], size=op.n + 1, parallelism=op.p)
    return batches.keyby(partial(key_of, op.n))


def _windowed(stream: Any, op: Op) -> Any:
    step = op.n + 1
    window = stream.window(
        Tumbling(step) if op.n % 2 else Sliding(2 * step, step), event_time=same, out_of_orderness=10**6
    )
    return window.count(parallelism=op.p).map(lambda result: result.value)


def _looped(stream: Any, op: Op, again: Any) -> Any:
    body = stream.connect(again).flatmap(partial(many, op.n), parallelism=op.p)
    body.map(partial(half, op.n), parallelism=op.p).fill_future(again)
    return body


DECLARED: dict[str, Callable[[Any, Op], Any]] = {
    "map": lambda stream, op: stream.map(partial(mapped, op.n), parallelism=op.p),
    "filter": lambda stream, op: stream.filter(partial(kept, op.n), parallelism=op.p),
    "flatmap": lambda stream, op: stream.flatmap(partial(many, op.n), parallelism=op.p),
    "async": lambda stream, op: stream.map_async(partial(mapped_later, op.n), concurrency=op.n + 1, parallelism=op.p),
    "batches": _batched,
    "merge": lambda stream, op: stream.map(lambda item: item + op.n, parallelism=op.p),
    "keyby": lambda stream, op: stream.keyby(partial(key_of, op.n), parallelism=op.p),
    "reduce": lambda stream, op: stream.reduce(added, parallelism=op.p),
    "count": lambda stream, op: stream.count(parallelism=op.p).map(lambda pair: pair[1], parallelism=op.p),
    "broadcast": _spread_out,
    "round_robin": _spread_out,
    "window": _windowed,
    "comap": lambda stream, op: stream.comap(Told, parallelism=op.p),
    "join": lambda stream, op: stream.join(Matched, parallelism=op.p),
    "take": lambda stream, op: stream.take(op.n),
}


# Drawing one

MERGING = {"merge": 3, "comap": 3, "join": 2}
"""How many streams at most; two at least."""
KINDS = st.sampled_from(sorted({*ONE_BY_ONE, *BY_KIND}))


def fits(kind: str, stream: Stream) -> bool:
    """Whether the outcome is certain where an operator of that kind gets these items."""
    if kind == "reduce":
        return stream.keyed and stream.order != ""
    if kind in ("count", "join"):
        return stream.keyed
    return stream.order == "all" if kind == "take" else True


@st.composite
def graphs(draw: Any, most: int = 8, items: int = 400) -> list[Op]:
    """Graphs of up to `most` operators behind one or two sources; no stream is longer than `items`."""
    ops = [Op("source", n, 1, (), False) for n in draw(st.lists(st.integers(0, 12), min_size=1, max_size=2))]
    streams = answers(ops)
    for kind in draw(st.lists(KINDS, min_size=3, max_size=most)):
        least, greatest = (2, MERGING[kind]) if kind in MERGING else (1, 1)
        fitting = [i for i in reversed(range(len(ops))) if fits(kind, streams[i])]
        if len(fitting) < least:  # what is missing is a key, or an order, or another stream
            kind, least, greatest, fitting = "keyby", 1, 1, list(range(len(ops)))
        inputs = draw(st.lists(st.sampled_from(fitting), min_size=least, max_size=greatest, unique=True))
        alone = kind == "take" or (kind == "window" and not streams[inputs[0]].keyed)
        p = 1 if alone else draw(st.integers(1, 4))
        op = Op(kind, draw(st.integers(0, 5)), p, tuple(inputs), draw(st.booleans()))
        answer = _answer(op, [streams[one] for one in inputs])
        if len(answer.items) <= items:
            ops.append(op)
            streams.append(answer)
    return ops
