"""The form of `launcher`, and the live table of `%sage_jobs`, in a real JupyterLab."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.axe import violations
from tests.browser.lab import LabPage
from tests.browser.test_job_in_lab import LOAD, ours, state

BUILD = """
import time
from typing import Annotated, Literal
from sage_nb import BaseService, Range, launcher

class Clock(BaseService):
    def cleanup(self):
        open("cleaned.txt", "a").write("cleaned ")

def ticks():
    n = 0
    while True:
        yield n
        n += 1
        time.sleep(0.005)

def build(env, factor: Annotated[int, Range(1, 10)] = 2, mode: Literal["plus", "times"] = "times", name: str = "a"):
    '''Multiply ticks'''
    if name == "bad":
        raise ValueError("no such name")
    env.register_service("clock", Clock)
    env.from_source(ticks).map(lambda x: x * factor).show(f"{name} {mode} {factor}", rows=3)

form = launcher(build)
form
""".strip()
JOBS = "%sage_jobs"


def test_a_form_is_filled_submitted_and_submitted_again(page: LabPage) -> None:
    """And the table of jobs beside it is live; both can be read without a kernel."""
    page.page.set_viewport_size({"width": 1280, "height": 2400})
    page.open([LOAD, BUILD, JOBS]).run_all()
    form = page.output(1)
    expect(form).to_contain_text("Multiply ticks")
    form.get_by_label("mode").select_option("plus")
    form.get_by_role("slider").press("End")
    form.get_by_role("button", name="Submit").click()
    state(form, "Running")
    expect(form).to_contain_text("a plus 10")

    form.locator("input[type=text]").first.fill("second")
    form.locator("input[type=text]").first.press("Tab")
    form.get_by_role("button", name="Submit").dblclick()
    expect(form).to_contain_text("second plus 10")
    expect(form.locator(".sage-job")).to_have_count(1)
    assert (page.file.parent / "cleaned.txt").read_text() == "cleaned "

    form.locator("input[type=text]").first.fill("bad")
    form.locator("input[type=text]").first.press("Tab")
    form.get_by_role("button", name="Submit").click()
    expect(form).to_contain_text(re.compile(r"ValueError: no such name \(Cell In\[\d+\], line \d+"))
    state(form, "Running")  # the job goes on
    form.get_by_role("button", name="As code").click()
    expect(form.locator("pre").first).to_contain_text("build(env, factor=10, mode='plus', name='bad')")
    page.screenshot("launcher", form)
    assert violations(page.page, ".sage-launcher .sage-job") == []

    page.run_cell(2)
    table = page.output(2)
    expect(table.locator(".sage-jobs .sage-row")).to_have_count(2)
    expect(table.locator(".sage-row").first).to_contain_text("Running")
    page.screenshot("jobs-table", table)
    assert violations(page.page, ".jp-OutputArea .sage-jobs") == []
    table.get_by_role("button", name="Stop: build").click()
    state(form, "Stopped")
    expect(table.locator("table")).to_contain_text(re.compile("build.*stopped"))
    expect(table.locator(".sage-jobs")).to_have_count(0)
    assert (page.file.parent / "cleaned.txt").read_text() == "cleaned cleaned "
    (page.file.parent / "cleaned.txt").unlink()
    assert page.outside == []
    assert ours(page) == []

    page.save()
    page.open_without_kernel()
    state(page.output(1), "Stopped")
    expect(page.output(1)).to_contain_text("Multiply ticks")
    expect(page.output(2).locator("table")).to_contain_text("stopped")
