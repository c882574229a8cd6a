"""Telling the Jupyter server of the kernel's jobs, so that its side panel shows them, and can stop them while a cell
blocks.

The Jupyter server's extension listens on a Unix socket and names it in `SAGE_NB_JUPYTER`; the kernel dials out, and
listens to nothing. One thread speaks on the connection, as long as there is a live job to tell of. Snapshots are made
when they are sent, at the pace that was asked for, so nothing queues up; a job notices nothing of it, not even that the
connection is lost. Both sides speak JSON, one message a line.

It says:
    {"op": "hello", "kernel": id or null, "path": JPY_SESSION_NAME or null, "pid": n}
    {"op": "snapshot", "cell": cell id or null, "submitted": bool, "snapshot": {...}}
    {"op": "gone", "job": uuid}
    {"op": "logs", "job": uuid, "lines": [{"time", "level", "source", "text"}]}
It hears:
    {"op": "pace", "job": uuid, "interval": seconds or null}            {"op": "logs", "job": uuid}
    {"op": "stop" | "pause" | "resume", "job": uuid}
A pace of null is for changes of the job's state only.
"""

from __future__ import annotations

import math
import os
import re
import select
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import msgspec

from sage_nb.engine.failure import headline, safe_text
from sage_nb.engine.log import LogLine
from sage_nb.engine.states import ENDED
from sage_nb.jobs.announcing import use_announcer
from sage_nb.jobs.job import Job
from sage_nb.notebook.kernel import current_cell

__all__ = ["VARIABLE", "announce"]

VARIABLE = "SAGE_NB_JUPYTER"
_FAREWELL = 2.0
_PATIENCE = 5.0
"""Seconds in which the Jupyter server has to take what is sent."""
_FIRST_RETRY, _LAST_RETRY = 1.0, 10.0
_ORDER_LIMIT = 64 * 1024
_LOG_LINES, _LOG_SIZE = 500, 256 * 1024
_LOOK = 0.1


class _Order(msgspec.Struct):
    """What is heard."""

    op: Literal["pace", "logs", "stop", "pause", "resume"]
    job: str
    interval: float | None = None


def announce(job: Job) -> None:
    """Tell the Jupyter server of a job, from now to its end. Only a kernel does: what it starts inherits its
    environment, and is told of by whoever started it."""
    path = os.environ.get(VARIABLE)
    shell = _shell()
    if not path or shell is None:
        return
    cell = current_cell(shell).id
    try:
        _speak(path, shell, _Told(job, cell))
    except (OSError, RuntimeError) as exc:  # no file or thread to be had
        job._dispatcher.say(f"the Jupyter server was not told of this job: {headline(exc)}")


class _Told:
    """A job that is told of. Its handle is held only where the job ends with it."""

    def __init__(self, job: Job, cell: str | None) -> None:
        self.uuid = job.uuid
        self.cell = cell
        self.submitted = job._dispatcher.ends_with_its_waiter
        """Whether this kernel submitted it; else it has attached to it."""
        self.pace: float | None = None
        self.status: str | None = None
        """The state that was told last."""
        self.ending = False
        """Whether its state is its last, and its end not all there."""
        self.lines = 0
        """How many lines of its log that description had."""
        self.at = 0.0
        """When that was, on the monotonic clock."""
        self.job: Callable[[], Job | None] = weakref.ref(job)
        if self.submitted:
            self.job = lambda: job

    def due(self, now: float) -> float | None:
        """Seconds until it is to be looked at again; None where only a change of its state makes that due."""
        if self.ending:
            return _LOOK
        return None if self.pace is None else max(0.0, self.at + self.pace - now)


