"""`sage-nb job`: the jobs of a server."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from sage_nb.cli.screen import Screen, width
from sage_nb.engine.log import LogLine
from sage_nb.errors import ServerError
from sage_nb.jobs.snapshot import JobSnapshot
from sage_nb.notebook.text import render_error, render_text
from sage_nb.notebook.words import cell_width, clock, duration, fit, plain
from sage_nb.remote.attaching import snapshots
from sage_nb.remote.client import JobManagerClient
from sage_nb.remote.daemonmain import read_token

__all__ = ["delete", "go_on", "list_jobs", "logs", "pause", "show", "status", "stop", "watch"]

_NAME, _NOTHING = 24, "no jobs yet: RemoteEnvironment(...).submit() or sage-nb run --remote starts one"


def list_jobs(args: argparse.Namespace) -> int:
    """A table of the jobs."""
    if args.n is not None and args.n < 1:
        raise ServerError(f"job list: -n is a number of jobs, 1 or more, not {args.n}")
    with _client(args) as client:
        found = client.list_jobs()
    found = found if args.n is None else found[-args.n :]
    if args.json:
        _say_json(found)
    else:
        print("\n".join(_table(found, width())) if found else _NOTHING)
    return 0


def show(args: argparse.Namespace) -> int:
    """A job as its view in a notebook shows it."""
    with _client(args) as client:
        snapshot = client.attach(args.job, results=False).snapshot()
    if args.json:
        _say_json(snapshot.to_dict())
    else:
        print(render_text(snapshot, width()))
    return 0


def status(args: argparse.Namespace) -> int:
    """A job's record."""
    with _client(args) as client:
        found = client.get_job_status(args.job)
        states = client.job_states(args.job)
    if args.json:
        _say_json({**found, "states": states})
    else:
        print("\n".join(_record(found, states)))
    return 0


def stop(args: argparse.Namespace) -> int:
    """Stop a job."""
    with _client(args) as client:
        before = client.get_job_status(args.job)
        ended = before["stop_time"] is not None
        with _patience(f"waiting for the cleanup of {_called(before)}"):
            after = client.stop_job(before["uuid"], args.timeout)
    _say(args, after, f"had already {after['status']}" if ended and after["status"] != "stopped" else after["status"])
    return 0


def pause(args: argparse.Namespace) -> int:
    """Pause a job."""
    return _ordered(args, "paused", lambda client, uuid: client.pause_job(uuid))


def go_on(args: argparse.Namespace) -> int:
    """Continue a job."""
    return _ordered(args, "goes on", lambda client, uuid: client.continue_job(uuid))


def delete(args: argparse.Namespace) -> int:
    """Delete a job."""
    with _client(args) as client:
        found = client.get_job_status(args.job)
        with _patience(f"waiting for the cleanup of {_called(found)}"):
            client.delete_job(found["uuid"], args.force)
    _say(args, {**found, "status": "deleted"}, "deleted")
    return 0


def logs(args: argparse.Namespace) -> int:
    """The log of a job."""
    if args.n < 1:
        raise ServerError(f"job logs: -n is a number of lines, 1 or more, not {args.n}")
    with _client(args) as client:
        found = [LogLine(**one) for one in client.job_logs(args.job, args.n)]
        if args.json and not args.follow:
            _say_json([_line_dict(line) for line in found])
            return 0
        _say_lines(args, found)
        if args.follow:
            for more in _further(client, args.job, found[-1] if found else None):
                _say_lines(args, more)
        elif not found:
            print(f"{_called(client.get_job_status(args.job))} has logged nothing", file=sys.stderr)
    return 0


def watch(args: argparse.Namespace) -> int:
    """A job, live, to its end; 1 where it failed."""
    screen, newest = Screen(sys.stdout), None
    with _client(args) as client:
        try:
            with contextlib.nullcontext() if args.json else screen.drawing():
                for newest in client.watch(args.job):
                    if args.json:
                        print(json.dumps(newest.to_dict()), flush=True)
                    else:
                        screen.live(render_text(newest, width() - 1), [newest])
                if newest is not None and not args.json:
                    _last_words(screen, newest)
        except KeyboardInterrupt:
            if newest is not None:
                print(f"sage-nb: {newest.name} {newest.uuid[:8]} goes on", file=sys.stderr)
            return 130
    return 1 if newest is not None and newest.status == "failed" else 0


def _last_words(screen: Screen, newest: JobSnapshot) -> None:
    screen.live(render_text(newest, width() - 1), [newest], last=True)
    if newest.error is not None and not screen.redraws:
        print(render_error(newest.error))


def _client(args: argparse.Namespace) -> JobManagerClient:
    token = read_token(args.token_file) if args.token_file else None
    return JobManagerClient(args.host, args.port, token, config={"ca": args.ca} if args.ca else None)


