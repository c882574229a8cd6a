"""A task in a process of its own, from within.

The task is the same as in the kernel, with lanes that begin or end here. One thread, the reader, takes frames from
the pipe and puts items into the lanes before the task; another, the writer, takes them from the lanes behind it, sends
them, and then says how many items the task is done with: in this order, so that who hears of it has the results.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from sage_nb.engine import failure as failures
from sage_nb.engine.buffers import Buffer
from sage_nb.engine.channels import ASLEEP, BATCH, Inbox, Lane
from sage_nb.engine.displaying import Bundle, send_displays
from sage_nb.engine.failure import Failure, explain, safe_repr
from sage_nb.engine.frames import ConnectionClosed, Frame
from sage_nb.engine.log import JobLog
from sage_nb.engine.pace import Pace
from sage_nb.engine.results import Results
from sage_nb.engine.shipping import RECEIVED, Known, dumps_items, loads, loads_items
from sage_nb.engine.task import Task
from sage_nb.engine.travelled import dumps_exception, loads_exception
from sage_nb.engine.wire import Say, data, pack, read_data, unpack
from sage_nb.errors import ShippingError
from sage_nb.pipeline.context import Context, ServiceProxy, current
from sage_nb.pipeline.graph import Operator

if TYPE_CHECKING:
    from sage_nb.engine.onray.cluster import Lease

__all__ = ["RemoteHost", "run"]

_COUNTS_EVERY = 0.2
_SELDOM = 0.01
"""Seconds between two sendings from which on a thread that looks for more would do so in vain."""


class WorkerConnection(Protocol):
    """A pipe to the kernel, or what stands for one."""

    def send(self, kind: int, *buffers: Buffer) -> None:
        """Send a message. Any thread may."""

    def receive(self) -> Frame:
        """The next message; waits for it. Raises `ConnectionClosed`."""

    def on_end(self, hook: Callable[[], object]) -> None:
        """Have `hook` called when the kernel is gone."""


_FINISH_WITHIN = 0.2
"""Seconds from a stop for what is on its way."""


def run(connection: WorkerConnection) -> None:
    """Run the task that the first frame describes, to its end. The entry of a worker process."""
    _, buffers = connection.receive()
    send_displays(lambda data, metadata: _show(connection, data, metadata))
    order = loads(buffers)
    failures.CELLS.update(order["cells"])
    attempt = RemoteAttempt(connection, order)
    task = Task(order["stage"], order["index"], attempt)
    links = _Links(task, attempt, order)
    current.set(attempt.context("job"))
    connection.on_end(links.cut)
    threading.Thread(target=links.read, name="sage_nb reader", daemon=True).start()
    opened = task.open()
    if opened:
        connection.send(Say.READY, pack(task.total))
    writer = threading.Thread(target=links.write, name="sage_nb writer", daemon=True)
    writer.start()
    links.begun.wait()
    task.play(opened)
    links.finished()
    writer.join()


def _show(connection: WorkerConnection, data: Bundle, metadata: Bundle) -> None:
    sys.stdout.flush()
    connection.send(Say.DISPLAY, msgspec.msgpack.encode([data, metadata]))


class _Log(JobLog):
    def __init__(self, connection: WorkerConnection) -> None:
        super().__init__()
        self._connection = connection

    def say(self, source: str, text: str, level: str = "INFO") -> None:
        self._connection.send(Say.LOG, pack(source, level, text[:10_000]))


class RemoteHost:
    """The kernel, as what runs here reaches it: its log, and its services. Implements `ServiceCaller`."""

    def __init__(self, connection: WorkerConnection, services: frozenset[str]) -> None:
        self.log: JobLog = _Log(connection)
        self.stop_event = threading.Event()
        self.known: Known = RECEIVED
        self._services = services
        self._connection = connection
        self._numbers = itertools.count()
        self._calls: dict[int, Future[Any]] = {}

    def is_stopping(self) -> bool:
        return self.stop_event.is_set()

    def say(self, text: str, level: str = "INFO") -> None:
        self.log.say("job", text, level)

    def context(self, name: str) -> Context:
        return Context(name, self, self.is_stopping, self.log.logger, say=self.say)

    def service_names(self) -> list[str]:
        return list(self._services)

    def call_async(self, name: str, method: str, args: tuple[Any, ...], kw: dict[str, Any]) -> Future[Any]:
        return self._call(name, method, args, kw, None)

    def call(self, name: str, method: str, args: tuple[Any, ...], kw: dict[str, Any], timeout: float | None) -> Any:
        return self._call(name, method, args, kw, timeout).result()

    def proxy(self, name: str) -> ServiceProxy:
        if name not in self._services:
            self.call(name, "", (), {}, None)  # raises what the kernel says of it
        return ServiceProxy(self, name)

    def _call(
        self, name: str, method: str, args: tuple[Any, ...], kw: dict[str, Any], timeout: float | None
    ) -> Future[Any]:
        future: Future[Any] = Future()
        number = next(self._numbers)
        self._calls[number] = future
        self._connection.send(Say.CALL, pack(number, name, method, timeout), *dumps_items([args, kw], self.known))
        return future

    def answered(self, buffers: list[Any]) -> None:
        number, well = unpack(buffers.pop(0))
        future = self._calls.pop(number)
        try:
            if well:
                future.set_result(loads_items(buffers))
            else:
                future.set_exception(loads_exception(buffers))
        except Exception as exc:  # noqa: BLE001 - what cannot be read here is the caller's to know
            future.set_exception(exc)


class RemoteAttempt(RemoteHost):
    """The job, as the task sees it from here. Implements `task.Attempt`."""

    def __init__(self, connection: WorkerConnection, order: dict[str, Any]) -> None:
        super().__init__(connection, order["services"])
        self.on_error: str = order["on_error"]
        self.inline: bool = order["inline"]
        self.results = Results()
        self.lease: Lease | None = None
        self.resumed = threading.Event()
        self.resumed.set()
        self.failed = False
        self.cut_at = float("inf")

    @property
    def services_host(self) -> RemoteHost:
        return self

    def thread_context(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def is_overdue(self) -> bool:
        return time.monotonic() >= self.cut_at

    def has_failed(self) -> bool:
        return self.failed

    def fail(self, failure: Failure) -> None:
        record = pack(*(failure.subject, failure.operator, failure.item, failure.where, failure.code, failure.text()))
        self._connection.send(Say.FAIL, record, *dumps_exception(failure.exception, self.known))

    def is_current(self, task: Task) -> bool:
        return True

    def unwanted(self, task: Task) -> None:
        """The kernel sees to it."""
        self._connection.send(Say.UNWANTED)

    def caught(self, op: Operator, policy: str, item: Any, exc: Exception) -> None:
        try:
            said = dumps_items([None if policy == "skip" else item], self.known)
        except ShippingError:
            said = dumps_items([safe_repr(item)], self.known)
        parts = [said, dumps_exception(exc, self.known)]
        record = pack(op.id, policy, len(parts[0]))
        self._connection.send(Say.CAUGHT, record, *parts[0], *parts[1])


class _Links:
    """The lanes of the task, and the two threads that lead to and from the pipe."""

    def __init__(self, task: Task, attempt: RemoteAttempt, order: dict[str, Any]) -> None:
        self._task = task
        self._attempt = attempt
        self._connection = attempt._connection
        self._out = Inbox(task.name)
        self._ends: dict[int, tuple[int, int]] = {}
        self._paces: dict[Lane, Pace] = {}
        self._over = False
        self._is_cut = False
        self._dropped = 0
        """How many results a stop has dropped."""
        self.begun = threading.Event()
        if task.inbox is not None:
            for tag, keyed, stamped, first in order["inputs"]:
                lane = Lane(task.inbox, tag, keyed=keyed, stamped=stamped)
                lane.first, lane.capacity = first, 4 * order["window"]
            task.inbox.on_done = self._out.rouse
            task.inbox.fine = order["pool"]
        for number, lanes in order["outputs"].items():
            for target, (keyed, stamped, sequenced, feedback) in enumerate(lanes):
                lane = Lane(self._out, 0, keyed=keyed, stamped=stamped)
                lane.feedback = feedback
                lane.sequence = [] if sequenced else None
                task.lanes[number].append(lane)
                self._ends[lane.origin] = (number, target)
                self._paces[lane] = Pace(order["window"])

    # From the pipe

    def read(self) -> None:
        try:
            while True:
                kind, buffers = self._connection.receive()
                self._take(Say(kind), buffers)
        except ConnectionClosed:
            self.cut()
        except BaseException as exc:  # noqa: BLE001 - what cannot be read here is the job's failure
            op = self._task.stage.operators[0]
            self._attempt.fail(
                explain(exc, f"reading what came for operator {op.name!r} ({op.kind})", operator=op.name)
            )
            self.cut()

    def _take(self, kind: Say, buffers: list[Any]) -> None:
        inbox = self._task.inbox
        if kind is Say.DATA and inbox is not None:
            (number,), columns = read_data(buffers)
            inbox.lanes[number].extend(*columns[:4])
        elif kind is Say.MARK and inbox is not None:
            number, mark = unpack(buffers[0])
            inbox.lanes[number].advance(mark)
        elif kind is Say.IDLE and inbox is not None:
            inbox.lanes[unpack(buffers[0])[0]].rest()
        elif kind is Say.END and inbox is not None:
            inbox.lanes[unpack(buffers[0])[0]].end()
        elif kind is Say.STATE:
            self._state(*unpack(buffers[0]))
        elif kind is Say.CLOSED:
            number, target = unpack(buffers[0])
            self._task.lanes[number][target].close()
        elif kind is Say.TAKEN:
            number, target, taken = unpack(buffers[0])
            self._task.lanes[number][target].done = taken
            self._out.rouse()
        elif kind is Say.REPLY:
            self._attempt.answered(buffers)
        elif kind is Say.LOOK:
            self._task.sample()

    def _state(self, begun: bool, stopping: bool, failed: bool, paused: bool) -> None:
        attempt = self._attempt
        if failed:
            attempt.failed = True
        if stopping and not attempt.stop_event.is_set():
            attempt.cut_at = time.monotonic() + _FINISH_WITHIN
            attempt.stop_event.set()
            timer = threading.Timer(_FINISH_WITHIN, self._task.stop)
            timer.daemon = True
            timer.start()
        if paused and not stopping:
            attempt.resumed.clear()
        else:
            attempt.resumed.set()
        if begun or stopping:
            self.begun.set()
        self._task.stop()

    def cut(self) -> None:
        """The kernel is gone: leave at once, and close what was opened."""
        self._state(True, True, True, False)

    # To the pipe

    def finished(self) -> None:
        """The task has left."""
        self._over = True
        self._out.rouse()

    def write(self) -> None:
        """Send what comes out, until the task has left and all is sent."""
        moments, told, last = 0, 0.0, 0.0
        inbox = self._task.inbox
        done = [0] * (0 if inbox is None else len(inbox.lanes))
        pending: tuple[list[int], list[int]] | None = None
        try:
            while True:
                over = self._over
                if self._attempt.is_overdue() and not self._is_cut:
                    self._drop()
                if pending is None:  # how far the task is, and what has come of it
                    now_done = [] if inbox is None else [lane.done for lane in inbox.lanes]
                    pending = now_done, [lane.appended() for lane in self._out.lanes]
                sent = self._send_items()
                if all(map(_has_sent, self._out.lanes, pending[1])):
                    sent = self._acknowledge(done, pending[0]) or sent
                    done, pending = pending[0], None
                if over and (self._attempt.has_failed() or not any(map(_is_waiting, self._out.lanes))):
                    self._acknowledge(done, [] if inbox is None else [lane.done for lane in inbox.lanes])
                    break
                if time.monotonic() - told > _COUNTS_EVERY:
                    self._send_counts()
                    told = time.monotonic()
                if sent:  # few and far between, the next is to wake this thread, which need not look for it
                    seldom, last = time.monotonic() - last > _SELDOM, time.monotonic()
                    moments = ASLEEP if seldom else 0
                else:
                    moments += 1
                if not sent and any(map(_is_waiting, self._out.lanes)):
                    self._out.wait_for_word()  # as much is on its way as may be
                elif not sent or moments:
                    self._out.wait(moments, _COUNTS_EVERY)
            self._send_counts()
            self._connection.send(Say.DONE)
        except BrokenPipeError:
            return
        except BaseException as exc:  # noqa: BLE001 - a result that cannot travel is the job's failure
            op = self._task.stage.operators[-1]
            self._attempt.fail(explain(exc, f"sending what came of operator {op.name!r} ({op.kind})", operator=op.name))
            self._connection.send(Say.DONE)

    def _acknowledge(self, before: list[int], now: list[int]) -> bool:
        """Say how many items of each lane the task is done with. Whether there was something to say."""
        more = [number for number, count in enumerate(now) if count > before[number]]
        for number in more:
            self._connection.send(Say.ACK, pack(number, now[number]))
        return bool(more)

    def _drop(self) -> None:
        """A stop is overdue: what waits to be sent is not. What is at work still is, once it is finished."""
        self._is_cut = True
        for lane in self._out.lanes:
            lane.drop()
            self._dropped += lane.dropped

    def _send_items(self) -> bool:
        """Send what is in the lanes. What a lane's sender says of all its items is read before these are taken."""
        sent = False
        for lane in self._out.lanes:
            end = self._ends[lane.origin]
            mark = lane.watermark
            pace = self._paces[lane]
            while lane.items and (room := _room(lane, pace)) > 0:
                count, sequence = min(len(lane.items), room, pace.at_once()), None
                if lane.sequence is not None:
                    sequence = lane.sequence[:count]
                    del lane.sequence[:count]
                frame = data((*end, self._is_cut), (*lane.take(count), sequence), self._attempt.known)
                pace.sent(count, frame)
                pace.limit(lane)
                self._connection.send(Say.DATA, *frame)
                sent = True
            if lane.items:
                continue
            if mark > lane.mark:
                lane.mark = mark
                self._connection.send(Say.MARK, pack(*end, mark))
            if lane.idle and not lane.items:
                lane.idle = False
                self._connection.send(Say.IDLE, pack(*end))
        return sent

    def _send_counts(self) -> None:
        task = self._task
        counts = [(one.items_in, one.items_out) for one in task._counts()]
        position = task.position()
        site = None if position.site is None else (position.site.filename, position.site.lineno)
        closing = task.closing.name if task.closing is not None else None
        dropped = self._dropped + sum(task.held_back.values())
        self._connection.send(
            Say.COUNTS,
            pack(
                *(counts, task.errors, task.looks, task.seen, [list(times) for times in task.times]),
                *(task.fraction(), position.index, site, closing, task.late(), task.blocked(), dropped),
            ),
        )


def _room(lane: Lane, pace: Pace) -> int:
    """How many items may be sent now. `done` is what was taken from the lane's other half, in the kernel."""
    return BATCH if lane.feedback else pace.window() - (lane.taken - lane.done)


def _is_waiting(lane: Lane) -> bool:
    """Whether it holds items that somebody wants."""
    return bool(lane.items) and not lane.closed


def _has_sent(lane: Lane, count: int) -> bool:
    return lane.closed or lane.taken + lane.dropped >= count
