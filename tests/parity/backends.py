"""The backends that have to give the same answers: each is one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

from sage_nb import LocalEnvironment, RemoteEnvironment
from tests.remote.support import shared_server

__all__ = ["BACKENDS", "PARALLELISM", "runs"]


def on_server(name: str) -> RemoteEnvironment:
    """An environment that submits to the tests' own server."""
    return RemoteEnvironment(name, port=shared_server().port)


BACKENDS: dict[str, Callable[[str], Any]] = {
    "threads": LocalEnvironment,
    "processes": partial(LocalEnvironment, backend="processes"),
    "ray": partial(LocalEnvironment, backend="ray"),
    "server": on_server,
}
"""How to make an environment of a given name."""

PARALLELISM = (1, 2, 4)

HOW_MANY = os.environ.get("SAGE_NB_TESTS", "")
"""`all` for every pipeline in every way; see `runs`."""


def runs(backend: str, number: int) -> tuple[int, ...]:
    """The numbers of instances for the pipeline of that number.

    Where an instance costs an actor, which takes a second to start, one pipeline in sixteen runs, with two of them, and
    few in all ways: the families come one after the other, so that this is some of each. With processes, which take
    half as long, one in eight runs in all ways. `make test-all`, which sets `SAGE_NB_TESTS=all`, has all of them run.
    """
    if HOW_MANY == "all" or backend == "threads":
        return PARALLELISM
    if backend == "server":  # where the stages run as with threads; what is looked at is the way there and back
        return (2,)
    if backend == "ray":
        return () if number % 16 else PARALLELISM if number % 64 == 0 else (2,)
    return (2,) if number % 8 else PARALLELISM
