"""Columns by name: of `keyby` and of values."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import msgspec
import pytest

from sage_nb import LocalEnvironment, SignatureError, Tumbling
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
