"""What is known of all jobs: of the kernels of this Jupyter server, which announce theirs, and of a JobManager server.

Nothing is asked for again and again. Kernels and the server say when something changes; counters come at the pace that
the pages need: four times a second of a job whose view is open, once a second of the others while the panel is in
sight, and not at all otherwise.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from sage_nb.engine.states import ENDED
from sage_nb.errors import JobNotFoundError
from sage_nb.jobs.board import JobRow, row_of
from sage_nb.jobs.snapshot import JobSnapshot, LogView
from sage_nb_jupyter.jobmanager import JobManagerLink
from sage_nb_jupyter.pages import FOLLOWED, LOOKED_AT, Page

__all__ = ["Hub", "Kernel", "Op"]

Op = Literal["stop", "pause", "resume"]
MOST = 200
"""Jobs that are remembered; of those that have ended the oldest go first."""
_PATHS_FOR = 1.0


@dataclass(eq=False)
class Kernel:
    """A kernel's connection."""

    id: str | None
    path: str | None
    """The notebook that it was started for."""
    pid: int
    say: Callable[[dict[str, Any]], None]
    jobs: dict[str, float | None] = field(default_factory=dict)
    """Those it has announced and not let go of, and the pace that it was asked for."""


@dataclass(eq=False)
class Entry:
    """One job."""

    snapshot: JobSnapshot
    kernel: Kernel | None = None
    """The connection by which it can be told what to do; None of an ended one, and of one that no kernel holds."""
    kernel_id: str | None = None
    """With `path` and `cell`: where it was submitted, else where somebody attached to it first."""
    path: str | None = None
    cell: str | None = None
    number: int | None = None
    logs: list[LogView] | None = None
    described: bool = True
    """Whether the snapshot is one, and not just made from a line in the server's list."""
    since: float = field(default_factory=time.time)

    @property
    def uuid(self) -> str:
        return self.snapshot.uuid

    @property
    def live(self) -> bool:
        return self.snapshot.status not in ENDED

    @property
    def began(self) -> float:
        return self.snapshot.started or self.since


