"""Sources: what they emit, and when they end."""

from __future__ import annotations

import gzip
import itertools
import os
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sage_nb import BatchFunction, DataStream, LocalEnvironment, PipelineError, SourceFunction, StopSignal, SubmitError
from sage_nb.pipeline.sources import ChunkSource, ParquetSource, Reader
from tests.support import LIMIT, endless, ran, submitted


class Once:
    """Iterable, but no iterator, and without a length."""

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])


@pytest.mark.parametrize("method", ["from_batch", "from_collection", "from_source"])
@pytest.mark.parametrize(
    "iterable",
    [[1, 2], (1, 2), range(1, 3), {1: "a", 2: "b"}, "12", Once(), Once],
    ids=lambda value: type(value).__name__,
)
def test_an_iterable_ends_at_its_own_end(method: str, iterable: Any) -> None:
    got = ran(lambda env: getattr(env, method)(iterable))
    assert [int(item) for item in got] == [1, 2]


@pytest.mark.parametrize("method", ["from_batch", "from_collection", "from_source"])
def test_none_in_an_iterable_or_from_a_generator_is_an_item(method: str) -> None:
    def numbers() -> Iterator[int | None]:
        yield from [1, None, 3]

    assert ran(lambda env: getattr(env, method)([1, None, 3])) == [1, None, 3]
    assert ran(lambda env: getattr(env, method)(numbers)) == [1, None, 3]
    assert ran(lambda env: getattr(env, method)(numbers())) == [1, None, 3]


def test_an_empty_source_completes() -> None:
    assert ran(lambda env: env.from_batch([])) == []


class CountsTo(BatchFunction):
    def __init__(self, limit: int, end: Any = None) -> None:
        self.left = limit
        self.end = end

    def execute(self) -> Any:
        self.left -= 1
        return self.end if self.left < 0 else self.left


@pytest.mark.parametrize("method", ["from_batch", "from_collection", "from_source"])
@pytest.mark.parametrize("end", [None, StopSignal("done")])
def test_a_batch_function_ends_with_none_or_a_stop_signal_everywhere(method: str, end: Any) -> None:
    assert ran(lambda env: getattr(env, method)(CountsTo, 3, end=end)) == [2, 1, 0]


class Answers(SourceFunction):
    """Gives the answers one by one, and then a `StopSignal`."""

    def __init__(self, *answers: Any) -> None:
        self.answers = iter(answers)

    def execute(self) -> Any:
        return next(self.answers, StopSignal())


def test_none_from_an_unbounded_source_means_nothing_now() -> None:
    assert ran(lambda env: env.from_source(Answers, 1, None, None, 2, None)) == [1, 2]


def test_none_from_a_source_function_ends_a_batch() -> None:
    assert ran(lambda env: env.from_batch(Answers, 1, None, 2)) == [1]


class Duck:
    def __init__(self) -> None:
        self.n = 0

    def execute(self) -> int | None:
        self.n += 1
        return self.n if self.n < 3 else None


def test_any_class_with_execute_is_a_source() -> None:
    assert ran(lambda env: env.from_batch(Duck)) == [1, 2]


class Yields(SourceFunction):
    def __init__(self, limit: int) -> None:
        self.limit = limit

    def execute(self) -> Iterator[int]:
        yield from range(self.limit)


def test_execute_may_be_a_generator() -> None:
    assert ran(lambda env: env.from_source(Yields, 3)) == [0, 1, 2]


def test_a_callable_is_asked_again_and_again_with_its_arguments() -> None:
    answers = iter(range(3))

    def ask(factor: int, *, offset: int) -> int | None:
        n = next(answers, None)
        return None if n is None else n * factor + offset

    assert ran(lambda env: env.from_batch(ask, 10, offset=1)) == [1, 11, 21]


def test_a_callable_under_from_source_may_have_nothing_now() -> None:
    answers = iter([None, 1, None, 2])
    assert ran(lambda env: env.from_source(lambda: next(answers, StopSignal()))) == [1, 2]


