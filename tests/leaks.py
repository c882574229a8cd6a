"""What a test left behind: threads and open files."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import traceback
from pathlib import Path

__all__ = ["Leaks"]

FILES = Path("/proc/self/fd")
# Opened once by libraries for the life of the process.
HARMLESS = ("/dev/urandom", "/dev/null", "/proc/", "/sys/")


class Leaks:
    """Remembers which threads and open files there are; `check` tells what came after that and stayed."""

    def __init__(self) -> None:
        self._threads = set(threading.enumerate())
        self._files = open_files()

    def check(self, grace: float = 2.0) -> None:
        """Fail with the names and the stacks of new threads, and with new open files, that outlive `grace` seconds."""
        __tracebackhide__ = True  # the message says it all
        deadline = time.monotonic() + grace
        for thread in self._new_threads():
            thread.join(max(0.0, deadline - time.monotonic()))
        threads = self._new_threads()
        if threads:
            raise AssertionError("threads left alive:\n" + "\n".join(map(describe, threads)))
        if self._new_files():
            gc.collect()  # a file in a reference cycle is nobody's any more, but still open
        while files := self._new_files():
            # Somebody else (a child at its end) may have to let go first, and nothing tells when that is.
            if time.monotonic() > deadline:
                raise AssertionError("files left open:\n" + "\n".join(f"  {fd}: {name}" for fd, name in files.items()))
            time.sleep(0.01)

    def _new_threads(self) -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in self._threads]

    def _new_files(self) -> dict[int, str]:
        return {
            fd: name
            for fd, name in open_files().items()
            if self._files.get(fd) != name and not name.startswith(HARMLESS)
        }


def open_files() -> dict[int, str]:
    """The process's open files by number; none where the system does not tell."""
    files: dict[int, str] = {}
    if not FILES.is_dir():
        return files
    for fd in os.listdir(FILES):
        try:
            files[int(fd)] = os.readlink(FILES / fd)
        except FileNotFoundError:  # the listing's own
            continue
    return files


def describe(thread: threading.Thread) -> str:
    """The thread's name and where it is at this moment."""
    frame = sys._current_frames().get(thread.ident or 0)
    stack = "".join(traceback.format_stack(frame)) if frame else "    (ended meanwhile)\n"
    return f"  {thread.name}{' (daemon)' if thread.daemon else ''}\n{stack}"
