"""What becomes of requests that are no HTTP: they are answered and logged without what they said, as that may hold a
token."""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sage_nb.errors import ProtocolError
from sage_nb.remote.answers import error_answer

__all__ = ["Handler"]

_LOG = logging.getLogger("sage_nb.server")
_LINE = 8190
_IDLE = 75.0  # longer than a client keeps a connection that it does not use


class Handler(web.RequestHandler):
    """One connection."""

    __slots__ = ()

    def __init__(self, manager: web.Server, **more: Any) -> None:
        super().__init__(
            manager,
            access_log=None,  # type: ignore[arg-type]  # None is for no log at all
            logger=_LOG,
            keepalive_timeout=_IDLE,
            max_line_size=_LINE,
            max_field_size=_LINE,
            auto_decompress=False,
            **more,
        )

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what cannot be read as a request, or could not be answered."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        _LOG.debug("%s sent what is no HTTP: %s", request.remote, type(exc).__name__)
        response = error_answer(ProtocolError(f"this is no HTTP: {type(exc).__name__}"), status)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what went wrong here, and nothing that a sender did wrong."""
        if not isinstance(kw.get("exc_info"), (HttpProcessingError, ConnectionError)):
            super().log_exception(*args, **kw)
