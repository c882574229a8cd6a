"""A small process that ends what is left of other processes when the one that started them is killed.

It is told of them by lines of its standard input: id and start time. When the input ends without a last word, it waits
for as long as they may take to end by themselves, and ends them then. Those whose code holds the interpreter cannot do
that: no other thread of theirs runs. Run as a file, with nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

__all__ = ["Reaper"]

_AT_ONCE = b"now"


def _started(pid: int) -> str | None:
    """When a process was started, in the system's ticks; None where it does not run."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return None


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
                found += map(int, file.read().split())
    return found


class Reaper:
    """The process, from the side that starts it. Where the system has no `/proc`, there is none.

    What is left `grace` seconds after a sudden end of this side is killed.
    """

    def __init__(self, grace: float = 0.0) -> None:
        self._told: dict[int, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        if os.path.isdir("/proc/self/task"):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(grace)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def look_at(self, pids: list[int]) -> None:
        """Tell it of these processes."""
        process = self._process
        if process is None or process.stdin is None:
            return
        for pid in pids:
            started = _started(pid)
            if started is not None and self._told.get(pid) != started:
                self._told[pid] = started
                with suppress(OSError):
                    process.stdin.write(f"{pid} {started}\n".encode())
                    process.stdin.flush()

    def look_at_families(self, parents: list[int]) -> None:
        """Tell it of these processes, and of those that they have started."""
        self.look_at([*parents, *(child for parent in parents for child in _children(parent))])

    def end(self) -> None:
        """Have it end what is left, and itself."""
        if self._process is not None:
            with suppress(OSError):
                self._process.communicate(_AT_ONCE)


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    lines = sys.stdin.buffer.read().splitlines()
    if lines[-1:] == [_AT_ONCE]:
        lines.pop()
    else:
        time.sleep(float(sys.argv[1]))
    for pid, started in (line.decode().split() for line in lines):
        if _started(int(pid)) == started:
            with suppress(OSError):
                leads = os.getpgid(int(pid)) == int(pid)
                (os.killpg if leads else os.kill)(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    _main()
