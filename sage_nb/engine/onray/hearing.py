"""What a cluster has to say to those who use it, such as that many processes were started, or that memory is short.

Ray has a thread print that, which in a notebook goes below whatever cell is the newest. It has no setting for it. So
while a connection is made, another function is in the place of the one that this thread runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["heard_by"]

_NAME = "listen_error_messages"


@contextmanager
def heard_by(hear: Callable[[str], None]) -> Iterator[None]:
    """Have what the cluster says given to `hear`, where a connection is made within. A Ray that has no such function
    prints it."""
    from ray._private import worker as module

    theirs = getattr(module, _NAME, None)
    if theirs is None:
        yield
        return

    def listen(worker: Any, stopped: threading.Event) -> None:
        try:
            for text in _said(worker, stopped):
                hear(text)
        except (OSError, ConnectionError):  # the cluster has gone, which whoever looks after it will tell
            return

    setattr(module, _NAME, listen)
    try:
        yield
    finally:
        setattr(module, _NAME, theirs)


def _said(worker: Any, stopped: threading.Event) -> Iterator[str]:
    """As Ray's own: messages of the cluster, and of this process's part in it."""
    subscriber = worker.gcs_error_subscriber
    subscriber.subscribe()
    while not stopped.is_set():
        _, said = subscriber.poll()
        if said is not None and _is_for(worker, said["job_id"]):
            yield said["error_message"].strip()


def _is_for(worker: Any, job: bytes | None) -> bool:
    from ray import JobID

    return job in (None, worker.current_job_id.binary(), JobID.nil().binary())