def test_a_generator_function_gets_its_arguments_and_can_be_submitted_again() -> None:
    def numbers(first: int, *, last: int) -> Iterator[int]:
        yield from range(first, last)

    env = LocalEnvironment("again")
    env.from_batch(numbers, 1, last=3).collect("out")
    for _ in range(2):
        assert list(env.submit(autostop=True).results["out"]) == [1, 2]


def test_a_false_item_does_not_end_a_source() -> None:
    answers: Iterator[Any] = iter([0, "", [], False, None])
    assert ran(lambda env: env.from_batch(lambda: next(answers))) == [0, "", [], False]


def test_a_generator_is_closed_when_a_take_ends_the_job() -> None:
    ended: list[str] = []

    def numbers() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            ended.append("closed")

    assert ran(lambda env: env.from_source(numbers).take(2)) == [0, 1]
    assert ended == ["closed"]


@pytest.mark.parametrize("source", [endless, itertools.count().__next__])
def test_delay_is_the_time_between_items(source: Callable[[], Any]) -> None:
    times: list[float] = []
    env = LocalEnvironment("slow")
    env.from_source(source, delay=0.05).take(3).sink(lambda _: times.append(time.monotonic()))
    env.submit(autostop=True)
    assert all(later - earlier >= 0.045 for earlier, later in itertools.pairwise(times))


def test_a_long_delay_does_not_hold_up_a_stop() -> None:
    job = submitted(lambda env: env.from_source(endless, delay=3600), autostop=False)
    began = time.monotonic()
    job.stop()
    assert time.monotonic() - began < 3


# Text


def text_file(folder: Path, content: bytes, name: str = "lines.txt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a\nb\n", ["a", "b"]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"", []),
        (b"\n", [""]),
        (b"a\n\n\nb\n", ["a", "", "", "b"]),
        (b"\xef\xbb\xbfa\n", ["a"]),
        ("é\u2028\x0c\x85x\n".encode(), ["é\u2028\x0c\x85x"]),
    ],
)
def test_text_gives_the_lines_without_their_ends(tmp_path: Path, content: bytes, lines: list[str]) -> None:
    path = text_file(tmp_path, content)
    assert ran(lambda env: env.from_text(path)) == lines


def test_text_longer_than_any_block_arrives_whole(tmp_path: Path) -> None:
    """Nothing is lost or doubled where a block ends within a line, or between CR and LF."""
    lines = [f"{n} {'é' * (n % 97)}" for n in range(30_000)] + ["x" * 1_000_000]
    for end in ("\n", "\r\n"):
        path = text_file(tmp_path, end.join(lines).encode())
        assert ran(partial(LocalEnvironment.from_text, path=path)) == lines


def test_text_may_be_compressed(tmp_path: Path) -> None:
    content = "é\nb\n".encode()
    packed = text_file(tmp_path, gzip.compress(content), "lines.txt.gz")
    archive = tmp_path / "lines.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.mkdir("folder")
        zipped.writestr("folder/lines.txt", content)
    assert ran(lambda env: env.from_text(str(packed))) == ["é", "b"]
    assert ran(lambda env: env.from_text(archive)) == ["é", "b"]


@pytest.mark.parametrize("members", [[], ["a.txt", "b.txt"]])
def test_a_zip_of_other_than_one_file_fails_the_job_and_is_closed(tmp_path: Path, members: list[str]) -> None:
    archive = tmp_path / "lines.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for member in members:
            zipped.writestr(member, "x")
    with pytest.raises(PipelineError, match=f"holds {len(members)} files"):
        ran(lambda env: env.from_text(archive))


def test_text_of_another_encoding(tmp_path: Path) -> None:
    path = text_file(tmp_path, "é\n".encode("latin-1"))
    assert ran(lambda env: env.from_text(path, encoding="latin-1")) == ["é"]
    with pytest.raises(UnicodeDecodeError):
        ran(lambda env: env.from_text(path))


def test_a_file_that_is_not_there_fails_the_job_with_its_own_error(tmp_path: Path) -> None:
    env = LocalEnvironment("missing")
    env.from_text(tmp_path / "none.txt", name="reader").collect("out")
    with pytest.raises(FileNotFoundError) as caught:
        env.submit(autostop=True)
    assert "operator 'reader'" in "\n".join(caught.value.__notes__)


