"""What tests of the command line share: commands as processes, with servers of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sage_nb.remote import daemon
from sage_nb.remote.access import Notice
from sage_nb.remote.settings import Settings
from tests.support import LIMIT

__all__ = ["COMMAND", "Done", "begun", "sage_nb", "server_in"]

COMMAND = [sys.executable, "-m", "sage_nb"]
HERE = Path(__file__).parents[2]


class Done:
    """A command that has ended: its exit code, and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n--- stderr\n{self.err}"

    @property
    def json(self) -> Any:
        """What it printed as JSON."""
        return json.loads(self.out)


def begun(*words: object, **more: str) -> subprocess.Popen[str]:
    """A command that has been started, in a session of its own."""
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        cwd=HERE,
        env={**os.environ, **more},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def sage_nb(*words: object, **more: str) -> Done:
    """A command, run to its end; `more` are variables of its environment."""
    with begun(*words, **more) as process:
        try:
            out, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    return Done(process.returncode, out, err)


@contextmanager
def server_in(folder: Path, **settings: Any) -> Iterator[Notice]:
    """A server in the background, which keeps its things in `folder`; it is stopped by its process id."""
    notice = daemon.start_background(Settings(**{"port": 0, "state": folder, "warm": 0, **settings}))
    try:
        yield notice
    finally:
        if daemon.running(notice.port) is not None:
            daemon.stop_background(notice.port)
