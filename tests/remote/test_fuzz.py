"""Thousands of requests, frames and bytes that are nearly right: nothing but a clear refusal ever comes of one.

All is drawn from fixed seeds, so that every run throws the same.
"""

from __future__ import annotations

import base64
import gc
import json
import logging
import os
import random
import re
import socket
import struct
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st

from sage_nb import JobManagerClient, JobManagerServer, RemoteEnvironment
from sage_nb.errors import ProtocolError
from sage_nb.remote.payload import MAGIC, read_head
from sage_nb.remote.protocol import (
    Ended,
    Kind,
    Letter,
    Lines,
    Results,
    State,
    head_of,
    pack_buffers,
    record,
    records_in,
    unpack_buffers,
)
from tests.remote.raw import patched, pipeline
from tests.remote.support import runs_a_job
from tests.support import LIMIT, until

BATCH = 50
"""What one example throws: hypothesis draws its seed, as to draw each word would cost more than to throw it."""


def thrown(batches: int) -> Any:
    """Settings for that many examples: the same ones each time."""
    return settings(
        max_examples=batches,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,  # what fails says what was thrown
    )


# ------------------------------------------------------------------------------------------------------- what is thrown

seeds = st.integers(0, 2**32).map(random.Random)


def mutated(data: bytes, dice: random.Random) -> bytes:
    """Flip, overwrite, insert, delete, repeat, truncate, or put a huge number; some of that, up to four times."""
    found = bytearray(data)
    for doing in dice.choices("fffxidrtz", k=dice.randint(1, 4)):
        at, value = dice.randint(0, len(found)), dice.randint(0, 255)
        if doing == "f" and at < len(found):
            found[at] ^= 1 << value % 8
        elif doing == "x" and at < len(found):
            found[at] = value
        elif doing == "i":
            found[at:at] = bytes([value])
        elif doing == "d":
            del found[at : at + value % 16]
        elif doing == "r":
            found[at:at] = found[at : at + value]
        elif doing == "t":
            del found[at:]
        elif doing == "z":
            found[at : at + 8] = struct.pack("<Q", (1 << value % 65) - 1)
    return bytes(found)


class Request(NamedTuple):
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def packed(self, authorization: str) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not any(name == "Authorization" for name, _ in self.headers):
            lines.append(f"Authorization: {authorization}")
        return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + self.body


class Bases(NamedTuple):
    """What is right, and gets mutated."""

    payload: bytes
    done: str
    blocker: str


METHODS = ["GET", "PUT", "POST", "DELETE", "HEAD", "PATCH", "OPTIONS", "TRACE", "BREW", "get"]
WORDS = [
    "{done}", "{done}", "{new}", "{new}", "1", "0", "-1", "9" * 20, "%2e%2e", "%00", "%ff%fe", "%F0%9F%90%8D", "a%2Fb",
    "..", "*", "'", '"', "{}", "x" * 300, "%", "%zz", ";", "@", ":80", "[", "+",
]  # fmt: skip
TAILS = ["", "", "/", "/pause", "/continue", "/stop", "/snapshot", "/states", "/logs", "/payload", "/nothing", "//"]
QUERIES = [
    "", "", "?", "?n=5", "?n=-1", "?n=9e9", "?n=" + "9" * 400, "?n=%00", "?force=1", "?force=2", "?token=x",
    "?token=%ff", "?format=json", "?client=" + "c" * 200, "?&&&", "?=", "?n=1&n=2", "?a[]=1", "?%zz",
]  # fmt: skip
PATHS = [
    *["/v1/jobs/{word}{tail}{query}"] * 6, "/health{query}", "/metrics", "/openapi.json{query}", "/v1/server",
    "/v1/jobs{query}", "/v1/watch{query}", "/{word}", "//", "/v1",
]  # fmt: skip
HEADERS = [
    ("Authorization", "Bearer wrong"), ("Authorization", "Bearer"), ("Authorization", "Basic Og=="),
    ("Authorization", ""), ("Authorization", "Bearer " + "x" * 5000), ("X-Request-Id", "same"),
    ("X-Request-Id", "x" * 3000), ("X-Request-Id", "é"), ("Range", "bytes=0-5"), ("Range", "bytes=-1"),
    ("Range", "bytes=9-1"), ("Range", "lines=1"), ("Expect", "100-continue"), ("Expect", "miracles"),
    ("If-Modified-Since", "yesterday"), ("If-Modified-Since", "Fri, 01 Jan 2999 00:00:00 GMT"), ("If-None-Match", "*"),
    ("Content-Encoding", "gzip"), ("Content-Encoding", "br"), ("Content-Type", "multipart/form-data"),
    ("Content-Type", "application/json; charset=klingon"), ("Accept", "*/*"), ("Accept-Encoding", "gzip, deflate, br"),
    ("Origin", "null"), ("Cookie", 'a=b; ;;=; "'), ("X-Forwarded-For", "::"), ("Connection", "close"),
    ("Connection", "x"), ("Upgrade", "websocket"), ("Sec-WebSocket-Key", "short"), ("Sec-WebSocket-Version", "99"),
    ("Host", "example.org"), ("X-Odd", "\t é ü"), ("X-Empty", ""),
]  # fmt: skip
BODIES = [
    b"", b"{}", b"[]", b'{"timeout": 1}', b'{"timeout": -1}', b'{"wait": false}', b"[" * 2000, b"\xff\xfe", b"\0" * 100,
]  # fmt: skip


