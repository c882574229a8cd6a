"""What runs in an actor's process: the same task as in a worker process, whose messages go by calls of the actor.

Ray runs `send` and `receive` on threads of their own, each one call at a time and in order, so that one waits for
what the task says while the other brings what the kernel says.
"""

from __future__ import annotations

import codecs
import importlib
import os
import pickle
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

import ray

from sage_nb.engine.buffers import Buffer, size_of
from sage_nb.engine.frames import ConnectionClosed, Frame
from sage_nb.engine.rebuild import StandIn
from sage_nb.engine.wire import Say, pack

__all__ = ["ActorConnection", "HostActor", "Parcel", "apart", "packed", "unpacked"]

Parcel = list[tuple[int, list[Any]]]
"""Several messages, as they travel."""

_AT_ONCE = 8 << 20
"""Bytes that one call brings, unless one message has more."""
_APART = 1 << 16
"""Bytes from which on a buffer is not copied into the stream that Ray makes of a parcel."""
_OUTPUT_WITHIN = 1.0
_KEPT: list[Any] = []


def packed(frames: deque[tuple[int, list[Buffer]]]) -> Parcel:
    """The first messages of `frames`, as many as should travel at once; they are taken from it."""
    parcel: Parcel = []
    size = 0
    while frames and (not parcel or size < _AT_ONCE):
        kind, buffers = frames.popleft()
        size += sum(map(size_of, buffers))
        parcel.append((kind, [apart(one) for one in buffers]))
    return parcel


def apart(buffer: Buffer) -> bytes | pickle.PickleBuffer:
    """A buffer as Ray's pickler should have it: small ones go into its stream, large ones beside it."""
    return pickle.PickleBuffer(buffer) if size_of(buffer) >= _APART else bytes(buffer)


def unpacked(parcel: Parcel) -> list[Frame]:
    """The messages, with memory of their own: an array in them can be written to."""
    return [(kind, [bytearray(one) for one in buffers]) for kind, buffers in parcel]


class ActorConnection:
    """Stands for a worker's pipe. Any thread may send; one at a time may receive."""

    def __init__(self) -> None:
        self._inward: deque[Frame] = deque()
        self._outward: deque[tuple[int, list[Buffer]]] = deque()
        self._waiting = 0
        self._arrived = threading.Condition()
        self._leaving = threading.Condition()
        self._over = False

    def on_end(self, hook: Callable[[], object]) -> None:
        """The kernel's end ends this process at once: there is nothing to do before."""

    # The task's side

    def send(self, kind: int, *buffers: Buffer) -> None:
        """Send a message; waits while many bytes wait to leave."""
        size = sum(map(size_of, buffers))
        with self._leaving:
            while self._waiting > _AT_ONCE:
                self._leaving.wait()
            self._waiting += size
            self._outward.append((kind, list(buffers)))
            self._leaving.notify_all()

    def receive(self) -> Frame:
        """The next message; waits for it."""
        with self._arrived:
            while not self._inward:
                if self._over:
                    raise ConnectionClosed("the task is over")
                self._arrived.wait()
            return self._inward.popleft()

    def finish(self) -> None:
        """Nothing more will be said."""
        with self._leaving, self._arrived:
            self._over = True
            self._leaving.notify_all()
            self._arrived.notify_all()

    # The actor's side

    def take(self, frames: list[Frame]) -> None:
        with self._arrived:
            self._inward.extend(frames)
            self._arrived.notify_all()

    def give(self) -> Parcel:
        """What has been said, as soon as there is something; nothing once all has been."""
        with self._leaving:
            while not self._outward and not self._over:
                self._leaving.wait()
            parcel = packed(self._outward)
            self._waiting = sum(size_of(one) for _, buffers in self._outward for one in buffers)
            self._leaving.notify_all()
            return parcel


class HostActor:
    """Runs one task. `place` says what its process is to have in common with the kernel."""

    def __init__(self, entry: str, place: dict[str, Any]) -> None:
        module, _, function = entry.partition(":")
        self._start_in(place, getattr(importlib.import_module(module), function))

    def _start_in(self, place: dict[str, Any], run: Callable[[Any], None]) -> None:
        self._connection = ActorConnection()
        _settle_in(place)
        self._output = _Output(self._connection)
        threading.Thread(target=self._run, args=(run,), name="sage_nb task", daemon=True).start()

    def _run(self, run: Callable[[Any], None]) -> None:
        try:
            run(self._connection)
        except ConnectionClosed:
            return
        except BaseException:  # noqa: BLE001 - it is told, and the kernel hears of the end
            traceback.print_exc()
        finally:
            self._output.end()
            self._connection.finish()

    def pid(self) -> int:
        """Of its process; once it answers, the actor is there."""
        return os.getpid()

    @ray.method(concurrency_group="in")
    def send(self, parcel: Parcel) -> None:
        """Take messages from the kernel."""
        self._connection.take(unpacked(parcel))

    @ray.method(concurrency_group="out")
    def receive(self) -> Parcel:
        """Give messages to the kernel; waits for one. An empty parcel says that nothing more will come."""
        return self._connection.give()


def _settle_in(place: dict[str, Any]) -> None:
    if os.path.isdir(place["cwd"]):
        os.chdir(place["cwd"])
    os.environ.update(place["environ"])
    sys.argv[:] = place["argv"]
    known = set(sys.path)
    sys.path.extend(path for path in place["path"] if path not in known)
    _KEPT.append(sys.modules["__main__"])
    sys.modules["__main__"] = StandIn("__main__")


class _Output:
    """Lets what is printed, by Python or C, go to the kernel: to the job it belongs to, instead of Ray's files."""

    def __init__(self, connection: ActorConnection) -> None:
        self._connection = connection
        self._reading, writing = os.pipe()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self._before = [os.dup(fd) for fd in (1, 2)]
        for fd in (1, 2):
            os.dup2(writing, fd)
        os.close(writing)
        sys.stdout, sys.stderr = map(_text, (1, 2))
        self._thread = threading.Thread(target=self._forward, name="sage_nb output", daemon=True)
        self._thread.start()

    def _forward(self) -> None:
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        while data := os.read(self._reading, 1 << 16):
            self._connection.send(Say.OUTPUT, pack(decode(data)))

    def end(self) -> None:
        """Have all that was printed sent; what the user's code has started may hold the pipe open."""
        for stream, fd, before in zip((sys.stdout, sys.stderr), (1, 2), self._before, strict=True):
            stream.flush()
            os.dup2(before, fd)
        self._thread.join(_OUTPUT_WITHIN)


def _text(fd: int) -> TextIO:
    return open(fd, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)
