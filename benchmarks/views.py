"""Thirty jobs that never wait, each with a live view, in one kernel of a real JupyterLab with a page in Chromium."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import WebSocket, expect, sync_playwright

from benchmarks.child import Skipped
from benchmarks.measure import Figure
from tests.browser.lab import BROWSER_ARGS, LabPage, LabServer
from tools.browser import find

__all__ = ["WORKS"]

JOBS = 30
SECONDS = 5
SETTLED = 2  # seconds after which the page has drawn the views that are new
LOAD = f"""
%load_ext sage_nb
import asyncio, itertools, time
from sage_nb import LocalEnvironment
from sage_nb.notebook.view import show_job

jobs = []

def begin(live, count={JOBS}):
    for number in range(count):
        env = LocalEnvironment(f"job {{number}}")
        numbers = env.from_batch(itertools.count()).map(lambda x: x + 1).filter(lambda x: x % 2)
        numbers.map(lambda x: x * 3).show("last")
        jobs.append(env.submit())
        if live:
            show_job(jobs[-1], get_ipython(), live=True)

def end():
    for job in jobs:
        job.request_stop()
    for job in jobs:
        job.stop()
    jobs.clear()

def seen():
    return sum(job.progress.operators[0].items_out for job in jobs), time.perf_counter()

async def rate():
    await asyncio.sleep({SETTLED})
    before, began = seen()
    await asyncio.sleep({SECONDS})
    after, ended = seen()
    return (after - before) / (ended - began)
""".strip()
BARE = "begin(live=False)\nprint('bare', await rate())\nend()"
LIVE = "begin(live=True)\nprint('live', await rate())\nend()"
GOES_ON = "begin(live=True)"
ONE = "%%sage_submit one\nimport time\nenv.from_source(lambda: time.sleep(0.01)).show('nothing')"
# Of a click in the page: how long until the frame after it is drawn.
CLICK = """
async (times) => {
  const found = [];
  for (let i = 0; i < times; i++) {
    await new Promise((done) => setTimeout(done, 100));
    const began = performance.now();
    document.querySelector(".sage-job summary").click();
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    found.push(performance.now() - began);
  }
  return found;
}
"""
# From the key that runs a cell to the frame in which its view is there.
DRAWN = """
() => {
  const area = jupyterapp.shell.currentWidget.content.activeCell.node;
  window.drawn = new Promise((done) => {
    const began = performance.now();
    const look = () => area.querySelector(".sage-job:not([hidden])")
      ? done(performance.now() - began) : requestAnimationFrame(look);
    const clear = () => area.querySelector(".sage-job") ? requestAnimationFrame(clear) : look();
    clear();
  });
  jupyterapp.commands.execute("notebook:run-cell");
}
"""


@contextlib.contextmanager
def notebook(*cells: str) -> Iterator[LabPage]:
    """A notebook in a JupyterLab of its own, with its first cell run."""
    path = find()
    if path is None:
        raise Skipped("no Chromium or Chrome starts here")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        server = LabServer(Path(folder))
        try:
            browser = playwright.chromium.launch(executable_path=path, args=BROWSER_ARGS)
            page = LabPage(server, browser.new_page(viewport={"width": 1280, "height": 1000}), Path(folder))
            page.page.set_default_timeout(120_000)
            page.open([LOAD, *cells]).run_cell(0)
            yield page
            browser.close()
        finally:
            server.stop()


def said(page: LabPage, cell: int, word: str) -> float:
    lines = page.output(cell).inner_text().splitlines()
    return float(next(line for line in lines if line.startswith(word)).split()[1])


def throughput(runs: int) -> Figure:
    """V1: items a second of all thirty, with views and without."""
    live: list[float] = []
    bare: list[float] = []
    with notebook(BARE, LIVE) as page:
        for _ in range(runs):
            page.run_cell(1, timeout=300)
            bare.append(said(page, 1, "bare"))
            page.run_cell(2, timeout=300)
            live.append(said(page, 2, "live"))
    ratios = sorted(mine / other for mine, other in zip(live, bare, strict=True))
    per_million = [1e6 / statistics.median(rates) for rates in (live, bare)]
    return Figure(per_million[0], runs, per_million[1], statistics.median(ratios), ratios[0], ratios[-1])


def messages(runs: int) -> Figure:
    """V2: messages that reach the page, a second."""
    counts: list[int] = []
    with notebook(GOES_ON) as page:
        received = 0

        def count(_frame: object) -> None:
            nonlocal received
            received += 1

        def listen(socket: WebSocket) -> None:
            socket.on("framereceived", count)

        page.page.on("websocket", listen)
        page.reload()  # its connection is heard from the start
        page.run_cell(0)
        page.run_cell(1, timeout=300)
        for _ in range(runs):
            before = received
            page.page.wait_for_timeout(SECONDS * 1000)
            counts.append(received - before)
    return Figure(max(counts) / SECONDS, runs)


def click(runs: int) -> Figure:
    """V3: a click in the page, to the frame that shows what it did."""
    with notebook(GOES_ON) as page:
        page.run_cell(1, timeout=300)
        times = sorted(time / 1000 for time in page.page.evaluate(CLICK, 20 * runs))
    return Figure(statistics.median(times), len(times), high=times[int(len(times) * 0.95)])


def stop(runs: int) -> Figure:
    """V4: a click on Stop of the first job, to `Stopped` in its view, while the other 29 go on."""
    times: list[float] = []
    with notebook(GOES_ON, "end()") as page:
        for _ in range(runs):
            page.run_cell(1, timeout=300)
            view = page.output(1).locator(".sage-job").first
            expect(view).to_contain_text("Running")
            began = time.perf_counter()
            view.get_by_role("button", name="Stop").click()
            expect(page.output(1).get_by_text("Stopped").first).to_be_visible()
            times.append(time.perf_counter() - began)
            page.run_cell(2, timeout=300)
    return Figure(statistics.median(times), runs, high=max(times))


def drawn(runs: int) -> Figure:
    """V5: from the run of a cell to its view in the page; the first, which loads the widget, does not count."""
    times: list[float] = []
    with notebook(ONE) as page:
        page.run_cell(1)
        for _ in range(4 * runs):
            page.cell(1).locator(".jp-InputPrompt").first.click()
            page.page.evaluate(DRAWN)
            times.append(page.page.evaluate("window.drawn") / 1000)
            page.wait_done()
    times.sort()
    return Figure(statistics.median(times), len(times), high=times[int(len(times) * 0.95)])


WORKS = {"V1": throughput, "V2": messages, "V3": click, "V4": stop, "V5": drawn}
