"""Turns at the interpreter, for loops that never wait.

Python hands the interpreter on after 5 ms, to anybody who waits for it. Thirty loops that never wait keep a cell that
adds two numbers, a Stop or a message to the page waiting for a round of all thirty, again and again. So while there
are more than a few loops, a *conductor*, a thread that looks every 10 ms, lets only some of them run at a time: one
that has used 10 ms of processor time waits in a queue, in front of its next item, until its turn comes again.

Whoever waits by itself, for a source, a channel or a call, uses little and is hardly ever held. Loops that run side by
side, because their functions let the interpreter go, show in the processor time that they use together: then more of
them may run, as many as there are processors.

While the conductor is there the interpreter is also handed on after 1 ms. When there are few loops again, the interval
is what it was; one that somebody sets meanwhile counts as that. Where the system does not tell the time that a thread
has used, nobody is held.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Turn"]

_FEW = 4
_LEAST = 2
"""So many loops that never wait may always run."""
_LOOK = 0.01
_LOOK_IDLE = 0.1
_TURN = 0.01
"""Seconds of processor time."""
_WAITS, _PART = 0.02, 0.3
"""Who uses less than this part of the time between two looks waits for something; where many run, so much of what
would be its part."""
_INTERVAL = 0.001

_lock = threading.RLock()  # what abandons a task is raised in its thread, wherever that is
_conductor: _Conductor | None = None
_turns: set[Turn] = set()


class Turn:
    """One loop's part, made on its thread. `signal` makes the loop call `take()` soon.

    The loop calls `join()`, `take()` and `leave()`; any thread may call the rest. What abandons a task is raised in its
    thread, wherever that is: so what this thread does here can be done twice, or half, and an event is waited for only
    where it is not set, as that takes a lock.
    """

    __slots__ = ("_clock", "_may_run", "_seen", "held", "is_free", "signal", "spent")

    def __init__(self, signal: Callable[[], None]) -> None:
        self.signal = signal
        self.is_free = False
        self.held = False
        """Whether it has been held, and has used the interpreter at every look since."""
        self.spent = 0.0
        self._clock = _clock_of_this_thread()
        self._seen = self._now()
        self._may_run = threading.Event()
        self._may_run.set()

    def take(self) -> None:
        """Wait for the next turn, where it is not this loop's."""
        if not self._may_run.is_set():
            self._may_run.wait()

    @property
    def waits(self) -> bool:
        """Whether it is another one's turn."""
        return not self._may_run.is_set()

    def free(self) -> None:
        """Never hold it again: it is to end."""
        self.is_free = True
        self._may_run.set()

    def join(self) -> None:
        """The loop runs from now on."""
        with _lock:
            _turns.add(self)
            _settle()

    def leave(self) -> None:
        """The loop has ended."""
        if (ending := self.give_up()) is not None:
            ending.join()

    def give_up(self) -> threading.Thread | None:
        """The loop does not count any more, whether or not it ends. The thread of a conductor that ends by that."""
        self.free()
        with _lock:
            _turns.discard(self)
            return _settle()

    def hold(self) -> None:
        self.held = True
        self._may_run.clear()
        if self.is_free:  # since a moment ago
            self._may_run.set()
        self.signal()

    def let_run(self) -> None:
        self._may_run.set()

    def used(self) -> float:
        """Seconds of processor time since the last call."""
        now = self._now()
        used, self._seen = now - self._seen, now
        return used

    def _now(self) -> float:
        try:
            return 0.0 if self._clock is None else time.clock_gettime(self._clock)
        except OSError:  # its thread has ended
            return self._seen


def _settle() -> threading.Thread | None:
    """Have a conductor where there are many loops, and none where there are few. The thread of one that ends."""
    global _conductor
    if len(_turns) > _FEW and _conductor is None:
        begun = _Conductor()
        with suppress(RuntimeError):  # where no thread can be started, the loops run as they can
            begun.begin()
            _conductor = begun
    elif len(_turns) <= _FEW and _conductor is not None:
        ended, _conductor = _conductor, None
        ended.end()
        return ended.thread
    return None


class _Conductor:
    def __init__(self) -> None:
        self.thread = threading.Thread(target=self._conduct, name="sage_nb turns", daemon=True)
        self._over = threading.Event()
        self._queue: deque[Turn] = deque()
        self._side_by_side = _LEAST
        self._most = max(_LEAST, _processors())
        self._looked = time.monotonic()
        self._before = self._set = sys.getswitchinterval()

    def begin(self) -> None:
        """Raises `RuntimeError` where no thread can be started."""
        self.thread.start()
        sys.setswitchinterval(min(_INTERVAL, self._before))
        self._set = sys.getswitchinterval()

    def end(self) -> None:
        """Let all run. Called with the lock."""
        self._over.set()
        for turn in self._queue:
            turn.let_run()
        if sys.getswitchinterval() == self._set:  # else somebody has set it
            sys.setswitchinterval(self._before)

    def _conduct(self) -> None:
        pause = _LOOK
        while not self._over.wait(pause):
            with _lock:
                if self._over.is_set():
                    return
                pause = self._look()

    def _look(self) -> float:
        """Hold who has had its turn, and let run whose turn it is. Seconds until the next look."""
        now = time.monotonic()
        elapsed, self._looked = now - self._looked, now
        total = 0.0
        running = 0
        self._queue = deque(turn for turn in self._queue if turn in _turns and not turn.is_free)
        waiting = set(self._queue)
        little = min(_WAITS, _PART / max(1, len(_turns) - len(waiting))) * elapsed
        for turn in _turns:
            used = turn.used()
            total += used
            if turn in waiting or turn.is_free:
                continue
            if used < little:
                turn.held, turn.spent = False, 0.0
            turn.spent += used
            if turn.spent >= _TURN:
                turn.spent = 0.0
                turn.hold()
                self._queue.append(turn)
            elif turn.held:
                running += 1
        self._allow(total / elapsed)
        for _ in range(min(len(self._queue), self._side_by_side - running)):
            self._queue.popleft().let_run()
        return _LOOK if self._queue or total > _WAITS * elapsed else _LOOK_IDLE

    def _allow(self, processors: float) -> None:
        """Find how many may run side by side, from how many processors all loops have kept busy."""
        each = processors / self._side_by_side
        if each > 0.8 and self._side_by_side < self._most:
            self._side_by_side += 1
        elif each < 0.6 and self._side_by_side > _LEAST:
            self._side_by_side -= 1


def _processors() -> int:
    """How many this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return (os.cpu_count() or 1) if affinity is None else len(affinity(0))


def _clock_of_this_thread() -> int | None:
    clock_of = getattr(time, "pthread_getcpuclockid", None)
    return None if clock_of is None else clock_of(threading.get_ident())
