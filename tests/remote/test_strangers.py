"""What listens at an address and is no JobManager server, and ports that are taken."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage_nb import JobManagerClient, JobManagerServer, RemoteEnvironment, attach
from sage_nb.errors import ProtocolError, ServerBusyError, ServerError, ServerUnreachableError
from tests.support import LIMIT

pytestmark = pytest.mark.usefixtures("home")

Stranger = Callable[[bytes | None], int]


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    """Makes a server that answers each connection with the same bytes, or with silence, and gives its port."""
    with contextlib.ExitStack() as stack:

        def make(answer: bytes | None) -> int:
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=serve, args=(listening, answer), daemon=True)
            thread.start()
            stack.callback(thread.join, LIMIT)
            stack.callback(listening.shutdown, socket.SHUT_RDWR)
            return int(listening.getsockname()[1])

        yield make


def serve(listening: socket.socket, answer: bytes | None) -> None:
    with contextlib.ExitStack() as connections:
        while True:
            try:
                connection = connections.enter_context(listening.accept()[0])
            except OSError:
                return
            if answer is not None:
                with contextlib.suppress(OSError):
                    connection.recv(1 << 16)
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)


def http(status: str, body: bytes, more: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    return head.encode() + body


ANSWERS: dict[str, bytes | None] = {
    "silence": None,
    "a greeting": b"220 mail.example ESMTP\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "noise": bytes(range(256)) * 10,
    "TLS": b"\x15\x03\x03\x00\x02\x02\x16",
    "a page": http("200 OK", b"<html>hello</html>", "Content-Type: text/html\r\n"),
    "a missing page": http("404 Not Found", b"<html>no</html>", "Content-Type: text/html\r\n"),
    "another place": http("302 Found", b"", "Location: http://127.0.0.1:1/\r\n"),
    "a failure": http("500 Internal Server Error", b"oh"),
    "another's JSON": http("200 OK", b'{"status": "fine"}'),
    "a list": http("200 OK", b"[]"),
    "deep JSON": http("200 OK", b"[" * 50_000),
    "nothing": http("200 OK", b""),
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
    "an error that is none": http("404 Not Found", b'{"error": "no such thing"}'),
    "endless headers": b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 100_000,
}
SOON = {"server": {"request_timeout": 0.5}}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_is_no_server_is_told_in_a_sentence(stranger: Stranger, answer: bytes | None) -> None:
    port = stranger(answer)
    began = time.monotonic()
    with pytest.raises(ServerError, match=f"127.0.0.1:{port}") as told:
        JobManagerClient(port=port, config=SOON["server"]).list_jobs()
    assert "\n" not in str(told.value)
    env = RemoteEnvironment("lost", SOON, port=port)
    env.from_collection([1]).collect("out")
    with pytest.raises(ServerError, match=f"127.0.0.1:{port}"):
        env.submit(autostop=True)
    assert time.monotonic() - began < LIMIT


def test_silence_is_not_waited_for_as_long_as_an_answer_may_take(stranger: Stranger) -> None:
    from sage_nb.remote.connection import _MEET

    assert _MEET <= 10  # seconds, where a request may take half an hour
    port = stranger(None)
    with pytest.raises(ServerError, match=r"is no JobManager server: it does not answer within 0.5 s"):
        JobManagerClient(port=port, config=SOON["server"]).health_check()


def test_a_server_that_answers_like_one_and_is_none_is_told(stranger: Stranger) -> None:
    port = stranger(http("200 OK", b'{"status": "ok"}'))
    client = JobManagerClient(port=port, config=SOON["server"])
    with pytest.raises(ServerError):
        client.submit_job(b"anything", autostop=True)


@pytest.mark.parametrize("protocol", ["0", "2", "nonsense"])
def test_a_server_of_another_protocol_is_told(stranger: Stranger, protocol: str) -> None:
    port = stranger(http("200 OK", b'{"status": "ok"}', f"X-Sage-NB-Protocol: {protocol}\r\n"))
    with pytest.raises(ProtocolError, match="install the same version on both sides"):
        JobManagerClient(port=port).list_jobs()


def test_no_server_at_all_is_told_with_how_to_start_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ServerUnreachableError, match=f"jobmanager start --port {port}"):
        attach("1", port=port)


def test_a_name_that_nobody_has_is_told() -> None:
    with pytest.raises(ServerUnreachableError, match=r"nobody\.invalid:19001"):
        JobManagerClient("nobody.invalid").list_jobs()


# Ports that are taken


def test_a_port_that_another_server_has_is_told_by_whom(server: JobManagerServer) -> None:
    with pytest.raises(ServerBusyError, match=rf"a sage_nb JobManager has the port already \(process {os.getpid()}\)"):
        JobManagerServer(port=server.port).start()
    assert JobManagerClient(port=server.port).health_check() == {"status": "ok"}


def test_a_port_that_another_program_has_is_told_by_which() -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with pytest.raises(ServerBusyError, match=rf"process {process.pid} has the port already \(.*python"):
            JobManagerServer(port=port).start()
        process.communicate("\n")


def test_an_address_that_is_not_this_machines_is_told() -> None:
    with pytest.raises(ServerError, match=r"192\.0\.2\.1"):
        JobManagerServer("192.0.2.1", 0, token="secret").start()
    with pytest.raises(ServerError, match=r"nobody\.invalid"):
        JobManagerServer("nobody.invalid", 0, token="secret").start()


def test_a_folder_that_another_server_uses_is_told(server: JobManagerServer, home: Path) -> None:
    with pytest.raises(ServerBusyError, match="another JobManager server keeps its jobs in"):
        JobManagerServer(port=0, state=home / "jobs").start()
    assert JobManagerClient(port=server.port).health_check() == {"status": "ok"}


def test_a_folder_is_free_when_its_server_has_ended(tmp_path: Path) -> None:
    for _ in range(2):
        with JobManagerServer(port=0, warm=0, state=tmp_path) as one:
            assert JobManagerClient(port=one.port).list_jobs() == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServerError, match="file"):
        JobManagerServer(port=0, warm=0, state=tmp_path / "file" / "jobs").start()
