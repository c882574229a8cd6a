"""`JobManagerClient`: a server's JobManager, with the methods of the one in the kernel.

Every method has an awaitable twin on `client.aio`. All share one set of connections, on a thread that ends when nobody
has used it for a while.
"""

from __future__ import annotations

import asyncio
import threading
import uuid as uuids
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from functools import partial
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import quote

import msgspec

from sage_nb.engine.dispatcher import ENDED
from sage_nb.engine.failure import safe_text
from sage_nb.errors import JobNotFoundError, JobStateError
from sage_nb.jobs.info import JobInfo
from sage_nb.jobs.snapshot import JobSnapshot
from sage_nb.remote.address import Address, address_of
from sage_nb.remote.connection import Connection
from sage_nb.remote.portal import portal, wait
from sage_nb.remote.seen import SeenDispatcher

if TYPE_CHECKING:
    from sage_nb.jobs.job import Job

__all__ = ["JobManagerClient", "call", "connection_to", "job_path"]

_T = TypeVar("_T")
_LONGEST = 100
_connections: dict[Address, Connection] = {}
_lock = threading.Lock()


def connection_to(address: Address) -> Connection:
    """The connections of this process to a server."""
    with _lock:
        found = _connections.get(address)
        if found is None:
            found = _connections[address] = Connection(address)
        return found


