"""How a client on the same machine finds a server's token: in a file that only its user can read.

One file per port, in Jupyter's runtime folder; written before the server listens, and removed when it ends.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from typing import Any

import msgspec
from jupyter_core.paths import jupyter_runtime_dir

from sage_nb.remote.protocol import UNREADABLE
from sage_nb.remote.settings import is_loopback

__all__ = [
    "TOKEN_VARIABLE",
    "Notice",
    "Started",
    "find_token",
    "make_token",
    "notice_path",
    "noticed_ports",
    "read_notice",
    "remove_notice",
    "token_from_environment",
    "write_notice",
]

TOKEN_VARIABLE = "SAGE_NB_TOKEN"


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """How a server was started that is a process of its own, so that it can be started so again."""

    settings: dict[str, Any]
    """Those of `Settings` that are not the usual ones, without the token."""
    token_file: str | None = None
    log_level: str = "INFO"
    folder: str = ""
    foreground: bool = False


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What a running server tells the programs of its user."""

    host: str
    port: int
    pid: int
    process: str | None
    """What tells the process from a later one of the same id."""
    token: str | None
    state: str
    tls: bool = False
    version: str = ""
    started: Started | None = None
    """None of a server on a thread of another program, which signals to the process would end."""

    def __repr__(self) -> str:  # no token: it would come into logs and tracebacks
        return f"<Notice {self.host}:{self.port}: process {self.pid}>"


def make_token() -> str:
    """The token from `SAGE_NB_TOKEN`, or a new one."""
    return token_from_environment() or secrets.token_urlsafe(32)


def token_from_environment() -> str:
    """What `SAGE_NB_TOKEN` has, or an empty text."""
    return os.environ.get(TOKEN_VARIABLE, "").strip()  # from a file, it may have the line's end


def notice_path(port: int) -> Path:
    """The file for a server's port."""
    return Path(jupyter_runtime_dir()) / f"sage_nb-jobmanager-{port}.json"


def write_notice(notice: Notice) -> Path:
    """Write a server's file, so that nobody but its user can read it at any moment."""
    path = notice_path(notice.port)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_suffix(f".{os.getpid()}")
    part.unlink(missing_ok=True)  # whoever had it open would read what comes
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(msgspec.json.encode(notice))
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return path


def read_notice(port: int) -> Notice | None:
    """The file of a port's server; None where there is none, or it is somebody else's."""
    path = notice_path(port)
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.getuid():
                return None
            return msgspec.json.decode(file.read(), type=Notice)
    except (OSError, *UNREADABLE):
        return None


def noticed_ports() -> list[int]:
    """The ports that there are files for."""
    found = Path(jupyter_runtime_dir()).glob("sage_nb-jobmanager-*.json")
    return sorted(int(port) for path in found if (port := path.stem.rpartition("-")[2]).isascii() and port.isdigit())


def remove_notice(port: int) -> None:
    """Remove this process's file of a port."""
    notice = read_notice(port)
    if notice is not None and notice.pid == os.getpid():
        with contextlib.suppress(FileNotFoundError):
            notice_path(port).unlink()


def find_token(host: str, port: int) -> str | None:
    """The token for a server: from `SAGE_NB_TOKEN`, or of one on this machine from its file."""
    if found := token_from_environment():
        return found
    if not is_loopback(host):
        return None
    notice = read_notice(port)
    return notice.token if notice is not None else None
