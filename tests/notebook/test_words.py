"""How numbers, durations and states are said."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from sage_nb.jobs.snapshot import OperatorView, Status
from sage_nb.notebook import words
from tests.notebook.samples import SAMPLES


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1.0, "0 s"),
        (0.0, "0 s"),
        (0.0004, "0 s"),
        (0.021, "21 ms"),
        (0.0996, "0.1 s"),
        (3.25, "3.3 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.99, "59 s"),
        (60.0, "1 min 00 s"),
        (64.2, "1 min 04 s"),
        (3599.9, "59 min 59 s"),
        (8105.0, "2 h 15 min"),
        (86_400.0, "1 d 00 h"),
    ],
)
def test_durations_are_said_in_at_most_two_units(seconds: float, said: str) -> None:
    """The unit follows the size, and a duration never says more than has passed by more than half its last place."""
    assert words.duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-1.0, "0 ns"),
        (0.0, "0 ns"),
        (4.2e-9, "4.2 ns"),
        (820e-9, "820 ns"),
        (999.6e-9, "1 µs"),
        (35.4e-6, "35 µs"),
        (0.001_2, "1.2 ms"),
        (0.031, "31 ms"),
        (0.999_4, "999 ms"),
        (0.999_6, "1.0 s"),
        (2.4, "2.4 s"),
        (90.0, "1 min 30 s"),
    ],
)
def test_what_an_item_takes_is_said_in_the_unit_that_fits(seconds: float, said: str) -> None:
    """Two or three figures, from nanoseconds to minutes."""
    assert words.short_time(seconds) == said


@pytest.mark.parametrize(
    ("per_second", "said"),
    [
        (0.0, "0/s"),
        (0.01, "< 0.1/s"),
        (2.5, "2.5/s"),
        (10.0, "10/s"),
        (999.4, "999/s"),
        (999.6, "1 k/s"),
        (8_140.0, "8.1 k/s"),
        (80_000.0, "80 k/s"),
        (1_234_567.0, "1.2 M/s"),
        (5e12, "5 T/s"),
        (5e15, "5,000 T/s"),
    ],
)
def test_rates_have_two_or_three_figures(per_second: float, said: str) -> None:
    """A rate is short whatever its size."""
    assert words.rate(per_second) == said


def test_counts_have_thousands_separators_and_their_noun_a_plural() -> None:
    """`1 item`, `0 items`, `1,234,567 items`."""
    assert words.named_count(1, "item") == "1 item"
    assert words.named_count(0, "item") == "0 items"
    assert words.named_count(1_234_567, "item") == "1,234,567 items"


def test_hundred_percent_is_said_only_at_the_end() -> None:
    """99.9 % is said as 99 %; what is out of range is said as the nearest possible."""
    assert words.percent(0.999) == "99 %"
    assert words.percent(1.0) == "100 %"
    assert words.percent(1.7) == "100 %"
    assert words.percent(-0.1) == "0 %"


@pytest.mark.parametrize(
    ("eta", "said"),
    [(0.0, "almost done"), (0.2, "about 1 s left"), (39.1, "about 40 s left"), (64.0, "about 1 min 04 s left")],
)
def test_the_rest_is_said_in_whole_seconds(eta: float, said: str) -> None:
    """The estimate has no decimals that would pretend to be exact."""
    assert words.ends_in(eta) == said


def test_showing_names_the_hidden_part_only_where_there_is_one() -> None:
    """All of 3 are 3; 20 of 1,234 are the last 20."""
    assert words.showing(3, 3, "item") == "3 items"
    assert words.showing(1_234, 20, "line") == "1,234 lines, showing the last 20"


def _op(kind: str, items_in: int, items_out: int) -> OperatorView:
    return OperatorView(id=0, name="x", kind=kind, col=0, row=0, items_in=items_in, items_out=items_out)


def test_an_operators_counter_has_an_arrow_only_where_in_and_out_differ() -> None:
    """A source counts what it gives, a sink what it gets, others both where they differ."""
    assert words.flow(_op("source", 0, 5)) == "5"
    assert words.flow(_op("sink", 5, 0)) == "5"
    assert words.flow(_op("map", 5, 5)) == "5"
    assert words.flow(_op("filter", 1_000, 12)) == "1,000 → 12"
    assert words.flow(_op("filter", 12_000_000, 999)) == "12 M → 999"


def test_facts_say_the_total_while_it_is_ahead_and_the_mean_at_the_end() -> None:
    """A running job is `n of total`; an ended one has a mean rate."""
    assert words.facts(SAMPLES["running"]) == ["24 s", "775,000 of 1,250,000 items", "31 k/s", "", ""]
    assert words.facts(SAMPLES["completed"]) == ["40 s", "1,250,000 items", "31 k/s on average", "", ""]
    assert words.facts(SAMPLES["endless"])[3] == "in processes"


def test_facts_name_the_attempt_from_the_second_on() -> None:
    """A job that was never restarted has no word about attempts."""
    assert words.facts(SAMPLES["second_attempt"])[-1] == "attempt 2"
    assert words.facts(SAMPLES["running"])[-1] == ""


def test_a_simple_pipeline_has_a_simple_table() -> None:
    """Columns that would be empty for every operator are left out; no column is for what never happens."""
    heads = [column.head for column in words.columns((_op("source", 0, 5), _op("sink", 5, 0)))]
    assert heads == ["Operator", "Kind", "In", "Out", "Rate"]
    assert words.columns(()) == [words.Column(head, head in ("In", "Out", "Rate"), []) for head in heads]


def test_a_column_is_there_as_soon_as_one_operator_has_something_to_say() -> None:
    """Every metric has its column, in a fixed order, and is blank where there is nothing."""
    busy = OperatorView(
        id=1,
        name="x",
        kind="interval_join",
        col=1,
        row=0,
        busy=0.5,
        queued=1_024,
        blocked=0.25,
        p50=0.000_5,
        p99=0.004,
        errors=3,
        late=7,
        parallelism=4,
        executor="process",
        where="Cell In[1], line 2",
    )
    found = {column.head: column.cells for column in words.columns((_op("source", 0, 5), busy))}
    assert list(found.items())[5:] == [
        ("Busy", ["", "50 %"]),
        ("Waiting", ["", "1,024"]),
        ("Blocked", ["", "25 %"]),
        ("p50", ["", "500 µs"]),
        ("p99", ["", "4 ms"]),
        ("Errors", ["", "3"]),
        ("Late", ["", "7"]),
        ("Instances", ["", "4 in processes"]),
        ("Declared in", ["", "Cell In[1], line 2"]),
    ]
    assert found["Kind"] == ["source", "interval join"]


def test_a_trace_of_back_pressure_is_no_column() -> None:
    """Less than one percent is not worth a column; one percent is."""
    assert "Blocked" not in [c.head for c in words.columns((msgspec.structs.replace(_op("map", 1, 1), blocked=0.009),))]
    assert "Blocked" in [c.head for c in words.columns((msgspec.structs.replace(_op("map", 1, 1), blocked=0.01),))]


def test_bars_show_the_curve_in_the_width_that_there_is() -> None:
    """The highest part is a full bar; parts that share one are averaged; one point is no curve."""
    assert words.bars([0, 1, 2, 4], 20) == "▁▃▅█"
    assert words.bars([0, 4, 4, 4, 8, 8], 3) == "▃▅█"
    assert [words.bars(rates, 20) for rates in ([], [5.0], [0.0, 0.0])] == ["", "", ""]
    assert len(words.bars(range(1, 61), 20)) == 20


def test_every_state_has_a_word_and_a_mark_of_its_own_kind() -> None:
    """States that end a job cannot be taken for each other, and none is only a colour."""
    distinct = [words.MARKS[status] for status in ("completed", "failed", "stopped", "running", "paused")]
    assert len(set(distinct)) == 5
    assert set(get_args(Status)) <= set(words.MARKS)
    assert all(words.state_word(status)[0].isupper() for status in get_args(Status))


def test_plain_text_steers_no_terminal() -> None:
    """Escapes, zero bytes, direction marks and lone surrogates are gone; words and line feeds may stay."""
    assert words.plain("a\x1b[31mb\x00\u202ec\ud800\n d") == "a\ufffd[31mb\ufffdc\ufffd  d"
    assert words.plain("a\r\n\tb", lines=True) == "a \n\tb"
    assert words.plain("größe 東京 🙂") == "größe 東京 🙂"


@pytest.mark.parametrize(("text", "width"), [("abc", 3), ("東京", 4), ("e\u0301", 1), ("🙂", 2), ("", 0), ("ｱ", 1)])
def test_cell_width_counts_columns_of_a_terminal(text: str, width: int) -> None:
    """Wide characters take two columns, combining marks none."""
    assert words.cell_width(text) == width


@pytest.mark.parametrize(
    ("text", "width", "cut"),
    [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("東京都", 4, "東…"), ("ab cd", 4, "ab…"), ("ab", 0, "")],
)
def test_fit_cuts_with_an_ellipsis_within_the_width(text: str, width: int, cut: str) -> None:
    """What is cut never takes more columns than there are."""
    assert words.fit(text, width) == cut
