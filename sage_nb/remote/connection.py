"""The connections to one server, on the portal's loop: pooled requests, and one WebSocket for all that is watched.

A request that may have had an effect carries an id, or is the submission of a job, which has one: so after a lost
connection it is sent again, and the server gives the first answer. The WebSocket connects again by itself, and every
subscription goes on after the last record that it got.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import struct
import time
import uuid as uuids
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any, Protocol

import aiohttp
import msgspec

from sage_nb import errors
from sage_nb.engine.buffers import Buffer, size_of
from sage_nb.engine.failure import headline
from sage_nb.errors import AccessError, ProtocolError, SageError, ServerError, ServerUnreachableError
from sage_nb.remote.access import TOKEN_VARIABLE
from sage_nb.remote.address import Address
from sage_nb.remote.portal import portal
from sage_nb.remote.protocol import PROTOCOL, PROTOCOL_HEADER, UNREADABLE, records_in
from sage_nb.remote.settings import is_loopback

__all__ = ["CLIENT", "Connection", "Subscriber"]

CLIENT = uuids.uuid4().hex
"""This process, as an owner of jobs."""
PING = 20.0
_TRY_FOR = 10.0
_TRY_LOST_FOR = 2.0
_IDLE = 10.0
_CONNECT = 10.0
_FIRST_DELAY, _LAST_DELAY = 0.05, 2.0
_TAKEN_EVERY = 256 * 1024
_TAKEN_WITHIN = 0.1
_PIECE = 1 << 20
_LOG = logging.getLogger("sage_nb.client")
_SUB = struct.Struct("<I")
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 40_000}
"""Seconds; the last one is milliseconds. A system that has no such setting uses its own."""
_MEET = 10.0
"""Seconds within which a server says that it is one."""
_NOT_TRUSTED = (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch)
_LOST = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, ConnectionError, asyncio.TimeoutError)


def _watchful_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices within a minute that the network has gone silent, also while it waits for a long answer."""
    family, kind, protocol, _, _ = address
    one = socket.socket(family, kind, protocol)
    one.setblocking(False)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            one.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return one


class Subscriber(Protocol):
    """Who watches one job. All is called on the portal's loop."""

    def record(self, kind: int, number: int, head: memoryview, body: memoryview) -> Awaitable[None] | None:
        """The next record; where an awaitable is given, the next one waits for it."""

    def watching(self, first: int, last: int) -> None:
        """The server sends from now on; it has the records from `first` to `last`."""

    def queued(self, position: int | None) -> None:
        """The job's place in the queue."""

    def lost(self, why: str) -> None:
        """There is no connection; it is tried again."""

    def caught_up(self) -> None:
        """All that was there at the beginning has come."""

    def gone(self, error: SageError) -> None:
        """Nothing more will come."""


class _Subscription:
    def __init__(
        self, number: int, uuid: str, subscriber: Subscriber, after: int, results: bool, at_once: bool
    ) -> None:
        self.number = number
        self.uuid = uuid
        self.subscriber = subscriber
        self.last = after
        self.results = results
        self.at_once = at_once
        """Whether a record is taken when it has come; else its subscriber says when."""
        self.untold = 0
        self.told = 0
        self.timer: asyncio.TimerHandle | None = None


class _NewTokenError(ConnectionError):
    """The server was restarted between the look for its token and the request, which has to be made again."""

    def __str__(self) -> str:
        return "the server was started again"


