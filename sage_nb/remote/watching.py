"""A watcher's WebSocket, from the server's side.

A watcher asks for jobs, each under a number of its own, and says from which record on; it gets their records in large
messages, 256 KB of them at most, from each of its jobs in turn. It says what it has taken: no more than 8 MB of one job
are under way to it, so that a slow reader is known as one, and what everybody has can be let go.

What it says is JSON text:
    {"op": "watch", "sub": 1, "job": uuid, "after": 0, "results": true}
    {"op": "taken", "sub": 1, "number": 12}        {"op": "unwatch", "sub": 1}
    {"op": "list"}
What it gets is, as binary messages, the number of the subscription (u32) and records; and as JSON text:
    {"op": "watching", "sub": 1, "job": uuid, "first": 1, "last": 12}   {"op": "position", "sub": 1, "position": 3}
    {"op": "caught_up", "sub": 1}       {"op": "gone", "sub": 1, "error": {"type": ..., "text": ...}}
With `?format=json` all is text: records as {"op": "record", "sub": 1, "kind": "STATE", "number": 3, ...the head},
snapshots as {"op": "snapshot", "sub": 1, "snapshot": {...}}, and no results; that is for a page.
Who asks for the list gets {"op": "jobs", "jobs": [...]}, each as `GET /v1/jobs` has it, at once, and again whenever the
list or the state of a job has changed, four times a second at most.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
from aiohttp import WSMsgType, web

from sage_nb.errors import JobNotFoundError, ProtocolError
from sage_nb.remote.core import Core
from sage_nb.remote.hosted import HostedJob
from sage_nb.remote.protocol import UNREADABLE, Kind, head_of, record, records_in
from sage_nb.remote.spool import Reader

__all__ = ["MESSAGE_LIMIT", "Watching"]

_LOG = logging.getLogger("sage_nb.server")
MESSAGE_LIMIT = 64 * 1024
"""Bytes that a watcher may say at once."""
WINDOW = 8 << 20
_SUBSCRIPTIONS = 10_000
_LIST_EVERY = 0.25
"""Seconds between two lists."""
_SUB = struct.Struct("<I")
_NOT_FOR_PAGES = frozenset({Kind.RESULTS, Kind.LETTER})


class _Said(msgspec.Struct):
    """What a watcher says."""

    op: str
    sub: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] = -1
    """All but the list have one."""
    job: str = ""
    after: int = 0
    results: bool = True
    number: int = 0


@dataclass(eq=False)
class _Subscription:
    number: int
    job: HostedJob
    reader: Reader
    results: bool
    version: int = -1
    caught_up: bool = False
    """Whether it has had all that there was."""
    told_end: bool = False
    """Whether it has had an end that the log does not have."""
    position: int | None = None
    sent: int = 0
    """The number of the last record that was sent."""
    under_way: int = 0
    """Bytes that were sent and not taken."""
    sizes: deque[tuple[int, int]] = field(default_factory=deque)
    """Of each message that was sent and not taken: the number of its last record, and its bytes."""


class Watching:
    """One watcher's connection."""

    def __init__(self, core: Core, socket: web.WebSocketResponse, *, as_json: bool) -> None:
        self._core = core
        self._socket = socket
        self._as_json = as_json
        self._subscriptions: dict[int, _Subscription] = {}
        self._of: dict[HostedJob, set[_Subscription]] = {}
        self._fresh: dict[_Subscription, None] = {}
        self._woken = asyncio.Event()
        self._listing: asyncio.Task[None] | None = None

    async def live(self) -> None:
        """Until the connection ends."""
        sending = asyncio.create_task(self._send())
        sending.add_done_callback(self._sent)
        try:
            async for message in self._socket:
                if message.type != WSMsgType.TEXT:
                    await self._socket.close(code=1003, message=b"a watcher speaks JSON text")
                    break
                await self._hear(message.data)
        finally:
            tasks = [sending, *([self._listing] if self._listing is not None else [])]
            for task in tasks:
                task.cancel()
            for one in list(self._subscriptions.values()):
                self._drop(one)
            await asyncio.gather(*tasks, return_exceptions=True)

    def wake(self, job: HostedJob) -> None:
        """There is something new of a job."""
        for one in self._of.get(job, ()):
            self._fresh[one] = None
        self._woken.set()

    # What the watcher says

    async def _hear(self, text: str) -> None:
        try:
            said = msgspec.json.decode(text, type=_Said)
            if said.sub < 0 and said.op != "list":
                raise ProtocolError("a subscription has a number, sub")
        except (*UNREADABLE, ProtocolError) as exc:
            await self._say({"op": "error", "error": {"type": "ProtocolError", "text": f"not understood: {exc}"}})
            return
        known = self._subscriptions.get(said.sub)
        if said.op == "list":
            if self._listing is None:
                self._listing = asyncio.create_task(self._list())
                self._listing.add_done_callback(self._sent)
        elif said.op == "watch" and known is None:
            await self._watch(said)
        elif said.op == "taken" and known is not None:
            if known.job.uuid in self._core.jobs:
                self._taken(known, said.number)
        elif said.op == "unwatch" and known is not None:
            self._drop(known)
        elif said.op not in ("taken", "unwatch"):
            text = f"there is no {said.op!r}" if known is None else f"subscription {said.sub} is in use"
            await self._say({"op": "error", "sub": said.sub, "error": {"type": "ProtocolError", "text": text}})

    async def _watch(self, said: _Said) -> None:
        try:
            if len(self._subscriptions) >= _SUBSCRIPTIONS:
                raise ProtocolError(f"one connection may watch {_SUBSCRIPTIONS:,} jobs")
            job = self._core.find(said.job)
            spool = await job.opened()
        except (JobNotFoundError, ProtocolError) as exc:
            await self._say({"op": "gone", "sub": said.sub, "error": {"type": type(exc).__name__, "text": str(exc)}})
            return
        results = said.results and not self._as_json
        one = _Subscription(said.sub, job, spool.reader(max(said.after, 0), counts=results), results)
        self._subscriptions[said.sub] = one
        self._of.setdefault(job, set()).add(one)
        await self._say({"op": "watching", "sub": said.sub, "job": job.uuid, "first": spool.first, "last": spool.last})
        job.watch(self)
        self._fresh[one] = None
        self._woken.set()

    def _taken(self, one: _Subscription, number: int) -> None:
        number = min(number, one.sent)
        while one.sizes and one.sizes[0][0] <= number:
            one.under_way -= one.sizes.popleft()[1]
        one.job.took(one.reader.took(number))
        self._fresh[one] = None
        self._woken.set()

    def _drop(self, one: _Subscription) -> None:
        self._subscriptions.pop(one.number, None)
        self._fresh.pop(one, None)
        one.job.took(one.reader.close())
        others = self._of.get(one.job, set())
        others.discard(one)
        if not others:
            self._of.pop(one.job, None)
            one.job.unwatch(self)

    # What it gets

    async def _send(self) -> None:
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._fresh:
                one = next(iter(self._fresh))
                del self._fresh[one]
                if one.number in self._subscriptions and await self._send_of(one):
                    self._fresh[one] = None

    async def _list(self) -> None:
        """Send the list, and again when it has changed."""
        changed = asyncio.Event()
        changed.set()
        self._core.list_watchers.add(changed)
        try:
            while True:
                await changed.wait()
                changed.clear()
                await self._say({"op": "jobs", "jobs": self._core.summaries()})
                await asyncio.sleep(_LIST_EVERY)
        finally:
            self._core.list_watchers.discard(changed)

    def _sent(self, sending: asyncio.Task[None]) -> None:
        """Nothing more is sent: a watcher that hears nothing must not wait for ever."""
        error = None if sending.cancelled() else sending.exception()
        if error is None:
            return
        if not isinstance(error, ConnectionError):
            _LOG.error("a watcher's connection is given up", exc_info=error)
        asyncio.get_running_loop().create_task(self._socket.close(code=1011, message=b"the server failed"))

    async def _send_of(self, one: _Subscription) -> bool:
        """Send the next of one job; whether there is more."""
        if one.job.uuid not in self._core.jobs:
            self._drop(one)
            error = {"type": "JobNotFoundError", "text": "the job was deleted"}
            await self._say({"op": "gone", "sub": one.number, "error": error})
            return False
        position = self._core.position(one.job)
        if position != one.position:
            one.position = position
            await self._say({"op": "position", "sub": one.number, "position": position})
        more = False
        if one.under_way < WINDOW and (found := one.reader.read()) is not None:
            data, last = found
            one.sent = last
            if one.results:
                one.sizes.append((last, len(data)))
                one.under_way += len(data)
            await self._send_records(one, data)
            more = True
        elif not one.told_end and one.under_way < WINDOW and (end := one.job.missing_end()) is not None:
            one.told_end = more = True
            await self._send_records(one, end)
        elif not one.caught_up and one.under_way < WINDOW:
            one.caught_up = more = True
            await self._say({"op": "caught_up", "sub": one.number})
        elif one.version != one.job.version and one.job.snapshot is not None:
            one.version = one.job.version
            await self._send_snapshot(one, one.job.snapshot)
        return more

    async def _send_records(self, one: _Subscription, data: bytes) -> None:
        if self._as_json:
            for kind, number, head, _ in records_in(memoryview(data)):
                if kind not in _NOT_FOR_PAGES:
                    await self._say({"op": "record", "sub": one.number, **_as_json(kind, number, head)})
            return
        if not one.results:
            kept = (piece for piece in records_in(memoryview(data)) if piece[0] not in _NOT_FOR_PAGES)
            data = b"".join(
                bytes(piece) for kind, number, head, body in kept for piece in record(kind, number, bytes(head), [body])
            )
        if data:
            await self._socket.send_bytes(_SUB.pack(one.number) + data)

    async def _send_snapshot(self, one: _Subscription, snapshot: bytes) -> None:
        if self._as_json:
            text = snapshot.decode()
            await self._socket.send_str(f'{{"op":"snapshot","sub":{one.number},"snapshot":{text}}}')
        else:
            pieces = record(Kind.SNAPSHOT, 0, None, [snapshot])
            await self._socket.send_bytes(b"".join([_SUB.pack(one.number), *pieces]))

    async def _say(self, message: dict[str, Any]) -> None:
        await self._socket.send_str(msgspec.json.encode(message).decode())


def _as_json(kind: int, number: int, head: memoryview) -> dict[str, Any]:
    found = head_of(kind, head)
    fields = {} if found is None else {name: getattr(found, name) for name in found.__struct_fields__}
    fields.pop("snapshot", None)  # it comes as one
    return {"kind": Kind(kind).name, "number": number, **fields}
