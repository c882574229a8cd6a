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
    assert cell_width(render_line(SAMPLES[name], 71)) <= 71
    assert "\n" not in line
    assert cell_width(line) <= 80
    assert SAMPLES[name].name[:10] in line


def test_the_line_says_how_far_a_running_job_is() -> None:
    """Percent, items, rate, time so far, time left."""
    assert render_line(SAMPLES["running"]) == (
        "► Running  flight delays  62 %  775,000 items  31 k/s  24 s  about 16 s left"
    )


def test_the_first_line_says_which_server_runs_a_job() -> None:
    """Beside the name, or below it where there is no room."""
    first, *_ = render_text(SAMPLES["completed_there"]).split("\n")
    assert first == "✓ Completed  flight delays  on flights.example.org:19001  2d0a5c66"
    assert render_text(SAMPLES["completed_there"], 40).split("\n")[:2] == [
        "✓ Completed  flight delays  2d0a5c66",
        "  on flights.example.org:19001",
    ]


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
    assert "delays: 1,000,000 items, keeping the last" in render_text(SAMPLES["running"])
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


def test_metrics_are_there_where_there_is_room() -> None:
    """At 120 columns all are shown; at 80 the least telling are left out and named."""
    wide = render_text(SAMPLES["back_pressure"], 120).split("\n")
    head = next(line for line in wide if line.startswith("operator"))
    metrics = ["rate", "busy", "waiting", "blocked", "p50", "p99", "errors", "instances"]
    assert head.split() == ["operator", "kind", "in", "out", *metrics]
    shrink = next(line for line in wide if "shrink" in line)
    assert shrink.endswith(" 396/s  99 %    1,024           9.7 ms   31 ms       4  4 in processes")
    narrow = render_text(SAMPLES["back_pressure"], 80).split("\n")
    assert "… and 4 more columns: blocked, p50, p99, instances" in narrow
    assert "  ├ shrink to 256 pixels  map      8,192  8,188  396/s  99 %    1,024       4" in narrow


def test_dead_letters_are_a_table() -> None:
    """As results are: how many, and the last ones, each with why it failed."""
    lines = render_text(SAMPLES["back_pressure"]).split("\n")
    at = lines.index("Dead letters of shrink to 256 pixels: 4 items")
    assert lines[at + 3] == "Photo('IMG_0.jpg')  UnidentifiedImageError: cannot identify image file"


def test_a_restart_says_which_attempt_is_next() -> None:
    text = render_text(SAMPLES["restarting"])
    assert text.startswith("◌ Restarting  flight delays  4e574a47\n  31 s · 0 items · attempt 2\n")
    assert "Waiting for the next attempt, in 4 s" in text
    assert render_line(SAMPLES["restarting"]) == "◌ Restarting  flight delays  attempt 2  0 items  31 s"


def test_the_rates_are_bars_where_there_is_room_and_pictures_are_words() -> None:
    lines = render_text(SAMPLES["rich"]).split("\n")
    assert lines[1] == "  21 s · 3,120 items · 150/s  ▂▄▇▇▇▁▁▅▇▇██▇"
    assert "▇" not in render_text(SAMPLES["rich"], 40)
    assert "curve: 42 items, the newest a picture" in lines
    assert "table: 3 items, the newest 1,000 rows × 2 columns" in lines
    assert not any("Figure size" in line for line in lines)


def test_a_flood_is_told_with_its_last_lines() -> None:
    lines = render_text(SAMPLES["flooding"]).split("\n")
    first = lines.index("output: 1,204,511 lines, showing the last 10")
    assert lines[first + 1].startswith("step 11: ")
    assert lines[first + 10].startswith("step 20: ")
