"""A worker process, from the side that starts it: how it is started, and how its end is told.

It is a new interpreter in a session of its own, which enters by `childmain`: no fork, and the user's `__main__` is not
run again. Messages go over two pipes. What is printed in it, by Python or C, comes over a third.
"""

from __future__ import annotations

import codecs
import marshal
import os
import re
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection

from sage_nb.engine.buffers import Buffer
from sage_nb.engine.childmain import ERR, GRACE, OUT
from sage_nb.engine.frames import Connection, ConnectionClosed, Frame
from sage_nb.errors import WorkerError

__all__ = ["Child", "start"]

_TAIL = 4096
_MARKS = re.compile(b"([" + ERR + OUT + b"])")
_BOOT = "import sys; sys.path[:] = {path!r}; from sage_nb.engine.childmain import main; main({reading}, {writing})"


def start(
    entry: str,
    *,
    name: str = "worker",
    on_output: Callable[[str, str], None] | None = None,
    hidden: Collection[str] = (),
) -> Child:
    """Start a worker process that calls `entry`, `"module:function"`, with a `ChildConnection`.

    It has the folder and `sys.path` of this process, and its environment, but for the variables `hidden`. `on_output`
    gets what it prints, in order, and whether to `stdout` or `stderr`, as it comes, on a thread of its own; what goes
    past Python counts as `stdout`. Without `on_output`, all goes to this process's `sys.stderr`.
    """
    inward, their_out = os.pipe()
    their_in, outward = os.pipe()
    output, their_output = os.pipe()
    boot = _BOOT.format(path=[*map(os.fspath, sys.path)], reading=their_in, writing=their_out)
    try:
        process = subprocess.Popen(
            [sys.executable, *_flags(), "-c", boot],
            stdin=subprocess.DEVNULL,
            stdout=their_output,
            stderr=their_output,
            pass_fds=(their_in, their_out),
            start_new_session=True,
            env={key: value for key, value in os.environ.items() if key not in hidden},
        )
    except BaseException:
        for fd in (inward, outward, output):
            os.close(fd)
        raise
    finally:
        for fd in (their_in, their_out, their_output):
            os.close(fd)
    child = Child(process, Connection(inward, outward), output, name, on_output or _to_stderr)
    try:
        child.send(0, marshal.dumps((entry, [*map(str, sys.argv)])))
    except BaseException:
        child.close(0)
        raise
    return child


def _flags() -> list[str]:
    """What changes the meaning of code, as this process has it."""
    found = ["-O"] * sys.flags.optimize
    if sys.flags.utf8_mode:
        found += ["-X", "utf8"]
    return found


def _to_stderr(text: str, _stream: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)


class Child:
    """A worker process, seen from the one that started it.

    Once it has ended, `send` and `receive` raise `WorkerError`, which says how it ended, and what it printed last.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], connection: Connection, output: int, name: str,
        on_output: Callable[[str, str], None],
    ) -> None:  # fmt: skip
        self.name = name
        self.pid = process.pid
        self._process = process
        self._connection = connection
        self._output = output
        self._on_output = on_output
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decode = {name: decoder("replace").decode for name in ("stdout", "stderr")}
        self._stream = "stdout"
        self._tail = ""
        self._pidfd = _open_pidfd(process.pid)
        self._printing = threading.Thread(target=self._read_output, name=f"sage_nb {name} output", daemon=True)
        self._printing.start()

    def __repr__(self) -> str:
        return f"<Child {self.name!r} {self.pid}: {self.ending() or 'running'}>"

    def send(self, kind: int, *buffers: Buffer) -> None:
        """Send a message; waits while the pipe is full. Any thread may."""
        try:
            self._connection.send(kind, *buffers)
        except BrokenPipeError:
            raise self._gone() from None

    def receive(self) -> Frame:
        """The next message: its kind, and its buffers. Waits for it. One thread at a time may."""
        try:
            return self._connection.receive()
        except ConnectionClosed:
            raise self._gone() from None

    def is_there(self) -> bool:
        """True: it is started with the object. An actor may have to wait."""
        return True

    def ending(self) -> str | None:
        """How it ended, such as `was killed by signal 9 (SIGKILL)` or `ended with exit code 3`; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        if code >= 0:
            return f"ended with exit code {code}"
        try:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"was killed by signal {-code}"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for its end; whether it came within `timeout` seconds."""
        if self._pidfd is not None and self._process.returncode is None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            ended = poll.poll(None if timeout is None else timeout * 1000)
            timeout = None if ended else 0  # another thread may be asking just now, and `poll()` knows nothing then
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close_sending(self) -> None:
        """Tell it that no more will come: it ends, within about a second."""
        self._connection.close_sending()

    def close(self, timeout: float = 2 * GRACE) -> str:
        """End it, by force after `timeout` seconds, and free all that it took here. How it ended.

        Not while another thread receives: its `receive` ends with the process.
        """
        self.close_sending()
        if not self.wait(timeout):
            self.kill()
            self.wait()
        self._printing.join()
        self._connection.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
        return self.ending() or ""

    def _gone(self) -> WorkerError:
        if not self.wait(GRACE):
            return WorkerError(f"{self.name} (process {self.pid}) has closed its connection, and still runs")
        self._printing.join(GRACE)
        error = WorkerError(f"{self.name} (process {self.pid}) {self.ending()}")
        if said := self._tail.strip():
            error.add_note(f"the last that it printed:\n{said}")
        return error

    def _read_output(self) -> None:
        """Until the process has ended: what it started may go on, and hold the pipe open."""
        either, output = select.poll(), select.poll()
        for poll, fd in ((either, self._output), (output, self._output), (either, self._pidfd)):
            if fd is not None:
                poll.register(fd, select.POLLIN)
        while either.poll() and output.poll(0):
            data = os.read(self._output, 1 << 16)
            if not data:
                break
            for part in _MARKS.split(data.replace(OUT + ERR, b"")):
                if part in (ERR, OUT):
                    self._stream = "stderr" if part == ERR else "stdout"
                elif part:
                    self._take(self._decode[self._stream](part), self._stream)
        os.close(self._output)

    def _take(self, text: str, stream: str) -> None:
        self._tail = (self._tail + text)[-_TAIL:]
        try:
            self._on_output(text, stream)
        except Exception:  # noqa: BLE001 - it is told, and the worker must not block on a full pipe
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _open_pidfd(pid: int) -> int | None:
    """A file that is ready when the process has ended; None where the system has no such thing."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None
