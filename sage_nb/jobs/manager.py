"""`JobManager`: runs jobs in this process, and remembers those that have ended.

It starts nothing of its own: between jobs there is no thread, and no port is ever opened. What is still running
when the process ends is stopped then, within two seconds in all.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - its exit hook must be registered before ours, to run after it
import os
import sys
import threading
import time
import uuid as uuids
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sage_nb.engine.dispatcher import ENDED, Cleanup, Dispatcher
from sage_nb.engine.failure import safe_str, safe_text
from sage_nb.engine.printing import limits_for
from sage_nb.engine.results import Results, make_results
from sage_nb.engine.stages import Plan
from sage_nb.errors import JobStateError
from sage_nb.jobs.announcing import announce
from sage_nb.jobs.describe import Describer
from sage_nb.jobs.finding import find_job
from sage_nb.jobs.info import EndedDispatcher, JobInfo
from sage_nb.jobs.job import Job
from sage_nb.pipeline.graph import Operator

if TYPE_CHECKING:
    from sage_nb.jobs.environment import LocalEnvironment

__all__ = ["JobManager", "default_manager", "thread_context", "use_thread_context", "watched"]

_HISTORY = 1000
_EXIT_LIMIT = 1.9

ThreadContext = Callable[[], AbstractContextManager[Any]]
_make_thread_context: Callable[[], ThreadContext] = lambda: nullcontext  # noqa: E731
_is_watched: Callable[[], bool | None] = lambda: None  # noqa: E731


def use_thread_context(
    factory: Callable[[], ThreadContext], is_watched: Callable[[], bool | None] = lambda: None
) -> None:
    """Have `factory()` called at each submit, and the context manager it returns entered in each of the job's threads.

    A notebook pins the threads' output to the submitting cell that way. `is_watched()` says whether somebody looks at a
    page that what the job prints goes to; None where that is not known.
    """
    global _make_thread_context, _is_watched
    _make_thread_context, _is_watched = factory, is_watched


def thread_context() -> ThreadContext:
    """For a job that is submitted now: what its threads enter."""
    return _make_thread_context()


def watched() -> bool | None:
    """For a job that is submitted now: whether somebody looks at a page; None where that is not known."""
    return _is_watched()


class JobManager:
    """Runs jobs in this process. `jobs` maps the uuids of those known now to their records, the oldest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._infos: OrderedDict[str, JobInfo] = OrderedDict()
        self._live: dict[str, Job] = {}
        self._handles: weakref.WeakValueDictionary[str, Job] = weakref.WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<JobManager: {len(self._live)} running, {len(self._infos)} known>"

    @property
    def jobs(self) -> Mapping[str, JobInfo]:
        with self._lock:
            return MappingProxyType(dict(self._infos))

    def submit_job(
        self,
        env: LocalEnvironment,
        autostop: bool = False,
        *,
        timeout: float | None = None,
        cleanup: Cleanup = "always",
        name: str | None = None,
    ) -> Job:
        """Start what `env` declares; with `autostop` wait for the end and the cleanup, and raise if it failed."""
        __tracebackhide__ = True
        job = env._submit(autostop, timeout, cleanup, name, manager=self)
        return job.wait() if autostop else job

    def _make(
        self,
        env: LocalEnvironment,
        plan: Plan,
        autostop: bool,
        timeout: float | None,
        cleanup: Cleanup,
        name: str,
        on_error: str,
        uuid: str | None = None,
        results: Callable[[tuple[Operator, ...]], Results] = make_results,
        on_restart: Callable[[], None] = lambda: None,
    ) -> Job:
        info = JobInfo(uuid or str(uuids.uuid4()), name, env.name, autostop=autostop)
        reference: list[Job] = []
        dispatcher = Dispatcher(
            env._graph.copy(),
            plan,
            name,
            on_error=on_error,
            inline=bool(env.config.get("inline", True)),
            restarts=env._restarts,
            cleanup=cleanup,
            timeout=timeout,
            service_stop_timeout=float(env.config.get("service_stop_timeout", 10.0)),
            on_change=lambda: self._changed(reference[0]),
            on_end=lambda: self._record(reference[0]),
            thread_context=thread_context(),
            limits=limits_for(watched()),
            ray=env.config.get("ray"),
            results=results,
            on_restart=on_restart,
        )
        job = Job(info, dispatcher, Describer(info.uuid, name, dispatcher))
        reference.append(job)
        info.dispatcher = dispatcher
        with self._lock:
            self._infos[info.uuid] = info
            self._live[info.uuid] = job
            self._handles[info.uuid] = job
            self._forget_oldest()
        _at_exit(self)
        return job

    @staticmethod
    def _start(job: Job) -> None:
        announce(job)
        _dispatcher_of(job).start()

    def _forget_oldest(self) -> None:
        if len(self._infos) <= _HISTORY:
            return
        ended = (key for key in self._infos if key not in self._live)
        for key in list(islice(ended, len(self._infos) - _HISTORY)):
            del self._infos[key]

    def _changed(self, job: Job) -> None:
        info, dispatcher = job._info, _dispatcher_of(job)
        info.status, info.last_update = dispatcher.status, time.time()
        info.start_time, info.stop_time = dispatcher.started, dispatcher.ended
        info.restart_count = dispatcher.attempt - 1
        info.error = None
        if dispatcher.error is not None:
            info.error = f"{type(dispatcher.error).__name__}: {safe_text(safe_str(dispatcher.error))}"
        if dispatcher.status in ENDED and not dispatcher.services:
            info.dispatcher = EndedDispatcher()
            with self._lock:
                self._live.pop(info.uuid, None)
                self._forget_oldest()
        job._changed()

    @staticmethod
    def _record(job: Job) -> None:
        """Keep the last description. It runs the user's repr(), so it comes after the end, and no lock is held."""
        job._info.snapshot = job.snapshot()

    # Finding

    def find(self, job: Job | str) -> JobInfo:
        """The record of a job, by handle, uuid, name (the newest of that name), or a beginning of the uuid that no
        other has. Raises `JobNotFoundError`."""
        advice = "list_jobs() or %sage_jobs shows those there are"
        return find_job(str(job), dict(self._infos), lambda info: info.name, advice=advice)

    def get_job(self, job: Job | str) -> Job | None:
        """The handle of a job that runs, or that somebody still holds; None of one of which only the record is left."""
        return self._handles.get(self.find(job).uuid)

    def get_job_status(self, job: Job | str) -> dict[str, Any]:
        """See `JobInfo.get_status`."""
        return self.find(job).get_status()

    def list_jobs(self) -> list[dict[str, Any]]:
        """A summary of each job, the oldest first."""
        return [info.get_summary() for info in list(self._infos.values())]

    # Orders

    def pause_job(self, job: Job | str) -> None:
        """Pause. Raises `JobStateError` where the job is not running."""
        self._running(job).pause()

    def continue_job(self, job: Job | str) -> None:
        """Resume. Raises `JobStateError` where the job is not paused."""
        self._running(job).resume()

    def stop_job(self, job: Job | str, timeout: float = 10.0) -> dict[str, Any]:
        """Stop, wait for the cleanup, and return the status; of a job that has ended, return the status."""
        info = self.find(job)
        live = self._live.get(info.uuid)
        if live is not None:
            live.stop(timeout)
        return info.get_status()

    def delete_job(self, job: Job | str, force: bool = False) -> None:
        """Forget a job that has ended; with `force`, stop it first. Raises `JobStateError` where it runs."""
        info = self.find(job)
        live = self._live.get(info.uuid)
        if live is not None:
            if not force:
                raise JobStateError(f"job {info.name!r} is {info.status}; stop it first, or delete with force=True")
            live.stop()
        with self._lock:
            self._infos.pop(info.uuid, None)

    def stop_all(self, timeout: float = 10.0) -> list[Job]:
        """Stop every job, all at once, wait for their cleanup, and return them."""
        jobs = list(self._live.values())
        for job in jobs:
            job.request_stop(timeout)
        for job in jobs:
            job.stop(timeout)
        return jobs

    def _running(self, job: Job | str) -> Job:
        info = self.find(job)
        live = self._live.get(info.uuid)
        if live is None:
            raise JobStateError(f"job {info.name!r} is {info.status} already")
        return live

    def _exit(self, deadline: float) -> None:
        jobs = list(self._live.values())
        kernel = "ipykernel" in sys.modules
        reason = "its kernel was restarted or shut down" if kernel else "its process has ended"
        for job in jobs:
            if job.status not in ENDED:
                print(
                    f"sage_nb: job {job.name!r} was still {job.status} when Python ended; it is stopped. "
                    "To wait for it, use submit(autostop=True) or job.wait()",
                    file=sys.stderr,
                )
            _dispatcher_of(job).hurry(_EXIT_LIMIT, reason)
        for job in jobs:
            _dispatcher_of(job).drive(deadline)
        if not kernel:  # where its view has told
            self._say_failures()

    def _say_failures(self) -> None:
        """Say which jobs have failed that nobody was told of."""
        for info in list(self._infos.values()):
            if info.status == "failed" and not info.told:
                where = info.snapshot.error.where if info.snapshot and info.snapshot.error else None
                why = (info.error or "").rstrip(": ")
                print(
                    f"sage_nb: job {info.name!r} has failed, and nobody asked how it ended: {why}"
                    f"{f' ({where})' if where else ''}. To be told, use submit(autostop=True) or job.wait()",
                    file=sys.stderr,
                )


