"""Named results: live sequences."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from typing import Any

import pytest

from sage_nb import LocalEnvironment
from tests.support import Gate, submitted

Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Pair:
    x: int
    y: int


def shown(items: list[Any], rows: int) -> Any:
    env = LocalEnvironment("shown")
    env.from_batch(items).show("out", rows=rows)
    return env.submit(autostop=True).results["out"]


def test_a_result_is_a_sequence() -> None:
    out = submitted(lambda env: env.from_batch(range(5))).results["out"]
    assert (len(out), out[0], out[-1], out[1:3], 3 in out, out.index(4)) == (5, 0, 4, [1, 2], True, 4)
    assert list(reversed(out)) == [4, 3, 2, 1, 0]
    assert out == [0, 1, 2, 3, 4]
    assert out != [0]
    assert out.to_list() == list(out)
    with pytest.raises(IndexError):
        out[5]


def test_a_shown_result_is_a_sequence_of_the_last_rows() -> None:
    out = shown(list(range(50)), rows=3)
    assert (list(out), out[0], out[-1], out[1:], len(out)) == ([47, 48, 49], 47, 49, [48, 49], 3)


def test_a_result_can_be_read_while_it_grows() -> None:
    with Gate(at=4) as gate:
        env = LocalEnvironment("grows")
        env.from_batch(range(6)).map(gate).collect("all").show("last", rows=2)
        job = env.submit()
        gate.wait()
        held = job.results["all"]
        iterating = iter(held)
        assert list(held) == [0, 1, 2]
        assert list(job.results["last"]) == [1, 2]
    job.wait()
    assert list(held) == [0, 1, 2, 3, 4, 5]
    assert list(iterating) == [0, 1, 2]


def test_what_a_reader_does_to_a_list_of_results_changes_nothing() -> None:
    out = submitted(lambda env: env.from_batch([1, 2])).results["out"]
    out.to_list().clear()
    out[:].clear()
    assert list(out) == [1, 2]


def test_the_results_are_known_before_the_first_item() -> None:
    with Gate() as gate:
        job = submitted(lambda env: env.from_batch([1]).map(gate), autostop=False)
        gate.wait()
        assert list(job.results) == ["out"]
        assert list(job.results["out"]) == []
    job.wait()
    with pytest.raises(KeyError):
        job.results["other"]


@pytest.mark.parametrize("items", [[{"x": 1, "y": 2}], [Point(1, 2)], [Pair(1, 2)]])
def test_records_become_columns_of_a_dataframe(items: list[Any]) -> None:
    pytest.importorskip("pandas")
    frame = submitted(lambda env: env.from_batch(items)).results["out"].to_pandas()
    assert frame.to_dict("list") == {"x": [1], "y": [2]}


@pytest.mark.parametrize(("items", "dtype"), [([1, 2], "int64"), ([1, "a", (1, 2)], "object"), ([], "object")])
def test_other_items_become_one_column(items: list[Any], dtype: str) -> None:
    pytest.importorskip("pandas")
    frame = submitted(lambda env: env.from_batch(items)).results["out"].to_pandas()
    assert frame["value"].tolist() == items
    assert frame["value"].dtype == dtype
