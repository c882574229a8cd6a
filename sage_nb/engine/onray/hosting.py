"""An actor as the kernel sees it: what `child.Child` is for a worker process.

Messages wait in an outbox; up to two calls take all that is there to the actor, so that calls get larger as traffic
grows. What the actor says is the stream of one call. Nothing waits for Ray without looking, now and then,
whether the cluster is there: it cannot be shut down while somebody does.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from sage_nb.engine.buffers import Buffer, size_of
from sage_nb.engine.frames import Frame
from sage_nb.engine.onray.actor import HostActor, Parcel, packed, unpacked
from sage_nb.engine.onray.cluster import Lease
from sage_nb.engine.wire import Say, pack, unpack
from sage_nb.errors import ClusterError, WorkerError
from sage_nb.pipeline.placement import RayOptions

__all__ = ["PLACE_WITHIN", "Actor", "check", "check_resources", "first_words", "place", "start"]

_LOOK = 0.5
_PAUSE = 0.1
PLACE_WITHIN = 10.0
"""Seconds that an actor may wait for a place before the job says so."""
_FULL = 16 << 20
"""Bytes in the outbox from which on senders wait."""
_TAIL = 4096
_WORDS = 500
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_CALLS = 2
_TELL_AT = 16, 4 << 20
"""Parcels that came, or bytes in them, from which on the actor is told: well before it would wait for that."""
_NOTHING_YET = object()
_UNSENT = ("RAY_", "_RAY")


def place(lease: Lease) -> dict[str, Any]:
    """What an actor's process is to have in common with this one. The environment's variables, only where it is on
    this machine: elsewhere they would be wrong."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith(_UNSENT)} if lease.is_private else {}
    return {
        "cwd": os.getcwd(),
        "environ": environ,
        "argv": [*map(str, sys.argv)],
        "path": [*map(os.fspath, sys.path)],
    }


def start(
    entry: str, lease: Lease, options: RayOptions | None, *, name: str, spread: bool = False,
    on_output: Callable[[str], None],
) -> Actor:  # fmt: skip
    """Start an actor that calls `entry`, `"module:function"`, with an `ActorConnection`.

    `spread` asks for another node for each.
    """
    more = {"scheduling_strategy": "SPREAD"} if spread else {}
    made = remote_class(HostActor, options, more)
    check(lease)
    return Actor(made.remote(entry, place(lease)), lease, name, on_output, (options or RayOptions({})).wanted())


def check(lease: Lease) -> None:
    """Raise the lease's error where the cluster is not there any more."""
    if lease.lost is not None:
        raise lease.lost


def remote_class(cls: type[HostActor], options: RayOptions | None, more: dict[str, Any], *, life: int = 0) -> Any:
    """The actor class with options: those of the user, above `more`. `life` is the number of threads for hooks."""
    import ray

    groups = {"in": 1, "out": 1} | ({"life": life} if life else {})
    given: dict[str, Any] = {"concurrency_groups": groups, **more, **(options or RayOptions({})).for_ray()}
    return ray.remote(**given)(cls)


def check_resources(lease: Lease, asked: Iterable[tuple[str, int, RayOptions | None]]) -> None:
    """Refuse what a private Ray can never give: its actors would wait for good. `asked`: who, how often, what."""
    import ray

    if not lease.is_private:
        return
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    sums: dict[str, float] = {}
    for who, count, options in asked:
        for resource, amount in ({} if options is None else options.wanted()).items():
            sums[resource] = sums.get(resource, 0.0) + amount * count
            if sums[resource] > there.get(resource, 0):
                raise ClusterError(
                    f"{who} asks for {resource}: {amount:g} × {count}; with what others ask for that is "
                    f"{sums[resource]:g}, and the Ray on this machine has {there.get(resource, 0):g}"
                )


