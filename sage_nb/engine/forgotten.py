"""Maps whose function lacks a `return`, as far as can be told: every item got None, and what follows got nothing."""

from __future__ import annotations

import dis
from collections import Counter
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any

from sage_nb.engine.task import Task
from sage_nb.pipeline.checks import FunctionSpec
from sage_nb.pipeline.graph import Operator
from sage_nb.pipeline.operators import AsyncSpec

__all__ = ["forgotten_returns"]


def forgotten_returns(operators: Iterable[Operator], tasks: Iterable[Task]) -> Iterator[str]:
    """What to say of each such map, once all tasks have ended by themselves."""
    went_in, came_out, failed = Counter[int](), Counter[int](), Counter[int]()
    for task in tasks:
        for id, counts in task.counts().items():
            went_in[id] += counts.items_in
            came_out[id] += counts.items_out
        for member, errors in zip(task.stage.members, task.errors, strict=False):
            if member.op is not None:
                failed[member.op.id] += errors
    read = {id for op in operators for id in op.inputs}
    for op in operators:
        nothing = went_in[op.id] and not came_out[op.id] and not failed[op.id]
        if op.kind in ("map", "async") and op.id in read and nothing and not _chooses(op.spec):
            each = f"each of its {went_in[op.id]:,} items" if went_in[op.id] > 1 else "its only item"
            yield f"map {op.name!r} returned None for {each}, so nothing came out; did it forget to return?"


def _chooses(spec: FunctionSpec | AsyncSpec) -> bool:
    """Whether the function returns a value in some cases and None in others, as one that drops items on purpose."""
    function = spec.function if isinstance(spec, AsyncSpec) else spec
    target: Any = getattr(function.target, "execute", None) if function.is_class else function.target
    code = getattr(getattr(target, "__func__", target), "__code__", None)
    return isinstance(code, CodeType) and _returns(code) == {True, False}


def _returns(code: CodeType) -> set[bool]:
    """Whether there are returns of None, and of something else."""
    found, before = set[bool](), None
    for at in dis.get_instructions(code):
        if at.opname == "RETURN_CONST":
            found.add(at.argval is None)
        elif at.opname == "RETURN_VALUE":
            is_none = before is not None and before.opname == "LOAD_CONST" and before.argval is None
            found |= {is_none, False} if at.is_jump_target else {is_none}
        before = at
    return found
