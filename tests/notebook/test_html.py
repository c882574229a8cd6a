"""A job as self-contained HTML."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser

import msgspec
import pytest

from sage_nb.jobs.explain import Explanation
from sage_nb.jobs.snapshot import JobSnapshot, OperatorView, ResultView
from sage_nb.notebook import words
from sage_nb.notebook.html import render_explanation, render_html
from tests.notebook.samples import FLIGHTS_PLAN, INJECTION, SAMPLES

_VOID = {"img"}
# What JupyterLab keeps in notebooks that it does not trust, as far as it is used here.
_TAGS = {"div", "span", "strong", "em", "code", "pre", "img", "progress", "details", "summary"}
_TABLE = {"table", "thead", "tbody", "tr", "th", "td"}
_ATTRIBUTES = {"style", "src", "alt", "align", "value", "max"}


class _Page(HTMLParser):
    """What a browser would see: the elements, their attributes and the text; fails on what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: dict[str, list[str]] = {}
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("name", SAMPLES)
def test_html_holds_only_what_untrusted_notebooks_keep(name: str) -> None:
    """No script, style sheet, class, svg or aria attribute: nothing that a page would take away."""
    page = _Page(render_html(SAMPLES[name]))
    assert page.tags <= _TAGS | _TABLE
    assert set(page.attributes) <= _ATTRIBUTES


@pytest.mark.parametrize("name", SAMPLES)
def test_html_refers_to_nothing_outside(name: str) -> None:
    """The only addresses are pictures that carry their content, and styles have none."""
    page = _Page(render_html(SAMPLES[name]))
    kinds = ("data:image/svg+xml;base64,", "data:image/png;base64,")
    assert all(src.startswith(kinds) for src in page.attributes.get("src", []))
    assert not any("url(" in style for style in page.attributes["style"])


def test_text_of_the_users_stays_text() -> None:
    """Markup in names, results, logs and errors is shown as it was written."""
    page = _Page(render_html(SAMPLES["hostile"]))
    assert page.text.count(INJECTION) >= 16


def test_the_level_of_a_log_line_is_text_too() -> None:
    """Whatever a server says that it is."""
    log = msgspec.structs.replace(SAMPLES["hostile"].logs[0], level=INJECTION)
    page = _Page(render_html(msgspec.structs.replace(SAMPLES["hostile"], logs=(log,))))
    assert page.tags <= _TAGS | _TABLE


def test_the_last_lines_of_a_flood_are_folded_away() -> None:
    html = render_html(SAMPLES["flooding"])
    assert re.search(r"<details[^>]*><summary[^>]*>Output .*1,204,511 lines, showing the last 20", html)
    assert "step 20: loss" in _Page(html).text
    assert "Output" not in _Page(render_html(SAMPLES["running"])).text


@pytest.mark.parametrize("name", SAMPLES)
def test_html_can_be_written_into_a_notebook(name: str) -> None:
    """No lone surrogate or control character is left that JSON, UTF-8 or XML would refuse."""
    html = render_html(SAMPLES[name])
    assert html.encode()
    assert not set(html) & {chr(i) for i in range(32) if chr(i) not in "\n\t"}


def test_a_lone_surrogate_in_a_name_is_drawn() -> None:
    """A name that cannot be encoded does not take the whole view away."""
    op = OperatorView(id=0, name="a\ud800", kind="source", col=0, row=0)
    assert "a\ufffd" in render_html(JobSnapshot(uuid="u", name="b\udfff", status="running", operators=(op,)))


def test_html_says_the_same_without_any_style() -> None:
    """With the styles taken away the words are still separated, and the state and facts come first."""
    bare = _Page(re.sub(r' style="[^"]*"', "", render_html(SAMPLES["failed"]))).text
    head = "✗ Failed flight delays 77e0a9b2 3.1 s · 84,211 of 1,250,000 items · 27 k/s on average ✗ ValueError: invalid"
    assert " ".join(bare.split()).startswith(head)
    assert '❱ 4      hour = int(row["arr_time"]) // 100' in bare


def test_numeric_columns_are_aligned_to_the_right_even_without_styles() -> None:
    """Numbers can be compared on GitHub as well."""
    html = re.sub(r' style="[^"]*"', "", render_html(SAMPLES["completed"]))
    assert '<td align="right">10,012</td>' in html
    assert '<td align="left">AA</td>' in html


