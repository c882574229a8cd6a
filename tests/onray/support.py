"""What tests on Ray share: the actors that Ray itself knows of, and the processes of a private one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import ray

from sage_nb import LocalEnvironment

__all__ = ["SOON", "living_actors", "node_process", "on_ray", "our_threads", "own_ray"]

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


def own_ray(pid: int) -> list[psutil.Process]:
    """The processes of Ray that a process has started, and theirs."""
    return [one for one in psutil.Process(pid).children(recursive=True) if is_of_ray(one)]


def is_of_ray(process: psutil.Process) -> bool:
    try:
        said = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "raylet" in said or "gcs_server" in said or said.startswith("ray::") or "/ray/" in said


def node_process(pid: int, name: str) -> psutil.Process:
    """The process of a private Ray whose program is `name`: `raylet` or `gcs_server`."""
    (found,) = [one for one in psutil.Process(pid).children() if Path(one.exe()).name == name]
    return found
