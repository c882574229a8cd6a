"""A job on a JobManager server in a real JupyterLab: shown live, left alone by a restart, and found again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from sage_nb import JobManagerClient
from sage_nb.remote.daemon import start_background
from sage_nb.remote.settings import Settings
from tests.browser.lab import LabPage, LabServer
from tests.browser.test_job_in_lab import html_of, ours, state
from tests.servers import own_folders

ENDLESS = """
%%sage_submit sensor_watch -o job
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


@pytest.fixture
def client(lab: LabServer, tmp_path: Path) -> Iterator[JobManagerClient]:
    """A server that JupyterLab's kernels find."""
    with (
        own_folders(tmp_path, runtime=lab.runtime),
        JobManagerClient(port=start_background(Settings(port=0)).port) as client,
    ):
        yield client


def test_a_job_on_a_server_is_live_survives_a_restart_and_is_found_again(
    page: LabPage, client: JobManagerClient
) -> None:
    at = f"127.0.0.1:{client.port}"
    page.open(["%load_ext sage_nb", f"%sage_connect {at}", ENDLESS, "%sage_attach 1", "%sage_jobs"])
    for cell in (0, 1, 2):
        page.run_cell(cell)
    expect(page.output(1)).to_contain_text(f"connected to {at}")
    view = page.output(2)
    state(view, "Running")
    expect(view.locator(".sage-at")).to_have_text(f"on {at}")
    expect(view).to_contain_text(re.compile(r"[1-9]\d\d items"))
    page.screenshot("server-running", view)
    view.get_by_role("button", name="Pause").click()
    state(view, "Paused")
    view.get_by_role("button", name="Resume").click()
    state(view, "Running")

    page.restart_kernel()
    assert client.get_job_status("1")["status"] == "running"
    for cell in (0, 1, 3, 4):
        page.run_cell(cell)
    again = page.output(3)
    state(again, "Running")
    expect(page.output(4)).to_contain_text("sensor_watch")
    page.screenshot("server-jobs", page.output(4))
    page.dark()
    page.screenshot("server-attached-dark", again)
    page.dark(False)
    again.get_by_role("button", name="Stop").click()
    state(again, "Stopped")
    (bundle,) = html_of(page.save(), 3)
    assert f"on {at}" in bundle["text/html"]
    assert f"on {at}" in bundle["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" not in bundle
    page.screenshot("server-stopped", again)
    assert ours(page) == []
