"""Requests that are wrong: who may not ask, what there is not, and what is no HTTP."""

from __future__ import annotations

import logging
import socket

import pytest

from sage_nb import JobManagerClient, JobManagerServer, RemoteEnvironment, attach
from sage_nb.errors import AccessError, JobNotFoundError, JobStateError, PipelineError, ProtocolError
from tests.remote.raw import ask, new_id, pipeline

WRONG = ["wrong", "x" * 5000, "a b"]


@pytest.mark.parametrize("token", WRONG, ids=["word", "long", "two words"])
def test_a_wrong_token_is_refused(unmoved: JobManagerServer, token: str) -> None:
    client = JobManagerClient(port=unmoved.port, token=token)
    for call in (client.list_jobs, client.get_server_info, lambda: client.submit_job(pipeline(unmoved))):
        with pytest.raises(AccessError, match="does not accept this token"):
            call()
    with pytest.raises(AccessError):
        attach("1", port=unmoved.port, token=token)


def test_a_wrong_token_of_an_environment_is_refused(unmoved: JobManagerServer) -> None:
    env = RemoteEnvironment("stranger", port=unmoved.port, token="wrong")
    env.from_collection([1]).collect("out")
    with pytest.raises(AccessError, match="does not accept this token"):
        env.submit(autostop=True)


@pytest.mark.parametrize("token", ["", " ", "a\nb", "a\r\nX-Other: 1", "tökén", " padded", "nul\0"])
def test_a_token_that_no_header_can_carry_is_refused_without_being_repeated(
    unmoved: JobManagerServer, token: str
) -> None:
    with pytest.raises(PipelineError, match="a token is") as told:
        JobManagerClient(port=unmoved.port, token=token)
    assert not token.strip() or token not in str(told.value)