def test_the_picture_is_in_the_image() -> None:
    """The image's address holds the SVG file itself."""
    [src] = _Page(render_html(SAMPLES["running"])).attributes["src"]
    assert b"not cancelled" in base64.b64decode(src.partition(",")[2])


def test_results_hold_the_last_twenty_rows() -> None:
    """A saved notebook stays small, and says what it leaves out."""
    html = render_html(SAMPLES["running"])
    assert html.count("<td") == 20 * 4 + 6 * len(words.columns(SAMPLES["running"].operators))
    assert "1,000,000 items, keeping the last" in html


@pytest.mark.parametrize("name", SAMPLES)
def test_a_job_that_was_not_over_says_so(name: str) -> None:
    """Who opens a saved notebook is not told that a job runs; an ended job needs no such words."""
    ended = SAMPLES[name].status in ("completed", "failed", "stopped")
    assert ("last saved" in render_html(SAMPLES[name])) is not ended


def test_the_table_of_operators_has_what_the_live_view_has() -> None:
    """Waiting, back-pressure, times and instances are there where there are any, and no empty column is."""
    text = _Page(render_html(SAMPLES["back_pressure"])).text
    assert all(said in text for said in ("Waiting", "1,024", "Blocked", "91 %", "9.7 ms", "4 in processes"))
    simple = re.findall(r"<th[^>]*>([^<]*)</th>", render_html(SAMPLES["stopped"]))
    assert simple == ["Operator", "Kind", "In", "Out", "Rate"]


def test_dead_letters_are_a_table_of_items_and_errors() -> None:
    """It says how many there are, and shows the last ones with why each failed."""
    text = _Page(render_html(SAMPLES["loop"])).text
    assert "Dead letters of fetch 22 items, showing the last 3" in text
    assert "HTTPError: 410 Gone" in text


def test_the_server_that_runs_a_job_is_said() -> None:
    assert "flight delays on flights.example.org:19001" in _Page(render_html(SAMPLES["completed_there"])).text
    assert " on " not in _Page(render_html(SAMPLES["created"])).text


def test_a_restart_is_said() -> None:
    text = _Page(render_html(SAMPLES["restarting"])).text
    assert "Restarting" in text
    assert "attempt 2" in text
    assert "Waiting for the next attempt, in 4 s" in text


def test_a_plan_is_its_picture_above_its_text() -> None:
    """Boxes say the stage in place of a counter, also in the text for those who do not see it."""
    html = render_explanation(FLIGHTS_PLAN)
    page = _Page(html)
    assert page.tags == {"div", "img", "pre"}
    assert str(FLIGHTS_PLAN) in page.text
    assert page.attributes["alt"][0].startswith("Pipeline of 12 operators: flights.csv (source, stage 1), parse (map,")
    assert "predict (map × 4 in processes, stage 3)" in page.attributes["alt"][0]
    assert base64.b64decode(page.attributes["src"][0].partition(",")[2]).count(b">stage 1<") == 5


def test_a_plan_without_operators_is_its_text() -> None:
    empty = JobSnapshot(uuid="", name="<b>", status="created")
    assert _Page(render_explanation(Explanation("<b>", (), empty))).text == "<b>: 0 operators in 0 stages, 0 tasks"


def test_a_picture_of_a_result_and_the_curve_of_rates_are_images_with_words() -> None:
    """Where the newest item is a picture, it stands in the place of a table that would only say so."""
    html = render_html(SAMPLES["rich"])
    alts = _Page(html).attributes["alt"]
    assert alts[0] == "Rate over time: 150/s now, 171/s at most"
    assert alts[2:] == ["The newest item of curve"]
    assert "curve 42 items, the newest a picture" in _Page(html).text
    assert "table 3 items, the newest 1,000 rows × 2 columns" in _Page(html).text
    assert "Figure size" not in html


def test_what_is_no_picture_never_becomes_an_address() -> None:
    """A snapshot comes from a server, too: an address in it is taken only where it carries a picture."""
    for address in ('x" onerror="alert(1)', "https://example.org/a.png", "data:text/html;base64,AAAA"):
        result = ResultView(name="r", kind="show", total=1, columns=("value",), rows=(("1",),), picture=address)
        job = JobSnapshot(uuid="u", name="n", status="completed", results=(result,))
        assert "<img" not in render_html(job)
