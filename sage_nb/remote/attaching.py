"""Handles on jobs that run, or have ended, on a server, whoever submitted them."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import msgspec

from sage_nb.engine.dispatcher import ENDED
from sage_nb.errors import SageError
from sage_nb.jobs.announcing import announce
from sage_nb.jobs.info import JobInfo
from sage_nb.jobs.job import Job
from sage_nb.jobs.manager import thread_context
from sage_nb.jobs.snapshot import JobSnapshot
from sage_nb.remote.address import address_of
from sage_nb.remote.client import call, connection_to, job_path
from sage_nb.remote.connection import Connection
from sage_nb.remote.portal import portal
from sage_nb.remote.protocol import Declared
from sage_nb.remote.run import RemoteRun

__all__ = ["attach", "attach_async", "attach_to", "handle_of", "handles", "info_of", "make_handle"]

_handles: weakref.WeakValueDictionary[str, Job] = weakref.WeakValueDictionary()
_TICK = 0.2


def attach(job: Job | str, host: str | None = None, port: int | None = None, *, token: str | None = None) -> Job:
    """A live handle on a job of a JobManager server: one that runs, or one that has ended.

    `job` is its uuid, its number, or a beginning of the uuid that no other has. The handle has everything from the
    job's start that the server still keeps: results, logs, dead letters. An interrupt of what waits for it leaves the
    job alone; a handle that nobody holds any more hears nothing more. Raises `JobNotFoundError` and
    `ServerUnreachableError`.
    """
    return attach_to(connection_to(address_of(host, port, token)), str(job))


def attach_to(connection: Connection, word: str, *, results: bool = True) -> Job:
    """Like `attach`, by a connection; its items come only with `results`."""
    context = thread_context()

    async def work() -> Job:
        status = await connection.request("GET", job_path(word))
        return await attach_async(connection, status, results=results, context=context)

    job = call(work)
    announce(job)
    return job


async def attach_async(
    connection: Connection,
    status: dict[str, Any],
    *,
    results: bool = True,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Job:
    """A handle on the job of that status. On any event loop."""
    uuid = status["uuid"]

    async def work() -> Job:
        picture = JobSnapshot(uuid=uuid, name=status["name"], status="created")
        try:
            data = await connection.fetch(f"/v1/jobs/{uuid}/snapshot")
            picture = msgspec.json.decode(data, type=JobSnapshot)
        except SageError:
            picture = msgspec.structs.replace(picture, status=status["status"])  # there is nothing to see of it yet
        job = make_handle(connection, info_of(status), picture, ends_with_its_waiter=False, context=context)
        assert isinstance(job._dispatcher, RemoteRun)
        job._dispatcher.begin(results=results)
        await job._dispatcher.has_past.wait()
        return job

    if portal.is_own_thread():
        return await work()
    return await asyncio.wrap_future(portal.run(work()))


def make_handle(
    connection: Connection,
    info: JobInfo,
    picture: JobSnapshot,
    *,
    ends_with_its_waiter: bool,
    declared: Declared | None = None,
    context: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Job:
    """A handle that hears nothing yet."""
    run = RemoteRun(
        connection, info, picture, ends_with_its_waiter=ends_with_its_waiter, declared=declared, thread_context=context
    )
    job = Job(info, run, run)
    run.belongs_to(job)
    _handles[info.uuid] = job
    return job


def handles() -> list[Job]:
    """The handles on jobs of servers that somebody in this process holds."""
    return list(_handles.values())


def handle_of(uuid: str) -> Job | None:
    """The newest handle on a job."""
    return _handles.get(uuid)


def info_of(status: dict[str, Any]) -> JobInfo:
    """The record of a job, from what the server says of it: its status, or the summary of it."""
    stopped = status.get("stop_time")
    if stopped is None and status["status"] in ENDED and status["start_time"] is not None:
        stopped = status["start_time"] + status["runtime"]
    return JobInfo(
        status["uuid"],
        status["name"],
        status.get("environment", status["name"]),
        status=status["status"],
        autostop=status["autostop"],
        start_time=status["start_time"],
        stop_time=stopped,
        restart_count=status["restart_count"],
        last_update=status["last_update"],
        error=status["error"],
    )


def snapshots(job: Job) -> Iterator[JobSnapshot]:
    """The job's description now, and each new one until it has ended and is cleaned up."""
    changed = threading.Event()

    def wake(_job: Job) -> None:
        changed.set()

    job._listen(wake)
    try:
        last = None
        while True:
            ended = job._dispatcher.clean.is_set()
            changed.clear()
            snapshot = job.snapshot()
            if snapshot != last:
                last = snapshot
                yield snapshot
            if ended:
                return
            changed.wait(_TICK)
    finally:
        job._unlisten(wake)


async def snapshots_async(job: Job) -> AsyncIterator[JobSnapshot]:
    """The same, for an event loop."""
    loop, changed = asyncio.get_running_loop(), asyncio.Event()

    def wake(_job: Job) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(changed.set)

    job._listen(wake)
    try:
        last = None
        while True:
            ended = job._dispatcher.clean.is_set()
            changed.clear()
            snapshot = job.snapshot()
            if snapshot != last:
                last = snapshot
                yield snapshot
            if ended:
                return
            await changed.wait()
    finally:
        job._unlisten(wake)
