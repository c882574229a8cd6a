"""Tests of faults leave no process behind, either."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.servers import Server, hang_up
from tests.faults.support import children
from tests.support import until


@pytest.fixture(autouse=True)
def _leaves_no_process() -> Iterator[None]:
    before = children()
    yield
    until(lambda: not children() - before, 3.0)


@pytest.fixture(scope="package")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A Jupyter runtime folder of the tests' own, for the servers' files."""
    folder = tmp_path_factory.mktemp("runtime")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder))
        patch.delenv("SAGE_NB_TOKEN", raising=False)
        yield folder


@pytest.fixture(scope="module")
def lasting(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the tests of a module that leave it as it was."""
    with Server(tmp_path_factory.mktemp("server"), max_running=6, warm=2) as server:
        yield server


@pytest.fixture
def server(lasting: Server) -> Iterator[Server]:
    """The module's server; this process's connections to it end with the test."""
    yield lasting
    hang_up()
    assert lasting.health() == {"status": "ok"}
