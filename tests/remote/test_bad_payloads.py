"""What is submitted and is no pipeline: the one who sent it is told what is wrong, and the server takes no harm."""

from __future__ import annotations

import http.client
import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import JobManagerClient, JobManagerServer, RemoteEnvironment
from sage_nb.errors import ProtocolError, ServerError, ShippingError, SubmitError
from sage_nb.remote.payload import MAGIC, make_payload
from sage_nb.remote.protocol import PROTOCOL, python_version
from tests.remote.raw import ask, new_id, patched, pipeline, submit
from tests.support import until


@pytest.fixture
def client(unmoved: JobManagerServer) -> JobManagerClient:
    return JobManagerClient(port=unmoved.port)


GARBAGE = [b"", b"\0", b"garbage", b"\x80\x05K\x01.", MAGIC[:5], MAGIC, bytes(range(256)) * 400]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_no_pipeline(client: JobManagerClient, unmoved: JobManagerServer, data: bytes) -> None:
    with pytest.raises(ProtocolError, match="pipeline"):
        client.submit_job(data)
    answer = submit(unmoved, data)
    assert answer.status == 400
    assert answer.error[0] == "ProtocolError"


HEADS = {
    "not JSON": b"{nonsense",
    "not Unicode": b'{"name": "\xff\xfe"}',
    "another type": b"[1, 2, 3]",
    "fields that are missing": b"{}",
    "a field of another type": json.dumps({"protocol": "one", "python": 3}).encode(),
    "far too deep": b'{"x":' * 10_000,
    "numbers without end": b'{"protocol": 1' + b"0" * 5000 + b"}",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_head_that_cannot_be_read_is_refused(client: JobManagerClient, head: bytes) -> None:
    with pytest.raises(ProtocolError, match="head of the pipeline cannot be read"):
        client.submit_job(MAGIC + struct.pack("<I", len(head)) + head + b"body")


@pytest.mark.parametrize("claim", [64 * 1024 + 1, 2 << 30, 0xFFFFFFFF])
def test_a_head_that_claims_too_much_is_refused_before_it_comes(client: JobManagerClient, claim: int) -> None:
    with pytest.raises(ProtocolError, match=f"claims {claim:,} bytes"):
        client.submit_job(MAGIC + struct.pack("<I", claim) + b"{}")


@pytest.mark.parametrize("cut", [1, 4, 100, 1000])
def test_a_pipeline_without_its_end_is_refused(client: JobManagerClient, unmoved: JobManagerServer, cut: int) -> None:
    whole = pipeline(unmoved)
    with pytest.raises(ProtocolError, match="cut off"):
        client.submit_job(whole[:-cut])


def test_a_pipeline_with_something_behind_it_is_refused(client: JobManagerClient, unmoved: JobManagerServer) -> None:
    with pytest.raises(ProtocolError, match="cut off: its body says"):
        client.submit_job(pipeline(unmoved) + b"more")


BODIES = [
    b"",
    b"\1",
    struct.pack("<I", 0xFFFFFFFF),
    struct.pack("<IQ", 1, 1 << 63),
    struct.pack("<IQQ", 2, 1, 5) + b"x",
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
def test_a_body_whose_sizes_are_wrong_is_refused(
    client: JobManagerClient, unmoved: JobManagerServer, body: bytes
) -> None:
    with pytest.raises(ProtocolError, match=r"cut off|claims"):
        client.submit_job(patched(pipeline(unmoved), body))


def test_a_body_that_is_garbage_of_the_right_size_fails_the_job_and_says_so(server: JobManagerServer) -> None:
    client = JobManagerClient(port=server.port)
    body = struct.pack("<IQQ", 2, 7, 7) + b"garbagegarbage"
    uuid = client.submit_job(patched(pipeline(server), body), autostop=True)
    status = client.get_job_status(uuid)
    assert status["status"] == "failed"
    assert "ShippingError: the pipeline could not be put together on the server" in status["error"]
    with pytest.raises(ShippingError, match="could not be put together on the server"):
        client.attach(uuid).wait()


def test_an_upload_that_breaks_off_leaves_nothing(unmoved: JobManagerServer, home: Path) -> None:
    whole = pipeline(unmoved)
    connection = http.client.HTTPConnection("127.0.0.1", unmoved.port, timeout=20)
    connection.putrequest("PUT", f"/v1/jobs/{new_id()}")
    connection.putheader("Authorization", f"Bearer {unmoved.token}")
    connection.putheader("Content-Length", str(len(whole)))
    connection.endheaders(whole[: len(whole) // 2])
    until(lambda: list((home / "jobs").glob("*.part")))
    connection.close()
    until(lambda: not list((home / "jobs").glob("*.part")))


@pytest.mark.parametrize("python", ["3.99", "2.7", "3.1", ""])
def test_a_pipeline_of_another_python_is_refused(
    client: JobManagerClient, unmoved: JobManagerServer, python: str
) -> None:
    with pytest.raises(ShippingError, match=f"made by Python {python}, and the server runs Python {python_version()}"):
        client.submit_job(patched(pipeline(unmoved), python=python))


@pytest.mark.parametrize("protocol", [0, -1, PROTOCOL + 1, 1 << 40])
def test_a_pipeline_of_another_protocol_is_refused(
    client: JobManagerClient, unmoved: JobManagerServer, protocol: int
) -> None:
    with pytest.raises(ProtocolError, match="install the same version on both sides"):
        client.submit_job(patched(pipeline(unmoved), protocol=protocol))


HEADS_OF_JOBS: list[dict[str, Any]] = [
    {"backend": "quantum"},
    {"cleanup": "sometimes"},
    {"on_error": "shrug"},
    {"timeout": -1},
]


@pytest.mark.parametrize("changes", HEADS_OF_JOBS, ids=lambda one: next(iter(one)))
def test_a_head_with_a_wrong_word_fails_the_job_and_names_it(server: JobManagerServer, changes: dict[str, Any]) -> None:
    client = JobManagerClient(port=server.port)
    uuid = client.submit_job(patched(pipeline(server), **changes), autostop=True)
    status = client.get_job_status(uuid)
    assert status["status"] == "failed"
    assert repr(next(iter(changes.values()))) in status["error"]


# What cannot travel


def test_a_function_that_captures_an_open_file_is_named_before_anything_is_sent(
    unmoved: JobManagerServer, tmp_path: Path
) -> None:
    with open(tmp_path / "log", "w") as log:
        env = RemoteEnvironment("files", port=unmoved.port)
        env.from_collection([1]).map(lambda x: log.write(str(x)), name="note").collect("out")
        with pytest.raises(ShippingError, match=r"operator 'note' \(map\).*'log'.*TextIOWrapper"):
            env.submit(autostop=True)


def test_a_function_that_captures_a_lock_is_named_before_anything_is_sent(unmoved: JobManagerServer) -> None:
    guard = threading.Lock()

    def careful(x: int) -> int:
        with guard:
            return x

    env = RemoteEnvironment("locks", port=unmoved.port)
    env.from_collection([1]).map(careful).collect("out")
    with pytest.raises(ShippingError, match=r"operator 'careful' \(map\).*'guard'.*lock"):
        env.submit(autostop=True)
    with pytest.raises(ShippingError, match="'guard'"):
        env.serialize()


# What is too large


@pytest.fixture(scope="module")
def small(home: Path) -> Iterator[JobManagerServer]:
    """A server that takes 1 MB."""
    with JobManagerServer(port=0, warm=0, state=home / "small", payload_limit=1) as one:
        yield one


LARGE = b"x" * (60 << 20)


def large(server: JobManagerServer) -> bytes:
    """A payload that is right, and too large."""
    body = struct.pack("<IQ", 1, len(LARGE)) + LARGE
    return patched(pipeline(server), body)


def test_a_pipeline_over_the_limit_is_refused_in_a_sentence(small: JobManagerServer) -> None:
    client = JobManagerClient(port=small.port)
    with pytest.raises(SubmitError, match="larger than the 1 MB that the server takes"):
        client.submit_job(large(small))
    assert client.list_jobs() == []


def test_a_pipeline_over_the_limit_that_does_not_say_its_size_is_refused_in_a_sentence(small: JobManagerServer) -> None:
    whole = patched(pipeline(small), struct.pack("<IQ", 1, 20 << 20))
    answer = submit(small, iter([whole, *[bytes(1 << 20)] * 20]))
    assert (answer.status, answer.error[0]) == (413, "SubmitError")
    assert "larger than the 1 MB" in answer.error[1]


def test_what_a_function_captures_counts_for_the_limit(small: JobManagerServer) -> None:
    env = RemoteEnvironment("large", port=small.port)
    data = bytes(40 << 20)
    env.from_collection([1]).map(lambda x: len(data) + x).collect("out")
    assert sum(map(len, make_payload(env, env._head("large")))) > 40 << 20  # goes in pieces
    with pytest.raises(SubmitError, match="larger than the 1 MB that the server takes"):
        env.submit(autostop=True)
    assert JobManagerClient(port=small.port).list_jobs() == []


def test_a_pipeline_at_the_limit_is_taken(small: JobManagerServer) -> None:
    whole = pipeline(small)
    head = len(patched(whole, b""))
    size = (1 << 20) - head - 12
    exact = patched(whole, struct.pack("<IQ", 1, size) + bytes(size))
    assert len(exact) == 1 << 20
    uuid = new_id()
    assert ask(small, "PUT", f"/v1/jobs/{uuid}", exact).status == 201
    client = JobManagerClient(port=small.port)
    client.delete_job(uuid, force=True)
    with pytest.raises(SubmitError):
        client.submit_job(exact + b"x")


def test_a_wrong_token_is_told_also_where_much_is_sent(small: JobManagerServer) -> None:
    with pytest.raises(ServerError, match="does not accept this token"):
        JobManagerClient(port=small.port, token="wrong").submit_job(large(small))
