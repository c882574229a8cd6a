"""A job as plain text."""

from __future__ import annotations

import pytest

from sage_nb.jobs.snapshot import JobSnapshot, OperatorView
from sage_nb.notebook.text import render_line, render_text
from sage_nb.notebook.words import cell_width
from tests.notebook.samples import SAMPLES


@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_asked_for(name: str, width: int) -> None:
    """Whatever is in it, text fits the terminal and ends without white space."""
    for line in render_text(SAMPLES[name], width).split("\n"):
        assert cell_width(line) <= width
        assert line == line.rstrip()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_line_has_at_most_80_columns_and_begins_with_the_state(name: str) -> None:
    """The one-line view fits a terminal and says the state and the name."""
    line = render_line(SAMPLES[name])
    assert "\n" not in line
    assert cell_width(line) <= 80
    assert SAMPLES[name].name[:10] in line


def test_the_line_says_how_far_a_running_job_is() -> None:
    """Percent, items, rate, time so far, time left."""
    assert render_line(SAMPLES["running"]) == (
        "► Running  flight delays  62 %  775,000 items  31 k/s  24 s  about 16 s left"
    )


def test_operators_are_a_tree_with_aligned_numbers() -> None:
    """A branch is indented below what it reads from; the numbers of a column end in the same place."""
    lines = render_text(SAMPLES["completed"]).split("\n")
    start = next(i for i, line in enumerate(lines) if line.startswith("operator"))
    assert lines[start : start + 8] == [
        "operator                kind           in        out  mean rate",
        "──────────────────────  ──────  ─────────  ─────────  ─────────",
        "flights.csv             source          –  1,250,000     31 k/s",
        "└ parse                 map     1,250,000  1,250,000     31 k/s",
        "  ├ not cancelled       filter  1,250,000  1,000,000     25 k/s",
        "  │ └ delay by carrier  map     1,000,000  1,000,000     25 k/s",
        "  │   └ delays          show    1,000,000          –     25 k/s",
        "  └ cancelled.jsonl     sink      250,000          –    6.2 k/s",
    ]


def test_a_merging_operator_appears_once_and_names_its_other_inputs() -> None:
    """A join or a feedback edge does not repeat a branch."""
    text = render_text(SAMPLES["endless"])
    assert text.count("smooth") == 1
    assert "smooth (also from recalibrate)" in text


def test_operators_on_a_cycle_without_a_root_are_all_shown() -> None:
    """Two operators that read only from each other are in the tree, once."""
    ops = tuple(
        OperatorView(id=i, name=f"op{i}", kind="map", col=i, row=0, upstream=(1 - i,), items_in=7) for i in range(2)
    )
    text = render_text(JobSnapshot(uuid="u", name="n", status="running", operators=ops))
    assert (text.count("op0 "), text.count("op1 ")) == (1, 1)


def test_a_chain_of_two_thousand_operators_is_drawn() -> None:
    """Depth is no limit, neither for the indentation nor for the interpreter's stack."""
    ops = tuple(
        OperatorView(id=i, name=f"op{i}", kind="map", col=i, row=0, upstream=(i - 1,) if i else ()) for i in range(2000)
    )
    lines = render_text(JobSnapshot(uuid="u", name="n", status="running", operators=ops)).split("\n")
    assert sum("op1999" in line for line in lines) == 1


def test_the_failing_line_is_marked() -> None:
    """The error names type, message, operator, place and item, and marks one line of the code."""
    text = render_text(SAMPLES["failed"])
    assert "✗ ValueError: invalid literal for int() with base 10: ''\n  in parse · Cell In[3], line 4\n" in text
    assert [line for line in text.split("\n") if "❱" in line] == ['  ❱ 4      hour = int(row["arr_time"]) // 100']
    assert "  item {'carrier': 'AA'" in text


def test_results_say_how_many_rows_and_columns_are_left_out() -> None:
    """A table that does not fit loses columns on the right and rows at the top, and says so."""
    assert "delays: 1,000,000 items, showing the last 10" in render_text(SAMPLES["running"])
    assert "… and 24 more columns" in render_text(SAMPLES["results"], 80)


def test_wide_characters_keep_a_table_aligned() -> None:
    """Columns begin at the same terminal column in every row."""
    lines = render_text(SAMPLES["results"]).split("\n")
    row = lines.index("unicode: 3 items")
    starts = {
        cell_width(line[: line.index(mark)]) for line, mark in zip(lines[row + 3 : row + 5], ("🙂", "☔"), strict=True)
    }
    assert len(starts) == 1


def test_hostile_text_cannot_steer_the_terminal() -> None:
    """No escape character, no zero byte and no direction mark of the user's reaches the terminal."""
    text = render_text(SAMPLES["hostile"])
    assert not {"\x1b", "\x00", "\u202e"} & set(text)
