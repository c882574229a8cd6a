"""One line of a table of jobs, as every such table shows it: the side panel's, and that of `%sage_jobs`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sage_nb.jobs.snapshot import JobSnapshot, Status

__all__ = ["JobRow", "ServiceState", "row_of"]


class ServiceState(msgspec.Struct, frozen=True, kw_only=True):
    """A service, in short."""

    name: str
    state: str


class JobRow(msgspec.Struct, frozen=True, kw_only=True):
    """A job, in short. Times are seconds; rates are items per second."""

    uuid: str
    name: str
    status: Status
    backend: str = "threads"
    where: Literal["kernel", "server"] = "kernel"
    place: str = ""
    """What a person calls it: the file name of the kernel's notebook, or HOST:PORT of the server, after the notebook
    that the job came from where that is known."""
    kernel: str | None = None
    """Id of the kernel that has it."""
    path: str | None = None
    """The notebook of that kernel."""
    cell: str | None = None
    """Id of the cell that submitted it."""
    number: int | None = None
    """Its number on the server."""
    started: float | None = None
    """Seconds since the epoch."""
    elapsed: float = 0.0
    items: int = 0
    rate: float = 0.0
    fraction: float | None = None
    """Share of the sources' input that has been read, 0 to 1, where that is known."""
    services: tuple[ServiceState, ...] = ()
    error: str | None = None
    """`Type: text`, in one line."""
    reason: str | None = None
    """Why it has stopped, where nobody asked it to."""

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON-able data."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data


def row_of(
    snapshot: JobSnapshot,
    *,
    place: str = "",
    kernel: str | None = None,
    path: str | None = None,
    cell: str | None = None,
    number: int | None = None,
) -> JobRow:
    """The row of a job that is described in full; `place` is that of its kernel."""
    error = snapshot.error
    return JobRow(
        uuid=snapshot.uuid,
        name=snapshot.name,
        status=snapshot.status,
        backend=snapshot.backend,
        where="server" if snapshot.server else "kernel",
        place=snapshot.server or place,
        kernel=kernel,
        path=path,
        cell=cell,
        number=number,
        started=snapshot.started,
        elapsed=snapshot.elapsed,
        items=snapshot.items,
        rate=snapshot.rate,
        fraction=snapshot.fraction,
        services=tuple(ServiceState(name=one.name, state=one.state) for one in snapshot.services),
        reason=snapshot.reason,
        error=None if error is None else f"{error.type}: {error.message}".partition("\n")[0],
    )
