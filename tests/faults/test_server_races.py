"""Moments at which two threads, or two processes, meet: nobody waits for what has come already."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sage_nb import Job
from sage_nb.remote.attaching import attach_async
from sage_nb.remote.history import Entry
from sage_nb.remote.hosted import HostedJob
from sage_nb.remote.portal import portal, wait
from sage_nb.remote.protocol import Kind, Text
from sage_nb.remote.spool import Spool
from tests.faults.servers import Server
from tests.support import LIMIT


def test_a_log_is_one_however_many_ask_for_it_first(tmp_path: Path) -> None:
    """The runner's thread writes as the server's loop begins to read, which would wait for ever if there were two."""
    threads = 4
    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(threads) as pool:
        for number in range(100):
            job = HostedJob(Entry(uuid="a", name="a", environment="a"), tmp_path / str(number), 1 << 20, loop)
            together = threading.Barrier(threads)

            def write(job: HostedJob = job, together: threading.Barrier = together) -> Spool:
                together.wait(LIMIT)
                spool = job.spool
                spool.append(Kind.NOTE, Text("hello"))
                return spool

            first, *others = [one.result() for one in [pool.submit(write) for _ in range(threads)]]
            assert all(one is first for one in others)
            found = first.reader(0).read()
            assert found is not None
            assert found[1] == threads
            job.close()
    loop.close()


def test_one_who_watches_while_the_connections_are_closed_hears_all(server: Server) -> None:
    """They are closed when nobody has needed them for a while, which may be just now."""
    env = server.env("late")
    env.from_batch([1, 2]).collect("out")
    job = env.submit(autostop=True)
    connection = server.client._connection

    async def both() -> Job:
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)  # it waits for its feed to end
        late = await attach_async(connection, await connection.request("GET", f"/v1/jobs/{job.uuid}"))
        await closing
        return late

    for _ in range(3):
        assert server.client.attach(job).wait(LIMIT).results["out"] == [1, 2]
        assert wait(portal.run(both())).wait(LIMIT).results["out"] == [1, 2]


def test_closing_a_client_leaves_the_handles_of_others_alone(server: Server) -> None:
    env = server.env("open")
    env.from_source(lambda: 1, delay=0.01).take(100).collect("out")
    job = env.submit()
    server.client.close()
    assert job.wait(LIMIT).results["out"] == [1] * 100


def test_requests_come_through_while_idle_connections_are_closed(server: Server) -> None:
    """From many threads, however often."""
    ended = threading.Event()

    def closes() -> None:
        while not ended.is_set():
            server.client.close()

    def asks() -> int:
        return sum(server.client.health_check() == {"status": "ok"} for _ in range(50))

    with ThreadPoolExecutor(5) as pool:
        closing = pool.submit(closes)
        asking = [pool.submit(asks) for _ in range(4)]
        try:
            assert [one.result(LIMIT) for one in asking] == [50] * 4
        finally:
            ended.set()
        closing.result(LIMIT)
