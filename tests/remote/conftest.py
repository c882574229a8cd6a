"""A server for the tests of one module, whose files are all in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_nb import JobManagerClient, JobManagerServer
from tests.remote.support import runs_a_job


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where servers and clients of the module keep what is theirs, and not where the user's do."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.delenv("SAGE_NB_TOKEN", raising=False)
        yield folder


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[JobManagerServer]:
    """A server that is well when the module's tests are over, and runs the next job."""
    with JobManagerServer(port=0, warm=1, state=home / "jobs") as one:
        yield one
        with JobManagerClient(port=one.port) as client:
            assert client.health_check() == {"status": "ok"}
            runs_a_job(one)


@pytest.fixture
def unmoved(server: JobManagerServer) -> Iterator[JobManagerServer]:
    """A server that is as well after the test as it was before, and has no job more."""
    client = JobManagerClient(port=server.port)
    before = [*client.jobs]
    yield server
    assert client.health_check() == {"status": "ok"}
    assert [*client.jobs] == before
