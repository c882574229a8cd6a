"""The backends that have to give the same answers: each is one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from sage_nb import LocalEnvironment

__all__ = ["BACKENDS", "PARALLELISM", "runs"]

BACKENDS: dict[str, Callable[[str], Any]] = {
    "threads": LocalEnvironment,
    "processes": partial(LocalEnvironment, backend="processes"),
}
"""How to make an environment of a given name."""

PARALLELISM = (1, 2, 4)

ALL = os.environ.get("SAGE_NB_PARITY") != "quick"
"""Whether every pipeline runs with the most instances on every backend; see `runs`."""


def runs(backend: str, number: int) -> tuple[int, ...]:
    """The numbers of instances for the pipeline of that number.

    Where an instance costs a process, one pipeline in four runs with the most of them: the families come one after the
    other, so that this is some of each. `SAGE_NB_PARITY=quick` asks for that; else all run.
    """
    return PARALLELISM if ALL or backend == "threads" or number % 4 == 0 else PARALLELISM[:-1]
