"""From the logical graph to stages: what runs as one loop, and where items change hands.

A stage is a head and a tree of operators behind it. The head is a source, or an inbox where a channel ends. Stages
are cut only where concurrency is asked for: where the number of instances or the executor changes, where a keyed
operator has several instances, where streams merge, before a coroutine function, and between a source, which may
block, and a window that fires by the clock. An edge joins two stages; `how` says which instance gets an item:

    forward      the one of the same number
    gather       there is only one
    rebalance    the next one in turn, or the one with the least to do
    hash, round_robin, broadcast    as the `keyby` before says
    ordered      any, and what comes out is put in order again
    feedback     as forward, gather or rebalance, round a loop: the one edge that may grow

The members of a stage are numbered depth first, so that the loop visits them in the order of their numbers and a
branch has no gaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from sage_nb.engine.nodes import nodes_of
from sage_nb.engine.stages import SINKS, Edge, Member, Plan, Stage, is_clocked, is_timed
from sage_nb.engine.writing import generate
from sage_nb.errors import SubmitError
from sage_nb.pipeline.graph import Graph, Operator
from sage_nb.pipeline.placement import RayOptions
from sage_nb.pipeline.requests import takes_requests
from sage_nb.pipeline.sources import IterableSource

__all__ = ["make_plan"]

_MAY_BE_TOO_DEEP = 15
_AT_HOME = frozenset({"print", "collect", "show"})
"""Operators whose effect is in the user's process, whatever the backend."""
_PLACES = {"threads": "thread", "processes": "process", "ray": "actor"}
_STATELESS = frozenset({"map", "filter", "flatmap", "sink"})


def make_plan(graph: Graph, name: str, backend: str = "threads") -> Plan:
    """Raises `SubmitError` where there is nothing to run, or a loop is left open."""
    if not any(True for _ in graph.sources()):
        raise SubmitError(
            f"{name!r} has no source: begin with env.from_batch(...), env.from_csv(...) or env.from_source(...)"
        )
    for op in graph.operators:
        if not op.inputs and op.kind == "future":
            raise SubmitError(f"the future {op.name!r} is open: close the loop with stream.fill_future(it)")
        if not op.inputs and op.kind == "late":
            raise SubmitError(f"{op.name!r} takes the late items of a window without count(), sum() or aggregate()")
    _refuse_shared_iterators(graph)
    if any(op.kind == "future" for op in graph.operators):
        _refuse_held_back(graph)
    plan = Plan(_Planner(graph, backend).stages(), backend)
    for stage in plan.stages:
        if len(stage.members) > _MAY_BE_TOO_DEEP:
            generate(nodes_of(stage, "iterate"))  # raises now what would be raised when the job starts
    return plan


def _refuse_held_back(graph: Graph) -> None:
    """In a loop, an operator that keeps items back until the end would wait for its own results."""
    consumers = graph.consumers()
    for op in graph.operators:
        if op.kind in ("window", "batches"):
            seen: set[int] = set()
            pending = list(consumers[op.id])
            while pending:
                one = pending.pop()
                if one.id not in seen:
                    seen.add(one.id)
                    pending.extend(consumers[one.id])
            if op.id in seen:
                what = "window" if op.kind == "window" else "map_batches"
                raise SubmitError(
                    f"{op.name!r} is a {what} inside a loop: what it keeps back would never come out; "
                    "put it behind the loop"
                )


def _refuse_shared_iterators(graph: Graph) -> None:
    owners: dict[int, Operator] = {}
    for source in graph.sources():
        spec = source.spec[0]
        if isinstance(spec, IterableSource) and spec.once:
            other = owners.setdefault(id(spec.iterable), source)
            if other is not source:
                raise SubmitError(
                    f"sources {other.name!r} and {source.name!r} share one iterator, so each would miss items; "
                    "use one source and give its stream two consumers"
                )


def _in_order(operators: list[Operator]) -> Iterator[Operator]:
    """Each operator behind its inputs: late items may be declared before their window is."""
    waiting = {op.id: op for op in operators}
    while waiting:
        for op in list(waiting.values()):
            if op.kind == "future" or not any(one in waiting for one in op.inputs):
                del waiting[op.id]
                yield op


