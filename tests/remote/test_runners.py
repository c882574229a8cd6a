"""Runner processes, as the server has them: none of its threads waits for one that does not read."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from sage_nb.engine.frames import Frame
from sage_nb.engine.reaper import Reaper
from sage_nb.errors import WorkerError
from sage_nb.remote.protocol import Order
from sage_nb.remote.runner import Run
from sage_nb.remote.runners import Runner

_LIMIT = 30.0


class Heard:
    """What a runner has said."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def said(self, runner: Runner, frame: Frame) -> None: ...
    def printed(self, runner: Runner, text: str, stream: str) -> None: ...
    def ended_process(self, runner: Runner, why: WorkerError) -> None:
        self.ended.set()


@pytest.fixture
def stuck() -> Iterator[tuple[Runner, Heard]]:
    """A runner that has been given a job, and reads nothing."""
    reaper, heard = Reaper(), Heard()
    runner = Runner(reaper)
    assert runner.warm.wait(_LIMIT)
    os.kill(runner.pid, signal.SIGSTOP)
    runner.give(Run("a", "/no/such/payload"), heard)
    yield runner, heard
    os.kill(runner.pid, signal.SIGKILL)
    assert heard.ended.wait(_LIMIT)
    reaper.end()


def test_nobody_waits_to_give_an_order_to_a_runner_that_does_not_read(stuck: tuple[Runner, Heard]) -> None:
    runner, _ = stuck

    def tell() -> None:
        for _ in range(400):
            runner.tell(Order.PAUSE, "x" * 10_000)

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    telling.join(_LIMIT)
    assert not telling.is_alive()


def test_of_orders_that_the_next_one_makes_void_only_the_newest_waits(stuck: tuple[Runner, Heard]) -> None:
    runner, _ = stuck
    for size in range(100_000):
        runner.tell(Order.TAKEN, size)
    assert sum(len(packed) for _, packed in runner._orders.values()) < 100
