"""Nothing of the extension answers without Jupyter's login, nor to pages of other sites."""

from __future__ import annotations

import contextlib
import http.client
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import websocket
from jupyter_server.auth.security import passwd

from sage_nb_jupyter.handlers import handlers
from tests.jupyter.support import Answer, JupyterServer, Page, opened

UUID = "00000000-0000-4000-8000-000000000000"
READ = [
    "jobs",
    f"jobs/{UUID}",
    f"jobs/{UUID}/bundle",
    f"jobs/{UUID}/logs",
    "server",
    "static/jobview.js",
    "jobmanager/health",
]
ORDERS = [
    *(f"jobs/{UUID}/{order}" for order in ("stop", "pause", "resume", "notebook")),
    "server/start",
    "jobmanager/v1/jobs/1/stop",
]
SOCKETS = ["live", "jobmanager/v1/watch"]


def test_every_route_is_in_the_lists_of_this_file() -> None:
    for pattern, _ in handlers():
        assert [one for one in [*READ, *ORDERS, *SOCKETS] if re.fullmatch(pattern, f"sage-nb/{one}")], pattern


@pytest.mark.parametrize("path", [*READ, *SOCKETS])
def test_nothing_can_be_read_without_login(jupyter: JupyterServer, path: str) -> None:
    answer = jupyter.ask("GET", f"sage-nb/{path}", login=False)
    assert answer.status in (302, 403)
    assert answer.status == 403 or "/login?" in answer.headers["Location"]
    assert jupyter.ask("GET", f"sage-nb/{path}?token=wrong", login=False).status in (302, 403)


@pytest.mark.parametrize("path", ORDERS)
def test_nothing_can_be_ordered_without_login(jupyter: JupyterServer, path: str) -> None:
    assert jupyter.ask("POST", f"sage-nb/{path}", b"", login=False).status == 403
    assert jupyter.ask("GET", f"sage-nb/{path}").status in (404, 405, 503)


@pytest.mark.parametrize("path", SOCKETS)
def test_no_socket_is_opened_without_login(jupyter: JupyterServer, path: str) -> None:
    url = f"{jupyter.url}sage-nb/{path}".replace("http", "ws", 1)
    with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
        opened(url)


READERS_ONLY = """
from jupyter_server.auth.authorizer import Authorizer
class ReadersOnly(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return action == "read" or resource != "jobs"
c.ServerApp.authorizer_class = ReadersOnly
"""


def test_who_may_only_read_orders_nothing(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "jupyter_server_config.py").write_text(READERS_ONLY)
    server = JupyterServer(tmp_path)
    try:
        for path in READ:
            assert server.ask("GET", f"sage-nb/{path}").status in (200, 404, 503), path
        with server.page() as page:
            page.wait(lambda message: message["op"] == "jobs")
        for path in ORDERS:
            assert server.ask("POST", f"sage-nb/{path}", b"").status == 403, path
        for method in ("PUT", "DELETE"):
            assert server.ask(method, "sage-nb/jobmanager/v1/jobs/1", b"").status == 403
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            opened(
                f"{server.url}sage-nb/jobmanager/v1/watch".replace("http", "ws", 1),
                header={"Authorization": f"token {server.token}"},
            )
    finally:
        server.stop()


class Browser:
    """Who has logged in with the password, and has cookies."""

    def __init__(self, server: JupyterServer) -> None:
        self._server = server
        parts = urlsplit(server.url)
        self.host, self._port, self._base = f"{parts.hostname}:{parts.port}", parts.port, parts.path
        self.cookies: dict[str, str] = {}
        self.ask("GET", "login")
        form = urlencode({"password": "secret", "_xsrf": self.cookies["_xsrf"]}).encode()
        answer = self.ask("POST", "login", form, {"Content-Type": "application/x-www-form-urlencoded"})
        assert answer.status == 302, answer

    @property
    def cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        connection.request(method, self._base + path, body, {"Cookie": self.cookie, **(headers or {})})
        response = connection.getresponse()
        for line in response.headers.get_all("Set-Cookie") or ():
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        found = Answer(response.status, dict(response.getheaders()), response.read())
        connection.close()
        return found

    def socket(self, path: str, origin: str | None = None) -> Any:
        url = f"ws://{self.host}{self._base}{path}"
        return opened(url, cookie=self.cookie, origin=origin or f"http://{self.host}")


