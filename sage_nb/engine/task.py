"""One task: an instance of a stage on a thread of its own, from its functions' constructors to their `close()`.

The task itself knows nothing of the job's end. It is told to stop by `stop()`, which makes the loop leave at the
next item; if the user's code does not come back, the dispatcher calls `abandon()` and goes on without it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from sage_nb.engine import turns
from sage_nb.engine.batches import Batcher, length
from sage_nb.engine.building import Built, build
from sage_nb.engine.channels import Inbox, Lane
from sage_nb.engine.failure import Failure, describe_site, explain, headline, loop_frames, user_line
from sage_nb.engine.inline import Woven, as_called
from sage_nb.engine.log import JobLog
from sage_nb.engine.loops import FILENAME, Counts, Line, Loop, LoopEnded, Made, Node, taken_of
from sage_nb.engine.nodes import nodes_of
from sage_nb.engine.order import Order, in_order
from sage_nb.engine.outlets import outlet
from sage_nb.engine.results import Result, Results
from sage_nb.engine.stacks import stack_of
from sage_nb.engine.stages import Stage
from sage_nb.engine.stamps import Stamp
from sage_nb.engine.takes import Takes
from sage_nb.engine.writing import Parts, generate, make
from sage_nb.errors import JobStateError
from sage_nb.pipeline.context import AsyncContext, Context, ServiceCaller
from sage_nb.pipeline.functions import BaseFunction, FlatMapFunction
from sage_nb.pipeline.graph import Operator, Site
from sage_nb.pipeline.sources import Reader

if TYPE_CHECKING:
    from sage_nb.engine.onray.cluster import Lease

__all__ = ["Attempt", "Position", "Task"]

_BURST = 16
_FIRST_PAUSE = 0.001
_NAP = 0.2
"""A source that sleeps looks so often whether anybody still wants its items."""
_SAMPLES = 512


class Attempt(Protocol):
    """The run that a task is part of, as far as the task needs it."""

    on_error: str
    inline: bool
    log: JobLog
    results: Results
    stop_event: threading.Event
    resumed: threading.Event
    lease: Lease | None

    @property
    def services_host(self) -> ServiceCaller:
        """How functions reach services."""

    def service_names(self) -> list[str]:
        """What services there are."""

    def thread_context(self) -> AbstractContextManager[Any]:
        """What a thread of the job runs in, so that what it prints goes where the job's does."""

    def is_stopping(self) -> bool:
        """Whether a stop was asked for, or something failed."""

    def is_overdue(self) -> bool:
        """Whether a stop was asked for so long ago that what waits is not begun any more."""

    def has_failed(self) -> bool:
        """Whether nothing of what is on its way counts any more."""

    def fail(self, failure: Failure) -> None:
        """Something failed."""

    def say(self, text: str, level: str = "INFO") -> None:
        """A line for the log; from WARNING on, a note of the job too."""

    def is_current(self, task: Task) -> bool:
        """Whether the task is of the attempt that runs, and not of one before."""

    def unwanted(self, task: Task) -> None:
        """Nobody wants the items of a source any more: it ends, also where it is waiting for one."""

    def caught(self, op: Operator, policy: str, item: Any, exc: Exception) -> None:
        """An item failed, and the operator's policy takes it."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a task is: the node's index, or None outside the loop; the lines of the loop's frames, outermost first;
    and the user's line if it is in one."""

    index: int | None
    lines: list[Line]
    site: Site | None


