"""A JobManager server as a process of its own: how it is started in the background, found, stopped, started again.

The process gets its settings, and its token, over a pipe: nobody sees them in a list of processes. Over another one it
says that it listens, or why it cannot, so that nobody has to ask again and again. What is to be known of it afterwards
is in its notice; see `access.py`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

from sage_nb import errors
from sage_nb.errors import SageError, ServerError, ServerUnreachableError
from sage_nb.remote.access import TOKEN_VARIABLE, Notice, Started, notice_path, read_notice
from sage_nb.remote.daemonmain import LOG_NAME, Order, Said, as_started, read_token, settings_of
from sage_nb.remote.runners import process_key
from sage_nb.remote.settings import DEFAULT_PORT, LOOPBACK, Settings, is_loopback

__all__ = [
    "log_path",
    "reachable",
    "restart_background",
    "running",
    "start_background",
    "status",
    "stop_background",
]

_STOP_WITHIN = 60.0
_TELL_AFTER = 1.0
_ANYWHERE = ("", "0.0.0.0", "::")


def start_background(
    settings: Settings, *, token_file: str | Path | None = None, log_level: str = "INFO", folder: str | None = None
) -> Notice:
    """Start a server as a process in a session of its own, and return its notice when it listens.

    The token is that of `settings`, else what `token_file` holds, else `SAGE_NB_TOKEN`, else a new one. Jobs of other
    machines run in `folder`, the current one unless given. Raises `ServerBusyError` where the port or the state folder
    is taken, and `ServerError` where it cannot start for another reason.
    """
    settings.checked()
    started = as_started(settings, token_file, log_level, folder or os.getcwd(), foreground=False)
    inherited = os.environ.get(TOKEN_VARIABLE, "").strip() or None
    token = settings.token or (read_token(token_file) if token_file else inherited)
    with tempfile.TemporaryFile() as printed:
        hear, say = os.pipe()
        with open(hear, "rb") as hearing:
            process = _launch(started, token, say, printed)
            data = hearing.read()
        process.wait()
        if not data:
            printed.seek(0)
            last = printed.read().decode(errors="replace").strip().splitlines()
            raise ServerError(f"the server ended before it listened: {last[-1] if last else 'it said nothing'}")
    said = msgspec.json.decode(data, type=Said)
    if said.error is not None:
        raise _rebuilt(*said.error)
    notice = read_notice(said.port)
    if notice is None:
        raise ServerError(f"the server has started, and left no notice that can be read at {notice_path(said.port)}")
    return notice


def running(port: int = DEFAULT_PORT) -> Notice | None:
    """The notice of the server on a port of this machine; None where none of this user's runs there."""
    notice = read_notice(port)
    return notice if notice is not None and process_key(notice.pid) == notice.process else None


def stop_background(
    port: int = DEFAULT_PORT,
    *,
    force: bool = False,
    on_wait: Callable[[float], None] = lambda seconds: None,
) -> Notice:
    """Stop the server on a port, wait for the end of its process, and return what its notice was.

    Its jobs are stopped, with their cleanup. With `force` it is killed: its runners then stop their jobs by themselves,
    and its history says of them that they failed. `on_wait` is called every second while this waits. Raises
    `ServerUnreachableError` where none runs there, and `ServerError` where it is part of another program, or has not
    ended after 60 s.
    """
    notice = running(port)
    if notice is None:
        _forget(port)
        raise ServerUnreachableError(f"no JobManager server of yours runs on port {port}")
    if notice.started is None:
        raise ServerError(
            f"the server on port {port} is part of another program (process {notice.pid}), such as a notebook's "
            "kernel: stop it there, with JobManagerServer.stop()"
        )
    try:
        handle = os.pidfd_open(notice.pid)
    except ProcessLookupError:
        return notice
    try:
        if process_key(notice.pid) == notice.process:  # the handle is on that process, and no later one
            signal.pidfd_send_signal(handle, signal.SIGKILL if force else signal.SIGTERM)
            _await_end(handle, notice, on_wait)
    finally:
        os.close(handle)
    if force:
        _forget(port)
    return notice


