"""Runs one measurement as a process of its own, within a time limit, and leaves nothing of it behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from benchmarks.child import MARK, Skipped
from benchmarks.environments import ROOT
from benchmarks.measure import Figure
from benchmarks.say import say

__all__ = ["measure"]

LIMIT = 600.0
"""Seconds that the runs of one work may take."""
_TAIL = 15


def measure(python: Path, module: str, work: str, runs: int) -> Figure:
    """The figure of one work. Raises `Skipped` with the reason where there is none."""
    command = [str(python), "-m", "benchmarks.child", module, work, "--runs", str(runs)]
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        # Workers that a library starts find `benchmarks` as well.
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        raise Skipped(f"took longer than {LIMIT:.0f} s") from None
    finally:
        _end(child)
    figures = [line for line in out.splitlines() if line.startswith(MARK)]
    if child.returncode or not figures:
        lines = err.rstrip().splitlines()
        say("\n".join(f"    | {line}" for line in lines[-_TAIL:]))
        raise Skipped(f"failed: {lines[-1] if lines else f'exit code {child.returncode}'}")
    return Figure(**json.loads(figures[-1].removeprefix(MARK)))


def _end(child: subprocess.Popen[str]) -> None:
    """End the child's whole session, where anything of it is left."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # macOS says the latter where none is left
        return
    child.communicate()
