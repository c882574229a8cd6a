"""What tests of faults share: children of this process, a pause until a file is there, and how soon a job ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sage_nb import Job
from tests.support import until

__all__ = [
    "SOON",
    "begin",
    "children",
    "crash",
    "ended_in",
    "ending",
    "is_first",
    "kill",
    "mark",
    "notes",
    "wait_for",
]

SOON = 10.0
"""Seconds within which a fault has to be noticed: ten times what is promised, as the machine may be busy."""


def children() -> set[int]:
    """The ids of this process's children, zombies too."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update(map(int, (task / "children").read_text().split()))
        except FileNotFoundError:  # a thread that has just ended
            continue
    return found


def notes(exc: BaseException | None) -> str:
    """The notes of an exception, as one text."""
    return "\n".join(getattr(exc, "__notes__", ()))


def ended_in(job: Job, limit: float = SOON) -> float:
    """Seconds until the job and its cleanup are done; it may have failed."""
    began = time.monotonic()
    assert job._dispatcher.clean.wait(limit), f"still {job.status} after {limit:g} s: {job.snapshot().waiting_for}"
    job._dispatcher.join()
    return time.monotonic() - began


@contextmanager
def ending(job: Job) -> Iterator[Job]:
    """The job, which a test that fails stops."""
    try:
        yield job
    finally:
        job.stop(timeout=0.1)


def kill(pid: int) -> None:
    """As `kill -9`."""
    os.kill(pid, signal.SIGKILL)


# What functions in worker processes do: files are what both sides see


def crash() -> None:
    """End this process as by `kill -9`."""
    kill(os.getpid())


def mark(folder: Path, text: str) -> None:
    """Leave a file of that name."""
    (folder / text).touch()


def is_first(folder: Path, text: str) -> bool:
    """Whether nobody has left a file of that name; leaves it."""
    try:
        (folder / text).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def begin(folder: Path) -> None:
    """Tell `wait_for` that this process has come here."""
    mark(folder, f"pid {os.getpid()}")


def wait_for(folder: Path, count: int = 1) -> list[int]:
    """The ids of the processes that called `begin`, once there are as many."""
    until(lambda: len(list(folder.glob("pid *"))) >= count)
    return [int(path.name.removeprefix("pid ")) for path in folder.glob("pid *")]
