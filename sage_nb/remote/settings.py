"""What a server can be told when it is started, and where it keeps its things."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from sage_nb.errors import ServerError
from sage_nb.jobs.submitting import BACKENDS
from sage_nb.pipeline.spelling import did_you_mean

__all__ = ["DEFAULT_PORT", "LOOPBACK", "Settings", "is_loopback", "machine", "state_folder"]

DEFAULT_PORT = 19001
LOOPBACK = "127.0.0.1"
_MB = 1 << 20


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
    """How many jobs that have ended, and for how long, stay in the history."""

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
        for name in ("max_running", "keep_jobs"):
            if getattr(self, name) < 1:
                raise ServerError(f"{name} is 1 or more, not {getattr(self, name)}")
        if self.warm < 0:
            raise ServerError(f"warm is 0 or more, not {self.warm}")
        for name in ("payload_limit", "spool_limit", "memory_limit", "keep_days"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ServerError(f"{name} is above 0, not {value:g}")
        if not 0 <= self.port <= 65535:
            raise ServerError(f"a port is a number from 0 to 65535, not {self.port}")
        return self

    def bytes_of(self, name: str) -> int | None:
        """A size in bytes."""
        value = getattr(self, name)
        return None if value is None else int(value * _MB)


def state_folder(port: int) -> Path:
    """Where the server of a port keeps its things unless it is told otherwise."""
    return Path(platformdirs.user_state_dir("sage_nb", appauthor=False)) / f"jobmanager-{port}"


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host in ("localhost", "::1", "ip6-localhost"):
        return True
    return host.startswith("127.") and _is_ip(host)


def _is_ip(host: str) -> bool:
    try:
        socket.inet_aton(host)
    except OSError:
        return False
    return True


def machine() -> str:
    """What tells this machine from others."""
    try:
        return f"{socket.gethostname()}:{Path('/etc/machine-id').read_text().strip()}"
    except OSError:
        return socket.gethostname()