def restart_background(port: int = DEFAULT_PORT, *, on_wait: Callable[[float], None] = lambda seconds: None) -> Notice:
    """Stop the server on a port, and start it again as it was started before, with the same token.

    Also one that ended without saying so, by `kill -9` for instance. Raises what `stop_background` and
    `start_background` do.
    """
    notice = read_notice(port)
    if notice is None:
        raise ServerUnreachableError(
            f"no JobManager server of yours runs on port {port}; `sage-nb jobmanager start --port {port}` starts one"
        )
    if notice.started is not None and notice.started.foreground:
        raise ServerError(f"the server on port {port} runs in a terminal (process {notice.pid}): start it again there")
    if running(port) is not None:
        stop_background(port, on_wait=on_wait)
    if notice.started is None:
        raise ServerUnreachableError(f"the server that ran on port {port} was part of a program that has ended")
    began = notice.started
    settings = settings_of(began, token=None if began.token_file else notice.token, port=notice.port)
    return start_background(
        settings, token_file=began.token_file, log_level=began.log_level, folder=began.folder or None
    )


def status(port: int = DEFAULT_PORT) -> dict[str, Any] | None:
    """What the server on a port of this machine says of itself, with `host`, `port`, `state` and `log`; None where none
    runs there. Raises what `JobManagerClient.get_server_info` does."""
    from sage_nb.remote.client import JobManagerClient

    notice = running(port)
    if notice is None:
        return None
    options = {"tls": True, "ca": settings_of(notice.started).certfile} if notice.tls and notice.started else None
    with JobManagerClient(reachable(notice), port, notice.token, config=options) as client:
        info = client.get_server_info()
    log = str(log_path(notice)) if log_path(notice).exists() else None
    return {"host": notice.host, "port": notice.port, "state": notice.state, "log": log, **info}


def reachable(notice: Notice) -> str:
    """The host by which this machine reaches a server."""
    return LOOPBACK if notice.host in _ANYWHERE or is_loopback(notice.host) else notice.host


def log_path(notice: Notice) -> Path:
    """The log of a server that runs in the background."""
    return Path(notice.state) / LOG_NAME


def _launch(started: Started, token: str | None, say: int, printed: IO[bytes]) -> subprocess.Popen[bytes]:
    """The process that starts the server and ends at once, so that the server is nobody's child."""
    environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
    order = msgspec.json.encode(Order(started, token))
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _boot(say)],
            stdin=subprocess.PIPE,
            stdout=printed,
            stderr=printed,
            pass_fds=(say,),
            env=environment,
            cwd=started.folder,
            start_new_session=True,
        )
    except OSError as exc:
        raise ServerError(f"the server's process could not be started: {exc}") from exc
    finally:
        os.close(say)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin:  # why it has ended is in what it printed
        process.stdin.write(order)
    return process


def _boot(say: int) -> str:
    """`sage_nb` is found where this process has it, after everything else: other folders of ours are not the server's
    business."""
    home = str(Path(errors.__file__).parents[1])
    return f"import sys; sys.path.append({home!r}); from sage_nb.remote.daemonmain import main; main({say})"


def _await_end(handle: int, notice: Notice, on_wait: Callable[[float], None]) -> None:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    waited = 0.0
    while not poll.poll(_TELL_AFTER * 1000):
        waited += _TELL_AFTER
        on_wait(waited)
        if waited >= _STOP_WITHIN:
            raise ServerError(
                f"the server on port {notice.port} (process {notice.pid}) is still stopping after {waited:g} s; "
                f"{log_path(notice)} says more, and --force kills it"
            )


def _forget(port: int) -> None:
    """Remove the notice of a server that could not do so itself."""
    if read_notice(port) is not None and running(port) is None:
        notice_path(port).unlink(missing_ok=True)


def _rebuilt(kind: str, text: str) -> SageError:
    found = getattr(errors, kind, ServerError)
    error: SageError = (found if issubclass(found, SageError) else ServerError)(text)
    return error
