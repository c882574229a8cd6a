"""The notebook on Ray, executed without anybody watching; and nothing of its cluster outlives the kernel."""

from __future__ import annotations

from pathlib import Path

import nbformat
import psutil  # type: ignore[import-untyped]
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.test_streams_notebook import cell, lines_of, text_of, view_of

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "03_ray.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("ray")
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for number, one in enumerate(notebook.cells):
            client.execute_cell(one, number)
        kernel = psutil.Process(client.km.provisioner.pid)
        started = kernel.children(recursive=True)
    _, alive = psutil.wait_procs(started, timeout=60)
    notebook.metadata["alive"] = [str(one) for one in alive]
    return notebook


@pytest.mark.timeout(300)
def test_the_same_cell_predicts_the_same_in_the_kernel_and_on_ray(executed: NotebookNode) -> None:
    assert "on Ray" not in view_of(cell(executed, "here"))
    there = view_of(cell(executed, "there"))
    assert "28,485 items" in there
    assert "on Ray" in there
    assert "service lateness: stopped · 15 calls" in there
    said = text_of(cell(executed, "same"))
    assert said.splitlines()[0] == "the same 28,485 predictions"
    assert said.split()[-1] == "True"
    assert "False" not in said
    assert "15 tables from 2 actors, and the same predictions" in text_of(cell(executed, "more-run"))


def test_the_plan_says_that_stages_are_actors(executed: NotebookNode) -> None:
    assert "Stage 2 · 2 actors · cut: 2 instances, asks for other resources" in text_of(cell(executed, "more"))


def test_text_fits_eighty_columns(executed: NotebookNode) -> None:
    for one in executed.cells:
        if one.cell_type == "code":
            assert max([len(line) for line in lines_of(one)], default=0) <= 80, one.id


def test_nothing_is_left_of_the_jobs_nor_after_the_kernel(executed: NotebookNode) -> None:
    assert text_of(cell(executed, "left")) == "[]"
    assert executed.metadata["alive"] == []