@dataclass(slots=True, eq=False)
class _Draft:
    """A stage in the making. `feeds` gives each member's consumers, by position in `members`."""

    number: int
    head: str
    parallelism: int
    place: str
    why: str
    members: list[Member] = field(default_factory=list)
    inputs: list[Edge] = field(default_factory=list)
    clocked: bool = False
    pool: bool = False
    ray: RayOptions | None = None

    def add(self, op: Operator | None, edge: Edge | None, upstream: int, keyed: bool) -> int:
        self.members.append(Member(op, edge, upstream, keyed))
        return len(self.members) - 1

    def finished(self) -> Stage:
        """With the members depth first."""
        below: list[list[int]] = [[] for _ in self.members]
        for i, member in enumerate(self.members):
            if member.upstream >= 0:
                below[member.upstream].append(i)
        ordered: list[Member] = []
        pending = [(0, -1)]
        while pending:
            i, upstream = pending.pop()
            old = self.members[i]
            ordered.append(Member(old.op, old.edge, upstream, old.keyed))
            pending.extend((child, len(ordered) - 1) for child in reversed(below[i]))
        operators = tuple(member.op for member in ordered if member.op is not None)
        return Stage(
            *(self.number, self.head, self.parallelism, self.place),
            *(tuple(ordered), operators, tuple(self.inputs), self.why),
            self.ray,
        )


class _At(NamedTuple):
    """Where an operator's items come out. `partition` is the `keyby` that decided on the instance, if one did."""

    stage: _Draft
    position: int
    partition: int | None