def _ordered(args: argparse.Namespace, said: str, order: Callable[[JobManagerClient, str], None]) -> int:
    with _client(args) as client:
        uuid = client.get_job_status(args.job)["uuid"]
        order(client, uuid)
        _say(args, client.get_job_status(uuid), said)
    return 0


@contextlib.contextmanager
def _patience(what: str) -> Iterator[None]:
    """Say what is waited for, where it takes more than a second."""
    timer = threading.Timer(1.0, lambda: print(f"{what} ...", file=sys.stderr))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _called(found: dict[str, Any]) -> str:
    return f"{plain(found['name'])} {found['uuid'][:8]}"


def _say(args: argparse.Namespace, found: dict[str, Any], said: str) -> None:
    if args.json:
        _say_json(found)
    else:
        print(f"{_called(found)} {said}")


def _say_json(data: Any) -> None:
    print(json.dumps(data, indent=2))


# ------------------------------------------------------------------------------------------------------------ tables


def _table(found: list[dict[str, Any]], room: int) -> Iterator[str]:
    """One line for each job; names and errors get what room there is."""
    rows = [("no", "id", "name", "state", "began", "ran", "error"), *map(_row, found)]
    right = (True, False, False, False, False, True, False)
    sizes = [max(cell_width(row[n]) for row in rows) for n in range(len(right))]
    sizes[2] = min(sizes[2], _NAME)
    for row in rows:
        cells = [fit(cell, size) for cell, size in zip(row[:-1], sizes, strict=False)]
        padded = (
            " " * (size - cell_width(cell)) + cell if at_right else cell + " " * (size - cell_width(cell))
            for cell, size, at_right in zip(cells, sizes, right, strict=False)
        )
        yield fit("  ".join([*padded, row[-1]]).rstrip(), room)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    state = one["status"] if one.get("position") is None else f"{one['status']} ({one['position']})"
    began = _when(one["start_time"])
    ran = duration(one["runtime"]) if one["start_time"] else ""
    error = plain((one["error"] or "").partition("\n")[0])
    return str(one["number"]), one["uuid"][:8], plain(one["name"]), state, began, ran, error


def _when(epoch: float | None) -> str:
    """The time of day; of another day, the day."""
    if epoch is None:
        return ""
    then, today = time.localtime(epoch), time.localtime()
    return clock(epoch) if then[:3] == today[:3] else time.strftime("%Y-%m-%d", then)


def _record(found: dict[str, Any], states: list[dict[str, Any]]) -> Iterator[str]:
    position = f", number {found['position']} of those that wait" if found["position"] is not None else ""
    yield f"{plain(found['name'])}: {found['status']}{position}"
    attempts = found["restart_count"] + 1
    rows = [
        ("id", f"{found['uuid']} (job {found['number']})"),
        ("runs", f"{found['task_count']} tasks, {found['service_count']} services" if found["is_running"] else None),
        ("backend", found["backend"]),
        ("ran", duration(found["runtime"]) if found["start_time"] else None),
        ("attempts", str(attempts) if attempts > 1 else None),
        ("note", found["note"]),
        ("error", found["error"]),
    ]
    for name, said in rows:
        if said:
            first, *more = plain(said, lines=True).split("\n")
            yield f"  {name:<9} {first}"
            yield from (f"  {'':<9} {line}" for line in more)
    for one in states:
        yield f"  {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(one['time']))}  {one['status']}"


# --------------------------------------------------------------------------------------------------------------- logs


def _line_dict(line: LogLine) -> dict[str, Any]:
    return {"time": line.time, "level": line.level, "source": line.source, "text": line.text}


def _say_lines(args: argparse.Namespace, lines: list[LogLine]) -> None:
    for line in lines:
        print(json.dumps(_line_dict(line)) if args.json else plain(str(line), lines=True))
    sys.stdout.flush()


def _further(client: JobManagerClient, word: str, after: LogLine | None) -> Iterator[list[LogLine]]:
    """The lines after that one, as they come, to the end of the job."""
    job = client.attach(word, results=False)
    caught_up = after is None  # the log is sent from its start: what has been said already comes again first

    def fresh(*, at_end: bool = False) -> list[LogLine]:
        nonlocal after, caught_up
        lines = job.logs()
        at = next((n for n in range(len(lines), 0, -1) if lines[n - 1] == after), None)
        caught_up = caught_up or at is not None
        if at is None and not caught_up:
            lines = [line for line in lines if at_end and after is not None and line.time > after.time]
        after = lines[-1] if lines[at or 0 :] else after
        return lines[at or 0 :]

    for _ in snapshots(job):
        yield fresh()
    yield fresh(at_end=True)
