"""Takes the pictures of the README anew: `python -m tools.pictures`, with JupyterLab and Chromium on this machine."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.browser.lab import BROWSER_ARGS, LabPage, LabServer
from tools.browser import find

__all__ = ["main"]

DOCS = Path(__file__).parents[1] / "docs"
LOAD = """
%load_ext sage_nb
import random, time
from sage_nb import BaseService, call_service
random.seed(7)
""".strip()
SALES = """
%%sage_submit sales
class Catalogue(BaseService):
    def setup(self):
        self.prices = {"tea": 3.4, "coffee": 8.9, "cake": 4.25, "milk": 1.19}
    def price(self, product):
        return self.prices[product]

def orders():
    for number in range(1, 40_000):
        time.sleep(0.002)
        yield {
            "order": number,
            "store": random.choice(["Berlin", "Oslo", "Paris", "Zürich"]),
            "product": random.choice(["tea", "coffee", "cake", "milk"]),
            "qty": random.randint(1, 12),
        }

def priced(order):
    price = call_service("catalogue").price(order["product"])
    return order | {"revenue": round(order["qty"] * price, 2)}

env.register_service("catalogue", Catalogue)
sales = env.from_batch(orders).map(priced)
sales.filter(lambda order: order["revenue"] > 80).show("large orders", rows=5)
by_store = sales.keyby("store").sum("revenue")
by_store.named("store", "revenue").show("by store", latest=True)
""".strip()
FORM = """
from typing import Annotated, Literal
from sage_nb import Range, launcher

def large_orders(
    env,
    store: Literal["Berlin", "Oslo", "Paris", "Zürich"] = "Oslo",
    above: Annotated[int, Range(0, 100)] = 60,
    most: int | None = None,
):
    \"\"\"Large orders of a store\"\"\"
    found = env.from_batch(orders).filter(lambda order: order["store"] == store)
    large = found.filter(lambda order: order["qty"] * 8.9 > above, name="large")
    (large if most is None else large.take(most)).show("large orders", rows=4)

launcher(large_orders)
""".strip()
PANEL = "%%sage_submit heartbeat\nenv.from_source(time.time, delay=0.05).show('beats', rows=3)"


def main() -> int:
    path = find()
    if path is None:
        print("no Chromium or Chrome starts here", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = LabServer(Path(folder))
        try:
            browser = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGS)
            context = browser.new_context(viewport={"width": 1280, "height": 1000}, device_scale_factor=2)
            page = LabPage(server, context.new_page(), Path(folder), workspace="shop")
            page.open([LOAD, SALES, FORM, PANEL], "sales.ipynb").run_cell(0)
            _take(page)
            browser.close()
        finally:
            server.stop()
    return 0


def _take(page: LabPage) -> None:
    page.run_cell(1)
    job = page.output(1).locator(".sage-job")
    expect(job.get_by_role("table").last).to_contain_text("Zürich")
    page.page.wait_for_timeout(9000)  # a curve of rates that is worth looking at
    job.scroll_into_view_if_needed()
    _both(page, job, "job-view")
    page.run_cell(2)
    form = page.output(2)
    form.get_by_role("button", name="Submit").click()
    expect(form.locator(".sage-job")).to_contain_text("Running")
    page.page.wait_for_timeout(4000)
    form.scroll_into_view_if_needed()
    form.screenshot(path=DOCS / "form.png")
    page.run_cell(3)
    page.page.keyboard.press("Control+Shift+C")
    page.page.locator(".lm-CommandPalette-input").fill("Show Jobs")
    expect(page.page.locator('.lm-CommandPalette-item[data-command="sage-nb:jobs"]')).to_be_visible()
    page.page.keyboard.press("Enter")
    panel = page.page.get_by_role("region", name="Jobs")
    panel.locator(".sage-row").filter(has_text="sales").locator("summary, .sage-head").first.click()
    page.cell(1).scroll_into_view_if_needed()
    page.page.wait_for_timeout(1500)
    _both(page, page.page, "panel")


def _both(page: LabPage, what: Locator | Page, name: str) -> None:
    what.screenshot(path=DOCS / f"{name}.png")
    page.dark()
    page.page.wait_for_timeout(500)
    what.screenshot(path=DOCS / f"{name}-dark.png")
    page.dark(False)


if __name__ == "__main__":
    raise SystemExit(main())
