"""What tests of pipelines share: running one, holding it at a point, and reading its counters."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sage_nb import DataStream, Job, LocalEnvironment

__all__ = ["LIMIT", "Gate", "Script", "counts", "endless", "errors", "ran", "submitted", "until"]

LIMIT = 30.0
"""Seconds after which a test has failed; nothing takes nearly as long."""


def submitted(build: Callable[[LocalEnvironment], DataStream], **options: Any) -> Job:
    """The job of a pipeline whose stream is collected as `out`; it waits unless `options` say otherwise."""
    env = LocalEnvironment("test")
    build(env).collect("out")
    return env.submit(**{"autostop": True, **options})


def ran(build: Callable[[LocalEnvironment], DataStream]) -> list[Any]:
    """The items of a stream."""
    return list(submitted(build).results["out"])


def counts(job: Job) -> dict[str, tuple[int, int]]:
    """Items in and out of each operator, by name."""
    return {op.name: (op.items_in, op.items_out) for op in job.progress.operators}


def errors(job: Job) -> dict[str, int]:
    """The operators that have errors."""
    return {op.name: op.errors for op in job.progress.operators if op.errors}


def until(condition: Callable[[], Any], limit: float = LIMIT) -> None:
    """Wait for what no event tells."""
    never = threading.Event()
    for _ in range(int(limit / 0.005)):
        if condition():
            return
        never.wait(0.005)
    raise AssertionError(f"did not come about within {limit:g} s")


class Gate:
    """A function that passes items on, and holds the one of number `at` until `open()`."""

    def __init__(self, at: int = 1) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()
        self._at = at
        self._calls = 0

    def __call__(self, item: Any) -> Any:
        self._calls += 1
        if self._calls == self._at:
            self.reached.set()
            assert self._opened.wait(LIMIT)
        return item

    def wait(self) -> None:
        """Until the item is there."""
        assert self.reached.wait(LIMIT)

    def open(self) -> None:
        """Let the item through."""
        self._opened.set()

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


def endless() -> Iterator[int]:
    """0, 1, 2, ... from a generator."""
    yield from itertools.count()


class Script:
    """A Python process that runs `code`; its lines on stdout are read as they come."""

    def __init__(self, code: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,  # what `wait_for` does not want is left for `communicate`
        )

    def __enter__(self) -> Script:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_for(self, line: str) -> list[str]:
        """Read up to a line; the lines before it."""
        assert self._process.stdout is not None
        before: list[str] = []
        for got in self._process.stdout:
            if got.decode().strip() == line:
                return before
            before.append(got.decode().strip())
        raise AssertionError(f"ended without the line {line!r}: {self._process.communicate()}")

    def line(self) -> str:
        """The next line; waits for it."""
        assert self._process.stdout is not None
        got = self._process.stdout.readline()
        assert got, f"ended: {self._process.communicate()}"
        return got.decode().strip()

    def interrupt(self) -> None:
        """Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, and at nobody's asking."""
        self._process.kill()

    def end(self, limit: float = LIMIT) -> tuple[int, list[str], str]:
        """Wait for its end: the exit code, the lines not yet read, and what went to stderr."""
        out, err = self._process.communicate(timeout=limit)
        return self._process.returncode, out.decode().split("\n")[:-1], err.decode()