def test_text_is_read_again_by_each_submit(tmp_path: Path) -> None:
    path = text_file(tmp_path, b"a\n")
    env = LocalEnvironment("again")
    env.from_text(path).collect("out")
    assert list(env.submit(autostop=True).results["out"]) == ["a"]
    path.write_bytes(b"b\n")
    assert list(env.submit(autostop=True).results["out"]) == ["b"]


def pipe(folder: Path) -> Path:
    path = folder / "pipe"
    os.mkfifo(path)
    return path


@pytest.mark.parametrize("read", ["from_text", "from_csv"])
def test_a_line_of_a_pipe_arrives_at_once(tmp_path: Path, read: str) -> None:
    """Latency does not wait for throughput: a line is visible before the next one is written."""
    path = pipe(tmp_path)
    came = threading.Semaphore(0)
    env = LocalEnvironment("pipe")
    stream: DataStream = getattr(env, read)(path)
    stream.collect("out").sink(lambda _: came.release())
    job = env.submit()
    with path.open("w") as writer:
        if read == "from_csv":
            writer.write("name\n")
        for n in range(3):
            writer.write(f"line {n}\n")
            writer.flush()
            assert came.acquire(timeout=LIMIT)
            assert len(job.results["out"]) == n + 1
            assert job.snapshot().fraction is None
    job.wait()
    first = job.results["out"][0]
    assert first == ("line 0" if read == "from_text" else {"name": "line 0"})


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the late file is dropped at the moment it is there
def test_a_pipe_that_nobody_writes_to_does_not_hold_up_a_stop(tmp_path: Path) -> None:
    path = pipe(tmp_path)
    job = submitted(lambda env: env.from_text(path, name="pipe"), autostop=False)
    began = time.monotonic()
    job.stop()
    assert time.monotonic() - began < 3
    assert "opening source 'pipe'" in job.notes[0]
    path.open("w").close()  # lets the thread that was left go


# CSV


@pytest.mark.parametrize(
    ("content", "rows"),
    [
        ("a,b\n1,2\n3,4\n", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]),
        ("a,b\r\n1,2\r\n", [{"a": "1", "b": "2"}]),
        ("\ufeffa,b\n1,2", [{"a": "1", "b": "2"}]),
        ("", []),
        ("a,b\n", []),
        ('a,b\n"x\ny","say ""hi"", you"\n', [{"a": "x\ny", "b": 'say "hi", you'}]),
        ("a,b\n\n1,2\n\n", [{"a": "1", "b": "2"}]),
        ("a\n\n1\n", [{"a": "1"}]),
        ("a,b\n,\n", [{"a": "", "b": ""}]),
    ],
)
def test_csv_gives_a_dict_for_each_row(tmp_path: Path, content: str, rows: list[dict[str, str]]) -> None:
    path = text_file(tmp_path, content.encode())
    assert ran(lambda env: env.from_csv(path)) == rows


def test_csv_of_another_form(tmp_path: Path) -> None:
    path = text_file(tmp_path, "a;b\n'x;y';é\n".encode("latin-1"))
    got = ran(lambda env: env.from_csv(path, delimiter=";", quotechar="'", encoding="latin-1"))
    assert got == [{"a": "x;y", "b": "é"}]


@pytest.mark.parametrize(("row", "fields"), [("1", 1), ("1,2,3", 3)])
def test_a_ragged_row_fails_with_its_line_number(tmp_path: Path, row: str, fields: int) -> None:
    path = text_file(tmp_path, f'a,b\n"x\ny",2\n{row}\n'.encode())
    with pytest.raises(ValueError, match=f"line 4: {fields} fields, but the header has 2"):
        ran(lambda env: env.from_csv(path))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = text_file(tmp_path, b"a,b,a\n1,2,3\n")
    with pytest.raises(PipelineError, match="two columns are called 'a'"):
        ran(lambda env: env.from_csv(path))


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_csv_columns_are_read_by_what_is_said(tmp_path: Path, backend: str) -> None:
    path = text_file(tmp_path, b"what,qty,price,paid,day\ntea, 3,1.5,yes,2024-02-29\n")
    types = {"qty": int, "price": float, "paid": lambda text: text == "yes", "day": date.fromisoformat}
    env = LocalEnvironment("typed", backend=backend)
    env.from_csv(path, types=types).map(lambda row: row).collect("out")
    got = env.submit(autostop=True).results["out"]
    assert list(got) == [{"what": "tea", "qty": 3, "price": 1.5, "paid": True, "day": date(2024, 2, 29)}]
    assert list(got[0]) == ["what", "qty", "price", "paid", "day"]


