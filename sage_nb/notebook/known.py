"""The jobs that a notebook can name: those of its kernel, of the server it is connected to, and of its handles.

Nothing of `sage_nb.remote` is imported before a server is asked for: that takes longer than all the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sage_nb.engine.log import LogLine
from sage_nb.errors import JobNotFoundError, PipelineError, ServerError
from sage_nb.jobs.info import JobInfo
from sage_nb.jobs.job import Job
from sage_nb.jobs.manager import JobManager, default_manager

if TYPE_CHECKING:
    from sage_nb.remote.client import JobManagerClient

__all__ = ["Found", "Known", "address_in"]

_NUMBERS = 6
"""What has more digits is the beginning of a uuid."""


@dataclass(frozen=True, slots=True)
class Found:
    """One job: of the kernel, or of the server at `where`."""

    info: JobInfo
    where: str | None = None
    number: int | None = None
    """Its number there."""
    held: Job | None = None
    """A handle on it, where there is one."""
    client: JobManagerClient | None = None
    """Its server, where the notebook is connected to that."""

    @property
    def uuid(self) -> str:
        return self.info.uuid

    def job(self) -> Job | None:
        """A handle on it; None of a job of the kernel of which only the record is left."""
        if self.held is None and self.client is not None:
            return self.client.attach(self.uuid)
        return self.held

    def stop(self) -> str:
        """Stop it, wait for its cleanup, and return its state."""
        if self.client is not None:
            return str(self.client.stop_job(self.uuid)["status"])
        return self.info.status if self.held is None else self.held.stop().status

    def log(self, n: int) -> list[LogLine]:
        """The last `n` lines of its log."""
        if self.client is not None:
            return [LogLine(**line) for line in self.client.job_logs(self.uuid, n)]
        if self.held is not None:
            return self.held.logs()[-n:]
        kept = self.info.snapshot.logs if self.info.snapshot is not None else ()
        return [LogLine(line.time, line.level, line.source, line.text) for line in kept[-n:]]


class Known:
    """What one notebook knows."""

    def __init__(self) -> None:
        self.client: JobManagerClient | None = None
        """The server that it is connected to."""

    @property
    def manager(self) -> JobManager:
        """The kernel's."""
        return default_manager()

    @property
    def where(self) -> str | None:
        """The address of the server that it is connected to."""
        return str(self.client._address) if self.client is not None else None

    def client_at(self, word: str, token: str | None = None) -> JobManagerClient:
        """A client of the server at `HOST:PORT`; of the one that the notebook is connected to, with its token. Raises
        `PipelineError`."""
        from sage_nb.remote.client import JobManagerClient
        from sage_nb.remote.settings import LOOPBACK

        if word.isdecimal():
            word = f"{LOOPBACK}:{word}"
        found = JobManagerClient(word, token=token)
        mine = self.client
        if token is None and mine is not None and (mine.host, mine.port) == (found.host, found.port):
            return mine
        return found

    def find(self, word: Job | str) -> Found:
        """A job, by handle, uuid, number on the server, or a beginning of the uuid that no other has.

        Raises `JobNotFoundError`, and what a client does where the server does not answer.
        """
        key = str(word)
        here = {found.uuid: found for found in self._here()}
        if key in here:
            return here[key]
        found = here | {one.uuid: one for one in self._there()}
        if key.isdecimal() and len(key) <= _NUMBERS:
            for one in found.values():
                if one.number == int(key):
                    return one
        matches = [one for uuid, one in found.items() if key and uuid.startswith(key)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            some = ", ".join(one.uuid[:13] for one in matches[:4])
            raise JobNotFoundError(f"{len(matches)} jobs begin with {key!r}: {some}; give more of the id")
        place = f" here or on {self.where}" if self.client is not None else ""
        raise JobNotFoundError(f"no job goes by {key!r}{place}; %sage_jobs shows those there are")

    def all(self) -> tuple[list[Found], str | None]:
        """All jobs, the oldest first, and why those of the server are not among them."""
        found, why = {one.uuid: one for one in self._here()}, None
        try:
            found |= {one.uuid: one for one in self._there()}
        except ServerError as exc:
            why = str(exc)
        return sorted(found.values(), key=lambda one: one.info.start_time or one.info.last_update), why

    def _here(self) -> Iterator[Found]:
        """The kernel's jobs, and those of servers that somebody in the kernel holds a handle on."""
        for info in list(self.manager.jobs.values()):
            yield Found(info, held=self.manager._handles.get(info.uuid))
        attaching = sys.modules.get("sage_nb.remote.attaching")
        for job in attaching.handles() if attaching is not None else ():
            yield Found(job.info, where=_server_of(job), held=job)

    def _there(self) -> Iterator[Found]:
        """The jobs of the server that the notebook is connected to."""
        if self.client is None:
            return
        from sage_nb.remote.attaching import handle_of, info_of

        for status in self.client.list_jobs():
            info = info_of(status)
            yield Found(info, self.where, status["number"], handle_of(info.uuid), self.client)


def address_in(namespace: dict[str, Any], word: str) -> str:
    """The address that is `word`, or that is in the variable `word`. Raises `PipelineError`."""
    value = namespace.get(word, word)
    if not isinstance(value, str):
        raise PipelineError(f"{word} is no address but a {type(value).__name__}; an address is HOST:PORT")
    return value


def _server_of(job: Job) -> str | None:
    return job.snapshot().server
