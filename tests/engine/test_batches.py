"""`map_batches`: what a function is called with, and what becomes of its result."""

from __future__ import annotations

import dataclasses
import decimal
import os
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import sage_nb
from sage_nb.engine.batches import SINGLE_ITEMS, Batcher, as_format, is_chunk, is_frame, length, rows, split
from sage_nb.pipeline.batches import Columns, columns, join, record_of
from tests.support import LIMIT, counts, ran, submitted

np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")

Point = namedtuple("Point", "a b")
RECORDS = [{"a": 1, "b": "x"}, {"a": 2, "b": None}, {"a": 3, "b": "é"}]


@dataclasses.dataclass
class Pair:
    a: int
    b: Any


def table() -> Any:
    return pa.Table.from_pylist(RECORDS)


def records_in_all_forms() -> list[Any]:
    frame = pd.DataFrame(RECORDS, dtype=object)
    return [
        RECORDS,
        frame,
        frame.set_index(pd.Index([5, 6, 7])),
        frame.set_index("a"),
        table(),
        table().to_batches()[0],
        pa.concat_tables([table().slice(0, 1), table().slice(1)]),
        Columns(a=np.array([1, 2, 3]), b=np.array(["x", None, "é"], dtype=object)),
        np.array([(1, "x"), (2, None), (3, "é")], dtype=[("a", "i8"), ("b", "O")]),
    ]


def plain_in_all_forms() -> list[Any]:
    return [
        [1, 2, 3],
        np.array([1, 2, 3]),
        np.array([0, 1, 0, 2, 0, 3])[1::2],
        pd.Series([1, 2, 3], name="value"),
        pa.array([1, 2, 3]),
        pa.chunked_array([[1], [2, 3]]),
    ]


# Chunks


@pytest.mark.parametrize("chunk", records_in_all_forms(), ids=lambda chunk: type(chunk).__name__)
def test_the_rows_of_every_kind_of_chunk_are_dicts_of_python_values(chunk: Any) -> None:
    assert is_chunk(chunk)
    assert length(chunk) == 3
    assert rows(chunk) == RECORDS
    assert type(rows(chunk)[0]["a"]) is int
    assert columns(chunk) == {"a": [1, 2, 3], "b": ["x", None, "é"]}
    assert [rows(split(chunk, *part)) for part in ((0, 1), (1, 9), (3, 5))] == [RECORDS[:1], RECORDS[1:], []]
    assert length(split(chunk, 1, 3)) == 2


@pytest.mark.parametrize("chunk", plain_in_all_forms(), ids=lambda chunk: type(chunk).__name__)
def test_the_rows_of_one_axis_are_python_values(chunk: Any) -> None:
    assert is_chunk(chunk)
    assert rows(chunk) == [1, 2, 3]
    assert {type(row) for row in rows(chunk)} == {int}
    assert rows(split(chunk, 1, 3)) == [2, 3]


def test_the_rows_of_more_axes_are_arrays() -> None:
    first, second = rows(np.array([[1, 2], [3, 4]]))
    assert (first.tolist(), second.tolist()) == ([1, 2], [3, 4])


def test_times_stay_times() -> None:
    (row,) = rows(np.array(["2024-01-02T03:04:05.123456789"], dtype="datetime64[ns]"))
    assert str(row) == "2024-01-02T03:04:05.123456789"


@pytest.mark.parametrize("item", [1, "ab", b"ab", (1, 2), {"a": [1]}, {1}, None, np.int64(1), np.array(5), range(3)])
def test_anything_else_is_one_item(item: Any) -> None:
    assert not is_chunk(item)


def test_frames_are_chunks_that_are_tables_by_themselves() -> None:
    yes = [pd.DataFrame(), pd.Series([1]), table(), table().to_batches()[0], np.ones((1, 1))]
    no = [[1], np.ones(1), np.ones((1, 1, 1)), {"a": 1}, 1, "a", pa.array([1])]
    assert [is_frame(one) for one in yes] == [True] * len(yes)
    assert [is_frame(one) for one in no] == [False] * len(no)


def test_records_have_fields() -> None:
    assert record_of(Point(1, 2)) == record_of(Pair(1, 2)) == record_of({"a": 1, "b": 2}) == {"a": 1, "b": 2}
    assert [record_of(one) for one in (1, (1, 2), [1], Pair, "a")] == [None] * 5


