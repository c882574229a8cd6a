"""A JobManager server that is a process of its own, from within: what it is told, what it says, and where it logs."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

import msgspec

from sage_nb.errors import SageError, ServerBusyError, ServerError
from sage_nb.remote.access import TOKEN_VARIABLE, Notice, Started, read_notice
from sage_nb.remote.settings import Settings, state_folder

__all__ = ["LOG_NAME", "Order", "Said", "as_started", "main", "read_token", "serve_foreground", "settings_of"]

LOG_NAME = "server.log"
_LOG_SIZE, _LOGS_KEPT = 5 << 20, 2
_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class Order(msgspec.Struct):
    """What the process is told."""

    started: Started
    token: str | None


class Said(msgspec.Struct):
    """What the process says when it listens, or cannot."""

    port: int = 0
    error: tuple[str, str] | None = None


def main(say: int) -> None:
    """Be a server in the background: called in a process of its own, with a file to say in that it listens."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    if os.fork():
        os._exit(0)
    with open(say, "wb", buffering=0) as saying, contextlib.ExitStack() as stack:
        try:
            asked = settings_of(order.started, token=order.token)
            settings = _with_state(asked, stack)
            _log_to(settings.state, order.started.log_level)
            _serve(settings, order.started, saying, temporary=asked.state is None and not asked.port)
        except Exception as exc:
            logging.getLogger("sage_nb.server").log(
                logging.ERROR, "%s", exc, exc_info=None if isinstance(exc, SageError) else exc
            )
            if saying.closed:
                raise
            known = isinstance(exc, SageError)
            error = (type(exc).__name__, str(exc)) if known else ("ServerError", f"{type(exc).__name__}: {exc}")
            with contextlib.suppress(BrokenPipeError):  # who started it has gone, and it is in the log
                saying.write(msgspec.json.encode(Said(error=error)))
            sys.exit(1)


def serve_foreground(
    settings: Settings,
    *,
    token_file: str | Path | None = None,
    log_level: str = "INFO",
    on_ready: Callable[[Notice], None] = lambda notice: None,
) -> None:
    """Be a server, in this process, until SIGTERM or SIGINT; `on_ready` gets its notice when it listens. It logs to
    `sys.stderr`. `SAGE_NB_TOKEN` is taken out of the environment, so that no job inherits it."""
    from sage_nb.remote.server import serve

    inherited = os.environ.pop(TOKEN_VARIABLE, "").strip() or None
    token = settings.token or (read_token(token_file) if token_file else inherited)
    logging.basicConfig(level=log_level, format=_FORMAT)
    started = as_started(settings.checked(), token_file, log_level, os.getcwd(), foreground=True)

    def ready(serving: Any) -> None:
        notice = read_notice(serving.port)
        if notice is not None:
            on_ready(notice)

    serve(dataclasses.replace(settings, token=token), ready, started=started)


def _serve(settings: Settings, started: Started, saying: IO[bytes], *, temporary: bool) -> None:
    from sage_nb.remote.server import serve

    def ready(serving: Any) -> None:
        saying.write(msgspec.json.encode(Said(port=serving.port)))  # where nobody hears it, the server ends
        saying.close()

    serve(settings, ready, started=started, temporary=temporary)


def _with_state(settings: Settings, stack: contextlib.ExitStack) -> Settings:
    """With a folder, which has the log as well; for a port that nobody knows the next time, one that goes in the
    end."""
    state = settings.state
    if state is None and settings.port:
        state = state_folder(settings.port)
    if state is None:
        state = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sage_nb-")))
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as exc:
        raise ServerError(f"the folder {state} cannot be used: {exc}") from exc
    return dataclasses.replace(settings, state=state)


def _log_to(folder: Path | None, level: str) -> None:
    """Log to a file there, which also gets what is printed."""
    assert folder is not None
    path = folder / LOG_NAME
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ServerBusyError(f"the server's log {path} cannot be written: {exc.strerror or exc}") from exc
    handler = RotatingFileHandler(path, maxBytes=_LOG_SIZE, backupCount=_LOGS_KEPT, encoding="utf-8")
    logging.basicConfig(level=level, format=_FORMAT, handlers=[handler])
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number in (1, 2):
        os.dup2(file, number)
    for one in (file, nothing):
        os.close(one)


def read_token(path: str | Path) -> str:
    """The token that is alone in a file. Raises `ServerError`."""
    try:
        token = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ServerError(f"the token file {path} cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if not token or any(ch.isspace() or not ch.isprintable() for ch in token):
        raise ServerError(f"the token file {path} has to hold one word, the token")
    return token


def as_started(
    settings: Settings, token_file: str | Path | None, log_level: str, folder: str, *, foreground: bool
) -> Started:
    """How to start such a server again."""
    usual = Settings()
    given = {field.name: getattr(settings, field.name) for field in dataclasses.fields(settings)}
    changed = {name: value for name, value in given.items() if value != getattr(usual, name)}
    changed.pop("token", None)
    for name in ("state", "certfile", "keyfile"):
        if changed.get(name) is not None:
            changed[name] = os.path.abspath(changed[name])
    file = os.path.abspath(token_file) if token_file is not None else None
    return Started(settings=changed, token_file=file, log_level=log_level, folder=folder, foreground=foreground)


def settings_of(started: Started | None, **more: Any) -> Settings:
    """The settings that a server was started with, but for `more`."""
    found = {**(started.settings if started is not None else {}), **more}
    if found.get("state") is not None:
        found["state"] = Path(found["state"])
    return Settings(**found)
