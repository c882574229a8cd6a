"""Have the jobs of `LocalEnvironment`s run on a JobManager server, without a change to who declares them."""

from __future__ import annotations

from typing import Any

from sage_nb.engine.stages import Plan
from sage_nb.jobs.environment import LocalEnvironment
from sage_nb.jobs.job import Job
from sage_nb.remote.client import JobManagerClient
from sage_nb.remote.environment import RemoteEnvironment

__all__ = ["Redirect"]


class Redirect:
    """A place for `sage_nb.jobs.places.use_place`: the server at `host` and `port`.

        with use_place(Redirect("big-machine:19001")):
            env.submit(autostop=True)  # of a LocalEnvironment: runs there

    A job has the backend of its environment, where that is another than the default; else the server's own. Jobs that
    are given to a `JobManager` by name stay where it is.
    """

    def __init__(self, host: str | None = None, port: int | None = None, token: str | None = None) -> None:
        self._where: dict[str, Any] = {"host": host or "", "port": port, "token": token}
        self.jobmanager = JobManagerClient(host, port, token)

    def start(self, env: LocalEnvironment, plan: Plan, **options: Any) -> Job:
        """Submit what `env` declares to the server."""
        backend = None if env.backend == "threads" else env.backend
        there = RemoteEnvironment(env.name, env.config, **self._where, backend=backend)
        there._graph, there._requests = env._graph, env._requests
        return there._start(plan, **options)
