"""What every environment that submits does: submit, wait, stop, and belong to a `with` block."""

from __future__ import annotations

import inspect
import threading
import warnings
from abc import abstractmethod
from types import GeneratorType, TracebackType
from typing import Any, Self, get_args

from sage_nb.engine.dispatcher import ENDED, Cleanup
from sage_nb.engine.plan import make_plan
from sage_nb.engine.stages import Plan
from sage_nb.errors import JobStateError, PipelineError, SubmitError
from sage_nb.jobs.explain import Explanation
from sage_nb.jobs.job import INTERRUPT_GRACE, Job
from sage_nb.jobs.planning import explanation
from sage_nb.pipeline.batches import need
from sage_nb.pipeline.checks import check_policy
from sage_nb.pipeline.environment import BaseEnvironment
from sage_nb.pipeline.restarts import refuse_unreplayable
from sage_nb.pipeline.sources import IterableSource
from sage_nb.pipeline.spelling import did_you_mean

__all__ = ["BACKENDS", "SubmittingEnvironment", "check_backend"]

BACKENDS = ("threads", "processes", "ray")


def check_backend(backend: Any) -> None:
    """Raise `PipelineError` where there is no such backend, and `ImportError` where it is not installed."""
    if backend not in BACKENDS:
        raise PipelineError(f"there is no backend {backend!r}{did_you_mean(str(backend), BACKENDS)}")
    if backend == "ray":
        need("backend='ray'", "ray")


