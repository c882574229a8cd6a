"""The side panel "Jobs" and the healing of saved outputs, in a real JupyterLab and a real Notebook 7."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from playwright.sync_api import Locator, expect

from sage_nb.remote.daemon import running
from tests.browser.axe import violations
from tests.browser.conftest import SHOTS
from tests.browser.lab import LabPage, LabServer
from tests.browser.test_job_in_lab import LOAD, state
from tests.servers import own_folders

WIDGET = "application/vnd.jupyter.widget-view+json"
ENDLESS = """
%%sage_submit endless -o job
import time
from sage_nb import BaseService

class Clock(BaseService):
    def setup(self):
        self.logger.info("clock set up")

def ticks():
    n = 0
    while True:
        yield {"tick": n, "square": n * n}
        n += 1
        time.sleep(0.005)

env.register_service("clock", Clock)
env.from_source(ticks).filter(lambda t: t["tick"] % 2).show("ticks", rows=5)
""".strip()
UNTIL_TOLD = """
%%sage_submit until_told -o job
import os, time

def ticks():
    n = 0
    while not os.path.exists("{flag}"):
        yield n
        n += 1
        time.sleep(0.005)

env.from_batch(ticks()).show("ticks", rows=5)
""".strip()
BLOCK = "import time\ntime.sleep(600)"


def panel_of(page: LabPage) -> Locator:
    """Open the panel as a person does who uses no mouse: by the command palette."""
    page.page.keyboard.press("Control+Shift+C")
    page.page.locator(".lm-CommandPalette-input").fill("Show Jobs")
    expect(page.page.locator('.lm-CommandPalette-item[data-command="sage-nb:jobs"]')).to_be_visible()
    page.page.keyboard.press("Enter")
    panel = page.page.get_by_role("region", name="Jobs")
    expect(panel).to_be_visible()
    return panel


def row_of(panel: Locator, name: str) -> Locator:
    return panel.locator(".sage-row").filter(has=panel.page.locator(f'.sage-head:has-text("{name}")'))


def healed(page: LabPage, cell: int) -> None:
    """Wait until the output of a job needs no kernel. What is seen says less: HTML may stand in for a widget."""
    page.page.wait_for_function(
        """([cell, widget]) => {
            const outputs = jupyterapp.shell.currentWidget.content.widgets[cell].model.outputs.toJSON();
            const ours = outputs.filter(one => one.metadata?.sage_nb);
            return ours.length > 0 && ours.every(one => !one.data[widget]);
        }""",
        arg=[cell, WIDGET],
        timeout=40_000,
    )


def data_of(notebook: NotebookNode, cell: int) -> NotebookNode:
    """What the job's output of a cell holds."""
    (output,) = [one for one in notebook.cells[cell].outputs if "sage_nb" in one.get("metadata", {})]
    data: NotebookNode = output.data
    return data


