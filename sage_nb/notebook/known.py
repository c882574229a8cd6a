"""The jobs that a notebook can name: those of its kernel, of the server it is connected to, and of its handles.

Nothing of `sage_nb.remote` is imported before a server is asked for: that takes longer than all the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sage_nb.engine.log import LogLine
from sage_nb.errors import JobNotFoundError, PipelineError, ServerError, ServerUnreachableError
from sage_nb.jobs.finding import find_job
from sage_nb.jobs.info import JobInfo
from sage_nb.jobs.job import Job
from sage_nb.jobs.manager import JobManager, default_manager

if TYPE_CHECKING:
    from sage_nb.remote.client import JobManagerClient

__all__ = ["Found", "Known", "address_in"]

_PATIENCE = 1.8
"""Seconds within which a server has to list its jobs for a person who waits."""
_BLINK = 0.03


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
        self._seen: list[Found] = []
        """The jobs that it listed last."""
        self._asking: Future[list[dict[str, Any]]] | None = None

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
        """A job, by handle, uuid, number on the server, name (the newest of that name), or a beginning of the uuid that
        no other has.

        Raises `JobNotFoundError`, and what a client does where the server does not answer and nothing here is meant.
        """
        here = {found.uuid: found for found in self._here()}
        if str(word) in here:
            return here[str(word)]
        try:
            return _named(word, here | {one.uuid: one for one in self._there()}, self.where)
        except ServerError as exc:
            try:
                return _named(word, here)
            except JobNotFoundError:
                raise exc from None

    def all(self) -> tuple[list[Found], str | None]:
        """All jobs, the oldest first, and why those of the server are not among them."""
        found, why = {one.uuid: one for one in self._here()}, None
        try:
            found |= {one.uuid: one for one in self._there()}
        except ServerError as exc:
            why = str(exc)
        return sorted(found.values(), key=_began), why

    def at_hand(self) -> list[Found]:
        """The jobs that are known without waiting for anybody, the newest first: of the server, those that it lists
        within a blink, or else those that it listed last."""
        found = {one.uuid: one for one in self._here()}
        if self.client is not None:
            self._look()
            for one in self._seen:
                if one.client is self.client:
                    here = found.get(one.uuid)  # whose record is newer
                    found[one.uuid] = one if here is None else replace(one, info=here.info, held=here.held)
        return sorted(found.values(), key=_began, reverse=True)

    def _look(self) -> None:
        """Ask the server for its jobs, and wait for a blink. One question is under way at a time."""
        from sage_nb.remote.portal import portal

        assert self.client is not None
        client, where = self.client, self.where
        if self._asking is None or self._asking.done():

            def take(answer: Future[list[dict[str, Any]]]) -> None:
                if not answer.cancelled() and answer.exception() is None and self.client is client:
                    self._seen = [_found_there(status, where, client) for status in answer.result()]

            self._asking = portal.run(client.aio.list_jobs())
            self._asking.add_done_callback(take)
        wait_for([self._asking], _BLINK)

    def _here(self) -> Iterator[Found]:
        """The kernel's jobs, and those of servers that somebody in the kernel holds a handle on."""
        for info in list(self.manager.jobs.values()):
            yield Found(info, held=self.manager._handles.get(info.uuid))
        attaching = sys.modules.get("sage_nb.remote.attaching")
        for job in attaching.handles() if attaching is not None else ():
            yield Found(job.info, where=_server_of(job), held=job)

    def _there(self) -> list[Found]:
        """The jobs of the server that the notebook is connected to, if it answers soon: a person waits for a table."""
        if self.client is None:
            return []
        from sage_nb.remote.portal import portal, wait

        try:
            listed = wait(portal.run(self.client.aio.list_jobs()), _PATIENCE)
        except FutureTimeout:
            raise ServerUnreachableError(
                f"no JobManager server answers at {self.where} within {_PATIENCE:g} s; "
                "%sage_server status says more of one on this machine"
            ) from None
        self._seen = [_found_there(status, self.where, self.client) for status in listed]
        return self._seen


def _found_there(status: dict[str, Any], where: str | None, client: JobManagerClient) -> Found:
    from sage_nb.remote.attaching import handle_of, info_of

    info = info_of(status)
    return Found(info, where, status["number"], handle_of(info.uuid), client)


def _named(word: Job | str, jobs: dict[str, Found], where: str | None = None) -> Found:
    place = f" here or on {where}" if where else ""
    by_age = {one.uuid: one for one in sorted(jobs.values(), key=_began)}
    return find_job(
        str(word),
        by_age,
        lambda one: one.info.name,
        lambda one: one.number,
        nobody=f"no job goes by {{word!r}}{place}",
        advice="%sage_jobs shows those there are",
    )


def _began(one: Found) -> float:
    return one.info.start_time or one.info.last_update


def address_in(namespace: dict[str, Any], word: str) -> str:
    """The address that is `word`, or that is in the variable `word`. Raises `PipelineError`."""
    value = namespace.get(word, word)
    if not isinstance(value, str):
        raise PipelineError(f"{word} is no address but a {type(value).__name__}; an address is HOST:PORT")
    return value


def _server_of(job: Job) -> str | None:
    return job.snapshot().server
