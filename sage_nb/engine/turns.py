"""How long one loop of ours may keep the interpreter while others want it.

Python hands the interpreter on after 5 ms. Thirty loops that never wait keep whoever comes from elsewhere waiting for
thirty times that, again and again: a cell that adds two numbers takes seconds, and so does a Stop. So while many loops
run, each gets a shorter turn, such that one round of all takes about as long as that of a few. When they have ended,
the interval is what it was; one that somebody sets meanwhile counts as that.
"""

from __future__ import annotations

import sys
import threading

__all__ = ["join", "leave"]

_FEW = 4
_SHORTEST = 0.0002
_lock = threading.RLock()  # what abandons a task is raised in its thread, wherever that is
_loops: set[object] = set()
_before: float | None = None
_ours: float | None = None


def join(loop: object) -> None:
    """`loop` runs from now on; a second time changes nothing."""
    with _lock:
        _loops.add(loop)
        _share()


def leave(loop: object) -> None:
    """`loop` has ended; a second time changes nothing."""
    with _lock:
        _loops.discard(loop)
        _share()


def _share() -> None:
    global _before, _ours
    now = sys.getswitchinterval()
    if _ours is not None and abs(now - _ours) > 1e-6:
        _before = _ours = None  # it is somebody else's
    if len(_loops) > _FEW:
        _before = now if _before is None else _before
        sys.setswitchinterval(max(min(_SHORTEST, _before), _before * _FEW / len(_loops)))
        _ours = sys.getswitchinterval()
    elif _before is not None:
        sys.setswitchinterval(_before)
        _before = _ours = None