@pytest.mark.parametrize("text", ["3x", ""])
def test_a_text_that_cannot_be_read_is_told_with_its_place(tmp_path: Path, text: str) -> None:
    path = text_file(tmp_path, f'what,qty\n"a\nb",1\nx,{text}\n'.encode())
    said = rf"{re.escape(str(path))}, line 4, column 'qty': '{text}' cannot be read by int: ValueError: invalid literal"
    with pytest.raises(ValueError, match=said) as caught:
        ran(lambda env: env.from_csv(path, types={"qty": int}))
    assert type(caught.value) is ValueError


def test_types_of_columns_that_are_not_there_are_told(tmp_path: Path) -> None:
    path = text_file(tmp_path, b"what,qty\n")
    with pytest.raises(PipelineError, match=r"types names a column 'qyt'; did you mean 'qty'\?"):
        ran(lambda env: env.from_csv(path, types={"qyt": int}))


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ("infer", "types is a dict, by columns, such as {'qty': int}, not 'infer'"),
        ({1: int}, "types is a dict, by columns"),
        ({"qty": "int"}, r"types\['qty'\] is a function of a text, such as int, not 'int'"),
        ({"qty": lambda: 1}, r"types\['qty'\] is called with one argument, but takes \(\)"),
        ({"paid": bool}, r"bool\(\) of any text but the empty one is True, of 'false' as well"),
    ],
)
def test_types_that_are_none_are_refused_where_they_are_declared(tmp_path: Path, types: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        LocalEnvironment("bad").from_csv(tmp_path / "rows.csv", types=types)


def test_csv_may_be_compressed(tmp_path: Path) -> None:
    path = text_file(tmp_path, gzip.compress(b"a\n1\n"), "rows.csv.gz")
    assert ran(lambda env: env.from_csv(path)) == [{"a": "1"}]


# DataFrames


def test_a_dataframe_gives_python_values() -> None:
    pd = pytest.importorskip("pandas")
    when = pd.Timestamp("2024-01-02")
    frame = pd.DataFrame(
        {"n": [1, 2], "x": [0.5, float("nan")], "s": ["a", None], "t": [when, pd.NaT], 5: [True, False]}
    )
    first, second = ran(lambda env: env.from_dataframe(frame))
    assert first == {"n": 1, "x": 0.5, "s": "a", "t": when, 5: True}
    assert [type(value) for value in first.values()] == [int, float, str, pd.Timestamp, bool]
    assert (second["n"], second[5]) == (2, False)
    assert all(pd.isna(second[key]) for key in ("x", "s", "t"))


def test_a_dataframe_longer_than_a_block_arrives_whole() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"n": range(10_001)}, index=range(10_001, 0, -1))
    assert [row["n"] for row in ran(lambda env: env.from_dataframe(frame))] == list(range(10_001))


@pytest.mark.parametrize(("frame", "expected"), [({"a": []}, []), ({}, [])])
def test_an_empty_dataframe_gives_nothing(frame: dict[str, Any], expected: list[Any]) -> None:
    pd = pytest.importorskip("pandas")
    assert ran(lambda env: env.from_dataframe(pd.DataFrame(frame))) == expected


def test_a_dataframe_without_columns_gives_empty_rows() -> None:
    pd = pytest.importorskip("pandas")
    assert ran(lambda env: env.from_dataframe(pd.DataFrame(index=range(3)))) == [{}, {}, {}]


def test_a_dataframe_with_two_columns_of_one_name_is_refused() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(PipelineError, match="two columns are called 'a'"):
        LocalEnvironment("twice").from_dataframe(frame)


