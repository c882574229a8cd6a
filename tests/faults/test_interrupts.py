"""What an interrupt, or the end, of the process that submitted means to its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engine.test_child import alive
from tests.faults.support import SOON, wait_for
from tests.support import LIMIT, until

ROOT = Path(__file__).parents[2]

CODE = """
import itertools, os, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from sage_nb import BaseService, LocalEnvironment, MapFunction

FOLDER = Path({folder!r})

class Works(MapFunction):
    def execute(self, data):
        (FOLDER / f"pid {{os.getpid()}}").touch()
        time.sleep({seconds})
        return data

    def close(self):
        (FOLDER / f"closed {{os.getpid()}}").touch()

class Stands(BaseService):
    def cleanup(self):
        (FOLDER / "service stopped").touch()

env = LocalEnvironment("interrupted", backend={backend!r})
env.register_service("stands", Stands)
env.from_source(itertools.count).map(Works, executor="process", parallelism=2).sink(lambda item: None)
try:
    env.submit(autostop=True)
except KeyboardInterrupt as exc:
    print("interrupted:", env.job.status, env.job.notes, flush=True)
"""


@contextmanager
def running(
    folder: Path, backend: str = "threads", seconds: float = 0.01
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A script in a process group of its own that waits for its job, and the ids of its workers, whose functions take
    so many seconds for an item."""
    code = CODE.format(root=str(ROOT), folder=str(folder), backend=backend, seconds=seconds)
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, wait_for(folder, 2)
    finally:
        process.kill()
        process.communicate()


def test_an_interrupt_of_the_process_group_reaches_the_workers_only_by_the_job(tmp_path: Path) -> None:
    """The functions of the workers are closed, then the services are stopped, and all of them are gone."""
    with running(tmp_path) as (process, workers):
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT)
        assert out == "interrupted: stopped ()\n"
        assert err == ""
        assert {path.name for path in tmp_path.glob("closed *")} == {f"closed {pid}" for pid in workers}
        assert (tmp_path / "service stopped").exists()
        assert not any(map(alive, workers))


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_a_kill_of_the_process_that_submitted_ends_its_workers_which_close_what_they_opened(
    backend: str, tmp_path: Path
) -> None:
    with running(tmp_path, backend) as (process, workers):
        assert all(map(alive, workers))
        os.kill(process.pid, signal.SIGKILL)
        began = time.monotonic()
        until(lambda: not any(map(alive, workers)), SOON)
        assert time.monotonic() - began < SOON
        assert {path.name for path in tmp_path.glob("closed *")} == {f"closed {pid}" for pid in workers}


def test_a_kill_of_the_process_that_submitted_ends_workers_that_are_stuck(tmp_path: Path) -> None:
    with running(tmp_path, seconds=600) as (process, workers):
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: not any(map(alive, workers)), SOON)


def test_an_interrupt_of_a_worker_alone_changes_nothing(tmp_path: Path) -> None:
    with running(tmp_path) as (process, workers):
        for pid in workers:
            os.kill(pid, signal.SIGINT)
        for path in tmp_path.glob("pid *"):
            path.unlink()
        assert sorted(wait_for(tmp_path, 2)) == sorted(workers)
        assert process.poll() is None
