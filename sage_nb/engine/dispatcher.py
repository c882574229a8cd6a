"""One job's life: services up, loops run, services down; each exactly once, on every ending.

One thread, the worker, does it all: starts the services, runs the first task (others have threads of their own),
stops the services, concludes. Nothing else is needed while the user's code behaves.

A second thread, the watch, is started only where something may have to be cut short: a stop was asked for, the job
has a time limit, or services are about to stop. It compares the clock with three kinds of deadlines: the job's
time limit, the grace of a task that was asked to stop, the limit of one step of a service's stop. Where one has
passed, it abandons the call that did not return, names it in the job's notes, and, if that call holds the worker,
hands the rest of the worker's duty to a new one. `_generation` counts the workers: one that comes back late finds
that it is no longer the current one, and ends.

The grace of a task depends on what it would lose. A source that has been asked for an item and has not answered
holds nothing: 0.2 s, or 0.7 s where it holds up the thread that should stop the services. An operator at work on an
item gets the `timeout` of the stop, so that the item is finished.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from sage_nb.engine.failure import Failure, add_note, explain, headline
from sage_nb.engine.log import JobLog
from sage_nb.engine.loops import LoopEnded
from sage_nb.engine.plan import make_plan, unsunk
from sage_nb.engine.results import make_results
from sage_nb.engine.services import ServiceHost, Step
from sage_nb.engine.task import Task
from sage_nb.errors import JobStateError, JobTimeout
from sage_nb.pipeline.context import current
from sage_nb.pipeline.graph import Graph

__all__ = ["ENDED", "SOURCE_GRACE", "Cleanup", "Dispatcher"]

Cleanup = Literal["always", "on_success", "never"]
ENDED = frozenset({"completed", "failed", "stopped"})
SOURCE_GRACE = 0.2
# For the thread that started the services, so that it can stop them: some are bound to their thread.
_WORKER_GRACE = 0.7
_TICK = 0.05


class _LiveView(Mapping[str, Any]):
    """A mapping as it is at each look; it may be iterated while the job changes it."""

    def __init__(self, read: Callable[[], dict[str, Any]]) -> None:
        self._read = read

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._read()))

    def __len__(self) -> int:
        return len(self._read())

    def items(self) -> ItemsView[str, Any]:
        return dict(self._read()).items()

    def values(self) -> ValuesView[Any]:
        return dict(self._read()).values()

    def __repr__(self) -> str:
        return repr(self._read())


class Dispatcher:
    """Runs one job. `tasks` and `services` are live mappings, empty at the end."""

    def __init__(
        self,
        graph: Graph,
        name: str,
        *,
        cleanup: Cleanup = "always",
        timeout: float | None = None,
        service_stop_timeout: float = 10.0,
        on_change: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
        thread_context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.name = name
        self.operators = tuple(graph.operators)
        self.stages = make_plan(graph, name)
        self.log = JobLog()
        self.results = make_results(graph.operators)
        self.status = "created"
        self.notes: list[str] = []
        self.failure: Failure | None = None
        self.error: BaseException | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.stop_event = threading.Event()
        self.resumed = threading.Event()
        self.resumed.set()
        self.done = threading.Event()
        self.clean = threading.Event()
        """Set once nothing of the job is left; with services that are kept, later than `done`."""
        self.services_host = ServiceHost(graph.services, self.log, self.stop_event.is_set, service_stop_timeout)
        self.all_tasks = tuple(Task(stage, self) for stage in self.stages)
        self._tasks: dict[str, Task] = {}
        self._cleanup = cleanup
        self._timeout = timeout
        self._on_change = on_change
        self._on_end = on_end
        self._thread_context = thread_context
        self._context = contextvars.copy_context()
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._watching = False
        self._to_take_over: int | None = None
        self._generation = 0
        self._threads: list[threading.Thread] = []
        self._worker: threading.Thread | None = None
        self._given_up: set[threading.Thread] = set()
        self._steps: deque[Step] | None = None
        self._step: Step | None = None
        self._step_began = 0.0
        self._stop_began: float | None = None
        self._cut_at = float("inf")
        self._stop_grace = 10.0
        self._down_by: float | None = None
        self._outcome = "completed"
        self._kept = False
        self._go = threading.Event()

    # What is seen from outside

    @property
    def tasks(self) -> Mapping[str, Task]:
        return _LiveView(lambda: self._tasks)

    @property
    def services(self) -> Mapping[str, Any]:
        return _LiveView(self.services_host.instances)

    @property
    def is_running(self) -> bool:
        return self.status not in ENDED and self.status != "created"

    def is_stopping(self) -> bool:
        return self.stop_event.is_set()

    def is_overdue(self) -> bool:
        """Whether a stop was asked for so long ago that not even the item at hand may go on."""
        return self.stop_event.is_set() and time.monotonic() >= self._cut_at

    def waiting_for(self) -> str | None:
        """What a start or a stop is waiting for at this moment."""
        step, starting = self._step, self.services_host.at
        if step is not None:
            return f"service {step.service.name!r}: {step.what}"
        if self.status == "starting" or (self.status == "stopping" and starting is not None):
            return f"service {starting.name!r} to start" if starting is not None else None
        closing = [task.closing for task in list(self._tasks.values()) if task.closing is not None]
        if closing:
            return f"close() of {closing[0].kind} {closing[0].name!r}"
        if self.status == "stopping":
            waiting = [task for task in self._tasks.values() if not task.ended.is_set()]
            return waiting[0].where() if waiting else None
        return None

    def is_own_thread(self) -> bool:
        """Whether the caller runs on a thread of this job, which cannot wait for the job's end."""
        caller = threading.current_thread()
        return caller in self._threads or any(caller in service.workers for service in self.services_host)

    def join(self) -> None:
        """After the end, wait for the last lines of the job's own threads; those given up are not waited for."""
        for thread in list(self._threads):
            if thread not in self._given_up and thread is not threading.current_thread():
                thread.join(1.0)

    # Orders

    def start(self) -> None:
        """Begin. Returns at once."""
        self.started = time.time()
        self._began = time.monotonic()
        self._set_status("starting")
        for name in unsunk(self.stages):
            self.say(f"nothing takes the items of {name!r}: add sink(), collect(), show() or print()", "WARNING")
        if self._timeout is not None:
            self._watch()
        try:
            self._worker = self._thread(self._work, "job")
        except BaseException as exc:  # an interrupt, or no thread to be had: leave nothing half-started
            if any(thread.ident is not None for thread in self._threads):
                self.stop(SOURCE_GRACE)
            else:
                with self._lock:
                    self.error, self._outcome = exc, "failed"
                    self._end()
                self._tell(self._on_end)
            raise

    def pause(self) -> None:
        """Hold every loop before its next item. Raises `JobStateError` where the job is not running."""
        with self._lock:
            if self.status == "paused":
                return
            if self.status != "running":
                raise JobStateError(f"job {self.name!r} is {self.status}; it can be paused while it is running")
            self.resumed.clear()
            self._set_status("paused")
        for task in self.all_tasks:
            task.stop()

    def resume(self) -> None:
        """Go on. Raises `JobStateError` where the job is not paused or running."""
        with self._lock:
            if self.status == "running":
                return
            if self.status != "paused":
                raise JobStateError(f"job {self.name!r} is {self.status}; it can be resumed while it is paused")
            self._set_status("running")
            self.resumed.set()

    def stop(self, grace: float = 10.0, *, outcome: str = "stopped", error: BaseException | None = None) -> None:
        """Ask for the end; returns at once. A later call can shorten the grace, not change the outcome."""
        with self._lock:
            if self.done.is_set():
                self._stop_kept()
                return
            if self._kept:
                return
            self._stop_grace = min(self._stop_grace, grace) if self._stop_began is not None else grace
            if self._stop_began is None:
                self._stop_began = time.monotonic()
                if self._steps is None:  # else the work is done, and only cleaning is left
                    self._outcome = outcome
                    self.error = self.error or error
                    self._set_status("stopping")
                    self._cut_at = self._stop_began + SOURCE_GRACE
                    self.stop_event.set()
                    self.resumed.set()
                    self._go.set()
            self._wake.notify_all()
        for task in self.all_tasks:
            task.stop()
        self._watch()

    def hurry(self, seconds: float) -> None:
        """Stop, and be done with everything `seconds` from now: for the end of the process."""
        with self._lock:
            self._down_by = time.monotonic() + seconds
        self.stop(seconds / 4)

    def fail(self, failure: Failure) -> None:
        """A task or service failed: remember the first failure, and stop the rest."""
        with self._lock:
            if self.done.is_set():
                return
            if self.error is not None:
                if failure.exception is not self.error:
                    self.say(f"then also {failure.subject}: {headline(failure.exception)}", "ERROR")
                return
            self.failure, self.error = failure, failure.exception
            self._outcome = "failed"
            self.log.say(failure.operator or "job", headline(failure.exception), "ERROR")
            self._cut_at = min(self._cut_at, time.monotonic() + SOURCE_GRACE)
            self.stop_event.set()
            self.resumed.set()
            self._go.set()
            if self._steps is None:
                self._set_status("stopping")
            others = [task for task in self._tasks.values() if not task.ended.is_set()]
            if self._stop_began is None and len(others) > 1:
                self._stop_began = time.monotonic()
        if len(others) > 1:
            for task in others:
                task.stop()
            self._watch()

    def say(self, text: str, level: str = "INFO") -> None:
        """A line for the log; from WARNING on, a note of the job too."""
        self.log.say("job", text, level)
        if level != "INFO":
            self.notes.append(text)

    # The worker

    def _thread(self, target: Callable[..., None], what: str, *args: Any) -> threading.Thread:
        def body() -> None:
            try:
                with self._thread_context():
                    target(*args)
            except LoopEnded:
                return  # raised into a thread that was given up, after its last call

        name = f"sage_nb {what} {self.name}"
        thread = threading.Thread(target=self._context.copy().run, args=(body,), name=name, daemon=True)
        self._threads.append(thread)
        try:
            thread.start()
        except RuntimeError:
            self._threads.remove(thread)
            raise
        return thread

    def _work(self) -> None:
        def duty() -> None:
            if self._start_services():
                self._run_tasks()
            self._finish(0)

        self._on_duty(0, duty)

    def _on_duty(self, generation: int, duty: Callable[[], None]) -> None:
        """Do a worker's duty. Whatever goes wrong in it, the job reaches its end."""
        current.set(self.services_host.context("job"))
        try:
            duty()
        except LoopEnded:
            return
        except BaseException as exc:  # noqa: BLE001 - nobody else is there to end the job
            self.fail(explain(exc, "sage_nb itself; please report this"))
            with self._lock:
                if generation != self._generation or self.clean.is_set():
                    return
                self._steps = deque()
                self._conclude()
            self._tell(self._on_end)

    def _start_services(self) -> bool:
        try:
            return self.services_host.start()
        except BaseException as exc:  # noqa: BLE001 - whatever a service raises is the job's failure
            service = self.services_host.at
            name = service.name if service else "?"
            if service is not None:
                service.state, service.note = "failed", headline(exc)
            site = service.spec.site if service else None
            self.fail(explain(exc, f"the start of service {name!r}", operator=name, declared=site))
            return False

    def _run_tasks(self) -> None:
        first, *others = self.all_tasks
        self._tasks.update({task.stage.source.name: task for task in self.all_tasks})
        for task in others:
            self._thread(self._run_task, "task", task)
        opened = first.open()
        for task in others:  # no item moves before every function is made
            task.ready.wait()
        with self._lock:
            if self.status == "starting":
                self._set_status("running")
        self._go.set()
        first.play(opened)
        for task in others:
            task.ended.wait()

    def _run_task(self, task: Task) -> None:
        current.set(self.services_host.context("job"))
        opened = task.open()
        task.ready.set()
        self._go.wait()
        task.play(opened)

    def _finish(self, generation: int) -> None:
        """Stop the services and conclude, unless another worker has been given that duty."""
        with self._lock:
            if generation != self._generation or self.clean.is_set():
                return
            if self._steps is None:
                keep = self._cleanup == "never" or (self._cleanup == "on_success" and self._outcome == "failed")
                keep = keep and bool(self.services_host.instances()) and self._down_by is None
                if keep:
                    self._keep()
                else:
                    self._begin_down()
            kept = self._kept
        if kept:
            self._tell(self._on_end)
        else:
            self._go_down(generation)

    def _begin_down(self) -> None:
        self._steps = deque(self.services_host.steps_down(drain=self._outcome == "completed"))
        if self._steps:
            if not self.done.is_set():
                self._set_status("stopping")
            self._watch()

    def _go_down(self, generation: int) -> None:
        while True:
            with self._lock:
                if generation != self._generation:
                    return
                if not self._steps:
                    self._conclude()
                    break
                step = self._steps.popleft()
                self._step, self._step_began = step, time.monotonic()
                if step.service.state == "running" and step.calls_it:
                    step.service.state = "stopping"
                self._wake.notify_all()
            try:
                step.run()
            except LoopEnded:
                return
            except BaseException as exc:  # noqa: BLE001 - whatever a service raises is the job's failure
                self._step_failed(step, exc, generation)
        self._tell(self._on_end)

    def _step_failed(self, step: Step, exc: BaseException, generation: int) -> None:
        with self._lock:
            if generation != self._generation:
                return
            step.service.state, step.service.note = "failed", headline(exc)
        name = step.service.name
        if self._generation and not self.done.is_set():
            add_note(exc, "sage_nb: this ran on another thread than the service's start, which a call still holds")
        failure = explain(exc, f"{step.what} of service {name!r}", operator=name, declared=step.service.spec.site)
        if self.done.is_set():
            self.say(f"service {name!r}: {step.what} raised {headline(exc)}", "ERROR")
        else:
            self.fail(failure)

    def _keep(self) -> None:
        self.services_host.keep()
        names = ", ".join(repr(name) for name in self.services_host.instances())
        self._kept = True
        self.say(f"services kept as cleanup={self._cleanup!r} asks: {names}; job.stop() stops them", "WARNING")
        self._end()

    def _stop_kept(self) -> None:
        if self._kept:
            self._kept = False
            self.services_host.unkeep()
            self._generation += 1
            self._begin_down()
            self._start_worker()

    def _conclude(self) -> None:
        self._step = None
        self.services_host.settle()
        if not self.done.is_set():
            self._end()
        self.clean.set()
        self._wake.notify_all()
        self._tell(self._on_change)

    def _end(self) -> None:
        self._tasks.clear()
        self.ended = time.time()
        if self.error is not None and self._outcome == "completed":
            self._outcome = "failed"
        self._set_status(self._outcome)
        if not self._kept:
            self.clean.set()
        self.done.set()
        self._wake.notify_all()

    def _set_status(self, status: str) -> None:
        self.status = status
        self._tell(self._on_change)

    def _tell(self, listener: Callable[[], None]) -> None:
        try:
            listener()
        except Exception as exc:  # noqa: BLE001 - whatever goes wrong for those who look on, the job must reach its end
            self.log.say("job", f"reporting that the job is {self.status} failed: {headline(exc)}", "ERROR")

    # The watch

    def _watch(self) -> None:
        with self._lock:
            if self._watching or self.clean.is_set():
                return
            self._watching = True
        try:
            self._thread(self._watch_until_clean, "watch")
        except RuntimeError:  # the process ends: `drive` is the watch then
            self._watching = False
            if self._down_by is None:
                raise

    def _watch_until_clean(self) -> None:
        with self._lock:
            while not self.clean.is_set():
                if self._kept:
                    break
                self._look()
                self._wake.wait(self._until_next())
            self._watching = False

    def _until_next(self) -> float | None:
        now = time.monotonic()
        due: list[float] = []
        if self._timeout is not None and self._stop_began is None and self._steps is None:
            due.append(self._began + self._timeout - now)
        if self._stop_began is not None and self._steps is None:
            due.append(_TICK)
        if self._step is not None:
            due.append(self._step_began + self._step_limit(self._step) - now)
        return max(0.001, min(due)) if due else None

    def _look(self) -> None:
        now = time.monotonic()
        if (
            self._timeout is not None
            and self._stop_began is None
            and self._steps is None
            and now >= self._began + self._timeout
        ):
            self._time_out()
        if self._stop_began is not None and self._steps is None:
            self._abandon_overdue(now - self._stop_began)
        step = self._step
        if step is not None and now >= self._step_began + self._step_limit(step):
            self._step_overdue(step)

    def _time_out(self) -> None:
        assert self._timeout is not None
        error = JobTimeout(f"job {self.name!r} ran longer than its timeout of {self._timeout:g} s and was stopped")
        self.say(str(error), "ERROR")
        self.stop(2.0, outcome="failed", error=error)

    def _abandon_overdue(self, waited: float) -> None:
        starting = self.services_host.at
        if starting is not None:
            if waited >= self._stop_grace and self.services_host.give_up_start() is not None:
                self.say(f"the start of service {starting.name!r} did not return; its thread is left to end", "WARNING")
                self._hand_over()
            return
        for task in self._tasks.values():
            if task.ended.is_set():
                continue
            if waited >= self._stop_grace or (waited >= self._source_grace(task) and task.waits_in_source()):
                where = task.where()
                if task.abandon():
                    if task.thread is not None:
                        self._given_up.add(task.thread)
                    self.say(f"{where} did not return; its thread is left to end when it does", "WARNING")
                    if task is self.all_tasks[0]:
                        self._hand_over()

    def _source_grace(self, task: Task) -> float:
        worker = task is self.all_tasks[0] and self._down_by is None and self.services_host.instances()
        return _WORKER_GRACE if worker else SOURCE_GRACE

    def _step_limit(self, step: Step) -> float:
        if self._down_by is None:
            return step.limit
        left = self._down_by - self._step_began
        return min(step.limit, max(0.1, left / (len(self._steps or ()) + 1)))

    def _step_overdue(self, step: Step) -> None:
        step.service.state, step.service.note = "hung", f"{step.what} did not return"
        self.say(f"service {step.service.name!r}: {step.what} did not return; its thread is left to end", "WARNING")
        self._step = None
        self._hand_over()

    def _hand_over(self) -> None:
        if self._worker is not None:
            self._given_up.add(self._worker)
        self._generation += 1
        self._start_worker()

    def _start_worker(self) -> None:
        try:
            self._worker = self._thread(self._take_over, "worker", self._generation)
        except RuntimeError:  # the process ends: `drive` is the worker then
            self._to_take_over = self._generation

    def _take_over(self, generation: int) -> None:
        def duty() -> None:
            if self._steps is None:
                for task in list(self._tasks.values()):
                    if task.thread is not None:
                        task.ended.wait()
            self._finish(generation)

        self._on_duty(generation, duty)

    def drive(self, until: float) -> None:
        """Be the watch, and where need be the worker, on the caller's thread: while the process ends, Python may start
        no threads any more. Returns when the job is clean, or at `until` on the monotonic clock."""
        while not self.clean.is_set() and time.monotonic() < until:
            with self._lock:
                self._look()
                generation, self._to_take_over = self._to_take_over, None
            if generation is not None:
                self._take_over(generation)
            self.clean.wait(0.02)
