"""A small process that ends what is left of other processes when the one that started them is killed.

It is told of them by lines of its standard input: id and start time. When the input ends without a last word, it waits
for as long as they may take to end by themselves, and ends them then. Those whose code holds the interpreter cannot do
that: no other thread of theirs runs. Then it removes the folders that it was told of, by lines with their names. Run as
a file, with nothing but the standard library.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

__all__ = ["Reaper"]

_AT_ONCE = b"now"
_MANY = 1000  # processes that are known; before there are more, those that have ended are forgotten


def _started(pid: int) -> str | None:
    """When a process was started, in the system's ticks; None where it does not run."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return None


def _remember(told: dict[int, str], pid: int, started: str) -> None:
    if len(told) >= _MANY:
        ended = [one for one, when in told.items() if _started(one) != when]
        for one in ended:
            del told[one]
    told[pid] = started


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found


class Reaper:
    """The process, from the side that starts it, once it is told of something. Where the system has no `/proc`, there
    is none.

    What is left `grace` seconds after a sudden end of this side is killed.
    """

    def __init__(self, grace: float = 0.0) -> None:
        self._grace = grace
        self._told: dict[int, str] = {}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._over = not os.path.isdir("/proc/self/task")

    def look_at(self, pids: list[int]) -> None:
        """Tell it of these processes."""
        for pid in pids:
            started = _started(pid)
            with self._lock:
                known = self._told.get(pid)
                if started is None or known == started:
                    continue
                _remember(self._told, pid, started)
            self._say(f"{pid} {started}")

    def remove(self, folder: str) -> None:
        """Have it remove that folder as well, after a sudden end of this side."""
        if os.path.isabs(folder) and "\n" not in folder:
            self._say(folder)

    def _say(self, line: str) -> None:
        with self._lock:
            if self._over:
                return
            if self._process is None:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", __file__, str(self._grace)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            assert self._process.stdin is not None
            with suppress(OSError):
                self._process.stdin.write(os.fsencode(f"{line}\n"))
                self._process.stdin.flush()

    def look_at_families(self, parents: list[int]) -> None:
        """Tell it of these processes, and of those that they have started."""
        self.look_at([*parents, *(child for parent in parents for child in _children(parent))])

    def end(self) -> None:
        """Have it end what is left, and itself."""
        with self._lock:
            self._over, process, self._process = True, self._process, None
        if process is not None:
            with suppress(OSError):
                process.communicate(_AT_ONCE)


def _await_ends(told: dict[int, str], seconds: float) -> None:
    """Until all have ended, or the time is over."""
    deadline, poll, left = time.monotonic() + seconds, select.poll(), set()
    for pid, started in told.items():
        with suppress(OSError):
            left.add(fd := os.pidfd_open(pid))
            if _started(pid) == started:
                poll.register(fd, select.POLLIN)
            else:
                left.discard(fd)
    while left and (now := time.monotonic()) < deadline:
        for fd, _ in poll.poll((deadline - now) * 1000):
            poll.unregister(fd)
            left.discard(fd)


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told: dict[int, str] = {}
    folders: list[str] = []
    suddenly = True
    for line in sys.stdin.buffer:
        if line == _AT_ONCE:
            suddenly = False
        elif line.startswith(b"/"):
            folders.append(os.fsdecode(line.rstrip(b"\n")))
        else:
            pid, started = line.decode().split()
            _remember(told, int(pid), started)
    if suddenly:
        _await_ends(told, float(sys.argv[1]))
    for one, when in told.items():
        if _started(one) == when:
            with suppress(OSError):
                (os.killpg if os.getpgid(one) == one else os.kill)(one, signal.SIGKILL)
    for folder in folders if suddenly else ():
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main()
