"""Calling functions in a real worker process: both sides. Also what workers of other tests do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sage_nb.engine import child, shipping
from sage_nb.engine.childmain import ChildConnection
from sage_nb.engine.travelled import dumps_exception, loads_exception

__all__ = ["Worker", "run_main"]

ROOT = Path(__file__).parents[2]
CALL, RETURNED, RAISED = 1, 2, 3


class Worker:
    """A worker process: `worker(function, *args)` calls the function there."""

    def __init__(self) -> None:
        self.child = child.start("tests.engine.workers:serve")
        self.known: shipping.Known = {}

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        self.child.send(CALL, *shipping.dumps((function, args), known=self.known))
        kind, buffers = self.child.receive()
        if kind == RAISED:
            raise loads_exception(buffers)
        return shipping.loads_items(buffers)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.close()


def serve(connection: ChildConnection) -> None:
    """The other side of `Worker`."""
    while True:
        _, buffers = connection.receive()
        try:
            function, args = shipping.loads(buffers)
            answer = RETURNED, shipping.dumps_items(function(*args), shipping.RECEIVED)
        except Exception as exc:  # noqa: BLE001 - it goes back
            answer = RAISED, dumps_exception(exc, shipping.RECEIVED)
        connection.send(answer[0], *answer[1])


def run_main(folder: Path, code: str) -> None:
    """Run `code` as `__main__` of a process of its own; there `Worker` is there. It fails where the code does."""
    script = folder / "notebook.py"
    script.write_text(f"from tests.engine.workers import Worker\n{code}")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------- what workers do in tests


def echo(connection: ChildConnection) -> None:
    """Send everything back."""
    while True:
        kind, buffers = connection.receive()
        connection.send(kind, *buffers)


def sleep(connection: ChildConnection) -> None:
    """Say hello, and then nothing for long."""
    connection.send(0, str(os.getpid()).encode())
    time.sleep(600)


def sleep_with_hook(connection: ChildConnection) -> None:
    """As `sleep`, and leave a file behind at the end: the name comes as the first message."""
    name = bytes(connection.receive()[1][0]).decode()
    connection.on_end(lambda: Path(name).write_text("closed"))
    sleep(connection)


def leave_thread(connection: ChildConnection) -> None:
    """Return, but leave a thread that is no daemon."""
    threading.Thread(target=time.sleep, args=(600,)).start()


def exit_with_3(connection: ChildConnection) -> None:
    """End by itself."""
    raise SystemExit(3)


def fail(connection: ChildConnection) -> None:
    """Fail."""
    raise ValueError("wrong from the start")


def speak(connection: ChildConnection) -> None:
    """Print in several ways."""
    print("from Python: ä")
    os.write(1, b"from below\n")
    subprocess.run(["echo", "from a process"], check=True)
    print("to stderr", file=sys.stderr)
    connection.send(0, sys.stdin.read().encode())
    connection.receive()


def leave_process(connection: ChildConnection) -> None:
    """Start a process that goes on, by fork and by exec, and then die."""
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    subprocess.Popen(["sleep", "5"], close_fds=False)
    connection.receive()
    os.kill(os.getpid(), signal.SIGKILL)


def describe(connection: ChildConnection) -> None:
    """Tell of the process."""
    shown = [os.getcwd(), os.environ.get("SAGE_NB_TEST", ""), os.getsid(0) == os.getpid(), sys.path, sys.argv]
    connection.send(0, repr(shown).encode())
    connection.receive()