def test_an_index_with_a_name_is_a_column() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"n": [1, 2]}, index=pd.Index(["a", "b"], name="k"))
    assert ran(lambda env: env.from_dataframe(frame)) == [{"k": "a", "n": 1}, {"k": "b", "n": 2}]


# Arrays and tables


@pytest.mark.parametrize("method", ["from_batch", "from_collection", "from_source"])
def test_an_array_gives_python_values(method: str) -> None:
    np = pytest.importorskip("numpy")
    got = ran(lambda env: getattr(env, method)(np.arange(10_001)))
    assert got == list(range(10_001))
    assert {type(item) for item in got} == {int}


def test_an_array_of_two_axes_gives_its_rows() -> None:
    np = pytest.importorskip("numpy")
    assert [item.tolist() for item in ran(lambda env: env.from_batch(np.eye(2)))] == [[1.0, 0.0], [0.0, 1.0]]


def test_a_series_gives_its_values_and_a_table_its_rows() -> None:
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    assert ran(lambda env: env.from_batch(pd.Series([1, 2]))) == [1, 2]
    table = pa.table({"a": [1, 2], "b": ["x", None]})
    assert ran(lambda env: env.from_batch(table)) == [{"a": 1, "b": "x"}, {"a": 2, "b": None}]
    assert ran(lambda env: env.from_batch(table["a"])) == [1, 2]


def test_a_dataframe_is_still_refused_where_its_column_names_would_be_the_items() -> None:
    pd = pytest.importorskip("pandas")
    with pytest.raises(PipelineError, match="use from_dataframe"):
        LocalEnvironment("frame").from_batch(pd.DataFrame({"a": [1]}))


def opened(source: Any) -> Reader:
    return source.open(lambda *_: None)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("size", "lengths"), [(4, [4, 4, 2]), (None, [10]), (100, [10])])
def test_chunks_of_an_array_are_views_that_cannot_be_written_through(size: int | None, lengths: list[int]) -> None:
    """What an operator does to its batch is not done to the user's array, which may be submitted again."""
    np = pytest.importorskip("numpy")
    array = np.arange(10)
    reader = opened(ChunkSource(array))
    assert reader.total == 10
    assert reader.chunks is not None
    chunks = list(reader.chunks(size))
    assert [len(chunk) for chunk in chunks] == lengths
    assert all(np.shares_memory(chunk, array) for chunk in chunks)
    with pytest.raises(ValueError, match="read-only"):
        chunks[0] += 1
    array += 1


def test_what_is_done_to_the_chunks_of_a_frame_is_not_done_to_the_frame() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [1, 2, 3]})
    reader = opened(ChunkSource(frame))
    assert reader.chunks is not None
    first, second = reader.chunks(2)
    first.loc[:, "a"] = 0
    assert second["a"].tolist() == [3]
    assert frame["a"].tolist() == [1, 2, 3]


# Parquet


def parquet_file(folder: Path, rows: list[dict[str, Any]], group: int = 1000) -> Path:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.Table.from_pylist(rows), folder / "in.parquet", row_group_size=group)
    return folder / "in.parquet"


def test_parquet_gives_a_dict_for_each_row(tmp_path: Path) -> None:
    rows = [{"n": n, "s": None if n % 3 else f"é{n}", "t": datetime(2024, 1, 2)} for n in range(10_000)]
    path = parquet_file(tmp_path, rows)
    job = submitted(lambda env: env.from_parquet(path))
    assert list(job.results["out"]) == rows
    assert job.snapshot().operators[0].name == "in.parquet"
    assert ran(lambda env: env.from_parquet(str(path), columns=["t", "n"]))[0] == {"t": datetime(2024, 1, 2), "n": 0}


def test_the_rows_of_a_parquet_file_are_counted_before_they_are_read(tmp_path: Path) -> None:
    reader = opened(ParquetSource(str(parquet_file(tmp_path, [{"n": n} for n in range(10)], group=3))))
    assert reader.total == 10
    assert reader.chunks is not None
    assert reader.close is not None
    chunks = list(reader.chunks(4))
    assert [type(chunk).__name__ for chunk in chunks] == ["RecordBatch"] * len(chunks)
    assert [n for chunk in chunks for n in chunk["n"].to_pylist()] == list(range(10))
    reader.close()


