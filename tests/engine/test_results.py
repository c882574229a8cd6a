"""Named results: live sequences."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from sage_nb import LocalEnvironment
from sage_nb.errors import PipelineError
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


# Files


def result_of(*items: Any) -> Any:
    return submitted(lambda env: env.from_batch(items)).results["out"]


def test_a_result_is_written_as_csv(tmp_path: Path) -> None:
    """Fields are columns, one that an item lacks is empty; a file of that name is replaced, and no other is left."""
    file = tmp_path / "out.csv"
    file.write_text("before")
    result_of({"a": 1, "b": "x;y"}, {"b": None, "c": 2.5}).to_csv(file, delimiter=";")
    assert file.read_text() == 'a;b;c\n1;"x;y";\n;;2.5\n'
    result_of(Point(1, 2), Point(3, 4)).to_csv(file)
    assert file.read_text() == "x,y\n1,2\n3,4\n"
    result_of(("a", 1), ("b", 2)).to_csv(file)
    assert file.read_text() == "0,1\na,1\nb,2\n"
    result_of((1, 2), 3).to_csv(file)
    assert file.read_text() == 'value\n"(1, 2)"\n3\n'
    result_of().to_csv(file)
    assert file.read_text() == ""
    assert list(tmp_path.iterdir()) == [file]


def test_a_result_is_written_as_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "out.parquet"
    result_of({"a": 1}, {"a": 2, "b": "x"}).to_parquet(file)
    assert pq.read_table(file).to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]
    result_of(("x", 1), ("y", 2)).to_parquet(file)
    assert pq.read_table(file).to_pylist() == [{"0": "x", "1": 1}, {"0": "y", "1": 2}]
    result_of(7, 8).to_parquet(file)
    assert pq.read_table(file).to_pylist() == [{"value": 7}, {"value": 8}]


def test_frames_are_written_one_below_the_other(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    file = tmp_path / "out.csv"
    result_of(pd.DataFrame({"a": [1, 2]}), pd.DataFrame({"a": [3]})).to_csv(file)
    assert file.read_text() == "a\n1\n2\n3\n"


@pytest.mark.parametrize(("kind", "items"), [("to_csv", [{"a": 1}, 5]), ("to_parquet", [1, "x"]), ("to_csv", [{}])])
def test_what_does_not_fit_in_columns_leaves_the_old_file(kind: str, items: list[Any], tmp_path: Path) -> None:
    """The error says which result, and why; nothing half-written is left."""
    file = tmp_path / "out"
    file.write_text("before")
    with pytest.raises(PipelineError, match="the result 'out' cannot be written: "):
        getattr(result_of(*items), kind)(file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_a_path_that_is_none_to_write_to_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="is a folder"):
        result_of(1).to_csv(tmp_path)
    with pytest.raises(PipelineError, match="there is no folder"):
        result_of(1).to_csv(tmp_path / "none" / "out.csv")
