"""What a function knows about where it runs, and how it reaches services.

The engine sets `current` in every thread of a job; `call_service` and the members of `BaseFunction` look
there. Nothing in here starts a thread or knows how a service is run: that is the engine's side of
`ServiceCaller`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, Protocol

from sage_nb.errors import ServiceError

__all__ = [
    "AsyncContext",
    "Context",
    "ServiceCaller",
    "ServiceProxy",
    "call_service",
    "call_service_async",
    "current",
    "key_at_hand",
]


class ServiceCaller(Protocol):
    """The engine's side of a service call."""

    def call(self, name: str, method: str, args: tuple[Any, ...], kw: dict[str, Any], timeout: float | None) -> Any:
        """Call and wait for the result."""

    def call_async(self, name: str, method: str, args: tuple[Any, ...], kw: dict[str, Any]) -> Future[Any]:
        """Call on a thread of the service."""

    def proxy(self, name: str) -> ServiceProxy:
        """A stand-in for the service. Raises `ServiceNotFoundError` where there is none of that name."""


class Context:
    """Where a function or a service runs: `self.ctx`.

    `name` is the operator's or service's name, `parallel_index` the instance's number from 0, `parallelism`
    the count of instances.
    """

    __slots__ = (
        "_logger",
        "_say",
        "_state",
        "_stopping",
        "key",
        "logger_factory",
        "name",
        "parallel_index",
        "parallelism",
        "services",
        "states",
    )

    def __init__(
        self,
        name: str,
        services: ServiceCaller,
        stopping: Callable[[], bool],
        logger_factory: Callable[[str], logging.Logger],
        parallel_index: int = 0,
        parallelism: int = 1,
        say: Callable[[str, str], None] | None = None,
    ) -> None:
        self.name = name
        self.parallel_index = parallel_index
        self.parallelism = parallelism
        self.key: Any = None
        self.states: MutableMapping[Any, dict[Any, Any]] | None = None
        """Of `process`: a dict for each key."""
        self._state: dict[Any, Any] = {}
        self.services = services
        self.logger_factory = logger_factory
        self._stopping = stopping
        self._say = say
        self._logger: logging.Logger | None = None

    def __repr__(self) -> str:
        return f"<Context {self.name!r} {self.parallel_index + 1}/{self.parallelism}>"

    @property
    def logger(self) -> logging.Logger:
        """A logger whose records go to the job's log."""
        if self._logger is None:
            self._logger = self.logger_factory(self.name)
        return self._logger

    def is_stop_requested(self) -> bool:
        """Whether the job is asked to stop: a source that waits by itself should look, and return."""
        return self._stopping()

    def note(self, text: str) -> None:
        """Add to the job's notes: what is to be known besides how it ended."""
        if self._say is None:
            self.logger.warning(text)
        else:
            self._say(text, "WARNING")

    def get_key(self) -> Any:
        """The key of the item at hand; None where the stream has none."""
        return self.key

    @property
    def state(self) -> dict[Any, Any]:
        """A dict that belongs to this instance; in `process`, to the key at hand."""
        states = self.states
        if states is None:
            return self._state
        found = states.get(self.key)
        if found is None:
            found = states[self.key] = {}
        return found


class AsyncContext(Context):
    """Of coroutines, of which many are under way: each has a key of its own."""

    __slots__ = ()

    def get_key(self) -> Any:
        """The key of the item at hand; None where the stream has none."""
        return key_at_hand.get()


key_at_hand: ContextVar[Any] = ContextVar("sage_nb.key", default=None)
"""The key of the item that this coroutine works on."""


class ServiceProxy:
    """A stand-in for a running service: `proxy.method(...)` is a call of that service."""

    __slots__ = ("_caller", "_name")

    def __init__(self, caller: ServiceCaller, name: str) -> None:
        self._caller = caller
        self._name = name

    def __repr__(self) -> str:
        return f"<service {self._name!r}>"

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__"):
            raise AttributeError(method)

        def call(*args: Any, timeout: float | None = None, **kw: Any) -> Any:
            return self._caller.call(self._name, method, args, kw, timeout)

        return call


current: ContextVar[Context | None] = ContextVar("sage_nb.context", default=None)
"""The context of the function that runs in this thread."""

_NOT_GIVEN: Any = type("NotGiven", (), {"__repr__": lambda _self: "'process'"})()
# `call_service("db")` is a proxy and `call_service("db", method="process")` a call; only a sentinel tells them apart.


def _services(ctx: Context | None) -> ServiceCaller:
    ctx = ctx or current.get()
    if ctx is None:
        raise ServiceError(
            "call_service works inside a running pipeline, on the job's own threads; on a thread of your own use "
            "self.call_service of an operator or a service"
        )
    return ctx.services


def call_from(
    ctx: Context | None, name: str, args: tuple[Any, ...], method: str, timeout: float | None, kw: dict[str, Any]
) -> Any:
    services = _services(ctx)
    if method is _NOT_GIVEN:
        if not args and not kw and timeout is None:
            return services.proxy(name)
        method = "process"
    return services.call(name, method, args, kw, timeout)


def call_service(name: str, *args: Any, method: str = _NOT_GIVEN, timeout: float | None = None, **kw: Any) -> Any:
    """Call `method` (default `"process"`) of the service `name` and return its result.

    With nothing but the name it returns a stand-in instead: `call_service("planes").lookup("N14228")`.
    `timeout` is in seconds. Errors of the service keep their type. Raises `ServiceNotFoundError`,
    `ServiceMethodError`, `ServiceTimeout`; `ServiceError` outside a running pipeline.
    """
    return call_from(None, name, args, method, timeout, kw)


def call_service_async(name: str, *args: Any, method: str = "process", **kw: Any) -> Future[Any]:
    """Like `call_service`, on a thread of the service: a `concurrent.futures.Future`."""
    return _services(None).call_async(name, method, args, kw)
