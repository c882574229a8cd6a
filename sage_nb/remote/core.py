"""The server's JobManager: takes jobs in, queues them, gives them to runners, and remembers them.

All of it happens on one event loop. The history is written on a thread of its own, in order; a submission is answered
only when it is written there, so that a job that was answered for exists, whatever happens to the server then.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sage_nb.engine.dispatcher import ENDED
from sage_nb.errors import (
    ClusterError,
    JobStateError,
    SageError,
    ServerBusyError,
    ServerError,
    WorkerError,
)
from sage_nb.jobs.finding import find_job
from sage_nb.remote.cluster import Cluster
from sage_nb.remote.history import Entry, History
from sage_nb.remote.hosted import HostedJob
from sage_nb.remote.payload import PayloadHead
from sage_nb.remote.protocol import Order
from sage_nb.remote.runner import Run
from sage_nb.remote.runners import Pool, Runner, process_key
from sage_nb.remote.settings import Settings, machine
from sage_nb.remote.waiting import Queue

__all__ = ["Core"]

_LOG = logging.getLogger("sage_nb.server")
_T = TypeVar("_T")
_ORPHAN_GRACE = 15.0  # seconds in which a runner that lost its server cleans up
_CLOSE_GRACE = 5.0
_TIDY_EVERY = 600.0
_LOOK = 1.0
_FILL_AFTER = 0.05  # seconds: a job that begins has the processors before the next warm runner has them


class Core:
    """The jobs of one server."""

    def __init__(self, settings: Settings, state: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.settings = settings
        self.state = state
        self.loop = loop
        self.jobs: dict[str, HostedJob] = {}
        self.queue: Queue[HostedJob] = Queue()
        self.running: set[HostedJob] = set()
        self.pool = Pool(settings.warm)
        self.began = time.time()
        self.finished = {"completed": 0, "failed": 0, "stopped": 0}
        self.history_error: str | None = None
        """Why a job, or the history, could not be written, the last time; None where it could."""
        self.list_watchers: set[asyncio.Event] = set()
        """Set with every change of the list, or of a job's state."""
        self._seen: dict[str, float] = {}
        """When a client was last there, by the monotonic clock; infinite while it is."""
        self._present: dict[str, int] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="sage_nb history")
        self._history: History | None = None
        self._unsaved: dict[str, Entry] = {}
        """Records that could not be written, and will be when there is room. The writer's own."""
        self._taking: dict[str, asyncio.Task[HostedJob]] = {}
        """Submissions that are being written down."""
        self._begins: set[asyncio.Task[None]] = set()
        """Jobs that are being given to runners."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._lock: int | None = None
        """The file that says that the folder is in use."""
        self._cluster = Cluster(settings.ray)

    # Life

    async def begin(self) -> None:
        """Take up what the last server left, and begin."""
        try:
            self.state.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _lock(self.state / "lock")
            (self.state / "jobs").mkdir(exist_ok=True, mode=0o700)
        except OSError as exc:
            if isinstance(exc, SageError):
                raise
            raise ServerError(f"the folder {self.state} cannot be used: {exc}") from exc
        self._history = await self._write(lambda: History(self.state / "history.sqlite"))
        for leftover in self.state.glob("*.part"):
            leftover.unlink(missing_ok=True)
        for entry in await self._write(self._db.all):
            self._take_up(entry)
        self.pool.fill()
        self._later(self._look_after_owners())
        self._later(self._tidy())
        self._later(self._look_for_room())
        self._advance()

    async def close(self) -> None:
        """Stop what runs, with its cleanup, and write it down."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        self.queue.clear()
        running = [job for job in self.jobs.values() if job.runner is not None]
        for job in running:
            if not job.clean.is_set():
                job.stop(_CLOSE_GRACE / 2, "the JobManager server was stopped")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(job.vacant.wait() for job in running)), 3 * _CLOSE_GRACE)
        await self.loop.run_in_executor(None, self.pool.close)
        await self.loop.run_in_executor(None, self._cluster.close)
        for job in self.jobs.values():
            job.close()
        if self._history is not None:
            await self._write(self._history.close)
        self._writer.shutdown()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_up(self, entry: Entry) -> None:
        job = self.jobs[entry.uuid] = self._host(entry)
        if entry.status in ENDED:
            return
        if entry.status != "queued":
            with contextlib.suppress(OSError):
                job.recall_end()
        if entry.status == "queued" and entry.runner is None:
            self.queue.append(job)
            return
        orphan = entry.runner
        if orphan is not None and process_key(int(orphan.partition(":")[0])) == orphan:
            self._later(self._outlive(job, orphan))
        else:
            self._after_loss(job)

    async def _outlive(self, job: HostedJob, orphan: str) -> None:
        """Wait for a runner of the last server's: it cleans up, and ends."""
        pid = int(orphan.partition(":")[0])
        deadline = time.monotonic() + _ORPHAN_GRACE
        while process_key(pid) == orphan and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        if process_key(pid) == orphan:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._after_loss(job)

    def _after_loss(self, job: HostedJob) -> None:
        if job.stop_asked:
            job.conclude("stopped")
        elif job.ended.is_set() or not job.entry.begins_anew or not job.payload.exists():
            job.conclude("failed", WorkerError("the JobManager server ended while the job ran; submit it again"))
        else:
            try:
                job.begin_anew("the JobManager server ended while the job ran; it begins anew, as fault_tolerance asks")
            except OSError as exc:
                job.conclude("failed", WorkerError(f"the JobManager server ended while the job ran: {exc}"))
                return
            self.queue.append(job)
            self._advance()

    # Submitting

    async def submit(self, uuid: str, head: PayloadHead, payload: Path) -> tuple[HostedJob, bool]:
        """Take in a job whose payload is in a file; whether it is new. A repeat is the job that there is."""
        if uuid in self.jobs:
            return self.jobs[uuid], False
        taking, new = self._taking.get(uuid), False
        if taking is None:
            taking, new = self.loop.create_task(self._take_in(uuid, head, payload)), True
            self._taking[uuid] = taking
            taking.add_done_callback(lambda _: self._taking.pop(uuid, None))
        return await asyncio.shield(taking), new

    async def settled(self, uuid: str) -> None:
        """Wait until a job that is being submitted at this moment is there, or is refused."""
        taking = self._taking.get(uuid)
        if taking is not None:
            await asyncio.wait([taking])

    async def _take_in(self, uuid: str, head: PayloadHead, payload: Path) -> HostedJob:
        if self._closing:
            raise ServerError("the server is stopping; it takes no jobs any more")
        entry = Entry(
            uuid=uuid,
            name=head.name,
            environment=head.environment,
            backend=head.backend or self.settings.backend,
            autostop=head.autostop,
            begins_anew=head.begins_anew,
            owner=head.owner,
            owner_timeout=head.owner_timeout,
            folder=head.folder,
            machine=head.machine,
            submitted=time.time(),
            last_update=time.time(),
        )
        job = self._host(entry)
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            payload.replace(job.payload)
            await self._write(lambda: self._db.add(entry))
        except (OSError, ServerError) as exc:
            job.delete()
            raise exc if isinstance(exc, ServerError) else self.no_room(exc) from exc
        self.jobs[uuid] = job
        self.queue.append(job)
        self._list_changed()
        self._advance()
        if job in self.queue:
            job.state("queued")
        return job

    def _host(self, entry: Entry) -> HostedJob:
        limit = self.settings.bytes_of("spool_limit")
        assert limit is not None
        job = HostedJob(entry, self.state / "jobs" / entry.uuid, limit, self.loop)
        job.on_change = self._changed
        return job

    def _advance(self) -> None:
        """Give as many of the queued jobs to runners as may run."""
        while self.queue and len(self.running) < self.settings.max_running and not self._closing:
            job = self.queue.pop()
            self.running.add(job)
            if job.entry.backend == "ray":
                self._later(self._run_on_ray(job))
            else:
                self._run(job, self.settings.ray)
        self.loop.call_later(_FILL_AFTER, self.pool.fill)

    async def _run_on_ray(self, job: HostedJob) -> None:
        job.state("starting", why="Ray to start")
        try:
            ray = await self._cluster.settings()
        except ClusterError as exc:
            job.conclude("failed", exc)
            return
        if not job.ended.is_set():
            self._run(job, ray)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _run(self, job: HostedJob, ray: dict[str, Any] | None) -> None:
        entry, runner = job.entry, self.pool.take()
        entry.status = "starting"
        self._list_changed()
        job.run_on(runner)
        here = entry.machine == machine()
        order = Run(
            uuid=entry.uuid,
            payload=str(job.payload),
            folder=entry.folder if here and entry.folder else None,
            backend=self.settings.backend,
            ray=ray,
            ray_token=self._cluster.token if entry.backend == "ray" and self._cluster.is_private else None,
            memory_limit=self.settings.bytes_of("memory_limit"),
            spool_limit=self.settings.bytes_of("spool_limit") or Run.spool_limit,
        )
        begins = self.loop.create_task(self._begin(job, runner, order))
        self._begins.add(begins)
        begins.add_done_callback(self._begins.discard)

    async def _begin(self, job: HostedJob, runner: Runner, order: Run) -> None:
        """Give a job to its runner. The history has it before: no later server runs the job once more beside it."""
        await asyncio.wrap_future(runner.started)
        job.entry.runner = runner.key
        while not await self.loop.run_in_executor(self._writer, self._save_now, _copy(job.entry)) and runner.alive:
            await asyncio.sleep(_LOOK)  # nothing tells when a full disk has room again
        try:
            runner.give(order, job)
        except WorkerError as exc:
            job._gone(runner, exc)

    def _changed(self, job: HostedJob) -> None:
        self._list_changed()
        if job.ended.is_set() and job in self.running:
            self.running.discard(job)
            self.finished[job.entry.status] = self.finished.get(job.entry.status, 0) + 1
            self._advance()
            self._moved_up()
        self._save(job)

    def _list_changed(self) -> None:
        for changed in self.list_watchers:
            changed.set()

    def _moved_up(self) -> None:
        """Tell those who watch jobs that wait: their places are others."""
        for job in self.queue:
            job.wake()

    # Finding

    def find(self, word: str) -> HostedJob:
        """The job with that uuid, number, name (the newest of that name), or beginning of a uuid that no other has.
        Raises `JobNotFoundError`."""
        return find_job(
            word,
            self.jobs,
            lambda job: job.entry.name,
            lambda job: job.entry.number,
            nobody="the server knows no job {word!r}",
            advice="a job is its number, its id, a beginning of its id, or its name",
        )

    def status(self, job: HostedJob) -> dict[str, Any]:
        """A job's status, with its place in the queue."""
        return {**job.status(), "position": self.position(job)}

    def summaries(self) -> list[dict[str, Any]]:
        """All jobs in short, the oldest first, with their places in the queue."""
        return [{**job.summary(), "position": self.position(job)} for job in self.jobs.values()]

    def position(self, job: HostedJob) -> int | None:
        """A job's place in the queue, from 1; None where it does not wait."""
        return self.queue.place(job)

    async def states(self, job: HostedJob) -> list[dict[str, Any]]:
        """The states that a job went through."""
        rows = await self._write(lambda: self._db.states(job.entry.number))
        return [dict(zip(("time", "attempt", "status", "error"), row, strict=True)) for row in rows]

    # Orders

    async def pause(self, job: HostedJob) -> None:
        """Raises `JobStateError` where the job is not running."""
        await job.order(Order.PAUSE)

    async def resume(self, job: HostedJob) -> None:
        """Raises `JobStateError` where the job is not paused."""
        await job.order(Order.RESUME)

    async def stop(self, job: HostedJob, grace: float, *, wait: bool = True, why: str | None = None) -> None:
        """Stop a job, and wait until it is cleaned up; of one that has ended, stop the services that were kept."""
        if job in self.queue:
            self.queue.remove(job)
            if why is not None:
                job.note(why)
            job.conclude("stopped")
            self.finished["stopped"] += 1
            self._moved_up()
        elif job.runner is not None:
            job.stop(grace, why)
        elif job in self.running:
            job.conclude("stopped")  # it waits for Ray
        elif not job.clean.is_set():
            job.stop_asked = True  # it waits for the runner of a server that is gone
        if wait:
            await job.clean.wait()

    async def delete(self, job: HostedJob, *, force: bool) -> None:
        """Forget a job. Raises `JobStateError` where it runs, unless `force` has it stopped first."""
        if not job.clean.is_set():
            if not force:
                raise JobStateError(
                    f"job {job.entry.name!r} is {job.entry.status}; stop it first, or delete with force=True"
                )
            await self.stop(job, 10.0)
        await self._forget(job)

    async def _forget(self, job: HostedJob) -> None:
        await self._write(lambda: self._forget_now(job.uuid))
        self.jobs.pop(job.uuid, None)
        self._list_changed()
        job.wake()
        await self.loop.run_in_executor(None, job.delete)

    # Owners

    def arrived(self, client: str) -> None:
        """A client is there."""
        self._present[client] = self._present.get(client, 0) + 1
        self._seen.pop(client, None)

    def left(self, client: str) -> None:
        """A client's connection has ended."""
        self._present[client] -= 1
        if not self._present[client]:
            del self._present[client]
            if any(job.entry.owner == client for job in self._owned()):
                self._seen[client] = time.monotonic()

    def _owned(self) -> list[HostedJob]:
        """The jobs that end with their owner: also those that have ended, and keep their services."""
        return [job for job in self.jobs.values() if job.entry.owner is not None and not job.clean.is_set()]

    async def _look_after_owners(self) -> None:
        """Stop the jobs whose owners have been gone for too long."""
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            jobs = self._owned()
            owners = {job.entry.owner for job in jobs}
            self._seen = {owner: when for owner, when in self._seen.items() if owner in owners}
            for job in jobs:
                owner = job.entry.owner
                if owner is None or owner in self._present or job.stop_asked:
                    continue
                gone = now - self._seen.setdefault(owner, now)
                if gone > job.entry.owner_timeout:
                    why = f"stopped, as the notebook that it belongs to has been gone for {gone:.0f} s"
                    await self.stop(job, 10.0, wait=False, why=why)

    async def _tidy(self) -> None:
        """Forget jobs that are too old, too many, or too large in all."""
        limit = self.settings.bytes_of("keep_size")
        assert limit is not None
        while True:
            ended = [job for job in self.jobs.values() if job.clean.is_set()]
            sizes = await self.loop.run_in_executor(None, _sizes_of, [job.folder for job in ended])
            oldest = time.time() - self.settings.keep_days * 86_400
            surplus, too_much = len(ended) - self.settings.keep_jobs, sum(sizes) - limit
            for job, size in zip(ended, sizes, strict=True):
                is_old = (job.entry.stopped or job.entry.submitted) < oldest
                if not job.watchers and (is_old or surplus > 0 or too_much > 0):
                    with contextlib.suppress(ServerError):
                        await self._forget(job)
                        surplus, too_much = surplus - 1, too_much - size
            await asyncio.sleep(_TIDY_EVERY)

    # The history

    @property
    def _db(self) -> History:
        assert self._history is not None
        return self._history

    async def _write(self, call: Callable[[], _T]) -> _T:
        try:
            return await self.loop.run_in_executor(self._writer, call)
        except ServerBusyError as exc:
            self._history_failed(exc)
            raise

    def _save(self, job: HostedJob) -> None:
        """Write a job's record, some time soon. What goes wrong is told by `/health`, and tried again."""
        self._writer.submit(self._save_now, _copy(job.entry))

    def _save_now(self, entry: Entry) -> bool:
        """Whether it could be written."""
        try:
            self._db.update(entry)
        except ServerError as exc:
            self._unsaved[entry.uuid] = entry
            self._history_failed(exc)
            return False
        self._unsaved.pop(entry.uuid, None)
        return True

    def _forget_now(self, uuid: str) -> None:
        self._db.forget(uuid)
        self._unsaved.pop(uuid, None)

    def no_room(self, exc: OSError) -> ServerBusyError:
        """What to tell one whose job cannot be kept."""
        error = ServerBusyError(f"the server cannot keep the job: {exc}; is the disk full?")
        self._history_failed(error)
        return error

    def _history_failed(self, exc: ServerError) -> None:
        if self.history_error is None:
            _LOG.error("%s", exc)
        self.history_error = str(exc)

    async def _look_for_room(self) -> None:
        """Where the history could not be written, try again until it can."""
        while True:
            await asyncio.sleep(_LOOK)
            if self.history_error is not None:
                await self.loop.run_in_executor(self._writer, self._catch_up)

    def _catch_up(self) -> None:
        try:
            self._db.probe()
            for entry in [*self._unsaved.values()]:
                self._db.update(entry)
                del self._unsaved[entry.uuid]
        except ServerError as exc:
            self._history_failed(exc)
            return
        self.history_error = None
        _LOG.info("the history can be written again")


def _copy(entry: Entry) -> Entry:
    return Entry(**{name: getattr(entry, name) for name in Entry.__struct_fields__})


def _sizes_of(folders: list[Path]) -> list[int]:
    """How many bytes the files in each folder have."""
    found = []
    for folder in folders:
        size = 0
        with contextlib.suppress(OSError):  # it is gone, or a file in it
            size = sum(entry.stat().st_size for entry in os.scandir(folder))
        found.append(size)
    return found


def _lock(path: Path) -> int:
    """Take a folder for this server alone. Raises `ServerBusyError`."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        if not isinstance(exc, BlockingIOError):
            raise
        raise ServerBusyError(
            f"another JobManager server keeps its jobs in {path.parent}; end that one, or use another folder"
        ) from exc
    return fd
