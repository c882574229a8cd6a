"""Watchers that say what makes no sense: they are told so, or hung up on, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from sage_nb import JobManagerClient, JobManagerServer
from sage_nb.remote.protocol import Kind, records_in
from tests.remote.raw import pipeline

LIMIT = 20.0


class Watcher:
    """A connection of a watcher's."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def say(self, **message: Any) -> None:
        await self.socket.send_str(json.dumps(message))

    async def hear(self) -> Any:
        """The next message: JSON, or bytes, or why the server has hung up."""
        message = await self.socket.receive(timeout=LIMIT)
        if message.type == aiohttp.WSMsgType.TEXT:
            return json.loads(message.data)
        if message.type == aiohttp.WSMsgType.BINARY:
            return message.data
        return self.socket.close_code

    async def hear_until(self, op: str) -> Any:
        """The next JSON message of that kind."""
        while True:
            found = await self.hear()
            assert not isinstance(found, int), f"hung up with {found}"
            if isinstance(found, dict) and found["op"] == op:
                return found

    async def records(self, sub: int, last: int) -> list[tuple[int, int]]:
        """Kinds and numbers of records, up to that of number `last`."""
        found: list[tuple[int, int]] = []
        while not found or found[-1][1] < last:
            message = await self.hear()
            assert not isinstance(message, int), f"hung up with {message}"
            if isinstance(message, bytes):
                assert struct.unpack_from("<I", message) == (sub,)
                pieces = records_in(memoryview(message)[4:])
                found += [(kind, number) for kind, number, _, _ in pieces if kind != Kind.SNAPSHOT]
        return found


@asynccontextmanager
async def watcher(server: JobManagerServer, query: str = "") -> AsyncIterator[Watcher]:
    headers = {"Authorization": f"Bearer {server.token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.ws_connect(f"http://127.0.0.1:{server.port}/v1/watch{query}", max_msg_size=0) as socket,
    ):
        yield Watcher(socket)


def talked(server: JobManagerServer, talk: Callable[[Watcher], Awaitable[None]]) -> None:
    """Have a watcher talk."""

    async def run() -> None:
        async with watcher(server) as one:
            await talk(one)

    asyncio.run(run())


@pytest.fixture(scope="module")
def job(server: JobManagerServer) -> str:
    """A job that has ended."""
    return JobManagerClient(port=server.port).submit_job(pipeline(server), autostop=True)


@pytest.fixture(autouse=True)
def _logs_no_error(caplog: pytest.LogCaptureFixture, unmoved: JobManagerServer) -> Any:
    yield
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING]


NONSENSE = [
    "", "nonsense", "[]", "1", "null", "{}", '{"op": "watch"}', '{"op": 1, "sub": 1}', '{"op": "watch", "sub": "1"}',
    '{"op": "watch", "sub": 1.5}', '{"op": "watch", "sub": null}', '{"op": "watch", "sub": 1, "job": 7}',
    '{"op": "watch", "sub": 1, "job": "x", "after": "0"}', '{"op": "watch", "sub": 1, "results": "yes"}',
    '{"op": "watch", "sub": -1, "job": "x"}', '{"op": "watch", "sub": 4294967296, "job": "x"}',
    '{"op": "watch", "sub": 1e999, "job": "x"}', '{"op": "watch", "sub": 1' + "0" * 5000 + "}",
    "[" * 60_000, '{"x":' * 10_000, '{"op": "\\ud800", "sub": 1}',
]  # fmt: skip


@pytest.mark.parametrize("text", NONSENSE, ids=range(len(NONSENSE)))
def test_what_is_not_understood_is_told_and_the_connection_stays(server: JobManagerServer, job: str, text: str) -> None:
    async def talk(one: Watcher) -> None:
        await one.socket.send_str(text)
        told = await one.hear()
        assert (told["op"], told["error"]["type"]) == ("error", "ProtocolError")
        await one.say(op="watch", sub=1, job=job)
        assert (await one.hear_until("watching"))["job"] == job

    talked(server, talk)


def test_an_order_that_there_is_not_is_told(server: JobManagerServer) -> None:
    async def talk(one: Watcher) -> None:
        await one.say(op="dance", sub=3)
        told = await one.hear()
        assert (told["op"], told["sub"]) == ("error", 3)
        assert "dance" in told["error"]["text"]

    talked(server, talk)


@pytest.mark.parametrize("word", ["nothing", "", "..", "\0", "9" * 1000, "ü"])
def test_watching_an_unknown_job_ends_that_subscription_only(server: JobManagerServer, job: str, word: str) -> None:
    async def talk(one: Watcher) -> None:
        await one.say(op="watch", sub=1, job=word)
        told = await one.hear()
        assert (told["op"], told["sub"], told["error"]["type"]) == ("gone", 1, "JobNotFoundError")
        await one.say(op="watch", sub=1, job=job)
        await one.hear_until("watching")

    talked(server, talk)


