"""One page that looks on, by its WebSocket.

Nothing is queued for a page: what changed is noted, and is sent as it is at that moment when the page may have the next
message. So a slow page gets fewer messages, and none that is old; and however many jobs run, there are at most four
lists a second, and four snapshots of each job that the page follows. The last snapshot of a job always comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from sage_nb.errors import SageError

if TYPE_CHECKING:
    from sage_nb_jupyter.hub import Hub

__all__ = ["FOLLOWED", "LOOKED_AT", "Page", "Said"]

FOLLOWED = 0.25
"""Seconds between two snapshots of a job that is followed, and between two lists."""
LOOKED_AT = 1.0
"""Seconds between two lists in which only counters changed."""
_LOOK = 2.0
"""Seconds after which a page in sight is told what nothing tells us: a notebook has another name, a kernel is gone."""
_FOLLOWS = 1000


class Said(msgspec.Struct):
    """What a page says."""

    op: str
    job: str = ""
    visible: bool = False


class Page:
    """A page, from its first message to its last."""

    def __init__(
        self, hub: Hub, say: Callable[[bytes], Awaitable[None]], failed: Callable[[BaseException], None]
    ) -> None:
        self.visible = False
        self.follows: set[str] = set()
        self._hub = hub
        self._say = say
        self._woken = asyncio.Event()
        self._urgent, self._stale = True, False
        """Whether the list has changed, and whether its counters have."""
        self._listed_at = float("-inf")
        self._last_list: bytes | None = None
        self._fresh: dict[str, None] = {}
        """Jobs that are followed and have changed."""
        self._sent_at: dict[str, float] = {}
        self._gone: list[str] = []
        self._failed = failed
        self._task = asyncio.create_task(self._send())
        self._task.add_done_callback(self._sent)

    # What the page says

    async def hear(self, text: str | bytes) -> None:
        """Take a message. Raises one of `UNREADABLE` where it is none."""
        said = msgspec.json.decode(text, type=Said)
        if said.op == "visible":
            self.visible = said.visible
            self._stale = self._stale or said.visible
        elif said.op == "follow":
            await self._follow(said.job)
        elif said.op == "unfollow":
            self.follows.discard(said.job)
        else:
            raise msgspec.ValidationError(f"there is no op {said.op[:60]!r}")
        self._hub.attention()
        self._woken.set()

    async def _follow(self, uuid: str) -> None:
        if len(self.follows) >= _FOLLOWS:
            raise msgspec.ValidationError(f"a page may follow {_FOLLOWS:,} jobs")
        self.follows.add(uuid)
        try:
            await self._hub.found(uuid)
        except SageError:  # such as an address that is none
            self.lost(uuid)
        else:
            self._fresh[uuid] = None

    # What has happened

    def changed(self, uuid: str | None = None, *, urgent: bool) -> None:
        """A job has, or with no job the server."""
        self._urgent, self._stale = self._urgent or urgent, True
        if uuid is not None and uuid in self.follows:
            self._fresh[uuid] = None
        self._woken.set()

    def lost(self, uuid: str) -> None:
        """Nobody knows of a job any more."""
        self._urgent = True
        self._fresh.pop(uuid, None)
        self._sent_at.pop(uuid, None)
        if uuid in self.follows:
            self.follows.discard(uuid)
            self._gone.append(uuid)
        self._woken.set()

    def close(self) -> None:
        """Send nothing more."""
        self._task.cancel()

    # What it gets

    def _sent(self, task: asyncio.Task[None]) -> None:
        """Nothing more is sent: a page that hears nothing must not wait for ever."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def _send(self) -> None:
        while True:
            self._woken.clear()
            await self._send_gone()
            waits = [
                await self._send_list(),
                *[await self._send_job(one) for one in list(self._fresh)],
            ]
            wait = min((one for one in waits if one is not None), default=None)
            if self.visible:
                wait = _LOOK if wait is None else min(wait, _LOOK)
            try:
                async with asyncio.timeout(wait):
                    await self._woken.wait()
            except TimeoutError:
                self._stale = True

    async def _send_gone(self) -> None:
        while self._gone:
            await self._message({"op": "gone", "job": self._gone.pop(0)})

    async def _send_list(self) -> float | None:
        """Send the list if it is time to; else, how long that is."""
        if not self._urgent and not (self._stale and self.visible):
            return None
        now = asyncio.get_running_loop().time()
        wait = self._listed_at + (FOLLOWED if self._urgent else LOOKED_AT) - now
        if wait > 0:
            return wait
        self._urgent = self._stale = False
        message = msgspec.json.encode({"op": "jobs", **await listing(self._hub)})
        if message != self._last_list:
            self._listed_at, self._last_list = now, message
            await self._say(message)
        return None

    async def _send_job(self, uuid: str) -> float | None:
        """Send a job's snapshot if it is time to; else, how long that is."""
        entry = self._hub.entry(uuid)
        if entry is None or uuid not in self.follows:
            self._fresh.pop(uuid, None)
            return None
        now = asyncio.get_running_loop().time()
        wait = self._sent_at.get(uuid, float("-inf")) + FOLLOWED - now
        if wait > 0 and entry.live:
            return wait
        self._fresh.pop(uuid, None)
        self._sent_at[uuid] = now
        await self._message({"op": "snapshot", "snapshot": entry.snapshot})
        return None

    async def _message(self, message: dict[str, Any]) -> None:
        await self._say(msgspec.json.encode(message))


async def listing(hub: Hub) -> dict[str, Any]:
    """All rows, and how the JobManager server is."""
    return {"rows": await hub.rows(), "server": hub.server.state}
