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
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sage_nb.engine.failure import Failure, add_note, explain, headline
from sage_nb.engine.forgotten import forgotten_returns
from sage_nb.engine.letters import DeadLetters
from sage_nb.engine.live import LiveView
from sage_nb.engine.log import JobLog
from sage_nb.engine.loops import LoopEnded
from sage_nb.engine.printing import Limits, Printed, printing_of
from sage_nb.engine.results import Results, make_results
from sage_nb.engine.services import ServiceHost, Step
from sage_nb.engine.stages import Plan, Stage
from sage_nb.engine.states import ENDED
from sage_nb.engine.task import Attempt, Task
from sage_nb.engine.wiring import wire
from sage_nb.errors import JobStateError, JobTimeout
from sage_nb.pipeline.context import current
from sage_nb.pipeline.graph import Graph, Operator, ServiceSpec
from sage_nb.pipeline.placement import RayOptions
from sage_nb.pipeline.restarts import Restarts

if TYPE_CHECKING:
    from sage_nb.engine.onray.cluster import Lease
    from sage_nb.engine.onray.services import RemoteService

__all__ = ["ENDED", "SOURCE_GRACE", "Cleanup", "Dispatcher"]


def _task(stage: Stage, index: int, attempt: Attempt) -> Task:
    if stage.place != "thread":
        from sage_nb.engine.hosted import HostedTask

        return HostedTask(stage, index, attempt)
    return Task(stage, index, attempt)


Cleanup = Literal["always", "on_success", "never"]
Order = Literal["stop", "pause", "resume"]
SOURCE_GRACE = 0.2
# For the thread that started the services, so that it can stop them: some are bound to their thread.
_WORKER_GRACE = 0.7
# For a source that nobody wants items of any more: it may be a slow one.
_UNWANTED_GRACE = 2.0
# For what is at work beside something that failed.
_FAILED_GRACE = 1.0
# More, for what waits for items of others that are given up: it ends by itself then.
_WAITING_GRACE = 1.0
_TICK = 0.05


