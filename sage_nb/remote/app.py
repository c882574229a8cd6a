"""The HTTP side of a server: who may ask, and what can be asked.

A request with an effect carries an id of the client's making in `X-Request-Id`; a repeat gets the first answer.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import time
import uuid as uuids
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from yarl import URL

import sage_nb
from sage_nb.errors import (
    AccessError,
    JobNotFoundError,
    JobStateError,
    ProtocolError,
    SageError,
    ServerError,
    ShippingError,
    SubmitError,
)
from sage_nb.remote import metrics
from sage_nb.remote.answers import error_answer, json_answer
from sage_nb.remote.core import Core
from sage_nb.remote.hosted import HostedJob
from sage_nb.remote.openapi import description
from sage_nb.remote.payload import HEAD_LIMIT, MAGIC, PayloadHead, check_body, read_head
from sage_nb.remote.protocol import PROTOCOL, PROTOCOL_HEADER, UNREADABLE, python_version
from sage_nb.remote.settings import is_loopback
from sage_nb.remote.watching import MESSAGE_LIMIT, Watching

__all__ = ["make_app"]

_LOG = logging.getLogger("sage_nb.server")


class _Sockets(set[web.WebSocketResponse]):
    """The WebSockets that are open."""


_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CORE = web.AppKey("core", Core)
_SOCKETS: web.AppKey[_Sockets] = web.AppKey("sockets", _Sockets)
_OPEN = frozenset({"/health"})
_REPEATS = 10_000
_HELLO = {PROTOCOL_HEADER: str(PROTOCOL)}
_JSON_LIMIT = 64 * 1024
PING = 20.0
"""Seconds between pings; a connection that does not answer half of that long is dead."""


def make_app(core: Core, token: str | None) -> web.Application:
    """The application that answers for `core`. Without a token anybody may ask."""
    limit = core.settings.bytes_of("payload_limit")
    assert limit is not None
    app = web.Application(
        middlewares=[_errors, _access(token), _repeats()],
        client_max_size=_JSON_LIMIT,
    )
    app[_CORE] = core
    app[_SOCKETS] = _Sockets()
    app.add_routes(
        [
            web.get("/health", _health),
            web.get("/metrics", _metrics),
            web.get("/openapi.json", _openapi),
            web.get("/v1/server", _server),
            web.get("/v1/jobs", _list),
            web.put("/v1/jobs/{job}", _submit),
            web.get("/v1/jobs/{job}", _status),
            web.delete("/v1/jobs/{job}", _delete),
            web.post("/v1/jobs/{job}/pause", _pause),
            web.post("/v1/jobs/{job}/continue", _continue),
            web.post("/v1/jobs/{job}/stop", _stop),
            web.get("/v1/jobs/{job}/snapshot", _snapshot),
            web.get("/v1/jobs/{job}/states", _states),
            web.get("/v1/jobs/{job}/logs", _logs),
            web.get("/v1/jobs/{job}/payload", _payload),
            web.get("/v1/watch", _watch),
        ]
    )
    app.on_shutdown.append(_hang_up)
    return app


async def _hang_up(app: web.Application) -> None:
    sockets = app[_SOCKETS]
    for socket in list(sockets):
        await socket.close(code=1001, message=b"the server is stopping")


# --------------------------------------------------------------------------------------------- around every request


@web.middleware
async def _errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except SageError as exc:
        return error_answer(exc)
    except web.HTTPRequestEntityTooLarge:
        return error_answer(SubmitError(f"the request is larger than {_JSON_LIMIT:,} bytes"), 413)
    except web.HTTPException as exc:
        if exc.status == 404:
            return error_answer(ProtocolError(f"there is nothing at {request.path}; see /openapi.json"), 404)
        return error_answer(ProtocolError(f"{request.method} {request.path}: {exc.text}"), exc.status)
    except web.RequestPayloadError as exc:
        return error_answer(ProtocolError(f"the body of the request cannot be read: {type(exc.__cause__).__name__}"))
    except (asyncio.CancelledError, ConnectionError):
        raise
    except Exception as exc:  # noqa: BLE001 - the one who asked is told, and so is the log
        _LOG.exception("%s %s failed", request.method, request.path)  # the path alone: a query may hold a token
        return error_answer(ServerError(f"the server failed: {type(exc).__name__}; its log says more"), 500)


def _access(token: str | None) -> Any:
    expected = None if token is None else token.encode()

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        if expected is None:
            if _is_of_another_site(request):
                raise AccessError("a page of another site may not ask a server that needs no token")
        elif request.path not in _OPEN:
            given = _token_of(request)
            if given is None:
                raise AccessError("the server needs a token: set SAGE_NB_TOKEN, or pass token=")
            if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected):
                raise AccessError("the server does not accept this token")
        return await handler(request)

    return check


def _is_of_another_site(request: web.Request) -> bool:
    """Whether a browser asks, for a page that is not from this machine: any page may have it do that, or have a name of
    its own lead here."""
    if request.headers.get("Sec-Fetch-Site") == "cross-site":
        return True
    try:
        hosts = [URL(f"http://{request.host}").host]
        if (origin := request.headers.get("Origin")) is not None:
            hosts.append(URL(origin).host)
    except ValueError:
        return True
    return not all(is_loopback(host or "") for host in hosts)


def _token_of(request: web.Request) -> str | None:
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token") and value:
        return value.strip()
    return request.query.get("token")  # a page cannot set headers of a WebSocket


def _repeats() -> Any:
    """Answer a repeated command with the first answer."""
    answers: OrderedDict[str, asyncio.Future[tuple[int, bytes]]] = OrderedDict()

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        key = request.headers.get("X-Request-Id")
        if key is None or request.method not in ("POST", "DELETE"):
            return await handler(request)
        await request.read()  # one whose body is cut off is no command yet
        key = f"{request.method} {request.path} {key[:100]}"
        known = answers.get(key)
        if known is None:
            known = answers[key] = asyncio.ensure_future(_answer(request, handler))
            while len(answers) > _REPEATS:
                answers.popitem(last=False)
        # The command goes on when the one who asked has gone: its repeat gets the answer.
        status, body = await asyncio.shield(known)
        return web.Response(body=body, status=status, content_type="application/json")

    return check


async def _answer(request: web.Request, handler: _Handler) -> tuple[int, bytes]:
    try:
        response = await handler(request)
    except SageError as exc:
        response = error_answer(exc)
    assert isinstance(response, web.Response)
    return response.status, bytes(response.body or b"")  # type: ignore[arg-type]


# -------------------------------------------------------------------------------------------------- about the server


async def _health(request: web.Request) -> web.Response:
    core = request.app[_CORE]
    if core.history_error is not None:
        return json_answer({"status": "degraded", "error": core.history_error}, 503, headers=_HELLO)
    return json_answer({"status": "ok"}, headers=_HELLO)


async def _metrics(request: web.Request) -> web.Response:
    text = metrics.exposition(request.app[_CORE])
    return web.Response(text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


async def _openapi(_request: web.Request) -> web.Response:
    return json_answer(description())


async def _server(request: web.Request) -> web.Response:
    core = request.app[_CORE]
    return json_answer(
        {
            "version": sage_nb.__version__,
            "protocol": PROTOCOL,
            "python": python_version(),
            "pid": os.getpid(),
            "backend": core.settings.backend,
            "max_running": core.settings.max_running,
            "running": len(core.running),
            "queued": len(core.queue),
            "known": len(core.jobs),
            "warm": core.pool.warm,
            "uptime": time.time() - core.began,
            "history_error": core.history_error,
        }
    )


# -------------------------------------------------------------------------------------------------------- about jobs


async def _job(request: web.Request) -> HostedJob:
    core, word = request.app[_CORE], request.match_info["job"]
    await core.settled(word)
    return core.find(word)


async def _list(request: web.Request) -> web.Response:
    return json_answer(request.app[_CORE].summaries())


async def _status(request: web.Request) -> web.Response:
    return json_answer(request.app[_CORE].status(await _job(request)))


async def _submit(request: web.Request) -> web.Response:
    core = request.app[_CORE]
    uuid = request.match_info["job"]
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", uuid):
        raise ProtocolError(f"a job's id is a uuid in lower case, not {uuid[:60]!r}")
    if uuid in core.jobs:
        return json_answer(core.status(core.jobs[uuid]))
    part = core.state / f"{uuid}.{uuids.uuid4().hex}.part"
    try:
        head = await _receive(request, part)
        job, new = await core.submit(uuid, head, part)
    except OSError as exc:
        if isinstance(exc, (SageError, ConnectionError)):
            raise
        raise core.no_room(exc) from exc
    finally:
        part.unlink(missing_ok=True)
    return json_answer(core.status(job), 201 if new else 200)


async def _receive(request: web.Request, part: Path) -> PayloadHead:
    """Take the payload into a file, as it comes, and give its head. Raises what is wrong with it."""
    limit = request.app[_CORE].settings.bytes_of("payload_limit")
    assert limit is not None
    too_large = SubmitError(f"the pipeline is larger than the {limit / (1 << 20):g} MB that the server takes")
    if request.content_length is not None and request.content_length > limit:
        raise too_large
    size, start, head, begin = 0, b"", None, 0
    with open(part, "x+b") as file:
        os.fchmod(file.fileno(), 0o600)
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise too_large
            if head is None:
                start += chunk
                found = read_head(start)
                if found is not None:
                    head, begin = _accepted(found[0]), found[1]
                    start = b""
                elif len(start) > HEAD_LIMIT + len(MAGIC) + 4:
                    raise ProtocolError("the head of the pipeline cannot be read")
            file.write(chunk)
        if head is None:
            raise ProtocolError("the pipeline is cut off in its head")
        check_body(file, begin)
    return head


def _accepted(head: PayloadHead) -> PayloadHead:
    if head.protocol != PROTOCOL:
        raise ProtocolError(
            f"the pipeline comes from sage_nb {head.version}, and the server has {sage_nb.__version__}, which speaks "
            "another language: install the same version on both sides"
        )
    if head.python != python_version():
        raise ShippingError(
            f"the pipeline was made by Python {head.python}, and the server runs Python {python_version()}: functions "
            "travel as bytecode, so both need the same minor version"
        )
    return head


async def _delete(request: web.Request) -> web.Response:
    await request.app[_CORE].delete(await _job(request), force=request.query.get("force") in ("1", "true"))
    return json_answer({})


async def _pause(request: web.Request) -> web.Response:
    await request.app[_CORE].pause(await _job(request))
    return json_answer({})


async def _continue(request: web.Request) -> web.Response:
    await request.app[_CORE].resume(await _job(request))
    return json_answer({})


class _Stop(msgspec.Struct):
    timeout: float = 10.0
    wait: bool = True


async def _stop(request: web.Request) -> web.Response:
    core, job = request.app[_CORE], await _job(request)
    text = await request.read()
    try:
        said = msgspec.json.decode(text, type=_Stop) if text else _Stop()
    except UNREADABLE as exc:
        raise ProtocolError(f"stop: {exc}") from exc
    if not 0 <= said.timeout <= 86_400:
        raise JobStateError(f"stop: timeout is a number of seconds, 0 or more, not {said.timeout!r}")
    await core.stop(job, said.timeout, wait=said.wait)
    return json_answer(core.status(job))


async def _snapshot(request: web.Request) -> web.Response:
    job = await _job(request)
    if job.snapshot is None:
        raise JobStateError(f"job {job.entry.name!r} is {job.entry.status}; there is nothing to see of it yet")
    return web.Response(body=job.snapshot, content_type="application/json")


async def _states(request: web.Request) -> web.Response:
    return json_answer(await request.app[_CORE].states(await _job(request)))


async def _logs(request: web.Request) -> web.Response:
    try:
        most = int(request.query.get("n", "100"))
    except ValueError:
        most = 0
    if most < 1:
        raise ProtocolError(f"logs: n is a number of lines, 1 or more, not {request.query.get('n')!r}")
    loop = asyncio.get_running_loop()
    return json_answer(await loop.run_in_executor(None, (await _job(request)).log_lines, min(most, 10_000)))


async def _payload(request: web.Request) -> web.StreamResponse:
    job = await _job(request)
    if not job.payload.exists():
        raise JobNotFoundError(f"the pipeline of job {job.entry.name!r} is not kept")
    return web.FileResponse(job.payload, headers={"Content-Type": "application/octet-stream"})


async def _watch(request: web.Request) -> web.WebSocketResponse:
    core = request.app[_CORE]
    socket = web.WebSocketResponse(heartbeat=PING, max_msg_size=MESSAGE_LIMIT, compress=False)
    await socket.prepare(request)
    request.app[_SOCKETS].add(socket)
    client = request.query.get("client", "")[:100]
    if client:
        core.arrived(client)
    try:
        await Watching(core, socket, as_json=request.query.get("format") == "json").live()
    finally:
        request.app[_SOCKETS].discard(socket)
        if client:
            core.left(client)
    return socket
