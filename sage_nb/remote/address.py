"""Where a server is, and how it is spoken with."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from sage_nb.errors import PipelineError, ServerError
from sage_nb.pipeline.spelling import did_you_mean
from sage_nb.remote.access import find_token, read_notice, token_from_environment
from sage_nb.remote.settings import DEFAULT_PORT, LOOPBACK, TOKEN_RULE, is_loopback, is_token

__all__ = ["Address", "address_of", "parse"]

_OPTIONS = {
    "tls": "True to speak TLS",
    "ca": "a file with the certificates of authorities to trust",
    "request_timeout": "seconds that one request may take",
    "reconnect_timeout": "seconds after which a lost connection is given up; None for never",
    "owner_timeout": "seconds for which the notebook of an attached job may be gone",
}


_LONGEST = 1e9
_V6 = r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*(?:%[\w.~-]+)?"
_FORM = re.compile(
    rf"(?:https?://)?(?:(?:\[(?P<bracketed>{_V6})\]|(?P<name>[\w.-]+))(?::(?P<port>[0-9]{{1,5}}))?|(?P<bare>{_V6}))/?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """A server's address. Two that are equal share their connections."""

    host: str
    port: int
    token: str | None = None
    """None for the one that the server's file on this machine has, or `SAGE_NB_TOKEN`."""
    tls: bool = False
    ca: str | None = None
    request_timeout: float = 1800.0
    reconnect_timeout: float | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __repr__(self) -> str:
        return f"<Address {self}>"

    @property
    def url(self) -> str:
        """`http://127.0.0.1:19001`."""
        return f"{'https' if self.tls else 'http'}://{self}"

    def headers(self) -> dict[str, str]:
        """What goes with every request; looked up anew each time, as a server that was restarted has a new token."""
        token = self.token or find_token(self.host, self.port)
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    @property
    def token_is_from_environment(self) -> bool:
        """Whether `SAGE_NB_TOKEN` has it, which counts more than the server's file."""
        return self.token is None and bool(token_from_environment())

    def context(self) -> ssl.SSLContext | bool:
        """Whom to trust."""
        if not self.tls:
            return True
        try:
            return ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError) as exc:
            raise ServerError(f"the certificates in {self.ca} cannot be used: {exc}") from exc


def address_of(host: str | None, port: int | None, token: str | None, options: Any = None) -> Address:
    """The address for what the user gave. Raises `PipelineError`."""
    options = {} if options is None else options
    if not isinstance(options, dict):
        raise PipelineError(f"config: server is a dict such as {{'tls': True}}, not {options!r}")
    for key in options.keys() - _OPTIONS.keys():
        raise PipelineError(f"config: server has no {key!r}{did_you_mean(str(key), _OPTIONS)}")
    if host is not None and not isinstance(host, str):
        raise PipelineError(f"a server's host is a text, not {host!r}")
    if token is not None and not is_token(token):
        raise PipelineError(f"a token is {TOKEN_RULE}")  # and not which one it is
    ca = options.get("ca")
    if ca is not None and not isinstance(ca, (str, os.PathLike)):
        raise PipelineError(f"config: server ca is the name of a file, not {ca!r}")
    found, number = parse(host or LOOPBACK)
    tls = bool(options.get("tls", (host or "").startswith("https://")))
    port = number if port is None and number is not None else DEFAULT_PORT if port is None else port
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise PipelineError(f"a port is a number from 1 to 65535, not {port!r}")
    if not tls and is_loopback(found):
        notice = read_notice(port)
        tls = notice is not None and notice.tls
    for name in ("request_timeout", "reconnect_timeout", "owner_timeout"):
        value = options.get(name)
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 < value < _LONGEST):
            raise PipelineError(f"config: server {name} is a number of seconds above 0, not {value!r}")
    return Address(
        found, port, token, tls, None if ca is None else os.fspath(ca), options.get("request_timeout") or 1800.0,
        options.get("reconnect_timeout"),
    )  # fmt: skip


def parse(text: str) -> tuple[str, int | None]:
    """Host and port of `HOST`, `HOST:PORT`, `[::1]:PORT` or `https://HOST:PORT`. Raises `PipelineError`."""
    found = _FORM.fullmatch(text.strip())
    v6 = "" if found is None else found["bracketed"] or found["bare"] or ""
    if found is None or (v6 and not _is_ip(v6)):
        raise PipelineError(f"a server's address is HOST:PORT, not {text!r}")
    return v6 or str(found["name"]), int(found["port"]) if found["port"] else None


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
