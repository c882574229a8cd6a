"""`JobManagerServer`: a JobManager that other processes reach, on a thread of this one, or as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import tempfile
import threading
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiohttp import web

import sage_nb
from sage_nb.errors import ServerBusyError, ServerError
from sage_nb.remote.access import Notice, Started, make_token, read_notice, remove_notice, write_notice
from sage_nb.remote.app import make_app
from sage_nb.remote.core import Core
from sage_nb.remote.handler import Handler
from sage_nb.remote.runners import process_key
from sage_nb.remote.settings import DEFAULT_PORT, LOOPBACK, Settings, state_folder

__all__ = ["JobManagerServer", "serve"]

_LOG = logging.getLogger("sage_nb.server")
_CLOSE_WITHIN = 20.0
_BACKLOG = 512


class JobManagerServer:
    """A JobManager server in this process, on a thread of its own.

        with JobManagerServer(port=0) as server:
            env = RemoteEnvironment("app", port=server.port)

    `host` and `port` are where it listens; port 0 is any that is free, which `port` says then. `settings` are those of
    `Settings`: `max_running`, `warm`, `state`, `token` and others. Jobs run in processes of their own. `stop()`, or the
    end of the `with` block, stops them, each with its cleanup.
    """

    def __init__(self, host: str = LOOPBACK, port: int = DEFAULT_PORT, **settings: Any) -> None:
        try:
            self.settings = Settings(host=host, port=port, **settings).checked()
        except TypeError as exc:
            raise ServerError(f"JobManagerServer: {str(exc).replace('Settings.__init__() ', '')}") from None
        self.host = host
        self.port = port
        self.token: str | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._halt: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<JobManagerServer {self.host}:{self.port}: {'running' if self.is_running else 'not running'}>"

    @property
    def is_running(self) -> bool:
        """Whether it listens."""
        return self._thread is not None and self._thread.is_alive() and self._ready.is_set()

    def start(self) -> Self:
        """Begin, and return when it listens. Raises `ServerBusyError` where the port is taken."""
        if self._thread is not None and self._thread.is_alive():
            return self
        self._ready.clear()
        self._error = None
        self._thread = threading.Thread(target=self._live, name="sage_nb server", daemon=True)
        self._thread.start()
        self._ready.wait()
        if (error := self._failure()) is not None:
            self._thread.join()
            raise error
        return self

    def _failure(self) -> BaseException | None:
        """Why it could not begin."""
        return self._error

    def stop(self) -> None:
        """Stop the jobs, each with its cleanup, and the server."""
        thread, loop, halt = self._thread, self._loop, self._halt
        if thread is None or loop is None or halt is None:
            return
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(halt.set)
        thread.join(_CLOSE_WITHIN)
        self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _live(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as exc:  # noqa: BLE001 - it is raised where start() waits
            self._error = exc
            self._ready.set()

    async def _run(self) -> None:
        self._loop, self._halt = asyncio.get_running_loop(), asyncio.Event()
        async with _Serving(self.settings) as serving:
            self.port, self.token = serving.port, serving.token
            self._ready.set()
            await self._halt.wait()


class _Serving:
    """A server, while it runs, on the event loop that runs it."""

    def __init__(self, settings: Settings, started: Started | None = None, *, temporary: bool = False) -> None:
        self.settings = settings
        self._temporary = temporary or (settings.state is None and not settings.port)
        self.port = settings.port
        self._started = started
        self.token = None if settings.no_token else settings.token or make_token()
        self._core: Core | None = None
        self._runner: web.AppRunner | None = None
        self._listening: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def __aenter__(self) -> Self:
        settings, loop = self.settings, asyncio.get_running_loop()
        self._listening = _listen(settings.host, settings.port)
        try:
            self.port = self._listening[0].getsockname()[1]
            state = settings.state or (state_folder(self.port) if settings.port else self._make_folder())
            self._core = core = Core(settings, Path(state), loop)
            if self._temporary:
                core.pool.remove_if_killed(Path(state))
            await core.begin()
            self._runner = web.AppRunner(make_app(core, self.token), shutdown_timeout=2.0)
            await self._runner.setup()
            manager = self._runner.server
            assert manager is not None
            write_notice(self._notice(Path(state)))
            tls = _tls(settings)
            for one in self._listening:
                made = partial(Handler, manager, loop=loop)
                self._servers.append(await loop.create_server(made, sock=one, ssl=tls, backlog=_BACKLOG))
        except BaseException:
            await self._close()
            raise
        _LOG.info("sage_nb JobManager listens on %s:%d", settings.host, self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        if self._core is not None:
            await self._core.close()
        for server in self._servers:
            server.close()
        if self._runner is not None:
            await self._runner.cleanup()
        remove_notice(self.port)  # last: until here clients fetch what is left, and need its token
        for one in self._listening:
            one.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _make_folder(self) -> str:
        """For a server whose port nobody knows the next time."""
        self._folder = tempfile.TemporaryDirectory(prefix="sage_nb-")
        return self._folder.name

    def _notice(self, state: Path) -> Notice:
        pid = os.getpid()
        return Notice(
            host=self.settings.host,
            port=self.port,
            pid=pid,
            process=process_key(pid),
            token=self.token,
            state=str(state),
            tls=self.settings.certfile is not None,
            version=sage_nb.__version__,
            started=self._started,
        )


def _listen(host: str, port: int) -> list[socket.socket]:
    """Sockets bound to an address. Raises `ServerBusyError`, which says who has the port."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as exc:
        raise ServerError(f"there is no address {host!r} to listen on: {exc}") from exc
    family, kind, proto, _, address = found[0]
    one = socket.socket(family, kind, proto)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(address)
        one.listen(_BACKLOG)  # so that a second server on the port is told at once
    except OSError as exc:
        one.close()
        raise ServerBusyError(f"cannot listen on {host}:{port}: {_holder(port) or exc.strerror or exc}") from exc
    return [one]


def _holder(port: int) -> str | None:
    """Who listens on a port of this machine, as far as that can be told."""
    notice = read_notice(port)
    if notice is not None and process_key(notice.pid) == notice.process:
        return f"a sage_nb JobManager has the port already (process {notice.pid}); use it, or another port"
    pid = _listening_process(port)
    if pid is None:
        return None
    try:
        name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return None
    return f"process {pid} has the port already ({name[:100]}); use another port"


def _listening_process(port: int) -> int | None:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if int(fields[1].rpartition(":")[2], 16) == port and fields[3] == "0A":
                    inodes.add(f"socket:[{fields[9]}]")
    for pid in filter(str.isdecimal, os.listdir("/proc")) if inodes else ():
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                        return int(pid)
    return None


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.certfile is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certfile, settings.keyfile)
    except (OSError, ssl.SSLError) as exc:
        raise ServerError(f"the certificate {settings.certfile} cannot be used: {exc}") from exc
    return context


def serve(
    settings: Settings,
    on_ready: Any = lambda serving: None,
    *,
    started: Started | None = None,
    temporary: bool = False,
) -> None:
    """Run a server in this process until SIGTERM or SIGINT. `on_ready` is called with it when it listens. `started` is
    what its notice says of how this process was started. A `temporary` state folder goes also where it is killed."""

    async def run() -> None:
        loop, halt = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, halt.set)
        async with _Serving(settings, started, temporary=temporary) as serving:
            on_ready(serving)
            await halt.wait()
            _LOG.info("sage_nb JobManager is stopping")

    asyncio.run(run())