class Hub:
    """All jobs, and the pages that look at them. Belongs to the Jupyter server's event loop."""

    def __init__(self, kernel_manager: Any, session_manager: Any, root: str, server: JobManagerLink) -> None:
        self.server = server
        server.hub = self
        self.pages: set[Page] = set()
        self._kernel_manager = kernel_manager
        self._session_manager = session_manager
        self._root = root
        self._kernels: set[Kernel] = set()
        self._entries: dict[str, Entry] = {}
        self._paths: dict[str, str] = {}
        self._paths_at = float("-inf")
        self._logs_asked: dict[str, list[asyncio.Future[None]]] = {}

    async def close(self) -> None:
        """Let go of everything."""
        for page in list(self.pages):
            self.closed(page)
        await self.server.close()

    # What kernels say

    def arrived(self, kernel: Kernel) -> Kernel:
        """A kernel has something to announce. An earlier process of the same kernel is gone."""
        for other in list(self._kernels):
            if kernel.id is not None and other.id == kernel.id and other.pid != kernel.pid:
                self.left(other)
        self._kernels.add(kernel)
        return kernel

    def left(self, kernel: Kernel) -> None:
        """A connection has ended. What is left of its jobs ran in the kernel, which is gone."""
        self._kernels.discard(kernel)
        for uuid in list(kernel.jobs):
            self._let_go(kernel, uuid, is_gone=True)

    def described(self, kernel: Kernel, cell: str | None, snapshot: JobSnapshot, *, submitted: bool) -> None:
        """The newest of a job that a kernel has submitted, or attached to."""
        if kernel not in self._kernels:
            return
        entry = self._entries.get(snapshot.uuid) or Entry(snapshot, described=False)
        known_better = snapshot.server is not None and self.server.has(snapshot.uuid)
        if entry.kernel is None:
            entry.kernel = kernel
        if submitted or entry.kernel_id is None:
            entry.kernel_id, entry.path, entry.cell = kernel.id, kernel.path, cell or entry.cell
        kernel.jobs.setdefault(snapshot.uuid, None)
        self._take(entry, entry.snapshot if known_better and entry.described else snapshot)
        self.set_pace(snapshot.uuid)

    def logged(self, kernel: Kernel, uuid: str, lines: list[LogView]) -> None:
        """The last lines of a job's log."""
        entry = self._entries.get(uuid)
        if entry is not None and entry.kernel is kernel:
            entry.logs = lines
        for asked in self._logs_asked.pop(uuid, ()):
            if not asked.done():
                asked.set_result(None)

    def let_go(self, kernel: Kernel, uuid: str) -> None:
        """A kernel holds no handle on a server's job any more."""
        self._let_go(kernel, uuid, is_gone=False)

    def _let_go(self, kernel: Kernel, uuid: str, *, is_gone: bool) -> None:
        kernel.jobs.pop(uuid, None)
        entry = self._entries.get(uuid)
        if entry is None or entry.kernel is not kernel:
            return
        entry.kernel = None
        if entry.snapshot.server is not None:
            if entry.live:
                entry.kernel = next((one for one in self._kernels if uuid in one.jobs), None)
            if entry.kernel is not None:
                self.set_pace(uuid)
            elif entry.live and not self.server.has(uuid):
                self.forget(uuid)  # nobody tells of it any more
        elif entry.live and is_gone:
            self._take(entry, _stopped(entry.snapshot))

    # What the JobManager server says

    def listed(self, snapshot: JobSnapshot, number: int, *, described: bool) -> None:
        """A job of the server; `described` where that says more than its line in the list."""
        entry = self._entries.get(snapshot.uuid) or Entry(snapshot, described=False)
        entry.number = number
        if not described and entry.described:
            changes = {"status": snapshot.status, "started": snapshot.started}
            if not entry.live or snapshot.status in ENDED:
                changes["elapsed"] = snapshot.elapsed
            error = entry.snapshot.error or snapshot.error
            snapshot = msgspec.structs.replace(entry.snapshot, **changes, error=error)
        entry.described = entry.described or described
        self._take(entry, snapshot, described=entry.described)

    def forget(self, uuid: str) -> None:
        """Nobody knows of a job any more."""
        if self._entries.pop(uuid, None) is not None:
            for page in self.pages:
                page.lost(uuid)

    def known_of(self, address: str) -> list[str]:
        """The uuids of the server's jobs that are known."""
        return [uuid for uuid, entry in self._entries.items() if entry.snapshot.server == address]

    def entry(self, uuid: str) -> Entry | None:
        """What is known of a job."""
        return self._entries.get(uuid)

    def _take(self, entry: Entry, snapshot: JobSnapshot, *, described: bool = True) -> None:
        new = snapshot.uuid not in self._entries
        before, entry.snapshot, entry.described = entry.snapshot, snapshot, described
        self._entries[snapshot.uuid] = entry
        if new:
            self._tidy()
        urgent = new or before.status != snapshot.status or before.error != snapshot.error
        urgent = urgent or [one.state for one in before.services] != [one.state for one in snapshot.services]
        for page in self.pages:
            page.changed(snapshot.uuid, urgent=urgent)

    def _tidy(self) -> None:
        ended = sorted((one for one in self._entries.values() if not one.live), key=lambda one: one.began)
        for one in ended[: max(0, len(self._entries) - MOST)]:
            self.forget(one.uuid)

    # The pages

    def opened(self, page: Page) -> None:
        """A page looks on."""
        self.pages.add(page)
        self.server.look()

    def closed(self, page: Page) -> None:
        """A page has gone."""
        self.pages.discard(page)
        page.close()
        self.attention()

    def attention(self) -> None:
        """What pages look at is something else now."""
        self.server.look()
        for uuid in list(self._entries):
            self.set_pace(uuid)

    def pace(self, uuid: str) -> float | None:
        """Seconds between two snapshots of a job, for those who look; None where nobody does."""
        if any(uuid in page.follows for page in self.pages):
            return FOLLOWED
        return LOOKED_AT if any(page.visible for page in self.pages) else None

    def set_pace(self, uuid: str) -> None:
        """Have whoever tells of a job do it at the pace that is wanted."""
        entry = self._entries.get(uuid)
        kernel = entry.kernel if entry is not None else None
        if entry is None or kernel is None or not entry.live:
            return
        interval = None if entry.snapshot.server is not None and self.server.has(uuid) else self.pace(uuid)
        if kernel.jobs.get(uuid) != interval:
            kernel.jobs[uuid] = interval
            kernel.say({"op": "pace", "job": uuid, "interval": interval})

    # What pages ask for

    async def rows(self) -> list[JobRow]:
        """The rows of all jobs, the newest first; not those that have ended in a kernel that is gone."""
        if time.monotonic() - self._paths_at > _PATHS_FOR:
            self._paths_at = time.monotonic()
            self._paths = {
                session["kernel"]["id"]: session["path"] for session in await self._session_manager.list_sessions()
            }
        found = sorted(self._entries.values(), key=lambda one: one.began, reverse=True)
        return [self._row(one) for one in found if not self._is_past(one)]

    def _is_past(self, entry: Entry) -> bool:
        if entry.live or entry.kernel is not None or entry.snapshot.server is not None:
            return False
        return entry.kernel_id is not None and entry.kernel_id not in self._kernel_manager

    def _row(self, entry: Entry) -> JobRow:
        path = self._paths.get(entry.kernel_id or "") or self._relative(entry.path)
        place = path.rpartition("/")[2] if path else f"kernel {(entry.kernel_id or '')[:8]}".strip()
        row = row_of(
            entry.snapshot, place=place, kernel=entry.kernel_id, path=path, cell=entry.cell, number=entry.number
        )
        return msgspec.structs.replace(row, place=f"{place} on {row.place}") if path and row.place != place else row

    def _relative(self, path: str | None) -> str | None:
        """A notebook's path as Jupyter's pages have it."""
        if path is None or not os.path.isabs(path):
            return path
        found = os.path.relpath(path, self._root)
        return None if found.startswith("..") else found.replace(os.sep, "/")

    async def found(self, uuid: str) -> Entry:
        """A job, described in full. Raises `JobNotFoundError`, and `ServerError` where the server has it and does not
        answer."""
        entry = self._entries.get(uuid)
        if entry is None or not entry.described:
            snapshot = await self.server.fetch(uuid)
            entry = self._entries.get(uuid) or (Entry(snapshot) if snapshot is not None else None)
        if entry is None:
            raise JobNotFoundError(f"no kernel and no server of yours knows the job {uuid[:60]!r}")
        return entry

    async def order(self, uuid: str, op: Op) -> None:
        """Have a job stop, pause or resume; one that has ended is no matter. Raises what `found` does."""
        entry = await self.found(uuid)
        if entry.snapshot.server is not None and self.server.is_at(entry.snapshot.server):
            await self.server.order(uuid, op)
        elif entry.kernel is not None:
            entry.kernel.say({"op": op, "job": uuid})

    async def logs(self, uuid: str, most: int) -> list[LogView]:
        """The last lines of a job's log. Raises what `found` does."""
        entry = await self.found(uuid)
        if entry.snapshot.server is not None and self.server.is_at(entry.snapshot.server):
            return await self.server.logs(uuid, most)
        if entry.kernel is not None and uuid in entry.kernel.jobs and entry.live:
            asked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._logs_asked.setdefault(uuid, []).append(asked)
            entry.kernel.say({"op": "logs", "job": uuid})
            await asyncio.wait([asked], timeout=2.0)
        return list(entry.logs or entry.snapshot.logs)[-most:]


def _stopped(snapshot: JobSnapshot) -> JobSnapshot:
    """The last description of a job whose kernel is gone."""
    services = tuple(
        msgspec.structs.replace(one, state="stopped") if one.state not in ("failed", "hung") else one
        for one in snapshot.services
    )
    return msgspec.structs.replace(
        snapshot, status="stopped", waiting_for=None, reason="its kernel is gone", services=services
    )
