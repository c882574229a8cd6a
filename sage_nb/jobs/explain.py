"""What `env.explain()` gives: the plan in words, and a snapshot for its picture.

An `Explanation` is plain data, made from a plan and holding nothing of it. As text it is a list of stages, each with
where it runs, why it is one of its own, where its items come from, and what it does:

    flights: 5 operators in 2 stages, 5 tasks

    Stage 1 · a thread
      flights.csv (source) → parse (map) → carrier (keyby)

    Stage 2 · 4 threads · cut: 4 instances by key 'carrier'
      ← stage 1, by the hash of the key
      mean delay (reduce) → delays.csv (sink)

    A stage runs as one loop. Between stages, items wait in bounded channels.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sage_nb.jobs.snapshot import JobSnapshot

__all__ = ["Explanation", "StageLine"]

_WIDTH = 80
_DEEPEST = 24
_HOW = {
    "forward": "",
    "hash": "by the hash of the key",
    "round robin": "in turn",
    "rebalance": "to whichever instance has the least to do",
    "broadcast": "every item to every instance",
    "gather": "from all instances",
    "ordered": "shared out, and put in order again",
    "feedback": "round the loop",
}


@dataclass(frozen=True, slots=True)
class StageLine:
    """One stage of a plan, as data. `operators` and `kinds` go together."""

    number: int
    operators: tuple[str, ...]
    kinds: tuple[str, ...]
    parallelism: int = 1
    runs_in: str = "thread"
    """`thread`, `process`, `actor` or `event loop`."""
    inputs: tuple[tuple[int, str], ...] = ()
    """Number of the stage that items come from, and how: `forward`, `hash`, `round robin`, `rebalance`, `broadcast`,
    `gather`, `ordered` or `feedback`."""
    why: str = ""
    """Why it is a stage of its own: `4 instances`, `a process`. Empty for a source's."""


@dataclass(frozen=True, slots=True, repr=False)
class Explanation:
    """How a pipeline would run. `print` it, or let a notebook show it with its picture."""

    name: str
    stages: tuple[StageLine, ...]
    snapshot: JobSnapshot
    """The operators with their places and stages, for the picture."""

    def __str__(self) -> str:
        parts = [self._summary(), *("\n".join(self._stage(stage)) for stage in self.stages)]
        if len(self.stages) > 1:
            parts.append("A stage runs as one loop. Between stages, items wait in bounded channels.")
        return "\n\n".join(parts)

    __repr__ = __str__

    def _summary(self) -> str:
        operators = sum(len(stage.operators) for stage in self.stages)
        tasks = sum(stage.parallelism for stage in self.stages)
        counts = f"{_named(operators, 'operator')} in {_named(len(self.stages), 'stage')}, {_named(tasks, 'task')}"
        return "\n".join(_wrapped([f"{_plain(self.name)}:", *counts.split(" ")], " ", ""))

    def _stage(self, stage: StageLine) -> Iterator[str]:
        facts = [f"Stage {stage.number}", _runs_in(stage), *([f"cut: {_plain(stage.why)}"] if stage.why else [])]
        yield from _wrapped(facts, " · ", "", later="    ")
        for number, how in stage.inputs:
            how = how.replace("_", " ")
            said = _HOW.get(how, how)
            yield f"  ← stage {number}" + (f", {said}" if said else "")
        yield from _flow(stage, self._parents(stage))

    def _parents(self, stage: StageLine) -> dict[str, str | None]:
        """For each operator of a stage, the one in the same stage that it gets its items from."""
        known = {op.id: op for op in self.snapshot.operators}
        upstream = {op.name: [known[up].name for up in op.upstream if up in known] for op in known.values()}
        found: dict[str, str | None] = {}
        before: str | None = None
        for name in stage.operators:
            found[name] = next((up for up in upstream[name] if up in found), None) if name in upstream else before
            before = name
        return found


def _runs_in(stage: StageLine) -> str:
    if stage.parallelism == 1:
        return f"an {stage.runs_in}" if stage.runs_in[:1] in "ea" else f"a {stage.runs_in}"
    return f"{stage.parallelism:,} {stage.runs_in}{'es' if stage.runs_in.endswith('s') else 's'}"


def _flow(stage: StageLine, parents: dict[str, str | None]) -> Iterator[str]:
    """A line for each chain of operators; where a stream has several consumers, theirs are indented below it."""
    kinds = dict(zip(stage.operators, stage.kinds, strict=True))
    children: dict[str | None, list[str]] = {}
    for name, parent in parents.items():
        children.setdefault(parent, []).append(name)
    pending = [(name, "  ") for name in reversed(children.get(None, []))]
    while pending:
        name, indent = pending.pop()
        chain = [name]
        while len(children.get(chain[-1], [])) == 1:
            chain += children[chain[-1]]
        labels = [_label(one, kinds[one]) for one in chain]
        yield from _wrapped(labels, " → ", indent, later=" " * len(indent) + "  ")
        inner = " " * min(max(len(indent), 4), _DEEPEST) + "→ "
        pending.extend((child, inner) for child in reversed(children.get(chain[-1], [])))


def _label(name: str, kind: str) -> str:
    """`parse (map)`; a name that says the kind is enough."""
    return (
        _plain(name)
        if re.fullmatch(rf"{re.escape(kind)}(_\d+)?", name)
        else f"{_plain(name)} ({kind.replace('_', ' ')})"
    )


def _plain(text: str) -> str:
    return "".join(ch if ch.isprintable() else "\N{REPLACEMENT CHARACTER}" for ch in " ".join(text.split()))


def _named(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _wrapped(parts: Iterable[str], joint: str, indent: str, later: str = "  ") -> Iterator[str]:
    """`parts` with `joint` between them, in lines of at most 80 columns; a part that is longer is cut."""
    room = _WIDTH - len(joint.rstrip())
    first, *rest = (_cut(part, room - max(len(indent), len(later))) for part in parts)
    line = indent + first
    for part in rest:
        if _columns(line + joint + part) > room:
            yield line + joint.rstrip()
            line = later + part
        else:
            line += joint + part
    yield line


def _cut(text: str, width: int) -> str:
    if _columns(text) <= width:
        return text
    while _columns(text) > width - 1:
        text = text[:-1]
    return text.rstrip() + "…"


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(ch) in "WF" else 1 for ch in text)
