"""`LocalEnvironment`: declares a pipeline and runs it in this process."""

from __future__ import annotations

from typing import Any, cast

from sage_nb.engine.dispatcher import Cleanup
from sage_nb.engine.stages import Plan
from sage_nb.errors import PipelineError, SignatureError
from sage_nb.jobs.job import Job
from sage_nb.jobs.manager import JobManager, default_manager
from sage_nb.jobs.places import current_place
from sage_nb.jobs.service import PipelineService
from sage_nb.jobs.submitting import SubmittingEnvironment, check_backend
from sage_nb.pipeline.graph import Graph
from sage_nb.pipeline.requests import Requests, takes_requests

__all__ = ["LocalEnvironment"]


class LocalEnvironment(SubmittingEnvironment):
    """Declares a pipeline and runs it in this process.

    As a context manager it stops its job at the end of the block. An environment whose job has ended can be
    submitted again: a new job.
    """

    def __init__(self, name: str = "pipeline", config: dict[str, Any] | None = None, backend: str = "threads") -> None:
        check_backend(backend)
        super().__init__(name, config, backend)
        self._manager: JobManager | None = None

    def __reduce__(self) -> Any:
        """What is declared travels, to where a pipeline of which this one is a service runs; jobs do not."""
        return _declared, (self.name, self.config, self.backend, self._graph, self._requests)

    @property
    def jobmanager(self) -> JobManager:
        """The JobManager that runs this environment's jobs: one for the process, unless another was asked to, or
        `sage_nb.jobs.places` has a server do it."""
        return self._manager or default_manager()

    def register_pipeline(self, name: str, env: LocalEnvironment) -> None:
        """Let another environment's pipeline be a service of this one.

        It begins with `env.from_requests()` and ends with `stream.reply()`. The job starts it before the first item and
        ends it with a `StopSignal` after the last. `call_service(name, payload)` waits for the reply,
        `call_service(name).submit(payload)` gives a `concurrent.futures.Future`. Each is a job with a view of its own.
        """
        register_pipeline(self, name, env)

    def _start(
        self,
        plan: Plan,
        *,
        autostop: bool,
        timeout: float | None,
        cleanup: Cleanup,
        name: str,
        on_error: str,
        manager: JobManager | None = None,
        **made: Any,
    ) -> Job:
        place = current_place()
        if manager is None and place is not None:
            self._manager = cast(JobManager, place.jobmanager)
            return place.start(
                self, plan, autostop=autostop, timeout=timeout, cleanup=cleanup, name=name, on_error=on_error
            )
        self._manager = manager = manager or default_manager()
        self._job = manager._make(self, plan, autostop, timeout, cleanup, name, on_error, **made)
        manager._start(self._job)
        return self._job


def register_pipeline(outer: SubmittingEnvironment, name: str, env: LocalEnvironment) -> None:
    """Let the pipeline of `env` be a service of `outer`."""
    if not isinstance(env, LocalEnvironment):
        raise SignatureError(f"register_pipeline: takes an environment, not {type(env).__name__}")
    if env is outer:
        raise PipelineError("register_pipeline: an environment cannot be a service of itself")
    if not any(map(takes_requests, env._graph.operators)):
        raise PipelineError(f"register_pipeline: {env.name!r} takes no requests; begin it with from_requests()")
    outer._service("register_pipeline", name, PipelineService, (env,), {})


def _declared(name: str, config: dict[str, Any], backend: str, graph: Graph, requests: Requests) -> LocalEnvironment:
    env = LocalEnvironment(name, config, backend)
    env._graph, env._requests = graph, requests
    return env
