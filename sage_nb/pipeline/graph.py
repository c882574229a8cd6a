"""The logical graph: operators, in the order in which they were declared, each with its inputs.

A graph is a list of frozen records. It names what runs, not how; the engine makes a plan of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sage_nb.errors import DuplicateNameError, PipelineError
from sage_nb.pipeline.placement import RayOptions

__all__ = ["Graph", "Operator", "ServiceSpec", "Settings", "Site", "call_site"]

_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep


@dataclass(frozen=True, slots=True)
class Site:
    """A line of the user's code."""

    filename: str
    lineno: int


def call_site() -> Site | None:
    """The innermost line outside this package that led here."""
    frame = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return Site(frame.f_code.co_filename, frame.f_lineno)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator's reserved keywords say about how it runs."""

    parallelism: int | None = 1
    """Number of instances; None for as many as the operator before has."""
    executor: str | None = None
    """`thread` or `process`; None for what the backend does."""
    on_error: str | None = None
    """`fail`, `skip` or `dead_letter`; None for what the job was submitted with."""
    ray: RayOptions | None = None
    """What it asks of a Ray cluster, where it runs on one."""


@dataclass(frozen=True, slots=True)
class Operator:
    """One node. `inputs` are the ids of the operators whose items it gets: none for a source, several where streams
    merge. `spec` is what the user gave: a function, a source, or the kind's own settings.

    Kinds: `source`, `future` (a feedback edge's head; its input comes later), `late` (a window's late items), `map`,
    `filter`, `flatmap`, `async`, `batches`, `take`, `keyby`, `reduce`, `count`, `sum`, `min`, `max`, `mean`, `process`,
    `window`, `comap`, `join`, `interval_join`, `sink`, `print`, `collect`, `show`.
    """

    id: int
    name: str
    kind: str
    inputs: tuple[int, ...]
    spec: Any
    site: Site | None
    settings: Settings = Settings()


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """How to make one service: `make(*args, **kw)`, or `__new__` and `__init__` of a class apart."""

    name: str
    make: Callable[..., Any]
    args: tuple[Any, ...]
    kw: dict[str, Any]
    site: Site | None
    remote: bool = False
    """Whether it is an actor on a Ray cluster."""
    ray: RayOptions | None = None

    @property
    def type_name(self) -> str:
        return getattr(self.make, "__name__", type(self.make).__name__)


@dataclass(slots=True)
class Graph:
    """The operators and services of one environment."""

    operators: list[Operator] = field(default_factory=list)
    services: dict[str, ServiceSpec] = field(default_factory=dict)
    results: set[str] = field(default_factory=set)

    def add(
        self,
        kind: str,
        spec: Any,
        *,
        inputs: tuple[int, ...],
        name: str | None,
        suggestion: str,
        settings: Settings = Settings(),
    ) -> Operator:
        """Append an operator. `name` is the user's and must be new; `suggestion` is numbered until it is."""
        taken = {op.name for op in self.operators}
        if name is None:
            name, n = suggestion, 2
            while name in taken:
                name, n = f"{suggestion}_{n}", n + 1
        elif not isinstance(name, str) or not name.strip():
            raise PipelineError(f"{kind}: a name is a string of at least one character, not {name!r}")
        elif name in taken:
            raise DuplicateNameError(f"{kind}: another operator is called {name!r} already; choose another name")
        op = Operator(len(self.operators), name, kind, inputs, spec, call_site(), settings)
        self.operators.append(op)
        return op

    def connect(self, id: int, inputs: tuple[int, ...]) -> None:
        """Give an operator that was declared ahead of its input the input."""
        self.operators[id] = replace(self.operators[id], inputs=inputs)

    def claim_result(self, name: str, kind: str) -> None:
        """Reserve the name of a result. Raises `DuplicateNameError` where it is taken."""
        if not isinstance(name, str) or not name.strip():
            hint = "; how many rows it has is rows=" if kind == "show" else ""
            raise PipelineError(f"{kind}: a result's name is a string of at least one character, not {name!r}{hint}")
        if name in self.results:
            raise DuplicateNameError(f"{kind}: another result is called {name!r} already; choose another name")
        self.results.add(name)

    def copy(self) -> Graph:
        """The graph as it is now; what is declared later does not reach the copy."""
        return Graph(list(self.operators), dict(self.services), set(self.results))

    def sources(self) -> Iterable[Operator]:
        return (op for op in self.operators if op.kind == "source")

    def consumers(self) -> dict[int, list[Operator]]:
        """For each operator's id, what gets its items, in order of declaration."""
        found: dict[int, list[Operator]] = {op.id: [] for op in self.operators}
        for op in self.operators:
            for one in op.inputs:
                found[one].append(op)
        return found

    def keyed_by(self, op: Operator) -> Operator | None:
        """The `keyby` whose key travels with the items that `op` emits; of merged streams, that of the first."""
        while op.kind != "keyby":
            if not op.inputs or op.kind in ("future", "late", "batches"):
                return None
            keys = [self.keyed_by(self.operators[one]) for one in op.inputs]
            if None in keys:
                return None
            return keys[0]
        return op