PATHS = ["/v1/jobs", "/v1/server", "/metrics", "/openapi.json", "/v1/watch", "/v1/jobs/1/payload", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_but_the_health_is_told_without_a_token(unmoved: JobManagerServer, path: str) -> None:
    answer = ask(unmoved, "GET", path, token=None)
    assert (answer.status, answer.error[0]) == (401, "AccessError")
    assert "SAGE_NB_TOKEN" in answer.error[1]
    assert ask(unmoved, "GET", "/health", token=None).json == {"status": "ok"}


def test_the_token_of_the_query_is_as_good_as_the_headers(unmoved: JobManagerServer) -> None:
    assert ask(unmoved, "GET", f"/v1/jobs?token={unmoved.token}", token=None).status == 200
    assert ask(unmoved, "GET", "/v1/jobs?token=wrong", token=None).status == 401
    assert ask(unmoved, "GET", "/v1/jobs?token=%ff%fe", token=None).status == 401


# Jobs that there are not

IDS = ["nothing", "..", ".", "../server", "a/b", "%2e%2e", "?x=1", "#", " ", "", "\0", "\ud800", "ü", "9" * 5000, "0"]


@pytest.mark.parametrize("word", IDS, ids=range(len(IDS)))
def test_an_unknown_job_is_not_found(unmoved: JobManagerServer, word: str) -> None:
    client = JobManagerClient(port=unmoved.port)
    calls = (client.get_job_status, client.stop_job, client.delete_job, client.pause_job, client.job_logs,
             client.job_states, client.wait_job, client.attach, client.watch, client.continue_job)  # fmt: skip
    for call in calls:
        with pytest.raises(JobNotFoundError):
            call(word)


def test_an_ambiguous_beginning_names_the_jobs_it_could_be(server: JobManagerServer) -> None:
    client = JobManagerClient(port=server.port)
    data = pipeline(server)
    ids = [f"facade00-0000-0000-0000-00000000000{n}" for n in range(2)]
    for uuid in ids:
        client.submit_job(data, autostop=True, uuid=uuid)
    with pytest.raises(JobNotFoundError, match=r"2 jobs begin with 'facade00-'.*give more of the id"):
        client.get_job_status("facade00-")
    assert client.get_job_status(ids[1])["uuid"] == ids[1]
    with pytest.raises(JobStateError):
        client.pause_job(ids[0])


@pytest.mark.parametrize(
    "uuid",
    ["x", "A" * 36, "0" * 36, "FACADE00-0000-0000-0000-000000000000", "facade00-0000-0000-0000-00000000000"],
)
def test_a_job_cannot_be_submitted_under_what_is_no_uuid(unmoved: JobManagerServer, uuid: str) -> None:
    with pytest.raises(ProtocolError, match="a job's id is a uuid"):
        JobManagerClient(port=unmoved.port).submit_job(pipeline(unmoved), uuid=uuid)


STOPS = [b"nonsense", b"[]", b'{"timeout": -1}', b'{"timeout": "soon"}', b'{"timeout": 1e999}', b'{"x":' * 9999]


@pytest.mark.parametrize("body", STOPS, ids=range(len(STOPS)))
def test_a_stop_that_cannot_be_understood_is_refused(server: JobManagerServer, body: bytes) -> None:
    uuid = new_id()
    assert ask(server, "PUT", f"/v1/jobs/{uuid}", pipeline(server)).status == 201
    answer = ask(server, "POST", f"/v1/jobs/{uuid}/stop", body)
    assert 400 <= answer.status < 500
    assert answer.error[0] in ("ProtocolError", "JobStateError")
    assert ask(server, "DELETE", f"/v1/jobs/{uuid}?force=1").status == 200


@pytest.mark.parametrize("count", ["0", "-1", "many", "", "1e3"])
def test_a_count_of_lines_that_is_none_is_refused(server: JobManagerServer, count: str) -> None:
    uuid = new_id()
    assert ask(server, "PUT", f"/v1/jobs/{uuid}", pipeline(server)).status == 201
    assert ask(server, "GET", f"/v1/jobs/{uuid}/logs?n={count}").error[0] == "ProtocolError"
    assert ask(server, "DELETE", f"/v1/jobs/{uuid}?force=1").status == 200


# Requests that are none


def talk(server: JobManagerServer, data: bytes) -> bytes:
    """Send bytes, and give all that comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


NO_HTTP = [
    b"GET /v1/jobs?token={token} HTTP/9\r\n\r\n",
    b"GET /v1/jobs?token={token}\0 HTTP/1.1\r\n\r\n",
    b"GET /v1/jobs?token={token}&x=" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n",
    b"GET /v1/jobs HTTP/1.1\r\nAuthorization: Bearer {token}\1\r\n\r\n",
    b"GET /v1/jobs HTTP/1.1\r\nAuthorization : Bearer {token}\r\n\r\n",
    b"GET /v1/jobs HTTP/1.1\r\nAuthorization: Bearer {token}\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
    b"GET /v1/jobs HTTP/1.1\r\nAuthorization: Bearer {token}\r\n" + b"X: 1\r\n" * 1000 + b"\r\n",
    b"GET http://[?token={token} HTTP/1.1\r\n\r\n",
    b"{token} / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03{token}\r\n\r\n",
]


@pytest.mark.parametrize("data", NO_HTTP, ids=range(len(NO_HTTP)))
def test_what_is_no_http_is_answered_and_logged_without_what_it_said(
    unmoved: JobManagerServer, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = str(unmoved.token)
    answer = talk(unmoved, data.replace(b"{token}", token.encode()))
    assert answer.startswith((b"HTTP/1.0 400", b"HTTP/1.1 400"))
    assert b"ProtocolError" in answer
    assert token.encode() not in answer
    assert token not in caplog.text
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


CHUNKED = b"PUT /v1/jobs/%s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize("rest", [b"ZZ\r\nabc", b"-5\r\nabcde\r\n0\r\n\r\n", b"5\r\nabcdefgh\r\n"])
def test_a_body_whose_chunks_are_wrong_is_refused(
    unmoved: JobManagerServer, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    begin = (CHUNKED % new_id().encode()).replace(b"{token}", str(unmoved.token).encode())
    assert b" 400 Bad Request" in talk(unmoved, begin + rest)
    assert b" 400 Bad Request" in talk(unmoved, begin + b"4\r\nsage\r\n" + rest)
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_a_body_that_is_packed_is_not_unpacked(unmoved: JobManagerServer) -> None:
    answer = ask(unmoved, "PUT", f"/v1/jobs/{new_id()}", b"\x1f\x8b" + bytes(100), headers={"Content-Encoding": "gzip"})
    assert answer.error[0] == "ProtocolError"


def test_what_the_server_has_not_is_refused_as_json(unmoved: JobManagerServer) -> None:
    assert ask(unmoved, "GET", "/v1/nothing").error == (
        "ProtocolError", "there is nothing at /v1/nothing; see /openapi.json",
    )  # fmt: skip
    assert ask(unmoved, "PATCH", "/v1/jobs").status == 405
    assert ask(unmoved, "GET", "/v1/watch").status == 400
    assert ask(unmoved, "POST", "/v1/jobs/1/stop", bytes(100_000)).error[0] in ("SubmitError", "JobNotFoundError")


def test_a_repeated_command_gets_the_first_answer(server: JobManagerServer) -> None:
    uuid, same = new_id(), {"X-Request-Id": "the same"}
    assert ask(server, "PUT", f"/v1/jobs/{uuid}", pipeline(server)).status == 201
    assert ask(server, "DELETE", f"/v1/jobs/{uuid}?force=1", headers=same).json == {}
    assert ask(server, "DELETE", f"/v1/jobs/{uuid}?force=1", headers=same).json == {}
    assert ask(server, "DELETE", f"/v1/jobs/{uuid}?force=1", headers={"X-Request-Id": "another"}).status == 404
