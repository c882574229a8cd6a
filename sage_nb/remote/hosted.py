"""One job of a server: its record, its log, its runner, and who watches.

What the runner says comes on the runner's thread. Records go straight to the log there; what changes the job's state is
handed to the server's event loop, on which everything else happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec

from sage_nb.engine.buffers import Buffer
from sage_nb.engine.dispatcher import ENDED
from sage_nb.engine.frames import Frame
from sage_nb.engine.printing import Printed
from sage_nb.engine.travelled import dumps_exception
from sage_nb.errors import JobNotFoundError, JobStateError, SageError, WorkerError
from sage_nb.remote import protocol
from sage_nb.remote.history import Entry
from sage_nb.remote.protocol import Kind, Order, pack_buffers, record
from sage_nb.remote.runners import Runner
from sage_nb.remote.spool import Spool

__all__ = ["HostedJob", "Watcher"]

_LOG = logging.getLogger("sage_nb.server")
_STOP_GRACE = 3.0
"""Seconds beyond the grace of a stop that a runner has before it is forced."""
_MOST_ORDERS = 1000
"""That a runner may leave unanswered, as when the user's code holds its interpreter."""
_unpack = msgspec.msgpack.decode


class Watcher(Protocol):
    """Who is told that there is something new of a job. Called on the event loop."""

    def wake(self, job: HostedJob) -> None: ...