def test_a_number_in_use_is_refused_and_goes_on(server: JobManagerServer, job: str) -> None:
    async def talk(one: Watcher) -> None:
        await one.say(op="watch", sub=7, job=job)
        last = (await one.hear_until("watching"))["last"]
        await one.say(op="watch", sub=7, job=job)
        assert "in use" in (await one.hear_until("error"))["error"]["text"]
        await one.say(op="unwatch", sub=7)
        await one.say(op="watch", sub=7, job=job)
        await one.hear_until("watching")
        assert (await one.records(7, last))[-1][1] == last

    talked(server, talk)


def test_words_on_subscriptions_that_there_are_not_change_nothing(server: JobManagerServer, job: str) -> None:
    async def talk(one: Watcher) -> None:
        await one.say(op="taken", sub=5, number=3)
        await one.say(op="unwatch", sub=5)
        await one.say(op="watch", sub=5, job=job)
        assert (await one.hear())["op"] == "watching"

    talked(server, talk)


@pytest.mark.parametrize("after", [10**6, 2**63, 10**30, -1, -(10**30)])
def test_a_place_that_is_no_place_is_the_nearest_one(server: JobManagerServer, job: str, after: int) -> None:
    async def talk(one: Watcher) -> None:
        await one.say(op="watch", sub=1, job=job, after=after)
        watching = await one.hear_until("watching")
        if after < 0:
            numbers = [number for _, number in await one.records(1, watching["last"])]
            assert numbers == [*range(watching["first"], watching["last"] + 1)]
        await one.hear_until("caught_up")

    talked(server, talk)


@pytest.mark.parametrize("number", [0, -1, 10**6, 2**64, 10**30, -(10**30)])
def test_what_cannot_have_been_taken_is_not_believed(server: JobManagerServer, job: str, number: int) -> None:
    async def talk(one: Watcher) -> None:
        await one.say(op="watch", sub=1, job=job)
        await one.say(op="taken", sub=1, number=number)
        last = (await one.hear_until("watching"))["last"]
        assert [n for _, n in await one.records(1, last)] == [*range(1, last + 1)]
        await one.say(op="taken", sub=1, number=number)
        await one.say(op="watch", sub=2, job=job)
        await one.hear_until("watching")
        assert [n for _, n in await one.records(2, last)] == [*range(1, last + 1)]

    talked(server, talk)


@pytest.mark.parametrize("sub", [0, 1, 2**31, 2**32 - 1])
def test_every_number_of_32_bits_is_one_for_a_subscription(server: JobManagerServer, job: str, sub: int) -> None:
    async def talk(one: Watcher) -> None:
        await one.say(op="watch", sub=sub, job=job)
        last = (await one.hear_until("watching"))["last"]
        assert (await one.records(sub, last))[-1][1] == last

    talked(server, talk)


def test_a_binary_message_is_hung_up_on(server: JobManagerServer) -> None:
    async def talk(one: Watcher) -> None:
        await one.socket.send_bytes(b'{"op": "watch", "sub": 1}')
        assert await one.hear() == 1003

    talked(server, talk)


def test_a_message_of_a_megabyte_is_hung_up_on(server: JobManagerServer) -> None:
    async def talk(one: Watcher) -> None:
        await one.socket.send_str("x" * (1 << 20))
        assert await one.hear() == 1009

    talked(server, talk)


def test_a_text_that_is_no_unicode_is_hung_up_on(server: JobManagerServer) -> None:
    async def talk(one: Watcher) -> None:
        await one.socket.send_frame(b"\xff\xfe", aiohttp.WSMsgType.TEXT)
        assert await one.hear() == 1007

    talked(server, talk)


def test_a_page_is_sent_text_alone(server: JobManagerServer, job: str) -> None:
    async def run() -> None:
        async with watcher(server, "?format=json") as one:
            await one.say(op="watch", sub=2**32 - 1, job=job)
            while True:
                told = await one.hear()
                assert isinstance(told, dict)
                assert told.get("kind") not in ("RESULTS", "LETTER")
                if told.get("kind") == "ENDED":
                    return

    asyncio.run(run())


def test_a_job_that_is_deleted_is_gone_for_its_watchers(server: JobManagerServer, home: Any) -> None:
    client = JobManagerClient(port=server.port)
    uuid = client.submit_job(pipeline(server), autostop=True)

    async def talk(one: Watcher) -> None:
        await one.say(op="watch", sub=1, job=uuid)
        last = (await one.hear_until("watching"))["last"]
        await asyncio.to_thread(client.delete_job, uuid)
        told = await one.hear_until("gone")
        assert told["error"] == {"type": "JobNotFoundError", "text": "the job was deleted"}
        await one.say(op="taken", sub=1, number=last)
        await one.say(op="watch", sub=2, job=uuid)
        await one.hear_until("gone")

    talked(server, talk)
    assert not (home / "jobs" / "jobs" / uuid).exists()