def wrong_request(dice: random.Random, bases: Bases) -> Request:
    """A request that is wrong in one way or more."""
    method, path, word, tail = map(dice.choice, (METHODS, PATHS, WORDS, TAILS))
    data, where = b"", dice.randint(0, 6)
    if where == 0:  # a payload: mostly its head, and the sizes in its body, as the rest is only for runners
        method, path, word, tail = "PUT", PATHS[0], "{new}", ""
        read = bases.payload.index(b"}") + 12 if dice.random() < 0.98 else len(bases.payload)
        data = mutated(bases.payload[:read], dice) + bases.payload[read:]
    elif where < 3:
        data = mutated(dice.choice(BODIES), dice)
    elif where < 5:
        path = "/" + re.sub(r"[^!-~]", "~", mutated(path[1:].encode(), dice).decode("latin-1"))
    found = path.replace("{word}", word).replace("{tail}", tail).replace("{query}", dice.choice(QUERIES))
    headers = dice.sample(HEADERS, dice.randint(0, 3))
    return Request(method, found.replace("{done}", bases.done).replace("{new}", new_uuid(dice)), headers, data)


def new_uuid(dice: random.Random) -> str:
    return str(uuid.UUID(int=dice.getrandbits(128)))


def spares(request: Request, bases: Bases) -> bool:
    """Whether it does no harm to the two jobs that there have to be."""
    word = unquote(request.path.partition("?")[0].removeprefix("/v1/jobs/").partition("/")[0])
    protected = {bases.blocker: 2} if request.method == "POST" else {bases.blocker: 2, bases.done: 1}
    if request.method not in ("POST", "DELETE"):
        return True
    return not any(one.startswith(word) or word == str(number) for one, number in protected.items())


# --------------------------------------------------------------------------------------------------------- at whom