def test_an_index_with_a_name_is_a_column_and_another_is_not() -> None:
    """What `groupby` gives keeps its keys."""
    frame = pd.DataFrame({"k": ["x", "y", "x"], "j": [1, 1, 1], "n": [1, 2, 3]})
    assert rows(frame.groupby("k")["n"].sum()) == [{"k": "x", "n": 4}, {"k": "y", "n": 2}]
    assert rows(frame.groupby(["k", "j"]).sum()) == [{"k": "x", "j": 1, "n": 4}, {"k": "y", "j": 1, "n": 2}]
    assert as_format(frame.groupby("k").sum(), "arrow").column_names == ["k", "j", "n"]
    assert list(as_format(frame.groupby("k").sum(), "pandas").columns) == ["k", "j", "n"]
    assert rows(frame.set_index("k", drop=False)[["k"]]) == [{"k": "x"}, {"k": "y"}, {"k": "x"}]
    assert rows(frame["n"].rename_axis("i")) == [{"i": 0, "n": 1}, {"i": 1, "n": 2}, {"i": 2, "n": 3}]


@pytest.mark.parametrize("chunk", [pd.DataFrame([[1, 2]], columns=["a", "a"]), pa.table([[1], [2]], names=["a", "a"])])
@pytest.mark.parametrize("form", ["list", "numpy"])
def test_two_columns_of_one_name_lose_none_in_silence(chunk: Any, form: str) -> None:
    with pytest.raises(ValueError, match="two columns are called 'a'"):
        as_format(chunk, form)


# Formats


