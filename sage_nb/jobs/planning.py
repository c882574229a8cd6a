"""From a plan to the `Explanation` that `env.explain()` returns."""

from __future__ import annotations

from sage_nb.engine.failure import describe_site, safe_text
from sage_nb.engine.stages import Plan, Stage
from sage_nb.jobs.explain import Explanation, StageLine
from sage_nb.jobs.layout import places
from sage_nb.jobs.snapshot import JobSnapshot, OperatorView
from sage_nb.pipeline.graph import Graph

__all__ = ["explanation", "picture"]


def explanation(name: str, graph: Graph, plan: Plan, backend: str) -> Explanation:
    """What would run, as text and as a picture."""
    return Explanation(name, tuple(map(_line, plan.stages)), picture(name, graph, plan, backend))


def _line(stage: Stage) -> StageLine:
    return StageLine(
        stage.number + 1,
        tuple(safe_text(op.name, 200) for op in stage.operators),
        tuple(op.kind for op in stage.operators),
        stage.parallelism,
        "event loop" if stage.head == "async" and stage.place == "thread" else stage.place,
        tuple((edge.upstream + 1, "feedback" if edge.feedback else edge.how) for edge in stage.inputs),
        stage.why,
    )


def picture(name: str, graph: Graph, plan: Plan, backend: str, *, uuid: str = "") -> JobSnapshot:
    """A description of what has not begun."""
    at = places([(op.id, op.inputs, op.kind) for op in graph.operators])
    stages = {op.id: stage for stage in plan.stages for op in stage.operators}
    return JobSnapshot(
        uuid=uuid,
        name=safe_text(name, 200),
        status="created",
        backend=backend,
        operators=tuple(
            OperatorView(
                id=op.id,
                name=safe_text(op.name, 200),
                kind=op.kind,
                col=at[op.id][0],
                row=at[op.id][1],
                upstream=op.inputs,
                stage=stages[op.id].number + 1,
                parallelism=stages[op.id].parallelism,
                executor=stages[op.id].place,  # type: ignore[arg-type]
                where=describe_site(op.site) if op.site else None,
            )
            for op in graph.operators
        ),
    )
