"""The notebook of servers, executed without anybody watching, and the quickstart on a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import psutil  # type: ignore[import-untyped]
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from sage_nb import JobManagerClient
from sage_nb.remote.access import Notice
from sage_nb.remote.daemon import start_background
from sage_nb.remote.settings import Settings
from tests.servers import own_folders
from tests.test_streams_notebook import cell, lines_of, text_of, view_of

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def executed(name: str, folder: Path, **changed: str) -> NotebookNode:
    """A notebook, run with some of its words changed; its kernel has ended. What it started and left is noted in it."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    for one in notebook.cells:
        for text, other in changed.items():
            if one.cell_type == "code":
                one.source = one.source.replace(text, other)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for number, one in enumerate(notebook.cells):
            client.execute_cell(one, number)
        kernel = psutil.Process(client.km.provisioner.pid)
        started = kernel.children(recursive=True)
    _, alive = psutil.wait_procs(started, timeout=10)
    notebook.metadata["alive"] = [str(one) for one in alive]
    return notebook


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders in which the servers of these tests are found, and no others."""
    folder = tmp_path_factory.mktemp("home")
    with own_folders(folder):
        yield folder


@pytest.fixture(scope="module")
def remote(home: Path, tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    return executed("04_remote.ipynb", tmp_path_factory.mktemp("remote"))


def test_the_same_cell_gives_the_same_on_the_server(remote: NotebookNode) -> None:
    there, here = view_of(cell(remote, "run")), view_of(cell(remote, "here"))
    assert "336,776 items" in there
    assert "  on 127.0.0.1:" in there.splitlines()[0]
    assert "  on 127.0.0.1:" not in here
    assert "service planes: stopped" in there
    assert text_of(cell(remote, "same")) == "the same ten flights\n"


def test_a_job_whose_kernel_was_killed_is_shown_to_its_end(remote: NotebookNode) -> None:
    assert text_of(cell(remote, "lost")) == "the other kernel is gone\n"
    assert "patience" in text_of(cell(remote, "jobs"))
    shown = view_of(cell(remote, "attach"))
    assert "✓ Completed  patience  on 127.0.0.1:" in shown
    assert text_of(cell(remote, "end")) == "completed 200 True\n"


def test_text_fits_eighty_columns(remote: NotebookNode) -> None:
    for one in remote.cells:
        if one.cell_type == "code":
            assert max([len(line) for line in lines_of(one)], default=0) <= 80, one.id


def test_nothing_is_left_of_server_and_jobs(remote: NotebookNode, home: Path) -> None:
    assert "has stopped" in text_of(cell(remote, "stop"))
    assert remote.metadata["alive"] == []
    assert list((home / "runtime").glob("sage_nb-*")) == []
    ours = [one.cmdline() for one in psutil.process_iter() if str(home) in str(_environment(one))]
    assert ours == []


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return dict(process.environ())
    except psutil.Error:
        return {}


@pytest.fixture(scope="module")
def server(home: Path) -> Notice:
    return start_background(Settings(port=0))


@pytest.mark.timeout(300)
def test_the_quickstart_is_the_same(server: Notice, tmp_path: Path) -> None:
    here = executed("01_quickstart.ipynb", tmp_path)
    elsewhere = {
        "%%sage_submit": f"%%sage_submit --remote {server.host}:{server.port}",
        "LocalEnvironment, call_service": "RemoteEnvironment, call_service",
        "LocalEnvironment(": f"RemoteEnvironment(port={server.port}, name=",
    }
    there = executed("01_quickstart.ipynb", tmp_path, **elsewhere)
    assert f"on {server.host}:{server.port}" in view_of(cell(there, "run"))
    for id_ in ("result", "left", "error-left", "stop-left"):
        assert text_of(cell(there, id_)) == text_of(cell(here, id_)), id_
    assert "ValueError" in text_of(cell(there, "error"))
    with JobManagerClient(port=server.port) as client:
        assert [job["status"] for job in client.list_jobs()] == ["completed", "failed", "stopped"]
