"""The peers' environments: `.bench/<peer>/`, each made once from `benchmarks/peers/<peer>.txt`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.child import Skipped
from benchmarks.say import say

__all__ = ["ROOT", "environment", "version"]

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 300.0
"""Seconds that an installation may take."""


def version(peer: str) -> str:
    """The pinned version of the peer itself: the first line of its file."""
    return _pins(peer).read_text().split("\n", 1)[0].partition("==")[2]


def environment(peer: str) -> Path:
    """The Python of the peer's environment, which is made where it is missing or out of date. Raises `Skipped`."""
    folder = ROOT / ".bench" / peer
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp, pins = folder / ".pins", _pins(peer).read_text()
    if stamp.exists() and stamp.read_text() == pins and python.exists():
        return python
    say(f"    installing {peer} {version(peer)} into .bench/{peer} ...")
    _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
    _uv("pip", "install", "--quiet", "--python", str(python), "--requirement", str(_pins(peer)))
    stamp.write_text(pins)
    return python


def _pins(peer: str) -> Path:
    return ROOT / "benchmarks" / "peers" / f"{peer}.txt"


def _uv(*args: str) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-m", "uv", *args], capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        raise Skipped(f"not installed within {LIMIT:.0f} s") from None
    if done.returncode:
        say(done.stderr.rstrip())
        raise Skipped("cannot be installed here; uv's message is above the table")
