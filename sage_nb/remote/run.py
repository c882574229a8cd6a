"""A job on a server, as this process sees it: what its records say, put together again.

It has the face of a dispatcher, so that a `Job`, its views and its results are the same as those of one in the kernel.
Records come on the portal's thread; everything may be asked from any thread.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from sage_nb.engine.dispatcher import ENDED, Order
from sage_nb.engine.displaying import publish
from sage_nb.engine.failure import Failure, add_note, headline, safe_str, safe_text
from sage_nb.engine.letters import DeadLetter, Letters
from sage_nb.engine.log import JobLog, LogLine
from sage_nb.engine.results import Latest, Result, Results
from sage_nb.engine.shipping import loads, loads_items
from sage_nb.engine.travelled import loads_exception, remote_frames, remote_traceback
from sage_nb.errors import JobNotFoundError, JobStateError, RemoteError, SageError, ShippingError
from sage_nb.jobs.info import EndedDispatcher, JobInfo
from sage_nb.jobs.snapshot import ErrorView, JobSnapshot, Progress
from sage_nb.remote import protocol
from sage_nb.remote.connection import Connection
from sage_nb.remote.following import Following
from sage_nb.remote.payload import read_head
from sage_nb.remote.portal import portal, wait
from sage_nb.remote.protocol import Kind, head_of, python_version, unpack_buffers, writable
from sage_nb.remote.seen import SeenDispatcher

if TYPE_CHECKING:
    from sage_nb.jobs.job import Job

__all__ = ["RemoteRun"]

_json = msgspec.json.Decoder(JobSnapshot)
_GOES_ON = frozenset({"starting", "running", "stopping", "restarting"})


class _Letters(dict[str, Letters]):
    """Dead letters by operator; those of operators that keep none are empty."""

    names: frozenset[str] = frozenset()

    def __missing__(self, name: object) -> Letters:
        if name in self.names:
            return Letters()
        raise KeyError(f"no operator is called {name!r}; those that keep dead letters: {', '.join(self) or 'none'}")


class RemoteRun:
    """One job on the server behind `connection`."""

    def __init__(
        self,
        connection: Connection,
        info: JobInfo,
        picture: JobSnapshot,
        *,
        ends_with_its_waiter: bool,
        declared: protocol.Declared | None = None,
        thread_context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.info = info
        info.dispatcher = SeenDispatcher(self.snapshot)
        self.ends_with_its_waiter = ends_with_its_waiter
        self.status = picture.status
        self.results: Mapping[str, Result] = Results()
        self.dead_letters: Mapping[str, Letters] = _Letters()
        self.notes: list[str] = []
        self.log = JobLog()
        self.error: BaseException | None = None
        self.failure: Failure | None = None
        self.done = threading.Event()
        self.clean = threading.Event()
        self.has_past = asyncio.Event()
        """Set, on the portal's loop, when all is here that there was at the beginning."""
        self._connection = connection
        self._picture = picture
        self._newest: bytes | None = None
        self._newest_at = time.monotonic()
        self._thread_context = thread_context
        self._job: Callable[[], Job | None] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._subscription: int | None = None
        self._has_code = False
        self._unreadable: BaseException | None = None
        self._position: int | None = None
        self._why_lost: str | None = None
        self._skipped: dict[str, int] = {}
        self._keys: dict[str, int] = {}
        """Of what keeps the newest item of each key, how many there are."""
        self._told_missing: set[str] = set()
        if declared is not None:
            self._declare(declared)

    def belongs_to(self, job: Job) -> None:
        """`job` is told of every change; one that was attached to, for as long as somebody holds its handle."""
        self._job = (lambda: job) if self.ends_with_its_waiter else weakref.ref(job, self._let_go)

    # The face of a dispatcher

    def pause(self) -> None:
        """Raises `JobStateError` where the job is not running."""
        self._order("pause")

    def resume(self) -> None:
        """Raises `JobStateError` where the job is not paused."""
        self._order("continue")

    def stop(self, grace: float = 10.0) -> None:
        """Ask for the end; returns when the server has heard it. Raises `ServerUnreachableError`."""
        if self.clean.is_set():
            return
        if portal.is_own_thread():  # of a listener, which cannot wait here
            self.ask("stop")
        else:
            wait(portal.run(self._stop(grace)))

    def ask(self, order: Order) -> None:
        """See `Run.ask`."""
        portal.run(self._try(order))

    def join(self) -> None:
        """Everything that the job said is here when its end is."""

    def is_own_thread(self) -> bool:
        """Whether the caller runs where records are taken in, which must not wait for them."""
        return portal.is_own_thread()

    def stream(self, name: str) -> AsyncIterator[list[Any]] | None:
        """The items of a `collect` as they come, at the pace of the one who iterates; None with `latest=True`."""
        if isinstance(self.results.get(name), Latest):
            return None
        return Following(self._connection, self.info.uuid, name, self.done).chunks()

    def say(self, text: str, level: str = "INFO") -> None:
        """A line for this process's copy of the log."""
        self.log.say("job", text, level)
        if level != "INFO":
            self.notes.append(text)

    def _order(self, what: Literal["pause", "continue"]) -> None:
        if portal.is_own_thread():
            self.ask("pause" if what == "pause" else "resume")
        else:
            wait(portal.run(self._post(what)))

    async def _try(self, order: Order) -> None:
        try:
            if order == "stop":
                await self._stop(10.0)
            else:
                await self._post("pause" if order == "pause" else "continue")
        except (JobStateError, JobNotFoundError):
            return  # the job went on meanwhile; the next records say so
        except SageError as exc:
            self.say(f"the job could not be told to {order}: {exc}", "ERROR")
            self._tell()

    async def _stop(self, grace: float) -> None:
        before = self.status
        if not self.done.is_set():
            self._become("stopping")
        try:
            await self._post("stop", msgspec.json.encode({"timeout": grace, "wait": False}))
        except JobNotFoundError as exc:
            self._forgotten(str(exc))
        except BaseException:
            if self.status == "stopping":
                self._become(before)
            raise

    async def _post(self, what: str, data: bytes | None = None) -> None:
        await self._connection.request("POST", f"/v1/jobs/{self.info.uuid}/{what}", data=data)
        before, after = {"pause": ("running", "paused"), "continue": ("paused", "running")}.get(what, ("", ""))
        if self.status == before:  # the record that says so comes on another connection
            self._become(after)

    # What describes it

    def progress(self) -> Progress:
        """The counters of the newest description: at most 0.2 s old while it runs, exact at the end."""
        snapshot = self.snapshot()
        return Progress(operators=snapshot.operators, services=snapshot.services)

    def snapshot(self) -> JobSnapshot:
        """The newest description, with what this side knows better."""
        newest = self._newest
        found = self._picture if newest is None else _json.decode(newest)
        changes: dict[str, Any] = {"status": self.status, "server": str(self._connection.address)}
        if self.status in _GOES_ON:
            changes["elapsed"] = found.elapsed + time.monotonic() - self._newest_at
        if self._why_lost is not None and not self.done.is_set():
            changes["waiting_for"] = f"the connection to {self._connection.address}"
        elif self.status == "queued" and self._position is not None:
            changes["waiting_for"] = f"a runner: {_before(self._position - 1)}"
        elif self.status in ENDED:
            changes["waiting_for"] = None
        if self.error is not None and found.error is None:  # its process ended before it could describe it
            changes["error"] = ErrorView(type=type(self.error).__name__, message=safe_text(safe_str(self.error)))
        notes = [note for note in self.notes if note not in found.notes]
        if notes:
            changes["notes"] = (*found.notes, *notes)
        return msgspec.structs.replace(found, **changes)

    # What is heard, on the portal's loop

    def begin(self, *, results: bool = True) -> None:
        """Watch from now on; all from the job's start comes."""
        self._loop = asyncio.get_running_loop()
        self._subscription = self._connection.watch(self.info.uuid, self, results=results)

    def watching(self, first: int, last: int) -> None:
        self._why_lost = None
        if first > 1 and self._newest is None and not self.results:
            self.notes.append(f"the server keeps no more of this job than its last {last - first + 1:,} records")
        self._tell()

    def queued(self, position: int | None) -> None:
        self._position = position
        self._tell()

    def caught_up(self) -> None:
        self._tell_missing()
        self.has_past.set()

    def lost(self, why: str) -> None:
        if self._why_lost is None:
            self.log.say("job", f"the connection to {self._connection.address} is lost: {why}; trying again", "WARNING")
        self._why_lost = why
        self._tell()

    def gone(self, error: SageError) -> None:
        if isinstance(error, JobNotFoundError):
            self._forgotten(str(error))
        else:
            self.error = self.error or error
            self._end("failed", clean=True)

    def _forgotten(self, why: str) -> None:
        """The server does not know the job any more: that counts as its end."""
        if not self.done.is_set():
            self.say(f"{why}: it counts as ended; what has come until now is all there is", "WARNING")
        self._end(self.status if self.status in ENDED else "stopped", clean=True)

    def record(self, kind: int, number: int, head: memoryview, body: memoryview) -> Awaitable[None] | None:
        if kind == Kind.SNAPSHOT:
            self._newest, self._newest_at = bytes(body), time.monotonic()
            self._tell()
            return None
        found = head_of(kind, head)
        if isinstance(found, protocol.Results):
            return self._take_items(found, body)
        if isinstance(found, protocol.Ended) and len(body):
            return self._take_end(found, body)
        self._take(kind, found, body)
        return None

    def _take(self, kind: int, head: protocol.Head | None, body: memoryview) -> None:
        if isinstance(head, protocol.State):
            self._become(head.status, head)
        elif isinstance(head, protocol.Lines):
            self.log.total = head.total
            self.log.lines.extend(LogLine(*line) for line in head.lines)
        elif isinstance(head, protocol.Declared):
            self._declare(head)
        elif isinstance(head, protocol.Restarted):
            self._begin_anew(head)
        elif isinstance(head, protocol.Letter):
            self._take_letter(head, body)
        elif isinstance(head, protocol.Output):
            self._print(head)
        elif isinstance(head, protocol.Display):
            with self._thread_context():
                publish(head.data, head.metadata)
        elif isinstance(head, protocol.Text):
            if head.text not in self.notes:
                self.notes.append(head.text)
        elif isinstance(head, protocol.Ended):
            self._ended(head)
        elif kind == Kind.CLEAN:
            self._end(self.status, clean=True)

    def _declare(self, head: protocol.Declared) -> None:
        results, letters = Results(), _Letters()
        for name, kind, rows in head.results:
            known = self.results.get(name)  # somebody may hold it already
            cls = Latest if name in head.latest else Result
            results[name] = cls(name, kind, rows) if known is None else known
        for name in head.keep_letters:
            letters[name] = Letters()
        letters.names = frozenset(head.operators)
        self.results, self.dead_letters = results, letters

    def _begin_anew(self, head: protocol.Restarted) -> None:
        for result in self.results.values():
            result.clear()
        letters = _Letters({name: Letters() for name in self.dead_letters})
        letters.names = getattr(self.dead_letters, "names", frozenset())
        self.dead_letters = letters
        self._skipped.clear()
        self._keys.clear()
        self.info.restart_count = head.attempt - 1
        if head.server:
            self._newest = None

    def _take_items(self, head: protocol.Results, body: memoryview) -> Awaitable[None] | None:
        try:
            items = loads_items(writable(unpack_buffers(body)))
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - the user's classes; with the job's code it may work
            if self._has_code:
                self._cannot_read(f"items of {head.name!r}", exc)
                return None
            return self._take_items_with_code(head, bytes(body))
        self._keep(head, items)
        return None

    async def _take_items_with_code(self, head: protocol.Results, body: bytes) -> None:
        await self._fetch_code()
        again = self._take_items(head, memoryview(body))
        assert again is None

    def _keep(self, head: protocol.Results, items: list[Any]) -> None:
        result = self.results.get(head.name)
        if result is None:
            cls = Result if head.at is None else Latest
            seen = {one.name: one.kind for one in self._picture.results}
            kind = seen.get(head.name, "collect" if head.kept else "show")
            result = cls(head.name, kind, None if head.kept else head.count)
            self.results = Results({**self.results, head.name: result})
        if isinstance(result, Latest):
            self._keep_newest(result, head, items)
            return
        if not head.kept:
            result.clear()
        elif (missing := head.first - len(result) - self._skipped.get(head.name, 0)) > 0:
            self._skipped[head.name] = self._skipped.get(head.name, 0) + missing
            self.say(f"the first {missing:,} items of {head.name!r} are not kept by the server any more", "WARNING")
        result.extend(items)

    def _keep_newest(self, result: Latest, head: protocol.Results, items: list[Any]) -> None:
        """The keys are not told, only their numbers; one who came late may hear of a number after a higher one."""
        self._keys[head.name] = head.total
        newest = result.newest
        fresh = {
            number: item
            for number, item in zip(head.at or (), items, strict=True)
            if not (head.again and number in newest and _is_same(newest[number], item))
        }
        highest = next(reversed(newest), -1)
        if any(number < highest and number not in newest for number in fresh):
            result.newest = dict(sorted({**newest, **fresh}.items(), key=itemgetter(0)))
        else:
            newest.update(fresh)

    def _tell_missing(self) -> None:
        """Of keys whose newest items the server has let go of."""
        for name, total in self._keys.items():
            missing = total - len(self.results[name])
            if missing > 0 and name not in self._told_missing:
                self._told_missing.add(name)
                which = f"{missing:,} of the {total:,} rows of {name!r}"
                self.say(f"{which} are not kept by the server any more", "WARNING")

    async def _fetch_code(self) -> None:
        """Have the classes that the job's own code defines: this process may be another one than made it."""
        self._has_code = True
        try:
            data = memoryview(await self._connection.fetch(f"/v1/jobs/{self.info.uuid}/payload"))
            found = read_head(data)
            if found is not None:
                if found[0].python != python_version():
                    raise ShippingError(f"Python {found[0].python} made it, and this is Python {python_version()}")
                loads(unpack_buffers(data[found[1] :]))
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - whatever it is, the items themselves say what they lack
            self.log.say("job", f"the job's code could not be had: {headline(exc)}", "WARNING")

    def _cannot_read(self, what: str, exc: BaseException) -> None:
        if self._unreadable is None:
            error = ShippingError(f"{what} could not be put together here: {headline(exc)}")
            error.__cause__ = exc
            self._unreadable = error
            self.say(str(error), "ERROR")

    def _take_letter(self, head: protocol.Letter, body: memoryview) -> None:
        buffers = unpack_buffers(body)
        letters = self.dead_letters.get(head.operator)
        if letters is None:
            return
        try:
            item = head.text if head.item_buffers == 0 else loads_items(writable(buffers[: head.item_buffers]))
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - the classes are the user's
            item = f"<it could not be put together here: {headline(exc)}>"
        error = loads_exception(writable(buffers[head.item_buffers :]))
        if not isinstance(error, Exception):
            error = RemoteError(type(error).__name__, str(error), remote_traceback(error))
        letters.add(DeadLetter(item, error, head.time))
        letters.total = head.total

    def _print(self, head: protocol.Output) -> None:
        """The job's process has seen to it that this is no more than a cell can show."""
        # Who read what is printed may have left, as of `sage-nb job watch 3 | head`; the command itself ends by that.
        with self._thread_context(), suppress(BrokenPipeError):
            print(head.text, end="", file=sys.stderr if head.stream == "stderr" else sys.stdout, flush=True)

    def _become(self, status: str, head: protocol.State | None = None) -> None:
        if self.done.is_set():
            return
        self.status = status  # type: ignore[assignment]
        info = self.info
        info.status, info.last_update = status, time.time()
        if head is not None:
            if head.attempt - 1 > info.restart_count:
                info.restart_count = head.attempt - 1
            if info.start_time is None and status not in ("created", "queued"):
                info.start_time = head.time
        self._tell()

    def _take_end(self, head: protocol.Ended, body: memoryview) -> Awaitable[None] | None:
        error = loads_exception(writable(unpack_buffers(body)))
        if isinstance(error, RemoteError) and not self._has_code:
            return self._take_end_with_code(head, bytes(body))
        self._fail_with(error, head)
        return None

    async def _take_end_with_code(self, head: protocol.Ended, body: bytes) -> None:
        await self._fetch_code()
        self._fail_with(loads_exception(writable(unpack_buffers(memoryview(body)))), head)

    def _fail_with(self, error: BaseException, head: protocol.Ended) -> None:
        if frames := remote_frames(error):
            add_note(error, f"sage_nb: on the server:\n{frames}")
        self.error = error
        self._ended(head)

    def _ended(self, head: protocol.Ended) -> None:
        if head.snapshot is not None:
            self._newest = head.snapshot
        self.info.stop_time, self.info.error = head.time, head.error
        status = head.status
        if self.error is None and self._unreadable is not None:
            self.error, status = self._unreadable, "failed"
            self.info.error = f"{type(self.error).__name__}: {self.error}"
        self._end(status, clean=head.clean)

    def _end(self, status: str, *, clean: bool) -> None:
        self._tell_missing()
        self.status = status  # type: ignore[assignment]
        self.info.status, self.info.last_update = status, time.time()
        self.info.stop_time = self.info.stop_time or time.time()
        self._why_lost = None
        if clean:
            self._hear_no_more()
            self.info.snapshot, self.info.dispatcher = self.snapshot(), EndedDispatcher()
            self.clean.set()
        self.done.set()
        self.has_past.set()
        self._tell()

    def _tell(self) -> None:
        if (job := self._job()) is not None:
            job._changed()

    def _let_go(self, _job: object) -> None:
        """Nobody holds the handle any more. It may be collected on any thread, with any lock held."""
        if self._loop is not None:
            try:  # and no name of a module, which may be gone already at the end of the process
                self._loop.call_soon_threadsafe(self._hear_no_more)
            except RuntimeError:
                return  # the loop has ended

    def _hear_no_more(self) -> None:
        if self._subscription is not None:
            self._connection.unwatch(self._subscription)
            self._subscription = None


def _is_same(one: Any, other: Any) -> bool:
    """Whether both are made of the same."""
    try:
        return pickle.dumps(one) == pickle.dumps(other)
    except Exception:  # noqa: BLE001 - of the user's classes; at worst it counts as one that was changed
        return False


def _before(jobs: int) -> str:
    """How many jobs come before one that waits."""
    return "it is the next" if not jobs else "1 job is before it" if jobs == 1 else f"{jobs:,} jobs are before it"