class SubmittingEnvironment(BaseEnvironment):
    """Declares a pipeline and has it run; where, its subclasses know.

    As a context manager it stops its job at the end of the block. An environment whose job has ended can be
    submitted again: a new job.
    """

    def __init__(self, name: str, config: dict[str, Any] | None, backend: str) -> None:
        super().__init__(name, config)
        self.backend = backend
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._used: dict[int, str] = {}

    @abstractmethod
    def _start(
        self,
        plan: Plan,
        *,
        autostop: bool,
        timeout: float | None,
        cleanup: Cleanup,
        name: str,
        on_error: str,
        **where: Any,
    ) -> Job:
        """Start a job of what is declared, all of which has been checked. `where` is the subclass's own."""

    @property
    def env_uuid(self) -> str | None:
        """The uuid of the latest job; None before the first submit."""
        return self._job.uuid if self._job is not None else None

    @property
    def job(self) -> Job | None:
        """The latest job; None before the first submit."""
        return self._job

    def submit(
        self,
        autostop: bool = False,
        *,
        wait: bool | None = None,
        timeout: float | None = None,
        cleanup: Cleanup = "always",
        on_error: str = "fail",
    ) -> Job:
        """Run the pipeline as a new job.

        `autostop=True` (or `wait=True`) returns when the job and its cleanup are done, and raises the job's own
        exception where it failed. Otherwise this returns at once; the job still cleans up after itself when its
        sources have ended. After `timeout` seconds the job is stopped and fails with `JobTimeout`. `cleanup` says
        when services are stopped: `"always"`; `"on_success"`, to look at them after a failure; or `"never"`; those
        that are kept run until `job.stop()`. `on_error` is what operators do that do not say so themselves: `"fail"`,
        `"skip"` or `"dead_letter"`.

        Raises `SubmitError` where there is no source, a job of this environment runs, or an iterator is used up.
        """
        __tracebackhide__ = True
        wait = autostop if wait is None else wait
        plan = self._warned_plan()
        try:
            job = self._submit(autostop, timeout, cleanup, on_error=on_error, plan=plan)
            return job.wait() if wait else job
        except KeyboardInterrupt:  # it may come before `wait` is there to take it
            self.stop(INTERRUPT_GRACE)
            raise

    async def submit_async(
        self,
        autostop: bool = False,
        *,
        wait: bool | None = None,
        timeout: float | None = None,
        cleanup: Cleanup = "always",
        on_error: str = "fail",
    ) -> Job:
        """Like `submit`, without blocking the event loop while it waits."""
        __tracebackhide__ = True
        wait = autostop if wait is None else wait
        plan = self._warned_plan()
        job = self._submit(autostop, timeout, cleanup, on_error=on_error, plan=plan)
        return await job if wait else job

    def _submit(
        self,
        autostop: bool,
        timeout: float | None,
        cleanup: str,
        name: str | None = None,
        on_error: str = "fail",
        plan: Plan | None = None,
        **where: Any,
    ) -> Job:
        _check_options(timeout, cleanup)
        check_policy("submit", on_error)
        with self._lock:
            if self._closed:
                raise SubmitError(f"the environment {self.name!r} is closed; make a new one")
            if self._job is not None and not self._job._dispatcher.clean.is_set():
                keeps = "keeps the services of" if self._job.status in ENDED else "already runs"
                raise SubmitError(
                    f"the environment {self.name!r} {keeps} job {self._job.uuid[:8]} ({self._job.status}); "
                    "stop it with env.stop(), or use another environment"
                )
            plan = plan or make_plan(self._graph, self.name, self.backend)
            if self._restarts is not None:
                refuse_unreplayable(self._graph)
            iterators = self._fresh_iterators()
            self._job = self._start(
                plan,
                autostop=autostop,
                timeout=timeout,
                cleanup=cleanup,  # type: ignore[arg-type]
                name=name or self.name,
                on_error=on_error,
                **where,
            )
            self._used.update(dict.fromkeys(iterators, self._job.uuid))
            return self._job

    def _warned_plan(self) -> Plan:
        """The plan; a warning says what nothing takes. In a cell of ours the view says it."""
        plan = make_plan(self._graph, self.name, self.backend)
        for source in plan.unsunk():
            warnings.warn(
                f"nothing takes the items of {source!r}: add sink(), collect(), show() or print()", stacklevel=3
            )
        return plan

    def _fresh_iterators(self) -> list[int]:
        """The ids of the iterators that a job would use up. Raises `SubmitError` where one is used up already."""
        iterators: list[int] = []
        for op in self._graph.sources():
            spec = op.spec[0]
            if isinstance(spec, IterableSource) and spec.once:
                items, key = spec.iterable, id(spec.iterable)
                if key in self._used:
                    raise SubmitError(
                        f"source {op.name!r} is an iterator that job {self._used[key][:8]} has used up; "
                        "declare it from a list or from a generator function to submit it again"
                    )
                if isinstance(items, GeneratorType) and inspect.getgeneratorstate(items) == inspect.GEN_CLOSED:
                    raise SubmitError(
                        f"source {op.name!r} is a generator that is used up already; "
                        "declare it from a list or from a generator function"
                    )
                iterators.append(key)
        return iterators

    def explain(self) -> Explanation:
        """How the pipeline would run: its stages, how many tasks each has and where, and how items get from one to the
        next. `print` it, or let a notebook show it with its picture. Raises what `submit` would raise of the plan."""
        plan = make_plan(self._graph, self.name, self.backend)
        return explanation(self.name, self._graph, plan, self.backend)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the job, if one runs, and wait until it is cleaned up."""
        if self._job is not None:
            self._job.stop(timeout)

    def pause(self) -> None:
        """Pause the job. Raises `JobStateError` where none is running."""
        self._running().pause()

    def resume(self) -> None:
        """Resume the job. Raises `JobStateError` where none is paused."""
        self._running().resume()

    def close(self) -> None:
        """Stop the job, if one runs; nothing can be declared or submitted afterwards."""
        self._closed = True
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _running(self) -> Job:
        if self._job is None:
            raise JobStateError(f"the environment {self.name!r} has no job yet; submit it first")
        return self._job


def _check_options(timeout: Any, cleanup: str) -> None:
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0):
        raise SubmitError(f"timeout is a number of seconds above 0, not {timeout!r}")
    if cleanup not in get_args(Cleanup):
        raise SubmitError(f"there is no cleanup {cleanup!r}{did_you_mean(str(cleanup), get_args(Cleanup))}")
