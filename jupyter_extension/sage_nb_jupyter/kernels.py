"""Where kernels announce their jobs: a Unix socket that only the user can reach. See `sage_nb.notebook.announce`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from sage_nb.jobs.snapshot import JobSnapshot, LogView
from sage_nb_jupyter.hub import Hub, Kernel
from sage_nb_jupyter.wire import UNREADABLE

__all__ = ["KernelSocket"]

VARIABLE = "SAGE_NB_JUPYTER"
_LINE = 16 << 20
"""Bytes that one message may have."""
_LONGEST_PATH = 100
"""Bytes that the name of a Unix socket may have, on every system."""
_GREETS_WITHIN = 10.0
_NEW = 10.0
"""Seconds for which a socket is taken for one that is about to be listened to."""


class _Hello(msgspec.Struct, tag_field="op", tag="hello"):
    pid: int
    kernel: str | None = None
    path: str | None = None


class _Described(msgspec.Struct, tag_field="op", tag="snapshot"):
    snapshot: JobSnapshot
    cell: str | None = None
    submitted: bool = True


class _Logs(msgspec.Struct, tag_field="op", tag="logs"):
    job: str
    lines: list[LogView]


class _Gone(msgspec.Struct, tag_field="op", tag="gone"):
    job: str


_said = msgspec.json.Decoder(_Hello | _Described | _Logs | _Gone)


class KernelSocket:
    """The socket, from the start of the Jupyter server to its end."""

    def __init__(self, hub: Hub, runtime: str, log: logging.Logger) -> None:
        self._hub = hub
        self._runtime = Path(runtime)
        self._log = log
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._folder: Path | None = None
        self._talking: set[asyncio.Task[Any]] = set()
        self.path: Path | None = None

    def bind(self) -> None:
        """Make the socket, and name it in the environment that kernels inherit."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.path = self._bound(listening)
        except OSError as exc:
            listening.close()
            self._log.error("sage_nb: the jobs of kernels are not shown, as there is no socket to be had: %s", exc)
            return
        self._socket = listening
        os.environ[VARIABLE] = str(self.path)

    def _bound(self, listening: socket.socket) -> Path:
        """Bind in Jupyter's runtime folder, or, where that cannot be, in one of its own."""
        folder = self._runtime / "sage_nb"
        machine = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:4]  # of several with one home folder
        path = folder / f"{machine}{secrets.token_hex(2)}.sock"
        _remove_dead(folder.glob(f"{machine}*.sock"))
        if len(os.fsencode(path)) <= _LONGEST_PATH:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                folder.chmod(0o700)
                return _bind(listening, path)
            except OSError as exc:  # such as a home folder on a file system that has no sockets
                self._log.info("sage_nb: no socket in %s: %s", folder, exc)
        self._folder = Path(tempfile.mkdtemp(prefix="sage_nb-"))
        return _bind(listening, self._folder / "kernels.sock")

    async def serve(self) -> None:
        """Listen from now on."""
        if self._socket is not None:
            self._server = await asyncio.start_unix_server(self._connected, sock=self._socket, limit=_LINE)

    def close(self) -> None:
        """Hang up, and remove the socket's file."""
        if os.environ.get(VARIABLE) == str(self.path):
            del os.environ[VARIABLE]
        if self._server is not None:
            self._server.close()
        for task in list(self._talking):
            task.cancel()
        if self._socket is not None:
            self._socket.close()
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._talking.add(task)
        kernel: Kernel | None = None
        try:
            line = await asyncio.wait_for(reader.readline(), _GREETS_WITHIN)
            hello = _said.decode(line) if line else None
            if isinstance(hello, _Hello):
                kernel = self._hub.arrived(Kernel(hello.kernel, hello.path, hello.pid, _speaker(writer)))
                while line := await reader.readline():
                    self._take(kernel, line)
        except (*UNREADABLE, ValueError, TimeoutError) as exc:  # no kernel of ours speaks so
            self._log.warning("sage_nb: a connection is dropped that does not speak as a kernel does: %s", exc)
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            self._talking.discard(task)
            if kernel is not None:
                self._hub.left(kernel)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _take(self, kernel: Kernel, line: bytes) -> None:
        said = _said.decode(line)
        if isinstance(said, _Described):
            self._hub.described(kernel, said.cell, said.snapshot, submitted=said.submitted)
        elif isinstance(said, _Logs):
            self._hub.logged(kernel, said.job, said.lines)
        elif isinstance(said, _Gone):
            self._hub.let_go(kernel, said.job)


def _remove_dead(paths: Iterable[Path]) -> None:
    """Remove the sockets of Jupyter servers that were killed."""
    for path in paths:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dialled:
            if time.time() - path.stat().st_mtime < _NEW:
                continue  # who has made it may not listen yet
            dialled.setblocking(False)
            try:
                dialled.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def _bind(listening: socket.socket, path: Path) -> Path:
    listening.bind(str(path))
    path.chmod(0o600)
    listening.listen(128)
    return path


def _speaker(writer: asyncio.StreamWriter) -> Any:
    def say(message: dict[str, Any]) -> None:
        if not writer.is_closing():
            writer.write(msgspec.json.encode(message) + b"\n")

    return say
