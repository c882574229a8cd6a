"""A small process that ends what a private Ray leaves behind when the process that started it is killed.

Ray's own processes end then, but two of each node wait a minute for one that is gone already. They are told to this
process, by lines of its standard input: id and start time. When the input ends, however that came, it ends them. Run
as a file, with nothing but the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

__all__ = ["Reaper"]


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
    """The process, from the side that starts it. Where the system has no `/proc`, there is none."""

    def __init__(self) -> None:
        self._told: dict[int, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        if os.path.isdir("/proc/self/task"):
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def look_at(self, parents: list[int]) -> None:
        """Tell it of these processes, and of those that they have started."""
        process = self._process
        if process is None or process.stdin is None:
            return
        for pid in [*parents, *(child for parent in parents for child in _children(parent))]:
            if pid not in self._told and (started := _started(pid)) is not None:
                self._told[pid] = started
                with suppress(OSError):
                    process.stdin.write(f"{pid} {started}\n".encode())
                    process.stdin.flush()

    def end(self) -> None:
        """Have it end what is left, and itself."""
        if self._process is not None:
            self._process.communicate()


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    known = [line.decode().split() for line in sys.stdin.buffer]
    for pid, started in known:
        if _started(int(pid)) == started:
            with suppress(OSError):
                os.kill(int(pid), signal.SIGKILL)


if __name__ == "__main__":
    _main()
