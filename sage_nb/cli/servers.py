"""`sage-nb jobmanager`: start, stop, restart, status."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from sage_nb.errors import ServerUnreachableError
from sage_nb.notebook.words import duration
from sage_nb.remote import daemon
from sage_nb.remote.access import Notice, notice_path, noticed_ports
from sage_nb.remote.daemonmain import read_token, serve_foreground
from sage_nb.remote.settings import DEFAULT_PORT, Settings

__all__ = ["restart", "start", "status", "stop"]

NOT_RUNNING = 3
_SETTINGS = (
    "host", "port", "max_running", "warm", "backend", "certfile", "keyfile", "payload_limit", "spool_limit",
    "memory_limit", "keep_jobs", "keep_days", "keep_size",
)  # fmt: skip


def start(args: argparse.Namespace) -> int:
    """Start a server. Like `pg_ctl`, fails where one runs on the port already: it may have other settings."""
    how: dict[str, Any] = {"token_file": args.token_file, "log_level": args.log_level}
    if args.foreground:
        serve_foreground(_settings(args), **how, on_ready=_say_foreground)
    else:
        _say_where(daemon.start_background(_settings(args), **how))
    return 0


def stop(args: argparse.Namespace) -> int:
    """Stop a server."""
    port = _port(args)
    notice = daemon.stop_background(port, force=args.force, on_wait=_waiting)
    print(f"JobManager server on port {port} (process {notice.pid}) {'killed' if args.force else 'stopped'}")
    return 0


def restart(args: argparse.Namespace) -> int:
    """Start a server again as it was started."""
    _say_where(daemon.restart_background(_port(args), on_wait=_waiting))
    return 0


def status(args: argparse.Namespace) -> int:
    """Say what a server does: 0 where it runs, 3 where none does, as the Linux Standard Base asks of services."""
    info = _info(args)
    if info is None:
        print(json.dumps({"status": "not running", "port": _port(args)}) if args.json else _none(args))
        return NOT_RUNNING
    print(json.dumps({"status": "running", **info}, indent=2) if args.json else _table(info))
    return 0


def _settings(args: argparse.Namespace) -> Settings:
    given = {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}
    if args.state is not None:
        given["state"] = Path(args.state).absolute()
    if args.ray_address is not None:
        given["ray"] = {"address": args.ray_address}
    return Settings(**given, no_token=args.no_token).checked()


def _port(args: argparse.Namespace) -> int:
    port: int | None = args.port
    return DEFAULT_PORT if port is None else port


def _info(args: argparse.Namespace) -> dict[str, Any] | None:
    from sage_nb.remote.client import JobManagerClient

    if args.host is None and args.token_file is None:
        found = daemon.status(_port(args))
        if found is not None:
            return found
    options = {"ca": args.ca} if args.ca else None
    token = read_token(args.token_file) if args.token_file else None
    try:
        with JobManagerClient(args.host, args.port, token, config=options) as client:
            return {"host": client.host, "port": client.port, **client.get_server_info()}
    except ServerUnreachableError:
        return None


def _say_where(notice: Notice) -> None:
    host, port = daemon.reachable(notice), notice.port
    print(f"JobManager server {notice.version} listens on {notice.host}:{port} (process {notice.pid})")
    print(f"  log      {daemon.log_path(notice)}")
    print(f'  connect  RemoteEnvironment("app", host="{host}", port={port})')
    if notice.token is not None:
        print("  token    yours finds it by itself here; for another machine, it is in")
        print(f"           {notice_path(port)}")
    print(f"  jobs     sage-nb job list{_port_option(port)}")
    print(f"  stop     sage-nb jobmanager stop{_port_option(port)}", flush=True)


def _say_foreground(notice: Notice) -> None:
    print(f"JobManager server {notice.version} listens on {notice.host}:{notice.port}; Ctrl-C stops it", flush=True)


def _port_option(port: int) -> str:
    return "" if port == DEFAULT_PORT else f" --port {port}"


def _waiting(seconds: float) -> None:
    if seconds == 1 or seconds % 5 == 0:
        print(f"waiting for its jobs to stop ({seconds:.0f} s)", file=sys.stderr)


def _none(args: argparse.Namespace) -> str:
    """That no server runs, and what there is to do about it."""
    port = _port(args)
    if args.host is not None:
        return f"No server runs: {args.host} port {port}"
    others = [notice for one in noticed_ports() if one != port and (notice := daemon.running(one)) is not None]
    rows = [f"No server runs on port {port}", f"  start    sage-nb jobmanager start{_port_option(port)}"]
    rows += [f"  another  on port {one.port} (process {one.pid})" for one in others]
    return "\n".join(rows)


def _table(info: dict[str, Any]) -> str:
    jobs = f"{info['running']} running ({info['max_running']} at a time), {info['queued']} queued"
    rows = [
        ("version", f"{info['version']}, Python {info['python']}"),
        ("process", f"{info['pid']}, up {duration(info['uptime'])}"),
        ("jobs", f"{jobs}, {info['known']} known"),
        ("runners", f"{info['warm']} warm"),
        ("backend", info["backend"]),
        ("state", info.get("state")),
        ("log", info.get("log")),
        ("trouble", info["history_error"]),
    ]
    head = f"JobManager server on {info['host']}:{info['port']}: running"
    return "\n".join([head, *(f"  {name:<8} {said}" for name, said in rows if said)])
