"""One Jupyter server for all of these tests, and a kernel for those of one module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jupyter.support import JupyterServer, Page, ServerKernel


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JupyterServer]:
    """A running Jupyter server with the extension."""
    server = JupyterServer(tmp_path_factory.mktemp("jupyter"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def notebook(jupyter: JupyterServer) -> Iterator[ServerKernel]:
    """A kernel of a notebook, which has imported what the cells use."""
    kernel = jupyter.kernel("folder/analysis.ipynb")
    kernel.run("import threading, time\nfrom sage_nb import LocalEnvironment")
    yield kernel
    kernel.shutdown()


@pytest.fixture
def page(jupyter: JupyterServer) -> Iterator[Page]:
    """A page that looks on, with the panel in sight."""
    with jupyter.page() as page:
        page.say(op="visible", visible=True)
        yield page
