"""One task: an instance of a stage on a thread of its own, from its functions' constructors to their `close()`.

The task itself knows nothing of the job's end. It is told to stop by `stop()`, which makes the loop leave at the
next item; if the user's code does not come back, the dispatcher calls `abandon()` and goes on without it.
"""

from __future__ import annotations

import builtins
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

from sage_nb.engine.failure import describe_site, explain, loop_frame, user_line
from sage_nb.engine.loops import FILENAME, Counts, Loop, LoopEnded, Node, gather, taken_of
from sage_nb.engine.plan import Stage
from sage_nb.errors import JobStateError
from sage_nb.pipeline.checks import FunctionSpec
from sage_nb.pipeline.context import Context
from sage_nb.pipeline.functions import BaseFunction, FlatMapFunction
from sage_nb.pipeline.graph import Operator, Site
from sage_nb.pipeline.sources import Reader

if TYPE_CHECKING:
    from sage_nb.engine.dispatcher import Dispatcher

__all__ = ["Position", "Task"]


@dataclass(frozen=True, slots=True)
class Position:
    """Where a task is: the operator's index, or None outside the loop, and the user's line if it is in one."""

    index: int | None
    line: int | None
    site: Site | None


class Task:
    """One instance of one stage."""

    def __init__(self, stage: Stage, job: Dispatcher) -> None:
        self.stage = stage
        self.job = job
        self.thread: threading.Thread | None = None
        self.ready = threading.Event()
        self.ended = threading.Event()
        self.abandoned = False
        self.failed_at: int | None = None
        self.reader: Reader | None = None
        self.total: int | None = None
        self.looks = 0
        self.seen = [0] * len(stage.operators)
        self._instances: list[tuple[Operator, Any]] = []
        self._loop: Loop | None = None
        self._run: Callable[[], None] | None = None
        self._read: Callable[[], tuple[float, ...]] | None = None
        self._signal: Callable[[bool], None] | None = None
        self._open_takes: dict[int, frozenset[int]] = {}
        self.closing: Operator | None = None
        """The operator whose close() runs."""
        self._opening = False
        self._leaving = False
        self._gone = False
        self._lock = threading.Lock()
        self._final: list[Counts] | None = None

    def __repr__(self) -> str:
        return f"<Task {self.stage.source.name!r}: {len(self.stage.operators)} operators>"

    # On the task's own thread

    def open(self) -> bool:
        """Make the functions and the loop. False where that failed, which the job has been told."""
        self.thread = threading.current_thread()
        op = self.stage.source
        try:
            source_spec, delay = op.spec
            self._opening = True
            try:
                self.reader = source_spec.open(partial(self._make, op))
            finally:
                self._opening = False
            self.total = self.reader.total
            functions: list[Any] = [None]
            limits: list[float] = [0.0]
            for op in self.stage.operators[1:]:
                functions.append(self._function(op))
                limits.append(float(op.spec) if op.kind == "take" else 0.0)
            op = self.stage.source
            self._make_loop(self.reader, delay, functions, limits)
        except LoopEnded:
            return False
        except BaseException as exc:  # noqa: BLE001 - whatever a constructor raises is the job's failure
            self._fail(exc, op)
            return False
        return True

    def run(self) -> None:
        """Run the loop to its end, and say how it ended."""
        run = self._run
        assert run is not None
        try:
            if not self._all_taken():
                run()
        except LoopEnded as end:
            at = loop_frame(end.__traceback__)
            end.__traceback__ = None
            self._freeze(at[1] if at else None)
        except BaseException as exc:  # noqa: BLE001 - whatever user code raises is the job's failure
            self._loop_failed(exc)
        else:
            self._freeze(None)

    def play(self, opened: bool) -> None:
        """Run the loop, unless opening failed or a stop came, and leave.

        What `abandon()` raises comes up once, at any line of this thread, this file's own included; so each step can
        be begun again.
        """
        while not self._gone:
            try:
                if opened and not self.job.is_stopping():
                    opened = False
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
        self._freeze(None)
        self.ready.set()
        try:
            self._close_all()
        finally:
            self._run = self._read = self._signal = None
            self.reader = None
            with self._lock:
                self._gone = True
            self.ended.set()

    def _close_all(self) -> None:
        if self.reader is not None and self.reader.close is not None:
            close, self.reader.close = self.reader.close, None
            self._close_one(self.stage.source, close)
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

    def _make(self, op: Operator, cls: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        """An instance of a function class, with its context, opened."""
        instance = cls(*args, **kw)
        services = self.job.services_host
        if isinstance(instance, BaseFunction) or not hasattr(instance, "ctx"):
            with suppress(Exception):  # an object that takes no attributes has no use for one
                instance.ctx = Context(op.name, services, self.job.is_stopping, self.job.log.logger)
        self._instances.append((op, instance))
        opener = getattr(instance, "open", None)
        if callable(opener):
            opener()
        return instance

    def _function(self, op: Operator) -> Any:
        if op.kind == "take":
            return None
        if op.kind == "print":
            return partial(builtins.print, op.spec) if op.spec else builtins.print
        if op.kind in ("collect", "show"):
            name = op.spec if op.kind == "collect" else op.spec[0]
            return self.job.results[name].append
        spec: FunctionSpec = op.spec
        if not spec.is_class:
            return spec.target
        instance = self._make(op, spec.target, spec.args, spec.kw or {})
        if op.kind == "flatmap" and isinstance(instance, FlatMapFunction):
            return gather(instance)
        return instance.execute

    def _make_loop(self, reader: Reader, delay: float | None, functions: list[Any], limits: list[float]) -> None:
        taken: Callable[[], float] | None = None
        source: Any
        if reader.items is not None:
            kind, source = "iterate", reader.items
            if reader.sized is not None and delay is None:
                kind, taken = "iterate_sized", taken_of(reader.sized, reader.items)
            if delay is not None:
                source = self._paced(source, delay)
        else:
            kind = "poll_batch" if reader.ends_on_none else "poll"
            source = reader.poll if delay is None else self._paced_poll(reader.poll, delay)
        self._loop = self.stage.loop(kind)
        self._prepare_takes(self._loop.nodes, limits)
        made = self._loop.make()
        self._run, self._read, self._signal = made(
            source, self._control, self._within, self._idle, self._closed, functions, limits, taken
        )
        self._signal(True)  # a pause or a stop may have come before the loop was there

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
        if self.job.stop_event.wait(seconds):
            raise LoopEnded

    def _idle(self, pause: float) -> float:
        self._sleep(pause)
        return min(pause * 2, 0.05)

    def _control(self) -> None:
        """What the loop calls when it is signalled: wait while paused, leave where a stop was asked for."""
        signal = self._signal
        assert signal is not None
        signal(False)  # before looking: a signal that comes after the look stays set for the next item
        self.job.resumed.wait()
        if self.job.is_stopping() or self.abandoned:
            raise LoopEnded

    def _within(self) -> None:
        """The same between the items of a flatmap, where a stop lets what is left of the source's item pass, if it can
        do so at once: an item reaches all its consumers, yet an endless flatmap ends."""
        signal = self._signal
        assert signal is not None
        signal(False)
        self.job.resumed.wait()
        if self.abandoned or self.job.is_overdue():
            raise LoopEnded
        if self.job.is_stopping():
            signal(True)

    # `take`: a path from the source to a leaf is closed once one of its takes has had enough

    def _prepare_takes(self, nodes: tuple[Node, ...], limits: list[float]) -> None:
        for leaf, node in enumerate(nodes):
            if not node.consumers:
                on_path, i = [], leaf
                while i >= 0:
                    if nodes[i].kind == "take":
                        on_path.append(i)
                    i = nodes[i].upstream
                self._open_takes[leaf] = frozenset(on_path)
        for i, node in enumerate(nodes):
            if node.kind == "take" and limits[i] == 0:
                self._close_take(i)

    def _close_take(self, i: int) -> None:
        self._open_takes = {leaf: takes for leaf, takes in self._open_takes.items() if i not in takes}

    def _all_taken(self) -> bool:
        return not self._open_takes

    def _closed(self, i: int) -> None:
        """Called by the loop behind the last item that a take lets pass."""
        self._close_take(i)
        if self._all_taken():
            raise LoopEnded

    # Failures

    def _loop_failed(self, exc: BaseException) -> None:
        at, loop = loop_frame(exc.__traceback__), self._loop
        place = loop.place_at(at[1]) if at and loop else None
        if at is None or loop is None or place is None:
            self._freeze(None)
            self._fail(exc, self.stage.source)
            return
        self.failed_at = place.index
        self._freeze(at[1])
        op = self.stage.operators[place.index]
        if place.index == 0:
            self._fail(exc, op)
        else:
            self._fail(exc, op, item=at[0].f_locals.get(loop.variables[place.index]))

    def _fail(self, exc: BaseException, op: Operator, what: str = "", **item: Any) -> None:
        subject = f"{what}operator {op.name!r} ({op.kind})"
        self.job.fail(explain(exc, subject, operator=op.name, declared=op.site, **item))

    # From other threads

    def stop(self) -> None:
        """Make the loop leave at the next item, or wherever it waits for one."""
        signal = self._signal
        if signal is not None:
            signal(True)

    def abandon(self) -> bool:
        """Give the task up: its thread ends as soon as the user's call returns. False where it has left already."""
        with self._lock:
            if self._gone or self.abandoned:
                return False
            self.abandoned = True
            self._freeze(self.position().line)
            if not self._leaving and self.thread is not None and self.thread.ident is not None:
                _raise_in(self.thread.ident, LoopEnded)
        self.ready.set()
        self.ended.set()
        return True

    def position(self) -> Position:
        """Where the task is at this moment; exact where it waits, a sample where it runs."""
        ident = self.thread.ident if self.thread else None
        frame: FrameType | None = sys._current_frames().get(ident) if ident else None
        lines: list[Site] = []
        while frame is not None:
            if frame.f_code.co_filename == FILENAME and frame.f_code.co_name == "run":
                line = frame.f_lineno
                place = self._loop.place_at(line) if self._loop else None
                return Position(place.index if place else None, line, user_line(lines[::-1]))
            lines.append(Site(frame.f_code.co_filename, frame.f_lineno))
            frame = frame.f_back
        return Position(None, None, user_line([at for at in lines[::-1] if not at.filename.endswith("threading.py")]))

    def waits_in_source(self) -> bool:
        """Whether the source is being opened, or was asked for an item and has not answered: nothing is in flight."""
        return self._opening or self.position().index == 0

    def where(self) -> str:
        """What the task is doing, as a person would say it."""
        position = self.position()
        if self.closing is not None:
            what = f"close() of {self.closing.kind} {self.closing.name!r}"
        elif self._opening:
            what = f"opening source {self.stage.source.name!r}"
        elif position.index is None:
            what = f"the functions of {self.stage.source.name!r}"
        else:
            op = self.stage.operators[position.index]
            what = f"{op.kind} {op.name!r}"
        return f"{what} ({describe_site(position.site)})" if position.site else what

    def counts(self) -> list[Counts]:
        """Items in and out of each operator."""
        final, read, loop = self._final, self._read, self._loop
        if final is not None:
            return final
        if read is None or loop is None:
            return [Counts(0, 0)] * len(self.stage.operators)
        position = self.position()
        if position.index is not None:
            self.looks += 1
            self.seen[position.index] += 1
        return loop.counts(read(), position.line)

    def fraction(self) -> float | None:
        """Share of the source's input that was read, where the source can tell."""
        reader = self.reader
        return reader.fraction() if reader is not None and reader.fraction is not None else None

    def _freeze(self, line: int | None) -> None:
        if self._final is None and self._read is not None and self._loop is not None:
            self._final = self._loop.counts(self._read(), line)


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
