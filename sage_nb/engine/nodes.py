"""A stage as the loop's generator sees it: the kind of each node, and what its function is given."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from sage_nb.engine.loops import Node
from sage_nb.engine.stages import SINKS, Edge, Member, Stage, is_pool, is_timed
from sage_nb.pipeline.checks import FunctionSpec
from sage_nb.pipeline.fields import Field
from sage_nb.pipeline.functions import FlatMapFunction
from sage_nb.pipeline.graph import Operator
from sage_nb.pipeline.operators import RESULTS, VALUED, ProcessSpec

__all__ = ["emits_many", "function_of", "nodes_of"]


def nodes_of(stage: Stage, source_kind: str, on_error: str = "fail") -> tuple[Node, ...]:
    """The stage as the loop's generator sees it; the kind of a source is known only once it is open."""
    consumers: list[list[int]] = [[] for _ in stage.members]
    for i, member in enumerate(stage.members):
        if member.upstream >= 0:
            consumers[member.upstream].append(i)
    nodes = [_node(stage, i, source_kind, tuple(consumers[i]), on_error) for i in range(len(stage.members))]
    return tuple(_with_chunks(nodes))


def _node(stage: Stage, i: int, source_kind: str, consumers: tuple[int, ...], on_error: str) -> Node:
    member = stage.members[i]
    op, edge, up = member.op, member.edge, member.upstream
    if edge is not None:
        return _way_out(stage, member, edge, _is_direct(stage, i))
    if i == 0:
        if op is not None:
            return Node(source_kind, -1, consumers)
        if stage.head == "async":
            return Node("driven", -1, consumers)
        return Node("inbox", -1, consumers, columns=_columns(stage))
    assert op is not None
    spec = function_of(op)
    policy = op.settings.on_error or on_error
    return Node(
        *(_kind(op), up, consumers),
        columns=_given(stage, op, _is_direct(stage, i)),
        sets_key=member.keyed and _wants_key(op, spec),
        catches=policy != "fail" and op.kind in _CATCHING,
        emits=_emits(member, op),
        field=spec.target.field if spec is not None and isinstance(spec.target, Field) else None,
    )


def _wants_key(op: Operator, spec: Any) -> bool:
    """Whether its context is to know the key at hand; a batch has none."""
    return op.kind == "process" or (spec is not None and spec.is_class and op.kind != "batches")


_CATCHING = frozenset({"map", "filter", "flatmap", "comap", "join", "keyby", "reduce", *VALUED, "process", "sink"})
_TAGGED = frozenset({"comap", "join", "interval_join"})


def _way_out(stage: Stage, member: Member, edge: Edge, direct: bool) -> Node:
    columns = "k" if edge.keyed or edge.stamps is not None else ""
    if edge.stamps is not None and direct:
        columns = "ko"
    if is_pool(stage):
        columns += "s"
    single = edge.how in ("forward", "gather") and not columns
    return Node("append" if single else "send", member.upstream, columns=columns)


def _columns(stage: Stage) -> str:
    """What comes with the items of the stage's inbox."""
    if stage.head == "ordered":
        return ""
    columns = "k" if stage.members[0].keyed else ""
    if any(op.kind in _TAGGED for op in stage.operators):
        columns += "t"
    if any(op.kind == "interval_join" for op in stage.operators):
        columns += "r"
    stamped = stage.inputs[0].stamps if stage.inputs else None
    if stamped is not None:
        columns += "wm"
    if any(is_timed(op) and op is not stamped for op in stage.operators) or any(
        edge.stamps is not None for edge in stage.outputs
    ):
        columns += "o"
    return columns + ("s" if is_pool(stage) else "")


def _is_direct(stage: Stage, i: int) -> bool:
    """Whether what comes to member `i` comes straight from the stage's input, and not at a time of its own."""
    i = stage.members[i].upstream
    while i >= 0:
        op = stage.members[i].op
        if op is not None and op.kind in ("window", "batches", "async", "late"):
            return False
        i = stage.members[i].upstream
    return stage.head == "inbox"


def _given(stage: Stage, op: Operator, direct: bool) -> str:
    """What the operator's function is given beside the item."""
    if op.kind in ("join", "interval_join"):
        return "kt" if op.kind == "join" else "ktr"
    if op.kind in VALUED:
        return "v" if op.spec.function is not None else ""
    if not is_timed(op):
        return ""
    if any(edge.stamps is op for edge in stage.inputs):
        return "wm"
    return "o" if direct else ""


def _kind(op: Operator) -> str:
    if op.kind in SINKS:
        return "latest" if op.kind in RESULTS and op.spec.latest else "sink"
    if op.kind == "flatmap":
        return "flatmap_each" if _gathers(op.spec) or _generates(op.spec) else "flatmap"
    if op.kind == "process":
        return "flatmap_each" if emits_many(op) else "map"
    return _KINDS.get(op.kind, op.kind)


_KINDS = {
    "future": "pass",
    "join": "flatmap",
    "interval_join": "flatmap",
    "window": "results",
    "batches": "results",
    "async": "emitter",
}


def _emits(member: Member, op: Operator) -> str:
    if op.kind == "window":
        return "windows"
    if op.kind == "async" and member.keyed:
        return "keyed"
    return "items" if op.kind in ("batches", "late", "async") else ""


def _with_chunks(nodes: list[Node]) -> Iterator[Node]:
    """Mark what hands on whole chunks: a source of such, or a `batches`, behind which there are only `batches`."""
    batches = {i for i, node in enumerate(nodes) if node.kind == "results" and node.emits == "items"}
    for i, node in enumerate(nodes):
        only = bool(node.consumers) and all(consumer in batches for consumer in node.consumers)
        yield node._replace(chunks=True) if node.kind == "chunks" or (i in batches and only) else node


def function_of(op: Operator) -> FunctionSpec | None:
    """The function that an operator calls with each item, if it has one."""
    spec = op.spec
    if isinstance(spec, FunctionSpec):
        return spec
    found = getattr(spec, "function", None)
    return found if isinstance(found, FunctionSpec) else None


def emits_many(op: Operator) -> bool:
    """Whether a `process` gives any number of items for one, as a flatmap does."""
    spec: ProcessSpec = op.spec
    return _generates(spec.function) or _gathers(spec.function)


def _gathers(spec: FunctionSpec) -> bool:
    return spec.is_class and isinstance(spec.target, type) and issubclass(spec.target, FlatMapFunction)


def _generates(spec: FunctionSpec) -> bool:
    target: Any = spec.target
    return inspect.isgeneratorfunction(target.execute if spec.is_class else target)