def _dispatcher_of(job: Job) -> Dispatcher:
    """That of a job of this process."""
    assert isinstance(job._dispatcher, Dispatcher)
    return job._dispatcher


_managers: weakref.WeakSet[JobManager] = weakref.WeakSet()
_hooked = False


def _at_exit(manager: JobManager) -> None:
    """Have `manager` stop its jobs when the process ends, while threads can still be started.

    `atexit` comes too late for that from Python 3.12 on, so this uses the hook that `concurrent.futures` uses. (In
    3.12.0 and 3.12.1 that is too late as well; the caller's thread then does all the work.)
    """
    global _hooked
    _managers.add(manager)
    if not _hooked:
        _hooked = True
        register: Callable[..., Any] = getattr(threading, "_register_atexit", atexit.register)
        register(_stop_all_jobs)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_forget_parents_jobs)


def _stop_all_jobs() -> None:
    deadline = time.monotonic() + _EXIT_LIMIT
    for manager in list(_managers):
        manager._exit(deadline)


def _forget_parents_jobs() -> None:
    """A forked child has the records of its parent's jobs, and none of their threads."""
    global _default, _default_lock
    _default, _default_lock = None, threading.Lock()
    _managers.clear()


_default: JobManager | None = None
_default_lock = threading.Lock()


def default_manager() -> JobManager:
    """The one JobManager of this process that environments use."""
    global _default
    with _default_lock:
        if _default is None:
            _default = JobManager()
        return _default
