"""A job that floods its cell, in a real JupyterLab: the page answers, and the saved notebook stays small."""

from __future__ import annotations

import re

from playwright.sync_api import expect

from tests.browser.lab import LabPage
from tests.browser.test_job_in_lab import LOAD, ours, state

FLOOD = """
%%sage_submit flood -o job
import time

def lines():
    while True:
        yield from range(1000)
        time.sleep(0.1)

env.from_source(lines).sink(lambda n: print("line", n, "of a thousand", flush=True))
""".strip()
# How long the page takes to draw what follows a click, again and again, in ms.
CLICKS = """
async (times) => {
  const found = [];
  for (let i = 0; i < times; i++) {
    await new Promise((done) => setTimeout(done, 60));
    const began = performance.now();
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    found.push(performance.now() - began);
  }
  return found.sort((a, b) => a - b);
}
"""


def test_a_flood_neither_freezes_the_page_nor_fills_the_file(page: LabPage) -> None:
    page.open([LOAD, FLOOD, "1 + 1"]).run_all()
    out = page.output(1)
    state(out, "Running")
    expect(out).to_contain_text("from here on lines are counted")
    out.locator(".sage-job").scroll_into_view_if_needed()  # what is out of sight is not drawn
    expect(out).to_contain_text(re.compile(r"Output.*[234]\d,\d{3} lines, showing the last 20", re.DOTALL))
    times = page.page.evaluate(CLICKS, 30)
    print(f"frames after {times[15]:.0f} ms, at most {times[-1]:.0f} ms")
    assert times[15] < 200
    out.locator("summary", has_text="Output").click()
    expect(out.get_by_role("group", name="Last lines printed")).to_contain_text("of a thousand")
    page.screenshot("flood")
    page.run_cell(2)
    assert page.output(2).inner_text().strip().endswith("2")
    out.get_by_role("button", name="Stop").click()
    state(out, "Stopped", timeout=5)
    expect(out).to_contain_text("are not shown here; the last of them:")
    page.screenshot("flood-ended")
    saved = page.save()
    said = "".join(one.text for one in saved.cells[1].outputs if one.output_type == "stream")
    assert 200 < said.count("line ") < 300
    assert page.file.stat().st_size < 400_000
    html = next(one.data["text/html"] for one in saved.cells[1].outputs if "text/html" in one.get("data", {}))
    assert re.search(r"[\d,]+ lines, showing the last 500", html)
    assert page.outside == []
    assert ours(page) == []
