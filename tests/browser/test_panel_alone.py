"""The side panel on a plain page, where what the Jupyter server and JupyterLab say is made up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

import sage_nb.notebook
from tests.browser.test_jobs import row
from tests.notebook.samples import SAMPLES

STATIC = Path(sage_nb.notebook.__file__).parent / "static"
START = """async () => {
  window.asked = [];
  window.outputs = [];
  class Socket {
    constructor() { window.socket = this; }
    send() {}
  }
  class Widget {
    constructor({node}) { Object.assign(this, {node, title: {}}); }
    addClass(name) { this.node.classList.add(name); }
  }
  const makeRequest = async (url, {method}) => {
    asked.push(`${method} ${url}`);
    return {ok: !url.includes("unreadable"), status: 500, json: async () => ({"text/html": "healed"})};
  };
  const cell = {
    node: document.body, outputArea: {widgets: []},
    model: {outputs: {get length() { return outputs.length; }, get: (i) => outputs[i], set: (i, o) => outputs[i] = o}},
  };
  const open = {context: {isReady: true, model: {}}, content: {widgets: [cell]}, sessionContext: {}};
  const packages = {
    "@jupyterlab/services": {ServerConnection: {
      makeSettings: () => ({baseUrl: "/", wsUrl: "/", WebSocket: Socket}), makeRequest,
    }},
    "@jupyterlab/ui-components": {LabIcon: class {}},
    "@lumino/widgets": {Widget},
    "@jupyterlab/notebook": {INotebookTracker: "tracker"},
  };
  const {plugins} = await import("./panel.js");
  const [plugin] = await plugins(async (name) => packages[name] ?? {});
  plugin.activate({
    shell: {add: (panel) => document.body.append(panel.node)}, commands: {addCommand() {}},
  }, {filter: (wanted) => [open].filter(wanted), widgetAdded: {connect() {}}});
  window.tell = (said) => socket.onmessage({data: JSON.stringify(said)});
}"""


class Panel:
    """The page with the panel."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def tell(self, *rows: dict[str, Any], **server: Any) -> None:
        """Let the server say which jobs there are, and what is known of the JobManager server."""
        said = {"address": None, "state": "none", "error": None} | server
        self.page.evaluate("said => tell(said)", {"op": "jobs", "rows": rows, "server": said})


@pytest.fixture
def panel(browser: Browser) -> Iterator[Panel]:
    page = browser.new_page()
    page.set_default_timeout(10_000)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))

    def answer(route: Route) -> None:
        file = STATIC / route.request.url.rpartition("/")[2]
        if file.is_file():
            route.fulfill(path=file)
        else:
            route.fulfill(body="<!doctype html><title>t</title>", content_type="text/html")

    page.route("http://here/**", answer)
    page.goto("http://here/")
    page.evaluate(START)
    yield Panel(page)
    page.close()
    assert problems == []


def test_no_server_is_offered_where_none_may_be_started(panel: Panel) -> None:
    start = panel.page.get_by_role("button", name="Start a server")
    panel.tell()
    expect(start).to_be_visible()
    panel.tell(may_start=False)
    expect(start).to_be_hidden()
    panel.tell(may_start=True)
    expect(start).to_be_visible()


def test_an_order_of_the_panels_own_view_is_sent_once(panel: Panel) -> None:
    job = SAMPLES["running"].uuid
    panel.tell(row(job))
    panel.page.get_by_role("button", name=job, exact=True).click()
    panel.page.evaluate("snapshot => tell({op: 'snapshot', snapshot})", SAMPLES["running"].to_dict())
    view = panel.page.locator(".sage-slot .sage-job")
    view.get_by_role("button", name="Pause").click()
    view.get_by_role("button", name="Stop").click()
    orders = [f"POST /sage-nb/jobs/{job}/{order}" for order in ("pause", "stop")]
    assert panel.page.evaluate("() => asked") == orders


def test_ended_jobs_can_be_cleared_away(panel: Panel) -> None:
    clear, jobs = panel.page.get_by_role("button", name="Clear ended"), panel.page.locator(".sage-row .sage-name")
    panel.tell(row("on"))
    expect(clear).to_be_hidden()
    panel.tell(row("on"), row("done", status="completed"), row("broken", status="failed"))
    panel.page.get_by_role("button", name="done", exact=True).click()
    clear.click()
    expect(jobs).to_have_text(["on"])
    expect(clear).to_be_hidden()
    panel.tell(row("on", status="completed"), row("done", status="completed"), row("broken", status="failed"))
    expect(jobs).to_have_text(["on"])
    expect(clear).to_be_visible()
    panel.page.evaluate("() => socket.onclose()")
    clear.click()
    expect(panel.page.locator(".sage-panel[data-lost]")).to_be_visible()
    panel.tell(row("done", status="running"), row("on", status="completed"))
    expect(jobs).to_have_text(["done"])
    panel.page.reload()
    panel.page.evaluate(START)
    panel.tell(row("done", status="completed"), row("broken", status="failed"), row("on", status="completed"))
    expect(panel.page.get_by_text("No jobs yet")).to_be_visible()


@pytest.mark.parametrize("kept", ["{", "5", "{}", "null"])
def test_what_a_browser_has_kept_of_cleared_jobs_may_be_anything(panel: Panel, kept: str) -> None:
    panel.page.evaluate("kept => localStorage.setItem('sage-nb:cleared', kept)", kept)
    panel.page.reload()
    panel.page.evaluate(START)
    panel.tell(row("done", status="completed"))
    expect(panel.page.locator(".sage-row .sage-name")).to_have_text(["done"])


def test_an_output_that_cannot_be_healed_keeps_no_other_from_it(panel: Panel) -> None:
    panel.page.evaluate(
        """() => {
            for (const job of ["unreadable", "fine"]) {
                const plain = {data: {"application/vnd.jupyter.widget-view+json": {}}, metadata: {sage_nb: {job}}};
                outputs.push({...plain, toJSON: () => plain});
            }
        }"""
    )
    panel.tell(row("unreadable", status="completed"), row("fine", status="completed"))
    panel.page.wait_for_function("() => outputs[1].data['text/html'] === 'healed'")
    panel.page.wait_for_timeout(2_500)  # in which it would be asked again and again
    assert panel.page.evaluate("() => asked") == [f"GET /sage-nb/jobs/{job}/bundle" for job in ("unreadable", "fine")]