@pytest.mark.parametrize("chunk", records_in_all_forms(), ids=lambda chunk: type(chunk).__name__)
def test_records_in_each_format(chunk: Any) -> None:
    assert as_format(chunk, "list") == RECORDS

    found = as_format(chunk, "arrow")
    assert isinstance(found, pa.Table)
    assert found.to_pylist() == RECORDS

    found = as_format(chunk, "pandas")
    assert isinstance(found, pd.DataFrame)
    assert found["a"].tolist() == [1, 2, 3]
    assert found["b"].isna().tolist() == [False, True, False]

    found = as_format(chunk, "numpy")
    assert {name: type(found[name]) for name in ("a", "b")} == {"a": np.ndarray, "b": np.ndarray}
    assert found["a"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("chunk", plain_in_all_forms(), ids=lambda chunk: type(chunk).__name__)
def test_plain_values_in_each_format(chunk: Any) -> None:
    assert as_format(chunk, "list") == [1, 2, 3]
    assert as_format(chunk, "arrow").to_pydict() == {"value": [1, 2, 3]}
    assert as_format(chunk, "pandas").to_dict("list") == {"value": [1, 2, 3]}
    found = as_format(chunk, "numpy")
    assert (found.dtype, found.tolist()) == (np.dtype("int64"), [1, 2, 3])


def test_arrays_of_two_axes_have_numbered_columns() -> None:
    square = np.array([[1, 2], [3, 4]])
    assert as_format(square, "pandas").to_dict("list") == {0: [1, 3], 1: [2, 4]}
    assert as_format(square, "arrow").to_pydict() == {"0": [1, 3], "1": [2, 4]}
    cube = square.reshape(2, 1, 2)
    assert as_format(cube, "arrow").to_pydict() == {"value": [[[1, 2]], [[3, 4]]]}
    assert [one.tolist() for one in as_format(cube, "pandas")["value"]] == [[[1, 2]], [[3, 4]]]


@pytest.mark.parametrize(
    "items",
    [
        [1, "a"],
        [("a", 1), ("b", 2)],
        [[1], [2, 3]],
        [b"a\0", b"b"],
        [None, 1],
        [datetime(2024, 1, 2), None],
        [decimal.Decimal("0.1")],
        [2**70, 1],
        [{1}, {2}],
    ],
)
def test_what_numpy_would_change_stays_what_it_is(items: list[Any]) -> None:
    assert rows(as_format(items, "numpy")) == items
    assert as_format(items, "numpy").dtype == object


@pytest.mark.parametrize("form", ["numpy", "pandas", "arrow"])
def test_a_field_that_some_items_lack_is_none(form: str) -> None:
    found = rows(as_format([{"a": 1.0}, {"b": "x", "a": 2.0}], form))
    assert [row["a"] for row in found] == [1.0, 2.0]
    assert found[1]["b"] == "x"
    assert pd.isna(found[0]["b"])


@pytest.mark.parametrize("form", ["numpy", "pandas", "arrow"])
def test_what_does_not_fit_together_is_refused(form: str) -> None:
    with pytest.raises(TypeError, match="items with fields and an item without, int"):
        as_format([{"a": 1}, 5], form)
    with pytest.raises(ValueError, match="items without any field"):
        as_format([{}, {}], form)


def test_no_copies_where_none_are_needed() -> None:
    array, frame, arrow = np.arange(10), pd.DataFrame({"a": np.arange(10)}), pa.table({"a": np.arange(10)})
    assert as_format(array, "numpy") is array
    assert as_format(frame, "pandas") is frame
    assert as_format(arrow, "arrow") is arrow
    assert np.shares_memory(split(array, 2, 5), array)
    assert np.shares_memory(as_format(frame, "numpy")["a"], frame["a"].to_numpy())
    assert np.shares_memory(as_format(arrow, "numpy")["a"], arrow["a"].chunk(0).to_numpy())
    items = [1, 2]
    assert as_format(items, "list") is items


def test_joining_turns_no_number_to_text() -> None:
    assert rows(join([np.array([1]), np.array(["a"])], "numpy")) == [1, "a"]
    assert join([np.array([1]), np.array([2.5])], "numpy").tolist() == [1.0, 2.5]


def test_batches_of_other_columns_are_joined_where_there_is_a_word_for_what_is_missing() -> None:
    one, two = [{"a": 1}], [{"a": 2, "b": "x"}]
    assert rows(join([as_format(one, "arrow"), as_format(two, "arrow")], "arrow")) == [{"a": 1, "b": None}, two[0]]
    assert join([as_format(one, "pandas"), as_format(two, "pandas")], "pandas")["b"].isna().tolist() == [True, False]
    with pytest.raises(ValueError, match="different columns cannot be joined: 'a', and 'a', 'b'"):
        join([as_format(one, "numpy"), as_format(two, "numpy")], "numpy")


# Batches


class Calls:
    """Remembers what it is called with, and returns it."""

    def __init__(self, result: Any = None) -> None:
        self.batches: list[Any] = []
        self._result = result

    def __call__(self, batch: Any) -> Any:
        self.batches.append(rows(batch))
        return batch if self._result is None else self._result(batch)


def flat(chunks: Any) -> list[Any]:
    return [row for chunk in chunks for row in rows(chunk)]


@pytest.mark.parametrize("form", ["list", "numpy", "pandas", "arrow"])
def test_single_items_are_gathered(form: str) -> None:
    calls = Calls()
    batcher = Batcher(calls, 3, form)
    out = [chunk for n in range(7) for chunk in batcher.item({"n": n})]
    assert (len(flat(out)), batcher.pending) == (6, 1)
    out += batcher.finish()
    assert flat(out) == [{"n": n} for n in range(7)]
    assert [len(batch) for batch in calls.batches] == [3, 3, 1]
    assert batcher.finish() == []


def test_without_a_size_single_items_make_batches_all_the_same() -> None:
    calls = Calls()
    batcher = Batcher(calls, None, "list")
    for n in range(2 * SINGLE_ITEMS + 1):
        batcher.item(n)
    batcher.finish()
    assert [len(batch) for batch in calls.batches] == [SINGLE_ITEMS, SINGLE_ITEMS, 1]


@pytest.mark.parametrize("form", ["list", "numpy", "pandas", "arrow"])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_chunks_are_regrouped_to_the_size(size: int, form: str) -> None:
    calls = Calls()
    batcher = Batcher(calls, size, form)
    items = [{"n": n} for n in range(50)]
    out: list[Any] = []
    at = 0
    for count in (3, 0, 1, 20, 7, 2, 17):
        out += batcher.chunk(
            as_format(items[at : at + count], "arrow") if count else pa.table({"n": pa.array([], "i8")})
        )
        at += count
    assert batcher.pending == 50 % size
    out += batcher.finish()
    assert flat(out) == items
    assert [len(batch) for batch in calls.batches] == [size] * (50 // size) + [50 % size] * bool(50 % size)


def test_without_a_size_chunks_are_passed_on_as_they_are() -> None:
    seen: list[Any] = []
    batcher = Batcher(lambda batch: seen.append(batch), None, "numpy")
    chunks = [np.arange(3), np.arange(5)]
    for chunk in chunks:
        batcher.chunk(chunk)
    assert [one is chunk for one, chunk in zip(seen, chunks, strict=True)] == [True, True]


@pytest.mark.parametrize("size", [None, 4])
def test_items_and_chunks_keep_their_order(size: int | None) -> None:
    batcher = Batcher(Calls(), size, "list")
    out = [
        *batcher.item(0),
        *batcher.chunk([1, 2]),
        *batcher.item(3),
        *batcher.item(4),
        *batcher.chunk(np.arange(5, 9)),
    ]
    assert flat([*out, *batcher.finish()]) == list(range(9))


def test_the_function_is_never_called_with_nothing() -> None:
    calls = Calls()
    for size in (None, 2):
        batcher = Batcher(calls, size, "numpy")
        assert [*batcher.chunk(np.array([])), *batcher.finish()] == []
    assert calls.batches == []


@pytest.mark.parametrize(
    ("result", "out"),
    [
        (None, []),
        ([], []),
        ([1, 2], [1, 2]),
        (np.array([1, 2]), [1, 2]),
        (pd.DataFrame({"a": [1]}), [{"a": 1}]),
        (pd.DataFrame({"a": []}), []),
        (pd.Series([1, 2]), [1, 2]),
        (table(), RECORDS),
        (7, [7]),
        ("ab", ["ab"]),
        ({"a": [1, 2]}, [{"a": [1, 2]}]),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        ({"a": 1}.keys(), ["a"]),
        (map(str, [1, 2]), ["1", "2"]),
        ((x for x in ()), []),
        (b"ab", [b"ab"]),
        (Point(1, 2), [Point(1, 2)]),
        (np.float64(1.5), [1.5]),
        (False, [False]),
        ({}, [{}]),
    ],
    ids=repr,
)
def test_what_a_result_stands_for(result: Any, out: list[Any]) -> None:
    chunks = Batcher(lambda _: result, None, "list").chunk([0])
    assert flat(chunks) == out
    if is_chunk(result) and out:
        assert chunks[0] is result


def test_columns_in_columns_out() -> None:
    def scaled(batch: dict[str, Any]) -> dict[str, Any]:
        return {"a": batch["a"] * 2, "new": batch["a"] > 1}

    (out,) = Batcher(scaled, None, "numpy").chunk(table())
    assert rows(out) == [{"a": 2, "new": False}, {"a": 4, "new": True}, {"a": 6, "new": True}]

    def added(batch: dict[str, Any]) -> dict[str, Any]:
        batch["c"] = batch["a"] + 1
        return batch

    assert columns(Batcher(added, None, "numpy").chunk(table())[0])["c"] == [2, 3, 4]


def test_other_dicts_are_one_item() -> None:
    summary = {"n": 3, "values": np.arange(3)}
    assert Batcher(lambda _: summary, None, "numpy").chunk(table()) == [[summary]]
    arrays = {"mean": np.ones(2), "std": np.ones(2)}
    assert Batcher(lambda _: arrays, None, "numpy").chunk(np.ones((4, 2))) == [[arrays]]


def test_columns_of_other_lengths_or_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="one length, but 'a' has 1, 'b' has 2 rows"):
        Batcher(lambda _: {"a": np.ones(1), "b": np.ones(2)}, None, "numpy").chunk(table())

    def flagged(batch: dict[str, Any]) -> dict[str, Any]:
        batch["flag"] = 1
        return batch

    with pytest.raises(TypeError, match="column 'flag' is no array, but int"):
        Batcher(flagged, None, "numpy").chunk(table())


# Errors


def fails_on(value: int, exc: type[BaseException] = ZeroDivisionError) -> Any:
    def call(batch: list[int]) -> list[int]:
        if value in batch:
            raise exc(value)
        return batch

    return call


@pytest.mark.parametrize("exc", [ZeroDivisionError, StopIteration, KeyboardInterrupt])
def test_an_exception_comes_out_and_the_batch_is_known(exc: type[BaseException]) -> None:
    batcher = Batcher(fails_on(3, exc), 2, "list")
    assert batcher.chunk([0, 1]) == [[0, 1]]
    with pytest.raises(exc):
        batcher.chunk([2, 3])
    assert batcher.batch == [2, 3]


def test_with_an_error_policy_only_the_batch_that_failed_is_lost() -> None:
    failed: list[Any] = []
    batcher = Batcher(fails_on(3), 2, "list", failed=lambda exc, batch: failed.append((type(exc), batch)))
    out = [*batcher.chunk([0, 1, 2, 3, 4, 5, 6]), *batcher.item(7), *batcher.item(8), *batcher.finish()]
    assert flat(out) == [0, 1, 4, 5, 6, 7, 8]
    assert failed == [(ZeroDivisionError, [2, 3])]


def test_items_that_do_not_fit_the_format_are_the_policys_too() -> None:
    failed: list[Any] = []
    batcher = Batcher(Calls(), 2, "arrow", failed=lambda _, batch: failed.append(batch))
    out = [chunk for item in (1, "a", 2, 3) for chunk in batcher.item(item)]
    assert (flat(out), failed) == ([{"value": 2}, {"value": 3}], [[1, "a"]])

    failed.clear()
    batcher = Batcher(Calls(), 2, "numpy", failed=lambda _, batch: failed.append(batch))
    assert [*batcher.chunk([{"a": 1}]), *batcher.chunk([{"b": 1}]), *batcher.finish()] == []
    assert failed == [[{"a": 1}, {"b": 1}]]


# In a job


def test_map_batches_over_items() -> None:
    calls = Calls(lambda batch: [n * 2 for n in batch])
    assert ran(lambda env: env.from_batch(range(10)).map_batches(calls, size=4)) == [n * 2 for n in range(10)]
    assert [len(batch) for batch in calls.batches] == [4, 4, 2]


def test_a_generator_gives_items() -> None:
    def both(batch: list[int]) -> Iterator[int]:
        for n in batch:
            yield n
            yield -n

    assert ran(lambda env: env.from_batch([1, 2, 3]).map_batches(both, size=2)) == [1, -1, 2, -2, 3, -3]


def test_a_generator_that_fails_loses_its_batch() -> None:
    job = submitted(
        lambda env: env.from_batch([1, 0, 2]).map_batches(
            lambda batch: (1 / n for n in batch), size=1, name="divides", on_error="dead_letter"
        )
    )
    assert list(job.results["out"]) == [1.0, 0.5]
    assert [letter.item for letter in job.dead_letters["divides"]] == [0]


def test_the_issues_arithmetic_over_an_array() -> None:
    array = np.arange(200_000)
    stream = lambda env: (  # noqa: E731
        env.from_batch(array, name="array")
        .map_batches(lambda a: a + 1, format="numpy", name="plus")
        .map_batches(lambda a: a[a % 2 == 0], format="numpy")
        .map_batches(lambda a: a * 3, format="numpy")
        .map_batches(lambda a: int(a.sum()), format="numpy")
    )
    job = submitted(stream)
    expected = array + 1
    assert sum(job.results["out"]) == (expected[expected % 2 == 0] * 3).sum()
    assert counts(job)["array"] == (0, 200_000)
    assert counts(job)["plus"] == (200_000, 200_000)


def test_batches_of_a_parquet_file_are_the_files_own(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    env = sage_nb.LocalEnvironment("write")
    env.from_batch([{"n": n} for n in range(1000)]).to_parquet(path)
    env.submit(autostop=True)
    seen: list[Any] = []

    def total(batch: Any) -> int:
        seen.append(type(batch))
        return batch["n"].to_numpy().sum().item()  # type: ignore[no-any-return]

    assert sum(ran(lambda env: env.from_parquet(path).map_batches(total, format="arrow"))) == sum(range(1000))
    assert set(seen) == {pa.Table}


THREADS = """
import os, sys, time
import pandas, pyarrow.parquet
import sage_nb

def threads():
    return len(os.listdir("/proc/self/task"))

def run(build):
    env = sage_nb.LocalEnvironment("threads")
    build(env)
    env.submit(autostop=True)

before = threads()
path = sys.argv[1]
run(lambda env: env.from_batch([{"n": n, "s": str(n)} for n in range(50_000)]).to_parquet(path, rows_per_group=10_000))
for form in ("arrow", "pandas", "numpy", "list"):
    run(lambda env: env.from_parquet(path).map_batches(lambda batch: batch, format=form).collect("out"))
    run(lambda env: env.from_dataframe(pandas.DataFrame({'a': range(9)})).map_batches(len, format=form).collect("out"))
limit = time.monotonic() + 5
while threads() > before and time.monotonic() < limit:  # a thread that was joined takes a moment more to go
    pass
print(before, threads())
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
def test_pyarrow_and_pandas_leave_no_threads_behind(tmp_path: Path) -> None:
    """Nothing is left running: their pools of threads would outlive the job."""
    command = [sys.executable, "-c", THREADS, str(tmp_path / "out.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.split()
    assert int(after) <= int(before)
