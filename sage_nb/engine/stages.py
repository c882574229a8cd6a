"""What a plan is made of: stages, their members, and the edges between them. See `plan`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from sage_nb.pipeline.graph import Operator
from sage_nb.pipeline.placement import RayOptions

__all__ = ["SINKS", "Edge", "Member", "Plan", "Stage", "circles", "is_clocked", "is_pool", "is_timed"]

SINKS = frozenset({"sink", "print", "collect", "show"})


@dataclass(frozen=True, slots=True)
class Edge:
    """From one stage to another. `tag` is the number of the input of the operator that it leads to."""

    number: int
    upstream: int
    downstream: int
    tag: int
    how: str
    feedback: bool = False
    keyed: bool = False
    stamps: Operator | None = None
    """The event-time window whose watermarks the sender works out, for all instances alike."""


class Member(NamedTuple):
    """One place in a stage: an operator, an edge that leads out, or the head of an inbox (neither).

    `upstream` is the position of what feeds it, -1 for the head. `keyed` says that the items come with a key.
    """

    op: Operator | None
    edge: Edge | None
    upstream: int
    keyed: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs as one loop, in `parallelism` instances. `place` is `thread`, `process` or `actor`.

    `head` is `source`, `inbox`, `async` (a coroutine function behind an inbox) or `ordered` (an inbox that puts what
    comes from several processes in order).
    """

    number: int
    head: str
    parallelism: int
    place: str
    members: tuple[Member, ...]
    operators: tuple[Operator, ...]
    """Those of the members."""
    inputs: tuple[Edge, ...]
    why: str
    """Why the stage is one of its own, for people; empty for a source's."""
    ray: RayOptions | None = None
    """What each of its actors asks for."""

    @property
    def name(self) -> str:
        """The first operator's name."""
        return self.operators[0].name if self.operators else f"merge {self.number}"

    @property
    def outputs(self) -> tuple[Edge, ...]:
        return tuple(member.edge for member in self.members if member.edge is not None)


@dataclass(frozen=True, slots=True)
class Plan:
    """All stages, each before those that it feeds."""

    stages: tuple[Stage, ...]
    backend: str = "threads"

    def actors(self) -> list[Stage]:
        """Those that run in actors on a Ray cluster."""
        return [stage for stage in self.stages if stage.place == "actor"]

    def unsunk(self) -> list[str]:
        """Names of the sources behind which nothing takes the items."""
        by_number = {stage.number: stage for stage in self.stages}
        found: list[str] = []
        for stage in self.stages:
            if stage.head == "source":
                seen: set[int] = set()
                if not any(op.kind in SINKS for op in _behind(stage, by_number, seen)):
                    found.append(stage.name)
        return found


def _behind(stage: Stage, stages: dict[int, Stage], seen: set[int]) -> Iterator[Operator]:
    pending = [stage]
    while pending:
        one = pending.pop()
        if one.number not in seen:
            seen.add(one.number)
            yield from one.operators
            pending.extend(stages[edge.downstream] for edge in one.outputs)


def circles(plan: Plan) -> list[list[int]]:
    """The stages of each loop, by number: those that lead to each other."""
    below = {stage.number: [edge.downstream for edge in stage.outputs] for stage in plan.stages}
    reach: dict[int, set[int]] = {}
    for number in below:
        seen: set[int] = set()
        pending = list(below[number])
        while pending:
            one = pending.pop()
            if one not in seen:
                seen.add(one)
                pending.extend(below[one])
        reach[number] = seen
    found: list[list[int]] = []
    for number in below:
        if number in reach[number] and not any(number in one for one in found):
            found.append([other for other in below if other in reach[number] and number in reach[other]])
    return found


def is_pool(stage: Stage) -> bool:
    """Whether the stage's instances share the items of one stream, whose order is kept."""
    return any(edge.how == "ordered" for edge in stage.inputs)


def is_timed(op: Operator) -> bool:
    """Whether this is a window in event time."""
    return op.kind == "window" and op.spec.event_time is not None


def is_clocked(op: Operator) -> bool:
    """Whether this is a window in processing time, which fires while its input is silent."""
    return op.kind == "window" and op.spec.event_time is None
