"""A pipeline that runs as a service of another one."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from sage_nb.engine.dispatcher import Dispatcher
from sage_nb.jobs.job import Job
from sage_nb.pipeline.functions import BaseService

if TYPE_CHECKING:
    from sage_nb.jobs.environment import LocalEnvironment

__all__ = ["PipelineService"]


class PipelineService(BaseService):
    """Runs `env` as a job of its own. `process(payload)` waits for the reply, `submit(payload)` gives a future."""

    thread_safe = True

    def __init__(self, env: LocalEnvironment) -> None:
        self._env = env
        self._requests = env._requests
        self._job: Job | None = None
        self._watch: threading.Thread | None = None

    def start(self) -> None:
        """Submit the pipeline."""
        self._requests.begin()
        self._requests.at_rest = self._at_rest
        self._job = self._env.submit()
        self._watch = threading.Thread(target=self._until_end, name=f"sage_nb pipeline {self._env.name}", daemon=True)
        self._watch.start()

    def process(self, payload: Any) -> Any:
        """The reply to `payload`."""
        return self.submit(payload).result()

    def submit(self, payload: Any) -> Future[Any]:
        """Hand in `payload`; the future gets the reply."""
        return self._requests.submit(payload)

    def stop(self) -> None:
        """End the pipeline with a `StopSignal`, once it has answered what it was asked. Raises why it failed."""
        self._requests.stop()
        if self._job is not None:
            self._job.wait()
        if self._watch is not None:
            self._watch.join()

    def _at_rest(self) -> bool:
        """Whether no item waits or is at work between two tasks. What is done is counted first: see `Circle`."""
        job = self._job
        run = job._dispatcher if job is not None else None
        if not isinstance(run, Dispatcher) or any(op.kind == "window" for op in run.operators):
            return False  # a window keeps requests, and replies to them later
        lanes = [lane for task in run.all_tasks for lane in (task.inbox.lanes if task.inbox else ())]
        done = sum(lane.done for lane in lanes)
        return done == sum(lane.appended() for lane in lanes)

    def _until_end(self) -> None:
        job = self._job
        assert job is not None
        job._dispatcher.clean.wait()
        self._requests.end(job.exception())
