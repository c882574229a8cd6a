"""The JobManager server, passed through behind Jupyter's login.

The page never sees the server's token: it is added here, and what the page sent to tell Jupyter who it is goes no
further. Bytes are passed on as they come, both ways.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from jupyter_server.auth.decorator import ws_authenticated
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from tornado import web
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketClosedError, WebSocketHandler

from sage_nb.errors import ServerUnreachableError
from sage_nb_jupyter.access import may
from sage_nb_jupyter.hub import Hub

if TYPE_CHECKING:
    import aiohttp
    from yarl import URL

    from sage_nb.remote.address import Address

__all__ = ["Proxy"]

_TO_SERVER = ("Accept", "Content-Type", "Range", "X-Request-Id")
_TO_PAGE = ("Content-Type", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified", "X-Sage-NB-Protocol")
_NO_BODY = ("GET", "HEAD")
_LOST = 1014
"""A WebSocket's code for what stands in between and has lost the other side."""


class Proxy(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """`sage-nb/jobmanager/PATH` is the server's `/PATH`, for HTTP and WebSockets."""

    _socket: aiohttp.ClientWebSocketResponse | None = None
    _pumping: asyncio.Task[None] | None = None

    @ws_authenticated
    @may("read")
    async def get(self, path: str) -> None:
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            await self._pass_socket(path)
        else:
            await self._pass()

    @may("execute")
    async def _pass_socket(self, path: str) -> None:
        if not self.check_origin(self.request.headers.get("Origin")):
            raise web.HTTPError(403)
        self._socket = await self._connected()
        try:
            await super().get(path)  # until the page hangs up
        finally:
            await self._socket.close()

    @web.authenticated
    @may("read")
    async def head(self, path: str) -> None:
        await self._pass()

    @web.authenticated
    @may("execute")
    async def post(self, path: str) -> None:
        await self._pass()

    @web.authenticated
    @may("execute")
    async def put(self, path: str) -> None:
        await self._pass()

    @web.authenticated
    @may("execute")
    async def delete(self, path: str) -> None:
        await self._pass()

    # HTTP

    async def _pass(self) -> None:
        import aiohttp

        session, address, url = await self._upstream()
        try:
            async with session.request(
                self.request.method or "GET",
                url,
                data=None if self.request.method in _NO_BODY else self.request.body,
                headers=self._for_server(address),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                ssl=address.context(),
                allow_redirects=False,
            ) as response:
                self.set_status(response.status)
                for name in _TO_PAGE:
                    if name in response.headers:
                        self.set_header(name, response.headers[name])
                self.set_header("X-Content-Type-Options", "nosniff")
                async for chunk in response.content.iter_any():
                    self.write(chunk)
                    await self.flush()
        except StreamClosedError:
            return  # the page has left
        except (aiohttp.ClientError, OSError) as exc:
            if self._headers_written:
                self.detach().close()  # what was cut off must not look complete
                return
            raise web.HTTPError(502, f"the JobManager server at {address} does not answer: {exc}") from exc
        self.finish()

    async def _upstream(self) -> tuple[aiohttp.ClientSession, Address, URL]:
        from yarl import URL

        hub = cast(Hub, self.settings["sage_nb_hub"])
        try:
            session, address = await hub.server.upstream()
        except ServerUnreachableError as exc:
            raise web.HTTPError(503, str(exc)) from exc
        _, _, after = (self.request.uri or "").partition("/sage-nb/jobmanager/")
        url = URL(f"{address.url}/{after}", encoded=True)
        return session, address, url.with_query([(k, v) for k, v in url.query.items() if k not in ("token", "_xsrf")])

    def _for_server(self, address: Address) -> dict[str, str]:
        found = {name: self.request.headers[name] for name in _TO_SERVER if name in self.request.headers}
        return {**found, **address.headers()}

    # WebSockets

    async def _connected(self) -> aiohttp.ClientWebSocketResponse:
        import aiohttp

        session, address, url = await self._upstream()
        try:
            return await session.ws_connect(
                url, headers=self._for_server(address), heartbeat=20.0, max_msg_size=0, ssl=address.context()
            )
        except aiohttp.WSServerHandshakeError as exc:
            raise web.HTTPError(exc.status, f"the JobManager server at {address} answers with {exc.status}") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise web.HTTPError(502, f"the JobManager server at {address} does not answer: {exc}") from exc

    def open(self, path: str) -> None:
        super().open(path)
        self._pumping = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        """From the server to the page, each message when the page has taken the one before."""
        import aiohttp

        assert self._socket is not None
        try:
            async for message in self._socket:
                if message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
                    break  # such as the error of a ping that was not answered
                await self.write_message(message.data, binary=message.type == aiohttp.WSMsgType.BINARY)
        except WebSocketClosedError:
            return
        code = self._socket.close_code
        self.close(_LOST if code in (None, 1006) else code)

    async def on_message(self, message: str | bytes) -> None:
        assert self._socket is not None
        try:
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)
        except ConnectionError:
            self.close(_LOST)

    def on_close(self) -> None:
        if self._pumping is not None:
            self._pumping.cancel()
