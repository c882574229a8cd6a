"""What a client asks a server to send, on a connection that comes again."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from sage_nb.errors import SageError
from sage_nb.remote.address import address_of
from sage_nb.remote.connection import Connection, _Subscription


class Socket:
    """In place of aiohttp's: what is sent is seen by `then`."""

    def __init__(self, then: Any) -> None:
        self.said: list[dict[str, Any]] = []
        self.then = then

    async def send_str(self, text: str) -> None:
        self.said.append(json.loads(text))
        self.then()


class Watches:
    def record(self, kind: int, number: int, head: memoryview, body: memoryview) -> None: ...
    def watching(self, first: int, last: int) -> None: ...
    def queued(self, position: int | None) -> None: ...
    def lost(self, why: str) -> None: ...
    def caught_up(self) -> None: ...
    def gone(self, error: SageError) -> None: ...


def test_what_is_dropped_while_others_are_asked_for_is_not_asked_for() -> None:
    """The server would keep for it what nobody takes, and hold its job."""
    connection = Connection(address_of(None, 1, "x"))
    both = [_Subscription(n, f"job {n}", Watches(), 0, True, True) for n in (1, 2)]
    connection._subscriptions = {one.number: one for one in both}
    socket: Any = Socket(then=lambda: connection._subscriptions.pop(2, None))

    async def ask() -> None:
        for one in both:
            await connection._ask(socket, one)

    asyncio.run(ask())
    assert [one["sub"] for one in socket.said] == [1]