class _Planner:
    def __init__(self, graph: Graph, backend: str) -> None:
        self._graph = graph
        self._consumers = graph.consumers()
        self._backend = backend
        self._drafts: list[_Draft] = []
        self._edges = 0
        self._at: dict[int, _At] = {}
        self._keys: dict[int, Operator | None] = {}
        self._shared: dict[object, _Draft] = {}

    def stages(self) -> tuple[Stage, ...]:
        loops: list[Operator] = []
        for op in _in_order(self._graph.operators):
            self._keys[op.id] = None if op.kind in ("source", "future") else self._graph.keyed_by(op)
            if op.kind == "source":
                self._source(op)
            elif op.kind == "future":
                self._future(op)
                loops.append(op)
            elif op.id not in self._at:
                self._place(op)
        for op in loops:
            self._close(op)
        return tuple(draft.finished() for draft in self._drafts)

    # One operator

    def _source(self, op: Operator) -> None:
        spec, count = op.spec[0], op.settings.parallelism or 1
        shippable = not (isinstance(spec, IterableSource) and spec.once) and not takes_requests(op)
        stage = self._draft("source", count, self._where(op) if shippable else "thread", "")
        stage.ray = op.settings.ray
        self._at[op.id] = _At(stage, stage.add(op, None, -1, False), None)

    def _future(self, op: Operator) -> None:
        stage = self._draft("inbox", 1, "thread", "loop")
        head = stage.add(None, None, -1, False)
        self._at[op.id] = _At(stage, stage.add(op, None, head, False), None)

    def _close(self, op: Operator) -> None:
        here = self._at[op.id]
        for tag, one in enumerate(op.inputs):
            there = self._at[one]
            how = "forward" if there.stage.parallelism == 1 else "gather"
            self._join(there, here.stage, tag, how, False, feedback=True)

    def _place(self, op: Operator) -> None:
        if op.kind == "late" or self._fuses(op):
            above = self._at[op.inputs[0]]
            keyed = self._keys[op.inputs[0]] is not None and op.kind != "late"
            position = above.stage.add(op, None, above.position, keyed)
            self._at[op.id] = _At(above.stage, position, above.partition)
            above.stage.clocked |= is_clocked(op)
            return
        self._cut(op)

    def _fuses(self, op: Operator) -> bool:
        if len(op.inputs) > 1 or op.kind == "async":
            return False
        above = self._at[op.inputs[0]]
        stage, count = above.stage, self._count(op)
        if stage.parallelism != count or stage.place != self._where(op):
            return False
        if stage.place == "actor" and op.settings.ray not in (None, stage.ray):
            return False
        if is_timed(op) and count > 1:
            return False
        if is_clocked(op) and stage.head != "inbox":
            return False
        if self._is_pool(op):
            return False
        key = self._keys[op.inputs[0]]
        return count == 1 or op.kind == "keyby" or key is None or above.partition == key.id

    def _cut(self, op: Operator) -> None:
        count, place, pool = self._count(op), self._where(op), self._is_pool(op)
        routes = [self._route(one, op, count, pool) for one in op.inputs]
        special = len(op.inputs) > 1 or op.kind == "async" or pool or is_timed(op) or is_clocked(op)
        shared = (op.inputs, count, place, tuple(routes), repr(op.settings.ray))
        stage = None if special else self._shared.get(shared)
        keyed = all(self._keys[one] is not None for one in op.inputs)
        if stage is None:
            head = "async" if op.kind == "async" else "inbox"
            stage = self._draft(head, count, place, self._why(op, routes, count, place))
            stage.add(None, None, -1, keyed)
            stage.clocked, stage.pool, stage.ray = is_clocked(op), pool, op.settings.ray
            stamps = op if is_timed(op) and count > 1 else None
            for tag, (one, how) in enumerate(zip(op.inputs, routes, strict=True)):
                above = self._shared_out(self._at[one]) if pool else self._at[one]
                self._join(above, stage, tag, how, self._keys[one] is not None, stamps=stamps)
            if not special:
                self._shared[shared] = stage
        partition = self._keys[op.inputs[0]]
        at = _At(stage, stage.add(op, None, 0, keyed), partition.id if partition and keyed and count > 1 else None)
        self._at[op.id] = self._pool(op, at) if pool else at

    def _shared_out(self, above: _At) -> _At:
        """Where the items of a pool come from: they are shared out in the kernel, where their order is known."""
        if above.stage.place == "thread":
            return above
        relay = self._draft("inbox", 1, "thread", "shares out what comes")
        relay.add(None, None, -1, False)
        self._join(above, relay, 0, "forward", False)
        return _At(relay, 0, None)

    def _pool(self, op: Operator, at: _At) -> _At:
        """Go on in the same processes while what follows asks for the same; then put the results in order."""
        count = self._count(op)
        while len(self._consumers[op.id]) == 1:
            below = self._consumers[op.id][0]
            self._at[op.id] = at
            self._keys[below.id] = None
            if (
                not self._is_pool(below)
                or self._count(below) != count
                or below.settings.ray not in (None, at.stage.ray)
            ):
                break
            op, at = below, _At(at.stage, at.stage.add(below, None, at.position, False), None)
        if op.kind not in SINKS:
            stage = self._draft("ordered", 1, "thread", "puts results in order")
            head = stage.add(None, None, -1, False)
            self._join(at, stage, 0, "gather", False)
            at = _At(stage, head, None)
        self._at[op.id] = at
        return at

    def _join(
        self,
        above: _At,
        stage: _Draft,
        tag: int,
        how: str,
        keyed: bool,
        *,
        feedback: bool = False,
        stamps: Operator | None = None,
    ) -> None:
        edge = Edge(self._edges, above.stage.number, stage.number, tag, how, feedback, keyed, stamps)
        self._edges += 1
        above.stage.add(None, edge, above.position, keyed)
        stage.inputs.append(edge)

    # What an operator asks for

    def _draft(self, head: str, parallelism: int, place: str, why: str) -> _Draft:
        self._drafts.append(_Draft(len(self._drafts), head, parallelism, place, why))
        return self._drafts[-1]

    def _count(self, op: Operator) -> int:
        if op.settings.parallelism is not None:
            return op.settings.parallelism
        return max(self._at[one].stage.parallelism for one in op.inputs)

    def _where(self, op: Operator) -> str:
        if op.kind in _AT_HOME:
            return "thread"
        if op.settings.executor is None:
            if op.kind in ("keyby", "take") and len(op.inputs) == 1:
                return self._at[op.inputs[0]].stage.place
            return _PLACES[self._backend]
        return "actor" if op.settings.executor == "process" and self._backend == "ray" else op.settings.executor

    def _is_pool(self, op: Operator) -> bool:
        """Whether this runs in several processes that share the items of one stream and keep their order."""
        if op.settings.executor != "process" or op.kind not in _STATELESS or len(op.inputs) > 1:
            return False
        alone = self._at[op.inputs[0]].stage.parallelism == 1 or self._at[op.inputs[0]].stage.pool
        return alone and self._count(op) > 1 and self._keys[op.inputs[0]] is None

    def _route(self, one: int, op: Operator, count: int, pool: bool) -> str:
        above, key = self._at[one], self._keys[one]
        if count == 1:
            return "forward" if above.stage.parallelism == 1 else "gather"
        if pool:
            return "ordered"
        if key is not None and op.kind != "keyby":
            same = above.partition == key.id and above.stage.parallelism == count and not is_timed(op)
            return "forward" if same else str(key.spec.strategy)
        return "forward" if above.stage.parallelism == count else "rebalance"

    def _why(self, op: Operator, routes: list[str], count: int, place: str) -> str:
        reasons: list[str] = []
        if len(op.inputs) > 1:
            reasons.append(f"merges {len(op.inputs)} streams")
        if op.kind == "async":
            reasons.append("event loop")
        if "hash" in routes:
            key = self._keys[op.inputs[0]]
            reasons.append(f"{count} instances by key {key.name!r}" if key is not None else f"{count} instances")
        elif count > 1:
            reasons.append(f"{count} instances")
        if place == "process":
            reasons.append("processes" if count > 1 else "a process")
        elif place == "actor" and (count == 1 or op.settings.ray is not None):
            reasons.append("asks for other resources" if op.settings.ray is not None else "an actor")
        if is_clocked(op):
            reasons.append("fires by the clock")
        if not reasons and "gather" in routes:
            reasons.append("back to one instance")
        return ", ".join(reasons) or "back in the kernel"
