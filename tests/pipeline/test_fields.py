"""Columns by name: of `keyby` and of values, and the parts of tuples."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from sage_nb import LocalEnvironment, PipelineError, SignatureError, Tumbling
from tests.support import errors, ran

SALES = [("tea", 3), ("coffee", 5), ("tea", 4)]
RUNNING = [("tea", 3), ("coffee", 5), ("tea", 7)]


class Named(NamedTuple):
    what: str
    price: int


@dataclasses.dataclass
class Data:
    what: str
    price: int


class Struct(msgspec.Struct):
    what: str
    price: int


def as_dict(what: str, price: int) -> dict[str, Any]:
    return {"what": what, "price": price}


@pytest.mark.parametrize("make", [as_dict, Named, Data, Struct])
@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_name_stands_for_the_column_of_that_name(make: Any, policy: str) -> None:
    rows = [make(*sale) for sale in SALES]
    assert ran(lambda env: env.from_batch(rows).keyby("what").sum("price", on_error=policy)) == RUNNING


def test_values_of_windows_have_names_too() -> None:
    rows = [as_dict(*sale) for sale in SALES]

    def windows(env: LocalEnvironment) -> Any:
        return env.from_batch(rows).keyby("what").window(Tumbling(10), event_time=lambda row: row["price"])

    assert [one.value for one in ran(lambda env: windows(env).sum("price"))] == [7, 5]
    assert [one.value for one in ran(lambda env: windows(env).aggregate("max", "price"))] == [4, 5]
    assert [one.value for one in ran(lambda env: windows(env).aggregate(len, value="price"))] == [2, 1]


def test_a_window_is_keyed_by_its_own_columns() -> None:
    rows = [as_dict(*sale) for sale in SALES]

    def totals(env: LocalEnvironment) -> Any:
        windows = env.from_batch(rows).keyby("what").window(Tumbling(4), event_time=lambda row: row["price"]).count()
        return windows.keyby("key").sum("value")

    assert ran(totals) == [("tea", 1), ("coffee", 1), ("tea", 2)]


@pytest.mark.parametrize("row", [as_dict("tea", 3), Named("tea", 3), Data("tea", 3)])
def test_a_column_that_is_missing_is_told_with_those_that_are_there(row: Any) -> None:
    env = LocalEnvironment("typo")
    env.from_batch([row]).keyby("waht").count().collect("out")
    with pytest.raises(KeyError, match=r"no column 'waht'; there are: what, price; did you mean 'what'\?") as caught:
        env.submit(autostop=True)
    (about, item) = caught.value.__notes__
    assert "operator 'waht' (keyby), test_fields.py, line" in about
    assert "tea" in item


@pytest.mark.parametrize("item", [3, "what", ("tea", 3), ["tea"], None])
def test_an_item_without_columns_is_told(item: Any) -> None:
    env = LocalEnvironment("no columns")
    env.from_batch([item]).keyby("what").count().collect("out")
    with pytest.raises(TypeError, match=f"{type(item).__name__} has no column 'what'; give a function of an item"):
        env.submit(autostop=True)


def test_a_missing_column_is_an_error_like_others() -> None:
    env = LocalEnvironment("policies")
    rows = [{"a": 1, "n": 2}, {"b": 1}, {"a": 1}, {"a": 1, "n": 3}]
    keyed = env.from_batch(rows).keyby("a", on_error="dead_letter")
    keyed.sum("n", on_error="dead_letter").collect("out")
    job = env.submit(autostop=True)
    assert job.results["out"] == [(1, 2), (1, 5)]
    assert errors(job) == {"a": 1, "sum": 1}
    assert [letter.item for letter in job.dead_letters["a"]] == [{"b": 1}]
    assert [letter.item for letter in job.dead_letters["sum"]] == [{"a": 1}]


def test_the_operator_is_called_like_the_column() -> None:
    env = LocalEnvironment("names")
    stream = env.from_batch([])
    names = [stream.keyby("store").name, stream.keyby("store").name, stream.keyby("two words").name]
    assert names == ["store", "store_2", "keyby"]


def test_a_name_is_no_function_elsewhere() -> None:
    stream = LocalEnvironment("elsewhere").from_batch([{"a": 1}])
    for declare in (stream.map, stream.filter, stream.sink, stream.keyby("a").reduce):
        with pytest.raises(SignatureError, match="not str"):
            declare("a")


def test_parts_of_tuples_have_names_in_tables_and_files(tmp_path: Path) -> None:
    env = LocalEnvironment("named")
    totals = env.from_batch(SALES).keyby(lambda sale: sale[0]).sum(lambda sale: sale[1]).named("what", "total")
    totals.collect("all").show(latest=True).to_csv(tmp_path / "totals.csv")
    job = env.submit(autostop=True)
    assert job.results["all"] == [{"what": what, "total": total} for what, total in RUNNING]
    assert list(job.results["named"].to_pandas().columns) == ["what", "total"]
    assert [row["total"] for row in job.results["named"]] == [7, 5]
    assert (tmp_path / "totals.csv").read_text().splitlines() == ["what,total", "tea,3", "coffee,5", "tea,7"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ((), "give a name for each part"),
        ((["a", "b"],), r"not \['a', 'b'\]; give the names one by one"),
        (("a", 1), "one character, not 1"),
        (("a", " "), "one character, not ' '"),
        (("a", "b", "a"), "'a' is there twice"),
    ],
)
def test_names_that_are_none_are_refused_where_they_are_given(columns: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        LocalEnvironment("names").from_batch([(1, 2)]).named(*columns)


@pytest.mark.parametrize(
    ("item", "error", "message"),
    [(3, TypeError, "this item is of type int"), ((1, 2, 3), ValueError, "names 2 parts; this item has 3")],
)
def test_what_does_not_fit_the_names_is_told(item: Any, error: type[Exception], message: str) -> None:
    env = LocalEnvironment("unfit")
    env.from_batch([(1, 2), item]).named("a", "b", on_error="skip").collect("fit")
    env.from_batch([(1, 2), item]).named("a", "b").collect("out")
    with pytest.raises(error, match=message) as caught:
        env.submit(autostop=True)
    assert "operator 'named_2' (map), test_fields.py, line" in caught.value.__notes__[0]


def test_a_result_without_a_name_is_called_like_its_stream() -> None:
    env = LocalEnvironment("unnamed")
    doubled = env.from_batch(range(20)).map(lambda x: 2 * x, name="doubled").show().collect()
    doubled.show(rows=3)
    job = env.submit(autostop=True)
    assert {name: len(result) for name, result in job.results.items()} == {
        "doubled": 10,
        "doubled 2": 20,
        "doubled 3": 3,
    }
    with pytest.raises(PipelineError, match="not 20; how many rows it has is rows="):
        LocalEnvironment("rows").from_batch([1]).show(20)  # type: ignore[arg-type]
