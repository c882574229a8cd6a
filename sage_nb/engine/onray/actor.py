"""What runs in an actor's process: the same task as in a worker process, whose messages go by calls of the actor.

Ray runs `send` and `speak` on threads of their own. Each call of `send` brings what the kernel says; `speak` is called
once and yields what the task says, which takes half as long as a call for each. It is held once much of that has not
been heard in the kernel.
"""

from __future__ import annotations

import codecs
import importlib
import marshal
import os
import pickle
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TextIO

import ray

from sage_nb.engine.buffers import Buffer, size_of
from sage_nb.engine.frames import ConnectionClosed, Frame
from sage_nb.engine.rebuild import StandIn
from sage_nb.engine.wire import Say, pack, unpack

__all__ = ["ActorConnection", "HostActor", "Parcel", "apart", "packed", "unpacked"]

Parcel = bytes | list[tuple[int, list[Any]]]
"""Several messages, as they travel: as bytes, which Ray takes as they are, unless some are large."""

_AT_ONCE = 8 << 20
"""Bytes that one call brings, unless one message has more."""
_APART = 1 << 16
"""Bytes from which on a buffer is not copied into the stream that Ray makes of a parcel."""
_UNHEARD = 64, 2 * _AT_ONCE
"""So many parcels, or bytes in them, may be on their way to the kernel before the next one goes."""
_OUTPUT_WITHIN = 1.0
_KEPT: list[Any] = []


def packed(frames: deque[tuple[int, list[Buffer]]]) -> Parcel:
    """The first messages of `frames`, as many as should travel at once; they are taken from it."""
    parcel: list[tuple[int, list[Any]]] = []
    size = 0
    while frames and (not parcel or size < _AT_ONCE):
        kind, buffers = frames.popleft()
        size += sum(map(size_of, buffers))
        parcel.append((int(kind), [apart(one) for one in buffers]))
    return marshal.dumps(parcel) if size < _APART else parcel


def apart(buffer: Buffer) -> bytes | pickle.PickleBuffer:
    """A buffer as Ray's pickler should have it: small ones go into its stream, large ones beside it."""
    return pickle.PickleBuffer(buffer) if size_of(buffer) >= _APART else bytes(buffer)


def unpacked(parcel: Parcel) -> list[Frame]:
    """The messages, with memory of their own: an array in them can be written to."""
    messages = marshal.loads(parcel) if isinstance(parcel, bytes) else parcel
    return [(kind, [bytearray(one) for one in buffers]) for kind, buffers in messages]


class ActorConnection:
    """Stands for a worker's pipe. Any thread may send; one at a time may receive."""

    def __init__(self) -> None:
        self._inward: deque[Frame] = deque()
        self._outward: deque[tuple[int, list[Buffer]]] = deque()
        self._waiting = 0
        self._on_way: deque[int] = deque()
        """The sizes of the parcels that have not been heard."""
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
        heard = [unpack(buffers[0])[0] for kind, buffers in frames if kind == Say.HEARD]
        with self._arrived:
            self._inward.extend(frame for frame in frames if frame[0] != Say.HEARD)
            self._arrived.notify_all()
        if heard:
            with self._leaving:
                for _ in range(min(sum(heard), len(self._on_way))):
                    self._on_way.popleft()
                self._leaving.notify_all()

    def parcels(self) -> Iterator[Parcel]:
        """What has been said, as soon as there is something, until all has been."""
        while True:
            with self._leaving:
                while not self._may_leave() and not (self._over and not self._outward):
                    self._leaving.wait()
                if not self._outward:
                    return
                parcel = packed(self._outward)
                left = sum(size_of(one) for _, buffers in self._outward for one in buffers)
                self._on_way.append(self._waiting - left)
                self._waiting = left
                self._leaving.notify_all()
            yield parcel

    def _may_leave(self) -> bool:
        most, largest = _UNHEARD
        return bool(self._outward) and len(self._on_way) < most and sum(self._on_way) < largest


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

    @ray.method(concurrency_group="out", num_returns="streaming")
    def speak(self) -> Iterator[Parcel]:
        """Give messages to the kernel as they come, until nothing more will. It answers with `HEARD`."""
        yield from self._connection.parcels()


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
