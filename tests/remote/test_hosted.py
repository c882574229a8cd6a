"""A job's log, as the server's threads share it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_nb.errors import JobNotFoundError
from sage_nb.remote.history import Entry
from sage_nb.remote.hosted import HostedJob
from sage_nb.remote.protocol import Kind
from sage_nb.remote.spool import Spool


@pytest.fixture
def job(tmp_path: Path) -> Iterator[HostedJob]:
    loop = asyncio.new_event_loop()
    one = HostedJob(Entry(uuid="x", name="x", environment="x"), tmp_path / "x", 1 << 20, loop)
    yield one
    one.close()
    loop.close()


def test_a_log_is_opened_once_however_many_threads_want_it_first(job: HostedJob) -> None:
    begin, found = threading.Barrier(8), list[Spool]()

    def want() -> None:
        begin.wait()
        found.append(job.spool)

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one is found[0] for one in found] == [True] * 8


def test_the_log_of_a_deleted_job_is_not_made_again(job: HostedJob) -> None:
    job.spool.append(Kind.NOTE)
    job.delete()
    assert not job.folder.exists()
    with pytest.raises(JobNotFoundError, match="was deleted"):
        job.log_lines(5)
    assert not job.folder.exists()


def test_a_log_that_was_closed_is_opened_again_where_it_ended(job: HostedJob) -> None:
    job.spool.append(Kind.NOTE)
    job.close()
    assert job.spool.append(Kind.NOTE) == 2


def test_a_job_that_waits_has_no_file_open(job: HostedJob) -> None:
    before = os.listdir("/proc/self/fd")
    job.state("queued")
    assert job.spool.last == 1
    assert os.listdir("/proc/self/fd") == before
