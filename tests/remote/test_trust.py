"""Who is trusted with what: tokens and where they may be seen, addresses, certificates."""

from __future__ import annotations

import contextlib
import hmac
import inspect
import json
import logging
import os
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_nb import JobManagerClient, JobManagerServer, RemoteEnvironment
from sage_nb.errors import AccessError, ServerError
from sage_nb.remote import app
from sage_nb.remote.access import Notice, find_token, notice_path, read_notice, write_notice
from tests.remote.raw import ask, pipeline
from tests.remote.support import runs_a_job

# Where a token may be seen


def test_neither_log_nor_answers_have_the_token(
    server: JobManagerServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    token = str(server.token)
    answers = [
        ask(server, method, f"{path}?token={token}", b"garbage", token=token)
        for path in ("/v1/jobs", "/v1/jobs/nothing", "/nothing", "/v1/watch", "/health", "/metrics", "/v1/server",
                     "/v1/jobs/facade00-0000-0000-0000-000000000000")
        for method in ("GET", "PUT", "POST", "DELETE", "PATCH", "HEAD", "STRANGE")
    ]  # fmt: skip
    JobManagerClient(port=server.port).submit_job(pipeline(server), autostop=True)
    assert not [one for one in answers if token.encode() in one.body]
    out, err = capfd.readouterr()
    assert token not in caplog.text + out + err
    assert token not in repr(server) + repr(server.settings) + repr(JobManagerClient(port=server.port))


def test_a_given_token_is_in_no_representation(home: Path) -> None:
    server = JobManagerServer(port=0, token="very-secret")
    client = JobManagerClient(token="very-secret")
    env = RemoteEnvironment("x", token="very-secret")
    shown = [repr(one) + str(one) for one in (server, server.settings, client, client._address, env, env.config)]
    assert not [text for text in shown if "very-secret" in text]


def test_runners_do_not_have_the_token(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_NB_TOKEN", "from-the-environment")
    with JobManagerServer(port=0, warm=1, state=tmp_path) as one:
        assert one.token == "from-the-environment"
        env = RemoteEnvironment("spy", port=one.port)

        def look(path: str) -> list[str]:
            with open(path, "rb") as file:
                return [part.decode() for part in file.read().split(b"\0") if b"from-the-environment" in part]

        env.from_collection(["/proc/self/environ", "/proc/self/cmdline"]).map(look).collect("found")
        assert list(env.submit(autostop=True).results["found"]) == [[], []]


def test_a_token_from_a_file_may_end_with_a_line_end(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_NB_TOKEN", "secret\n")
    with JobManagerServer(port=0, warm=0, state=tmp_path) as one:
        assert JobManagerClient(port=one.port).list_jobs() == []
        assert ask(one, "GET", "/v1/jobs", token="secret").status == 200


def test_the_token_is_compared_in_constant_time() -> None:
    assert inspect.getsource(app._access).count("compare_digest") == 1
    assert app.hmac is hmac


# The notice


def test_the_notice_is_the_users_alone_and_goes_with_its_server(home: Path, tmp_path: Path) -> None:
    with JobManagerServer(port=0, warm=0, state=tmp_path) as one:
        path = notice_path(one.port)
        found = path.stat()
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, os.getuid())
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert json.loads(path.read_text())["token"] == one.token
    assert not path.exists()


def test_nobody_else_can_read_what_jobs_leave_in_a_folder_that_others_may_enter(home: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    before = os.umask(0o022)
    try:
        with JobManagerServer(port=0, warm=0, state=tmp_path) as one:
            runs_a_job(one)
            files = [path for path in tmp_path.rglob("*") if path.is_file()]
            assert {path.name.partition("-")[0] for path in files} >= {"history.sqlite", "lock", "payload"}
            assert [path for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    finally:
        os.umask(before)


def test_nobody_else_can_read_the_notice_at_any_moment(home: Path) -> None:
    """Whatever the process's mask, and whatever lay there: a file of the folder is looked at all the time."""
    notice = Notice(host="127.0.0.1", port=1, pid=os.getpid(), process=None, token="secret", state="/")
    path = notice_path(1)
    path.parent.mkdir(parents=True, exist_ok=True)
    done, seen = threading.Event(), set()

    def look() -> None:
        while not done.is_set():
            for one in path.parent.iterdir():
                with contextlib.suppress(FileNotFoundError), open(one, "rb") as file:
                    if b"secret" in file.read():
                        seen.add(stat.S_IMODE(os.fstat(file.fileno()).st_mode))

    thread = threading.Thread(target=look)
    mask = os.umask(0)
    thread.start()
    try:
        for _ in range(300):
            left = path.with_suffix(f".{os.getpid()}")
            left.touch()
            left.chmod(0o666)
            write_notice(notice)
    finally:
        os.umask(mask)
        done.set()
        thread.join()
    assert seen == {0o600}
    path.unlink()


@pytest.mark.parametrize("text", ["", "nonsense", "[]", '{"host": 1}', "[" * 100_000, "\ud800"])
def test_a_notice_that_cannot_be_read_is_none(home: Path, text: str) -> None:
    path = notice_path(2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, errors="surrogatepass")
    assert read_notice(2) is None
    assert find_token("127.0.0.1", 2) is None
    path.unlink()


def test_the_token_of_this_machine_is_not_sent_to_another(server: JobManagerServer) -> None:
    assert find_token("127.0.0.1", server.port) == server.token
    assert find_token("localhost", server.port) == server.token
    assert find_token("192.0.2.1", server.port) is None
    assert find_token("127.0.0.1.example.org", server.port) is None


# Servers without a token


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", "", "127.0.0.1.example.org"])
def test_a_server_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(ServerError, match="it needs a token"):
        JobManagerServer(host, 0, no_token=True)


@pytest.fixture(scope="module")
def open_server(home: Path) -> Iterator[JobManagerServer]:
    with JobManagerServer(port=0, warm=0, state=home / "open", no_token=True) as one:
        yield one


def test_a_server_without_a_token_answers_this_machine(open_server: JobManagerServer) -> None:
    assert open_server.token is None
    assert read_notice(open_server.port) is not None
    runs_a_job(open_server)


PAGES = [
    {"Origin": "https://example.org"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1.example.org"},
    {"Host": "example.org"},
    {"Host": "example.org:19001"},
    {"Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("headers", PAGES, ids=lambda one: " ".join(*one.items()))
def test_a_page_of_another_site_is_refused_where_no_token_is_asked_for(
    open_server: JobManagerServer, headers: dict[str, str]
) -> None:
    for method, path in (("GET", "/v1/jobs"), ("POST", "/v1/jobs/1/stop"), ("GET", "/v1/watch")):
        answer = ask(open_server, method, path, headers=headers, token=None)
        assert (answer.status, answer.error[0]) == (401, "AccessError")
        assert "page" in answer.error[1]


@pytest.mark.parametrize("origin", ["http://localhost:8888", "http://127.0.0.1:8888", "http://[::1]:8888"])
def test_a_page_of_this_machine_is_answered(open_server: JobManagerServer, origin: str) -> None:
    assert ask(open_server, "GET", "/v1/jobs", headers={"Origin": origin}, token=None).status == 200


# Certificates


@pytest.fixture(scope="module")
def certificate(home: Path) -> tuple[str, str]:
    """A certificate of 127.0.0.1 that nobody has signed, and its key."""
    cert, key = home / "cert.pem", home / "key.pem"
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-days", "2", "-subj", "/CN=sage_nb", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", str(key), "-out", str(cert),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    return str(cert), str(key)


@pytest.fixture(scope="module")
def safe(home: Path, certificate: tuple[str, str]) -> Iterator[JobManagerServer]:
    cert, key = certificate
    with JobManagerServer(port=0, warm=0, state=home / "safe", certfile=cert, keyfile=key) as one:
        yield one


def test_a_server_with_a_certificate_is_spoken_with_where_it_is_trusted(
    safe: JobManagerServer, certificate: tuple[str, str]
) -> None:
    config = {"server": {"tls": True, "ca": certificate[0]}}
    env = RemoteEnvironment("safe", config, port=safe.port)
    env.from_collection([1, 2]).collect("out")
    assert list(env.submit(autostop=True).results["out"]) == [1, 2]
    client = JobManagerClient(f"https://127.0.0.1:{safe.port}", config={"ca": certificate[0]})
    assert len(client.list_jobs()) == 1
    client.close()


def test_a_certificate_that_is_not_trusted_is_told_with_what_to_do(safe: JobManagerServer) -> None:
    for client in (JobManagerClient(port=safe.port), JobManagerClient(f"https://localhost:{safe.port}")):
        with pytest.raises(ServerError, match=r"no trusted connection to .*ca"):
            client.list_jobs()


def test_a_certificate_of_another_name_is_refused(safe: JobManagerServer, certificate: tuple[str, str]) -> None:
    client = JobManagerClient("https://localhost", safe.port, config={"ca": certificate[0]})
    with pytest.raises(ServerError, match="no trusted connection to localhost"):
        client.list_jobs()


def test_a_server_with_a_certificate_says_nothing_without(safe: JobManagerServer) -> None:
    with pytest.raises(OSError, match=r"."):
        ask(safe, "GET", "/health")


def test_tls_with_a_server_that_has_none_is_told(server: JobManagerServer, certificate: tuple[str, str]) -> None:
    client = JobManagerClient(port=server.port, config={"tls": True, "ca": certificate[0]})
    with pytest.raises(ServerError, match="no trusted connection"):
        client.list_jobs()


def test_certificates_that_cannot_be_used_are_named(certificate: tuple[str, str], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("nonsense")
    for path in (str(wrong), str(tmp_path / "none.pem")):
        with pytest.raises(ServerError, match=r"the certificates? .* cannot be used"):
            JobManagerServer(port=0, warm=0, state=tmp_path / "s", certfile=path).start()
        with pytest.raises(ServerError, match=r"the certificates in .* cannot be used"):
            JobManagerClient(config={"tls": True, "ca": path}).list_jobs()
    with pytest.raises(ServerError, match="a key without a certificate"):
        JobManagerServer(keyfile=certificate[1])


def test_a_wrong_token_is_refused_over_tls_too(safe: JobManagerServer, certificate: tuple[str, str]) -> None:
    with pytest.raises(AccessError):
        JobManagerClient(port=safe.port, token="wrong", config={"ca": certificate[0]}).list_jobs()
