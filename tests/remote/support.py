"""Servers for tests."""

from __future__ import annotations

from sage_nb import JobManagerClient, JobManagerServer, RemoteEnvironment
from sage_nb.engine.dispatcher import ENDED

__all__ = ["end_shared_server", "running_jobs", "runs_a_job", "shared_server"]

_shared: list[JobManagerServer] = []


def shared_server() -> JobManagerServer:
    """A server in this process, for tests that need just one: started when it is first asked for."""
    if not _shared:
        _shared.append(JobManagerServer(port=0, warm=2).start())
    return _shared[0]


def running_jobs() -> list[str]:
    """The jobs that run on it."""
    if not _shared:
        return []
    jobs = JobManagerClient(port=_shared[0].port).list_jobs()
    return [job["name"] for job in jobs if job["status"] not in ENDED]


def end_shared_server() -> None:
    """Stop it, where it was started."""
    if _shared:
        port = _shared[0].port
        _shared.pop().stop()
        JobManagerClient(port=port).close()


def runs_a_job(server: JobManagerServer) -> None:
    """See that it does."""
    env = RemoteEnvironment("next", port=server.port)
    env.from_collection([1, 2, 3]).map(lambda x: 2 * x).collect("out")
    assert list(env.submit(autostop=True).results["out"]) == [2, 4, 6]
