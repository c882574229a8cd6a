"""The notebooks of the kernel, with nothing changed but where their pipelines run."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.test_streams_notebook import cell, text_of

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ON_RAY = {"%%sage_submit": "%%sage_submit --backend ray", "LocalEnvironment(": "LocalEnvironment(backend='ray', name="}
FEW = {'from_csv(data / "flights.csv.zip")': 'from_csv(data / "flights.csv.zip").take(2000)'}
"""Each call of a service from an actor takes a millisecond or two, and the quickstart makes one for each flight."""


def executed(name: str, folder: Path, **changed: str) -> NotebookNode:
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    for one in notebook.cells:
        for text, other in changed.items():
            if one.cell_type == "code":
                one.source = one.source.replace(text, other)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    return notebook


@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_streams_are_the_same(tmp_path: Path) -> None:
    """The notebook compares its windows, and its join, with what pandas computes."""
    notebook = executed("02_streams.ipynb", tmp_path, **ON_RAY)
    assert "the same windows, and the same late flights" in text_of(cell(notebook, "check"))
    assert "an actor" in text_of(cell(notebook, "explain"))
    assert "four instances, and the same answer as from one" in text_of(cell(notebook, "instances"))
    assert "8,255 flights never left" in text_of(cell(notebook, "letters"))
    assert text_of(cell(notebook, "left")) == "[]"


@pytest.mark.timeout(400)
def test_the_quickstart_is_the_same(tmp_path: Path) -> None:
    here = executed("01_quickstart.ipynb", tmp_path, **FEW)
    there = executed("01_quickstart.ipynb", tmp_path, **ON_RAY, **FEW)
    assert "on Ray" in text_of(cell(there, "run"))
    for id_ in ("result", "left", "error-left", "stop-left"):
        assert text_of(cell(there, id_)) == text_of(cell(here, id_)), id_
    assert "ValueError" in text_of(cell(there, "error"))
