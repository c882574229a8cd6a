"""Real JobManager servers for tests, as processes of their own, in folders of their own."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_nb.errors import ServerError
from sage_nb.remote.daemon import running, stop_background

__all__ = ["own_folders"]


@contextlib.contextmanager
def own_folders(folder: Path, *, runtime: Path | None = None) -> Iterator[dict[str, str]]:
    """What servers, kernels and this process need in their environment to find each other, and nobody else's.

    `runtime` is Jupyter's folder for that, where there is one. At the end, all servers that are left are stopped.
    """
    runtime = runtime or folder / "runtime"
    environment = {
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("SAGE_NB_TOKEN", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            yield environment
        finally:
            for notice in runtime.glob("sage_nb-jobmanager-*.json"):
                _end(int(notice.stem.rpartition("-")[2]))


def _end(port: int) -> None:
    notice = running(port)
    if notice is None:
        return
    try:
        stop_background(port)
    except ServerError:
        with contextlib.suppress(ProcessLookupError):
            os.kill(notice.pid, signal.SIGKILL)
