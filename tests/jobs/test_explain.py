"""A plan in words."""

from __future__ import annotations

import pytest

from sage_nb.jobs.explain import Explanation, StageLine
from sage_nb.jobs.layout import places
from sage_nb.jobs.snapshot import JobSnapshot, OperatorView
from tests.notebook.samples import FLIGHTS_PLAN


def _snapshot(*operators: tuple[str, str, tuple[int, ...]]) -> JobSnapshot:
    at = places([(id, ups, kind) for id, (_, kind, ups) in enumerate(operators)])
    views = [
        OperatorView(id=id, name=name, kind=kind, col=at[id][0], row=at[id][1], upstream=ups)
        for id, (name, kind, ups) in enumerate(operators)
    ]
    return JobSnapshot(uuid="u", name="plan", status="created", operators=tuple(views))


def _plan(*stages: StageLine, snapshot: JobSnapshot | None = None, name: str = "plan") -> Explanation:
    return Explanation(name, stages, snapshot or _snapshot())


def test_a_plan_is_read_from_top_to_bottom() -> None:
    """Stages in order, where each runs, why it was cut, where its items come from, and what it does."""
    assert (
        str(FLIGHTS_PLAN)
        == """\
delays by carrier: 12 operators in 5 stages, 14 tasks

Stage 1 · a thread
  flights.csv (source) → parse (map)
    → carrier (keyby)
    → cancelled (filter) → cancelled.jsonl (sink)

Stage 2 · 4 threads · cut: 4 instances by key 'carrier'
  ← stage 1, by the hash of the key
  mean delay (reduce)

Stage 3 · 4 processes · cut: 4 instances, processes
  ← stage 2, to whichever instance has the least to do
  predict (map)

Stage 4 · a thread · cut: merges 2 streams
  ← stage 3, from all instances
  ← stage 5, round the loop
  settle (map)
    → delays (show)
    → not sure (filter)

Stage 5 · 4 event loops · cut: event loop, 4 instances
  ← stage 4
  look up (async) → again (future)

A stage runs as one loop. Between stages, items wait in bounded channels."""
    )


def test_a_plan_of_one_stage_needs_no_word_about_channels() -> None:
    """What is simple reads simply, and a name that says the kind is not said twice."""
    stage = StageLine(1, ("batch", "map", "map_2", "interval_join", "print"), ("source", "map", "map", "map", "print"))
    assert str(_plan(stage, name="squares")) == (
        "squares: 5 operators in 1 stage, 1 task\n\n"
        "Stage 1 · a thread\n  batch (source) → map → map_2 → interval_join (map) → print"
    )


def test_the_shell_shows_the_text() -> None:
    """Who types `env.explain()` without a notebook reads the plan, not a dataclass."""
    assert repr(FLIGHTS_PLAN) == str(FLIGHTS_PLAN)


def test_a_merge_may_be_a_stage_without_operators() -> None:
    """Where streams only come together, that is said."""
    text = str(_plan(StageLine(3, (), (), inputs=((1, "gather"), (2, "forward")), why="merges 2 streams")))
    assert text.endswith("Stage 3 · a thread · cut: merges 2 streams\n  ← stage 1, from all instances\n  ← stage 2")


def test_instances_and_places_are_said_as_a_person_would() -> None:
    def said(parallelism: int, runs_in: str) -> str:
        text = str(_plan(StageLine(1, ("a",), ("map",), parallelism=parallelism, runs_in=runs_in)))
        return text.split("\n")[2].removeprefix("Stage 1 · ")

    assert [said(1, "thread"), said(1, "process"), said(1, "event loop")] == ["a thread", "a process", "an event loop"]
    assert [said(2, "thread"), said(3, "process"), said(4, "event loop")] == [
        "2 threads",
        "3 processes",
        "4 event loops",
    ]


def test_routes_are_named_with_or_without_underscore_and_unknown_ones_as_they_are() -> None:
    """A new way to hand items over is shown before anybody gives it better words."""
    text = str(_plan(StageLine(2, (), (), inputs=((1, "round_robin"), (1, "round robin"), (1, "by post")))))
    assert [line for line in text.split("\n") if "←" in line] == [
        "  ← stage 1, in turn",
        "  ← stage 1, in turn",
        "  ← stage 1, by post",
    ]


def test_branches_within_branches_stay_in_sight() -> None:
    """Sixty levels of branches are indented only so far that there is still room for names."""
    operators: list[tuple[str, str, tuple[int, ...]]] = [("head", "source", ())]
    for level in range(60):
        operators += [(f"left {level}", "map", (2 * level,)), (f"right {level}", "map", (2 * level,))]
    stage = StageLine(1, tuple(name for name, _, _ in operators), ("source", *("map",) * 120))
    lines = str(_plan(stage, snapshot=_snapshot(*operators))).split("\n")
    assert max(map(len, lines)) < 50
    assert lines[4:7] == ["    → left 0 (map)", "    → right 0 (map)", "      → left 1 (map)"]


@pytest.mark.parametrize("name", ["x" * 200, "東京" * 60, "many words " * 20, "a\nb\x1b[31m"])
def test_no_line_is_wider_than_a_terminal(name: str) -> None:
    """Whatever operators and pipelines are called, lines have 80 columns at most, and nothing steers the terminal."""
    names = tuple(f"{name}{n}" for n in range(30))
    stage = StageLine(1, names, ("map",) * 30, why=name)
    wide = StageLine(2, ("head", *names), ("source", *("map",) * 30))
    fan_out = _snapshot(("head", "source", ()), *((one, "map", (0,)) for one in names))
    for plan in (_plan(stage, name=name), _plan(wide, snapshot=fan_out)):
        for line in str(plan).split("\n"):
            assert sum(1 + (ch in "東京") for ch in line) <= 80
            assert "\x1b" not in line
            assert line == line.rstrip()


def test_a_chain_that_is_too_long_for_a_line_goes_on_with_its_arrow_at_the_end() -> None:
    """An arrow at the start of a line is a branch; one at the end goes on below."""
    stage = StageLine(1, tuple(f"operator nr {n}" for n in range(6)), ("map",) * 6)
    lines = str(_plan(stage)).split("\n")[3:]
    assert lines == [
        "  operator nr 0 (map) → operator nr 1 (map) → operator nr 2 (map) →",
        "    operator nr 3 (map) → operator nr 4 (map) → operator nr 5 (map)",
    ]


def test_a_thousand_operators_in_a_stage_are_said() -> None:
    """Neither depth nor breadth is a limit."""
    names = tuple(f"op{n}" for n in range(1000))
    kinds = ("source", *("map",) * 999)
    chain = _snapshot(
        *((name, kind, (n - 1,) if n else ()) for n, (name, kind) in enumerate(zip(names, kinds, strict=True)))
    )
    broad = _snapshot(
        *((name, kind, (0,) if n else ()) for n, (name, kind) in enumerate(zip(names, kinds, strict=True)))
    )
    assert "op999 (map)" in str(_plan(StageLine(1, names, kinds), snapshot=chain))
    assert str(_plan(StageLine(1, names, kinds), snapshot=broad)).count("\n    → ") == 999
