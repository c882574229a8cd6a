"""From the logical graph to stages: what runs as one loop.

A stage is a source and everything behind it, numbered depth first, so that the loop visits operators in the
order of their numbers and a branch has no gaps.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from sage_nb.engine.loops import Loop, Node, generate
from sage_nb.errors import SubmitError
from sage_nb.pipeline.functions import FlatMapFunction
from sage_nb.pipeline.graph import Graph, Operator
from sage_nb.pipeline.sources import IterableSource

__all__ = ["SINKS", "Stage", "make_plan", "unsunk"]

_MAY_BE_TOO_DEEP = 15
SINKS = frozenset({"sink", "print", "collect", "show"})


@dataclass(frozen=True, slots=True)
class Stage:
    """Operators that run as one loop, the source first; `upstream[i]` is the position of what feeds `operators[i]`."""

    operators: tuple[Operator, ...]
    upstream: tuple[int, ...]

    @property
    def source(self) -> Operator:
        return self.operators[0]

    def loop(self, source_kind: str) -> Loop:
        """The generated loop; the kind of source is known only once it is open."""
        consumers: list[list[int]] = [[] for _ in self.operators]
        for i, up in enumerate(self.upstream):
            if up >= 0:
                consumers[up].append(i)
        kinds = [source_kind, *(_loop_kind(op) for op in self.operators[1:])]
        return generate(
            tuple(Node(k, u, tuple(c)) for k, u, c in zip(kinds, self.upstream, consumers, strict=True)),
        )


def _loop_kind(op: Operator) -> str:
    if op.kind in SINKS:
        return "sink"
    if op.kind == "flatmap":
        target = op.spec.target
        gathers = op.spec.is_class and issubclass(target, FlatMapFunction)
        generates = inspect.isgeneratorfunction(target.execute if op.spec.is_class else target)
        return "flatmap_each" if gathers or generates else "flatmap"
    return op.kind


def make_plan(graph: Graph, name: str) -> tuple[Stage, ...]:
    """One stage for each source. Raises `SubmitError` where there is nothing to run."""
    consumers = graph.consumers()
    stages: list[Stage] = []
    for source in graph.sources():
        operators: list[Operator] = []
        upstream: list[int] = []
        pending = [(source, -1)]
        while pending:
            op, up = pending.pop()
            position = len(operators)
            operators.append(op)
            upstream.append(up)
            pending.extend((consumer, position) for consumer in reversed(consumers[op.id]))
        stage = Stage(tuple(operators), tuple(upstream))
        if len(operators) > _MAY_BE_TOO_DEEP:
            stage.loop("iterate")  # raises now what would be raised when the job starts
        stages.append(stage)
    if not stages:
        raise SubmitError(
            f"{name!r} has no source: begin with env.from_batch(...), env.from_csv(...) or env.from_source(...)"
        )
    _refuse_shared_iterators(stages)
    return tuple(stages)


def _refuse_shared_iterators(stages: list[Stage]) -> None:
    owners: dict[int, Operator] = {}
    for stage in stages:
        spec = stage.source.spec[0]
        if isinstance(spec, IterableSource) and spec.once:
            other = owners.setdefault(id(spec.iterable), stage.source)
            if other is not stage.source:
                raise SubmitError(
                    f"sources {other.name!r} and {stage.source.name!r} share one iterator, so each would miss items; "
                    "use one source and give its stream two consumers"
                )


def unsunk(stages: tuple[Stage, ...]) -> list[str]:
    """Names of the sources behind which nothing takes the items."""
    return [stage.source.name for stage in stages if not any(op.kind in SINKS for op in stage.operators)]
