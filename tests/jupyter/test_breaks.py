"""A JobManager server whose connections break: what it stands for here does nothing else."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
import websocket

from tests.jupyter.support import JupyterServer, opened, until

_CHUNK = b"5\r\nhello\r\n"


class _Breaks(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    watched: ClassVar[list[str]] = []
    left = threading.Event()

    def do_GET(self) -> None:
        self.close_connection = True
        if "Upgrade" in self.headers:
            self.watched.append(self.path)
            key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "Upgrade")
            self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
            self.end_headers()
            self.wfile.write(b"\x83\x00")  # a frame of no known kind
            while self.rfile.read(1):
                pass
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(_CHUNK)
        if self.path == "/cut":
            threading.Event().wait(0.5)
        with contextlib.suppress(ConnectionError):
            while self.path == "/endless":
                self.wfile.write(_CHUNK)
        if self.path == "/endless":
            self.left.set()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A Jupyter server with the address of such a one."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Breaks) as breaks:
        thread = threading.Thread(target=breaks.serve_forever)
        thread.start()
        address = f"127.0.0.1:{breaks.server_port}"
        server = JupyterServer(tmp_path_factory.mktemp("broken"), **{"SageNb.address": address})
        yield server
        server.stop()
        breaks.shutdown()
        thread.join()


def test_a_connection_that_ends_in_an_error_is_made_again(broken: JupyterServer) -> None:
    with broken.page() as page:
        page.say(op="visible", visible=True)
        error = page.state(lambda server: server["state"] == "unreachable")["error"]
        assert "has ended" in error
        until(lambda: len(_Breaks.watched) >= 3)


def test_the_socket_of_a_page_ends_with_that_of_the_server(broken: JupyterServer) -> None:
    socket = opened(
        f"{broken.url}sage-nb/jobmanager/v1/watch".replace("http", "ws", 1),
        header={"Authorization": f"token {broken.token}"},
    )
    opcode, _ = socket.recv_data()
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    socket.shutdown()
    assert "Traceback" not in broken.log


def test_a_body_that_breaks_off_does_not_look_complete(broken: JupyterServer) -> None:
    with pytest.raises(http.client.IncompleteRead):
        broken.ask("GET", "sage-nb/jobmanager/cut")
    assert "Traceback" not in broken.log


def test_a_page_that_leaves_ends_the_request_and_is_no_error(broken: JupyterServer) -> None:
    socket = http.client.HTTPConnection("127.0.0.1", int(broken.url.rsplit(":", 1)[1].split("/")[0]), timeout=20)
    socket.request("GET", "/sage-nb/jobmanager/endless", headers={"Authorization": f"token {broken.token}"})
    assert socket.getresponse().read(5) == b"hello"
    socket.close()
    assert _Breaks.left.wait(20)
    assert broken.ask("GET", "api/status").status == 200
    assert "Traceback" not in broken.log
