"""Snapshots: the one description that every view draws."""

from __future__ import annotations

import json
import time

import pytest

from sage_nb import BaseService, LocalEnvironment
from sage_nb.jobs.snapshot import JobSnapshot
from sage_nb.notebook.text import render_error
from tests.support import Gate, endless, submitted


def test_a_snapshot_is_plain_data_and_comes_back_from_json() -> None:
    env = LocalEnvironment("plain")
    env.register_service("db", BaseService)
    env.from_batch([{"a": object()}, {"a": None}]).show("out")
    snapshot = env.submit(autostop=True).snapshot()
    assert JobSnapshot.from_dict(json.loads(json.dumps(snapshot.to_dict()))) == snapshot
    assert snapshot["status"] == "completed"
    with pytest.raises(KeyError):
        snapshot["nonsense"]


def test_operators_are_placed_from_left_to_right_one_row_for_each_branch() -> None:
    env = LocalEnvironment("places")
    a = env.from_batch([1], name="a")
    b = a.map(int, name="b")
    a.map(int, name="c").collect("e")
    b.collect("d")
    env.from_batch([1], name="f").collect("g")
    operators = env.submit(autostop=True).snapshot().operators
    places = {op.name: (op.col, op.row) for op in operators}
    assert places == {"a": (0, 0), "b": (1, 0), "d": (2, 0), "c": (1, 1), "e": (2, 1), "f": (0, 2), "g": (1, 2)}
    names = {op.id: op.name for op in operators}
    upstream = {op.name: [names[up] for up in op.upstream] for op in operators}
    assert upstream == {"a": [], "b": ["a"], "c": ["a"], "d": ["b"], "e": ["c"], "f": [], "g": ["f"]}
    assert all(op.where and op.where.startswith("test_describe.py, line ") for op in operators)


def test_progress_is_known_where_the_length_is_known() -> None:
    with Gate(at=6) as gate:
        job = submitted(lambda env: env.from_batch(list(range(10))).map(gate), autostop=False)
        gate.wait()
        snapshot = job.snapshot()
        assert (snapshot.items, snapshot.total, snapshot.fraction) == (6, 10, 0.6)
    job.wait()
    snapshot = job.snapshot()
    assert (snapshot.items, snapshot.total, snapshot.fraction, snapshot.eta) == (10, 10, 1.0, None)


def test_progress_is_unknown_where_the_length_is_unknown() -> None:
    with Gate(at=6) as gate:
        job = submitted(lambda env: env.from_source(endless).map(gate), autostop=False)
        gate.wait()
        snapshot = job.snapshot()
        assert (snapshot.items, snapshot.total, snapshot.fraction, snapshot.eta) == (6, None, None, None)
    job.stop()


def test_of_results_the_last_rows_are_shown_and_all_are_counted() -> None:
    env = LocalEnvironment("results")
    env.from_batch([{"n": n, "text": f"row\n{n}"} for n in range(100)]).show("few", rows=2).collect("all")
    few, everything = env.submit(autostop=True).snapshot().results
    assert (few.name, few.kind, few.total) == ("few", "show", 100)
    assert (few.columns, few.types) == (("n", "text"), ("number", "text"))
    assert few.rows == (("98", "row 98"), ("99", "row 99"))
    assert (everything.total, len(everything.rows), everything.rows[-1][0]) == (100, 100, "99")


def test_of_a_fast_result_few_rows_are_shown_until_it_is_slow_or_has_ended() -> None:
    """What nobody can read costs nothing; what stands still shows up to 200 rows."""
    with Gate(at=501) as gate:
        job = submitted(lambda env: env.from_batch(range(1_000)).map(gate), autostop=False)
        gate.wait()
        assert [len(job.snapshot().results[0].rows) for _ in range(2)] == [10, 200]
    job.wait()
    (result,) = job.snapshot().results
    assert (result.total, len(result.rows), result.rows[-1]) == (1_000, 200, ("999",))


def test_a_snapshot_of_wide_results_stays_below_64_kilobytes() -> None:
    env = LocalEnvironment("wide")
    rows = [{f"column {c}": f"{n} {c}" * 4 for c in range(20)} for n in range(500)]
    env.from_batch(rows).collect("a").collect("b")
    snapshot = env.submit(autostop=True).snapshot()
    assert len(json.dumps(snapshot.to_dict())) < 1 << 16
    assert all(10 <= len(result.rows) < 200 for result in snapshot.results)


def test_the_rates_are_those_of_the_whole_run() -> None:
    """At most 60 parts, whose sum is that of the items, up to a last part that has only begun."""
    job = submitted(lambda env: env.from_source(iter(range(40)), delay=0.02), autostop=False)
    while job.status != "completed":
        job.snapshot()
        time.sleep(0.02)
    rates = job.snapshot().rates
    assert 4 <= len(rates) <= 60
    assert max(rates) < 100
    assert 20 < sum(rates) / len(rates) < 60


def test_a_failure_is_described_with_the_users_lines() -> None:
    env = LocalEnvironment("fails")

    def divide(item: int) -> int:
        # the line below is the one
        return item // 0

    env.from_batch([7]).map(divide).collect("out")
    with pytest.raises(ZeroDivisionError):
        env.submit(autostop=True)
    assert env.job is not None
    snapshot = env.job.snapshot()
    error = snapshot.error
    assert error is not None
    assert (error.type, error.operator, error.item) == ("ZeroDivisionError", "divide", "7")
    assert [(line.text.strip(), line.marked) for line in error.code][1:3] == [
        ("# the line below is the one", False),
        ("return item // 0", True),
    ]
    assert "return item // 0" in error.traceback
    assert "sage_nb/engine" not in error.traceback
    assert snapshot.status == "failed"


def test_a_paused_and_a_stopping_job_say_so() -> None:
    with Gate() as gate:
        job = submitted(lambda env: env.from_source(endless).map(gate, name="held"), autostop=False)
        gate.wait()
        job.pause()
        assert job.snapshot().status == "paused"
        job.request_stop()
        snapshot = job.snapshot()
        assert snapshot.status == "stopping"
        assert snapshot.waiting_for is not None
        assert snapshot.waiting_for.startswith("map 'held'")
    assert job.stop().snapshot().waiting_for is None


def test_a_snapshot_can_be_taken_at_any_time_from_many_threads() -> None:
    import threading

    job = submitted(lambda env: env.from_source(endless).flatmap(lambda x: [x, x]).take(200_000), autostop=False)
    troubles: list[BaseException] = []

    def look() -> None:
        try:
            while job.status not in ("completed", "failed", "stopped"):
                assert job.snapshot().items >= 0
        except BaseException as exc:  # noqa: BLE001 - shown below
            troubles.append(exc)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    job.wait()
    for thread in threads:
        thread.join()
    assert troubles == []
    assert job.snapshot().operators[1].items_out == 200_000


def test_the_elapsed_time_stands_still_at_the_end() -> None:
    job = submitted(lambda env: env.from_batch([1]))
    first, second = job.snapshot(), job.snapshot()
    assert first == second
    assert 0 <= first.elapsed < 30


def test_a_failure_without_lines_of_the_user_is_told_once() -> None:
    env = LocalEnvironment("missing")
    env.from_csv("nowhere.csv").collect("out")
    with pytest.raises(FileNotFoundError):
        env.submit(autostop=True)
    assert env.job is not None
    error = env.job.snapshot().error
    assert error is not None
    assert (error.traceback, error.operator) == ("", "nowhere.csv")
    assert render_error(error).count("No such file or directory") == 1
