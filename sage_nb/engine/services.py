"""The services of one job: start in order, calls, stop in reverse order.

A call runs on the caller's thread, under the service's lock, so that it costs about what the method costs. Only
calls with a time limit and asynchronous ones go over a thread of the service, which is started when the first
such call comes.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from sage_nb.engine.failure import headline, safe_repr
from sage_nb.engine.hooks import DOWN, UP, make_instance, resolve_hook
from sage_nb.engine.log import JobLog
from sage_nb.errors import ServiceMethodError, ServiceNotFoundError, ServiceStoppedError, ServiceTimeout
from sage_nb.pipeline.context import Context, ServiceProxy
from sage_nb.pipeline.graph import ServiceSpec

if TYPE_CHECKING:
    from sage_nb.engine.onray.services import RemoteService

__all__ = ["Service", "ServiceHost", "Step"]

_WORKERS = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One call of the way down; `limit` in seconds."""

    service: Service
    what: str
    run: Callable[[], Any]
    limit: float
    calls_it: bool = True
    """Whether this calls the service itself, which is not there for others from then on."""


def _raise(exc: BaseException) -> None:
    raise exc


class Service:
    """One running service."""

    def __init__(self, spec: ServiceSpec) -> None:
        self.spec = spec
        self.instance: Any = None
        self.remote: RemoteService | None = None
        """Where it is an actor, that. It is `instance` then."""
        self.state = "waiting"
        self.note: str | None = None
        self.calls = 0
        self.lock = threading.RLock()
        """Held during a call, so that calls come one at a time."""
        self.thread_safe = False
        self.given_up = False
        """Whether its start took too long, and the job goes on without it."""
        self.ending = False
        """Whether queued calls are being finished, and new ones refused."""
        self.queue_lock = threading.Lock()
        self.jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], None]] | None] | None = None
        self.workers: list[threading.Thread] = []

    @property
    def name(self) -> str:
        return self.spec.name

    def make(self, ctx: Context, remote: Callable[[ServiceSpec], RemoteService] | None) -> None:
        """Construct the instance, by `remote` where it is to be an actor."""
        if self.spec.remote and remote is not None:
            self.remote = remote(self.spec)
            self.remote.start()
            self.instance = self.remote
        else:
            self.instance = make_instance(self.spec.make, self.spec.args, self.spec.kw, ctx)
        self.thread_safe = bool(getattr(self.instance, "thread_safe", False))

    def is_there(self) -> bool:
        """Whether there is something that can be waited for: an actor may have to wait for its place."""
        return self.remote is None or self.remote.is_there()

    def hooks(self) -> Callable[[tuple[str, ...]], Callable[[], Any] | None]:
        """Gives the hook that goes by one of some names, also once the service has let go of its instance."""
        remote, instance = self.remote, self.instance
        if remote is None:
            return lambda names: resolve_hook(instance, names)
        return lambda names: remote.hook(DOWN.index(names)) if names in DOWN else None  # it is made started

    def invoke(self, method: str, args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
        """Call on the caller's thread."""
        if self.state != "running":
            self.refuse()
        fn = getattr(self.instance, method, None) if self.remote is None else self.remote.method(method)
        if not callable(fn):
            raise ServiceMethodError(f"service {self.name!r} ({type(self.instance).__name__}) has no method {method!r}")
        self.calls += 1
        if self.thread_safe:
            return fn(*args, **kw)
        with self.lock:
            if self.state != "running":
                self.refuse()
            return fn(*args, **kw)

    def refuse(self) -> None:
        state = "stopping" if self.state == "running" else self.state
        raise ServiceStoppedError(f"service {self.name!r} is {state}; it can be called while it is running")

    def submit(self, method: str, args: tuple[Any, ...], kw: dict[str, Any]) -> Future[Any]:
        """Run the call on a thread of the service. Returns at once, also while another call runs."""
        future: Future[Any] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self.invoke(method, args, kw))
                except BaseException as exc:  # noqa: BLE001 - it belongs to whoever asked
                    future.set_exception(exc)

        with self.queue_lock:
            if self.state != "running" or self.ending:
                self.refuse()
            if self.jobs is None:
                self.jobs = queue.SimpleQueue()
            if not self.workers or (self.thread_safe and len(self.workers) < _WORKERS):
                self._add_worker(self.jobs)
            self.jobs.put((future, work))
        return future

    def _add_worker(self, jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], None]] | None]) -> None:
        def work() -> None:
            while (job := jobs.get()) is not None:
                job[1]()

        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(work,), name=f"sage_nb service {self.name}", daemon=True)
        self.workers.append(thread)
        thread.start()

    def finish_calls(self) -> None:
        """Let the calls that are queued end, and the threads with them."""
        with self.queue_lock:
            self.ending = True
            if self.jobs is not None:
                for _ in self.workers:
                    self.jobs.put(None)
        for thread in self.workers:
            if thread is not threading.current_thread():
                thread.join()


