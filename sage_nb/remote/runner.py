"""A runner: the process in which a server runs one job.

It is started before there is a job, imports what jobs need, and waits. Then it gets the job's payload, as the name of a
file, and is a small kernel with one environment in it. It ends with its job. When the server is gone it stops the job,
has the services cleaned up, and ends.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
import threading
import time
from contextlib import nullcontext
from types import FrameType
from typing import Any

import msgspec

from sage_nb.engine import failure
from sage_nb.engine.childmain import ChildConnection
from sage_nb.engine.dispatcher import Dispatcher
from sage_nb.engine.displaying import send_displays
from sage_nb.engine.failure import headline
from sage_nb.engine.frames import ConnectionClosed
from sage_nb.engine.shipping import RECEIVED
from sage_nb.engine.travelled import dumps_exception
from sage_nb.errors import SageError, ShippingError
from sage_nb.jobs.environment import LocalEnvironment
from sage_nb.jobs.job import Job
from sage_nb.jobs.manager import JobManager, use_thread_context
from sage_nb.remote import protocol
from sage_nb.remote.cluster import use_token
from sage_nb.remote.outbox import Outbox
from sage_nb.remote.payload import PayloadHead, read_head, read_work
from sage_nb.remote.protocol import Kind, Order, pack_buffers

__all__ = ["GRACE", "Run", "main"]

GRACE = 10.0
"""Seconds that a job's services have to clean up when the server is gone."""
_TERM_GRACE = 2.0
_unpack = msgspec.msgpack.decode
_pack = msgspec.msgpack.encode


class Run(msgspec.Struct, frozen=True):
    """What a runner is told of its job."""

    uuid: str
    payload: str
    """The file that has it."""
    folder: str | None = None
    """Where it is to run; None for where the server does."""
    backend: str | None = None
    ray: dict[str, Any] | None = None
    ray_token: str | None = None
    """What the cluster of `ray` asks for."""
    memory_limit: int | None = None
    """Bytes of address space."""
    spool_limit: int = 1 << 30
    """Bytes that the job's log keeps."""


class _Terminated(BaseException):
    """A signal asked this process to end."""


def main(connection: ChildConnection) -> None:
    """Live as a runner: called in a process of its own."""
    connection.grace = GRACE
    _Runner(connection).live()


