"""What tests on Ray share: the actors that Ray itself knows of."""

from __future__ import annotations

import threading
from typing import Any

import ray

from sage_nb import LocalEnvironment
from sage_nb.engine.onray import cluster
from tests.support import until

__all__ = ["SOON", "end_private_ray", "living_actors", "on_ray", "our_threads"]

SOON = 20.0
"""Seconds within which a fault has to be noticed: four times what is promised, as the machine may be busy."""


def on_ray(name: str = "on ray", **options: Any) -> LocalEnvironment:
    return LocalEnvironment(name, backend="ray", **options)


def living_actors() -> list[str]:
    """The actors that the cluster's control process says are alive, or are to be."""
    if not ray.is_initialized():
        return []
    from ray._private.state import actors

    return [one["ActorID"] for one in actors().values() if one["State"] != "DEAD"]


def our_threads() -> list[str]:
    """Threads of jobs; the one that looks after Ray, and its helper, stay."""
    return [
        t.name for t in threading.enumerate() if t.name.startswith("sage_nb") and not t.name.startswith("sage_nb ray")
    ]


def end_private_ray() -> None:
    """Have the private Ray shut down, which no job uses any more."""
    before, cluster.IDLE = cluster.IDLE, 0.0
    try:
        until(lambda: not ray.is_initialized() and not any("sage_nb ray" in t.name for t in threading.enumerate()))
    finally:
        cluster.IDLE = before
