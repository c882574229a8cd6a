"""A service in an actor, from within: made once, its hooks run there, and called there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import ray

from sage_nb.engine.hooks import DOWN, UP, make_instance, resolve_hook
from sage_nb.engine.onray.actor import ActorConnection, HostActor, apart
from sage_nb.engine.shipping import dumps_items, loads, loads_items
from sage_nb.engine.travelled import dumps_exception
from sage_nb.engine.wire import Say
from sage_nb.engine.worker import RemoteHost
from sage_nb.errors import ServiceMethodError
from sage_nb.pipeline.context import current

__all__ = ["Answer", "ServiceActor"]

Answer = tuple[bool, list[Any]]
"""Whether it went well; then the result or the exception, as buffers."""


class ServiceActor(HostActor):
    """Holds one service. Where Ray starts the actor anew, the service is made anew, and its hooks run again."""

    def __init__(self, given: list[Any]) -> None:
        place, self._order = ray.get(given[0])  # a reference that the kernel holds: Ray may need it again
        self._ready = threading.Event()
        self._instance: Any = None
        self._failed: Answer | None = None
        self._start_in(place, self._serve)

    def _serve(self, connection: ActorConnection) -> None:
        """Make the service and start it, then take messages; on a thread of its own."""
        try:
            order = loads([bytearray(one) for one in self._order])
            host = self._host = RemoteHost(connection, order["services"])
            self._context = host.context(order["name"])
        except BaseException as exc:  # noqa: BLE001 - it is the kernel's to know
            self._failed = False, [apart(one) for one in dumps_exception(exc, {})]
            self._ready.set()
            return
        threading.Thread(target=self._make, args=(order,), name="sage_nb service", daemon=True).start()
        while True:
            kind, buffers = connection.receive()
            if kind == Say.REPLY:
                host.answered(buffers)
            elif kind == Say.STATE:
                host.stop_event.set()

    def _make(self, order: dict[str, Any]) -> None:
        def made() -> None:
            instance = make_instance(order["make"], order["args"], order["kw"], self._context)
            for names in UP:
                hook = resolve_hook(instance, names)
                if hook is not None:
                    hook()
            self._instance = instance

        well, answer = self._answer(made)
        self._failed = None if well else (well, answer)
        self._ready.set()

    def _answer(self, call: Callable[[], Any]) -> Answer:
        current.set(self._context)
        try:
            return True, [apart(one) for one in dumps_items(call(), self._host.known)]
        except BaseException as exc:  # noqa: BLE001 - it belongs to whoever called
            return False, [apart(one) for one in dumps_exception(exc, self._host.known)]

    # What the kernel calls

    @ray.method(concurrency_group="life")
    def ready(self) -> Answer:
        """Wait until it has started. The names of the hooks that a stop is to call."""
        self._ready.wait()
        if self._failed is not None:
            return self._failed
        found = (resolve_hook(self._instance, names) for names in DOWN)
        return self._answer(lambda: [getattr(hook, "__name__", None) for hook in found])

    @ray.method(concurrency_group="life")
    def lives(self) -> None:
        """A sign of life, between hooks."""

    @ray.method(concurrency_group="life")
    def stop(self, number: int) -> Answer:
        """Call the hook of that number in `DOWN`."""
        hook = resolve_hook(self._instance, DOWN[number])
        return self._answer(lambda: hook() if hook is not None else None)

    @ray.method(concurrency_group="in")
    def finish(self) -> None:
        """Have all sent that was printed and logged; then say nothing more."""
        self._output.end()
        self._connection.finish()

    def call(self, method: str, buffers: list[Any]) -> Answer:
        """Call a method. `buffers` are its arguments."""
        self._ready.wait()
        if self._failed is not None:
            return self._failed
        return self._answer(lambda: self._call(method, buffers))

    def _call(self, method: str, buffers: list[Any]) -> Any:
        fn = getattr(self._instance, method, None)
        if not callable(fn):
            type_name = type(self._instance).__name__
            raise ServiceMethodError(f"service {self._context.name!r} ({type_name}) has no method {method!r}")
        args, kw = loads_items([buffers[0], *map(bytearray, buffers[1:])])
        return fn(*args, **kw)