class ServiceHost:
    """All services of one job. Implements `ServiceCaller`."""

    def __init__(self, specs: dict[str, ServiceSpec], log: JobLog, stopping: Callable[[], bool], limit: float) -> None:
        self._services = {name: Service(spec) for name, spec in specs.items()}
        self._log = log
        self._stopping = stopping
        self._limit = limit
        self.remote: Callable[[ServiceSpec], RemoteService] | None = None
        """How an actor is made of a service. Set once the cluster is there."""
        self.at: Service | None = None
        """The service that is starting at this moment."""

    def __bool__(self) -> bool:
        return bool(self._services)

    def __iter__(self) -> Any:
        return iter(self._services.values())

    def instances(self) -> dict[str, Any]:
        """The user's objects of the services that are up."""
        return {s.name: s.instance for s in self if s.state in ("running", "kept", "stopping")}

    def context(self, name: str) -> Context:
        return Context(name, self, self._stopping, self._log.logger)

    def start(self) -> bool:
        """Start all, in order of registration; False where a stop came in between. Raises what a hook raises."""
        return self._start(list(self))

    def start_anew(self) -> bool:
        """Start those in actors again, whose cluster was lost. As `start`."""
        lost = [service for service in self if service.remote is not None]
        for service in lost:
            if service.remote is not None:
                service.remote.release()
            service.instance = service.remote = None
        return self._start(lost)

    def _start(self, services: list[Service]) -> bool:
        for service in services:
            if self._stopping():
                return False
            self.at = service
            service.state = "starting"
            if not self._start_one(service):
                return False
        self.at = None
        return True

    def _start_one(self, service: Service) -> bool:
        """False where the start took so long that it was given up; what had come of it by then is undone."""
        try:
            service.make(self.context(service.name), self.remote)
        except BaseException as exc:
            if not service.given_up:
                raise
            if service.remote is None:  # else it was ended from here
                self._log.say(service.name, f"its late start raised {headline(exc)}", "ERROR")
            return False
        hook_of = service.hooks()
        for names in UP:
            hook = hook_of(names)
            if hook is not None and not service.given_up:
                hook()
        with service.queue_lock:
            if not service.given_up:
                service.state = "running"
                return True
        for names in DOWN:
            try:
                hook = hook_of(names)
                if hook is not None:
                    hook()
            except Exception as exc:  # noqa: BLE001 - the job has ended long since; its log is what is left to tell
                self._log.say(service.name, f"undoing its late start raised {headline(exc)}", "ERROR")
        return False

    def give_up_start(self) -> Service | None:
        """Go on without the service that is starting, if there is one still."""
        service = self.at
        if service is None:
            return None
        with service.queue_lock:
            if service.state != "starting":
                return None
            service.given_up = True
            if service.remote is not None:
                service.remote.release()
            service.state, service.note = "hung", "its start did not return"
        self.at = None
        return service

    def request_stop(self) -> None:
        """Let services in actors know that the job is to stop; others look for themselves."""
        for service in self:
            remote = service.remote
            if remote is not None:
                remote.request_stop()

    def steps_down(self, drain: bool) -> list[Step]:
        """The calls that stop every service that was made, in reverse order.

        Calls that are queued come first, while all services are up; `drain` lets them run, else they are cancelled.
        """
        steps: list[Step] = []
        made: list[Service] = []
        for service in reversed(self._services.values()):
            if service.instance is not None and not service.given_up:
                made.append(service)
            elif service.state == "starting":
                service.state = "failed"
        for service in made:
            if service.state == "running":  # a thread for calls may be added until its step has begun
                finish = self._finishing(service, drain)
                steps.append(Step(service, "waiting for its last calls", finish, self._limit, calls_it=False))
        for service in made:
            for names in DOWN:
                try:
                    hook = service.hooks()(names)
                except BaseException as exc:  # noqa: BLE001 - a user's __getattr__; it is that step's failure
                    hook = partial(_raise, exc)
                if hook is not None:
                    steps.append(Step(service, f"{getattr(hook, '__name__', names[0])}()", hook, self._limit))
        return steps

    @staticmethod
    def _finishing(service: Service, drain: bool) -> Callable[[], None]:
        def finish() -> None:
            if not drain and service.jobs is not None:
                while not service.jobs.empty():
                    queued = service.jobs.get_nowait()
                    if queued is not None:
                        queued[0].cancel()
            service.finish_calls()

        return finish

    def settle(self) -> None:
        """After the last step: what went well is stopped, and the objects are let go."""
        for service in self:
            if service.state in ("running", "stopping", "kept"):
                service.state = "stopped"
            if service.remote is not None:
                service.remote.release()
            service.instance = service.remote = None
            service.jobs = None
            service.workers = []

    def keep(self) -> None:
        for service in self:
            if service.state == "running":
                service.state = "kept"

    def unkeep(self) -> None:
        for service in self:
            if service.state == "kept":
                service.state = "running"

    # Calls

    def _find(self, name: str) -> Service:
        service = self._services.get(name)
        if service is None:
            names = ", ".join(sorted(self._services)) or "none"
            raise ServiceNotFoundError(f"no service {safe_repr(name)} is registered; there are: {names}")
        return service

    def call(self, name: str, method: str, args: tuple[Any, ...], kw: dict[str, Any], timeout: float | None) -> Any:
        service = self._find(name)
        if timeout is None:
            return service.invoke(method, args, kw)
        future = service.submit(method, args, kw)
        try:
            return future.result(timeout)
        except TimeoutError:
            if future.done():
                raise
            future.cancel()
            raise ServiceTimeout(f"service {name!r}: {method}() took longer than {timeout:g} s") from None

    def call_async(self, name: str, method: str, args: tuple[Any, ...], kw: dict[str, Any]) -> Future[Any]:
        return self._find(name).submit(method, args, kw)

    def proxy(self, name: str) -> ServiceProxy:
        self._find(name)
        return ServiceProxy(self, name)
