"""What a server can be sent past its client."""

from __future__ import annotations

import http.client
import json
import struct
import uuid
from collections.abc import Iterable
from typing import Any, NamedTuple

from sage_nb import JobManagerServer, RemoteEnvironment
from sage_nb.remote.payload import MAGIC

__all__ = ["Answer", "ask", "new_id", "parts", "patched", "pipeline", "submit"]

LIMIT = 20.0


class Answer(NamedTuple):
    """An answer of the server's."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> tuple[str, str]:
        """The error's type and its text."""
        told = self.json["error"]
        return told["type"], told["text"]


def ask(
    server: JobManagerServer,
    method: str,
    path: str,
    body: bytes | Iterable[bytes] | None = None,
    *,
    token: str | None = "",
    headers: dict[str, str] | None = None,
) -> Answer:
    """One request; with the right token unless another is given, or None for none. An iterable goes in chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT)
    token = server.token if token == "" else token
    sent = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        connection.request(method, path, body, {**sent, **(headers or {})})
        response = connection.getresponse()
        return Answer(response.status, response.read())
    finally:
        connection.close()


def submit(server: JobManagerServer, data: bytes | Iterable[bytes], **how: Any) -> Answer:
    """Submit what may be no payload."""
    return ask(server, "PUT", f"/v1/jobs/{new_id()}", data, **how)


def new_id() -> str:
    """An id for a job."""
    return str(uuid.uuid4())


def pipeline(server: JobManagerServer) -> bytes:
    """A payload that is right: a job that gives 0 to 4 as `out`."""
    env = RemoteEnvironment("small", port=server.port)
    env.from_collection(range(5)).collect("out")
    return env.serialize()


def parts(payload: bytes) -> tuple[dict[str, Any], bytes]:
    """The head and the body of a payload."""
    begin = len(MAGIC) + 4
    (size,) = struct.unpack_from("<I", payload, len(MAGIC))
    return json.loads(payload[begin : begin + size]), payload[begin + size :]


def patched(payload: bytes, body: bytes | None = None, **changes: Any) -> bytes:
    """A payload with some of its head, or its body, changed."""
    head, old = parts(payload)
    packed = json.dumps({**head, **changes}).encode()
    return MAGIC + struct.pack("<I", len(packed)) + packed + (old if body is None else body)