class _Runner:
    def __init__(self, connection: ChildConnection) -> None:
        self._connection = connection
        self._outbox = Outbox(connection)
        self._job: Job | None = None
        self._run: Dispatcher | None = None
        self._ending = False

    def live(self) -> None:
        signal.signal(signal.SIGTERM, self._terminated)
        try:
            self._connection.send(Order.WARM)
            kind, buffers = self._connection.receive()
            while kind != Order.RUN:
                kind, buffers = self._connection.receive()
            self._begin(msgspec.msgpack.decode(buffers[0], type=Run))
            self._serve()
        except ConnectionClosed:
            self._end_within(GRACE)
        except _Terminated:
            self._end_within(_TERM_GRACE)

    def _terminated(self, _number: int, _frame: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            raise _Terminated

    def _begin(self, order: Run) -> None:
        self._outbox.log_keeps = order.spool_limit
        if order.memory_limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, (order.memory_limit, order.memory_limit))
        if order.folder is not None and os.path.isdir(order.folder):
            os.chdir(order.folder)
        for name in ("stdout", "stderr"):
            setattr(sys, name, _Stream(self._outbox, name))
        send_displays(self._outbox.display)
        try:
            self._submit(order)
        except BaseException as exc:
            if isinstance(exc, _Terminated):
                raise
            self._failed(exc)

    def _submit(self, order: Run) -> None:
        data = memoryview(bytearray(os.path.getsize(order.payload)))  # arrays in it can be written to
        with open(order.payload, "rb") as file:
            file.readinto(data)
        found = read_head(data)
        assert found is not None
        head = found[0]
        if order.ray_token is not None:
            use_token(order.ray_token)  # before the user's modules, which may import Ray
        graph, config, cells = read_work(data)
        failure.CELLS.update(cells)
        if order.ray is not None:
            config = {**config, "ray": {**order.ray, **config.get("ray", {})}}
        env = LocalEnvironment(head.environment, config, head.backend or order.backend or "threads")
        env._graph = graph
        job = self._start(env, head, order.uuid)
        for warning in head.warnings:
            job._dispatcher.say(warning, "WARNING")

    def _start(self, env: LocalEnvironment, head: PayloadHead, uuid: str) -> Job:
        use_thread_context(lambda: nullcontext, lambda: head.watched)
        manager = _Manager(self._outbox)
        job = env._submit(
            head.autostop,
            head.timeout,
            head.cleanup,
            head.name,
            head.on_error,
            manager=manager,
            uuid=uuid,
            results=self._outbox.results,
            on_restart=self._outbox.begin_anew,
        )
        self._job, self._run = job, manager.run
        return job

    def _failed(self, exc: BaseException) -> None:
        """There is no job to tell of: it could not even be put together."""
        if not isinstance(exc, SageError):
            exc = _unreadable(exc)
        error = [bytes(one) for one in dumps_exception(exc, RECEIVED)]
        ended = protocol.Ended("failed", time.time(), True, headline(exc))
        self._connection.send(Kind.ENDED, _pack(ended), *pack_buffers(error))

    def _serve(self) -> None:
        """Do as the server says, until the job has ended, and everything has been told."""
        run = self._run
        if run is None:
            return
        threading.Thread(target=self._hear, name="sage_nb orders", daemon=True).start()
        while not run.clean.wait(0.2):
            continue  # a signal that comes just before a thread blocks does not wake it
        self._outbox.join()

    def _hear(self) -> None:
        try:
            while True:
                self._obey(*self._connection.receive())
        except (ConnectionClosed, OSError):
            self._outbox.lose()
            run = self._run
            if run is not None:
                run.hurry(GRACE * 0.8)

    def _obey(self, kind: int, buffers: list[bytearray]) -> None:
        job, run = self._job, self._run
        assert job is not None
        assert run is not None
        value: Any = _unpack(buffers[0]) if buffers else None
        if kind in (Order.PAUSE, Order.RESUME):
            try:
                job.pause() if kind == Order.PAUSE else job.resume()
                said = None
            except SageError as exc:
                said = (type(exc).__name__, str(exc))
            self._connection.send(Order.ANSWER, _pack((value, said)))
        elif kind == Order.STOP:
            run.stop(value)
        elif kind == Order.WATCHED:
            self._outbox.watch(value)
        elif kind == Order.TAKEN:
            self._outbox.taken(value)
        elif kind == Order.HOLD:
            self._outbox.held = value

    def _end_within(self, seconds: float) -> None:
        self._outbox.lose()
        run = self._run
        if run is not None:
            run.hurry(seconds * 0.8)
            run.clean.wait(seconds)


class _Manager(JobManager):
    """Tells the outbox of the one job it has."""

    def __init__(self, outbox: Outbox) -> None:
        super().__init__()
        self._outbox = outbox
        self.run: Dispatcher | None = None

    def _say_failures(self) -> None:
        """The outbox has."""

    def _start(self, job: Job) -> None:  # type: ignore[override]
        assert isinstance(job._dispatcher, Dispatcher)
        self.run = job._dispatcher
        job._listen(self._outbox.changed)
        self._outbox.begin(job, job._dispatcher)
        job._dispatcher.start()


class _Stream(io.TextIOBase):
    """`sys.stdout` or `sys.stderr` of a runner: what is printed goes to whoever watches the job."""

    def __init__(self, outbox: Outbox, name: str) -> None:
        self._outbox = outbox
        self._name = name

    def write(self, text: str) -> int:
        if text:
            self._outbox.print(text, self._name)
        return len(text)

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"


def _unreadable(exc: BaseException) -> BaseException:
    error = ShippingError(f"the pipeline could not be put together on the server: {headline(exc)}")
    error.__cause__ = exc
    return error