class Task:
    """One instance of one stage. `inbox` is where its items come from; None for a source. `lanes` are those that lead
    out, by the number of the edge."""

    def __init__(self, stage: Stage, index: int, attempt: Attempt) -> None:
        self.stage = stage
        self.index = index
        self.name = stage.name if stage.parallelism == 1 else f"{stage.name}[{index}]"
        self.attempt = attempt
        self.inbox = None if stage.head == "source" else Inbox(self.name)
        self.lanes: dict[int, list[Lane]] = {edge.number: [] for edge in stage.outputs}
        self.senders: dict[int, Callable[..., None]] = {}
        """Outlets that several tasks share, by the number of the edge."""
        self.order: Order | None = None
        """Of the processes that share a stream's items, and of what puts their results in order."""
        self.thread: threading.Thread | None = None
        self.ready = threading.Event()
        self.ended = threading.Event()
        self.abandoned = False
        self.failed_at: int | None = None
        self.reader: Reader | None = None
        self.total: int | None = None
        self.looks = 0
        count = len(stage.members)
        self.seen = [0] * count
        self.errors = [0] * count
        self.times: list[deque[float]] = [deque(maxlen=_SAMPLES) for _ in range(count)]
        self.closing: Operator | None = None
        """The operator whose close() runs."""
        self._built: list[Built] = []
        self._stamps: list[Stamp] = []
        self._instances: list[tuple[Operator, Any]] = []
        self._loop: Loop | None = None
        self._made: Made | None = None
        self._woven: Woven | None = None
        self._takes: Takes | None = None
        self._burst = 0
        self._turn: turns.Turn | None = None
        self._opening = False
        self._leaving = False
        self._gone = False
        self._lock = threading.Lock()
        self._final: list[Counts] | None = None
        self._late: dict[int, int] | None = None
        self.held_back: dict[str, int] = {}
        """How many items wait in vain for the rest of their batch, by the operator's name; known once it has left."""
        self._is_cut = False

    def __repr__(self) -> str:
        return f"<Task {self.name!r}: {len(self.stage.operators)} operators>"

    @property
    def left_behind(self) -> str:
        """What is said of it once it was given up."""
        return "did not return; its thread is left to end when it does"

    # On the task's own thread

    def open(self) -> bool:
        """Make the functions and the loop. False where that failed, which the job has been told."""
        self.thread = threading.current_thread()
        op = self.stage.operators[0] if self.stage.operators else None
        try:
            kind, delay = "inbox", None
            if op is not None and op.kind == "source":
                source_spec, delay = op.spec
                self._opening = True
                try:
                    self.reader = source_spec.open(partial(self.make, op))
                finally:
                    self._opening = False
                self.total = self.reader.total
                kind = self._source_kind(self.reader, delay)
            nodes = nodes_of(self.stage, kind, self.attempt.on_error)
            self._built = [Built()]
            for i, member in enumerate(self.stage.members[1:], 1):
                if member.edge is not None:
                    self._built.append(self._way_out(i, nodes[i]))
                elif member.op is not None:
                    op = member.op
                    self._built.append(build(self, i, op, nodes[i], nodes[member.upstream]))
            op = self.stage.operators[0] if self.stage.operators else None
            self._make_loop(nodes, kind, delay)
        except LoopEnded:
            return False
        except BaseException as exc:  # noqa: BLE001 - whatever a constructor raises is the job's failure
            self._fail(exc, op)
            return False
        return True

    def run(self) -> None:
        """Run the loop to its end, and say how it ended."""
        try:
            lines = self._through()
            if not self.attempt.is_stopping():  # what a stop cuts short is not complete
                self._finish()
        except LoopEnded as end:
            lines = _lines(loop_frames(end.__traceback__))
            end.__traceback__ = None
            self._freeze(lines)
        except BaseException as exc:  # noqa: BLE001 - whatever user code raises is the job's failure
            self._loop_failed(exc)
        else:
            self._freeze(lines)

    def _through(self) -> list[Line]:
        """Run the loop. Where it is left because no take wants more, that is the stream's end for what is behind: the
        lines that the loop was at."""
        made, takes = self._made, self._takes
        assert made is not None
        assert takes is not None
        if takes.all_closed():
            return []
        try:
            if self.stage.head == "async":
                from sage_nb.engine.asynchronous import drive  # asyncio takes long to import in a process

                drive(self, made)
            else:
                made.run()
        except LoopEnded as end:
            if self.must_leave():
                raise
            if takes.all_closed():
                return _lines(loop_frames(end.__traceback__))
            if self.inbox is None or not self.is_cut() or self.stage.head == "async":
                raise
            end.__traceback__ = None
        else:
            return []
        self._cut()
        return self._through()  # for what is at work further up, and is finished

    def _cut(self) -> None:
        """A stop is overdue: what waits is not begun any more."""
        if self.inbox is not None and not self._is_cut:
            self._is_cut = True
            self.inbox.cut()

    def play(self, opened: bool) -> None:
        """Run the loop, unless opening failed, and leave. Where a stop has come, a source gives nothing any more; what
        it gave before, to a task that has not begun, is on its way.

        What `abandon()` raises comes up once, at any line of this thread, this file's own included; so each step can
        be begun again.
        """
        while not self._gone:
            try:
                if opened and not (self.inbox is None and self.attempt.is_stopping()):
                    opened = False
                    self._take_turns()
                    self.run()
                self.leave()
            except LoopEnded:
                continue

    def leave(self) -> None:
        """Close every function and let go of the user's objects. An abandoned task does so late, but does it."""
        with self._lock:
            self._leaving = True  # from here on abandon() raises nothing
            if self.abandoned:
                _raise_in(threading.get_ident(), None)  # nor may what it has raised come up in a close()
        self._freeze([])
        self._late = self.late()
        self.held_back = self._held_back()
        self._end_lanes()
        self.ready.set()
        try:
            self._close_all()
        finally:
            if self._turn is not None:
                self._turn.leave()
            self._made = self._takes = None
            self._built, self._stamps = [], []
            self.reader = None
            with self._lock:
                self._gone = True
            self.ended.set()

    def _finish(self) -> None:
        """The stream has ended: let come out what operators have kept back."""
        for i, built in enumerate(self._built):
            if built.finish is not None:
                self.emit(i, built.finish())

    def _end_lanes(self) -> None:
        for lanes in self.lanes.values():
            for lane in lanes:
                lane.end()
        if self.inbox is not None:
            self.inbox.close()

    def _close_all(self) -> None:
        if self.reader is not None and self.reader.close is not None:
            close, self.reader.close = self.reader.close, None
            self._close_one(self.stage.operators[0], close)
        while self._instances:
            op, instance = self._instances.pop(0)
            self._close_one(op, partial(_close, instance))

    def _close_one(self, op: Operator, close: Callable[[], Any]) -> None:
        self.closing = op
        try:
            close()
        except BaseException as exc:  # noqa: BLE001 - whatever close() raises is the job's failure
            self._fail(exc, op, "close() of ")
        finally:
            self.closing = None

    # What the functions need: see `building.Host`

    def make(self, op: Operator, cls: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        """An instance of a function class, with its context, opened."""
        instance = cls(*args, **kw)
        if isinstance(instance, BaseFunction) or not hasattr(instance, "ctx"):
            with suppress(Exception):  # an object that takes no attributes has no use for one
                instance.ctx = self.context(op)
        self._instances.append((op, instance))
        opener = getattr(instance, "open", None)
        if callable(opener):
            opener()
        return instance

    def context(self, op: Operator) -> Context:
        attempt = self.attempt
        return (AsyncContext if op.kind == "async" else Context)(
            *(op.name, attempt.services_host, self._is_stopping, attempt.log.logger),
            *(self.index, self.stage.parallelism, attempt.say),
        )

    def _is_stopping(self) -> bool:
        return self.abandoned or self.attempt.is_stopping()

    def result(self, name: str) -> Result:
        return self.attempt.results[name]

    def emit(self, index: int, items: Any) -> None:
        """Let items come out of a node while the loop waits, or has ended."""
        made = self._made
        if items and made is not None:
            emit = made.emits[index]
            assert emit is not None
            try:
                emit(items)
            except StopIteration as exc:  # it would become something else on its way through a generator
                self._loop_failed(exc)
                raise LoopEnded from None
            except LoopEnded as end:
                if self.inbox is None or not self.is_cut() or self._nobody_wants():
                    raise
                end.__traceback__ = None  # the rest of this is dropped; what is at work further up still comes
                self._cut()

    def function_at(self, index: int) -> Any:
        return self._built[index].function

    def policy(self, op: Operator) -> str:
        return op.settings.on_error or self.attempt.on_error

    def caught(self, index: int, item: Any, exc: Exception) -> None:
        op = self.stage.members[index].op
        assert op is not None
        if self.abandoned:
            return
        self.errors[index] += 1
        if self._woven is not None:
            as_called(exc, self._woven)
        self.attempt.caught(op, self.policy(op), item, exc)

    def origins(self) -> int:
        return 1 if self.inbox is None else len(self.inbox.lanes)

    def ranks(self) -> tuple[int, int]:
        tags = [] if self.inbox is None else [lane.tag for lane in self.inbox.lanes]
        return tags.count(0), tags.count(1)

    def late_at(self, index: int) -> int | None:
        for i, member in enumerate(self.stage.members):
            if member.upstream == index and member.op is not None and member.op.kind == "late":
                return i
        return None

    # Making the loop

    def _way_out(self, i: int, node: Node) -> Built:
        edge = self.stage.members[i].edge
        assert edge is not None
        lanes = self.lanes[edge.number]
        for lane in lanes:
            lane.sender = self
            lane.on_closed = partial(self._lane_closed, i)
        shared = self.senders.get(edge.number)
        if shared is not None:
            return Built(shared)
        if len(lanes) == 1 and not edge.keyed and edge.stamps is None and lanes[0].sequence is None:
            return Built(lanes[0].items.append, lanes[0])
        stamp = None
        if edge.stamps is not None:
            direct = "o" in node.columns
            stamp = Stamp(edge.stamps.spec, self.origins() if direct else 1, lanes)
            if direct:
                self._stamps.append(stamp)
        return Built(outlet(edge.how, lanes, edge.keyed, stamp))

    def _source_kind(self, reader: Reader, delay: float | None) -> str:
        if reader.chunks is not None and delay is None and self._wants_chunks():
            return "chunks"
        if reader.items is None:
            return "poll_batch" if reader.ends_on_none else "poll"
        return "iterate_sized" if reader.sized is not None and delay is None else "iterate"

    def _wants_chunks(self) -> bool:
        first = [member.op for member in self.stage.members if member.upstream == 0]
        return bool(first) and all(op is not None and op.kind == "batches" for op in first)

    def _make_loop(self, nodes: Any, kind: str, delay: float | None) -> None:
        self._loop = generate(nodes)
        self._takes = Takes(nodes, [built.other for built in self._built])
        parts = Parts(
            source=self._items(kind, delay, nodes[0].columns),
            control=self._control,
            within=self._within,
            idle=self._idle,
            active=self._active,
            closed=self._closed,
            caught=self.caught,
            spent=self._spent,
            taken=self._taken(kind),
            size=length,
            functions=[built.function for built in self._built],
            others=[built.other for built in self._built],
            contexts=[built.context for built in self._built],
        )
        self._made, self._woven = make(self._loop, parts, self.attempt.inline)
        if self.inbox is not None:
            self._attend(self.inbox)
        self._made.signal(True)  # a pause or a stop may have come before the loop was there

    def _items(self, kind: str, delay: float | None, columns: str) -> Any:
        reader = self.reader
        if reader is None:
            assert self.inbox is not None
            if self.stage.head == "ordered":
                assert self.order is not None
                return chain.from_iterable(in_order(self.inbox, self.order))
            return chain.from_iterable(self.inbox.items(columns))
        if kind == "chunks":
            assert reader.chunks is not None
            return reader.chunks(self._chunk_size())
        if reader.items is not None:
            return reader.items if delay is None else self._paced(reader.items, delay)
        return reader.poll if delay is None else self._paced_poll(reader.poll, delay)

    def _chunk_size(self) -> int | None:
        sizes = [m.op.spec.size for m in self.stage.members if m.upstream == 0 and m.op is not None]
        return sizes[0] if len(set(sizes)) == 1 else None

    def _taken(self, kind: str) -> Callable[[], float] | None:
        if kind == "iterate_sized":
            assert self.reader is not None
            return taken_of(self.reader.sized, self.reader.items)
        inbox = self.inbox
        if self.stage.head != "async" or inbox is None:
            return None
        return lambda: float(sum(lane.taken for lane in inbox.lanes))

    def _attend(self, inbox: Inbox) -> None:
        """Let the inbox tell when lanes end, watermarks advance and clocks strike."""
        inbox.look = self._look
        inbox.on_end = self._lane_ended
        inbox.on_idle = self._lane_idle
        inbox.on_active = self._wakes
        windows = [(i, built.other) for i, built in enumerate(self._built) if self._is_window(i)]
        clocked = [(i, w) for i, w in windows if not self._is_timed(i)]
        stamped = [(i, w) for i, w in windows if self.stage.inputs and self.stage.inputs[0].stamps is self._op(i)]
        if clocked:
            inbox.due = lambda: min((d for d in (w.due() for _, w in clocked) if d is not None), default=None)
            inbox.fire = partial(self._each, clocked, "tick")
        if stamped:
            inbox.advanced = partial(self._each, stamped, "advance")

    def _each(self, windows: list[tuple[int, Any]], method: str, value: float) -> None:
        for i, window in windows:
            self.emit(i, getattr(window, method)(value))

    def _op(self, i: int) -> Operator | None:
        return self.stage.members[i].op

    def _is_window(self, i: int) -> bool:
        op = self._op(i)
        return op is not None and op.kind == "window"

    def _is_timed(self, i: int) -> bool:
        op = self._op(i)
        return op is not None and op.spec.event_time is not None

    def _lane_idle(self, lane: Lane) -> None:
        """An input has nothing now: no window waits for it until it gives an item."""
        for stamp in self._stamps:
            stamp.idle(lane.origin)
        for i, built in enumerate(self._built):
            if self._goes_by_origin(i):
                self.emit(i, built.other.idle(lane.origin))
        if self.inbox is not None and all(one.over or one.idles for one in self.inbox.lanes):
            self._rest()

    def _rest(self) -> None:
        for lanes in self.lanes.values():
            for lane in lanes:
                lane.rest()

    def _goes_by_origin(self, i: int) -> bool:
        """Whether node `i` is a window that works out the watermark of several inputs."""
        loop = self._loop
        return loop is not None and loop.nodes[i].emits == "windows" and loop.nodes[i].columns == "o"

    def _lane_ended(self, lane: Lane) -> None:
        """An input has ended: no window waits for it any more."""
        if self.attempt.is_stopping():
            return
        for stamp in self._stamps:
            stamp.close(lane.origin)
        for i, built in enumerate(self._built):
            op = self._op(i)
            if self._goes_by_origin(i):
                self.emit(i, built.other.close(lane.origin))
            elif op is not None and op.kind == "interval_join":
                built.other.close(lane.tag, lane.rank)

    # What the loop calls

    def _paced(self, items: Any, delay: float) -> Any:
        for item in items:
            yield item
            self._sleep(delay)

    def _paced_poll(self, poll: Any, delay: float) -> Callable[[], Any]:
        emitted = False

        def paced() -> Any:
            nonlocal emitted
            if emitted:
                self._sleep(delay)
            item = poll()
            emitted = item is not None
            return item

        return paced

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self.attempt.stop_event.wait(min(left, _NAP)):
                raise LoopEnded
            self._look()

    def _active(self) -> float:
        """The source has an item again. Called before that is handed on."""
        self._wakes()
        return _FIRST_PAUSE

    def _wakes(self, _lane: Lane | None = None) -> None:
        for lanes in self.lanes.values():
            for lane in lanes:
                lane.idle = False

    def _idle(self, pause: float) -> float:
        if self.lanes:
            self._rest()
        self._sleep(pause)
        return min(pause * 2, 0.05)

    def _control(self) -> bool:
        """What the loop calls when it is signalled: wait while paused, leave where a stop was asked for. True where
        the item at hand is to be timed."""
        made = self._made
        assert made is not None
        made.signal(False)  # before looking: a signal that comes after the look stays set for the next item
        self._wait_for_turn()
        if self.inbox is None and self.attempt.is_stopping():
            raise LoopEnded
        whole = self._is_cut
        self._look()
        if self._is_cut and not whole:
            raise LoopEnded  # without the item at hand
        if self.attempt.is_stopping() and not whole:
            made.signal(True)
        if self._burst > 0:
            self._burst -= 1
            made.signal(True)
            return True
        return False

    def _within(self) -> None:
        """The same between the items of a flatmap, where a stop lets what is left of the source's item pass, if it can
        do so at once: an item reaches all its consumers, yet an endless flatmap ends."""
        made = self._made
        assert made is not None
        made.signal(False)
        self._wait_for_turn()
        self._look()
        if self.is_cut():
            raise LoopEnded
        if self.attempt.is_stopping() or self._burst > 0:
            made.signal(True)

    def _take_turns(self) -> None:
        if self.stage.head != "async":  # its event loop is not to be held
            assert self._made is not None
            self._turn = self._turn or turns.Turn(partial(self._made.signal, True))
            self._turn.join()

    def _wait_for_turn(self) -> None:
        if self._turn is not None:
            self._turn.take()
        if not self.attempt.resumed.is_set():  # what abandons a task may be raised while an event has its lock
            self.attempt.resumed.wait()

    def _look(self) -> None:
        """Leave where nothing more may go on, or nobody wants more. Drop what waits where a stop is overdue."""
        if self.is_cut() and not self._is_cut and self.stage.head != "async":
            self._cut()
        if self._nobody_wants():
            raise LoopEnded

    def _nobody_wants(self) -> bool:
        return self.must_leave() or (self._takes is not None and self._takes.all_closed())

    def must_leave(self) -> bool:
        """Whether not even what is on its way may go on: see `channels.Sender`."""
        return self.abandoned or self.attempt.has_failed()

    def is_cut(self) -> bool:
        """Whether a stop drops what waits in lanes."""
        return self.attempt.is_overdue()

    def _spent(self, index: int, seconds: float) -> None:
        self.times[index].append(seconds)

    def _closed(self, i: int) -> None:
        """Called by the loop behind the last item that a take lets pass."""
        takes = self._takes
        assert takes is not None
        takes.close_take(i)
        if takes.all_closed():
            raise LoopEnded

    def _lane_closed(self, i: int) -> None:
        """A task further down wants no more. Called on its thread."""
        edge, takes = self.stage.members[i].edge, self._takes
        if edge is None or takes is None or not all(lane.closed for lane in self.lanes[edge.number]):
            return
        takes.close_leaf(i)
        if takes.all_closed():
            self.stop()
            if self.inbox is None:
                self.attempt.unwanted(self)

    # Failures

    def _loop_failed(self, exc: BaseException) -> None:
        frames, loop = loop_frames(exc.__traceback__), self._loop
        place = loop.place_at((frames[-1][0].f_code.co_name, frames[-1][1])) if frames and loop else None
        if self._woven is not None:
            as_called(exc, self._woven)
        if loop is None or place is None:
            self._freeze([])
            self._fail(exc, self.stage.operators[0] if self.stage.operators else None)
            return
        self.failed_at = place.index
        self._freeze(_lines(frames))
        member = self.stage.members[place.index]
        op = member.op or self._sender_of(place.index)
        if place.index == 0:
            self._fail(exc, op)
        else:
            self._fail(exc, op, item=frames[-1][0].f_locals.get(loop.variables[place.index]))

    def _sender_of(self, i: int) -> Operator:
        """Whose items an edge leads on; of one that works out event times, the window that they are for."""
        edge = self.stage.members[i].edge
        op = edge.stamps if edge is not None else None
        while op is None and i > 0:
            i = self.stage.members[i].upstream
            op = self.stage.members[i].op
        return op or self.stage.operators[0]

    def item_failed(self, index: int, item: Any, exc: BaseException) -> None:
        """An item failed outside the loop."""
        op = self.stage.members[index].op
        assert op is not None
        self.failed_at = index
        self._freeze([])
        self._fail(exc, op, item=item)

    def _fail(self, exc: BaseException, op: Operator | None, what: str = "", **item: Any) -> None:
        if self.abandoned or not self.attempt.is_current(self):
            self.attempt.say(f"{self.name!r}, given up before, raised {headline(exc)}", "ERROR")
            return
        if op is None:
            self.attempt.fail(explain(exc, f"{what}{self.name!r}"))
            return
        subject = f"{what}operator {op.name!r} ({op.kind})"
        self.attempt.fail(explain(exc, subject, operator=op.name, declared=op.site, **item))

    # From other threads

    def stop(self) -> None:
        """Make the loop leave at the next item, or wherever it waits for one."""
        made, turn = self._made, self._turn
        if made is not None:
            made.signal(True)
        if turn is not None:
            turn.free()
        if self.inbox is not None:
            self.inbox.rouse()

    def sample(self) -> None:
        """Time each operator on the next few items."""
        made = self._made
        if made is not None and self._burst == 0:
            self._burst = _BURST
            made.signal(True)

    def abandon(self) -> bool:
        """Give the task up: its thread ends as soon as the user's call returns. False where it has left already."""
        with self._lock:
            if self._gone or self.abandoned:
                return False
            self.abandoned = True
            self._freeze(self.position().lines)
            self.held_back = self._held_back()
            if self._turn is not None:
                self._turn.give_up()
            if not self._leaving and self.thread is not None and self.thread.ident is not None:
                _raise_in(self.thread.ident, LoopEnded)
        self._end_lanes()
        self.ready.set()
        self.ended.set()
        return True

    def position(self) -> Position:
        """Where the task is at this moment; exact where it waits, a sample where it runs."""
        ident = self.thread.ident if self.thread else None
        sites: list[Site] = []
        lines: list[Line] = []
        for filename, name, line in stack_of(ident) if ident else ():
            if filename == FILENAME:
                if not lines and (at := self._user_line(line)):
                    sites.append(at)
                lines.append((name, line))
            elif not lines:
                sites.append(Site(filename, line))
        if not lines:
            sites = [at for at in sites if not at.filename.endswith("threading.py")]
        place = self._loop.place_at(lines[0]) if self._loop and lines else None
        return Position(place.index if place else None, lines[::-1], user_line(sites[::-1]))

    def _user_line(self, line: int) -> Site | None:
        """The user's line, of one that is inlined."""
        found = self._woven.user_line(line) if self._woven is not None else None
        return None if found is None else Site(found[1], found[2])

    def waits_in_source(self) -> bool:
        """Whether the source is being opened, or was asked for an item and has not answered: nothing is in flight."""
        return self._opening or (self.inbox is None and self.position().index == 0)

    def waits_for_input(self) -> bool:
        """Whether other tasks are to give it items, and none has."""
        return self.inbox is not None and self.position().index == 0

    def where(self) -> str:
        """What the task is doing, as a person would say it."""
        position = self.position()
        if self.closing is not None:
            what = f"close() of {self.closing.kind} {self.closing.name!r}"
        elif self._opening:
            what = f"opening source {self.name!r}"
        elif position.index is None:
            what = f"the functions of {self.name!r}"
        else:
            op = self.stage.members[position.index].op
            what = f"the input of {self.name!r}" if op is None else f"{op.kind} {op.name!r}"
        return f"{what} ({describe_site(position.site)})" if position.site else what

    def counts(self) -> dict[int, Counts]:
        """Items in and out, by the operator's id."""
        return {
            member.op.id: counts
            for member, counts in zip(self.stage.members, self._counts(), strict=True)
            if member.op is not None
        }

    def _counts(self) -> list[Counts]:
        final, made, loop = self._final, self._made, self._loop
        if final is not None:
            return final
        if made is None or loop is None:
            return [Counts(0, 0)] * len(self.stage.members)
        position = self.position()
        if position.index is not None and (self._turn is None or not self._turn.waits):
            self.looks += 1
            self.seen[position.index] += 1
        return loop.counts(made.read(), position.lines)

    def queued(self) -> int:
        """How many items wait before this task."""
        return 0 if self.inbox is None else self.inbox.queued()

    def left(self) -> int:
        """How many items came to this task that it has not begun."""
        inbox = self.inbox
        if inbox is None:
            return 0
        came = sum(lane.dropped + lane.appended() for lane in inbox.lanes)
        if self.stage.head == "async":  # what is awaited is not through before it has settled
            return came - sum(lane.done for lane in inbox.lanes)
        return came - self._counts()[0].items_out

    def _held_back(self) -> dict[str, int]:
        """How many items wait for the rest of their batch, by the operator's name, where somebody wants them."""
        if self._takes is None or self._takes.all_closed():
            return {}
        found = [(self._op(i), built.other) for i, built in enumerate(self._built) if isinstance(built.other, Batcher)]
        return {op.name: batcher.pending for op, batcher in found if op is not None and batcher.pending}

    def blocked(self) -> float:
        """Seconds for which the task was held because the next ones had no room."""
        return sum(lane.blocked for lanes in self.lanes.values() for lane in lanes)

    def late(self) -> dict[int, int]:
        """How many items came too late, by the id of the window or join, where nothing takes them."""
        if self._late is not None:
            return self._late
        return {
            op.id: built.other.late_count
            for i, built in enumerate(self._built)
            if (op := self._op(i)) is not None
            and (op.kind == "interval_join" or (op.kind == "window" and self.late_at(i) is None))
        }

    def fraction(self) -> float | None:
        """Share of the source's input that was read, where the source can tell."""
        reader = self.reader
        return reader.fraction() if reader is not None and reader.fraction is not None else None

    def _freeze(self, lines: list[Line]) -> None:
        if self._final is None and self._made is not None and self._loop is not None:
            self._final = self._loop.counts(self._made.read(), lines)


def _lines(frames: list[tuple[FrameType, int]]) -> list[Line]:
    return [(frame.f_code.co_name, line) for frame, line in frames]


def _close(instance: Any) -> None:
    if isinstance(instance, FlatMapFunction):
        with suppress(Exception):  # an object that takes no attributes
            instance.collect = _too_late  # type: ignore[assignment,method-assign]
    close = getattr(instance, "close", None)
    if callable(close):
        close()


def _too_late(_item: Any) -> None:
    raise JobStateError("collect() in close() comes too late: the stream has ended; emit in execute()")


def _raise_in(ident: int, exc: type[BaseException] | None) -> None:
    """Raise `exc` in a thread at its next bytecode; None takes back what has not been raised yet."""
    import ctypes

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(exc) if exc else None)
