"""What a job prints waits until its view is there, so that the view stands above it."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

__all__ = ["Held", "held_of_thread", "holding", "next_held"]


class Held:
    """Text and displays that wait, in order. From `let_go` on everything passes. All may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[Callable[[], Any]] = deque()
        self._passing: dict[Callable[[], Any], Callable[[], None]] = {}
        self.waits = True
        """Whether something that comes now may have to wait."""

    def pass_on(self, write: Callable[..., Any], *args: Any) -> None:
        """Call `write(*args)`, now or when what waits is let go."""
        if self.waits:
            with self._lock:
                if self.waits:
                    self._waiting.append(lambda: write(*args))
                    return
        write(*args)

    def passing(self, call: Callable[[], Any]) -> Callable[[], None]:
        """What passes on `call`: the same object each time, as it may be compared."""
        return self._passing.setdefault(call, partial(self.pass_on, call))

    def let_go(self) -> None:
        """Pass on what waits. On a thread whose output goes to the same cell."""
        with self._lock:  # what comes meanwhile waits for its turn
            try:
                while self._waiting:
                    try:
                        self._waiting.popleft()()
                    except Exception:  # noqa: BLE001 - one display that cannot be sent must not keep the others back
                        traceback.print_exc()
            finally:  # also where the cell is interrupted
                self.waits = False


next_held: ContextVar[Held | None] = ContextVar("sage_nb_next_held", default=None)
"""Where output of jobs that are submitted now waits."""
held_of_thread: ContextVar[Held | None] = ContextVar("sage_nb_held", default=None)
"""Where output of this thread, one of a job's, may have to wait."""


@contextmanager
def holding(hold: bool) -> Iterator[None]:
    """Output of jobs that are submitted within is let go at the end; where not to `hold`, it never waits."""
    if not hold:
        yield
        return
    held = Held()
    token = next_held.set(held)
    try:
        yield
    finally:
        next_held.reset(token)
        held.let_go()