class _Session:
    """One connection and its thread, from the first live job to the end of the last."""

    def __init__(self, path: str, shell: Any) -> None:
        self._path = path
        self._hello = {
            "op": "hello",
            "kernel": _kernel_id(shell),
            "path": os.environ.get("JPY_SESSION_NAME"),
            "pid": os.getpid(),
        }
        self.jobs: dict[str, _Told] = {}
        self.over = False
        self._hub: socket.socket | None = None
        self._heard = b""
        self._retry, self._retry_at = _FIRST_RETRY, 0.0
        self._woken, self._wakes = socket.socketpair()
        self._woken.setblocking(False)
        self._wakes.setblocking(False)

    def start(self) -> None:
        threading.Thread(target=self._run, name="sage_nb announcements", daemon=True).start()

    def add(self, told: _Told) -> None:
        """Tell of a job too, unless another handle on it does. Called with the lock held."""
        known, job = self.jobs.get(told.uuid), told.job()
        if job is not None and (known is None or known.job() is None):
            job._listen(self._changed)
            self.jobs[told.uuid] = told
            self._wake()

    def close(self) -> None:
        """Close the connection, once the Jupyter server has all that was said: what it sends meanwhile would otherwise
        make it lose what it has not read."""
        hub = self._hub
        if hub is not None:
            with suppress(OSError):
                hub.shutdown(socket.SHUT_WR)
                hub.settimeout(_FAREWELL)
                while hub.recv(_ORDER_LIMIT):
                    pass
        self._drop()
        self._woken.close()
        self._wakes.close()

    def _changed(self, _job: Job) -> None:
        with _lock:
            if not self.over:
                self._wake()

    def _wake(self) -> None:
        try:
            self._wakes.send(b".")
        except BlockingIOError:
            return  # it has been woken often enough

    # The thread

    def _run(self) -> None:
        try:
            while self._goes_on():
                self._connect()
                for told in list(self.jobs.values()):
                    self._tell(told)
                if self.jobs:  # else nothing would wake it
                    self._listen()
        finally:
            self._end()
            self.close()

    def _goes_on(self) -> bool:
        """Whether there is a live job. A job that is submitted after the last one has a session of its own."""
        with _lock:
            if not self.jobs:
                self._end()
            return not self.over

    def _end(self) -> None:
        global _session
        with _lock:
            self.over = True
            if _session is self:
                _session = None

    def _connect(self) -> None:
        now = time.monotonic()
        if self._hub is not None or now < self._retry_at:
            return
        hub = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        hub.settimeout(_PATIENCE)
        try:
            hub.connect(self._path)
        except OSError:
            hub.close()
            self._retry_at, self._retry = now + self._retry, min(2 * self._retry, _LAST_RETRY)
            return
        self._hub, self._heard, self._retry = hub, b"", _FIRST_RETRY
        for told in list(self.jobs.values()):
            told.status, told.pace = None, None
        self._say(self._hello)

    def _drop(self) -> None:
        if self._hub is not None:
            self._hub.close()
            self._hub = None
            self._retry_at = time.monotonic() + self._retry

    def _tell(self, told: _Told) -> None:
        """Send what is due of a job, and let go of one that has ended."""
        job = told.job()
        if job is None:
            self._say({"op": "gone", "job": told.uuid})
            self._forget(told, None)
            return
        run = job._dispatcher
        # The state comes a moment before the end is all there; services that are kept are stopped later.
        told.ending = job.status in ENDED and not run.done.is_set()
        over = run.done.is_set() and run.clean.is_set()
        if over or job.status != told.status or told.due(time.monotonic()) == 0.0:
            self._describe(told, job)
        if over:
            if len(lines := job.logs()) > told.lines:
                self._say_logs(told, lines)
            self._forget(told, job)

    def _describe(self, told: _Told, job: Job) -> None:
        told.at = time.monotonic()
        if self._hub is None:
            return
        try:
            snapshot = job.snapshot()
        except Exception as exc:  # noqa: BLE001 - one job that cannot be described must not end the telling of all
            job._dispatcher.say(f"the Jupyter server was not told of this job: {headline(exc)}", "ERROR")
            self._forget(told, job)
            return
        told.status, told.lines = snapshot.status, len(snapshot.logs)
        self._say({"op": "snapshot", "cell": told.cell, "submitted": told.submitted, "snapshot": snapshot})

    def _forget(self, told: _Told, job: Job | None) -> None:
        if job is not None:
            job._unlisten(self._changed)
        with _lock:
            if self.jobs.get(told.uuid) is told:
                del self.jobs[told.uuid]

    def _say_logs(self, told: _Told, lines: list[LogLine]) -> None:
        self._say({"op": "logs", "job": told.uuid, "lines": _last(lines)})

    def _say(self, message: dict[str, Any]) -> None:
        if self._hub is None:
            return
        try:
            self._hub.sendall(msgspec.json.encode(message) + b"\n")
        except OSError:
            self._drop()

    def _listen(self) -> None:
        """Wait for what is heard, for a change of a job, or until a snapshot is due."""
        now = time.monotonic()
        waits = [due for told in list(self.jobs.values()) if (due := told.due(now)) is not None]
        if self._hub is None:
            waits = [max(0.0, self._retry_at - now)]
        poll = select.poll()  # not `select`, which knows no descriptor above 1,023
        for one in (self._woken, self._hub):
            if one is not None:
                poll.register(one, select.POLLIN)
        wait = min(waits, default=None)
        ready = {fd for fd, _ in poll.poll(None if wait is None else max(0, math.ceil(wait * 1000)))}
        if self._woken.fileno() in ready:
            self._woken.recv(4096)
        if self._hub is not None and self._hub.fileno() in ready:
            self._hear(self._hub)

    def _hear(self, hub: socket.socket) -> None:
        try:
            data = hub.recv(_ORDER_LIMIT)
        except OSError:
            data = b""
        *lines, self._heard = (self._heard + data).split(b"\n")
        if not data or len(self._heard) > _ORDER_LIMIT:
            self._drop()
        for line in lines:
            try:
                self._obey(msgspec.json.decode(line, type=_Order))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                self._drop()  # who speaks so is no Jupyter server of ours
                return

    def _obey(self, order: _Order) -> None:
        told = self.jobs.get(order.job)
        job = told.job() if told is not None else None
        if told is None or job is None:
            return
        if order.op == "pace":
            told.pace = order.interval
        elif order.op == "logs":
            self._say_logs(told, job.logs())
        else:
            job._dispatcher.ask(order.op)


