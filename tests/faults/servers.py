"""JobManager servers as processes of their own, for tests of what happens to them."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from sage_nb import JobManagerClient, RemoteEnvironment
from sage_nb.remote import client
from sage_nb.remote.access import read_notice
from tests.support import LIMIT, until

__all__ = ["Server", "alive", "family", "gone", "hang_up"]

_SERVE = """
import json, sys
from pathlib import Path
from sage_nb.remote.server import serve
from sage_nb.remote.settings import Settings
told = json.loads(sys.argv[1])
serve(Settings(**{**told, "state": Path(told["state"])}), lambda serving: print(serving.port, flush=True))
"""


class Server:
    """A server process on a port of this machine, with its things in `folder`; ended at the end of the `with` block."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.state = folder / "state"
        self.errors = folder / "server.log"
        self._settings = {"port": 0, "state": str(self.state), **settings}
        self.port = 0
        self.start()

    def start(self) -> None:
        """Begin, or begin again: on the same port, and with the same state."""
        with open(self.errors, "ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _SERVE, json.dumps({**self._settings, "port": self.port})],
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"no server: {self.errors.read_text()}"
        self.port = int(line)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def client(self) -> JobManagerClient:
        return JobManagerClient(port=self.port)

    @property
    def token(self) -> str:
        notice = read_notice(self.port)
        assert notice is not None
        assert notice.token is not None
        return notice.token

    def env(self, name: str, config: dict[str, Any] | None = None, **options: Any) -> RemoteEnvironment:
        """An environment that submits to it."""
        return RemoteEnvironment(name, config, **{"port": self.port, **options})

    def health(self) -> dict[str, Any]:
        """What `/health` says."""
        return self.get("/health")

    def get(self, path: str) -> dict[str, Any]:
        """What there is at a path, whatever the status."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc:
                found = json.load(exc)
        return found

    def room(self, size: int | None) -> None:
        """Let no file of the server's grow beyond `size` bytes; None for any size."""
        _, most = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (most if size is None else size, most))

    def memory(self) -> float:
        """The server's own, in MB."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("it has ended")

    def kill(self) -> None:
        """As `kill -9`."""
        self._process.kill()
        self._process.communicate()

    def end(self) -> None:
        """As one who ends it with Ctrl-C."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=LIMIT)
        finally:
            self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        hang_up()
        self.end()


def hang_up() -> None:
    """Close this process's connections to all servers."""
    for connection in list(client._connections.values()):
        client.call(connection.close)


def family(pid: int) -> set[int]:
    """The processes that a process started, and those that these did."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            own = set(map(int, task.read_text().split()))
        except OSError:
            continue
        found |= own
        for one in own:
            found |= family(one)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(*pids: int) -> None:
    """Wait until all these processes have ended."""
    until(lambda: not any(map(alive, pids)))
