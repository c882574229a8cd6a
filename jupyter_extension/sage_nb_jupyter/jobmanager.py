"""The user's JobManager server, seen from the Jupyter server: where it is, its jobs, and orders for them.

While a page is open there is one WebSocket to it, on which it says how its list of jobs changes, and describes the jobs
that somebody looks at. Where that connection is lost, or no server runs, it is looked for again every two seconds, and
every ten while no page is in sight. Nothing of `sage_nb.remote` is imported before: that takes longer than all else.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid as uuids
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec

from sage_nb import errors
from sage_nb.engine.states import ENDED
from sage_nb.errors import (
    JobNotFoundError,
    JobStateError,
    SageError,
    ServerBusyError,
    ServerError,
    ServerUnreachableError,
)
from sage_nb.jobs.snapshot import ErrorView, JobSnapshot, LogView
from sage_nb_jupyter.wire import UNREADABLE

if TYPE_CHECKING:
    import aiohttp

    from sage_nb.remote.address import Address
    from sage_nb_jupyter.hub import Hub

__all__ = ["JobManagerLink", "ServerState"]

_AGAIN, _AGAIN_UNSEEN = 2.0, 10.0
_ANSWERS_WITHIN = 10.0
_PING = 20.0
_WATCHED, _DESCRIBED, _LISTED = 50, 50, 200
"""Jobs, at most, that are watched; ended ones that are described at once; and those that are listed at all."""
_NO_RECORDS = 1 << 53
"""The number of a record that no job comes to: of a job that is watched from there on, only snapshots come."""


class ServerState(msgspec.Struct, frozen=True):
    """How the server is."""

    address: str | None = None
    state: Literal["running", "none", "unreachable"] = "none"
    error: str | None = None
    may_start: bool = True
    """Whether a page may have one started."""


class _Snapshot(msgspec.Struct, tag_field="op", tag="snapshot"):
    sub: int
    snapshot: msgspec.Raw


class _Summary(msgspec.Struct):
    uuid: str
    number: int
    name: str
    status: str
    runtime: float = 0.0
    start_time: float | None = None
    error: str | None = None


class _List(msgspec.Struct, tag_field="op", tag="jobs"):
    jobs: list[_Summary]


class _Error(msgspec.Struct, tag_field="op", tag="error"):
    error: dict[str, str]


class _Failure(msgspec.Struct):
    error: dict[str, str]


class _Op(msgspec.Struct):
    op: str


_op = msgspec.json.Decoder(_Op)
_said = msgspec.json.Decoder(_Snapshot | _List | _Error)
_snapshot = msgspec.json.Decoder(JobSnapshot)
_summaries = msgspec.json.Decoder(list[_Summary])
_summary = msgspec.json.Decoder(_Summary)
_HEARD = ("snapshot", "jobs", "error")


class JobManagerLink:
    """The server, wherever it is at the moment. Belongs to the Jupyter server's event loop."""

    hub: Hub

    def __init__(self, address: str, token: str, *, may_start: bool, folder: str) -> None:
        self.may_start = may_start
        self.state = ServerState(may_start=may_start)
        self._asked, self._token, self._folder = address, token or None, folder
        self._address: Address | None = None
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._attention = asyncio.Event()
        """Set when pages look at something else."""
        self._retry = asyncio.Event()
        self._starting = asyncio.Lock()
        self._connected = False
        self._jobs: dict[str, _Summary] = {}
        self._subs: dict[str, int] = {}
        self._last_sub = 0
        self._newest: dict[str, msgspec.Raw] = {}
        self._passed_on: dict[str, float] = {}

    def has(self, uuid: str) -> bool:
        """Whether the server tells of a job at this moment."""
        return self._connected and uuid in self._jobs

    def is_at(self, address: str) -> bool:
        """Whether that is the server's address."""
        return self._address is not None and str(self._address) == address

    def look(self) -> None:
        """Pages have come or gone, or look at something else."""
        self._attention.set()
        if self.hub.pages and self._task is None:
            self._task = asyncio.create_task(self._live())
            self._task.add_done_callback(self._lived)
        elif not self.hub.pages and self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """Hang up."""
        for task in [*self._tasks, *([self._task] if self._task is not None else [])]:
            task.cancel()
        if self._session is not None:
            await self._session.close()
            self._session = None

    # Where it is

    async def locate(self) -> Address | None:
        """Where it is now; None where none runs. Raises `PipelineError` where the address that was configured is
        none."""
        before = self._address
        self._address = await asyncio.get_running_loop().run_in_executor(None, self._find)
        if before is not None and before != self._address:
            for uuid in self.hub.known_of(str(before)):
                entry = self.hub.entry(uuid)
                if entry is not None and entry.kernel is None and str(self._address) != str(before):
                    self.hub.forget(uuid)
        return self._address

    def _find(self) -> Address | None:
        from sage_nb.remote.access import noticed_ports
        from sage_nb.remote.address import address_of
        from sage_nb.remote.daemon import reachable, running
        from sage_nb.remote.daemonmain import settings_of
        from sage_nb.remote.settings import DEFAULT_PORT

        if self._asked:
            return address_of(self._asked, None, self._token)
        for port in sorted(noticed_ports(), key=lambda one: one != DEFAULT_PORT):
            notice = running(port)
            if notice is not None:
                tls = {"tls": True, "ca": settings_of(notice.started).certfile} if notice.tls else None
                return address_of(reachable(notice), port, self._token, tls)
        return None

    async def start(self) -> None:
        """Have one run: start it, unless one runs, as a process that outlives this one. Raises `ServerError`."""
        async with self._starting:
            if await self.locate() is None:
                await asyncio.get_running_loop().run_in_executor(None, self._start)
        self._retry.set()
        await self.refresh()

    def _start(self) -> None:
        from sage_nb.remote.daemon import start_background
        from sage_nb.remote.settings import Settings

        try:
            start_background(Settings(), folder=self._folder)
        except ServerBusyError:  # somebody else has the usual port
            start_background(Settings(port=0), folder=self._folder)

    async def refresh(self) -> None:
        """See to it that the list is that of this moment, where nobody is connected who hears of its changes."""
        if self._connected:
            return
        try:
            if await self.locate() is None:
                self._become("none")
                return
            self._take_list(_summaries.decode(await self._request("GET", "/v1/jobs")))
            await self._describe(self._bare())
        except (SageError, *UNREADABLE) as exc:
            self._become("unreachable", str(exc))
        else:
            self._become("running")

    def _become(self, state: Literal["running", "none", "unreachable"], error: str | None = None) -> None:
        address = None if self._address is None else str(self._address)
        before, self.state = self.state, ServerState(address, state, error, self.may_start)
        if before != self.state:
            for page in self.hub.pages:
                page.changed(urgent=True)

    # Requests

    async def fetch(self, uuid: str) -> JobSnapshot | None:
        """A job, described as well as the server can; None where it does not know it. Raises `ServerError`."""
        if not self._connected and await self.locate() is None:
            return None
        from sage_nb.remote.client import job_path

        try:
            status = _summary.decode(await self._request("GET", job_path(uuid)))
            snapshot = self._shaped(status)
            with contextlib.suppress(JobStateError):  # there is nothing to see of it yet
                seen = _snapshot.decode(await self._request("GET", job_path(status.uuid, "snapshot")))
                snapshot = self._completed(seen, status)
        except JobNotFoundError:
            return None
        except UNREADABLE as exc:
            raise ServerError(f"{self._address} does not answer as a JobManager server does: {exc}") from exc
        self.hub.listed(snapshot, status.number, described=True)
        return snapshot

    async def order(self, uuid: str, op: str) -> None:
        """Have a job stop, pause or resume. One that comes too late is no matter."""
        from sage_nb.remote.client import job_path

        what = "continue" if op == "resume" else op
        data = b'{"timeout":10.0,"wait":false}' if op == "stop" else None
        with contextlib.suppress(JobStateError):
            await self._request("POST", job_path(uuid, what), data=data)

    async def logs(self, uuid: str, most: int) -> list[LogView]:
        """The last lines of a job's log."""
        from sage_nb.remote.client import job_path

        data = await self._request("GET", f"{job_path(uuid, 'logs')}?n={most}")
        return msgspec.json.decode(data, type=list[LogView])

    async def upstream(self) -> tuple[aiohttp.ClientSession, Address]:
        """What passes requests through. Raises `ServerUnreachableError` where no server runs."""
        address = self._address if self._connected else await self.locate()  # it may be another one by now
        if address is None:
            raise ServerUnreachableError("no JobManager server of yours runs; POST sage-nb/server/start starts one")
        if self._session is None:
            import aiohttp

            # A connection that was kept may be that of a server which has been restarted since, and an order that fails
            # by it cannot be sent again, as it may have arrived.
            connector = aiohttp.TCPConnector(force_close=True)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session, address

    async def _request(self, method: str, path: str, data: bytes | None = None) -> bytes:
        import aiohttp
        from yarl import URL

        session, address = await self.upstream()
        try:
            async with session.request(
                method,
                URL(address.url + path, encoded=True),
                data=data,
                headers={**address.headers(), "X-Request-Id": uuids.uuid4().hex},
                timeout=aiohttp.ClientTimeout(_ANSWERS_WITHIN),
                ssl=address.context(),
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, OSError) as exc:
            raise ServerUnreachableError(f"no JobManager server answers at {address}: {_why(exc)}") from exc
        if response.status >= 400:
            raise _error(body, response.status, address)
        return body

    # Listening

    async def _live(self) -> None:
        """Until no page is open any more."""
        while True:
            try:
                if await self.locate() is None:
                    self._become("none")
                else:
                    await self._listen()
            except (SageError, *UNREADABLE) as exc:
                self._become("unreachable", str(exc))
            seen = any(page.visible for page in self.hub.pages)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN if seen else _AGAIN_UNSEEN):
                    await self._retry.wait()
            self._retry.clear()

    def _lived(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._become("unreachable", f"{type(error).__name__}: {error}")
            asyncio.get_running_loop().call_later(_AGAIN, self.look)
        elif self.hub.pages:  # one was opened just now
            self.look()

    async def _listen(self) -> None:
        """Until the connection ends. Raises why."""
        import aiohttp

        async with self._socket() as socket:
            subscribing = asyncio.create_task(self._subscribe(socket))
            try:
                await socket.send_str('{"op":"list"}')
                async for message in socket:
                    if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                        break  # such as the error of a ping that was not answered
                    text = cast(str, message.data)
                    if _op.decode(text).op in _HEARD:
                        self._hear(_said.decode(text))
            finally:
                subscribing.cancel()
                self._connected = False
                self._subs.clear()
                self._newest.clear()
                self.hub.attention()  # kernels tell of the server's jobs again
        raise ServerUnreachableError(f"the connection to {self._address} has ended")

    @contextlib.asynccontextmanager
    async def _socket(self) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        import aiohttp

        session, address = await self.upstream()
        try:
            async with session.ws_connect(
                f"{address.url}/v1/watch?format=json",
                headers=address.headers(),
                heartbeat=_PING,
                max_msg_size=0,
                ssl=address.context(),
            ) as socket:
                yield socket
        except aiohttp.WSServerHandshakeError as exc:
            why = "it does not accept the token" if exc.status in (401, 403) else f"HTTP {exc.status}"
            raise ServerUnreachableError(f"no connection to {address}: {why}") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise ServerUnreachableError(f"no JobManager server answers at {address}: {_why(exc)}") from exc

    def _hear(self, said: _Snapshot | _List | _Error) -> None:
        if isinstance(said, _List):
            if not self._connected:
                self._connected = True
                self._become("running")
            self._take_list(said.jobs)
            self._attention.set()
        elif isinstance(said, _Snapshot):
            self._take_snapshot(said)
        else:
            raise ServerError(f"{self._address} is of another version: {said.error.get('text')}")

    def _take_list(self, jobs: list[_Summary]) -> None:
        there = {one.uuid for one in jobs}
        for uuid in self.hub.known_of(str(self._address)):
            if uuid not in there:
                self.hub.forget(uuid)
        live = [one for one in jobs if one.status not in ENDED]
        ended = [one for one in jobs if one.status in ENDED]
        kept = [*ended[len(live) - _LISTED :], *live] if len(jobs) > _LISTED else jobs
        self._jobs = {one.uuid: one for one in kept}
        for one in kept:
            entry = self.hub.entry(one.uuid)
            was_live = entry is not None and entry.live
            self.hub.listed(self._shaped(one), one.number, described=False)
            if was_live and one.status in ENDED:
                self._newest.pop(one.uuid, None)  # it is older than the end
                self._later(one.uuid)

    def _take_snapshot(self, said: _Snapshot) -> None:
        """Pass it on, or, where the last one has just been, the newest when it is time."""
        uuid = next((uuid for uuid, sub in self._subs.items() if sub == said.sub), None)
        if uuid is None:
            return
        waits = uuid in self._newest
        self._newest[uuid] = said.snapshot
        if not waits:
            loop = asyncio.get_running_loop()
            due = self._passed_on.get(uuid, float("-inf")) + (self.hub.pace(uuid) or 0.0)
            loop.call_at(max(due, loop.time()), self._pass_on, uuid)

    def _pass_on(self, uuid: str) -> None:
        raw, one = self._newest.pop(uuid, None), self._jobs.get(uuid)
        if raw is None or one is None or uuid not in self._subs:
            return
        self._passed_on[uuid] = asyncio.get_running_loop().time()
        self.hub.listed(self._completed(_snapshot.decode(raw), one), one.number, described=True)

    def _later(self, uuid: str) -> None:
        """Describe a job, some time soon."""
        task = asyncio.create_task(self._describe([uuid]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _bare(self) -> list[str]:
        """The latest of those that have ended of which no more is known than their line in the list."""
        last = [uuid for uuid, one in self._jobs.items() if one.status in ENDED][-_DESCRIBED:]
        return [uuid for uuid in last[::-1] if (entry := self.hub.entry(uuid)) and not entry.described]

    async def _describe(self, uuids: list[str]) -> None:
        for uuid in uuids:
            try:
                await self.fetch(uuid)
            except ServerError:
                return  # it is asked for again when somebody looks at it

    async def _subscribe(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """Have the server describe those jobs that somebody looks at."""
        described: set[str] = set()
        while True:
            await self._attention.wait()
            self._attention.clear()
            visible = any(page.visible for page in self.hub.pages)
            wanted = {uuid for page in self.hub.pages for uuid in page.follows if uuid in self._jobs}
            if visible:
                live = [uuid for uuid, one in self._jobs.items() if one.status not in ENDED]
                wanted |= set(live[-_WATCHED:])
            for uuid in self._subs.keys() - wanted:
                await socket.send_str(f'{{"op":"unwatch","sub":{self._subs.pop(uuid)}}}')
            for uuid in wanted - self._subs.keys():
                self._last_sub += 1
                self._subs[uuid] = self._last_sub
                message = {"op": "watch", "sub": self._last_sub, "job": uuid, "after": _NO_RECORDS, "results": False}
                await socket.send_str(msgspec.json.encode(message).decode())
            if visible:
                bare = self._bare()
                await self._describe([uuid for uuid in bare if uuid not in described])
                described.update(bare)

    # What it says, as a snapshot

    def _shaped(self, one: _Summary) -> JobSnapshot:
        """What a line of the list says of a job."""
        kind, _, text = (one.error or "").partition(": ")
        return JobSnapshot(
            uuid=one.uuid,
            name=one.name,
            status=cast(Any, one.status),
            server=str(self._address),
            started=one.start_time,
            elapsed=one.runtime,
            error=ErrorView(type=kind, message=text) if one.error else None,
        )

    def _completed(self, snapshot: JobSnapshot, one: _Summary) -> JobSnapshot:
        """A snapshot that the job made, with what the server knows better."""
        made = self._shaped(one)
        return msgspec.structs.replace(
            snapshot, status=made.status, server=made.server, error=snapshot.error or made.error
        )


def _why(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__


def _error(body: bytes, status: int, address: Address) -> SageError:
    """What an answer says went wrong."""
    try:
        said = msgspec.json.decode(body, type=_Failure)
        kind, text = getattr(errors, said.error.get("type", ""), None), said.error.get("text", "")
    except UNREADABLE:
        kind, text = None, ""
    if isinstance(kind, type) and issubclass(kind, SageError) and text:
        found: SageError = kind(text)
        return found
    return ServerError(f"{address} answers with HTTP {status}")
