"""Measures sage_nb beside loops written by hand and beside its peers, and prints the table.

Exit code 1 says that a bound was missed. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.catalogue import PEERS, RAY_WORKS, SERVER_WORKS, VIEW_WORKS, WORKS, Row, chosen
from benchmarks.child import Skipped
from benchmarks.environments import environment, version
from benchmarks.machine import machine
from benchmarks.processes import measure
from benchmarks.say import say
from benchmarks.table import Group, Line, as_markdown, as_text

__all__ = ["main"]

_LEAST = 5


def main() -> int:
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the child is ended too
    runs, where = max(_LEAST, given.runs), machine()
    groups: list[Group] = []
    for work in chosen(given.only, given.works):
        say(work.title)
        group = Group(work)
        for row in work.rows:
            group.lines.append(_ours(given.module, row, runs))
        if not given.no_peers:
            group.lines += [_peer(peer, work.rows[0].id, runs) for peer in work.peers]
        groups.append(group)
    if given.json:
        given.json.write_text(json.dumps(_record(where, groups), indent=2) + "\n")
    if given.markdown:
        print(f"{where}.\n\n{as_markdown(groups)}")
    else:
        print(f"\n{where}\n\n{as_text(groups)}")
    missed = [line.id for group in groups for line in group.lines if line.missed]
    if missed:
        say(f"\nbounds missed: {', '.join(missed)}")
    return 1 if missed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help=f"runs of each, {_LEAST} or more; 7 unless given")
    parser.add_argument("--only", metavar="W1,W2", help="only what begins so: W1 to W8, view, memory")
    parser.add_argument("--no-peers", action="store_true", help="leave out the other libraries")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown, for the README")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE as well")
    parser.add_argument("--ray", action="store_true", help="what runs on Ray, beside what is written with it by hand")
    parser.add_argument("--server", action="store_true", help="jobs on a JobManager server")
    parser.add_argument("--views", action="store_true", help="live views in a page of JupyterLab")
    given = parser.parse_args()
    works = {"onray": RAY_WORKS, "server": SERVER_WORKS, "views": VIEW_WORKS, "ours": WORKS}
    module = "onray" if given.ray else "server" if given.server else "views" if given.views else "ours"
    given.works, given.module = works[module], f"benchmarks.{module}"
    if not chosen(given.only, given.works):
        names = ", ".join(row.id for work in given.works for row in work.rows)
        parser.error(f"--only {given.only}: nothing begins so; there are: {names}")
    return given


def _ours(module: str, row: Row, runs: int) -> Line:
    say(f"  {row.label} ...")
    try:
        figure = measure(Path(sys.executable), module, row.id, runs)
    except Skipped as reason:
        return Line(row.label, None, str(reason), row.bound, row.id)
    return Line(row.label, figure, bound=row.bound, id=row.id)


def _peer(peer: str, work: str, runs: int) -> Line:
    label = f"{PEERS[peer]} {version(peer)}"
    say(f"  {label} ...")
    try:
        figure = measure(environment(peer), f"benchmarks.peers.{peer}", work, runs)
    except Skipped as reason:
        return Line(label, None, f"skipped: {reason}", id=f"{work} {peer}")
    return Line(label, figure, id=f"{work} {peer}")


def _record(where: str, groups: list[Group]) -> dict[str, object]:
    figures = [
        {"work": group.work.title, **asdict(line), "missed": line.missed} for group in groups for line in group.lines
    ]
    return {"machine": where, "figures": figures}


if __name__ == "__main__":
    raise SystemExit(main())
