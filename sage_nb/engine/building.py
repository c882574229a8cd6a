"""What each node of a loop calls: made of what the user gave, on the task's own thread."""

from __future__ import annotations

import builtins
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from sage_nb.engine.batches import Batcher, rows
from sage_nb.engine.joins import IntervalJoin
from sage_nb.engine.loops import Node, gather
from sage_nb.engine.nodes import function_of
from sage_nb.engine.results import Latest, Result
from sage_nb.engine.windows import Windows, make_windows
from sage_nb.pipeline.checks import FunctionSpec
from sage_nb.pipeline.context import Context
from sage_nb.pipeline.functions import FlatMapFunction
from sage_nb.pipeline.graph import Operator
from sage_nb.pipeline.operators import RESULTS, VALUED

__all__ = ["Built", "Host", "build"]


class Host(Protocol):
    """The task, as far as its functions need it."""

    def make(self, op: Operator, cls: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        """An instance of a function class, with its context, opened."""

    def context(self, op: Operator) -> Context:
        """A context for a function that is no class."""

    def result(self, name: str) -> Result:
        """What keeps items as a result."""

    def emit(self, index: int, items: Any) -> None:
        """Let items come out of a node."""

    def caught(self, index: int, item: Any, exc: Exception) -> None:
        """An item failed, and the operator's policy takes it."""

    def policy(self, op: Operator) -> str:
        """What becomes of items on which the operator fails."""

    def origins(self) -> int:
        """How many lanes lead to the task; 1 for a source."""

    def ranks(self) -> tuple[int, int]:
        """How many lanes lead to each of the two inputs of a join."""

    def late_at(self, index: int) -> int | None:
        """The node that takes the late items of a window."""


@dataclass(slots=True)
class Built:
    """One node: what it calls, what else it has, and where the key at hand goes. `finish()` gives what is left at the
    end of the stream."""

    function: Any = None
    other: Any = None
    context: Context | None = None
    finish: Callable[[], Any] | None = None


def build(host: Host, index: int, op: Operator, node: Node, above: Node) -> Built:
    """What node `index` needs, which runs `op` behind `above`."""
    kind = op.kind
    if kind == "take":
        return Built(other=float(op.spec))
    if kind == "print":
        return Built(partial(builtins.print, op.spec) if op.spec else builtins.print)
    if kind in RESULTS:
        result = host.result(op.spec.name)
        return Built(other=result.newest) if isinstance(result, Latest) else Built(result.append)
    if kind in ("future", "late"):
        return Built()
    if kind == "window":
        return _window(host, index, op, node)
    if kind == "interval_join":
        join = IntervalJoin(op.spec, host.ranks())
        return Built(join.execute, join)
    if kind == "batches":
        return _batches(host, index, op, node, above)
    if kind in ("reduce", "count", *VALUED):
        return _fold(host, op)
    return _function(host, op)


def _function(host: Host, op: Operator) -> Built:
    spec = function_of(op)
    assert spec is not None
    if op.kind == "process" and op.spec.with_context:
        ctx = host.context(op)
        ctx.states = _states(op)
        target = spec.target
        return Built(lambda item: target(item, ctx), None, ctx)
    if not spec.is_class:
        return Built(spec.target, None, host.context(op) if op.kind == "process" else None)
    instance = host.make(op, spec.target, spec.args, spec.kw or {})
    context = _context_of(instance, host, op)
    if op.kind == "process":
        context.states = _states(op)
    if op.kind == "comap":
        return Built(tuple(getattr(instance, f"map{n}") for n in range(len(op.inputs))), None, context)
    if op.kind in ("flatmap", "process", "join") and isinstance(instance, FlatMapFunction):
        return Built(gather(instance), None, context)
    return Built(instance.execute, None, context)


def _context_of(instance: Any, host: Host, op: Operator) -> Context:
    found = getattr(instance, "ctx", None)
    return found if isinstance(found, Context) else host.context(op)


def _call(host: Host, op: Operator, spec: FunctionSpec) -> Any:
    return host.make(op, spec.target, spec.args, spec.kw or {}).execute if spec.is_class else spec.target


def _fold(host: Host, op: Operator) -> Built:
    spec = op.spec.function
    state = _states(op)
    if spec is None or not spec.is_class:
        return Built(None if spec is None else spec.target, state)
    instance = host.make(op, spec.target, spec.args, spec.kw or {})
    return Built(instance.execute, state, _context_of(instance, host, op))


def _states(op: Operator) -> dict[Any, Any]:
    limit = op.spec.expire_after
    return {} if limit is None else _Expiring(limit)


class _Expiring(dict[Any, Any]):
    """Forgets a key that was not looked at or set for `limit` seconds. Keys are in the order of their last use."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self._limit = limit
        self._used: dict[Any, float] = {}

    def get(self, key: Any, default: Any = None) -> Any:
        now = time.monotonic()
        used = self._used
        while used:
            oldest = next(iter(used))
            if now - used[oldest] < self._limit:
                break
            del used[oldest]
            self.pop(oldest, None)
        used.pop(key, None)
        used[key] = now
        return super().get(key, default)


def _window(host: Host, index: int, op: Operator, node: Node) -> Built:
    taker = host.late_at(index)
    late = None if taker is None else lambda item: host.emit(taker, (item,))
    windows: Windows = make_windows(op.spec, origins=host.origins() if node.columns else 1, late=late)
    call = {"": windows.item, "o": windows.item_from, "wm": windows.item_at}[node.columns]
    return Built(call, windows, finish=windows.finish)


def _batches(host: Host, index: int, op: Operator, node: Node, above: Node) -> Built:
    spec = op.spec
    call = _call(host, op, spec.function)
    failed = partial(_refused, host, index) if host.policy(op) != "fail" else None
    batcher = Batcher(call, spec.size, spec.format, failed)
    add = batcher.chunk if above.chunks else batcher.item
    if node.chunks:
        return Built(add, batcher, finish=batcher.finish)
    return Built(lambda given: _rows(add(given)), batcher, finish=lambda: _rows(batcher.finish()))


def _rows(chunks: Any) -> Any:
    if not chunks:
        return ()
    return rows(chunks[0]) if len(chunks) == 1 else [item for chunk in chunks for item in rows(chunk)]


def _refused(host: Host, index: int, exc: Exception, batch: Any) -> None:
    """A batch on which the function fails is taken item by item by the operator's policy."""
    for item in rows(batch):
        host.caught(index, item, exc)
