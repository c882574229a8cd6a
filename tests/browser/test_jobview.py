"""The live view, drawn by a real browser on a plain page from the samples that the Python views are tested with."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

import sage_nb.notebook
from sage_nb.jobs.layout import places
from sage_nb.jobs.snapshot import JobSnapshot, OperatorView
from sage_nb.notebook import picture, words
from tests.notebook.samples import SAMPLES

STATIC = Path(sage_nb.notebook.__file__).parent / "static"

MOUNT = """async ([code, snapshots]) => {
  window.module = await import("data:text/javascript;base64," + code);
  window.commands = [];
  window.jobs = {};
  for (const [name, snapshot] of Object.entries(snapshots)) {
    const el = document.body.appendChild(document.createElement("div"));
    el.id = name;
    jobs[name] = module.mountJob(el, {
      onCommand: (command) => commands.push(command), theme: window.theme, notify: window.notify ?? null,
      formats: window.formats ?? [],
    });
    jobs[name].update(snapshot);
  }
}"""


class View:
    """A page on which jobs are drawn."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def show(self, *names: str) -> None:
        """Mount the named samples, each in an element with its name."""
        code = base64.b64encode((STATIC / "jobview.js").read_bytes()).decode()
        self.page.evaluate(MOUNT, [code, {name: SAMPLES[name].to_dict() for name in names}])
        self.drawn()

    def update(self, name: str, **changes: Any) -> None:
        """Give a mounted job its sample with some changes, and wait until it is drawn."""
        snapshot = msgspec.structs.replace(SAMPLES[name], **changes)
        self.page.evaluate("([name, snapshot]) => jobs[name].update(snapshot)", [name, snapshot.to_dict()])
        self.drawn()

    def drawn(self) -> None:
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def pressed(self) -> list[str]:
        """The commands that buttons sent."""
        commands: list[dict[str, Any]] = self.page.evaluate("() => commands")
        return [command["command"] for command in commands if command["command"] != "view"]

    def said(self) -> list[dict[str, Any]]:
        """What the views said about themselves, without their ids."""
        commands: list[dict[str, Any]] = self.page.evaluate("() => commands")
        assert all(command["id"].startswith("view-") for command in commands if command["command"] == "view")
        return [
            {key: value for key, value in command.items() if key not in ("id", "command")}
            for command in commands
            if command["command"] == "view"
        ]


@pytest.fixture(params=["light"])
def view(browser: Browser, request: pytest.FixtureRequest) -> Iterator[View]:
    """A page with the style sheet, in the theme of the parameter; fails on any error or message in its console."""
    page = browser.new_page(viewport={"width": 1000, "height": 900}, color_scheme=request.param)
    page.set_default_timeout(5_000)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.set_content("<!doctype html><html lang=en><title>t</title><body style='margin:12px'>")
    page.add_style_tag(path=STATIC / "jobview.css")
    page.evaluate("theme => { window.theme = theme }", request.param)
    yield View(page)
    page.close()
    assert problems == []


both_themes = pytest.mark.parametrize("view", ["light", "dark"], indirect=True)

# ---------------------------------------------------------------- the same words and the same picture as in Python

NUMBERS = [0, 1, 9, 12, 999, 1_000, 9_949, 9_951, 123_456, 999_499, 999_500, 1_234_567, 10**9, 10**12, 10**16]
FRACTIONS = [
    -1.0,
    0.0004,
    0.0005,
    0.01,
    0.049,
    0.05,
    0.0994,
    0.0996,
    0.25,
    0.29,
    0.35,
    0.62,
    2.5,
    3.25,
    9.94,
    9.95,
    9.96,
]
SECONDS = [*FRACTIONS, 10.0, 59.99, 60.0, 64.2, 3599.9, 3600.0, 8105.0, 86_399.0, 86_400.0, 266_400.0]


def test_numbers_are_said_as_python_says_them(view: View) -> None:
    """The live view and the static ones never say the same number in two ways."""
    view.show("created")
    calls: list[tuple[str, Any, list[Any]]] = [
        *(("count", words.count, [n]) for n in NUMBERS),
        *(("namedCount", words.named_count, [n, "item"]) for n in NUMBERS),
        *(("showing", words.showing, [n, 20, "line"]) for n in NUMBERS),
        *(("shortened", words.shortened, [n]) for n in NUMBERS + FRACTIONS[1:]),
        *(("rate", words.rate, [n]) for n in NUMBERS + FRACTIONS[1:]),
        *(("percent", words.percent, [f]) for f in FRACTIONS),
        *(("duration", words.duration, [s]) for s in SECONDS),
        *(("shortTime", words.short_time, [s / n]) for s in SECONDS for n in (1, 1e3, 1e6, 1e9)),
        *(("endsIn", words.ends_in, [s]) for s in SECONDS),
        *(("stateWord", words.state_word, [state]) for state in words.MARKS),
        *(("plain", words.plain, [text]) for text in ("a\x1b[3m\r\n\t b\u202ec\u00a0d\x85", "größe 東京 🙂\ufeff")),
    ]
    theirs = view.page.evaluate(
        "calls => calls.map(([name, args]) => module.words[name](...args))", [[name, args] for name, _, args in calls]
    )
    ours = [say(*args) for _, say, args in calls]
    assert list(zip(calls, theirs, strict=True)) == list(zip(calls, ours, strict=True))


