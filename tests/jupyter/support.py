"""A real Jupyter server with the extension, its kernels, and the WebSocket that a page has."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import websocket
from jupyter_client.blocking.client import BlockingKernelClient

__all__ = ["Answer", "JupyterServer", "Page", "ServerKernel", "opened", "until"]

LIMIT = 30.0
OTHERS = (
    "jupyter_lsp",
    "jupyter_server_terminals",
    "jupyterlab",
    "notebook",
    "notebook_shim",
    "voila.server_extension",
)
"""Extensions that these tests need not, and that take long to load."""


def until(condition: Callable[[], Any], limit: float = LIMIT) -> None:
    """Ask, ten times a second at most, until it is so."""
    never, deadline = threading.Event(), time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"did not come about within {limit:g} s"
        never.wait(0.1)


@dataclass
class Answer:
    """What a request got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def opened(url: str, **how: Any) -> websocket.WebSocket:
    """A WebSocket; one that is refused leaves nothing open."""
    socket = websocket.WebSocket()
    socket.settimeout(LIMIT)
    try:
        socket.connect(url, **how)
    except BaseException:
        socket.shutdown()
        raise
    return socket


class JupyterServer:
    """One `jupyter server` on a loopback port, with folders of its own."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.root.mkdir(parents=True)
        self.runtime = folder / "runtime"
        self.token = secrets.token_hex(16)
        self._log = folder / "server.log"
        config = folder / "config" / "jupyter_server_config.d" / "others.json"
        config.parent.mkdir(parents=True)
        config.write_text(json.dumps({"ServerApp": {"jpserver_extensions": dict.fromkeys(OTHERS, False)}}))
        given = {
            "ServerApp.ip": "127.0.0.1",
            "ServerApp.port": "0",
            "ServerApp.allow_root": "True",
            "ServerApp.open_browser": "False",
            "ServerApp.root_dir": str(self.root),
            "IdentityProvider.token": self.token,
            **options,
        }
        command = [sys.executable, "-m", "jupyter_server", *(f"--{name}={value}" for name, value in given.items())]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=self.root, env=self.environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            until(self._is_ready, 90)
        except BaseException:
            self.stop()
            print(self.log)
            raise

    def environment(self) -> dict[str, str]:
        """That of the server's process."""
        foreign = ("JUPYTER", "PYTHONPATH", "SAGE_NB", "XDG_")
        return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {
            "HOME": str(self.folder),
            "IPYTHONDIR": str(self.folder / "ipython"),
            "JUPYTER_CONFIG_DIR": str(self.folder / "config"),
            "JUPYTER_DATA_DIR": str(self.folder / "data"),
            "JUPYTER_RUNTIME_DIR": str(self.runtime),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "JUPYTER_PLATFORM_DIRS": "1",
        }

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        for file in self.runtime.glob("jpserver-*.json"):
            with contextlib.suppress(OSError, ValueError):
                self.url = json.loads(file.read_text())["url"]
                return self.ask("GET", "api/status").status == 200
        return False

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def sockets(self) -> list[Path]:
        """The files of the sockets that kernels dial."""
        return list((self.runtime / "sage_nb").glob("*.sock"))

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        login: bool = True,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """A request; `path` comes after the base URL."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=LIMIT)
        auth = {"Authorization": f"token {self.token}"} if login else {}
        try:
            connection.request(method, parts.path + path, body, {**auth, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        """What is at `sage-nb/` + `path`, as JSON."""
        answer = self.ask("GET", f"sage-nb/{path}")
        assert answer.status == 200, (answer, self.log[-3000:])
        return answer.json

    def post(self, path: str) -> Answer:
        return self.ask("POST", f"sage-nb/{path}")

    def rows(self) -> dict[str, dict[str, Any]]:
        """By the job's name, the newest of that name."""
        return {row["name"]: row for row in reversed(self.get("jobs")["rows"])}

    def row(self, name: str, condition: Callable[[dict[str, Any]], Any] = bool) -> dict[str, Any]:
        """The row of a job, once it is so."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [row for row in [self.rows().get(name)] if row is not None and condition(row)]
            return bool(found)

        until(is_there, LIMIT)
        return found[0]

    def page(self) -> Page:
        return Page(self)

    def kernel(self, notebook: str | None = None) -> ServerKernel:
        return ServerKernel(self, notebook)

    def stop(self) -> None:
        """End it as a service manager does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class ServerKernel:
    """A kernel that the server has started, with or without a notebook."""

    def __init__(self, server: JupyterServer, notebook: str | None) -> None:
        self._server = server
        spec = {"name": "python3"}
        self.session: str | None = None
        if notebook is None:
            self.id = self._ask("POST", "api/kernels", spec)["id"]
        else:
            file = server.root / notebook
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
            body = {"path": notebook, "name": file.name, "type": "notebook", "kernel": spec}
            made = self._ask("POST", "api/sessions", body)
            self.id, self.session = made["kernel"]["id"], made["id"]
        self._connect()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        answer = self._server.ask(method, path, data, headers={"Content-Type": "application/json"})
        assert answer.status < 300, answer
        return answer.json if answer.body else None

    def _connect(self) -> None:
        file = self._server.runtime / f"kernel-{self.id}.json"
        self._client = BlockingKernelClient(connection_file=str(file))
        self._client.load_connection_file()
        self._client.start_channels(hb=False)
        self._client.wait_for_ready(LIMIT)

    def start(self, code: str, cell: str | None = None) -> str:
        """Send a cell; the request's id."""
        content = {
            "code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False,
            "stop_on_error": True,
        }  # fmt: skip
        message = self._client.session.msg("execute_request", content, metadata={"cellId": cell} if cell else {})
        self._client.shell_channel.send(message)
        return str(message["header"]["msg_id"])

    def run(self, code: str, cell: str | None = None) -> str:
        """Run a cell to its end; what it printed. Raises where it failed."""
        asked, printed = self.start(code, cell), ""
        while True:
            message = self._client.get_iopub_msg(timeout=LIMIT)
            if message["parent_header"].get("msg_id") != asked:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                printed += content["text"]
            elif kind == "error":
                raise AssertionError("\n".join(content["traceback"]))
            elif kind == "status" and content["execution_state"] == "idle":
                return printed

    @property
    def pid(self) -> int:
        return int(self.run("import os; print(os.getpid())"))

    def restart(self) -> None:
        """Kernel > Restart."""
        self._client.stop_channels()
        self._ask("POST", f"api/kernels/{self.id}/restart")
        self._connect()

    def shutdown(self) -> None:
        """End it."""
        self._client.stop_channels()
        self._ask("DELETE", f"api/kernels/{self.id}" if self.session is None else f"api/sessions/{self.session}")


