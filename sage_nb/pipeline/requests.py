"""A pipeline as a service: requests come in as items, and each is answered by what comes out for it.

The number of a request travels with its item as the key; `reply()` at the end of the pipeline finds the caller by it.
"""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from sage_nb.errors import ServiceError, ServiceStoppedError
from sage_nb.pipeline.functions import SinkFunction, SourceFunction, StopSignal
from sage_nb.pipeline.graph import Operator

__all__ = ["ReplySink", "RequestSource", "Requests", "number_of", "payload_of", "takes_requests"]

_TICK = 0.1


class Requests:
    """The requests of one environment: those that wait, and the futures of those that are under way."""

    def __init__(self) -> None:
        self.waiting: queue.SimpleQueue[tuple[int, Any] | StopSignal] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._open: dict[int, Future[Any]] = {}
        self._taken: set[int] = set()
        """Those of the open ones that are in the pipeline."""
        self._lost: set[int] = set()
        """Those that were told that no reply would come."""
        self.at_rest: Callable[[], bool] = lambda: False
        """Whether nothing is under way in the pipeline, while its source waits."""
        self._lock = threading.Lock()
        self._ended: BaseException | None = ServiceStoppedError("the pipeline is not running")

    def __reduce__(self) -> tuple[type[Requests], tuple[()]]:
        return type(self), ()  # where the pipeline goes, nobody has asked it yet

    def begin(self) -> None:
        """The pipeline runs."""
        self.waiting = queue.SimpleQueue()
        self._ended = None

    def submit(self, payload: Any) -> Future[Any]:
        """Hand in a request. Raises `ServiceStoppedError` where the pipeline does not run, or why it ended."""
        if payload is None:
            raise ServiceError("a request has a payload, and None is none: it would not reach an operator")
        future: Future[Any] = Future()
        with self._lock:
            if self._ended is not None:
                raise self._ended
            number = next(self._numbers)
            self._open[number] = future
            self.waiting.put((number, payload))
        return future

    def reply(self, number: int, value: Any) -> None:
        """Answer a request. Raises `ServiceError` where it has had an answer."""
        with self._lock:
            future = self._open.pop(number, None)
            self._taken.discard(number)
        if future is None and number in self._lost:
            return
        if future is None:
            raise ServiceError(f"request {number} has had its reply; a pipeline gives one item for each request")
        if future.set_running_or_notify_cancel():
            future.set_result(value)

    def take(self, timeout: float) -> tuple[int, Any] | StopSignal | None:
        """The next request; None where none comes for `timeout` seconds."""
        try:
            found = self.waiting.get(timeout=timeout)
        except queue.Empty:
            return None
        if not isinstance(found, StopSignal):
            self._taken.add(found[0])
        return found

    def settle(self, reason: str, *, only_at_rest: bool) -> None:
        """Tell those whose requests were taken, and that no reply will come to, why."""
        with self._lock:
            taken = set(self._taken)
        if not taken or (only_at_rest and not self.at_rest()):
            return
        with self._lock:
            lost = [self._open.pop(number) for number in taken & self._open.keys()]
            self._taken -= taken
            self._lost |= taken
        for future in lost:
            if future.set_running_or_notify_cancel():
                future.set_exception(ServiceError(reason))

    def stop(self) -> None:
        """No request comes any more; those under way are finished."""
        with self._lock:
            self._ended = self._ended or ServiceStoppedError("the pipeline is stopping; it takes no requests any more")
        self.waiting.put(StopSignal("no more requests"))

    def end(self, error: BaseException | None) -> None:
        """The pipeline has ended: whoever still waits is told why."""
        with self._lock:
            self._ended = error or ServiceStoppedError("the pipeline has ended")
            left, self._open = self._open, {}
        why = error or ServiceError("the pipeline ended without a reply to this request")
        for future in left.values():
            if future.set_running_or_notify_cancel():
                future.set_exception(why)


class RequestSource(SourceFunction):
    """Gives `(number, payload)` until a `StopSignal` comes."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def open(self) -> None:
        self._requests.settle("the pipeline failed with this request, and began anew", only_at_rest=False)

    def execute(self) -> Any:
        while not self.ctx.is_stop_requested():
            found = self._requests.take(_TICK)
            if found is not None:
                return found
            self._requests.settle("the pipeline dropped this request: no item came out for it", only_at_rest=True)
        return StopSignal()


class ReplySink(SinkFunction):
    """Answers the request whose number is the item's key."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def execute(self, data: Any) -> None:
        self._requests.reply(self.ctx.get_key(), data)


def number_of(request: tuple[int, Any]) -> int:
    return request[0]


def payload_of(request: tuple[int, Any]) -> Any:
    return request[1]


def takes_requests(op: Operator) -> bool:
    """Whether it is the source of `from_requests()`, which stays where who asks is."""
    return op.kind == "source" and getattr(op.spec[0], "target", None) is RequestSource
