"""Readers that are slow, or do not read: they hold up nobody but, when the log is full, their own job."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sage_nb import Job, MapFunction
from sage_nb.engine.shipping import loads_items
from sage_nb.remote.protocol import Ended, Kind, Results, head_of, records_in, unpack_buffers, writable
from sage_nb.remote.spool import Spool
from tests.faults.servers import Server
from tests.support import LIMIT, endless, until

ITEM = 2000
MANY = 30_000  # 60 MB
MORE_MEMORY = 60.0
"""MB by which the server may grow while one who does not read has 60 MB to come."""


@pytest.fixture
def small_log(runtime: Path, tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, spool_limit=1, warm=2) as server:
        yield server


class Pads(MapFunction):
    def execute(self, data: int) -> tuple[int, bytes]:
        return data, bytes(ITEM)


class Raw:
    """A watcher that reads, and says what it has taken, when it is told to."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.items: list[int] = []
        self.last = 0
        self.ended: str | None = None
        self._socket = socket

    async def watch(self, job: Job | str) -> None:
        await self._say({"op": "watch", "sub": 1, "job": str(job), "after": self.last})

    async def read_while_it_comes(self, quiet: float = 0.5) -> None:
        """Until no record has come for so long, after the first items."""
        loop = asyncio.get_running_loop()
        last, at = self.last, loop.time()
        while self.ended is None and loop.time() < at + quiet:
            with contextlib.suppress(TimeoutError):
                self._take(await self._socket.receive(quiet))
            if self.last > last or not self.items:
                last, at = self.last, loop.time()

    async def take(self) -> None:
        """Say that all that was read is kept."""
        await self._say({"op": "taken", "sub": 1, "number": self.last})

    async def read_to_the_end(self) -> None:
        while self.ended is None:
            self._take(await self._socket.receive(LIMIT))
            await self.take()

    def _take(self, message: aiohttp.WSMessage) -> None:
        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), message
        if message.type == aiohttp.WSMsgType.TEXT:
            return
        for kind, number, head, body in records_in(memoryview(message.data)[struct.calcsize("<I") :]):
            self.last = number or self.last
            said = head_of(kind, head)
            if isinstance(said, Results):
                assert said.first == len(self.items)
                self.items += [item for item, _ in loads_items(writable(unpack_buffers(body)))]
            elif isinstance(said, Ended):
                self.ended = said.status
            assert kind != Kind.RESTARTED

    async def _say(self, message: dict[str, Any]) -> None:
        await self._socket.send_str(json.dumps(message))


@contextlib.asynccontextmanager
async def raw(server: Server, **options: Any) -> AsyncIterator[Raw]:
    headers = {"Authorization": f"Bearer {server.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(f"http://127.0.0.1:{server.port}/v1/watch", max_msg_size=0, **options) as socket,
    ):
        yield Raw(socket)


def padded(server: Server, count: int) -> Job:
    env = server.env("padded")
    env.from_batch(range(count)).map(Pads).collect("out")
    return env.submit()


def test_one_who_does_not_read_and_one_who_takes_nothing_hold_up_nobody(server: Server) -> None:
    """Others have everything meanwhile, `/health` answers at once, and the server's memory stays as it is."""
    before = server.memory()
    answers: list[float] = []

    async def main() -> None:
        async with raw(server) as deaf, raw(server) as greedy:
            job = await asyncio.to_thread(padded, server, MANY)
            await deaf.watch(job)
            await greedy.watch(job)
            reading = asyncio.create_task(greedy.read_while_it_comes())
            while not job._dispatcher.done.is_set():
                began = time.monotonic()
                assert (await asyncio.to_thread(server.health)) == {"status": "ok"}
                answers.append(time.monotonic() - began)
            assert [item for item, _ in job.results["out"]] == [*range(MANY)]
            await reading
            await greedy.read_while_it_comes()
            assert 0 < len(greedy.items) < MANY, "what it has not taken is no more than 8 MB"
            assert server.memory() - before < MORE_MEMORY
            await greedy.take()
            await greedy.read_to_the_end()
            assert greedy.items == [*range(MANY)]

    asyncio.run(main())
    assert sorted(answers)[len(answers) // 2] < 0.5


def test_a_job_whose_log_is_full_waits_for_its_reader_and_goes_on_when_that_reads(small_log: Server) -> None:
    """No item is lost, and the job says what it waits for."""

    async def main() -> None:
        async with raw(small_log) as slow:
            env = small_log.env("held")
            env.from_batch(range(MANY)).map(Pads).collect("out")
            uuid = await asyncio.to_thread(small_log.client.submit_job, env.serialize())
            await slow.watch(uuid)
            await slow.read_while_it_comes()
            client = small_log.client
            for _ in range(2):
                await asyncio.to_thread(until, lambda: waits_for_a_reader(small_log, uuid))
                assert (await asyncio.to_thread(client.get_job_status, uuid))["status"] == "running"
                had = len(slow.items)
                await slow.take()
                await slow.read_while_it_comes()
                assert len(slow.items) > had
            assert size_of_log(small_log, uuid) < 40 << 20
            await slow.take()
            await slow.read_to_the_end()
            assert (slow.ended, slow.items) == ("completed", [*range(MANY)])

    asyncio.run(main())


def waits_for_a_reader(server: Server, uuid: str) -> bool:
    return "a reader" in str(server.get(f"/v1/jobs/{uuid}/snapshot").get("waiting_for"))


def size_of_log(server: Server, uuid: str) -> int:
    return sum(path.stat().st_size for path in (server.state / "jobs" / uuid).glob("*.log"))


def test_a_reader_that_goes_away_holds_up_nobody(small_log: Server) -> None:
    """What the others have had need not be kept for it."""

    async def main() -> None:
        async with raw(small_log) as slow:
            job = await asyncio.to_thread(padded, small_log, MANY)
            await slow.watch(job)
            await asyncio.to_thread(until, lambda: waits_for_a_reader(small_log, job.uuid))
            await asyncio.to_thread(until, lambda: len(job.results["out"]) > len(slow.items))
            assert job.status == "running"
        await asyncio.to_thread(job.wait, LIMIT)
        assert [item for item, _ in job.results["out"]] == [*range(MANY)]

    asyncio.run(main())


def test_items_larger_than_the_log_may_be_come_one_by_one(small_log: Server) -> None:
    env = small_log.env("large")
    env.from_source(endless, delay=0.02).take(12).map(lambda n: (n, bytes(3 << 20))).collect("out")
    job = env.submit(autostop=True)
    assert [(item, len(data)) for item, data in job.results["out"]] == [(item, 3 << 20) for item in range(12)]


def test_a_log_has_room_again_when_its_slowest_reader_has_read_or_is_there_no_more(tmp_path: Path) -> None:
    log = Spool(tmp_path, 1 << 20)
    fast, slow, slower = (log.reader(0) for _ in range(3))
    while not log.full:
        log.append(Kind.RESULTS, Results("out", 0, 1, True), [bytes(1 << 16)])
    assert not fast.took(log.last)
    assert not slower.close()
    assert log.full
    assert slow.close()
    assert not log.full
    assert log.first > 1, "what nobody waits for is let go"
    log.rest()
