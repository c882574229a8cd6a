"""A service in an actor, as the kernel sees it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import ray
from ray.exceptions import ActorDiedError

from sage_nb.engine.answering import Answers
from sage_nb.engine.log import JobLog
from sage_nb.engine.onray.actor import apart
from sage_nb.engine.onray.cluster import Lease
from sage_nb.engine.onray.hosting import Actor, check, first_words, place, remote_class
from sage_nb.engine.onray.serving import ServiceActor
from sage_nb.engine.shipping import Known, dumps, dumps_items, loads_items
from sage_nb.engine.travelled import loads_exception
from sage_nb.engine.wire import Say, pack, unpack
from sage_nb.errors import ClusterError, ServiceDiedError, WorkerError
from sage_nb.pipeline.context import ServiceCaller
from sage_nb.pipeline.graph import ServiceSpec

__all__ = ["RemoteService"]

_LAST_WORDS = 2.0
"""Seconds that a service has for what it has printed and logged, once it is stopped."""
_AT_ONCE = 8
"""Calls at a time of a service that says it is `thread_safe`."""


class RemoteService:
    """Stands for the service. Calls and hooks run in the actor; what it logs, prints and calls comes here."""

    def __init__(
        self,
        spec: ServiceSpec,
        lease: Lease,
        host: ServiceCaller,
        names: frozenset[str],
        log: JobLog,
        thread_context: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.name = spec.name
        self._lease = lease
        self._log = log
        self._thread_context = thread_context
        self._known: Known = {}
        self._answers = Answers(spec.name, host, self._known)
        self._ended = False
        order = {"name": spec.name, "make": spec.make, "args": spec.args, "kw": spec.kw, "services": names}
        parts = {f"service {spec.name!r}": {"class": spec.make, "arguments": spec.args, "keywords": spec.kw}}
        buffers = [bytes(one) for one in dumps(order, parts=parts, known=self._known)]
        self.thread_safe = bool(getattr(spec.make, "thread_safe", False))
        more = {"max_concurrency": _AT_ONCE} if self.thread_safe else {}
        cls = remote_class(ServiceActor, spec.ray, more, life=1)
        self._restarts = bool(spec.ray is not None and spec.ray.given.get("max_restarts"))
        check(lease)
        self._given = ray.put((place(lease), buffers))
        handle = cls.remote([self._given])
        wanted = {} if spec.ray is None else spec.ray.wanted()
        name = f"the actor of service {spec.name!r}"
        self._actor = Actor(handle, lease, name, self._print, wanted, comes_again=self._restarts)
        self._listener = threading.Thread(target=self._listen, name=f"sage_nb from {spec.name}", daemon=True)
        self._listener.start()
        self._hooks: list[str | None] = []

    def start(self) -> None:
        """Wait until the service is made, and has started. Raises what that raises."""
        self._hooks = self._result("ready")

    def __repr__(self) -> str:
        return f"<service {self.name!r} in an actor, process {self._actor.pid}>"

    def is_there(self) -> bool:
        """Whether its actor has been given a process."""
        return self._actor.is_there()

    def method(self, name: str) -> Callable[..., Any]:
        """A method, to be called from here. It raises what it raises there, and `ServiceDiedError` where the actor
        has died."""

        def call(*args: Any, **kw: Any) -> Any:
            buffers = dumps_items([args, kw], self._known)
            return self._result("call", name, [apart(one) for one in buffers])

        return call

    def hook(self, number: int) -> Callable[[], Any] | None:
        """The hook of that number in `hooks.DOWN`, to be called from here; None once the actor has died."""
        name = self._hooks[number] if self._hooks else None
        if name is None or self._has_died():
            return None

        def call() -> Any:
            return self._result("stop", number)

        call.__name__ = name
        return call

    def _has_died(self) -> bool:
        """Whether it has died for good. That may not have been heard of yet, so it is asked for a sign of life."""
        if not self._actor.is_dead:
            try:
                self._actor.ask("lives", died=lambda exc: exc if isinstance(exc, Exception) else WorkerError(str(exc)))
            except ActorDiedError:
                return True
            except Exception:  # noqa: BLE001 - whatever else it is, the hook will meet it, and say so
                return False
        return self._actor.is_dead

    def request_stop(self) -> None:
        """Let the service know that the job is to stop."""
        with suppress(WorkerError, ClusterError):
            self._actor.send(Say.STATE, pack(True))

    def release(self) -> None:
        """End the actor."""
        if not self._ended:
            self._ended = True
            self._answers.close()
            if not self._actor.is_dead and self.is_there():
                with suppress(ClusterError):
                    self._actor.call("finish")
                    self._listener.join(_LAST_WORDS)
            self._actor.kill()
            self._listener.join()
            self._actor.close(0.0)

    def _result(self, method: str, *args: Any) -> Any:
        well, buffers = self._actor.ask(method, *args, died=self._died)
        if well:
            return loads_items([buffers[0], *map(bytearray, buffers[1:])])
        raise loads_exception([bytearray(one) for one in buffers])

    def _died(self, exc: BaseException) -> Exception:
        if self._lease.lost is not None:
            return self._lease.lost
        pid = f" (process {self._actor.pid})" if self._actor.pid else ""
        comes_again = self._restarts and not isinstance(exc, ActorDiedError)
        what = "it is being made anew" if comes_again else "its other calls fail as well"
        error = ServiceDiedError(f"service {self.name!r}: its actor{pid} has died; {what}")
        error.add_note(f"Ray says: {first_words(exc)}")
        return error

    def _listen(self) -> None:
        """Take what the service says, until it has ended."""
        while True:
            try:
                kind, buffers = self._actor.receive()
            except (WorkerError, ClusterError) as exc:
                if not self._ended:
                    self._log.say(self.name, str(exc), "ERROR")
                return
            if kind == Say.LOG:
                source, level, text = unpack(buffers[0])
                self._log.say(source, text, level)
            elif kind == Say.CALL:
                self._answers.take(buffers, self._actor.send)

    def _print(self, text: str) -> None:
        with self._thread_context():
            sys.stdout.write(text)
            sys.stdout.flush()