def layout(job: JobSnapshot) -> dict[str, Any]:
    """The layout of Python's, in the form in which the page has it."""
    found = picture.layout(job)

    def parts(of: Sequence[picture.Box | picture.Edge]) -> list[dict[str, Any]]:
        return [
            {**msgspec.structs.asdict(one.place), **{k: v for k, v in vars(one).items() if k != "place"}} for one in of
        ]

    return {"width": found.width, "height": found.height, "boxes": parts(found.boxes), "edges": parts(found.edges)}


def test_the_picture_is_the_one_of_python(view: View) -> None:
    """Places, outlines, edges, names, counters and facts are the same in both languages, for every sample."""
    view.show("created")
    for name, sample in SAMPLES.items():
        theirs = view.page.evaluate(
            """s => ({
                layout: module.layout(s), facts: module.words.facts(s), spark: module.sparkPath(s.rates),
                trend: s.rates.length ? module.words.trend(s) : null, at: module.words.at(s), alt: module.pictureAlt(s),
                extents: s.results.map(one => module.words.extent(one, one.rows.length)),
            })""",
            sample.to_dict(),
        )
        assert theirs == {
            "layout": layout(sample),
            "facts": words.facts(sample),
            "spark": picture.spark_path(sample.rates),
            "trend": words.trend(sample) if sample.rates else None,
            "at": words.at(sample),
            "alt": picture.pipeline_alt(sample),
            "extents": [words.extent(one, len(one.rows)) for one in sample.results],
        }, name


def test_the_tables_are_those_of_python(view: View) -> None:
    """The columns of operators and what they hold, and the tables of dead letters, for every sample."""
    view.show("created")
    for name, sample in SAMPLES.items():
        columns, letters = view.page.evaluate(
            "s => [module.words.columns(s.operators), s.dead_letters.map(module.words.deadLetters)]", sample.to_dict()
        )
        assert columns == [column._asdict() for column in words.columns(sample.operators)], name
        ours = [words.dead_letters(one) for one in sample.dead_letters]
        assert letters == msgspec.json.decode(msgspec.json.encode(ours)), name


def test_random_pictures_are_those_of_python(view: View) -> None:
    """Merges, loops, tracks and back-pressure: 200 graphs lie and look the same in both languages."""
    jobs = [random_job(seed) for seed in range(200)]
    view.show("created")
    theirs = view.page.evaluate("jobs => jobs.map(module.layout)", [job.to_dict() for job in jobs])
    ours = [layout(job) for job in jobs]
    assert theirs == ours
    assert sum(edge["back"] for one in ours for edge in one["edges"]) > 100
    assert sum(edge["slow"] for one in ours for edge in one["edges"]) > 100


def random_job(seed: int) -> JobSnapshot:
    """A graph of up to 16 operators with merges and loops, some of which are held back by others."""
    rng = random.Random(seed)
    size = rng.randint(1, 16)
    graph: list[tuple[int, tuple[int, ...], str]] = [(0, (), "source")]
    for id in range(1, size):
        kind = rng.choice(["source", "future", "map", "map", "map", "interval_join", "sink"])
        ups = {"source": (), "future": (rng.randrange(size),)}
        graph.append((id, ups.get(kind, tuple(rng.randrange(id) for _ in range(rng.randint(1, 4)))), kind))
    at = places(graph)
    operators = tuple(
        OperatorView(
            id=id,
            name=f"operator {id}" * rng.randint(1, 3),
            kind=kind,
            col=at[id][0],
            row=at[id][1],
            upstream=ups,
            items_in=rng.randrange(10**7),
            items_out=rng.randrange(10**7),
            rate=rng.random() * 10 ** rng.randint(0, 6),
            busy=rng.choice([None, rng.random()]),
            blocked=rng.choice([None, 0.0, rng.random()]),
            queued=rng.choice([0, rng.randrange(10**6)]),
            errors=rng.choice([0, rng.randrange(10**6)]),
            parallelism=rng.choice([1, 4, 1_024]),
            executor=rng.choice(["thread", "process"]),
        )
        for id, ups, kind in graph
    )
    return JobSnapshot(uuid="u", name="n", status=rng.choice(["running", "completed"]), operators=operators)


