"""What a user may say of where a server is, and of how one is to run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_nb import JobManagerClient, JobManagerServer, RemoteEnvironment
from sage_nb.errors import PipelineError, SageError, ServerError
from sage_nb.remote.address import address_of, parse
from sage_nb.remote.settings import Settings, is_loopback, state_folder

pytestmark = pytest.mark.usefixtures("home")

GOOD = {
    "localhost": ("localhost", None),
    "example.org:80": ("example.org", 80),
    "  127.0.0.1:19001 ": ("127.0.0.1", 19001),
    "https://example.org:443/": ("example.org", 443),
    "http://example.org": ("example.org", None),
    "[::1]:80": ("::1", 80),
    "[::1]": ("::1", None),
    "::1": ("::1", None),
    "fe80::1%eth0": ("fe80::1%eth0", None),
    "my_host-1": ("my_host-1", None),
}


@pytest.mark.parametrize(("text", "found"), GOOD.items(), ids=GOOD)
def test_an_address_is_host_and_port(text: str, found: tuple[str, int | None]) -> None:
    assert parse(text) == found


BAD = [
    "", " ", ":", ":80", "host:", "host:port", "host:-1", "host:1.5", "host:123456", "host:\u0663", "a:b:c", "[::1",
    "[]:80", "[::1]x", "[host]:80", "user@host", "user:word@host", "host/path", "host?token=x", "host#x", "a b", "a\nb",
    "host\\x", "ftp://host", "https://", "https://https://host", "host\0", "%68ost", "http://[::1", "::1::x",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_what_is_no_address_is_told(text: str) -> None:
    with pytest.raises(PipelineError, match=r"a server's address is HOST:PORT"):
        parse(text)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(st.sampled_from("ahs:/.[]%@?#0189 \n\u00e9-_"), max_size=20) | st.text(max_size=10))
def test_any_text_is_an_address_that_a_url_can_have_or_none(text: str) -> None:
    from yarl import URL

    try:
        host, port = parse(text)
    except PipelineError:
        return
    address = address_of(host, port or 1 if port != 0 else 1, None)
    url = URL(address.url)
    assert url.path == "/"
    assert url.user is url.password is None
    assert not url.query_string
    assert url.port == address.port
    assert parse(str(address)) == (host, address.port)


def test_the_port_of_the_host_counts_unless_another_is_given() -> None:
    assert address_of("example.org:81", None, None).port == 81
    assert address_of("example.org:81", 82, None).port == 82
    assert address_of(None, None, None).url == "http://127.0.0.1:19001"
    assert address_of("https://[::1]:5", None, None).url == "https://[::1]:5"


@pytest.mark.parametrize("port", [-1, 65536, 10**9, "80", 1.5, True, float("nan")])
def test_a_port_that_is_none_is_told(port: Any) -> None:
    with pytest.raises(PipelineError, match="a port is a number from 1 to 65535"):
        address_of("host", port, None)


def test_a_port_of_the_host_that_is_none_is_told() -> None:
    with pytest.raises(PipelineError, match="a port is a number"):
        JobManagerClient("host:0")
    with pytest.raises(PipelineError, match="a port is a number"):
        JobManagerClient("host:99999")


@pytest.mark.parametrize("host", [5, b"host", ["host"], Path("host")])
def test_a_host_that_is_no_text_is_told(host: Any) -> None:
    with pytest.raises(PipelineError, match="a server's host is a text"):
        JobManagerClient(host)


OPTIONS: list[tuple[Any, str]] = [
    ("tls", "config: server is a dict"),
    ({"tsl": True}, "did you mean 'tls'"),
    ({"request_timeout": 0}, "request_timeout is a number of seconds above 0, not 0"),
    ({"request_timeout": -1}, "request_timeout"),
    ({"request_timeout": "1"}, "request_timeout"),
    ({"request_timeout": True}, "request_timeout"),
    ({"request_timeout": float("nan")}, "request_timeout"),
    ({"request_timeout": float("inf")}, "request_timeout"),
    ({"reconnect_timeout": float("inf")}, "reconnect_timeout"),
    ({"owner_timeout": []}, "owner_timeout"),
    ({"ca": 5}, "ca is the name of a file, not 5"),
    ({5: 5}, "config: server has no 5"),
]


@pytest.mark.parametrize(("options", "told"), OPTIONS, ids=range(len(OPTIONS)))
def test_options_that_are_wrong_are_told(options: Any, told: str) -> None:
    with pytest.raises(PipelineError, match=told):
        RemoteEnvironment("x", {"server": options})
    with pytest.raises(PipelineError, match=told):
        JobManagerClient(config=options)


def test_options_that_are_none_are_as_if_not_given() -> None:
    plain = address_of("host", 1, None)
    assert address_of("host", 1, None, {"request_timeout": None, "reconnect_timeout": None, "ca": None}) == plain
    assert hash(plain) == hash(address_of("host", 1, None))


@pytest.mark.parametrize("owner", ["", "nobody", None])
def test_an_owner_that_is_none_is_told(owner: Any) -> None:
    with pytest.raises(PipelineError, match="detached or attached"):
        RemoteEnvironment("x", owner=owner)


# Settings

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"port": -1}, "a port is a number from 0 to 65535, not -1"),
    ({"port": "80"}, "a port is a number"),
    ({"port": True}, "a port is a number"),
    ({"max_running": 0}, "max_running is 1 or more, not 0"),
    ({"max_running": 1.5}, "max_running is 1 or more"),
    ({"max_running": None}, "max_running is 1 or more"),
    ({"warm": -1}, "warm is 0 or more, not -1"),
    ({"warm": "2"}, "warm is 0 or more"),
    ({"keep_jobs": 0}, "keep_jobs is 1 or more"),
    ({"keep_days": 0}, "keep_days is a number above 0"),
    ({"payload_limit": 0}, "payload_limit is a number above 0, not 0"),
    ({"payload_limit": float("inf")}, "payload_limit is a number above 0"),
    ({"payload_limit": float("nan")}, "payload_limit"),
    ({"payload_limit": None}, "payload_limit"),
    ({"spool_limit": -5}, "spool_limit"),
    ({"memory_limit": "1G"}, "memory_limit"),
    ({"backend": "thread"}, "did you mean 'threads'"),
    ({"backend": None}, "there is no backend None"),
    ({"token": "a b\n"}, "a token is"),
    ({"token": ""}, "a token is"),
    ({"max_runing": 2}, "max_runing"),
]


@pytest.mark.parametrize(("given", "told"), WRONG, ids=range(len(WRONG)))
def test_settings_that_are_wrong_are_told_in_a_sentence(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ServerError, match=told) as error:
        JobManagerServer(**{"port": 0, **given})
    assert "\n" not in str(error.value)


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(sorted(Settings.__dataclass_fields__.keys() - {"state", "ray"})), anything))
def test_any_settings_are_taken_or_refused_in_a_sentence(given: dict[str, Any]) -> None:
    try:
        taken = Settings(**given).checked()
    except SageError:
        return
    for name in ("payload_limit", "spool_limit", "memory_limit"):
        assert taken.bytes_of(name) is None or taken.bytes_of(name) >= 0  # type: ignore[operator]


LOOPBACK = {
    "127.0.0.1": True, "127.9.9.9": True, "::1": True, "localhost": True, "0.0.0.0": False, "::": False, "": False,
    "127.0.0.1.example.org": False, "127.1 example": False, "127": False, "10.0.0.1": False, "localhost.example": False,
}  # fmt: skip


@pytest.mark.parametrize(("host", "expected"), LOOPBACK.items(), ids=[name or "nothing" for name in LOOPBACK])
def test_an_address_of_this_machine_alone_is_known(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_every_port_has_a_state_folder_of_its_own() -> None:
    assert len({state_folder(port) for port in (1, 2, 3)}) == 3
