"""What a server can be told when it is started, and where it keeps its things."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import platformdirs

from sage_nb.errors import ServerError
from sage_nb.jobs.submitting import BACKENDS
from sage_nb.pipeline.spelling import did_you_mean

__all__ = [
    "DEFAULT_PORT", "LOOPBACK", "TOKEN_RULE", "Settings", "is_loopback", "is_token", "machine", "state_folder",
]  # fmt: skip

DEFAULT_PORT = 19001
LOOPBACK = "127.0.0.1"
_MB = 1 << 20
_MOST = 1e12
TOKEN_RULE = "a text of printable ASCII characters, without spaces around it"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a JobManager server. Sizes are in MB of 2²⁰ bytes, durations in seconds."""

    host: str = LOOPBACK
    port: int = DEFAULT_PORT
    """0 for any that is free."""
    state: Path | None = None
    """The folder for history, payloads and logs of jobs; None for one by the port, in the user's own state folder."""
    token: str | None = field(default=None, repr=False)
    """None for one that is made, and written to a file that only the user can read."""
    no_token: bool = False
    certfile: str | None = None
    keyfile: str | None = None
    backend: str = "threads"
    """What jobs run on that do not say so themselves."""
    ray: dict[str, Any] | None = None
    """`config["ray"]` of jobs that do not say so themselves."""
    max_running: int = field(default_factory=lambda: 2 * (os.cpu_count() or 1))
    """Jobs that run at a time; others are queued."""
    warm: int = 1
    """Runners that are kept ready."""
    payload_limit: float = 1024.0
    spool_limit: float = 1024.0
    """Of one job's log: results beyond that wait for a reader."""
    memory_limit: float | None = None
    """Of one runner's address space."""
    keep_jobs: int = 1000
    keep_days: float = 7.0
    keep_size: float = 10_240.0
    """How many jobs that have ended, for how long, and with how much on the disk in all, stay in the history."""

    def checked(self) -> Settings:
        """Itself. Raises `ServerError`, in one sentence, where the settings do not go together."""
        if self.backend not in BACKENDS:
            raise ServerError(f"there is no backend {self.backend!r}{did_you_mean(str(self.backend), BACKENDS)}")
        if self.no_token and not is_loopback(self.host):
            raise ServerError(
                f"a server on {self.host} can be reached from other machines, and runs code for whoever asks: "
                "it needs a token; leave out --no-token, or listen on 127.0.0.1"
            )
        if self.keyfile is not None and self.certfile is None:
            raise ServerError("a key without a certificate: give --certfile too")
        for name, least in (("max_running", 1), ("keep_jobs", 1), ("warm", 0)):
            value = getattr(self, name)
            if not _is_number(value, int) or value < least:
                raise ServerError(f"{name} is {least} or more, not {value!r}")
        for name in ("payload_limit", "spool_limit", "memory_limit", "keep_days", "keep_size"):
            value = getattr(self, name)
            if value is None and name == "memory_limit":
                continue
            if not _is_number(value, int, float) or not 0 < value < _MOST:
                raise ServerError(f"{name} is a number above 0, not {value!r}")
        if not _is_number(self.port, int) or not 0 <= self.port <= 65535:
            raise ServerError(f"a port is a number from 0 to 65535, not {self.port!r}")
        if self.token is not None and not is_token(self.token):
            raise ServerError(f"a token is {TOKEN_RULE}")  # and not which one it is
        return self

    def bytes_of(self, name: str) -> int | None:
        """A size in bytes."""
        value = getattr(self, name)
        return None if value is None else int(value * _MB)


def is_token(text: object) -> bool:
    """Whether a header can carry it as it is."""
    return isinstance(text, str) and text.isascii() and text.isprintable() and text.strip() == text != ""


def _is_number(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def state_folder(port: int) -> Path:
    """Where the server of a port keeps its things unless it is told otherwise."""
    return Path(platformdirs.user_state_dir("sage_nb", appauthor=False)) / f"jobmanager-{port}"


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host in ("localhost", "ip6-localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def machine() -> str:
    """What tells this machine from others."""
    try:
        return f"{socket.gethostname()}:{Path('/etc/machine-id').read_text().strip()}"
    except OSError:
        return socket.gethostname()