class PasswordServer(JupyterServer):
    """One that asks for a password, and has no token to check for readiness."""

    def _is_ready(self) -> bool:
        return super()._is_ready() or bool(getattr(self, "url", None) and self.ask("GET", "login").status == 200)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """As behind JupyterHub: with another base URL, without a token, and in a folder whose name is too long for a
    socket."""
    server = PasswordServer(
        tmp_path_factory.mktemp("a-folder-with-a-name-that-is-too-long-for-the-name-of-a-unix-socket-in-it"),
        **{
            "ServerApp.base_url": "/user/x/",
            "PasswordIdentityProvider.hashed_password": passwd("secret", "sha1"),
            "IdentityProvider.token": "",
        },
    )
    yield server
    socket = socket_of(server)
    assert socket.is_socket()
    server.stop()
    assert not socket.parent.exists()


def socket_of(server: JupyterServer) -> Path:
    """The socket that the server's kernels dial, as its process says."""
    listening = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    files = {f"socket:[{line[6]}]": line[7] for line in listening if len(line) > 7}
    links = Path(f"/proc/{server.process.pid}/fd").iterdir()
    (found,) = {files[link] for fd in links if (link := str(fd.readlink())) in files and "sage_nb" in files[link]}
    return Path(found)


def test_it_works_below_another_base_url_and_with_cookies(far: JupyterServer) -> None:
    browser = Browser(far)
    assert urlsplit(far.url).path == "/user/x/"
    assert browser.ask("GET", "sage-nb/jobs").json["rows"] == []
    script = browser.ask("GET", "sage-nb/static/jobview.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    assert browser.ask("GET", "sage-nb/static/nothing.js").status == 404
    assert browser.ask("GET", "sage-nb/static/..%2fview.py").status == 404
    socket = browser.socket("sage-nb/live")
    assert '"op":"jobs"' in socket.recv()
    socket.close()
    order = f"sage-nb/jobs/{UUID}/stop"
    assert browser.ask("POST", order, b"", {"X-XSRFToken": browser.cookies["_xsrf"]}).status == 404


def test_a_cookie_alone_orders_nothing_and_helps_no_other_site(far: JupyterServer) -> None:
    browser = Browser(far)
    token = {"X-XSRFToken": browser.cookies["_xsrf"]}
    elsewhere = {"Origin": "http://elsewhere.example", "Referer": "http://elsewhere.example/"}
    for path in ORDERS:
        assert browser.ask("POST", f"sage-nb/{path}", b"").status == 403
        assert browser.ask("POST", f"sage-nb/{path}", b"", {"X-XSRFToken": "wrong"}).status == 403
        assert browser.ask("POST", f"sage-nb/{path}", b"", {**token, **elsewhere}).status in (403, 404)
    assert browser.ask("GET", "sage-nb/jobs", None, elsewhere).status in (403, 404)
    for path in SOCKETS:
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            browser.socket(f"sage-nb/{path}", "http://elsewhere.example")


def test_what_makes_no_sense_ends_a_socket_of_a_page_and_no_other(jupyter: JupyterServer, page: Page) -> None:
    said_before = len(jupyter.log)
    nonsense: list[str | bytes] = [
        "", "nonsense", "[]", "1", "{}", '{"op": "dance"}', '{"op": "follow", "job": 7}',
        '{"op": "visible", "visible": 1}', "[" * 10_000, b"\xff\xfe", '{"op": "\\ud800"}',
    ]  # fmt: skip
    for text in nonsense:
        with jupyter.page() as other:
            other.send(text)
            code, why = other.closed()
            assert code == 1007
            assert why.startswith("not understood")
    with jupyter.page() as other, contextlib.suppress(ConnectionError):
        other.send("x" * 1_000_000)
        other.closed()
    page.say(op="follow", job=UUID)
    page.wait(lambda message: message == {"op": "gone", "job": UUID})
    assert "Traceback" not in jupyter.log[said_before:]
