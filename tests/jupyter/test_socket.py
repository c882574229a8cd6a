"""The socket that kernels dial: nobody else's, and not to be disturbed by nonsense."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import stat
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from sage_nb_jupyter.hub import Hub
from sage_nb_jupyter.kernels import VARIABLE, KernelSocket
from tests.jupyter.support import JupyterServer, Page, ServerKernel, until

SNAPSHOT = {"uuid": "20000000-0000-4000-8000-000000000000", "name": "foreign", "status": "running"}
HELLO = {"op": "hello", "kernel": None, "path": None, "pid": 1}


def dial(jupyter: JupyterServer) -> socket.socket:
    (path,) = jupyter.sockets
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(path))
    return connection


def say(connection: socket.socket, *messages: dict[str, Any]) -> None:
    connection.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))


def test_only_the_user_can_dial_it(jupyter: JupyterServer) -> None:
    (path,) = jupyter.sockets
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


NONSENSE = [
    b"nonsense\n", b"\n", b"[]\n", b"{}\n", b'{"op": "hello"}\n', b'{"op": "snapshot"', b"\xff\xfe\n",
    b"[" * 100_000 + b"\n", b'{"op": "gone", "job": "x"}\n',
]  # fmt: skip


@pytest.mark.parametrize("greeted", [False, True], ids=["stranger", "greeted"])
@pytest.mark.parametrize("data", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_ends_its_connection_alone(jupyter: JupyterServer, page: Page, data: bytes, greeted: bool) -> None:
    with dial(jupyter) as good, dial(jupyter) as bad:
        say(good, HELLO, {"op": "snapshot", "cell": None, "snapshot": SNAPSHOT})
        page.row("foreign", lambda row: row["status"] == "running")
        if greeted:
            say(bad, HELLO)
        if greeted and b"gone" in data:
            return  # that makes sense then
        bad.sendall(data)
        bad.shutdown(socket.SHUT_WR)
        assert bad.recv(100) == b""
        say(good, {"op": "snapshot", "cell": None, "snapshot": {**SNAPSHOT, "status": "paused"}})
        page.row("foreign", lambda row: row["status"] == "paused")
    page.row("foreign", lambda row: row["status"] == "stopped")  # as nobody tells of it any more


def test_a_line_without_end_is_not_kept(jupyter: JupyterServer) -> None:
    with dial(jupyter) as endless:
        say(endless, HELLO)
        with pytest.raises(ConnectionError):
            endless.sendall(b"x" * 100_000_000)
    most = re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{jupyter.process.pid}/status").read_text())
    assert int(most[0]) < 400_000
    assert jupyter.get("jobs")


def test_what_speaks_for_no_job_of_its_own_changes_nothing(jupyter: JupyterServer, page: Page) -> None:
    with dial(jupyter) as good, dial(jupyter) as bad:
        say(good, HELLO, {"op": "snapshot", "cell": None, "snapshot": SNAPSHOT})
        page.row("foreign", lambda row: row["status"] == "running")
        say(bad, {**HELLO, "pid": 2}, {"op": "gone", "job": SNAPSHOT["uuid"]}, {"op": "logs", "job": "x", "lines": []})
        bad.shutdown(socket.SHUT_WR)
        assert bad.recv(100) == b""
        assert jupyter.rows()["foreign"]["status"] == "running"


def test_an_earlier_process_of_the_same_kernel_is_gone(
    jupyter: JupyterServer, notebook: ServerKernel, page: Page
) -> None:
    """Its connection may have been inherited by something that lives on."""
    with dial(jupyter) as first, dial(jupyter) as second:
        say(first, {**HELLO, "kernel": notebook.id, "pid": 1}, {"op": "snapshot", "snapshot": SNAPSHOT})
        page.row("foreign", lambda row: row["status"] == "running")
        say(second, {**HELLO, "kernel": notebook.id, "pid": 2})
        page.row("foreign", lambda row: row["status"] == "stopped")
        say(first, {"op": "snapshot", "snapshot": {**SNAPSHOT, "status": "paused"}})
        say(second, {"op": "snapshot", "snapshot": {**SNAPSHOT, "uuid": SNAPSHOT["uuid"][:-1] + "1", "name": "second"}})
        page.row("second", lambda row: row["status"] == "running")
        assert jupyter.rows()["foreign"]["status"] == "stopped"


def test_a_job_of_another_server_is_known_as_long_as_one_kernel_has_it(jupyter: JupyterServer, page: Page) -> None:
    remote = {**SNAPSHOT, "name": "remote", "uuid": SNAPSHOT["uuid"][:-1] + "2", "server": "elsewhere:1"}
    with dial(jupyter) as first, dial(jupyter) as second, second.makefile() as heard:
        say(first, HELLO, {"op": "snapshot", "snapshot": remote})
        page.row("remote", lambda row: row["status"] == "running")
        say(second, {**HELLO, "pid": 2}, {"op": "snapshot", "snapshot": {**remote, "items": 1}})
        page.row("remote", lambda row: row["items"] == 1)
        say(first, {"op": "gone", "job": remote["uuid"]})
        assert json.loads(heard.readline()) == {"op": "pace", "job": remote["uuid"], "interval": 1.0}
        assert jupyter.post(f"jobs/{remote['uuid']}/stop").status == 202
        assert json.loads(heard.readline()) == {"op": "stop", "job": remote["uuid"]}
        say(second, {"op": "snapshot", "snapshot": {**remote, "status": "stopping"}})
        page.row("remote", lambda row: row["status"] == "stopping")
        say(second, {"op": "gone", "job": remote["uuid"]})
        page.wait(lambda message: "rows" in message and "remote" not in {row["name"] for row in message["rows"]})


def test_nothing_is_left_of_a_server_that_ends(tmp_path: Path) -> None:
    """No file, no process, and no thread of a JobManager server that nobody asked for."""
    server = JupyterServer(tmp_path / "own")
    (path,) = server.sockets
    assert not list(server.runtime.glob("sage_nb-jobmanager-*"))
    threads = os.listdir(f"/proc/{server.process.pid}/task")
    assert len(threads) <= 1 + threading.active_count() + 8
    kernel = server.kernel()
    variable = kernel.run("import os; print(os.environ['SAGE_NB_JUPYTER'])").strip()
    assert variable == str(path)
    kernel.shutdown()
    server.stop()
    assert not path.exists()
    until(lambda: server.process.poll() is not None)


def test_the_socket_of_a_server_that_was_killed_is_removed_by_the_next(jupyter: JupyterServer) -> None:
    """And no other: one that is listened to, one that is new, and one of another machine."""
    (alive,) = jupyter.sockets
    machine = alive.name[:4]
    names = (f"{machine}dead.sock", f"{machine}late.sock", "elsewhere.sock")
    dead, new, other = (alive.with_name(name) for name in names)
    for path in (dead, new, other):
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
    for path in (dead, other, alive):
        os.utime(path, (1, 1))
    own = KernelSocket(cast(Hub, None), str(jupyter.runtime), logging.getLogger(__name__))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "")
        own.bind()
        assert own.path in jupyter.sockets
        own.close()
    assert set(jupyter.sockets) == {alive, new, other}
    new.unlink()
    other.unlink()
