"""What a page shows of jobs after their kernel was restarted: nothing that is dead, and nothing that is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from sage_nb import JobManagerClient
from sage_nb.remote.daemon import start_background, stop_background
from sage_nb.remote.settings import Settings
from tests.browser.lab import LabPage, LabServer
from tests.browser.test_job_in_lab import ours, state
from tests.browser.test_panel import WIDGET, data_of, healed, panel_of, row_of
from tests.servers import own_folders

TICKS = """
%load_ext sage_nb
import time
def ticks():
    n = 0
    while True:
        yield n
        n += 1
        time.sleep(0.01)
""".strip()
REMOTE = "%%sage_submit far --remote {at}\nenv.from_source(ticks).show('ticks', rows=3)"


@pytest.fixture
def client(lab: LabServer, tmp_path: Path) -> Iterator[JobManagerClient]:
    """A server that JupyterLab's kernels and its panel find."""
    with own_folders(tmp_path, runtime=lab.runtime):
        port = start_background(Settings(port=0)).port
        with JobManagerClient(port=port) as client:
            yield client
        stop_background(port)


def test_the_view_of_a_servers_job_goes_on_after_a_restart_and_after_a_reload(
    page: LabPage, client: JobManagerClient
) -> None:
    """And its buttons act, by way of the Jupyter server; in the end page and file have the job's last state."""
    page.open([TICKS, REMOTE.format(at=f"127.0.0.1:{client.port}")]).run_all()
    view = page.output(1)
    state(view, "Running")
    panel = panel_of(page)
    state(row_of(panel, "far"), "Running")
    page.restart_kernel()
    for order, word in (("Pause", "Paused"), ("Resume", "Running")):
        view.get_by_role("button", name=order).click()
        state(view, word)
    facts = view.locator(".sage-facts")
    expect(facts).not_to_have_text(facts.inner_text())
    expect(view.locator(".sage-waiting")).to_be_hidden()
    page.screenshot("restart-live", view)

    assert WIDGET in data_of(page.save(), 1)
    page.reload()
    state(view, "Running")
    expect(facts).not_to_have_text(facts.inner_text())
    expect(view).not_to_contain_text("model not found")
    page.screenshot("restart-reloaded", view)
    view.get_by_role("button", name="Stop").click()
    state(view, "Stopped")
    healed(page, 1)
    assert "Stopped" in data_of(page.save(), 1)["text/plain"]
    assert WIDGET not in data_of(page.saved(), 1)
    assert client.get_job_status("1")["status"] == "stopped"
    assert ours(page) == []
    assert [error for error in page.console_errors if "Cannot send" in error] == []


FORM = """
from sage_nb import launcher
def build(env, factor: int = 2):
    env.from_source(ticks).map(lambda x: x * factor).show('out', rows=3)
launcher(build)
""".strip()
LOCAL = "%%sage_submit near\nenv.from_source(ticks).show('out', rows=3)"
GONE = "Stopped: its kernel was restarted or shut down"


def test_a_form_and_a_table_say_that_their_kernel_is_gone(page: LabPage, client: JobManagerClient) -> None:
    """In the page, and after a reload from what was saved: nothing runs that does not, no widget is missing."""
    page.page.set_viewport_size({"width": 1280, "height": 3000})
    far = REMOTE.format(at=f"127.0.0.1:{client.port}")
    page.open([TICKS, FORM, far, LOCAL, "%sage_jobs"])
    for cell in range(4):
        page.run_cell(cell)
    form, table = page.output(1), page.output(4)
    form.get_by_role("button", name="Submit").click()
    state(form, "Running")
    page.run_cell(4)
    expect(table.locator(".sage-row .sage-state")).to_have_text(["Running"] * 3)
    as_it_was = page.save()

    page.restart_kernel()
    states = table.locator(".sage-row .sage-state")
    expect(states.filter(has_text="Running")).to_have_count(1)
    expect(states.filter(has_text=GONE)).to_have_count(2)
    page.screenshot("restart-table", table)
    expect(form).to_contain_text("factor")
    healed(page, 1)
    expect(form).to_contain_text(GONE)
    expect(form).to_contain_text("factor")
    page.screenshot("restart-form", form)
    table.get_by_role("button", name="Stop: far").click()
    expect(states.filter(has_text="Running")).to_have_count(0)
    state(page.output(2), "Stopped")
    healed(page, 2)
    assert "factor" in data_of(page.save(), 1)["text/plain"]
    assert GONE in data_of(page.saved(), 1)["text/plain"]

    page.page.goto("about:blank")
    nbformat.write(as_it_was, page.file)
    page._go()
    for cell in (1, 2, 3, 4):
        healed(page, cell)
    expect(form).to_contain_text("factor")
    expect(table.locator("table")).to_contain_text("near")
    expect(table).to_contain_text(re.compile(r"This is how the jobs were at \d\d:\d\d:\d\d"))
    expect(page.page.locator(".jp-Notebook")).not_to_contain_text("model not found")
    assert ours(page) == []
