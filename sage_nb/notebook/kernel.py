"""Facts about the cell that is running: which one, who watches, and where its output goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from sage_nb.jobs.manager import ThreadContext

__all__ = ["Cell", "cell_is_running", "current_cell", "mark_cell", "pin_threads"]

_running = False


def mark_cell(*, running: bool) -> None:
    """Note that a cell begins or has ended."""
    global _running
    _running = running


def cell_is_running() -> bool:
    """Whether a cell runs at this moment."""
    return _running


@dataclass(frozen=True, slots=True)
class Cell:
    """The running cell. `id` is the front end's; None where the client gives none."""

    id: str | None
    run: str | None
    """Which execution of the cell this is: the id of the client's request."""
    kernel: bool
    """Whether a Jupyter kernel runs it, rather than IPython in a terminal."""
    watched: bool
    """Whether a person looks at a page, rather than nbclient or papermill at messages."""


def current_cell(shell: Any) -> Cell:
    """The cell that runs at this moment."""
    get_parent = getattr(shell, "get_parent", None)
    if get_parent is None or getattr(shell, "kernel", None) is None:
        return Cell(None, None, kernel=False, watched=False)
    parent = get_parent() or {}
    cell_id = (parent.get("metadata") or {}).get("cellId")
    # A front end with a person in front of it can ask for input. Voilà cannot, but shows the page all the same.
    asks = (parent.get("content") or {}).get("allow_stdin") is not False
    voila = os.environ.get("SERVER_SOFTWARE", "").startswith("voila")
    run = (parent.get("header") or {}).get("msg_id")
    return Cell(cell_id, run, kernel=True, watched=asks or voila)


def pin_threads(shell: Any) -> ThreadContext:
    """For the job that is submitted now: what sends its threads' output to this cell, whichever runs then."""
    get_parent = getattr(shell, "get_parent", None)
    if get_parent is None or not hasattr(shell, "set_thread_parent"):
        return nullcontext  # IPython in a terminal, or a kernel that is not ipykernel
    parent = get_parent()
    if not parent:
        return nullcontext

    @contextmanager
    def pinned() -> Iterator[None]:
        token = shell.set_thread_parent(parent)
        try:
            yield
        finally:
            shell.reset_thread_parent(token)

    return pinned