def test_the_time_of_a_log_line_is_local(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader in the kernel's time zone sees the times that the kernel's text view has."""
    page = browser.new_page(timezone_id="Asia/Tokyo")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    one = View(page)
    one.show("created")
    time.tzset()
    assert page.evaluate("() => module.words.clock(1763200800.9)") == words.clock(1763200800.9) == "19:00:00"
    page.close()
    monkeypatch.undo()
    time.tzset()


# ---------------------------------------------------------------- drawing


@both_themes
@pytest.mark.parametrize("width", [400, 1000])
def test_every_sample_is_drawn_within_its_width(view: View, width: int) -> None:
    """No sample writes to the console, and none is wider than its cell."""
    view.page.set_viewport_size({"width": width, "height": 900})
    view.show(*SAMPLES)
    for name, snapshot in SAMPLES.items():
        root = view.page.locator(f"#{name} > .sage-job")
        expect(root).to_be_visible()
        expect(root.locator(".sage-state")).to_have_text(words.state_word(snapshot.status))
        expect(root.locator(".sage-box")).to_have_count(len(snapshot.operators))
    assert view.page.evaluate("() => document.documentElement.scrollWidth") <= width


CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => top.slice(0, 3).map((c, i) => c * top[3] + below[i] * (1 - top[3]));
  const light = (rgb) => rgb.map(c => (c /= 255) <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const paper = (node) => {
    if (!node || !node.parentElement) return [255, 255, 255];
    const shape = node.closest("svg .sage-badge") ? node.parentElement.querySelector("rect")
      : node.matches?.("svg text") ? node.parentElement.querySelector(".sage-box") : null;
    const style = getComputedStyle(shape ?? node);
    const below = shape ? node.closest("svg") : node.parentElement;
    return over(rgba(shape ? style.fill : style.backgroundColor), paper(below));
  };
  const bad = [];
  for (const node of document.querySelectorAll(".sage-job *")) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    if (!own || !node.getClientRects().length || node.closest(".sage-unseen, title, [aria-disabled]")) continue;
    const below = paper(node), style = getComputedStyle(node);
    const text = over(rgba(node.closest("svg") ? style.fill : style.color), below);
    const [a, b] = [light(text), light(below)].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) bad.push(`${node.getAttribute("class")} ${node.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return [document.querySelectorAll(".sage-job *").length, bad];
}"""


@both_themes
def test_text_has_the_contrast_that_wcag_asks_for(view: View) -> None:
    """Every text has 4.5 : 1 or more on what is behind it, also in tints and marked lines (WCAG 2.2, 1.4.3)."""
    view.show("starting", "running", "paused", "failed", "completed", "stopped", "restarting", "back_pressure", "loop")
    view.page.evaluate("() => document.querySelectorAll('details').forEach(details => { details.open = true })")
    view.drawn()
    count, bad = view.page.evaluate(CONTRAST)
    assert count > 500
    assert bad == []


def test_text_of_the_users_is_never_markup(view: View) -> None:
    """A script in a name, a result, a log line or an error is shown and does not run."""
    view.show("hostile")
    root = view.page.locator("#hostile")
    view.page.evaluate("() => document.querySelectorAll('details').forEach(details => { details.open = true })")
    expect(root.locator("td").last).to_contain_text("<script>window.harmed=true</script>")
    view.page.wait_for_timeout(100)
    assert root.locator("img[src], img[onerror], script").count() == 0
    assert view.page.evaluate("() => window.harmed") is None


def test_a_later_snapshot_changes_texts_and_keeps_elements(view: View) -> None:
    """The same job keeps its buttons, boxes and rows: what changed is only what they say."""
    view.show("running")
    view.page.evaluate("""() => document.querySelectorAll(".sage-job *").forEach(node => { node.kept = true })""")
    results = (msgspec.structs.replace(SAMPLES["running"].results[0], total=1_000_001),)
    first, *others = SAMPLES["running"].operators
    operators = (msgspec.structs.replace(first, items_out=800_123), *others)
    view.update("running", items=800_000, rate=10.0, results=results, operators=operators)
    assert "800,123 out" in (view.page.locator(".sage-picture title").first.text_content() or "")
    expect(view.page.locator(".sage-facts")).to_contain_text("800,000 of 1,250,000 items")
    new = view.page.evaluate(
        """() => [...document.querySelectorAll(".sage-job *")].filter(n => !n.kept).map(n => n.tagName)"""
    )
    assert new == ["TR", "TD", "TD", "TD", "TD"]  # the one new row; the oldest has gone


def test_what_the_reader_opened_selected_and_focused_survives(view: View) -> None:
    """Updates close no section, clear no selection, and take no focus away."""
    view.show("running")
    view.page.get_by_text("6 operators", exact=True).click()
    view.page.locator(".sage-table").first.focus()
    view.page.evaluate("() => getSelection().selectAllChildren(document.querySelector('.sage-name'))")
    for i in range(5):
        view.update("running", items=800_000 + i, elapsed=30.0 + i)
    expect(view.page.get_by_role("cell", name="Cell In[3], line 3")).to_be_visible()
    assert view.page.evaluate("() => getSelection().toString()") == "flight delays"
    assert view.page.evaluate("() => document.activeElement.className") == "sage-table"


def test_new_rows_are_followed_until_the_reader_scrolls_up(view: View) -> None:
    """A table at its end stays at its end; one that was scrolled stays where it is."""
    view.show("running")
    result = SAMPLES["running"].results[0]
    table = view.page.locator(".sage-result .sage-table")
    at_end = "node => node.scrollHeight - node.scrollTop - node.clientHeight < 4"
    assert table.evaluate(at_end)
    view.update("running", results=(msgspec.structs.replace(result, rows=(*result.rows, result.rows[0])),))
    assert table.evaluate(at_end)
    table.evaluate("node => { node.scrollTop = 100 }")
    view.update(
        "running",
        results=(msgspec.structs.replace(result, total=result.total + 1, rows=(*result.rows, *result.rows[:2])),),
    )
    assert not table.evaluate(at_end)


def test_elapsed_time_goes_on_between_snapshots_only_while_it_passes(view: View) -> None:
    """A running job's clock ticks on its own; a paused and an ended one's does not."""
    view.show("running", "paused", "completed")
    clocks = [view.page.locator(f"#{name} .sage-facts > *").first for name in ("running", "paused", "completed")]
    expect(clocks[0]).to_have_text("26 s", timeout=4_000)
    expect(clocks[1]).to_have_text("1 min 04 s")
    expect(clocks[2]).to_have_text("40 s")


def test_only_state_changes_are_announced(view: View) -> None:
    """A screen reader hears that a job failed, and why; it never hears counters."""
    view.show("running")
    status = view.page.get_by_role("status")
    expect(status).to_have_text("Job flight delays: running")
    view.page.evaluate("""() => { window.said = 0; new MutationObserver(() => said++).observe(
      document.querySelector("[role=status]"), {childList: true, characterData: true, subtree: true}) }""")
    view.update("running", items=900_000)
    assert view.page.evaluate("() => said") == 0
    view.update("running", status="failed", error=SAMPLES["failed"].error)
    expect(status).to_have_text("Job flight delays: failed: ValueError: invalid literal for int() with base 10: ''")


def test_the_log_opens_by_itself_only_for_an_error_without_a_card(view: View) -> None:
    """Warnings get a badge; an error that the error card tells does not move the page a second time."""
    view.show("running", "failed")
    for name in ("running", "failed"):
        assert view.page.locator(f"#{name} details:has(.sage-lines)").get_attribute("open") is None
    expect(view.page.locator("#running .sage-alarm")).to_have_text("1 warning")
    view.update("running", logs=SAMPLES["failed"].logs, log_total=22)
    expect(view.page.get_by_text("parse failed on item 84,211")).to_be_visible()


def test_dead_letters_are_shown_below_the_results(view: View) -> None:
    """One table for each operator that has some; new ones come in, and the elements stay."""
    view.show("back_pressure")
    table = view.page.get_by_role("group", name="Dead letters of shrink to 256 pixels")
    expect(table.get_by_role("row")).to_have_count(5)
    expect(table).to_contain_text("Photo('IMG_3.jpg')")
    letters = SAMPLES["back_pressure"].dead_letters[0]
    table.evaluate("node => { node.kept = true }")
    view.update(
        "back_pressure",
        dead_letters=(msgspec.structs.replace(letters, total=5, rows=(*letters.rows[1:], ("'x'", "E: 'y'"))),),
    )
    expect(table).to_contain_text("E: 'y'")
    expect(view.page.get_by_text("5 items, showing the last 4")).to_be_visible()
    assert table.evaluate("node => node.kept")


def test_a_result_and_dead_letters_of_the_same_name_are_two_tables(view: View) -> None:
    """Whatever a user calls a result, it does not take the dead letters' place."""
    view.show("back_pressure")
    letters = words.dead_letters(SAMPLES["back_pressure"].dead_letters[0])
    view.update("back_pressure", results=(letters,))
    expect(view.page.locator(".sage-result")).to_have_count(2)


def test_back_pressure_comes_and_goes_in_the_picture(view: View) -> None:
    """An amber edge, an amber badge and an amber part of the bar; nothing of it once the job has ended."""
    view.show("back_pressure")
    slow = view.page.locator(".sage-edges [data-slow]")
    expect(slow).to_have_count(1)
    expect(view.page.locator(".sage-waits[data-slow]")).to_have_text("1 k waiting")
    view.update("back_pressure", status="completed")
    expect(slow).to_have_count(0)
    assert view.page.locator(".sage-waits:not([visibility])").count() == 0
    assert set(view.page.locator(".sage-blocked").evaluate_all("nodes => nodes.map(n => n.getAttribute('width'))")) == {
        "0"
    }


def test_a_restarting_job_can_be_stopped_and_its_time_goes_on(view: View) -> None:
    """Between two attempts the job is still a job: Stop works, Pause does not, and the clock ticks."""
    view.show("restarting")
    expect(view.page.locator(".sage-state")).to_have_text("Restarting")
    expect(view.page.locator(".sage-facts")).to_contain_text("attempt 2")
    expect(view.page.locator(".sage-facts > *").first).to_have_text("32 s", timeout=4_000)
    view.page.get_by_role("button", name="Pause").click(force=True)
    view.page.get_by_role("button", name="Stop").click()
    view.update("restarting")
    expect(view.page.locator(".sage-state")).to_have_text("Stopping")
    assert view.pressed() == ["stop"]


# ---------------------------------------------------------------- commands


def buttons(view: View) -> Locator:
    """Those that command the job."""
    return view.page.locator(".sage-buttons button:visible")


def test_two_quick_clicks_stop_once(view: View) -> None:
    """The first click is answered at once in the page and sent; the second does nothing, and neither does Pause."""
    view.show("running")
    view.page.get_by_role("button", name="Stop").dblclick()
    expect(view.page.locator(".sage-state")).to_have_text("Stopping")
    stop = view.page.get_by_role("button", name="Stopping…")
    expect(stop).to_be_disabled()
    expect(view.page.get_by_role("button", name="Pause")).to_be_disabled()
    view.page.get_by_role("button", name="Pause").click(force=True)
    assert view.pressed() == ["stop"]
    view.update("running", status="stopped")
    expect(view.page.locator(".sage-state")).to_have_text("Stopped")
    expect(buttons(view)).to_have_count(0)


def test_pause_becomes_resume_when_the_job_has_paused(view: View) -> None:
    """The button says what it will do, and is off while the answer is awaited."""
    view.show("running")
    view.page.get_by_role("button", name="Pause").dblclick()
    expect(view.page.get_by_role("button", name="Pausing…")).to_be_disabled()
    view.update("running", status="paused")
    view.page.get_by_role("button", name="Resume").click()
    view.update("running", status="running")
    expect(view.page.get_by_role("button", name="Pause")).to_be_enabled()
    assert view.pressed() == ["pause", "resume"]


def test_buttons_stay_where_they_are(view: View) -> None:
    """Whatever the counters and labels say, a click hits the button that it was meant for."""
    view.show("running")
    places = []
    for changes in ({}, {"items": 10**12, "elapsed": 1e6}, {"status": "paused"}, {"status": "stopping"}):
        view.update("running", **changes)
        places.append([button.bounding_box() for button in buttons(view).all()])
    assert places == [places[0]] * 4


def test_buttons_work_with_the_keyboard_and_leave_the_focus_in_the_job(view: View) -> None:
    """After Stop by keyboard the focus is still in the job when the buttons are gone."""
    view.show("running")
    view.page.get_by_role("button", name="Stop").focus()
    view.page.keyboard.press("Enter")
    view.update("running", status="stopped")
    assert view.pressed() == ["stop"]
    assert view.page.evaluate("() => document.activeElement.className") == "sage-job"


def test_a_view_says_when_it_is_open_and_in_sight(view: View) -> None:
    """The kernel hears of opening, of leaving and entering the screen, and of closing; nothing else is said."""
    view.show("running")
    assert view.said() == [{"open": True}]
    view.page.evaluate("""() => { document.body.style.paddingTop = "5000px" }""")
    view.page.wait_for_function("() => commands.length === 2")
    view.page.evaluate("() => scrollTo(0, 5000)")
    view.page.wait_for_function("() => commands.length === 3")
    view.page.evaluate("() => { jobs.running.dispose(); jobs.running.dispose() }")
    assert view.said() == [{"open": True}, {"visible": False}, {"visible": True}, {"open": False}]
    assert view.page.locator(".sage-job").count() == 0


LATER = "() => { const now = performance.now.bind(performance); performance.now = () => now() + 6000 }"


def test_a_view_that_hears_nothing_says_so_instead_of_counting_on(view: View) -> None:
    """After a kernel has gone, a clock that ticks on would be a lie."""
    view.show("running")
    view.page.evaluate(LATER)
    expect(view.page.locator(".sage-waiting")).to_contain_text("No news from the kernel")
    view.update("running", elapsed=99.0)
    expect(view.page.locator(".sage-waiting")).not_to_contain_text("No news")


def test_a_view_of_a_servers_job_that_hears_nothing_says_how_to_find_it(view: View) -> None:
    view.show("lost")
    expect(view.page.locator(".sage-title")).to_have_text("flight delayson flights.example.org:190018b1d0a77")
    expect(view.page.locator(".sage-waiting")).to_have_text("Waiting for the connection to flights.example.org:19001")
    view.page.evaluate(LATER)
    expect(view.page.locator(".sage-waiting")).to_contain_text(
        "%sage_attach 8b1d0a77 flights.example.org:19001 shows the job again"
    )


DEAF = "() => { commands.push = () => { throw new Error('Cannot send') } }"


def test_a_view_of_a_servers_job_whose_kernel_is_gone_says_so_and_offers_no_buttons(view: View) -> None:
    """Where no Jupyter server tells of the job; what a kernel says after all counts again."""
    view.show("lost")
    view.page.evaluate(DEAF)
    stop = view.page.get_by_role("button", name="Stop")
    stop.click()
    expect(view.page.locator(".sage-waiting")).to_have_text(
        "The kernel was restarted, or it is gone. %sage_attach 8b1d0a77 flights.example.org:19001 shows the job again."
    )
    for button in ("Pause", "Stop"):
        expect(view.page.get_by_role("button", name=button, exact=True)).to_have_attribute("aria-disabled", "true")
    elapsed = view.page.locator(".sage-facts > *").first.inner_text()
    view.page.evaluate(LATER)
    expect(view.page.locator(".sage-waiting")).to_contain_text("was restarted")
    expect(view.page.locator(".sage-facts > *").first).to_have_text(elapsed)
    view.update("lost")
    expect(stop).not_to_have_attribute("aria-disabled", "true")


def test_a_view_whose_kernel_is_gone_has_stopped_with_it(view: View) -> None:
    view.show("running")
    view.page.evaluate(DEAF)
    expect(view.page.locator(".sage-state")).to_have_text("Stopped: its kernel is gone", timeout=8_000)
    expect(view.page.locator(".sage-buttons")).to_be_hidden()


def test_an_order_that_could_not_be_given_can_be_given_again(view: View) -> None:
    view.show("lost")
    view.page.get_by_role("button", name="Stop").click()
    view.update("lost")
    assert view.pressed() == ["stop"]
    view.update("lost", notes=("the job could not be told to stop: no server answers",))
    view.page.get_by_role("button", name="Stop").click()
    assert view.pressed() == ["stop", "stop"]


def test_a_view_that_is_looked_at_says_so_every_few_seconds(view: View) -> None:
    view.show("running")
    view.page.evaluate(LATER)
    view.update("running")
    view.page.wait_for_function("() => commands.length === 2")
    assert view.said() == [{"open": True}, {"visible": True}]


def test_what_nobody_sees_is_not_drawn_and_the_newest_wins(view: View) -> None:
    """Out of sight nothing is drawn; back in sight the last snapshot is."""
    view.show("running")
    view.page.evaluate("""() => { document.body.style.paddingTop = "5000px" }""")
    view.page.wait_for_function("() => commands.length === 2")
    view.update("running", items=800_000)
    view.update("running", items=900_000)
    assert "775,000 of" in view.page.locator(".sage-facts").inner_text()
    view.page.evaluate("() => scrollTo(0, 5000)")
    expect(view.page.locator(".sage-facts")).to_contain_text("900,000 of")


WIDGET = """snapshot => {
  window.sent = [];
  const heard = {};
  const state = {snapshot: {}};
  window.model = {
    get: name => state[name], set: value => { state.snapshot = value; heard["change:snapshot"]?.() },
    on: (event, f) => { heard[event] = f }, off: event => { delete heard[event] }, send: content => sent.push(content),
    heard,
  };
  const el = document.body.appendChild(document.createElement("div"));
  window.end = module.default.render({model, el});
  model.set(snapshot);
}"""


def test_the_module_is_a_widget(view: View) -> None:
    """In anywidget it draws the trait `snapshot`, sends commands, and lets go of all when it is taken away."""
    view.show()
    view.page.evaluate(WIDGET, SAMPLES["running"].to_dict())
    view.page.get_by_role("button", name="Stop").click()
    view.page.evaluate("() => end()")
    assert view.page.locator(".sage-job").count() == 0
    sent = view.page.evaluate("() => sent")
    assert [(message["command"], message.get("open")) for message in sent] == [
        ("view", True),
        ("stop", None),
        ("view", False),
    ]
    assert view.page.evaluate("() => Object.keys(model.heard)") == []


def test_a_view_listens_to_nothing_once_its_job_has_ended(view: View) -> None:
    """A page keeps the models of cells that were deleted: what they held would stay as long as the page."""
    view.show()
    view.page.evaluate(WIDGET, SAMPLES["running"].to_dict())
    assert view.page.evaluate("() => Object.keys(model.heard)") == ["change:snapshot"]
    view.page.evaluate(
        """() => {
            const {clearInterval: clear, IntersectionObserver: {prototype}} = window, disconnect = prototype.disconnect;
            window.ended = [];
            window.clearInterval = (timer) => (ended.push("timer"), clear(timer));
            prototype.disconnect = function () { ended.push("sight"); disconnect.call(this); };
        }"""
    )
    view.page.evaluate("snapshot => model.set(snapshot)", SAMPLES["completed"].to_dict())
    view.drawn()
    assert view.page.evaluate("() => Object.keys(model.heard)") == []
    assert sorted(view.page.evaluate("() => ended")) == ["sight", "timer", "timer"]


def test_an_unanswered_click_says_what_else_helps(view: View) -> None:
    """Where the kernel is busy with a cell, the reader learns how to get through."""
    view.show("running")
    view.page.get_by_role("button", name="Stop").click()
    expect(view.page.locator(".sage-waiting")).to_contain_text("Kernel → Interrupt", timeout=8_000)


def test_an_empty_job_needs_no_operators(view: View) -> None:
    """A job without anything in it has neither picture nor empty sections."""
    view.show("no_operators")
    expect(view.page.locator(".sage-picture")).to_be_hidden()
    assert view.page.locator("details:visible, table:visible").count() == 0


# ---------------------------------------------------------------- results


def column(view: View, number: int) -> list[str]:
    return view.page.locator(f"#rich .sage-result >> nth=0 >> tbody td:nth-child({number})").all_inner_texts()


def test_a_column_is_sorted_by_value_up_down_and_not_at_all(view: View) -> None:
    """By a click or a key on its head: numbers, dates and durations as such; what is empty or none comes last."""
    view.show("rich")
    heads = view.page.locator("#rich .sage-result").first.locator("th")
    loss = heads.nth(1).get_by_role("button")
    as_they_came = column(view, 2)
    numbers = sorted((value for value in as_they_came if value != "nan"), key=float)
    loss.click()
    assert column(view, 2) == [*numbers, "nan"]
    expect(heads.nth(1)).to_have_attribute("aria-sort", "ascending")
    loss.press("Enter")
    assert column(view, 2) == [*reversed(numbers), "nan"]
    expect(heads.nth(1)).to_have_attribute("aria-sort", "descending")
    loss.press("Space")
    assert column(view, 2) == as_they_came
    assert heads.nth(1).get_attribute("aria-sort") is None
    heads.nth(2).get_by_role("button").click()
    assert column(view, 1)[:2] == ["run 11", "run 10"]
    heads.nth(0).get_by_role("button").click()
    assert column(view, 1) == [f"run {n}" for n in range(12)]
    assert heads.nth(2).get_attribute("aria-sort") is None
    heads.nth(3).get_by_role("button").click()
    assert column(view, 4)[:3] == ["0:00:30", "0:01:30", "0:04:30"]
    assert column(view, 4)[-1] == "3 days, 0:04:30"
    expect(heads.nth(3).get_by_role("button")).to_have_attribute("title", "took: duration. Press to sort by it.")


def test_new_rows_take_their_place_under_a_sort_and_a_filter(view: View) -> None:
    """What was chosen stays; nothing that matches is missing, and the cells of a row stay the same elements."""
    view.show("rich")
    result = view.page.locator("#rich .sage-result").first
    result.locator("th button").nth(1).click()
    box = result.get_by_role("searchbox", name="Filter fits")
    box.press_sequentially("TRUE")
    expect(result.locator("tbody tr")).to_have_count(4)
    expect(result.locator(".sage-heading")).to_contain_text("4 of 12 rows")
    result.locator("tbody tr").first.evaluate("node => { node.kept = true }")
    fits, *others = SAMPLES["rich"].results
    rows = (*fits.rows, ("run 99", "-1", "2025-12-01 00:00:00", "0:00:01", "True", "new"))
    view.update("rich", results=(msgspec.structs.replace(fits, total=fits.total + 1, rows=rows), *others))
    assert column(view, 1)[0] == "run 99"
    assert result.locator("tbody tr").nth(1).evaluate("node => node.kept")
    expect(result.locator(".sage-heading")).to_contain_text("5 of 13 rows")
    box.fill("nowhere")
    expect(result.locator(".sage-heading")).to_contain_text("0 of 13 rows")
    box.fill("")
    expect(result.locator("tbody tr")).to_have_count(13)
    assert view.page.locator("#rich .sage-filter:visible").count() == 1  # few rows need none


def test_rows_that_change_while_their_number_stays_change_in_place(view: View) -> None:
    """As those of a result that keeps the newest item of each key."""
    view.show("rich")
    rows = view.page.locator("#rich .sage-result").first.locator("tbody tr")
    rows.evaluate_all("nodes => nodes.forEach(node => { node.kept = true })")
    fits, *others = SAMPLES["rich"].results
    changed = tuple((*row[:1], f"{n + 0.5}", *row[2:]) for n, row in enumerate(fits.rows))
    view.update("rich", results=(msgspec.structs.replace(fits, rows=changed), *others))
    assert column(view, 2) == [f"{n + 0.5}" for n in range(12)]
    assert rows.evaluate_all("nodes => nodes.every(node => node.kept)")


def test_pictures_frames_and_rates_are_shown(view: View) -> None:
    """A picture in the place of its table, a frame with its size, and the rate as a curve that says what it shows."""
    view.show("rich", "running")
    image = view.page.get_by_role("img", name="The newest item of curve")
    assert image.evaluate("node => node.decode().then(() => [node.naturalWidth, node.naturalHeight])") == [320, 160]
    expect(view.page.locator("#rich")).to_contain_text("the newest 1,000 rows × 2 columns")
    assert view.page.get_by_text("Figure size").is_hidden()
    expect(view.page.get_by_role("img", name="Rate over time: 150/s now, 171/s at most")).to_be_visible()
    assert view.page.locator("#running .sage-spark").is_hidden()
    curve = msgspec.structs.replace(SAMPLES["rich"].results[1], picture="https://example.org/a.png")
    view.update("rich", results=(curve,))
    assert view.page.locator("img[src]").count() == 0  # only what carries its content is an address
    tip = view.page.locator("#rich .sage-picture title").nth(1)
    assert (tip.text_content() or "").endswith("p50 4 ms, p99 21 ms")


def test_a_result_is_asked_for_and_saved_as_a_file(view: View) -> None:
    """Once, however often it is pressed; an error is said beside the button, which can be pressed again."""
    view.page.evaluate("() => { window.formats = ['csv', 'parquet'] }")
    view.show("rich")
    csv = view.page.get_by_role("button", name="CSV").first
    csv.dblclick()
    button = view.page.get_by_role("button", name="preparing…")
    expect(button).to_be_disabled()
    assert view.page.evaluate("() => commands.filter(c => c.command === 'download')") == [
        {"command": "download", "result": "fits", "format": "csv"}
    ]
    answer = """([error, ...texts]) => jobs.rich.answer({result: "fits", format: "csv", error},
        texts.map(text => new DataView(new TextEncoder().encode(text).buffer)))"""
    with view.page.expect_download() as saved:
        view.page.evaluate(answer, [None, "run,loss\n", "1,2\n"])
    assert saved.value.suggested_filename == "fits.csv"
    assert saved.value.path().read_text() == "run,loss\n1,2\n"
    expect(csv).to_be_enabled()
    csv.click()
    view.page.evaluate(answer, ["no columns"])
    expect(view.page.get_by_text("no columns")).to_be_visible()
    assert view.page.locator("#rich .sage-result").nth(1).get_by_role("button", name="CSV").is_hidden()  # a picture


# ---------------------------------------------------------------- notices

NOTICES = """permission => {
  window.notify = 20;
  window.shown = [];
  window.Notification = class {
    static permission = permission;
    static requestPermission = () => { window.asked = (window.asked ?? 0) + 1; return Promise.resolve("denied"); };
    constructor(title, options) { shown.push([title, options.body]); }
  };
  document.hasFocus = () => false;
}"""


def test_the_end_of_a_long_job_is_told_once_to_a_reader_who_is_elsewhere(view: View) -> None:
    """However many views show it; the tab's title says so until the reader is back."""
    view.page.evaluate(NOTICES, "granted")
    view.show("running", "paused")
    view.page.evaluate(
        "s => { jobs.again = module.mountJob(document.body, {onCommand: () => {}, notify: 20}); jobs.again.update(s) }",
        SAMPLES["running"].to_dict(),
    )
    ended = msgspec.structs.replace(SAMPLES["failed"], uuid=SAMPLES["running"].uuid, elapsed=25.0)
    view.page.evaluate("s => { jobs.running.update(s); jobs.again.update(s) }", ended.to_dict())
    assert view.page.evaluate("() => shown") == [
        ["✗ flight delays", "Failed after 25 s\nValueError: invalid literal for int() with base 10: ''"]
    ]
    assert view.page.title() == "✗ flight delays · t"
    view.page.evaluate("() => dispatchEvent(new Event('focus'))")
    assert view.page.title() == "t"
    view.update("paused", status="stopped", elapsed=19.0)
    assert len(view.page.evaluate("() => shown")) == 1  # it took less than 20 s


def test_a_reader_who_is_there_and_one_who_wants_none_get_no_notice(view: View) -> None:
    view.page.evaluate(NOTICES, "granted")
    view.page.evaluate("() => { document.hasFocus = () => true }")
    view.show("running")
    view.update("running", status="completed", elapsed=60.0)
    view.page.evaluate("() => { document.hasFocus = () => false; window.notify = null }")
    view.show("paused")
    view.update("paused", status="completed", elapsed=90.0)
    assert view.page.evaluate("() => shown") == []
    assert view.page.title() == "t"


def test_the_reader_is_asked_once_whether_to_be_told(view: View) -> None:
    """By a button, when the job has taken a while; who says no is not asked again."""
    view.page.route("http://here/", lambda route: route.fulfill(body="<!doctype html><title>t</title>"))
    view.page.goto("http://here/")  # a page with an address has storage
    view.page.evaluate(NOTICES, "default")
    view.show("starting", "running")
    offer = view.page.get_by_role("button", name="Tell me when it ends")
    expect(offer).to_have_count(1)  # the other one runs for less than 10 s
    offer.click()
    expect(offer).to_have_count(0)
    view.update("running", elapsed=40.0)
    expect(offer).to_have_count(0)
    assert view.page.evaluate("() => asked") == 1


def test_a_command_goes_by_way_of_the_server_where_that_knows_the_job(view: View) -> None:
    """It gets through while the kernel is busy with a cell, which would carry out a second copy when that has ended."""
    view.show("running", "paused", "endless")
    view.page.evaluate(
        """unknown => {
            window.sent = [];
            window.sageNb = {command: (job, command) => job !== unknown && sent.push([job, command])};
        }""",
        SAMPLES["endless"].uuid,
    )
    view.page.locator("#running").get_by_role("button", name="Stop").dblclick()
    view.page.locator("#paused").get_by_role("button", name="Resume").click()
    view.page.locator("#endless").get_by_role("button", name="Pause").click()
    assert view.page.evaluate("() => sent") == [
        [SAMPLES["running"].uuid, "stop"],
        [SAMPLES["paused"].uuid, "resume"],
    ]
    assert view.pressed() == ["stop", "pause"]


GOES_ON = """async ([code, snapshot]) => {
  const {default: {render}} = await import("data:text/javascript;base64," + code);
  const output = () => {
    const place = Object.assign(document.createElement("div"), {className: "jp-OutputArea-child"});
    area.append(place);
    return place.appendChild(document.createElement("div"));
  };
  window.area = document.body.appendChild(document.createElement("div"));
  window.listeners = new Set();
  const values = {snapshot: {...snapshot, status: "running"}};
  const model = {
    get: (name) => values[name], send() {}, on: (event, f) => listeners.add(f), off: (event, f) => listeners.delete(f),
  };
  const end = render({model, el: output()});
  values.snapshot = snapshot;
  [...listeners][0]();
  end();
  area.replaceChildren();
  const html = output();
  html.className = "jp-RenderedHTMLCommon";
  html.innerHTML = `<code>${snapshot.uuid.slice(0, 8)}</code>`;
}"""


def test_the_view_that_goes_on_after_the_end_lasts_as_long_as_its_output(view: View) -> None:
    """Also while its cell is out of sight and so off the page; nothing listens, as there is nothing more to hear."""
    code = base64.b64encode((STATIC / "jobview.js").read_bytes()).decode()
    view.page.evaluate(GOES_ON, [code, SAMPLES["completed"].to_dict()])
    expect(view.page.locator(".sage-job .sage-state")).to_have_text("Completed")
    view.page.evaluate("() => area.remove()")
    view.drawn()
    view.page.evaluate("() => document.body.append(area)")
    expect(view.page.locator(".sage-job")).to_be_visible()
    assert view.page.evaluate("() => listeners.size") == 0


def test_the_buttons_of_a_result_are_all_there_where_it_is_narrow(view: View) -> None:
    view.page.evaluate("() => { window.formats = ['csv', 'parquet'] }")
    view.page.set_viewport_size({"width": 280, "height": 900})
    view.show("rich")
    inside = view.page.locator(".sage-job").bounding_box()
    assert inside is not None
    tools = view.page.locator(".sage-tools > *:visible")
    assert tools.count() >= 3
    for tool in tools.all():
        box = tool.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= inside["x"] + inside["width"]


# ---------------------------------------------------------------- accessibility

AXE = Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js"


@both_themes
def test_axe_finds_no_fault(view: View) -> None:
    """Every section, opened, with a filter in use and a column sorted."""
    view.page.evaluate("() => { window.formats = ['csv', 'parquet'] }")
    view.show("starting", "running", "failed", "rich", "back_pressure", "results")
    view.page.evaluate("() => document.querySelectorAll('details').forEach(details => { details.open = true })")
    view.page.locator("#rich th button").first.click()
    view.page.locator("#rich .sage-filter").first.fill("run 1")
    view.drawn()
    view.page.add_script_tag(path=AXE)
    found = view.page.evaluate("() => axe.run('.sage-job').then(all => all.violations)")
    assert [(one["id"], [node["html"][:120] for node in one["nodes"]][:3]) for one in found] == []
