"""The table of jobs, drawn by a real browser on a plain page."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

import sage_nb.notebook
from sage_nb import LocalEnvironment
from tests.browser.axe import violations
from tests.browser.conftest import SHOTS

STATIC = Path(sage_nb.notebook.__file__).parent / "static"
MOUNT = """async ([kit, code, theme]) => {
  const url = (text) => "data:text/javascript;base64," + text;
  const [jobview, jobs] = await Promise.all([import(url(kit)), import(url(code))]);
  window.said = [];
  const el = document.querySelector("main");
  window.table = jobs.mountJobs(el, {kit: jobview, theme, onCommand: (command) => said.push(command)});
}"""


def row(uuid: str, **changes: Any) -> dict[str, Any]:
    """A row as `JobRow` has it."""
    return {
        "uuid": uuid,
        "name": uuid,
        "status": "running",
        "backend": "threads",
        "where": "kernel",
        "place": "flights.ipynb",
        "kernel": "k",
        "path": "work/flights.ipynb",
        "cell": "c",
        "number": None,
        "started": 1.7e9,
        "elapsed": 12.0,
        "items": 4_200,
        "rate": 350.0,
        "fraction": 0.42,
        "services": [],
        "error": None,
    } | changes


MANY = [
    row(
        "worst flights",
        services=[{"name": "planes", "state": "running"}, {"name": "weather", "state": "starting"}],
    ),
    row("sensor watch", where="server", place="127.0.0.1:19001", fraction=None, path=None, cell=None, rate=12_345.0),
    row("a name that is much too long for a panel at a page's side", status="paused", fraction=0.9, elapsed=4000.0),
    row("waits", status="queued", started=None, items=0, fraction=None, where="server", place="127.0.0.1:19001"),
    row("squares", status="completed", fraction=1.0),
    row("forgetful", status="failed", error="ValueError: invalid literal for int() with base 10: 'NA'"),
    row("ended by hand", status="stopped", services=[{"name": "planes", "state": "stopped"}]),
]


class Table:
    """A page with the table on it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def update(self, *rows: dict[str, Any]) -> None:
        self.page.evaluate("rows => table.update(rows)", list(rows))

    def said(self) -> list[list[str]]:
        """The commands so far, and which job each is about."""
        said: list[dict[str, str]] = self.page.evaluate("said")
        return [[one["command"], one["job"]] for one in said]


@pytest.fixture(params=["light"])
def table(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Table]:
    """The table, empty; fails on any message in the console."""
    page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme=request.param)
    page.set_default_timeout(5_000)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_content(
        "<!doctype html><html lang=en><title>t</title><body style='margin:0;color-scheme:light dark'><main></main>"
    )
    for name in ("jobview.css", "jobs.css"):
        page.add_style_tag(path=STATIC / name)
    code = [base64.b64encode((STATIC / name).read_bytes()).decode() for name in ("jobview.js", "jobs.js")]
    page.evaluate(MOUNT, [*code, request.param])
    yield Table(page)
    page.close()
    assert problems == []


@pytest.mark.parametrize("table", ["light", "dark"], indirect=True)
def test_the_table_fits_a_panel_and_a_cell(table: Table) -> None:
    """No wider than it may be, readable by a screen reader, and pictures of it to look at."""
    theme = table.page.evaluate("() => document.querySelector('.sage-jobs').dataset.theme")
    for width in (240, 400, 1000):
        table.page.set_viewport_size({"width": width, "height": 700})
        table.update()
        table.page.screenshot(path=SHOTS / f"jobs-empty-{width}-{theme}.png")
        assert violations(table.page, ".sage-jobs") == []
        table.update(*MANY)
        table.page.screenshot(path=SHOTS / f"jobs-{width}-{theme}.png", animations="disabled")
        assert violations(table.page, ".sage-jobs") == []
        assert table.page.evaluate("() => document.documentElement.scrollWidth") <= width
        for part in table.page.locator(".sage-row button:visible").all():
            box = part.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width


def test_buttons_say_what_was_pressed_and_for_which_job(table: Table) -> None:
    """Each row offers what can be done with its job; Stop is said once, however often it is pressed."""
    table.update(*MANY)
    rows = table.page.locator(".sage-row")
    names = ["Open the cell", "Attach in a new notebook", "Stop"]
    offered = [[name for name in names if one.get_by_role("button", name=f"{name}: ").count()] for one in rows.all()]
    assert offered == [
        ["Open the cell", "Stop"],
        ["Attach in a new notebook", "Stop"],
        ["Open the cell", "Stop"],
        ["Open the cell", "Attach in a new notebook", "Stop"],
        ["Open the cell"],
        ["Open the cell"],
        ["Open the cell"],
    ]
    stop = table.page.get_by_role("button", name="Stop: worst flights")
    stop.dblclick()
    expect(rows.first.locator(".sage-state")).to_have_text("Stopping")
    expect(stop).to_have_attribute("aria-disabled", "true")
    table.page.get_by_role("button", name="Attach in a new notebook: sensor watch").click()
    table.page.get_by_role("button", name="Open the cell: squares").click()
    assert table.said() == [["stop", "worst flights"], ["attach", "sensor watch"], ["open", "squares"]]