def call(work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Do `work` on the portal's loop, and wait for it. An interrupt ends the waiting."""
    if portal.is_own_thread():
        raise RuntimeError("this is the thread of the connections, which cannot wait for itself; use client.aio")
    return wait(portal.run(work()))


class _Async:
    """The awaitable twins of a client's methods, for any event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def _request(self, method: str, path: str, **how: Any) -> Any:
        return await self._on_portal(self._connection.request(method, path, **how))

    async def _on_portal(self, work: Coroutine[Any, Any, Any]) -> Any:
        if portal.is_own_thread():
            return await work
        return await asyncio.wrap_future(portal.run(work))

    async def submit_job(self, serialized_data: bytes, autostop: bool = False, *, uuid: str | None = None) -> str:
        """See `JobManagerClient.submit_job`."""
        uuid = uuid or str(uuids.uuid4())
        data = bytes(serialized_data)
        job_path(uuid)  # whether it can be one
        await self._on_portal(self._connection.submit(uuid, [data]))
        if autostop:
            await self.wait(uuid)
        return uuid

    async def wait(self, job: Job | str) -> dict[str, Any]:
        """Wait for the end of a job and of its cleanup, and give its status."""
        from sage_nb.remote.attaching import attach_async

        status = await self.get_job_status(job)
        handle = await attach_async(self._connection, status, results=False)
        await handle._until(handle._dispatcher.clean)
        return await self.get_job_status(status["uuid"])

    async def get_job_status(self, job: Job | str) -> dict[str, Any]:
        """See `JobManagerClient.get_job_status`."""
        found: dict[str, Any] = await self._request("GET", job_path(job))
        return found

    async def list_jobs(self) -> list[dict[str, Any]]:
        """See `JobManagerClient.list_jobs`."""
        found: list[dict[str, Any]] = await self._request("GET", "/v1/jobs")
        return found

    async def pause_job(self, job: Job | str) -> None:
        """See `JobManagerClient.pause_job`."""
        await self._request("POST", job_path(job, "pause"))

    async def continue_job(self, job: Job | str) -> None:
        """See `JobManagerClient.continue_job`."""
        await self._request("POST", job_path(job, "continue"))

    async def stop_job(self, job: Job | str, timeout: float = 10.0) -> dict[str, Any]:
        """See `JobManagerClient.stop_job`."""
        data = msgspec.json.encode({"timeout": timeout, "wait": True})
        found: dict[str, Any] = await self._request("POST", job_path(job, "stop"), data=data, patient=True)
        return found

    async def delete_job(self, job: Job | str, force: bool = False) -> None:
        """See `JobManagerClient.delete_job`."""
        await self._request("DELETE", job_path(job), query={"force": "1"} if force else None, patient=True)

    async def job_logs(self, job: Job | str, n: int = 100) -> list[dict[str, Any]]:
        """See `JobManagerClient.job_logs`."""
        found: list[dict[str, Any]] = await self._request("GET", job_path(job, "logs"), query={"n": str(n)})
        return found

    async def job_states(self, job: Job | str) -> list[dict[str, Any]]:
        """See `JobManagerClient.job_states`."""
        found: list[dict[str, Any]] = await self._request("GET", job_path(job, "states"))
        return found

    async def health_check(self) -> dict[str, Any]:
        """See `JobManagerClient.health_check`."""
        found: dict[str, Any] = await self._request("GET", "/health")
        return found

    async def get_server_info(self) -> dict[str, Any]:
        """See `JobManagerClient.get_server_info`."""
        found: dict[str, Any] = await self._request("GET", "/v1/server")
        return found

    async def watch(self, job: Job | str) -> AsyncIterator[JobSnapshot]:
        """See `JobManagerClient.watch`."""
        from sage_nb.remote.attaching import attach_async, snapshots_async

        status = await self.get_job_status(job)
        async for snapshot in snapshots_async(await attach_async(self._connection, status, results=False)):
            yield snapshot


class JobManagerClient:
    """A JobManager server's jobs.

    `host` and `port` say where it is; `token` is the one from its file on this machine, or from `SAGE_NB_TOKEN`, unless
    given. `config` is a dict: `tls` and `ca` (whom to trust), `request_timeout` (seconds that one request may take,
    1,800 unless given), `reconnect_timeout` (seconds after which a lost connection is given up; never unless given).

    A job is a `Job`, its uuid, its number, or a beginning of the uuid that no other has. All methods raise
    `ServerUnreachableError` where no server answers, and `AccessError` where the token is wrong.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        token: str | None = None,
        *,
        config: dict[str, Any] | None = None,
    ) -> None:
        self._address = address_of(host, port, token, config)
        self._connection = connection_to(self._address)
        self.aio = _Async(self._connection)

    def __repr__(self) -> str:
        return f"<JobManagerClient {self._address}>"

    @property
    def host(self) -> str:
        return self._address.host

    @property
    def port(self) -> int:
        return self._address.port

    @property
    def jobs(self) -> Mapping[str, JobInfo]:
        """The records of all jobs, by uuid, the oldest first, as they are now."""
        from sage_nb.remote.attaching import info_of

        found = {one["uuid"]: info_of(one) for one in self.list_jobs()}
        for info in found.values():
            if info.status not in ENDED:
                info.dispatcher = SeenDispatcher(partial(self._described, info))
        return MappingProxyType(found)

    def _described(self, info: JobInfo) -> JobSnapshot:
        """A job's description as it is now."""
        try:
            data = self._call(lambda: self._connection.fetch(job_path(info.uuid, "snapshot")))
        except JobNotFoundError:
            return JobSnapshot(uuid=info.uuid, name=info.name, status="stopped")
        except JobStateError:  # there is nothing to see of it yet
            return JobSnapshot(uuid=info.uuid, name=info.name, status=self.get_job_status(info.uuid)["status"])
        return msgspec.json.decode(data, type=JobSnapshot)

    def submit_job(self, serialized_data: bytes, autostop: bool = False, *, uuid: str | None = None) -> str:
        """Submit what `RemoteEnvironment.serialize()` made; the job's uuid. With `autostop`, wait for its end.

        A repeat under the same `uuid` is the job that there is. Raises `ProtocolError` where the data are no pipeline,
        `ShippingError` where another Python made them, and `SubmitError` where they are too large.
        """
        return self._call(lambda: self.aio.submit_job(serialized_data, autostop, uuid=uuid))

    def get_job_status(self, job: Job | str) -> dict[str, Any]:
        """All that the record of a job has, and its place in the queue. Raises `JobNotFoundError`."""
        return self._call(lambda: self.aio.get_job_status(job))

    def list_jobs(self) -> list[dict[str, Any]]:
        """A summary of each job, the oldest first."""
        return self._call(self.aio.list_jobs)

    def pause_job(self, job: Job | str) -> None:
        """Pause. Raises `JobStateError` where the job is not running."""
        self._call(lambda: self.aio.pause_job(job))

    def continue_job(self, job: Job | str) -> None:
        """Resume. Raises `JobStateError` where the job is not paused."""
        self._call(lambda: self.aio.continue_job(job))

    def stop_job(self, job: Job | str, timeout: float = 10.0) -> dict[str, Any]:
        """Stop, wait for the cleanup, and return the status; of a job that has ended, return the status.

        What does not end within `timeout` seconds is forced to, by signals to its process.
        """
        return self._call(lambda: self.aio.stop_job(job, timeout))

    def delete_job(self, job: Job | str, force: bool = False) -> None:
        """Forget a job that has ended; with `force`, stop it first. Raises `JobStateError` where it runs."""
        self._call(lambda: self.aio.delete_job(job, force))

    def wait_job(self, job: Job | str) -> dict[str, Any]:
        """Wait for the end of a job and of its cleanup, and give its status."""
        return self._call(lambda: self.aio.wait(job))

    def job_logs(self, job: Job | str, n: int = 100) -> list[dict[str, Any]]:
        """The last `n` lines of a job's log: `time` (seconds since the epoch), `level`, `source`, `text`."""
        return self._call(lambda: self.aio.job_logs(job, n))

    def job_states(self, job: Job | str) -> list[dict[str, Any]]:
        """The states that a job went through: `time`, `attempt`, `status`, `error`."""
        return self._call(lambda: self.aio.job_states(job))

    def health_check(self) -> dict[str, Any]:
        """`{"status": "ok"}`. Raises `ServerError` where the server is not well."""
        return self._call(self.aio.health_check)

    def get_server_info(self) -> dict[str, Any]:
        """Version, Python, backend; jobs that run, wait and are known; warm runners; seconds since its start."""
        return self._call(self.aio.get_server_info)

    def watch(self, job: Job | str) -> Iterator[JobSnapshot]:
        """A `JobSnapshot` of the job now, and each new one, until it has ended and is cleaned up."""
        from sage_nb.remote.attaching import attach_async, snapshots

        async def begin() -> Job:
            return await attach_async(self._connection, await self.aio.get_job_status(job), results=False)

        return snapshots(self._call(begin))

    def attach(self, job: Job | str, *, results: bool = True) -> Job:
        """A live handle on a job, with everything from its start that is still kept; its items only with `results`."""
        from sage_nb.remote.attaching import attach_to

        return attach_to(self._connection, str(job), results=results)

    def close(self) -> None:
        """Close the connections, unless a handle on a job needs them. They open again when they are needed."""
        self._call(self._connection.close_if_idle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _call(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
        return call(work)


def job_path(job: Job | str, what: str = "") -> str:
    """Where a server has a job. Raises `JobNotFoundError` for what no job is called by."""
    word = str(job)
    if not 0 < len(word) <= _LONGEST or not word.isprintable() or word in (".", ".."):
        raise JobNotFoundError(f"the server knows no job {safe_text(word, 100)!r}")
    return f"/v1/jobs/{quote(word, safe='')}" + (f"/{what}" if what else "")