class Target:
    """A server, what it is asked, and what it answered."""

    def __init__(self, server: JobManagerServer, bases: Bases) -> None:
        self.server = server
        self.bases = bases
        self.statuses: Counter[int] = Counter()
        self.messages = 0
        self._socket: socket.socket | None = None
        self._reading: BufferedReader | None = None

    @property
    def count(self) -> int:
        """Of requests, frames and messages."""
        return self.statuses.total() + self.messages

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.port), timeout=LIMIT)

    def ask(self, request: Request) -> None:
        """A request on a connection that is kept for the next one, unless the server has closed it meanwhile."""
        data = request.packed(f"Bearer {self.server.token}")
        is_kept = self._reading is not None
        status = self._ask(data, request.method)
        if not status and is_kept:
            status = self._ask(data, request.method)
        assert status, f"no answer to {data[:500]!r}"
        assert status < 500, f"{status} to {data[:500]!r}"
        self.statuses[status] += 1

    def _ask(self, data: bytes, method: str) -> int:
        if self._socket is None or self._reading is None:
            self._socket = self.connect()
            self._reading = self._socket.makefile("rb")
        status, stays = 0, False
        with suppress(ConnectionError):
            self._socket.sendall(data)
        with suppress(ConnectionError):
            status, stays = answer(self._reading, method)
        if not stays:
            self.hang_up()
        return status

    def hang_up(self) -> None:
        if self._socket is not None and self._reading is not None:
            self._reading.close()
            self._socket.close()
            self._socket = self._reading = None

    def throw(self, data: bytes, begin: bytes = b"", patience: float = LIMIT) -> bytes:
        """Bytes on a connection of their own; all that comes back. `begin` is sent first, and its answer awaited. Where
        nothing comes within `patience` seconds, as the server waits for more, it is told that there is no more."""
        with self.connect() as one, suppress(ConnectionError):
            found = b""
            if begin:
                one.sendall(begin)
                while b"\r\n\r\n" not in found:
                    found += one.recv(1 << 16)
            one.settimeout(patience)
            with suppress(OSError):
                one.sendall(data)
            while True:
                try:
                    piece = one.recv(1 << 16)
                except TimeoutError:
                    one.settimeout(LIMIT)
                    one.shutdown(socket.SHUT_WR)
                    continue
                if not piece:
                    break
                found += piece
        return found


