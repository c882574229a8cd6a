"""Calls of services that come from another process: made here, and answered there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from sage_nb.engine.shipping import Known, dumps_items, loads_items
from sage_nb.engine.travelled import dumps_exception
from sage_nb.engine.wire import Say, pack, unpack
from sage_nb.errors import ClusterError, WorkerError
from sage_nb.pipeline.context import ServiceCaller

__all__ = ["Answers"]

_AT_ONCE = 8


class Answers:
    """Makes the calls of one process, on threads that are not the one which reads."""

    def __init__(self, name: str, host: ServiceCaller, known: Known) -> None:
        self._name = name
        self._host = host
        self._known = known
        self._threads: ThreadPoolExecutor | None = None

    def take(self, buffers: list[Any], send: Callable[..., None]) -> None:
        """A `CALL` came; `send` sends its `REPLY`."""
        number, name, method, timeout = unpack(buffers.pop(0))
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix=f"sage_nb calls of {self._name}")

        def answer() -> None:
            try:
                args, kw = loads_items(buffers)
                result = self._host.call(name, method, tuple(args), kw, timeout)
                frame = (pack(number, True), *dumps_items(result, self._known))
            except BaseException as exc:  # noqa: BLE001 - it belongs to whoever called
                frame = (pack(number, False), *dumps_exception(exc, self._known))
            try:
                send(Say.REPLY, *frame)
            except (WorkerError, ClusterError):
                return  # nobody is there who waits for it

        self._threads.submit(copy_context().run, answer)

    def close(self) -> None:
        """Begin no further call."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
