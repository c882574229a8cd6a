"""A connection that is cut, at any moment: nothing is lost, nothing doubled, no command run twice."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from sage_nb import JobManagerClient, JobNotFoundError, MapFunction, RemoteEnvironment
from sage_nb.remote.access import notice_path, read_notice, write_notice
from tests.faults.proxies import Proxy
from tests.faults.servers import Server, hang_up
from tests.faults.support import begin, mark, wait_for
from tests.support import LIMIT, Script, until

ITEMS = 400_000
CUTS = 50


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.port) as proxy:
        yield proxy
        hang_up()


def through(proxy: Proxy, server: Server, name: str) -> RemoteEnvironment:
    """An environment that submits by way of the proxy."""
    return server.env(name, port=proxy.port, token=server.token)


def in_bursts() -> Iterator[int]:
    for item in range(ITEMS):
        if item % 4000 == 0:
            time.sleep(0.02)
        yield item


class Pads(MapFunction):
    """Makes an item large enough that some are on the wire at any moment."""

    def execute(self, data: int) -> tuple[int, str]:
        return data, f"{data:060}"


@pytest.mark.parametrize("seed", [1])
def test_results_come_once_and_in_order_however_often_the_connection_is_cut(
    server: Server, proxy: Proxy, seed: int
) -> None:
    """50 times, at random moments, while they stream."""
    env = through(proxy, server, "cut")
    env.from_batch(in_bursts).map(Pads).collect("out")
    job = env.submit()
    rng, cuts = random.Random(seed), 0
    for at in sorted(rng.sample(range(ITEMS * 9 // 10), CUTS)):
        until(lambda at=at: len(job.results["out"]) >= at)  # type: ignore[misc]
        cuts += bool(proxy.cut())
    job.wait(LIMIT)
    assert cuts > CUTS // 2, "most found a connection"
    out = [item for item, _ in job.results["out"]]
    assert len(out) == ITEMS
    assert out == [*range(ITEMS)]
    assert [operator.items_out for operator in job.progress.operators][:2] == [ITEMS, ITEMS]


# Commands whose answer is lost


@pytest.mark.parametrize("size", [0, 20 << 20], ids=["small", "large"])
def test_a_job_whose_submission_was_not_answered_is_there_once(server: Server, size: int) -> None:
    """The first time that this process speaks to the server, too."""
    with Proxy(server.port) as proxy:
        ballast = random.Random(1).randbytes(size)
        env = through(proxy, server, f"lost {size}")
        env.from_batch([1, 2, 3]).map(lambda n: n + len(ballast)).collect("out")
        proxy.swallow(b"PUT /v1/jobs/")
        job = env.submit()
        assert job.wait(LIMIT).results["out"] == [size + n for n in (1, 2, 3)]
        hang_up()
    assert proxy.swallowed == 1
    assert [one["uuid"] for one in server.client.list_jobs() if one["name"] == env.name] == [job.uuid]


class Holds(MapFunction):
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def execute(self, data: int) -> int:
        begin(self.folder)
        while not (self.folder / "go").exists() and not self.ctx.is_stop_requested():  # type: ignore[attr-defined]
            time.sleep(0.01)
        return data


def test_a_command_whose_answer_is_lost_is_run_once(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    """A second pause would be an error, and so would a second deletion."""
    env = through(proxy, server, "orders")
    env.from_batch(range(5)).map(Holds, tmp_path).collect("out")
    job = env.submit()
    wait_for(tmp_path)
    client = JobManagerClient(port=proxy.port, token=server.token)
    orders: list[tuple[bytes, Callable[[], Any]]] = [
        (b"POST", job.pause),
        (b"POST", job.resume),
        (b"POST", lambda: client.pause_job(job)),
        (b"POST", lambda: client.continue_job(job)),
        (b"POST", lambda: client.stop_job(job)),
    ]
    for method, order in orders:
        proxy.swallow(method + b" /v1/jobs/" + job.uuid.encode())
        order()
    job.wait(LIMIT)
    assert proxy.swallowed == len(orders)
    states = [one["status"] for one in server.client.job_states(job)]
    assert states[-6:] == ["paused", "running", "paused", "running", "stopping", "stopped"]
    proxy.swallow(b"DELETE /v1/jobs/")
    client.delete_job(job)
    assert proxy.swallowed == len(orders) + 1
    with pytest.raises(JobNotFoundError):
        server.client.get_job_status(job)


def test_a_token_that_is_renewed_while_a_request_is_on_its_way_is_looked_up_again(
    server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    """As when a server is started again: requests may be under way before its file is there."""
    notice = read_notice(server.port)
    assert notice is not None
    known = msgspec.structs.replace(notice, port=proxy.port)
    write_notice(known)
    env = server.env("renewed", port=proxy.port)
    env.from_batch(range(5)).map(Holds, tmp_path).collect("out")
    job = env.submit()
    wait_for(tmp_path)
    with ThreadPoolExecutor(1) as asking:
        for start in (lambda: asking.submit(env.jobmanager.list_jobs), proxy.cut):  # a request, and what watches
            write_notice(msgspec.structs.replace(known, token="of the last server"))
            proxy.hold()
            begun = start()
            assert proxy.held.wait(LIMIT)
            write_notice(known)
            proxy.release()
            assert not isinstance(begun, Future) or begun.result(LIMIT)
    mark(tmp_path, "go")
    assert job.wait(LIMIT).results["out"] == [*range(5)]
    notice_path(proxy.port).unlink()


# Clients that end while they submit


def leftovers(server: Server) -> list[str]:
    """What there is of jobs that do not exist."""
    known = {one["uuid"] for one in server.client.list_jobs()}
    return [path.name for path in server.state.glob("*.part")] + [
        path.name for path in (server.state / "jobs").iterdir() if path.name not in known
    ]


@pytest.mark.parametrize("chunked", [False, True])
def test_half_a_submission_is_none(server: Server, chunked: bool) -> None:
    env = server.env("half")
    env.from_batch([1]).collect("out")
    data = env.serialize() + bytes(1 << 20)
    uuid = str(uuid4())
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data)}"
    head = f"PUT /v1/jobs/{uuid} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n{framing}\r\n\r\n"
    body = (f"{len(data):x}\r\n".encode() if chunked else b"") + data[: len(data) // 2]
    with socket.create_connection(("127.0.0.1", server.port)) as one:
        one.sendall(head.encode() + body)
        until(lambda: leftovers(server))
    until(lambda: not leftovers(server))
    with pytest.raises(JobNotFoundError):
        server.client.get_job_status(uuid)


UPLOADS = """
from sage_nb import RemoteEnvironment
ballast = bytes(150 << 20)
env = RemoteEnvironment("killed half-way", port={port})
env.from_batch([1]).map(lambda n: len(ballast)).collect("out")
print("submits", flush=True)
env.submit()
print("submitted", flush=True)
"""


def test_a_client_that_is_killed_while_it_uploads_leaves_nothing(server: Server) -> None:
    with Script(UPLOADS.format(port=server.port)) as script:
        script.wait_for("submits")
        until(lambda: leftovers(server))
        script.kill()
        assert "submitted" not in script.end()[1]
    until(lambda: not leftovers(server))
    assert not [one for one in server.client.list_jobs() if one["name"] == "killed half-way"]
