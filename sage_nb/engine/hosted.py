"""A task in a process of its own, from the kernel's side.

It has the lanes that any task has. One thread takes items from those before it and sends them to the process; the
task's own thread takes what comes back and puts it into the lanes behind. `worker` is the other side.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from sage_nb.engine.answering import Answers
from sage_nb.engine.channels import Inbox, Lane
from sage_nb.engine.child import Child, start
from sage_nb.engine.displaying import publish
from sage_nb.engine.failure import Failure, add_note, cells, describe_site, explain
from sage_nb.engine.loops import Counts, LoopEnded
from sage_nb.engine.pace import Pace
from sage_nb.engine.shipping import Known, dumps, loads_items
from sage_nb.engine.stages import Stage, is_pool
from sage_nb.engine.task import Attempt, Position, Task
from sage_nb.engine.travelled import loads_exception
from sage_nb.engine.unshippable import captured_containers, what_travels
from sage_nb.engine.wire import ACTOR_WINDOW, WINDOW, Say, data, pack, read_data, unpack
from sage_nb.errors import ClusterError, WorkerError
from sage_nb.pipeline.graph import Site

if TYPE_CHECKING:
    from sage_nb.engine.onray.hosting import Actor

__all__ = ["HostedTask"]

_ENTRY = "sage_nb.engine.worker:run"


class HostedTask(Task):
    """One instance of one stage, in a process that ends with it."""

    def __init__(self, stage: Stage, index: int, attempt: Attempt) -> None:
        super().__init__(stage, index, attempt)
        self._child: Child | Actor | None = None
        self._window = ACTOR_WINDOW if stage.place == "actor" else WINDOW
        self._known: Known = {}
        self._counted = [Counts(0, 0)] * len(stage.members)
        self._where = Position(None, [], None)
        self._closing_name: str | None = None
        self._shared: float | None = None
        self._late = {}
        self._held = 0.0
        self._writer: threading.Thread | None = None
        self._orders: deque[tuple[Say, bytes]] = deque()
        self._post = Inbox(self.name) if self.inbox is None else self.inbox
        """What wakes the thread that sends."""
        self._begun = False
        self._dropped = 0
        self._told: dict[Lane, int] = {}
        self._paces: dict[Lane, Pace] = {}
        self._answers = Answers(self.name, attempt.services_host, self._known)
        self._done = False
        self._failed = False

    # On the task's own thread

    def open(self) -> bool:
        self.thread = threading.current_thread()
        try:
            if self.index == 0:
                self._warn_of_copies()
            order = dumps(self._order(), parts=self._parts(), known=self._known)
            self._child = self._start_child()
            self._child.send(Say.INIT, *order)
            for number, lanes in self.lanes.items():
                for target, lane in enumerate(lanes):
                    lane.sender = self
                    if not lane.feedback:  # the process keeps to the window, and who reads from it is never held
                        lane.shared, lane.capacity = False, 4 * self._window
                        lane.on_taken = partial(self._tell_taken, number, target, lane)
                    lane.on_closed = partial(self._tell, Say.CLOSED, number, target)
            self._writer = threading.Thread(
                target=copy_context().run, args=(self._write,), name=f"sage_nb to {self.name}", daemon=True
            )
            self._writer.start()
            while not self.ready.is_set() and not self._done and not self._failed:
                self._take(*self._child.receive())
                if self.attempt.is_stopping():
                    return False
        except BaseException as exc:  # noqa: BLE001 - whatever goes wrong is the job's failure
            self._crashed(exc)
            return False
        return not self._failed

    def _start_child(self) -> Child | Actor:
        lease = self.attempt.lease
        if self.stage.place != "actor" or lease is None:
            return start(_ENTRY, name=self._subject(), on_output=self._print)
        from sage_nb.engine.onray.hosting import start as start_actor

        spread = self.stage.parallelism > 1
        return start_actor(_ENTRY, lease, self.stage.ray, name=self._subject(), spread=spread, on_output=self._print)

    def play(self, opened: bool) -> None:
        try:
            self._begun = opened and not self.attempt.is_stopping()
            self._send_state()
            self._read()
        except LoopEnded:
            pass
        except BaseException as exc:  # noqa: BLE001 - whatever goes wrong is the job's failure
            self._crashed(exc)
        self.leave()

    def leave(self) -> None:
        self._done = True
        self._end_lanes()
        self.ready.set()
        self._post.rouse()
        child = self._child
        if child is not None:
            if self._failed or self.abandoned:
                child.kill()
            child.close()
        if self._writer is not None:
            self._writer.join()
        self._answers.close()
        self._child = None
        with self._lock:
            self._gone = True
        self.ended.set()

    def _read(self) -> None:
        child = self._child
        if child is None:
            return
        while not self._done:
            self._take(*child.receive())

    def _crashed(self, exc: BaseException) -> None:
        if self.abandoned or self._done or self._failed:
            return
        self._failed = True
        op = self.stage.operators[0]
        if isinstance(exc, ClusterError):
            self.attempt.fail(explain(exc, "the cluster"))
            return
        if isinstance(exc, WorkerError):
            add_note(exc, f"sage_nb: it ran {', '.join(repr(one.name) for one in self.stage.operators)}")
        self.attempt.fail(
            explain(
                exc, f"the {self.stage.place} of operator {op.name!r} ({op.kind})", operator=op.name, declared=op.site
            )
        )

    # What the process is told

    def _warn_of_copies(self) -> None:
        """A sink that fills a list of the user's fills a copy of it there."""
        where = "an actor" if self.stage.place == "actor" else "a process"
        for op in self.stage.operators:
            if op.kind == "sink" and not op.spec.is_class and (names := captured_containers(op.spec.target)):
                filled = ", ".join(names)
                self.attempt.say(
                    f"sink {op.name!r} runs in {where}: it fills a copy of {filled}, not yours; use collect()",
                    "WARNING",
                )

    def _subject(self) -> str:
        op = self.stage.operators[0]
        number = f" {self.index + 1} of {self.stage.parallelism}" if self.stage.parallelism > 1 else ""
        return f"the {self.stage.place}{number} of {op.kind} {op.name!r}"

    def _parts(self) -> dict[str, Any]:
        return {f"operator {op.name!r} ({op.kind})": what_travels(op.spec) for op in self.stage.operators}

    def _order(self) -> dict[str, Any]:
        lanes = [] if self.inbox is None else self.inbox.lanes
        return {
            "stage": self.stage,
            "index": self.index,
            "on_error": self.attempt.on_error,
            "inline": self.attempt.inline,
            "cells": cells(),
            "services": frozenset(self.attempt.service_names()),
            "pool": is_pool(self.stage),
            "window": self._window,
            "inputs": [(lane.tag, lane.keys is not None, lane.marks is not None, lane.first) for lane in lanes],
            "outputs": {
                number: [
                    (one.keys is not None, one.marks is not None, one.sequence is not None, one.feedback)
                    for one in found
                ]
                for number, found in self.lanes.items()
            },
        }

    def _tell(self, kind: Say, *values: Any) -> None:
        """Have an order sent. Not here: a process that holds its lock reads nothing, and its pipe may be full."""
        self._orders.append((kind, pack(*values)))
        self._post.rouse()

    def _tell_taken(self, number: int, target: int, lane: Lane) -> None:
        """Let the process send more. Called by whoever has taken items."""
        gone, window = lane.taken + lane.dropped, self._pace(lane).window()
        untold = gone - self._told.get(lane, 0)
        if untold >= self._window // 4 or (window < self._window and untold and not lane.items):
            self._told[lane] = gone
            self._tell(Say.TAKEN, number, target, gone)

    def _send_state(self) -> None:
        attempt = self.attempt
        self._tell(Say.STATE, self._begun, attempt.is_stopping(), attempt.has_failed(), not attempt.resumed.is_set())

    def _write(self) -> None:
        """Send orders and items, until the process has said that it is done."""
        post, moments = self._post, 0
        try:
            while not self._done:
                if self.is_cut():
                    self._cut()
                if self._send_orders() or (not self.must_leave() and self._send_items()):
                    moments = 0
                elif post.queued():  # as much is with the process as may be
                    post.wait_for_word()
                elif not post.comes_to_rest():
                    post.wait(moments)
                    moments += 1
        except (WorkerError, ClusterError):
            return  # who reads from it says so
        except BaseException as exc:  # noqa: BLE001 - an item that cannot travel is the job's failure
            self._crashed(exc)
            if self._child is not None:
                self._child.kill()

    def _send_orders(self) -> bool:
        child, sent = self._child, False
        while self._orders and child is not None:
            child.send(*self._orders.popleft())
            sent = True
        return sent

    def _send_items(self) -> bool:
        inbox, child, sent = self.inbox, self._child, False
        if inbox is None or child is None:
            return False
        for lane in inbox.by_rank():
            ended, mark = lane.ended, lane.watermark
            pace = self._pace(lane)
            while lane.items and (room := pace.window() - (lane.taken - lane.done)) > 0:
                columns = lane.take(min(room, pace.at_once()))
                frame = data((lane.origin,), (*columns, None), self._known)
                pace.sent(len(columns[0]), frame)
                pace.limit(lane)
                child.send(Say.DATA, *frame)
                lane.idles, sent = False, True
            if lane.items:
                continue
            if lane.idle and not lane.items:
                lane.idle = False
                if not lane.idles:
                    lane.idles = True
                    child.send(Say.IDLE, pack(lane.origin))
            if mark > lane.mark:
                lane.mark = mark
                child.send(Say.MARK, pack(lane.origin, mark))
            if ended:
                child.send(Say.END, pack(lane.origin))
                inbox.lane_over(lane)
        return sent

    # What the process says

    def _take(self, kind: int, buffers: list[Any]) -> None:
        if kind == Say.DATA:
            number, target, at_work = unpack(buffers[0])
            self._deliver(self.lanes[number][target], buffers, at_work)
        elif kind == Say.MARK:
            number, target, mark = unpack(buffers[0])
            self.lanes[number][target].advance(mark)
        elif kind == Say.ACK:
            self._acknowledged(*unpack(buffers[0]))
        elif kind == Say.COUNTS:
            self._take_counts(*unpack(buffers[0]))
        elif kind == Say.CALL:
            child = self._child
            if child is not None:
                self._answers.take(buffers, child.send)
        elif kind == Say.LOG:
            source, level, text = unpack(buffers[0])
            if source == "job":
                self.attempt.say(text, level)
            else:
                self.attempt.log.say(source, text, level)
        elif kind == Say.DISPLAY:
            with self.attempt.thread_context():
                publish(*msgspec.msgpack.decode(buffers[0]))
        elif kind == Say.READY:
            (self.total,) = unpack(buffers[0])
            self.ready.set()
        elif kind == Say.FAIL:
            self._take_failure(unpack(buffers[0]), buffers[1:])
        elif kind == Say.CAUGHT:
            self._take_caught(unpack(buffers[0]), buffers[1:])
        elif kind == Say.IDLE:
            number, target = unpack(buffers[0])
            self.lanes[number][target].rest()
        elif kind == Say.UNWANTED:
            self.attempt.unwanted(self)
        elif kind == Say.DONE:
            self._done = True

    def _pace(self, lane: Lane) -> Pace:
        found = self._paces.get(lane)
        if found is None:
            found = self._paces[lane] = Pace(self._window)
        return found

    def _deliver(self, lane: Lane, buffers: list[Any], at_work: bool) -> None:
        """`at_work` says that the items were in work when a stop came, and not waiting."""
        _, (items, keys, times, marks, sequence) = read_data(buffers)
        if self.is_cut() and not at_work:
            lane.dropped += len(items)
            return
        self._pace(lane).sent(len(items), buffers)
        if lane.sequence is not None:
            lane.sequence.extend(sequence)
        lane.extend(items, keys, times, marks)

    def _acknowledged(self, number: int, done: int) -> None:
        inbox = self.inbox
        assert inbox is not None
        inbox.lanes[number].done = done
        if is_pool(self.stage) and self.order is not None:
            self.order.acknowledge(self.index, done)
        inbox.rouse()
        if inbox.circle is not None:
            inbox.circle.rouse()

    def _take_counts(
        self, counts: Any, errors: Any, looks: int, seen: Any, times: Any, share: float | None, index: int | None,
        site: Any, closing: str | None, late: dict[int, int], held: float, dropped: int,
    ) -> None:  # fmt: skip
        self._counted = [Counts(*one) for one in counts]
        self.errors, self.looks, self.seen = errors, looks, seen
        self.times = [deque(one, maxlen=512) for one in times]
        self._shared, self._closing_name, self._late, self._held = share, closing, late, held
        self._dropped = dropped
        self._where = Position(index, [], None if site is None else Site(*site))

    def _take_failure(self, record: Any, buffers: list[Any]) -> None:
        self._failed = True
        if self.abandoned or not self.attempt.is_current(self):
            return
        subject, operator, item, where, code, text = record
        exc = loads_exception(buffers)
        self.attempt.fail(Failure(exc, exc.__traceback__, subject, operator, item, where, code, remote=text))

    def _take_caught(self, record: Any, buffers: list[Any]) -> None:
        id, policy, count = record
        (item,) = loads_items(buffers[:count])
        op = next(op for op in self.stage.operators if op.id == id)
        exc = loads_exception(buffers[count:])
        self.attempt.caught(op, policy, item, exc if isinstance(exc, Exception) else RuntimeError(str(exc)))

    def _print(self, text: str, stream: str = "stdout") -> None:
        with self.attempt.thread_context():
            file = sys.stderr if stream == "stderr" else sys.stdout
            file.write(text)
            file.flush()

    # From other threads

    @property
    def left_behind(self) -> str:
        """What is said of it once it was given up."""
        return "did not return; it was killed" if self._is_there() else "was not there yet; it is not waited for"

    def _is_there(self) -> bool:
        """Whether its process is: an actor may have to wait for its place."""
        child = self._child
        return child is None or child.is_there()

    def stop(self) -> None:
        self._send_state()

    def sample(self) -> None:
        self._tell(Say.LOOK)

    def abandon(self) -> bool:
        with self._lock:
            if self._gone or self.abandoned:
                return False
            self.abandoned = True
        child = self._child
        if child is not None:
            child.kill()
        self._end_lanes()
        self.ready.set()
        return True

    def position(self) -> Position:
        return self._where

    def waits_for_input(self) -> bool:
        return False

    def waits_in_source(self) -> bool:
        return (self.inbox is None and self._where.index == 0) or not (self.ready.is_set() or self._is_there())

    def where(self) -> str:
        text = self._subject()
        if self._closing_name is not None:
            text = f"close() of {self._closing_name!r} in {text}"
        return f"{text} ({describe_site(self._where.site)})" if self._where.site else text

    def _counts(self) -> list[Counts]:
        return self._counted

    def queued(self) -> int:
        inbox = self.inbox
        return 0 if inbox is None else inbox.queued() + sum(lane.taken - lane.done for lane in inbox.lanes)

    def left(self) -> int:
        return super().left() + self._dropped

    def blocked(self) -> float:
        return self._held

    def late(self) -> dict[int, int]:
        return self._late or {}

    def fraction(self) -> float | None:
        return self._shared