class Dispatcher:
    """Runs one job. `tasks` and `services` are live mappings, empty at the end."""

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        name: str,
        *,
        on_error: str = "fail",
        inline: bool = True,
        restarts: Restarts | None = None,
        cleanup: Cleanup = "always",
        timeout: float | None = None,
        service_stop_timeout: float = 10.0,
        on_change: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
        on_restart: Callable[[], None] = lambda: None,
        thread_context: Callable[[], AbstractContextManager[Any]] = nullcontext,
        limits: Limits | None = None,
        ray: dict[str, Any] | None = None,
        results: Callable[[tuple[Operator, ...]], Results] = make_results,
    ) -> None:
        self.name = name
        self.operators = tuple(graph.operators)
        self.plan = plan
        self.on_error = on_error
        self.inline = inline
        self.attempt = 1
        self.failures: list[float] = []
        self.log = JobLog()
        self.results = results(self.operators)
        self.status = "created"
        self.notes: list[str] = []
        self.reason: str | None = None
        """Why it was stopped, where nobody asked for that."""
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
        self.dead_letters = DeadLetters(graph.operators, on_error)
        self.all_tasks = wire(plan, self, _task)
        self.lease: Lease | None = None
        """The job's part in the Ray cluster, where something of it runs there."""
        self._ray = ray or {}
        self._restarts = restarts
        self._next_at = 0.0
        self._unwanted: dict[Task, float] = {}
        self._final = False
        """Whether the end has begun that no restart follows."""
        self._tasks: dict[str, Task] = {}
        self._cleanup = cleanup
        self._timeout = timeout
        self._on_change = on_change
        self._on_end = on_end
        self._on_restart = on_restart
        self.printed = Printed(limits)
        self.thread_context = partial(printing_of, self.printed, thread_context)
        self._context = contextvars.copy_context()
        self._lock = threading.RLock()
        self._wake = threading.Condition(self._lock)
        self._watching = False
        self._to_take_over: int | None = None
        self._generation = 0
        self._threads: list[threading.Thread] = []
        self._worker: threading.Thread | None = None
        self._given_up: set[threading.Thread] = set()
        self._concluded_by: threading.Thread | None = None
        self._steps: deque[Step] | None = None
        self._step: Step | None = None
        self._step_began = 0.0
        self._stop_began: float | None = None
        self._cut_at = float("inf")
        self._stop_grace = 10.0
        self._cut_told = False
        self._down_by: float | None = None
        self._outcome = "completed"
        self._kept = False
        self._keeps_none = False
        """Whether somebody has asked for the end: services that are kept run until then."""
        self._go = threading.Event()

    # What is seen from outside

    ends_with_its_waiter = True

    @property
    def tasks(self) -> Mapping[str, Task]:
        return LiveView(lambda: self._tasks)

    @property
    def services(self) -> Mapping[str, Any]:
        return LiveView(self.services_host.instances)

    @property
    def is_running(self) -> bool:
        return self.status not in ENDED and self.status != "created"

    def is_stopping(self) -> bool:
        return self.stop_event.is_set()

    def is_overdue(self) -> bool:
        """Whether a stop was asked for so long ago that not even the item at hand may go on."""
        return self.stop_event.is_set() and time.monotonic() >= self._cut_at

    def has_failed(self) -> bool:
        """Whether nothing of what is on its way counts any more."""
        return self.error is not None

    def service_names(self) -> list[str]:
        """What services there are."""
        return [service.name for service in self.services_host]

    def waiting_for(self) -> str | None:
        """What a start or a stop is waiting for at this moment."""
        step, starting = self._step, self.services_host.at
        if self.lease is not None and not self.lease.ready.is_set():
            return "Ray to start"
        if self.status == "starting" and starting is None:
            waiting = [task for task in self._actors() if not task.ready.is_set()]
            if waiting:
                return "an actor to start" if len(waiting) == 1 else f"{len(waiting):,} actors to start"
        if step is not None:
            return f"service {step.service.name!r}: {step.what}"
        if self.status == "restarting":
            return f"attempt {self.attempt}, in {max(0.0, self._next_at - time.monotonic()):.0f} s"
        if self.status == "starting" or (self.status == "stopping" and starting is not None):
            return f"service {starting.name!r} to start" if starting is not None else None
        closing = [task.closing for task in list(self._tasks.values()) if task.closing is not None]
        if closing:
            return f"close() of {closing[0].kind} {closing[0].name!r}"
        if self.status == "stopping":
            waiting = [task for task in self._tasks.values() if not task.ended.is_set()]
            return waiting[0].where() if waiting else None
        return None

    def _actors(self) -> list[Task]:
        """The tasks that are actors."""
        return [task for task in self.all_tasks if task.stage.place == "actor"]

    def is_own_thread(self) -> bool:
        """Whether the caller runs on a thread of this job, which cannot wait for the job's end."""
        caller = threading.current_thread()
        return caller in self._threads or any(caller in service.workers for service in self.services_host)

    def stream(self, name: str) -> None:
        """None: the results are in this process, and need not be fetched."""

    def join(self) -> None:
        """After the end, wait for the last lines of the job's own threads; those given up are not waited for.

        Nor is the one that concluded: it only keeps the record now; nor the watch over a stop that came to its end
        before its watch began.
        """
        for thread in list(self._threads):
            if thread.is_alive() and thread not in (*self._given_up, self._concluded_by, threading.current_thread()):
                thread.join(1.0)

    # Orders

    def start(self) -> None:
        """Begin. Returns at once."""
        self.started = time.time()
        self._began = time.monotonic()
        self._set_status("starting")
        for name in self.plan.unsunk():
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
        for task in self.all_tasks:
            task.stop()  # what waits on an event loop

    def stop(self, grace: float = 10.0, *, outcome: str = "stopped", error: BaseException | None = None) -> None:
        """Ask for the end; returns at once. A later call can shorten the grace, not change the outcome."""
        with self._lock:
            if self.done.is_set():
                self._stop_kept()
                return
            if self._kept:
                return
            self._keeps_none = self._keeps_none or outcome == "stopped"
            asked = self._final and self._stop_began is not None
            self._stop_grace = min(self._stop_grace, grace) if asked else grace
            if not asked:
                self._final = True
                self._stop_began = time.monotonic()
                if self._steps is None:  # else the work is done, and only cleaning is left
                    self._outcome = outcome if self.error is None else "failed"
                    self.error = self.error or error
                    self._set_status("stopping")
                    self._cut_at = self._stop_began + SOURCE_GRACE
                    self.stop_event.set()
                    self.resumed.set()
                    self._go.set()
            self._wake.notify_all()
        for task in self.all_tasks:
            task.stop()
        self.services_host.request_stop()
        self._watch()

    def hurry(self, seconds: float, reason: str | None = None) -> None:
        """Stop, and be done with everything `seconds` from now: for the end of the process."""
        with self._lock:
            if not self._final:
                self.reason = reason
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
            self._cut_at = 0.0  # nothing of what is on its way counts any more
            self.stop_event.set()
            self.resumed.set()
            self._go.set()
            if self._steps is None:
                self._set_status("stopping")
            others = [task for task in self._tasks.values() if not task.ended.is_set()]
            if not self._final:
                self._stop_grace = _FAILED_GRACE
            if self._stop_began is None and len(others) > 1:
                self._stop_began = time.monotonic()
        if len(others) > 1:
            for task in others:
                task.stop()
            self._watch()

    def is_current(self, task: Task) -> bool:
        """Whether the task is of the attempt that runs."""
        return task in self.all_tasks

    def unwanted(self, task: Task) -> None:
        """Nobody wants the items of a source any more: if it does not return from waiting for one, it is given up."""
        with self._lock:
            self._unwanted[task] = time.monotonic()
            self._wake.notify_all()
        self._watch()

    def caught(self, op: Operator, policy: str, item: Any, exc: Exception) -> None:
        """An item failed, and the operator's policy takes it."""
        self.dead_letters.add(op, policy, item, exc, self.log)

    def say(self, text: str, level: str = "INFO") -> None:
        """A line for the log; from WARNING on, a note of the job too."""
        self.log.say("job", text, level)
        if level != "INFO":
            self.notes.append(text)

    def ask(self, order: Order) -> None:
        """Like the order's own method; one that comes too late is no matter."""
        with suppress(JobStateError):
            {"stop": self.stop, "pause": self.pause, "resume": self.resume}[order]()

    # The worker

    def _thread(self, target: Callable[..., None], what: str, *args: Any) -> threading.Thread:
        def body() -> None:
            try:
                with self.thread_context():
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
            if self._connect() and self._start_services(self.services_host.start):
                self._run_tasks(0)
                self._go_on(0)
            else:
                self._finish(0)

        self._on_duty(0, duty)

    def _go_on(self, generation: int) -> None:
        """The tasks have ended: run them anew where a strategy says so, else end."""
        while self._begins_anew(generation) and self._connect():
            self._run_tasks(generation)
        self._finish(generation)

    def _begins_anew(self, generation: int) -> bool:
        with self._lock:
            if generation != self._generation or self._restarts is None or self._final or self.failure is None:
                return False
            self.failures.append(time.monotonic())
            delay = self._restarts.delay_after(self.failures)
            if delay is None:
                self.say(f"no restart any more after {len(self.failures)} failures", "WARNING")
                return False
            why = headline(self.failure.exception)
            self._next_at = time.monotonic() + delay
            self.attempt += 1
            self._outcome, self.error, self.failure = "completed", None, None
            self._stop_began, self._cut_at, self._cut_told = None, float("inf"), False
            self._go.clear()
            self.stop_event.clear()
            self._tasks.clear()
            self._unwanted.clear()
            self._set_status("restarting")
        self.say(f"attempt {self.attempt} begins after {delay:g} s, because of {why}", "WARNING")
        if self.stop_event.wait(delay):
            return False
        with self._lock:
            if generation != self._generation or self._final:
                return False
            for result in self.results.values():
                result.clear()
            self.dead_letters.clear()
            self._tell(self._on_restart)
            self.all_tasks = wire(self.plan, self, _task)
        return True

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

    def _connect(self) -> bool:
        """Have the Ray cluster there, where stages or services run on it. False where that failed, or a stop came."""
        if not self.plan.actors() and not any(service.spec.remote for service in self.services_host):
            return True
        if self.lease is not None and self.lease.lost is None:
            return True
        from sage_nb.engine.onray.cluster import acquire

        self.lease = lease = acquire(self._ray, lambda lost: self.fail(explain(lost, "the cluster")), self._hear)
        while not lease.ready.wait(_TICK):
            if self.stop_event.is_set():
                return False
        try:
            if lease.error is not None:
                raise lease.error
            from sage_nb.engine.onray.hosting import check_resources  # not before: it imports Ray, which takes long

            check_resources(lease, self._asked())
        except Exception as exc:  # noqa: BLE001 - whatever Ray says, the job has failed
            self.fail(explain(exc, "connecting to Ray"))
            return False
        again = self.services_host.remote is not None
        self.services_host.remote = partial(self._make_remote, lease)
        return not again or self._start_services(self.services_host.start_anew)

    def _hear(self, source: str, text: str) -> None:
        """The cluster has something to say."""
        if source == "job":
            self.say(text, "WARNING")
        else:
            self.log.say(source, text, "WARNING")

    def _asked(self) -> Iterator[tuple[str, int, RayOptions | None]]:
        for stage in self.plan.actors():
            yield f"{stage.operators[0].kind} {stage.name!r}", stage.parallelism, stage.ray
        for service in self.services_host:
            if service.spec.remote:
                yield f"service {service.name!r}", 1, service.spec.ray

    def _make_remote(self, lease: Lease, spec: ServiceSpec) -> RemoteService:
        from sage_nb.engine.onray.services import RemoteService

        names = frozenset(self.service_names())
        return RemoteService(spec, lease, self.services_host, names, self.log, self.thread_context)

    def _let_go(self) -> None:
        if self.lease is not None:
            self.lease.release()

    def _start_services(self, start: Callable[[], bool]) -> bool:
        try:
            return start()
        except BaseException as exc:  # noqa: BLE001 - whatever a service raises is the job's failure
            service = self.services_host.at
            name = service.name if service else "?"
            if service is not None:
                service.state, service.note = "failed", headline(exc)
            site = service.spec.site if service else None
            self.fail(explain(exc, f"the start of service {name!r}", operator=name, declared=site))
            return False

    def _run_tasks(self, generation: int) -> None:
        first, *others = self.all_tasks
        go = self._go
        self._tasks.update({task.name: task for task in self.all_tasks})
        for task in others:
            self._thread(self._run_task, "task", task)
        opened = first.open()
        for task in others:  # no item moves before every function is made
            task.ready.wait()
        with self._lock:
            if self.status in ("starting", "restarting"):
                self._set_status("running")
        go.set()
        first.play(opened)
        for task in others:
            task.ended.wait()
        if generation == self._generation:
            self._report_left()

    def _run_task(self, task: Task) -> None:
        current.set(self.services_host.context("job"))
        opened = task.open()
        task.ready.set()
        self._go.wait()
        task.play(opened)

    def _report_left(self) -> None:
        """Name what was on its way when a stop came, what was dropped, and what let nothing through."""
        for task in self.all_tasks:
            waited = Counter({task.name: max(0, task.left())}) + Counter(task.held_back)
            for name, left in waited.items() if self._outcome == "stopped" else ():
                items = "an item" if left == 1 else f"{left:,} items"
                self.say(f"the stop came before {items} that waited for {name!r}", "WARNING")
        late: dict[int, int] = {}
        for task in self.all_tasks:
            for id, count in task.late().items():
                late[id] = late.get(id, 0) + count
        for id, count in late.items():
            if count:
                op = self.operators[id]
                what = "dropped {:,} items that came too late; late(name) would keep them"
                if op.kind == "interval_join":
                    what = "got {:,} items so late that partners of theirs may be gone; see out_of_orderness"
                self.say(f"{op.name!r} {what.format(count)}", "WARNING")
        if self._outcome == "completed" and self.error is None:
            for text in forgotten_returns(self.operators, self.all_tasks):
                self.say(text, "WARNING")

    def _finish(self, generation: int) -> None:
        """Stop the services and conclude, unless another worker has been given that duty."""
        with self._lock:
            if generation != self._generation or self.clean.is_set():
                return
            if self._steps is None:
                keep = self._cleanup == "never" or (self._cleanup == "on_success" and self._outcome == "failed")
                keep = keep and bool(self.services_host.instances()) and not self._keeps_none
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
        self._concluded_by = threading.current_thread()
        self.services_host.settle()
        if not self.done.is_set():
            self._end()
        self._let_go()
        self._tell(self.printed.end)  # services that were kept have had a word
        self.clean.set()
        self._wake.notify_all()
        self._tell(self._on_change)

    def _end(self) -> None:
        self._tasks.clear()
        self._tell(self.printed.end)
        self.ended = time.time()
        if self.error is not None and self._outcome == "completed":
            self._outcome = "failed"
        self._set_status(self._outcome)
        if not self._kept:
            self._let_go()
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
        if self._steps is None and (self._stop_began is not None or self._waiting_in_vain()):
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
            if now >= self._cut_at and not self._cut_told:
                self._cut_told = True
                for task in self.all_tasks:
                    task.stop()  # so that what waits is dropped now, and what comes later is not
            self._abandon_overdue(now - self._stop_began)
        for task in self._waiting_in_vain():
            if now - self._unwanted[task] >= _UNWANTED_GRACE and task.waits_in_source():
                self._give_up(task)
        step = self._step
        if step is not None and now >= self._step_began + self._step_limit(step):
            self._step_overdue(step)

    def _time_out(self) -> None:
        assert self._timeout is not None
        error = JobTimeout(f"job {self.name!r} ran longer than its timeout of {self._timeout:g} s and was stopped")
        self.log.say("job", str(error), "ERROR")  # no note: it is the job's error
        self.stop(2.0, outcome="failed", error=error)

    def _abandon_overdue(self, waited: float) -> None:
        starting = self.services_host.at
        if starting is not None:
            if (
                waited >= self._stop_grace or not starting.is_there()
            ) and self.services_host.give_up_start() is not None:
                self.say(f"the start of service {starting.name!r} did not return; its thread is left to end", "WARNING")
                self._hand_over()
            return
        for task in self._tasks.values():
            if task.ended.is_set():
                continue
            grace = self._stop_grace + (_WAITING_GRACE if task.waits_for_input() else 0.0)
            if waited >= grace or (waited >= self._source_grace(task) and task.waits_in_source()):
                self._give_up(task)

    def _waiting_in_vain(self) -> list[Task]:
        return [task for task in self._unwanted if not task.ended.is_set()]

    def _give_up(self, task: Task) -> None:
        where, left_behind = task.where(), task.left_behind
        if task.abandon():
            if task.thread is not None:
                self._given_up.add(task.thread)
            self.say(f"{where} {left_behind}", "WARNING")
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
                self._report_left()  # the one before, who was given up, does not
                self._go_on(generation)
            else:
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
