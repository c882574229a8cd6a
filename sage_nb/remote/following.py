"""The items of one `collect` of a job on a server, at the pace of the one who iterates.

The server sends 8 MB, and more only as they are taken. What is not taken stays in the job's log there; when that is
full, the job waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from sage_nb.engine.shipping import loads_items
from sage_nb.errors import SageError
from sage_nb.remote import protocol
from sage_nb.remote.connection import Connection
from sage_nb.remote.portal import portal
from sage_nb.remote.protocol import Kind, head_of, unpack_buffers, writable

__all__ = ["Following"]

_TICK = 0.05  # an interrupt of an awaiting cell is seen only when the event loop turns


class Following:
    """A subscriber that hands on the items of `name`. What it is told comes on the portal's loop."""

    def __init__(self, connection: Connection, uuid: str, name: str, done: threading.Event) -> None:
        self._connection = connection
        self._uuid = uuid
        self._name = name
        self._done = done
        """Set when the job's own handle has heard of the end, and of the error."""
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()
        self._waiting: deque[tuple[int, int, bytes]] = deque()
        """Chunks: the record's number, the index of the first item, and the items, pickled."""
        self._ended = False
        self._other = 0
        """The last record that is none of ours, and is taken with the next that is."""

    async def chunks(self) -> AsyncIterator[list[Any]]:
        """The items, several at a time; of a new attempt those that the last one had not come to."""
        number = await asyncio.wrap_future(portal.run(self._begin()), loop=self._loop)
        at = 0
        try:
            while True:
                while self._waiting:
                    record, first, body = self._waiting.popleft()
                    items = loads_items(writable(unpack_buffers(memoryview(body))))
                    fresh, at = items[max(0, at - first) :], max(at, first + len(items))
                    if fresh:
                        yield fresh
                    portal.soon(self._connection.taken, number, record)
                if self._ended and self._done.is_set():
                    return
                await self._wait()
        finally:
            portal.soon(self._connection.unwatch, number)

    async def _begin(self) -> int:
        return self._connection.watch(self._uuid, self, at_once=False)

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._changed.wait(), _TICK)
        except TimeoutError:
            return
        self._changed.clear()

    def _tell(self) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._changed.set)

    # What it is told

    def record(self, kind: int, number: int, head: memoryview, body: memoryview) -> None:
        found = head_of(kind, head)
        if isinstance(found, protocol.Results) and found.name == self._name:
            self._waiting.append((number, found.first, bytes(body)))
        elif number:
            self._waiting.append((number, 0, _NOTHING))
        if kind == Kind.ENDED:
            self._ended = True
        self._tell()

    def gone(self, error: SageError) -> None:
        self._ended = True
        self._tell()

    def watching(self, first: int, last: int) -> None: ...
    def caught_up(self) -> None: ...
    def queued(self, position: int | None) -> None: ...
    def lost(self, why: str) -> None: ...


_NOTHING = b"".join(map(bytes, protocol.pack_buffers([b"\x80\x05]\x94."])))
"""An empty list, pickled."""
