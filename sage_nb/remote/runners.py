"""Runner processes, from the server's side: kept warm, given a job, listened to, and ended.

A thread per runner reads what it says, and writes records straight to the job's log; only changes of state reach the
server's event loop. `Listener` is who is told, always on that thread. Another one tells it orders: while the user's
code holds its interpreter a runner reads nothing, and nobody else may wait for that.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections import deque
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import msgspec

from sage_nb.engine.child import Child, start
from sage_nb.engine.failure import headline
from sage_nb.engine.frames import Frame
from sage_nb.engine.reaper import Reaper
from sage_nb.errors import WorkerError
from sage_nb.remote.access import TOKEN_VARIABLE
from sage_nb.remote.protocol import Order
from sage_nb.remote.runner import GRACE, Run

__all__ = ["Listener", "Pool", "Runner", "process_key"]

_ENTRY = "sage_nb.remote.runner:main"
_BOOT = 60.0
TERM_GRACE = 3.0
"""Seconds from SIGTERM to SIGKILL."""
_NEWEST = frozenset({Order.WATCHED, Order.TAKEN, Order.HOLD})
"""Orders of which only the newest counts."""
_LOG = logging.getLogger("sage_nb.server")
_pack = msgspec.msgpack.encode


def process_key(pid: int) -> str | None:
    """What tells a process from a later one of the same id: its id, and when it began; None where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else f"{pid}:{int(fields[19])}"


class Listener(Protocol):
    """What is told of a runner's job."""

    def said(self, runner: Runner, frame: Frame) -> None: ...
    def printed(self, runner: Runner, text: str, stream: str) -> None:
        """What was printed past Python's `sys.stdout`."""

    def ended_process(self, runner: Runner, why: WorkerError) -> None:
        """The process has ended; nothing more will be said."""


