"""Facts about the cell that is running: which one, who watches, and where its output goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from sage_nb.engine.printing import of_job
from sage_nb.jobs.manager import ThreadContext
from sage_nb.notebook.holding import held_of_thread, next_held

__all__ = ["Cell", "Gates", "cell_is_running", "current_cell", "mark_cell", "pin_threads"]

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
    held = next_held.get()

    @contextmanager
    def pinned() -> Iterator[None]:
        token, waits = shell.set_thread_parent(parent), held_of_thread.set(held)
        try:
            yield
        finally:
            held_of_thread.reset(waits)
            shell.reset_thread_parent(token)

    return pinned


class Gates:
    """What a job prints and displays passes through its `Printed`, and waits for its view; what all others do is left
    alone.

    `sys.stdout`, `sys.stderr` and what publishes displays stay the kernel's own objects; each gets a class with one
    more question in it: whose thread is it? (An attribute of the object would not do: IPython puts a `write` of its
    own there while a cell runs, and puts back afterwards what it found.) Where the kernel is not ipykernel, nothing is
    done.
    """

    def __init__(self, shell: Any) -> None:
        self._before: list[tuple[Any, type]] = []
        if not hasattr(shell, "set_thread_parent"):
            return
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "set_thread_parent"):
                self._put(stream, _gated_stream(type(stream)))
        self._put(shell.display_pub, _gated_publisher(type(shell.display_pub)))

    def _put(self, owner: Any, cls: type) -> None:
        self._before.append((owner, type(owner)))
        owner.__class__ = cls

    def remove(self) -> None:
        """Have everything as it was."""
        for owner, cls in self._before:
            owner.__class__ = cls
        self._before.clear()


def _gated_stream(cls: Any) -> type:
    class OutStream(cls):  # type: ignore[misc]
        @property
        def write(self) -> Callable[[str], Any]:
            found: Callable[[str], Any] = self.__dict__.get("write") or super().write
            flush: Callable[[], Any] = super().flush
            printed, held = of_job.get(), held_of_thread.get()
            if held is not None and held.waits:
                found, flush = partial(held.pass_on, found), held.passing(flush)
            return found if printed is None else partial(printed.take, write=found, flush=flush)

        @write.setter
        def write(self, value: Callable[[str], Any]) -> None:
            self.__dict__["write"] = value

        @write.deleter
        def write(self) -> None:
            self.__dict__.pop("write", None)

        def flush(self) -> None:
            printed, held = of_job.get(), held_of_thread.get()
            if held is not None and held.waits:
                held.pass_on(super().flush)
            elif printed is None or printed.may_flush():
                super().flush()

    return OutStream


def _gated_publisher(cls: Any) -> type:
    class DisplayPublisher(cls):  # type: ignore[misc]
        def publish(self, *args: Any, transient: dict[str, Any] | None = None, update: bool = False, **kw: Any) -> None:
            publish = partial(super().publish, *args, transient=transient, update=update, **kw)
            printed, held = of_job.get(), held_of_thread.get()
            if held is not None and held.waits:
                publish = partial(held.pass_on, publish)
            if printed is None:
                publish()
            else:
                printed.display(publish, str((transient or {}).get("display_id")) if update else None)

    return DisplayPublisher
