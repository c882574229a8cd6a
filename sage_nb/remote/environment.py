"""`RemoteEnvironment`: declares a pipeline, and has a JobManager server run it."""

from __future__ import annotations

import os
import uuid as uuids
from typing import Any

from sage_nb.engine.dispatcher import Cleanup
from sage_nb.engine.plan import make_plan
from sage_nb.engine.stages import Plan
from sage_nb.errors import PipelineError
from sage_nb.jobs.announcing import announce
from sage_nb.jobs.environment import LocalEnvironment, register_pipeline
from sage_nb.jobs.info import JobInfo
from sage_nb.jobs.job import Job
from sage_nb.jobs.manager import thread_context, watched
from sage_nb.jobs.planning import picture
from sage_nb.jobs.submitting import SubmittingEnvironment, check_backend
from sage_nb.pipeline.restarts import refuse_unreplayable
from sage_nb.remote.address import address_of
from sage_nb.remote.attaching import make_handle
from sage_nb.remote.client import JobManagerClient, call
from sage_nb.remote.connection import CLIENT
from sage_nb.remote.payload import PayloadHead, copy_warnings, head_for, joined, make_payload
from sage_nb.remote.protocol import Declared
from sage_nb.remote.run import RemoteRun
from sage_nb.remote.settings import machine

__all__ = ["RemoteEnvironment"]

_OWNERS = ("detached", "attached")


class RemoteEnvironment(SubmittingEnvironment):
    """Declares a pipeline and has a JobManager server run it.

    `host` and `port` are the server's; `host` may be `HOST:PORT` or `https://HOST:PORT`. `token` is found by itself
    for a server on this machine, and in `SAGE_NB_TOKEN`. `config` is that of `LocalEnvironment`, and its entry `server`
    a dict with any of `tls` and `ca`, `request_timeout` (1,800 s), `reconnect_timeout` (never), `owner_timeout` (60 s).

    A `detached` job outlives this process; `sage_nb.attach` finds it again. An `attached` one is stopped, with its
    cleanup, when this process has been gone for `owner_timeout` seconds. `backend` is the server's own unless given.

    As a context manager it stops its job at the end of the block.
    """

    def __init__(
        self,
        name: str = "pipeline",
        config: dict[str, Any] | None = None,
        host: str = "127.0.0.1",
        port: int | None = None,
        token: str | None = None,
        *,
        owner: str = "detached",
        backend: str | None = None,
    ) -> None:
        if backend is not None:
            check_backend(backend)
        if owner not in _OWNERS:
            raise PipelineError(f"a job is {' or '.join(_OWNERS)}, not {owner!r}")
        super().__init__(name, config, backend or "threads")
        options = self.config.get("server")
        self._address = address_of(host, port, token, options)
        self._owner_timeout = float((options or {}).get("owner_timeout", 60.0))
        self._asked_backend = backend
        self._owner = owner
        self._client = JobManagerClient(host, port, token, config=options)

    @property
    def host(self) -> str:
        """The server's."""
        return self._address.host

    @property
    def port(self) -> int:
        """The server's."""
        return self._address.port

    @property
    def jobmanager(self) -> JobManagerClient:
        """The server's JobManager."""
        return self._client

    def register_pipeline(self, name: str, env: LocalEnvironment) -> None:
        """Let another environment's pipeline be a service of this one; see `LocalEnvironment.register_pipeline`. It
        runs where this one does."""
        register_pipeline(self, name, env)

    def serialize(self, autostop: bool = False) -> bytes:
        """The pipeline as `JobManagerClient.submit_job` takes it. Raises `ShippingError`, which names what cannot
        travel."""
        make_plan(self._graph, self.name, self.backend)
        return joined(make_payload(self, self._head(self.name, autostop=autostop)))

    def _start(
        self,
        plan: Plan,
        *,
        autostop: bool,
        timeout: float | None,
        cleanup: Cleanup,
        name: str,
        on_error: str,
        **_where: Any,
    ) -> Job:
        head = self._head(name, autostop=autostop, timeout=timeout, cleanup=cleanup, on_error=on_error)
        pieces = make_payload(self, head)
        info = JobInfo(str(uuids.uuid4()), name, self.name, autostop=autostop)
        shown = picture(name, self._graph, plan, self.backend, uuid=info.uuid)
        connection = self._client._connection
        declared = Declared.of(self._graph.operators, on_error)
        job = make_handle(
            connection, info, shown, ends_with_its_waiter=True, declared=declared, context=thread_context()
        )
        run = job._dispatcher
        assert isinstance(run, RemoteRun)
        self._job = job
        run.notes.extend(head.warnings)  # the runner says them too, which takes a while

        async def submit() -> None:
            await connection.submit(info.uuid, pieces)
            run.begin()

        try:
            call(submit)
        except BaseException as exc:
            self._job = None
            if isinstance(exc, KeyboardInterrupt):
                run.ask("stop")  # the server may have it all the same
            raise
        announce(job)
        return job

    def _head(self, name: str, **more: Any) -> PayloadHead:
        if self._restarts is not None:
            refuse_unreplayable(self._graph)
        attached = self._owner == "attached"
        return head_for(
            self,
            name,
            backend=self._asked_backend,
            owner=CLIENT if attached else None,
            owner_timeout=self._owner_timeout,
            machine=machine(),
            folder=os.getcwd(),
            warnings=copy_warnings(self._graph),
            watched=watched(),
            **more,
        )

    def _wait_for_completion(self, timeout: float | None = None) -> Job:
        """Wait for the end of the latest job and of its cleanup, which the server tells. See `Job.wait`."""
        __tracebackhide__ = True
        return self._running().wait(timeout)