def test_the_panel_shows_stops_and_finds_a_job_also_while_its_kernel_is_stuck(page: LabPage) -> None:
    """From the empty panel that teaches, to a stop that gets through to a kernel in `time.sleep(600)`."""
    far = ["# a cell far below"] * 40
    page.open([LOAD, ENDLESS, BLOCK, *far])
    panel = panel_of(page)
    expect(panel).to_contain_text("No jobs yet")
    expect(panel.locator(".sage-foot")).to_contain_text("No JobManager server")
    page.screenshot("panel-empty")
    assert violations(page.page, ".sage-panel") == []

    page.run_cell(0)
    page.run_cell(1)
    row = row_of(panel, "endless")
    state(row, "Running")
    expect(row).to_contain_text(page.name)
    rate = row.locator(".sage-rate")
    expect(rate).to_contain_text(re.compile(r"\d+/s"))
    before = row.locator(".sage-elapsed").inner_text()
    expect(row.locator(".sage-elapsed")).not_to_have_text(before)
    expect(row.locator(".sage-chips")).to_have_text("clock")
    expect(panel.locator("header")).to_contain_text("1 running")
    expect(page.page.locator('[data-sage-running="1"]')).to_have_count(1)

    # By the keyboard: the row's full view, live, and all its log lines.
    head = row.get_by_role("button", name="endless", exact=True)
    head.focus()
    page.page.keyboard.press("Enter")
    view = row.locator(".sage-slot .sage-job")
    expect(view.locator(".sage-facts")).to_contain_text(re.compile(r"[1-9]\d\d items"))
    first = view.locator(".sage-facts").inner_text()
    expect(view.locator(".sage-facts")).not_to_have_text(first)
    row.get_by_role("button", name="All log lines").click()
    expect(row.locator(".sage-slot > pre")).to_contain_text("clock set up")
    page.screenshot("panel-expanded")
    assert violations(page.page, ".sage-panel") == []
    page.dark()
    page.screenshot("panel-expanded-dark")
    assert violations(page.page, ".sage-panel") == []
    head.press("Enter")
    expect(view).to_have_count(0)
    for width in (400, 1600):
        page.page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(f"panel-dark-{width}")
        assert violations(page.page, ".sage-panel") == []
    page.page.set_viewport_size({"width": 1280, "height": 1000})
    page.dark(False)

    page.run_cell(2, wait=False)
    page.cell(30).scroll_into_view_if_needed()
    stop = row.get_by_role("button", name="Stop: endless")
    began = time.monotonic()
    stop.press("Enter")
    expect(row).to_contain_text("Stopped", timeout=3_000)
    assert time.monotonic() - began < 3
    expect(row.locator(".sage-chips li")).to_have_attribute("data-state", "stopped")
    expect(page.cell(2).locator(".jp-InputPrompt").first).to_contain_text("*")
    page.screenshot("panel-stopped")

    row.get_by_role("button", name="Open the cell: endless").click()
    expect(page.cell(1)).to_be_in_viewport()
    expect(page.cell(1)).to_have_class(re.compile("jp-mod-active"))
    page.interrupt()
    page.wait_done()
    state(page.output(1), "Stopped")
    assert page.outside == []
    assert page.console_errors == []


def test_after_a_reload_the_end_reaches_page_and_file(page: LabPage, lab: LabServer, browser: object) -> None:
    """Two browsers show the job; one is reloaded; the job ends, and both pages and the file say how."""
    flag = f"{page._workspace}-flag"
    page.open([LOAD, UNTIL_TOLD.replace("{flag}", flag)]).run_all()
    state(page.output(1), "Running")
    page.save()
    page.reload()
    state(page.output(1), "Running")
    second = page.second()
    state(second.output(1), "Running")
    items = second.output(1).locator(".sage-facts")
    expect(items).not_to_have_text(items.inner_text())

    (page.file.parent / flag).touch()
    for one in (page, second):
        state(one.output(1), "Completed")
        healed(one, 1)
        assert one.page.evaluate("() => jupyterapp.shell.currentWidget.content.widgets[1].model.trusted")
    assert WIDGET not in data_of(page.save(), 1)
    assert "Completed" in data_of(page.saved(), 1)["text/plain"]
    page.reload()
    state(page.output(1), "Completed")
    page.page.wait_for_timeout(3_000)  # time in which something that is wrongly changed would be
    expect(page.page.locator(".jp-mod-dirty")).to_have_count(0)
    assert page.console_errors == second.console_errors == []
    assert page.outside == second.outside == []


def test_outputs_are_healed_when_their_kernel_is_gone(page: LabPage) -> None:
    """Killed, shut down, or never known: no output is left with a widget that nobody can draw."""
    page.open([LOAD, ENDLESS, "import os\nprint(os.getpid())"]).run_all()
    state(page.output(1), "Running")
    os.kill(int(page.output(2).inner_text()), signal.SIGKILL)
    page.page.locator(".jp-Dialog button", has_text="Ok").click(timeout=30_000)
    healed(page, 1)
    expect(page.output(1)).to_contain_text("its kernel is gone")
    expect(page.output(1)).to_contain_text("■ Stopped")
    assert WIDGET not in data_of(page.save(), 1)

    page._wait_kernel()
    page.run_cell(0)
    page.run_cell(1)
    state(page.output(1), "Running")
    as_it_was = page.save()
    assert WIDGET in data_of(as_it_was, 1)
    page.open_without_kernel()
    healed(page, 1)
    expect(page.output(1)).to_contain_text("■ Stopped")
    assert WIDGET not in data_of(page.save(), 1)

    for output in as_it_was.cells[1].outputs:
        output.metadata.sage_nb.job = "0" * 32
    nbformat.write(as_it_was, page.file)
    page.open_without_kernel()
    healed(page, 1)
    expect(page.output(1)).to_contain_text(re.compile(r"As of \d\d:\d\d:\d\d"))
    assert WIDGET not in data_of(page.save(), 1)
    assert [error for error in page.console_errors if "sage" in error] == []