class Runner:
    """One runner process. `reaper` ends it where the server is killed and it does not end by itself."""

    def __init__(self, reaper: Reaper) -> None:
        self._reaper = reaper
        self.warm = threading.Event()
        """Set when it waits for a job, or has ended."""
        self.started: Future[None] = Future()
        """Done when there is a process, or will be none."""
        self.child: Child | None = None
        self.key: str | None = None
        self._listener: Listener | None = None
        self._orders: dict[object, tuple[Order, bytes]] = {}
        """Those that it has not been told yet."""
        self._why: WorkerError | None = None
        self._lock = threading.Lock()
        self._ordered = threading.Condition(self._lock)
        self._end_at = math.inf
        self._thread = threading.Thread(target=self._live, name="sage_nb runner", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._why is None

    @property
    def pid(self) -> int:
        return self.child.pid if self.child is not None else 0

    def give(self, run: Run, listener: Listener) -> None:
        """Give it its job. Raises `WorkerError` where it has ended."""
        with self._lock:
            if self._why is not None:
                raise self._why
            self._listener = listener
            self._orders = {Order.RUN: (Order.RUN, _pack(run)), **self._orders}
        threading.Thread(target=self._tell_orders, name="sage_nb runner orders", daemon=True).start()

    def tell(self, kind: Order, value: Any) -> None:
        """An order; returns at once. Where the process has ended, nothing happens: its listener hears that anyway. What
        comes before `give` follows the job."""
        with self._lock:
            if self._why is None:
                self._orders[kind if kind in _NEWEST else object()] = kind, _pack(value)
                self._ordered.notify()

    def _tell_orders(self) -> None:
        self.started.result()
        assert self.child is not None
        while True:
            with self._lock:
                self._ordered.wait_for(lambda: self._orders or self._why is not None)
                orders, self._orders = [*self._orders.values()], {}
                if self._why is not None:
                    return
            try:
                for kind, packed in orders:
                    self.child.send(kind, packed)
            except WorkerError:
                return

    def end(self, after: float) -> None:
        """See to it that it has ended `after` seconds from now and a little: SIGTERM to its group then, SIGKILL three
        seconds later. Returns at once. The soonest end that was asked for is what counts."""
        at = time.monotonic() + after
        with self._lock:
            if at >= self._end_at or self._why is not None:
                return
            self._end_at = at
        threading.Thread(target=self._force, args=(at,), name="sage_nb runner end", daemon=True).start()

    def close(self) -> None:
        """End one that has no job, and so nothing to clean up."""
        self.warm.wait(_BOOT)
        if self.child is not None:
            self.child.kill()
        self._thread.join(TERM_GRACE)

    def _force(self, at: float) -> None:
        self.started.result()
        child = self.child
        if child is None:
            return
        for when, number in ((at, signal.SIGTERM), (at + TERM_GRACE, signal.SIGKILL)):
            if child.wait(max(0.0, when - time.monotonic())):
                return
            self._signal(number)

    def _signal(self, number: int) -> None:
        if self.child is not None and self.alive:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.killpg(self.child.pid, number)

    def _live(self) -> None:
        try:
            child = start(_ENTRY, name="the runner", on_output=self._print, hidden=(TOKEN_VARIABLE,))
            self.key = process_key(child.pid)
            self._reaper.look_at([child.pid])
            self.child = child
            self.started.set_result(None)
            kind, _ = child.receive()
            assert kind == Order.WARM
            self.warm.set()
            while True:
                frame = child.receive()
                if self._listener is not None:
                    self._listener.said(self, frame)
        except WorkerError as exc:
            self._gone(exc)
        except OSError as exc:
            self._gone(WorkerError(f"a runner process could not be started, or spoken with: {exc}"))
        except Exception as exc:  # noqa: BLE001 - a job that nobody listens to would be waited for for ever
            _LOG.exception("what a runner said could not be taken in")
            self._gone(WorkerError(f"the server could not take in what the job's process said: {headline(exc)}"))

    def _print(self, text: str, stream: str) -> None:
        listener = self._listener
        if listener is not None:
            listener.printed(self, text, stream)
        else:
            _LOG.warning("a runner says: %s", text.rstrip())

    def _gone(self, why: WorkerError) -> None:
        if self.child is not None:
            self._kill_group()
            self.child.close()
        with self._lock:
            self._why = why
            self._ordered.notify()
            listener = self._listener
        if not self.started.done():
            self.started.set_result(None)
        self.warm.set()
        if listener is not None:
            listener.ended_process(self, why)

    def _kill_group(self) -> None:
        """What a job started in the runner's group, and left, ends with it."""
        assert self.child is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.child.pid, signal.SIGKILL)


class Pool:
    """Keeps `size` runners warm."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._waiting: deque[Runner] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._reaper = Reaper(GRACE + TERM_GRACE)

    @property
    def warm(self) -> int:
        """Runners that could take a job at once."""
        return sum(one.warm.is_set() and one.alive for one in list(self._waiting))

    def remove_if_killed(self, folder: Path) -> None:
        """Have a folder removed where this process is killed."""
        self._reaper.remove(str(folder))

    def fill(self) -> None:
        """Start as many as are missing."""
        with self._lock:
            while len(self._waiting) < self.size and not self._closed:
                self._waiting.append(Runner(self._reaper))

    def take(self) -> Runner:
        """A runner: a warm one if there is one, else the one that will be warm next, or a new one."""
        with self._lock:
            alive = [one for one in self._waiting if one.alive]
            self._waiting = deque(sorted(alive, key=lambda one: not one.warm.is_set()))
            return self._waiting.popleft() if self._waiting else Runner(self._reaper)

    def close(self) -> None:
        """End those that wait."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = list(self._waiting), deque()
        for one in waiting:
            threading.Thread(target=one.close, name="sage_nb runner end", daemon=True).start()
        deadline = time.monotonic() + TERM_GRACE
        for one in waiting:
            one._thread.join(max(0.0, deadline - time.monotonic()))
        self._reaper.end()