def test_what_is_focused_and_expanded_stays_so_when_the_job_ends(table: Table) -> None:
    """The row moves to the ended ones; its full view stays open, and the keyboard goes on from it."""
    table.update(*MANY)
    table.page.get_by_role("button", name="sensor watch", exact=True).focus()
    table.page.keyboard.press("Enter")
    table.page.evaluate("() => table.slot('sensor watch').append('the full view')")
    table.page.get_by_role("button", name="Stop: sensor watch").focus()
    ended = MANY[1] | {"status": "completed", "elapsed": 13.0}
    table.update(MANY[0], ended, *MANY[2:])
    expect(table.page.locator(".sage-group")).to_have_text(["Running", "Ended"])
    names = [text.split("\n")[0] for text in table.page.locator(".sage-row").all_inner_texts()]
    assert names.index("sensor watch") > names.index("waits")
    head = table.page.get_by_role("button", name="sensor watch", exact=True)
    expect(head).to_be_focused()
    expect(head).to_have_attribute("aria-expanded", "true")
    expect(table.page.get_by_text("the full view")).to_be_visible()
    table.page.keyboard.press("Space")
    expect(table.page.get_by_text("the full view")).to_be_hidden()
    assert table.said() == [["show", "sensor watch"], ["hide", "sensor watch"]]


def test_the_time_goes_on_between_rows(table: Table) -> None:
    """It ticks while the job runs, also where the same numbers are told again, and stands still while it is paused."""
    table.update(MANY[0], MANY[2])
    elapsed = table.page.locator(".sage-elapsed")
    expect(elapsed.first).to_have_text("13 s")
    again = "rows => { table.update(rows); return document.querySelector('.sage-elapsed').textContent; }"
    assert table.page.evaluate(again, [MANY[0], MANY[2]]) != "12 s"
    expect(elapsed.first).to_have_text("14 s")
    expect(elapsed.last).to_have_text("1 h 06 min")


def test_a_table_that_is_not_on_the_page_yet_knows_its_rows(table: Table) -> None:
    """As where the first rows come before JupyterLab has put the panel on the page."""
    table.page.evaluate("() => { window.off = document.querySelector('main'); off.remove() }")
    table.update(*MANY[:2])
    table.page.evaluate("() => document.body.append(off)")
    table.update(MANY[0])
    assert table.page.evaluate("() => [!!table.slot('worst flights'), !!table.slot('sensor watch')]") == [True, False]
    expect(table.page.locator(".sage-elapsed")).to_have_text("13 s")


def test_the_empty_table_teaches_and_its_lesson_can_be_copied(table: Table) -> None:
    table.page.context.grant_permissions(["clipboard-read"])
    table.update()
    expect(table.page.get_by_text("No jobs yet")).to_be_visible()
    table.page.keyboard.press("Tab")  # the example, which can be scrolled
    table.page.keyboard.press("Tab")
    table.page.keyboard.press("Enter")
    expect(table.page.get_by_role("button", name="Copied")).to_be_focused()
    table.page.evaluate("() => document.body.append(Object.assign(document.createElement('textarea'), {id: 'cell'}))")
    table.page.locator("#cell").focus()
    table.page.keyboard.press("Control+v")
    pasted = table.page.locator("#cell").input_value()
    assert pasted.splitlines()[0] == "%%sage_submit squares"
    env = LocalEnvironment("squares")
    exec(pasted.partition("\n")[2], {"env": env})
    assert list(env.submit(autostop=True).results["squares"]) == [n * n for n in range(10)]
    table.update(MANY[0])
    expect(table.page.get_by_text("No jobs yet")).to_be_hidden()


def test_a_row_says_when_its_job_was_started(table: Table) -> None:
    table.update(row("began", started=1.7e9), row("waits", status="queued", started=None))
    began = table.page.locator(".sage-began")
    said = table.page.evaluate("() => new Date(1.7e12).toTimeString().slice(0, 5)")
    expect(began).to_have_text([f"at {said}", ""])
    expect(began.first).to_have_attribute("title", re.compile(r"^Started .*2023.*\d\d:\d\d"))


def test_a_job_that_nobody_asked_to_stop_looks_amiss(table: Table) -> None:
    """Unlike one that was stopped by hand, it says why, in the colour of warnings."""
    table.update(
        row("by hand", status="stopped"), row("gone", status="stopped", reason="its kernel was restarted or shut down")
    )
    states = table.page.locator(".sage-row .sage-state")
    expect(states).to_have_text(["Stopped", "Stopped: its kernel was restarted or shut down"])
    colours = [one.evaluate("one => getComputedStyle(one).color") for one in states.all()]
    assert colours[0] != colours[1]
    assert violations(table.page, ".sage-jobs") == []
    for width in (240, 800, 1000):
        table.page.set_viewport_size({"width": width, "height": 700})
        for part in table.page.locator(".sage-facts > :not(:empty)").all():
            box = part.bounding_box()
            assert box is not None
            assert box["x"] + box["width"] <= width


def test_text_of_the_users_is_never_markup(table: Table) -> None:
    evil = "<img src=x onerror='window.harmed=true'>"
    table.update(row("u", name=evil, place=evil, status="failed", error=evil, services=[{"name": evil, "state": evil}]))
    expect(table.page.locator(".sage-row .sage-name")).to_have_text(evil)
    assert table.page.locator(".sage-jobs img").count() == 0
    assert table.page.evaluate("() => window.harmed") is None