@pytest.fixture
def own_server(lab: LabServer, tmp_path: Path) -> Iterator[None]:
    """Whatever JobManager server is started in the test ends with it."""
    with own_folders(tmp_path, runtime=lab.runtime):
        yield


def test_a_server_is_started_and_its_jobs_are_attached_in_a_new_notebook(page: LabPage, own_server: None) -> None:
    page.open([LOAD, "where = open('address').read()", "%sage_connect where", ENDLESS.replace("endless", "on_server")])
    panel = panel_of(page)
    panel.get_by_role("button", name="Start a server").click()
    foot = panel.locator(".sage-foot")
    expect(foot).to_contain_text(re.compile(r"JobManager server: 127\.0\.0\.1:\d+, running"), timeout=20_000)
    expect(foot.get_by_role("button")).to_have_count(0)
    address = re.search(r"127\.0\.0\.1:(\d+)", foot.inner_text())
    assert address is not None
    assert running(int(address[1])) is not None
    (page.lab.root / "address").write_text(address[0])
    for cell in range(4):
        page.run_cell(cell)
    row = row_of(panel, "on_server")
    state(row, "Running")
    expect(row.locator(".sage-place")).to_have_text(f"{page.name} on {address[0]}")
    row.get_by_role("button", name="on_server", exact=True).click()
    view = row.locator(".sage-slot .sage-job")
    view.get_by_role("button", name="Pause").click()
    state(row, "Paused")
    view.get_by_role("button", name="Resume").click()
    row.get_by_role("button", name="Attach in a new notebook: on_server").click()
    attached = page.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .sage-job")
    expect(page.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")).to_contain_text("%sage_attach", timeout=20_000)
    expect(attached).to_contain_text("Running", timeout=30_000)
    page.screenshot("panel-attached")
    row.get_by_role("button", name="Open the cell: on_server").click()
    expect(page.output(3).locator(".sage-job")).to_be_visible()
    row.get_by_role("button", name="Stop: on_server").click()
    state(row, "Stopped")
    state(page.output(3), "Stopped")
    assert page.console_errors == []
    assert page.outside == []


def test_notebook_7_has_the_panel_beside_its_notebooks_and_its_files(page7: LabPage) -> None:
    """The same panel, the same healing; what is opened from the page of files opens beside it."""
    page = page7
    page.open([LOAD, ENDLESS]).run_all()
    state(page.output(1), "Running")
    panel = panel_of(page)
    state(row_of(panel, "endless"), "Running")
    page.screenshot("panel-notebook7")
    assert violations(page.page, ".sage-panel") == []
    page.save()
    page.reload()
    state(page.output(1), "Running")

    tree = page.page.context.new_page()
    tree.goto(f"{page.lab.url}tree?token={page.lab.token}")
    tree.get_by_role("tab", name="Jobs").click()
    jobs = tree.locator(".sage-panel")
    state(row_of(jobs, "endless"), "Running")
    tree.screenshot(path=SHOTS / "panel-notebook7-tree.png")
    room = """tab => {
        const end = tab.querySelector(".lm-TabBar-tabLabel").getBoundingClientRect().right;
        return tab.getBoundingClientRect().right - end - parseFloat(getComputedStyle(tab, "::before").width);
    }"""
    badge = tree.get_by_role("tab", name="Jobs")
    expect(badge).to_have_attribute("data-sage-running", "1")
    assert badge.evaluate("tab => getComputedStyle(tab, '::before').position") == "static"
    assert badge.evaluate(room) >= 0
    with tree.context.expect_page() as opened:
        row_of(jobs, "endless").get_by_role("button", name="Open the cell: endless").click()
    expect(opened.value.locator(".jp-Cell.jp-mod-active")).to_contain_text("sage_submit endless", timeout=20_000)
    row_of(jobs, "endless").get_by_role("button", name="Stop: endless").click()
    state(row_of(jobs, "endless"), "Stopped")
    state(page.output(1), "Stopped")
    healed(page, 1)
    assert WIDGET not in data_of(page.save(), 1)
    assert page.outside == []
    own = "Cannot read properties of undefined (reading 'schema')"  # Notebook 7.6's, also without any extension
    assert [error for error in page.console_errors if error != own] == []
