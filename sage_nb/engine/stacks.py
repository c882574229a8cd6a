"""Where other threads are at this moment.

Python looks at the stack of a thread that runs by making an object of each frame. Before 3.12 that may start a garbage
collection, and what this frees may let other threads run: the thread that is looked at leaves its frame, of which an
object is just being made, and the process crashes; or another thread begins or ends, for which it needs a lock that is
held meanwhile, and the process hangs. So nothing is collected while one looks.
"""

from __future__ import annotations

import gc
import sys
import threading

__all__ = ["stack_of"]

_ONE_AT_A_TIME = threading.Lock()


def stack_of(ident: int) -> list[tuple[str, str, int]]:
    """Of each frame of the thread, from the innermost on: its file, the name of its code, its line. Empty where the
    thread has ended."""
    found: list[tuple[str, str, int]] = []
    with _ONE_AT_A_TIME:  # who is done first would have collected while the other looks
        collects = gc.isenabled()
        try:
            gc.disable()
            frame = sys._current_frames().get(ident)
            while frame is not None:
                found.append((frame.f_code.co_filename, frame.f_code.co_name, frame.f_lineno))
                frame = frame.f_back
        finally:
            if collects:
                gc.enable()
    return found