class HostedJob:
    """One job. Belongs to the event loop `loop`, but for what is marked."""

    def __init__(self, entry: Entry, folder: Path, spool_limit: int, loop: asyncio.AbstractEventLoop) -> None:
        self.entry = entry
        self.folder = folder
        self.loop = loop
        self.runner: Runner | None = None
        self.snapshot: bytes | None = entry.snapshot
        """The newest description of the job, as JSON; counts up `version`."""
        self.version = 0
        self.watchers: set[Watcher] = set()
        self.ended = asyncio.Event()
        self.clean = asyncio.Event()
        self.vacant = asyncio.Event()
        """Set while no process runs the job."""
        self.vacant.set()
        self.on_change: Callable[[HostedJob], None] = lambda job: None
        """Called with every change of its record."""
        self._spool: Spool | None = None
        self._opening = threading.Lock()
        self._deleted = False
        self._spool_limit = spool_limit
        self._told = False
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._orders = 0
        self._taken = 0
        self._waiting = 0
        """Bytes of results that were logged while the log was full, and are acknowledged later."""
        self._room = threading.Lock()
        self.stop_asked = False
        """Whether it is to stop, so that an end by force is no failure."""
        self._past_python = Printed()
        self._cannot_keep: str | None = None
        """Why something that the job gave is not in its log, which nothing may follow then."""
        self._end_body: list[Buffer] = []
        """The exception of an end that the log could not take."""
        if entry.status in ENDED:
            self.ended.set()
            self.clean.set()

    @property
    def uuid(self) -> str:
        return self.entry.uuid

    @property
    def payload(self) -> Path:
        return self.folder / "payload"

    @property
    def spool(self) -> Spool:
        """The job's log; opened when it is first wanted. Any thread. Raises `JobNotFoundError` of a deleted job."""
        with self._opening:
            if self._deleted:
                raise JobNotFoundError(f"job {self.entry.name!r} was deleted")
            if self._spool is None:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._spool = Spool(self.folder, self._spool_limit)
            return self._spool

    async def opened(self) -> Spool:
        """The job's log. That of an earlier server is read through first, which may take seconds, and is done on a
        thread of its own."""
        if self._spool is not None:
            return self.spool
        return await self.loop.run_in_executor(None, lambda: self.spool)

    def summary(self) -> dict[str, Any]:
        """What `list_jobs` gives of it."""
        entry = self.entry
        return {
            "uuid": entry.uuid,
            "number": entry.number,
            "name": entry.name,
            "status": entry.status,
            "autostop": entry.autostop,
            "start_time": entry.started,
            "runtime": 0.0 if entry.started is None else (entry.stopped or time.time()) - entry.started,
            "restart_count": entry.restart_count,
            "last_update": entry.last_update,
            "error": entry.error,
        }

    def status(self) -> dict[str, Any]:
        """What `get_job_status` gives of it."""
        entry = self.entry
        counted = self._counted()
        return {
            **self.summary(),
            **counted,
            "environment": entry.environment,
            "dispatcher": dict(counted),
            "stop_time": entry.stopped,
            "submit_time": entry.submitted,
            "backend": entry.backend,
            "owner": entry.owner,
            "note": entry.note,
        }

    def log_lines(self, most: int) -> list[dict[str, Any]]:
        """The last lines of its log, the oldest first. Any thread."""
        found: list[tuple[float, str, str, str]] = []
        for packed in self.spool.backwards(Kind.LINES):
            head = protocol.head_of(Kind.LINES, packed)
            assert isinstance(head, protocol.Lines)
            found[:0] = head.lines
            if len(found) >= most:
                break
        return [dict(zip(("time", "level", "source", "text"), line, strict=True)) for line in found[-most:]]

    def _counted(self) -> dict[str, Any]:
        running = self.runner is not None and self.entry.status not in ENDED
        found = {"task_count": 0, "service_count": 0, "is_running": running}
        if running and self.snapshot is not None:
            seen = msgspec.json.decode(self.snapshot, type=_Seen)
            found["task_count"] = sum({one.stage: one.parallelism for one in seen.operators}.values())
            found["service_count"] = sum(one.state in ("running", "starting", "stopping") for one in seen.services)
        return found

    # What the runner says, on its thread

    def said(self, runner: Runner, frame: Frame) -> None:
        """A frame of the runner's. Raises what reading it does where it is none: then the runner is ended."""
        kind, buffers = frame
        if kind == Order.ANSWER:
            self.loop.call_soon_threadsafe(self._answered, *_unpack(buffers[0]))
            return
        if kind == Kind.SNAPSHOT:
            msgspec.json.decode(buffers[0], type=_Seen)
            self.loop.call_soon_threadsafe(self._described, bytes(buffers[0]))
            return
        if self._cannot_keep is not None:
            return
        head, body = bytes(buffers[0]), buffers[1:]
        found = protocol.head_of(Kind(kind), head)
        try:
            self.spool.append(kind, head, body)
        except OSError as exc:
            self._disk_full(runner, exc)
            return
        if kind == Kind.RESULTS:
            self._acknowledge(runner, sum(map(len, body)))
        if kind in (Kind.STATE, Kind.ENDED, Kind.CLEAN, Kind.RESTARTED):
            self.loop.call_soon_threadsafe(self._changed, kind, found)
        self._tell()

    def printed(self, _runner: Runner, text: str, stream: str) -> None:
        """Something was printed past Python's `sys.stdout`."""
        self._past_python.take(text, partial(self._keep_printed, stream))

    def _keep_printed(self, stream: str, text: str) -> None:
        with contextlib.suppress(OSError, JobNotFoundError):
            self.spool.append(Kind.OUTPUT, protocol.Output(text, stream))
        self._tell()

    def ended_process(self, runner: Runner, why: WorkerError) -> None:
        """The process has ended."""
        self._past_python.end()
        self.loop.call_soon_threadsafe(self._gone, runner, why)

    def _acknowledge(self, runner: Runner, size: int) -> None:
        """Let the runner send more, unless the log is full."""
        with self._room:
            self._waiting += size
            if not self.spool.full:
                self._release(runner)
            elif not self._told:
                self._told = True
                runner.tell(Order.HOLD, True)

    def _release(self, runner: Runner) -> None:
        self._taken += self._waiting
        self._waiting = 0
        runner.tell(Order.TAKEN, self._taken)
        if self._told:
            self._told = False
            runner.tell(Order.HOLD, False)

    def _disk_full(self, runner: Runner, exc: OSError) -> None:
        """What cannot be kept would be lost: the job ends."""
        self._cannot_keep = f"the server could not keep what the job gave: {exc}"
        _LOG.error("job %s: its log cannot be written: %s", self.uuid, exc)
        runner.tell(Order.STOP, 1.0)
        runner.end(1.0 + _STOP_GRACE)

    def _tell(self) -> None:
        self.loop.call_soon_threadsafe(self.wake)

    # On the event loop

    def wake(self) -> None:
        """Tell all who watch that there is something new."""
        for watcher in list(self.watchers):
            watcher.wake(self)

    def watch(self, watcher: Watcher) -> None:
        """`watcher` is told from now on."""
        self.watchers.add(watcher)
        self._tell_watched()

    def unwatch(self, watcher: Watcher) -> None:
        """`watcher` is not told any more."""
        self.watchers.discard(watcher)
        self._tell_watched()

    def took(self, made_room: bool) -> None:
        """A reader has read on; where that made room, the runner goes on."""
        runner = self.runner
        if made_room and runner is not None:
            with self._room:
                self._release(runner)

    def run_on(self, runner: Runner) -> None:
        """The runner has been given the job."""
        self.runner = runner
        self.vacant.clear()
        self._tell_watched()

    def state(self, status: str, *, why: str | None = None) -> None:
        """The server itself changes the state."""
        self.entry.status = status
        attempt = self.entry.restart_count + 1
        with contextlib.suppress(OSError):
            self.spool.append(Kind.STATE, protocol.State(status, time.time(), attempt, why))
        if self.runner is None:
            self.close()  # thousands may wait, and each would have a file open
        self._note_change()
        self.wake()

    def note(self, text: str) -> None:
        """Something that the reader should know."""
        with contextlib.suppress(OSError):
            self.spool.append(Kind.NOTE, protocol.Text(text))
        self.wake()

    def conclude(self, status: str, error: SageError | None = None) -> None:
        """The server itself ends the job: its runner is gone, or it never had one."""
        if self.entry.status in ENDED:
            self._cleaned()
            self._note_change()
            self.wake()
            return
        body = [] if error is None else pack_buffers([bytes(one) for one in dumps_exception(error)])
        told = None if error is None else f"{type(error).__name__}: {error}"
        head = protocol.Ended(status, time.time(), True, told, self._last_snapshot(status, error))
        self._end_body = body
        with contextlib.suppress(OSError):
            self.spool.append(Kind.ENDED, head, body)
        self._changed(Kind.ENDED, head)
        self.wake()

    async def order(self, kind: Order) -> None:
        """Have the runner pause or resume. Raises `JobStateError`."""
        runner = self._running()
        if self.entry.status in ENDED:
            raise JobStateError(f"job {self.entry.name!r} is {self.entry.status} already")
        if len(self._answers) >= _MOST_ORDERS:
            raise JobStateError(f"job {self.entry.name!r} has not answered {_MOST_ORDERS:,} orders before this one")
        self._orders += 1
        number = self._orders
        future = self._answers[number] = self.loop.create_future()
        runner.tell(kind, number)
        said = await future
        if said is not None:
            raise JobStateError(said[1])

    def stop(self, grace: float, why: str | None = None) -> None:
        """Ask the runner to stop; it is forced where it does not."""
        runner = self._running()
        self.stop_asked = True
        if why is not None:
            self.note(why)
        runner.tell(Order.STOP, grace)
        runner.end(grace + _STOP_GRACE)

    def close(self) -> None:
        """Close its files."""
        with self._opening:
            if self._spool is not None:
                self._spool.rest()

    def delete(self) -> None:
        """Delete its files."""
        with self._opening:
            self._deleted = True
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def begin_anew(self, why: str) -> None:
        """After the server was gone: the job starts from its beginning."""
        self.entry.restart_count += 1
        self.entry.error, self.entry.runner = None, None
        self.spool.append(Kind.RESTARTED, protocol.Restarted(self.entry.restart_count + 1, server=True))
        self.spool.append(Kind.NOTE, protocol.Text(why))
        self.state("queued", why=why)

    def _running(self) -> Runner:
        if self.runner is None:
            raise JobStateError(f"job {self.entry.name!r} is {self.entry.status}; it does not run")
        return self.runner

    def _tell_watched(self) -> None:
        if self.runner is not None:
            self.runner.tell(Order.WATCHED, bool(self.watchers))

    def _answered(self, number: int, said: Any) -> None:
        future = self._answers.pop(number, None)
        if future is not None and not future.done():
            future.set_result(said)

    def _described(self, snapshot: bytes) -> None:
        self.snapshot = snapshot
        self.version += 1
        if self.entry.status in ENDED:
            self.entry.snapshot = snapshot
        self.wake()

    def _changed(self, kind: int, head: protocol.Head | None) -> None:
        entry = self.entry
        if isinstance(head, protocol.State):
            entry.status = head.status
            entry.restart_count = max(entry.restart_count, head.attempt - 1)
            if entry.started is None and head.status not in ("created", "queued"):
                entry.started = head.time
        elif isinstance(head, protocol.Ended):
            entry.status, entry.stopped, entry.error = head.status, head.time, head.error
            if head.snapshot is not None:
                self.snapshot = entry.snapshot = head.snapshot
                self.version += 1
            self.ended.set()
            if head.clean:
                self._cleaned()
        elif kind == Kind.CLEAN:
            self._cleaned()
        self._note_change()

    def _cleaned(self) -> None:
        self.ended.set()
        self.clean.set()
        self.close()

    def _note_change(self) -> None:
        self.entry.last_update = time.time()
        self.on_change(self)

    def _gone(self, runner: Runner, why: WorkerError) -> None:
        """The runner's process has ended: if it has not said how the job did, this is how."""
        self.runner = None
        self.entry.runner = None
        self.vacant.set()
        for future in self._answers.values():
            if not future.done():
                future.set_result(("JobStateError", f"job {self.entry.name!r} has ended meanwhile"))
        self._answers.clear()
        if self.entry.status in ENDED:
            self._cleaned()
            self._note_change()
        elif self._cannot_keep is not None:
            self.conclude("failed", WorkerError(self._cannot_keep))
        elif self.stop_asked:
            self.note(f"it did not stop when it was asked to, and was ended: {why}; its services were not cleaned up")
            self.conclude("stopped")
        else:
            self.conclude("failed", WorkerError(f"{why}: the job's own process ended before the job did"))
        self.wake()

    def missing_end(self) -> bytes | None:
        """The end of a job that its log does not have, as a record of number 0: there was no room, or the log is gone.
        None where the log has it, or it is still to come. Raises `OSError`."""
        if not self.clean.is_set() or self.spool.has_clean:
            return None
        if self.spool.end is not None:
            return b"".join(record(Kind.CLEAN, 0))
        entry = self.entry
        head = protocol.Ended(
            entry.status, entry.stopped or time.time(), True, entry.error, self._last_snapshot(entry.status, None)
        )
        body = self._end_body
        if not body and entry.error is not None:
            body = pack_buffers([bytes(one) for one in dumps_exception(WorkerError(entry.error))])
        return b"".join(record(Kind.ENDED, 0, head, body))

    def recall_end(self) -> None:
        """Of a job that the history has as unfinished: what its log says of its end, if it had come to that."""
        packed = self.spool.end
        head = None if packed is None else protocol.head_of(Kind.ENDED, packed)
        if head is not None:
            self._changed(Kind.ENDED, head)
            if self.spool.has_clean:
                self._cleaned()

    def _last_snapshot(self, status: str, error: SageError | None) -> bytes | None:
        """The newest description, with the end that it did not see."""
        if self.snapshot is None:
            return None
        seen: dict[str, Any] = msgspec.json.decode(self.snapshot)
        seen["status"] = status
        seen["waiting_for"] = None
        if error is not None:
            seen["error"] = {"type": type(error).__name__, "message": str(error)}
        return msgspec.json.encode(seen)


class _SeenOperator(msgspec.Struct):
    stage: int
    parallelism: int


class _SeenService(msgspec.Struct):
    state: str


class _Seen(msgspec.Struct):
    """What a count of tasks and services needs of a snapshot."""

    operators: list[_SeenOperator] = []
    services: list[_SeenService] = []