def test_what_is_no_parquet_file_is_told_when_the_job_opens_it(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(FileNotFoundError, match=r"none\.parquet"):
        ran(lambda env: env.from_parquet(tmp_path / "none.parquet"))
    with pytest.raises(IsADirectoryError):
        ran(lambda env: env.from_parquet(tmp_path))
    (tmp_path / "text").write_text("a,b\n1,2\n")
    with pytest.raises(PipelineError, match="text is no Parquet file, or a damaged one"):
        ran(lambda env: env.from_parquet(tmp_path / "text"))


def test_columns_that_are_not_there_are_told_with_those_that_are(tmp_path: Path) -> None:
    path = parquet_file(tmp_path, [{"a": 1, "b": 2}])
    with pytest.raises(PipelineError, match="has no column 'c'; there are: a, b"):
        ran(lambda env: env.from_parquet(path, columns=["a", "c"]))
    for columns in ("a", [], ["a", "a"], [1], 5):
        with pytest.raises(PipelineError, match="from_parquet: columns is a list"):
            LocalEnvironment("columns").from_parquet(path, columns=columns)  # type: ignore[arg-type]


def test_two_columns_of_one_name_in_a_parquet_file_are_refused(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table([[1], [2]], names=["a", "a"]), tmp_path / "twice")
    with pytest.raises(PipelineError, match="two columns are called 'a'"):
        ran(lambda env: env.from_parquet(tmp_path / "twice"))


# Used up


def test_an_iterator_cannot_be_submitted_twice() -> None:
    env = LocalEnvironment("used up")
    env.from_batch(iter([1, 2]), name="numbers").collect("out")
    job = env.submit(autostop=True)
    with pytest.raises(SubmitError, match=f"'numbers' is an iterator that job {job.uuid[:8]} has used up"):
        env.submit(autostop=True)
    assert list(job.results["out"]) == [1, 2]
    assert env.env_uuid == job.uuid


def test_a_generator_that_is_used_up_is_refused_in_another_environment_too() -> None:
    """No silent failure: a cell that is run again with the same generator must not run on nothing."""
    numbers = (n for n in range(2))
    assert ran(lambda env: env.from_batch(numbers)) == [0, 1]
    with pytest.raises(SubmitError, match="used up"):
        ran(lambda env: env.from_batch(numbers))


def test_two_sources_cannot_share_one_iterator() -> None:
    numbers = iter([1, 2])
    env = LocalEnvironment("shared")
    env.from_batch(numbers, name="first").collect("a")
    env.from_batch(numbers, name="second").collect("b")
    with pytest.raises(SubmitError, match="'first' and 'second' share one iterator"):
        env.submit()


def test_a_submit_that_was_refused_leaves_the_iterator_unused() -> None:
    env = LocalEnvironment("refused")
    stream = env.from_batch(iter([1, 2]))
    with pytest.raises(UserWarning, match="nothing takes the items of 'source'"):
        env.submit()  # warnings are errors in these tests
    assert env.env_uuid is None
    stream.collect("out")
    assert list(env.submit(autostop=True).results["out"]) == [1, 2]


def test_a_pipeline_without_a_sink_runs_with_a_warning() -> None:
    env = LocalEnvironment("no sink")
    env.from_batch([1, 2], name="numbers").map(int)
    with pytest.warns(UserWarning, match="nothing takes the items of 'numbers'") as caught:
        job = env.submit(autostop=True)
    assert caught[0].filename == __file__
    assert [op.items_out for op in job.progress.operators] == [2, 2]
    assert any("numbers" in note for note in job.notes)


class NotIterable:
    def __iter__(self) -> Iterator[int]:
        return 5  # type: ignore[return-value]


def test_a_source_whose_iter_gives_no_iterator_fails_the_job() -> None:
    with pytest.raises(TypeError, match="iter"):
        ran(lambda env: env.from_batch(NotIterable()))