def answer(reading: BufferedReader, method: str) -> tuple[int, bool]:
    """Read one answer: its status, 0 where there is none, and whether the connection goes on."""
    line = reading.readline()
    if not line:
        return 0, False
    version, status = line.split()[0], int(line.split()[1])
    headers = {}
    while (line := reading.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    if status == 100:
        return answer(reading, method)
    if status == 101:
        return status, False
    assert b"transfer-encoding" not in headers
    if method != "HEAD" and status not in (204, 304):
        size = int(headers[b"content-length"])
        body = reading.read(size)
        assert len(body) == size
        if status >= 400 and status != 417:  # of which aiohttp tells itself
            assert body[:10] == b'{"error":{', f"{status}: {body!r}"
            told = json.loads(body)["error"]
            assert told.keys() == {"type", "text"}, told
    return status, version != b"HTTP/1.0" and headers.get(b"connection", b"").lower() != b"close"


@pytest.fixture
def target(home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[Target]:
    """A server that runs one job at a time, and has one that does not end: what it takes by mistake, waits."""
    with JobManagerServer(port=0, warm=0, max_running=1, payload_limit=1, state=tmp_path) as server:
        client = JobManagerClient(port=server.port)
        payload = pipeline(server)
        done = client.submit_job(payload, autostop=True)
        env = RemoteEnvironment("blocker", port=server.port)
        env.from_source(lambda: None).collect("never")
        blocker = client.submit_job(env.serialize())
        until(lambda: client.get_job_status(blocker)["status"] == "running")
        one = Target(server, Bases(payload, done, blocker))
        yield one
        one.hang_up()
        client.close()


def throw_requests(target: Target) -> None:
    @thrown(90)
    @given(seeds)
    def ask(dice: random.Random) -> None:
        for _ in range(BATCH):
            request = wrong_request(dice, target.bases)
            if spares(request, target.bases):
                target.ask(request)

    ask()
    target.hang_up()


def throw_bytes(target: Target) -> None:
    @thrown(20)
    @given(seeds)
    def throw(dice: random.Random) -> None:
        for _ in range(BATCH):
            request = wrong_request(dice, target.bases)
            if request.method in ("POST", "DELETE"):
                request = request._replace(method="GET")
            data = mutated(request.packed(f"Bearer {target.server.token}"), dice)
            got = target.throw(data + b"\r\n\r\nGET /health HTTP/1.1\r\nConnection: close\r\n\r\n", patience=0.1)
            assert b"HTTP/1.1 5" not in got
            assert b"HTTP/1.0 5" not in got
            told = [int(one) for one in re.findall(rb"HTTP/1\.[01] ([2-9]\d\d) ", got)]
            target.statuses[told[0] if told else 0] += 1

    throw()


HANDSHAKE = (
    "GET /v1/watch{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)
VALUES = [
    0, 1, 2, -1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, 10**40, 0.5, 1e300, None, True, "", "x", "\0", "é🐍", [], {},
    [[]], {"op": "watch"}, "x" * 3000,
]  # fmt: skip
FIELDS = ["op", "sub", "job", "after", "results", "number", "more"]


def wrong_message(dice: random.Random, bases: Bases) -> str:
    """Text that is nearly what a watcher says."""
    op = dice.choice(["watch", "taken", "unwatch", "dance", ""])
    message = {"op": op, "sub": dice.randint(0, 5), "job": bases.done}
    for name in dice.sample(FIELDS, dice.randint(0, 2)):
        message[name] = dice.choice(VALUES)
    text = json.dumps(message)
    return text if dice.random() < 0.5 else mutated(text.encode(), dice).decode("utf-8", "replace")


def frame(data: bytes, *, opcode: int = 1, flags: int = 0x80, size: int | None = None) -> bytes:
    """A WebSocket frame of a client's, with the mask 0; `size` is what it claims."""
    size = len(data) if size is None else size
    if size < 126:
        head = struct.pack("!BB", flags | opcode, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", flags | opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", flags | opcode, 0x80 | 127, size)
    return head + bytes(4) + data


def handshake(target: Target, query: str = "") -> bytes:
    key = base64.b64encode(bytes(16)).decode()
    return HANDSHAKE.format(token=target.server.token, key=key, query=query).encode()


def throw_messages(target: Target) -> None:
    """On connections that stay: all is answered by their ends."""

    @thrown(75)
    @given(seeds, st.sampled_from(["", "?format=json", "?client=fuzz"]))
    def say(dice: random.Random, query: str) -> None:
        said = [frame(wrong_message(dice, target.bases).encode()) for _ in range(4 * BATCH)]
        last = json.dumps({"op": "watch", "sub": 4_000_000_000, "job": "nothing"}).encode()
        with target.connect() as one:
            one.sendall(handshake(target, query) + b"".join(said) + frame(last))
            got = b""
            while b'"gone","sub":4000000000' not in got:
                piece = one.recv(1 << 16)
                assert piece, f"hung up: {got[-200:]!r}"
                got = got[-100:] + piece
        target.messages += len(said) + 1

    say()


def throw_frames(target: Target) -> None:
    """Frames whose heads are wrong."""

    @thrown(50)
    @given(seeds)
    def throw(dice: random.Random) -> None:
        for _ in range(10):
            said = b"".join(
                frame(
                    dice.choice([b"", b"{}", b"\xff\xfe", b"x" * 200, b"\x03\xe8bye"]),
                    opcode=dice.randint(0, 15),
                    flags=dice.choice([0, 0x80, 0x80, 0xC0, 0xF0]),
                    size=dice.choice([None, None, 0, 5, 126, 2**31, 2**63]),
                )
                for _ in range(5)
            )
            said = said if dice.random() < 0.5 else mutated(said, dice)
            got = target.throw(said + frame(b"\x03\xe8", opcode=8), begin=handshake(target), patience=0.1)
            assert got.startswith(b"HTTP/1.1 101 ")
            target.messages += 5

    throw()


def sockets() -> int:
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{fd}").startswith("socket:")
    return found


def resident() -> int:
    """Bytes of memory that the process has."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.timeout(300)
def test_twenty_thousand_wrong_requests_and_frames_move_nothing(
    target: Target, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server, bases = target.server, target.bases
    client = JobManagerClient(port=server.port)
    client.close()
    open_before, threads_before, memory_before = sockets(), set(threading.enumerate()), resident()

    for throw in (throw_requests, throw_bytes, throw_messages, throw_frames):
        throw(target)

    assert target.count >= 20_000
    assert {200, 201, 400, 401, 404, 405, 409} <= target.statuses.keys()
    assert client.health_check() == {"status": "ok"}
    errors = [one for one in caplog.records if one.levelno >= logging.WARNING and one.name != "asyncio"]
    assert not errors, errors[0].getMessage()

    # What it took was a pipeline, as far as a server can tell; that waits, and is deleted like any other.
    jobs = client.list_jobs()
    taken = [job["uuid"] for job in jobs if job["uuid"] not in (bases.done, bases.blocker)]
    assert len(taken) >= target.statuses[201] > 10
    for word in taken:
        found = read_head(payload := (tmp_path / "jobs" / word / "payload").read_bytes())
        assert found is not None
        unpack_buffers(memoryview(payload)[found[1] :])
    assert {job["status"] for job in jobs} == {"queued", "running", "completed"}
    assert not list(tmp_path.glob("*.part"))
    for word in taken[3:]:
        client.delete_job(word, force=True)
    client.stop_job(bases.blocker)
    for word in taken[:3]:
        assert client.wait_job(word)["status"] in ("completed", "failed")
    runs_a_job(server)
    assert len(list((tmp_path / "jobs").iterdir())) == len(client.list_jobs())

    client.close()
    until(lambda: sockets() <= open_before)
    ours = [one for one in threading.enumerate() if one not in threads_before and not one.name.startswith("asyncio_")]
    until(lambda: not [one for one in ours if one.is_alive()])
    assert resident() - memory_before < 100 << 20


# ------------------------------------------------------------------------------------------------ what reads bytes

HEADS = [
    (Kind.STATE, State("running", 1.0)),
    (Kind.RESULTS, Results("out", 0, 3, True)),
    (Kind.LINES, Lines([(1.0, "INFO", "job", "text")], 1)),
    (Kind.LETTER, Letter("op", 1, 1.0, 2)),
    (Kind.ENDED, Ended("failed", 1.0, True, "ValueError: x", b"{}")),
]
BODY = pack_buffers([b"a" * 40, b"b" * 5])
RECORDS = b"".join(bytes(piece) for kind, head in HEADS for piece in record(kind, 1, head, BODY))
PACKED = b"".join(map(bytes, pack_buffers([b"x" * 30, b"", b"y" * 7])))
PAYLOAD = patched(
    MAGIC + struct.pack("<I", 2) + b"{}", PACKED, protocol=1, python="3.12", version="1", name="n", environment="e"
)


def refuses(read: Callable[[], Any]) -> None:
    """Whatever it reads, it may refuse it, in one way."""
    with suppress(ProtocolError):
        read()


def read_records(data: bytes) -> None:
    for kind, _, head, body in records_in(memoryview(data)):
        refuses(lambda kind=kind, head=head: head_of(kind, head))
        refuses(lambda body=body: unpack_buffers(body))


@pytest.mark.parametrize(
    ("read", "base"),
    [
        (lambda data: read_head(data), PAYLOAD),
        (read_records, RECORDS),
        (lambda data: unpack_buffers(memoryview(data)), PACKED),
        *((lambda data, kind=kind: head_of(kind, data), bytes(record(kind, 1, head)[0])[17:]) for kind, head in HEADS),
    ],
    ids=["read_head", "records_in", "unpack_buffers", *(f"head_of {kind.name}" for kind, _ in HEADS)],
)  # fmt: skip
def test_what_reads_bytes_refuses_them_in_one_way_only(read: Callable[[bytes], Any], base: bytes) -> None:
    read(base)

    @thrown(40)
    @given(seeds, st.lists(st.binary(max_size=60), max_size=20))
    def throw(dice: random.Random, garbage: list[bytes]) -> None:
        for one in [*garbage, *(mutated(base, dice) for _ in range(BATCH))]:
            refuses(lambda one=one: read(one))

    throw()
