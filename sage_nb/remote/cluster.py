"""The Ray cluster on which a server's jobs run: one that was named, or a private one that all its jobs share.

The private one belongs to a small process of its own: Ray, which may end the process that uses it, never runs in
the server. It starts with the first job that needs it, and anew where it was lost.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import secrets
from typing import Any

from sage_nb.engine.child import Child, start
from sage_nb.engine.childmain import ChildConnection
from sage_nb.engine.frames import ConnectionClosed
from sage_nb.errors import ClusterError, WorkerError
from sage_nb.remote.access import TOKEN_VARIABLE

__all__ = ["Cluster", "keep", "use_token"]

_ENTRY = "sage_nb.remote.cluster:keep"
_GRACE = 5.0


class Cluster:
    """The cluster of one server. `settings` are `config["ray"]` for jobs that say nothing themselves."""

    def __init__(self, settings: dict[str, Any] | None) -> None:
        self._settings = settings or {}
        self.token = secrets.token_hex(32)
        """What a private cluster asks of those who connect: Ray listens on all interfaces."""
        self._child: Child | None = None
        self._address: str | None = None
        self._starting: asyncio.Task[str] | None = None

    async def settings(self) -> dict[str, Any]:
        """How a job connects. Starts the private cluster where there is none. Raises `ClusterError`."""
        if "address" in self._settings:
            return self._settings
        if self._child is None or self._child.ending() is not None or self._address is None:
            if self._starting is None:
                self._starting = asyncio.create_task(asyncio.to_thread(self._start))
                self._starting.add_done_callback(self._started)
            self._address = await asyncio.shield(self._starting)
        own = {name: value for name, value in self._settings.items() if name in ("namespace", "runtime_env")}
        return {**own, "address": self._address}

    @property
    def is_private(self) -> bool:
        """Whether the server starts it."""
        return "address" not in self._settings

    def close(self) -> None:
        """End the private cluster. May take seconds."""
        child, self._child = self._child, None
        if child is not None:
            child.close(2 * _GRACE)

    def _started(self, _task: asyncio.Task[str]) -> None:
        self._starting = None

    def _start(self) -> str:
        self.close()
        child = start(_ENTRY, name="Ray", hidden=(TOKEN_VARIABLE,))
        try:
            child.send(0, marshal.dumps((self._settings, self.token)))
            ok, said = marshal.loads(child.receive()[1][0])
        except WorkerError as exc:
            child.close()
            raise ClusterError(f"a private Ray cannot be started: {exc}") from exc
        if not ok:
            child.close()
            raise ClusterError(said)
        self._child = child
        return str(said)


def use_token(token: str) -> None:
    """Have Ray, which has not been imported yet, ask for that token, and give it."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)


def keep(connection: ChildConnection) -> None:
    """In a process of its own: have a private Ray until the pipe ends."""
    connection.grace = _GRACE
    _, buffers = connection.receive()
    settings, token = marshal.loads(buffers[0])
    use_token(token)
    import ray

    from sage_nb.engine.onray.cluster import acquire

    lease = acquire(settings, lambda lost: connection.ended.set(), lambda text, level: print(text))
    lease.ready.wait()
    if lease.error is not None:
        connection.send(0, marshal.dumps((False, str(lease.error))))
        return
    connection.send(0, marshal.dumps((True, ray.get_runtime_context().gcs_address)))
    try:
        connection.ended.wait()
        if lease.lost is None:
            connection.receive()
    except ConnectionClosed:
        pass
    finally:
        lease.release()
        if ray.is_initialized():
            ray.shutdown()