class Page:
    """The WebSocket of a page."""

    def __init__(self, server: JupyterServer) -> None:
        url = f"{server.url}sage-nb/live".replace("http", "ws", 1)
        headers = {"Authorization": f"token {server.token}"}
        self._socket = opened(url, header=headers)
        self.heard: list[dict[str, Any]] = []

    def say(self, **message: Any) -> None:
        self._socket.send(json.dumps(message))

    def send(self, text: str | bytes) -> None:
        """Something else."""
        self._socket.send(text, websocket.ABNF.OPCODE_BINARY if isinstance(text, bytes) else websocket.ABNF.OPCODE_TEXT)

    def wait(self, condition: Callable[[dict[str, Any]], Any], limit: float = LIMIT) -> dict[str, Any]:
        """The next message that is so."""
        deadline = time.monotonic() + limit
        while True:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            text = self._socket.recv()
            assert text, "the connection has ended"
            self.heard.append(json.loads(text))
            if condition(self.heard[-1]):
                return self.heard[-1]

    def row(self, name: str, condition: Callable[[dict[str, Any]], Any] = bool, limit: float = LIMIT) -> dict[str, Any]:
        """The row of a job, in the next list that has it so."""

        def rows(message: dict[str, Any]) -> list[dict[str, Any]]:
            return [row for row in message.get("rows", ()) if row["name"] == name and condition(row)]

        return rows(self.wait(rows, limit))[0]

    def snapshot(self, condition: Callable[[dict[str, Any]], Any] = bool, limit: float = LIMIT) -> dict[str, Any]:
        """The next snapshot that is so."""
        found: dict[str, Any] = self.wait(lambda m: m["op"] == "snapshot" and condition(m["snapshot"]), limit)[
            "snapshot"
        ]
        return found

    def closed(self) -> tuple[int | None, str]:
        """Read to the end; the code and the reason of the close."""
        self._socket.settimeout(LIMIT)
        while True:
            opcode, data = self._socket.recv_data()
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return (int.from_bytes(data[:2], "big") if data else None), data[2:].decode()

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
