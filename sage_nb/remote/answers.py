"""Answers of the server: JSON, and errors as JSON.

An error is `{"error": {"type": ..., "text": ...}}`: the type is one of `sage_nb.errors`, so that the client raises it
as what it is.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from sage_nb.engine.failure import safe_text
from sage_nb.errors import (
    AccessError,
    JobNotFoundError,
    JobStateError,
    ProtocolError,
    SageError,
    ServerBusyError,
    ServerError,
    ShippingError,
    SubmitError,
)

__all__ = ["error_answer", "json_answer"]

_STATUS = (
    (AccessError, 401), (JobNotFoundError, 404), (JobStateError, 409), (ShippingError, 409), (ProtocolError, 400),
    (ServerBusyError, 507), (SubmitError, 413), (ServerError, 503),
)  # fmt: skip


def error_answer(exc: SageError, status: int | None = None) -> web.Response:
    """The answer that says what is wrong."""
    if status is None:
        status = next((code for kind, code in _STATUS if isinstance(exc, kind)), 400)
    return json_answer({"error": {"type": type(exc).__name__, "text": safe_text(str(exc))}}, status)


def json_answer(data: Any, status: int = 200, *, headers: dict[str, str] | None = None) -> web.Response:
    """The answer that is `data`."""
    body = msgspec.json.encode(data)
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