_lock = threading.RLock()
_session: _Session | None = None


def _speak(path: str, shell: Any, told: _Told) -> None:
    global _session
    with _lock:
        if _session is not None:
            _session.add(told)
            return
        session = _Session(path, shell)
        session.add(told)
        try:
            session.start()
        except RuntimeError:
            session.over = True
            session.close()
            raise
        _session = session


def _shell() -> Any:
    """The kernel's shell; None in a process that is no kernel."""
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    shell = get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None


def _kernel_id(shell: Any) -> str | None:
    """The id by which the Jupyter server knows this kernel: it is in the name of the connection's file."""
    file = getattr(getattr(shell.kernel, "parent", None), "connection_file", None) or ""
    found = re.fullmatch(r"kernel-(.+)\.json", Path(file).name)
    return found[1] if found else None


def _last(lines: list[LogLine]) -> list[dict[str, Any]]:
    """The last lines, as many as may be sent."""
    found: list[dict[str, Any]] = []
    size = 0
    for line in reversed(lines[-_LOG_LINES:]):
        size += len(line.text)
        if size > _LOG_SIZE:
            break
        text = safe_text(line.text, len(line.text))
        found.append({"time": line.time, "level": line.level, "source": line.source, "text": text})
    return found[::-1]


def _forget_parents_session() -> None:
    """A forked child is no kernel, and its parent's connection is not its own."""
    global _session, _lock
    _session, _lock = None, threading.RLock()
    use_announcer(lambda job: None)


os.register_at_fork(after_in_child=_forget_parents_session)
