"""Function classes: operators that are more than one expression.

Any class with the right method fits anywhere; these bases only add `self.ctx`, `self.logger`, `self.name` and
the service calls, and say what the method is. None of them keeps anything in `__init__`, so that a subclass
may leave `super().__init__()` out.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterable
from concurrent.futures import Future
from typing import Any

from sage_nb.pipeline import context
from sage_nb.pipeline.context import Context

__all__ = [
    "BaseCoMapFunction",
    "BaseFunction",
    "BaseJoinFunction",
    "BaseService",
    "BatchFunction",
    "FilterFunction",
    "FlatMapFunction",
    "KeyByFunction",
    "MapFunction",
    "SinkFunction",
    "SourceFunction",
    "StopSignal",
]


class StopSignal:
    """Returned by a source to say that nothing more will come."""

    __slots__ = ("message", "source")

    def __init__(self, message: str = "", source: str | None = None) -> None:
        self.message = message
        self.source = source

    def __repr__(self) -> str:
        return f"StopSignal({self.message!r}, source={self.source!r})"


class _FromContext:
    """An attribute read from `self.ctx`. Not a data descriptor: a subclass may assign one of the same name."""

    def __init__(self, attribute: str, doc: str) -> None:
        self._attribute = attribute
        self.__doc__ = doc

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        ctx = getattr(instance, "ctx", None)
        if ctx is None:
            raise AttributeError(f"'{self._attribute}' is there once the job runs, from open() on; not in __init__")
        return getattr(ctx, self._attribute)


class _InJob:
    """What functions and services share."""

    ctx: Context
    logger: logging.Logger = _FromContext("logger", "A logger whose records go to the job's log.")  # type: ignore[assignment]
    name: str = _FromContext("name", "The operator's or service's name.")  # type: ignore[assignment]

    def call_service(
        self,
        name: str,
        *args: Any,
        method: str = context._NOT_GIVEN,
        timeout: float | None = None,
        **kw: Any,
    ) -> Any:
        """See `sage_nb.call_service`."""
        return context.call_from(getattr(self, "ctx", None), name, args, method, timeout, kw)

    def call_service_async(self, name: str, *args: Any, method: str = "process", **kw: Any) -> Future[Any]:
        """See `sage_nb.call_service_async`."""
        return context._services(getattr(self, "ctx", None)).call_async(name, method, args, kw)


class BaseFunction(_InJob):
    """Base of all function classes.

    The constructor runs once per instance, where the instance runs. `open()` runs before the first item;
    `close()` once, after the last one, on every ending.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        """Accepts and ignores anything."""

    def open(self) -> None:
        """Called once before the first item."""

    def close(self) -> None:
        """Called once after the last item, however the job ends."""


class SourceFunction(BaseFunction):
    """An unbounded source. `execute()` returns the next item, None for "nothing now", or a `StopSignal`."""

    @abstractmethod
    def execute(self) -> Any:
        """The next item."""


class BatchFunction(BaseFunction):
    """A bounded source. `execute()` returns the next item; None or a `StopSignal` ends it."""

    @abstractmethod
    def execute(self) -> Any:
        """The next item."""


class MapFunction(BaseFunction):
    """`execute(item)` returns what goes on; None emits nothing."""

    @abstractmethod
    def execute(self, data: Any) -> Any:
        """The new item."""


class FilterFunction(BaseFunction):
    """`execute(item)` says whether the item goes on."""

    @abstractmethod
    def execute(self, data: Any) -> bool:
        """Any truthy result lets the item pass."""


class FlatMapFunction(BaseFunction):
    """`execute(item)` returns an iterable of items, calls `self.collect(x)` for each, or does both."""

    _collected: list[Any] | None = None

    @abstractmethod
    def execute(self, data: Any) -> Iterable[Any] | None:
        """The items that take this one's place."""

    def collect(self, item: Any) -> None:
        """Emit `item`, after whatever `execute` returns."""
        if self._collected is None:
            self._collected = []
        self._collected.append(item)


class SinkFunction(BaseFunction):
    """`execute(item)` takes the item; nothing goes on from here."""

    @abstractmethod
    def execute(self, data: Any) -> None:
        """Take the item."""


class KeyByFunction(BaseFunction):
    """`execute(item)` returns the item's key."""

    @abstractmethod
    def execute(self, data: Any) -> Any:
        """The key: a hashable value."""


class BaseCoMapFunction(BaseFunction):
    """`map0(item)`, `map1(item)`, ...: one method for each connected stream."""

    @abstractmethod
    def map0(self, data: Any) -> Any:
        """For items of the first stream."""

    @abstractmethod
    def map1(self, data: Any) -> Any:
        """For items of the second stream."""


class BaseJoinFunction(BaseFunction):
    """`execute(payload, key, tag)` returns the list of what this item completes; `tag` is the stream's number."""

    @abstractmethod
    def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
        """What to emit."""


class BaseService(_InJob):
    """Base of services. All hooks are optional and are looked for by name, in this order:

    `setup()`, `start()` or `start_running()`, then calls, then `stop()` or `terminate()`, `cleanup()` or
    `close()`. `self.ctx` is there already in `__init__`. Calls to one instance come one at a time, unless the
    class says `thread_safe = True`.
    """

    thread_safe = False

    def __init__(self, *args: Any, **kw: Any) -> None:
        """Accepts and ignores anything."""
