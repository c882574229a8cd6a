"""What the operators beyond `map` and its kin hold: frozen records, checked where they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage_nb.pipeline.checks import FunctionSpec

__all__ = ["RESULTS", "VALUED", "AsyncSpec", "IntervalSpec", "KeyBySpec", "ProcessSpec", "ReduceSpec", "ResultSpec"]

RESULTS = ("collect", "show")
"""The kinds whose operators have a `ResultSpec`."""

VALUED = ("sum", "min", "max", "mean")
"""The kinds that make one value of those of a key."""


@dataclass(frozen=True, slots=True)
class KeyBySpec:
    """`strategy` is `hash`, `round_robin` or `broadcast`."""

    function: FunctionSpec
    strategy: str


@dataclass(frozen=True, slots=True)
class ReduceSpec:
    """Of `reduce`, `count` and `VALUED`; `function` is the reducer, or gives the value that is summed.

    `expire_after` is in seconds.
    """

    function: FunctionSpec | None
    expire_after: float | None


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """`with_context` says that the function takes the context as its second argument."""

    function: FunctionSpec
    with_context: bool
    expire_after: float | None


@dataclass(frozen=True, slots=True)
class ResultSpec:
    """Of `collect` and `show`: the name of the result, how many items a `show` has, and whether only the newest item
    of each key is kept."""

    name: str
    rows: int | None = None
    latest: bool = False


@dataclass(frozen=True, slots=True)
class AsyncSpec:
    """At most `concurrency` items under way, each for `timeout` seconds."""

    function: FunctionSpec
    concurrency: int
    ordered: bool
    timeout: float | None


@dataclass(frozen=True, slots=True)
class IntervalSpec:
    """Pairs whose times are `lower` to `upper` seconds apart; `times` gives those of the left and the right stream."""

    lower: float
    upper: float
    times: tuple[Callable[[Any], Any], Callable[[Any], Any]]
    out_of_orderness: float