class Actor:
    """An actor with a task. Once it has died, `send` and `receive` raise `WorkerError`; once the cluster is lost,
    its `ClusterError`."""

    def __init__(
        self, handle: Any, lease: Lease, name: str, on_output: Callable[[str], None], wanted: dict[str, float],
        comes_again: bool = False,
    ) -> None:  # fmt: skip
        self.name = name
        self.pid: int | None = None
        self._handle = handle
        self._lease = lease
        self._on_output = on_output
        self._wanted = wanted
        """Resources without which it gets no place."""
        self._since: float | None = time.monotonic()
        """Since when it has been waiting for its place; None once that has been told."""
        self._comes_again = comes_again
        """Whether Ray makes it anew where its process has died."""
        self._outbox: deque[tuple[int, list[Buffer]]] = deque()
        self._waiting = 0
        self._change = threading.Condition()
        self._closed = False
        self._dead: Exception | None = None
        self._frames: deque[Frame] = deque()
        self._stream: Any = None
        """What the actor says, as parcels."""
        self._unsaid = 0, 0
        """How many parcels came, and bytes in them, of which it has not been told."""
        self._tail = ""
        self._pid = self.call("pid")
        lease.using(self)
        self._pusher = threading.Thread(target=self._push, name=f"sage_nb {name} outbox", daemon=True)
        self._pusher.start()

    def __repr__(self) -> str:
        return f"<Actor {self.name!r} {self.pid}>"

    def is_there(self) -> bool:
        """Whether it has been given a process. Does not wait."""
        import ray

        if self.pid is None and self._lease.lost is None:
            with suppress(Exception):  # Ray may be on its way down
                return bool(ray.wait([self._pid], timeout=0)[0])
        return self.pid is not None

    @property
    def is_dead(self) -> bool:
        """Whether it has been found to have died."""
        return self._dead is not None

    def send(self, kind: int, *buffers: Buffer) -> None:
        """Have a message sent; waits while many bytes wait. Any thread may."""
        size = sum(map(size_of, buffers))
        with self._change:
            while self._waiting > _FULL and not self._closed and self._dead is None:
                self._change.wait(_LOOK)
            if self._dead is not None:
                raise self._dead
            if self._closed:
                raise WorkerError(f"{self.name} has ended")
            self._waiting += size
            self._outbox.append((kind, list(buffers)))
            self._change.notify_all()

    def receive(self) -> Frame:
        """The next message; waits for it. One thread at a time may."""
        while not self._frames:
            if not self._listen(None):
                raise self._gone("has ended before it was done")
        return self._frames.popleft()

    def kill(self) -> None:
        """End it at once."""
        import ray

        with suppress(Exception):  # it has died already, or the cluster has
            check(self._lease)
            ray.kill(self._handle)

    def call(self, method: str, *args: Any) -> Any:
        """Have a method called; a reference to what it will return. Raises where the cluster is lost."""
        if self._lease.lost is not None:
            raise self._gone_with(self._lease.lost)
        return getattr(self._handle, method).remote(*args)

    def close(self, timeout: float = 2.0) -> str:
        """Take what it still says, end it, and free what it took here."""
        deadline = time.monotonic() + timeout
        with suppress(WorkerError, ClusterError):
            while self._dead is None and time.monotonic() < deadline and self._listen(deadline):
                continue
        with self._change:
            self._closed = True
            self._change.notify_all()
        self.kill()
        self._pusher.join()
        self._stream = None
        self._lease.let_go(self)
        return ""

    def _listen(self, deadline: float | None) -> bool:
        """Take the next messages; False once there will be none, or after the deadline."""
        try:
            parcel = self._next(deadline)
        except _Again:
            self._stream = None
            time.sleep(_PAUSE)  # Ray answers at once that it is not there yet
            self.pid, self._pid = None, self.call("pid")
            return True
        if parcel is None:
            return False
        if self.pid is None:
            with self._telling():
                self.pid = self._wait(self._pid)
        size = 0
        for kind, buffers in unpacked(parcel):
            size += sum(map(size_of, buffers))
            if kind == Say.OUTPUT:
                self._print(*unpack(buffers[0]))
            else:
                self._frames.append((kind, buffers))
        self._tell_heard(size)
        return True

    def _tell_heard(self, size: int) -> None:
        """Let the actor say more. Never waits: who listens must go on."""
        self._unsaid = parcels, total = self._unsaid[0] + 1, self._unsaid[1] + size
        if parcels >= _TELL_AT[0] or total >= _TELL_AT[1]:
            self._unsaid = 0, 0
            with self._change:
                self._outbox.append((Say.HEARD, [pack(parcels)]))
                self._change.notify_all()

    def _push(self) -> None:
        """Send what is in the outbox, until it is closed."""
        pending: deque[Any] = deque()
        while True:
            with self._change:
                while not self._outbox and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                parcel = packed(self._outbox)
                self._waiting = sum(size_of(one) for _, buffers in self._outbox for one in buffers)
                self._change.notify_all()
            try:
                with self._telling():
                    pending.append(self.call("send", parcel))
                    while len(pending) >= _CALLS:
                        self._wait(pending.popleft())
            except _Again:
                pending.clear()  # what was for the one that has died is gone with it
            except (WorkerError, ClusterError):
                return  # who receives says so

    def _next(self, deadline: float | None) -> Parcel | None:
        """The next parcel of what it says; None after the deadline, or when it has said all."""
        with self._telling():
            if self._stream is None:
                self._stream = self.call("speak")
            while (ref := _next_in(self._stream, self._patience(deadline))) is _NOTHING_YET:
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                self._look_for_place()
            return None if ref is None else self._wait(ref)

    def _look_for_place(self) -> None:
        """Tell the job where the actor has waited long for what the cluster does not have, or others hold."""
        import ray

        if not self._wanted or self._since is None or time.monotonic() - self._since < PLACE_WITHIN or self.is_there():
            return
        self._since = None
        free: dict[str, float] = {}
        there: dict[str, float] = {}
        with suppress(Exception):  # then what it asks for is all that can be told
            free, there = ray.available_resources(), ray.cluster_resources()  # type: ignore[no-untyped-call]
        short = [
            f"{name}: {amount:g} on one node, of {there.get(name, 0):g} in all, {free.get(name, 0):g} free"
            for name, amount in self._wanted.items()
        ]
        self._lease.say("job", f"{self.name} has waited {PLACE_WITHIN:g} s for a place, and waits on: it asks for "
                        f"{'; '.join(short)}")  # fmt: skip

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What Ray says of a call of messages, in our words."""
        from ray.exceptions import ActorUnavailableError, RayActorError

        try:
            yield
        except ActorUnavailableError as exc:
            if self._comes_again:
                raise _Again from None
            raise self._gone("is out of reach", exc) from None
        except RayActorError as exc:
            raise self._gone("has died", exc) from None
        except (WorkerError, ClusterError):
            raise
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - so a wait may end while Ray is shut down
            raise self._gone("is out of reach" if self.pid else "could not be started", exc) from None

    def ask(self, method: str, *args: Any, died: Callable[[BaseException], Exception]) -> Any:
        """What a method returns; where it has died, raises what `died` makes of Ray's error."""
        try:
            return self._wait(self.call(method, *args))
        except (Exception, SystemExit) as exc:  # noqa: BLE001 - what the user's code raises is returned
            raise died(exc) from None

    def _wait(self, ref: Any) -> Any:
        import ray
        from ray.exceptions import GetTimeoutError

        while True:
            try:
                return ray.get(ref, timeout=self._patience(None))
            except GetTimeoutError:
                continue

    def _patience(self, deadline: float | None) -> float:
        """Seconds to wait for Ray before looking whether it is there. Raises where it is not."""
        if self._lease.lost is not None:
            raise self._gone_with(self._lease.lost)
        if self._closed:
            raise self._gone("has ended")
        return _LOOK if deadline is None else max(0.0, min(_LOOK, deadline - time.monotonic()))

    def _gone(self, what: str, exc: BaseException | None = None) -> Exception:
        error = WorkerError(f"{self.name} (process {self.pid}) {what}" if self.pid else f"{self.name} {what}")
        if exc is not None:
            error.add_note(f"Ray says: {first_words(exc)}")
        if said := self._tail.strip():
            error.add_note(f"the last that it printed:\n{said}")
        return self._gone_with(self._lease.look() or error)

    def _gone_with(self, error: Exception) -> Exception:
        with self._change:
            self._dead = self._dead or error
            self._change.notify_all()
        return self._dead

    def _print(self, text: str) -> None:
        self._tail = (self._tail + text)[-_TAIL:]
        try:
            self._on_output(text)
        except Exception:  # noqa: BLE001 - it is told, and what the actor says must go on
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread())))


def _next_in(stream: Any, seconds: float) -> Any:
    """The next reference in a stream, within that time, else `_NOTHING_YET`; None at its end."""
    wait_for_next = getattr(stream, "_next_sync", None)  # one wait where `ray.wait` and `next` are two
    if wait_for_next is None:
        import ray

        return next(stream, None) if ray.wait([stream], timeout=seconds)[0] else _NOTHING_YET
    try:
        ref = wait_for_next(seconds)
    except StopIteration:
        return None
    return _NOTHING_YET if ref.is_nil() else ref


class _Again(Exception):
    """The actor's process has died, and Ray makes it anew."""


def first_words(exc: BaseException) -> str:
    """What Ray says of a death, on one line, without colours: its beginning and, of a traceback, its end."""
    lines = [line.strip() for line in _COLOURS.sub("", str(exc)).splitlines() if line.strip(" ^~\t")]
    said = " ".join(lines)
    return said if len(said) <= _WORDS else f"{said[: _WORDS // 2]} … {' '.join(lines[-1:])[-_WORDS // 2 :]}"
