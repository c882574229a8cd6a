"""An event loop on a thread of its own, beside whatever the caller does: a kernel's loop, or none.

It begins with its first user, and ends shortly after its last, so that a notebook that does not use a server any more
has no thread for it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

__all__ = ["Portal", "portal", "wait"]

_T = TypeVar("_T")
_LOOK = 0.2  # a signal that comes just before a thread blocks does not wake it, so nothing blocks for longer


class Portal:
    """One event loop. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._users: set[object] = set()

    def enter(self, user: object) -> asyncio.AbstractEventLoop:
        """Have the loop run for `user`, until it leaves."""
        with self._lock:
            self._users.add(user)
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._live, args=(self._loop,), name="sage_nb connections", daemon=True
                )
                self._thread.start()
            return self._loop

    def leave(self, user: object) -> None:
        """`user` needs the loop no more."""
        with self._lock:
            self._users.discard(user)
            if not self._users and self._loop is not None:
                loop, self._loop, self._thread = self._loop, None, None
                loop.call_soon_threadsafe(loop.stop)

    def run(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run a coroutine on the loop, which does not end before that has."""
        user = object()
        future = asyncio.run_coroutine_threadsafe(work, self.enter(user))
        future.add_done_callback(lambda _: self.leave(user))
        return future

    def soon(self, call: Callable[..., object], *args: Any) -> None:
        """Have `call` called on the loop, if there is one."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *args)

    def is_own_thread(self) -> bool:
        """Whether the caller runs on the loop."""
        return threading.current_thread() is self._thread

    @staticmethod
    def _live(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def wait(future: Future[_T], timeout: float | None = None) -> _T:
    """The future's result; an interrupt ends the waiting within 0.2 s, and cancels."""
    import time

    deadline = None if timeout is None else time.monotonic() + timeout
    try:
        while True:
            left = _LOOK if deadline is None else min(_LOOK, max(0.0, deadline - time.monotonic()))
            try:
                return future.result(left)
            except FutureTimeout:
                if future.done():
                    return future.result()  # its own error
                if deadline is not None and time.monotonic() >= deadline:
                    raise
    except BaseException:
        future.cancel()
        raise


portal = Portal()


def _forget_parents_loop() -> None:
    """A forked child has the records of its parent's loop, and not its thread."""
    portal.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_forget_parents_loop)