class Connection:
    """The connections of this process to one server. Everything but `use` and `done` runs on the portal's loop."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._session: aiohttp.ClientSession | None = None
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._subscriptions: dict[int, _Subscription] = {}
        self._numbers = 0
        self._feed: asyncio.Task[None] | None = None
        self._requests = 0
        self._reached = False
        """Whether the server has answered before: then it is worth to try again."""
        self._idle: asyncio.TimerHandle | None = None

    # Requests

    async def request(
        self,
        method: str,
        path: str,
        *,
        data: Any = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        patient: bool = False,
    ) -> Any:
        """The JSON answer. Raises the error that the server names, or `ServerUnreachableError`.

        `patient` commands may take as long as they do. All are safe to send again: reads, what carries an id, and a
        submission.
        """
        body = await self._try(method, path, data=data, query=query, headers=headers, patient=patient)
        try:
            return msgspec.json.decode(body) if body else None
        except UNREADABLE as exc:
            raise _stranger(self.address, "its answer is no JSON") from exc

    async def submit(self, uuid: str, pieces: Sequence[Buffer]) -> Any:
        """Submit a payload under a uuid."""
        size = sum(map(size_of, pieces))

        async def sent() -> AsyncIterator[bytes]:
            for piece in pieces:
                view = memoryview(piece).cast("B")
                for at in range(0, len(view), _PIECE):
                    yield bytes(view[at : at + _PIECE])

        def body() -> Any:
            return sent() if size > _PIECE else b"".join(pieces)

        return await self.request("PUT", f"/v1/jobs/{uuid}", data=body, headers={"Content-Length": str(size)})

    async def fetch(self, path: str) -> bytes:
        """The bytes of an answer."""
        return await self._try("GET", path)

    async def _try(
        self,
        method: str,
        path: str,
        *,
        data: Any = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        patient: bool = False,
    ) -> bytes:
        began = time.monotonic()
        headers = {**(headers or {}), **({} if method == "GET" else {"X-Request-Id": uuids.uuid4().hex})}
        delay = _FIRST_DELAY
        self._requests += 1
        try:
            while True:
                try:
                    return await self._once(method, path, headers, data() if callable(data) else data, query, patient)
                except _NOT_TRUSTED as exc:
                    raise self._not_trusted(exc) from exc
                except _LOST as exc:
                    if isinstance(exc, asyncio.TimeoutError) or time.monotonic() - began >= self._try_for(exc):
                        raise self._unreachable(exc) from exc
                except aiohttp.ClientError as exc:
                    raise _stranger(self.address, "it does not speak HTTP") from exc
                await asyncio.sleep(delay)
                delay = min(2 * delay, _LAST_DELAY)
        finally:
            self._requests -= 1
            self._rest()

    def _try_for(self, exc: BaseException) -> float:
        """Seconds for which it is worth to try again. Where somebody listens, the request may have had its effect, and
        only the answer be lost."""
        if self._reached:
            return _TRY_FOR
        return 0.0 if isinstance(exc, aiohttp.ClientConnectorError) else _TRY_LOST_FOR

    async def _once(
        self, method: str, path: str, headers: dict[str, str], data: Any, query: Any, patient: bool
    ) -> bytes:
        session, known = self._open(), self.address.headers()
        if not self._reached:
            await self._meet(session)
        total = None if patient else self.address.request_timeout
        async with session.request(
            method,
            self.address.url + path,
            data=data,
            params=query,
            headers={**known, **headers},
            timeout=aiohttp.ClientTimeout(total=total, sock_connect=_CONNECT),
            allow_redirects=False,
        ) as response:
            body = await response.read()
            self._reached = True
            if response.status == 401 and self.address.headers() != known:
                raise _NewTokenError
            if response.status >= 300:
                error = _error(response.status, body, self.address)
                if isinstance(error, AccessError) and known and self.address.token_is_from_environment:
                    raise AccessError(f"{error}, which is that of {TOKEN_VARIABLE}")
                raise error
            return body

    async def _meet(self, session: aiohttp.ClientSession) -> None:
        """Before anything is sent there: see that it is a JobManager server, as what listens may be anything, and might
        never answer."""
        limit = min(_MEET, self.address.request_timeout)
        timeout = aiohttp.ClientTimeout(total=limit, sock_connect=_CONNECT)
        try:
            async with session.get(f"{self.address.url}/health", timeout=timeout, allow_redirects=False) as response:
                status, spoken = response.status, response.headers.get(PROTOCOL_HEADER)
        except aiohttp.ServerTimeoutError:
            raise  # there is no connection
        except TimeoutError as exc:
            raise _stranger(self.address, f"it does not answer within {limit:g} s") from exc
        if spoken is None:
            raise _stranger(self.address, f"it answers {status}, and does not say that it is one")
        if spoken != str(PROTOCOL):
            raise ProtocolError(
                f"the server at {self.address} has another version of sage_nb, which speaks another language: "
                "install the same version on both sides"
            )

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            loop = portal.enter(self)
            assert loop is asyncio.get_running_loop()
            connector = aiohttp.TCPConnector(
                limit=64, keepalive_timeout=60.0, ssl=self.address.context(), socket_factory=_watchful_socket
            )
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session

    def _unreachable(self, exc: BaseException) -> ServerUnreachableError:
        if isinstance(exc, asyncio.TimeoutError):
            why = f"it does not answer within {self.address.request_timeout:g} s"
        else:
            why = _reason(exc)
        there = "" if is_loopback(self.address.host) else " there"
        return ServerUnreachableError(
            f"no JobManager server answers at {self.address}: {why}; "
            f"start one{there} with `sage-nb jobmanager start --port {self.address.port}`, or check the address"
        )

    def _not_trusted(self, exc: Exception) -> ServerError:
        why = getattr(exc, "certificate_error", None) or getattr(exc, "os_error", None) or exc
        return ServerError(
            f"no trusted connection to {self.address}: {why}; "
            'name the file with its certificate, as in config={"server": {"tls": True, "ca": "cert.pem"}}'
        )

    def _rest(self) -> None:
        """Close what nobody needs, after a while."""
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(_IDLE, lambda: loop.create_task(self.close_if_idle()))

    async def close_if_idle(self) -> None:
        """Close everything where nobody needs it. It opens again when it is needed."""
        if not self._requests and not self._subscriptions:
            await self.close()

    async def close(self) -> None:
        """Close everything; those who watch are told that nothing more will come."""
        if self._idle is not None:
            self._idle.cancel()
        self._give_up(ServerUnreachableError(f"the connection to {self.address} was closed"))
        # While it closes, others may open it again: what they open is another feed, and another session.
        feed, self._feed = self._feed, None
        session, self._session = self._session, None
        self._socket = None
        if feed is not None:
            feed.cancel()
            await asyncio.gather(feed, return_exceptions=True)
        if session is not None:
            await session.close()
        if self._session is None and not self._requests:
            portal.leave(self)

    # Watching

    def watch(
        self, uuid: str, subscriber: Subscriber, *, after: int = 0, results: bool = True, at_once: bool = True
    ) -> int:
        """Have `subscriber` told of a job, from the record after `after` on; the subscription's number. Unless
        `at_once`, the server sends 8 MB and waits until `taken` says how far the subscriber is."""
        self._numbers += 1
        one = _Subscription(self._numbers, uuid, subscriber, after, results, at_once)
        self._subscriptions[one.number] = one
        if self._feed is None or self._feed.done():
            self._feed = asyncio.get_running_loop().create_task(self._live())
        elif self._socket is not None:
            asyncio.get_running_loop().create_task(self._ask(self._socket, one))
        return one.number

    def unwatch(self, number: int) -> None:
        """Tell that subscriber nothing more."""
        one = self._subscriptions.get(number)
        if one is None:
            return
        self._drop(one)
        if self._socket is not None:
            self._tell(self._socket, {"op": "unwatch", "sub": number})
        self._rest()

    async def _live(self) -> None:
        delay, lost_at = _FIRST_DELAY, None
        while self._subscriptions:
            try:
                await self._connected()
                why, delay, lost_at = "the server closed the connection", _FIRST_DELAY, None
            except AccessError as exc:
                self._give_up(exc)
                return
            except (*_LOST, aiohttp.ClientError, ServerError) as exc:
                why = str(exc) or type(exc).__name__
            except Exception as exc:  # noqa: BLE001 - whatever it is, those who watch must not wait for nothing
                _LOG.error("the connection to %s failed", self.address, exc_info=exc)
                why = headline(exc)
            self._socket = None
            now = time.monotonic()
            lost_at = lost_at or now
            limit = self.address.reconnect_timeout
            if limit is not None and now - lost_at > limit:
                self._give_up(
                    ServerUnreachableError(f"the connection to {self.address} was lost for {limit:g} s: {why}")
                )
                return
            for one in list(self._subscriptions.values()):
                one.subscriber.lost(why)
            await asyncio.sleep(delay)
            delay = min(2 * delay, _LAST_DELAY)

    async def _connected(self) -> None:
        session, known = self._open(), self.address.headers()
        try:
            socket = await session.ws_connect(
                f"{self.address.url}/v1/watch",
                params={"client": CLIENT},
                headers=known,
                heartbeat=PING,
                max_msg_size=0,
                compress=0,
                timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
            )
        except aiohttp.WSServerHandshakeError as exc:
            if exc.status in (401, 403):
                if self.address.headers() != known:
                    raise _NewTokenError from exc
                raise AccessError(f"the server at {self.address} does not accept this token") from exc
            raise _stranger(self.address, f"it answers {exc.status}") from exc
        async with socket:
            self._socket = socket
            self._reached = True
            for one in list(self._subscriptions.values()):
                await self._ask(socket, one)
            async for message in socket:
                if message.type == aiohttp.WSMsgType.BINARY:
                    await self._records(socket, message.data)
                elif message.type == aiohttp.WSMsgType.TEXT:
                    self._said(msgspec.json.decode(message.data))

    async def _ask(self, socket: aiohttp.ClientWebSocketResponse, one: _Subscription) -> None:
        if one.number not in self._subscriptions:
            return  # it was dropped meanwhile: the server would keep for it what nobody takes
        one.untold = 0
        try:
            await socket.send_str(
                msgspec.json.encode(
                    {"op": "watch", "sub": one.number, "job": one.uuid, "after": one.last, "results": one.results}
                ).decode()
            )
        except (ConnectionError, aiohttp.ClientError):
            return  # the loop that reads sees it too, and connects again

    async def _records(self, socket: aiohttp.ClientWebSocketResponse, data: bytes) -> None:
        (number,) = _SUB.unpack_from(data)
        one = self._subscriptions.get(number)
        if one is None:
            return
        for kind, record, head, body in records_in(memoryview(data)[_SUB.size :]):
            if record and record <= one.last:
                continue
            try:
                waits = one.subscriber.record(kind, record, head, body)
                if waits is not None:
                    await waits
            except (Exception, SystemExit) as exc:  # noqa: BLE001 - what one job's records do must not end the others'
                _LOG.error("a record of job %s could not be taken in", one.uuid, exc_info=exc)
                self._drop(one)
                one.subscriber.gone(ProtocolError(f"what the server sent could not be taken in: {headline(exc)}"))
                return
            if record:
                one.last = record
        if not one.at_once:
            return
        one.untold += len(data)
        if one.untold >= _TAKEN_EVERY:
            self._taken(one)
        elif one.timer is None and one.last > one.told:
            one.timer = asyncio.get_running_loop().call_later(_TAKEN_WITHIN, self._taken, one)

    def _taken(self, one: _Subscription) -> None:
        if one.timer is not None:
            one.timer.cancel()
            one.timer = None
        one.untold, one.told = 0, one.last
        self.taken(one.number, one.last)

    def taken(self, number: int, record: int) -> None:
        """The subscriber has all records up to `record` for good."""
        if self._socket is not None and number in self._subscriptions:
            self._tell(self._socket, {"op": "taken", "sub": number, "number": record})

    def _tell(self, socket: aiohttp.ClientWebSocketResponse, message: dict[str, Any]) -> None:
        async def send() -> None:
            try:
                await socket.send_str(msgspec.json.encode(message).decode())
            except (ConnectionError, aiohttp.ClientError, RuntimeError):
                return  # as in `_ask`

        asyncio.get_running_loop().create_task(send())

    def _said(self, message: dict[str, Any]) -> None:
        one = self._subscriptions.get(message.get("sub", 0))
        if one is None:
            return
        op = message["op"]
        if op == "watching":
            one.subscriber.watching(message["first"], message["last"])
        elif op == "caught_up":
            one.subscriber.caught_up()
        elif op == "position":
            one.subscriber.queued(message["position"])
        elif op in ("gone", "error"):
            self._drop(one)
            one.subscriber.gone(_rebuilt(message["error"]))

    def _drop(self, one: _Subscription) -> None:
        self._subscriptions.pop(one.number, None)
        if one.timer is not None:
            one.timer.cancel()

    def _give_up(self, error: SageError) -> None:
        for one in list(self._subscriptions.values()):
            self._drop(one)
            one.subscriber.gone(error)


def _error(status: int, body: bytes, address: Address) -> SageError:
    try:
        told = msgspec.json.decode(body)["error"]
        return ServerError(told) if isinstance(told, str) else _rebuilt(told)  # a text is that of `/health`
    except (*UNREADABLE, KeyError, TypeError, AttributeError):
        return _stranger(address, f"it answers {status}")


def _reason(exc: BaseException) -> str:
    """Why there is no connection, as the system says it. asyncio's own words repeat the address."""
    tried = getattr(exc, "os_error", exc)
    number = getattr(tried, "errno", None)
    if isinstance(number, int) and number in errno.errorcode:
        return os.strerror(number)
    if f"[Errno {errno.ECONNREFUSED}]" in str(tried):  # of a name with several addresses, as localhost is
        return os.strerror(errno.ECONNREFUSED)
    return getattr(tried, "strerror", None) or str(exc) or type(exc).__name__


def _stranger(address: Address, why: str) -> ServerError:
    return ServerError(f"what listens at {address} is no JobManager server: {why}; check the address")


def _rebuilt(told: dict[str, Any]) -> SageError:
    """The error that the server names."""
    kind = getattr(errors, str(told.get("type")), None)
    text = str(told.get("text"))
    if isinstance(kind, type) and issubclass(kind, SageError) and kind is not errors.RemoteError:
        return kind(text)
    return ProtocolError(text)
