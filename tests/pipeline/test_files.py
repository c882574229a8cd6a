"""File sinks: what is written, and when a file appears."""

from __future__ import annotations

import csv
import dataclasses
import enum
import gzip
import importlib
import io
import json
import logging
import os
import stat
import sys
from collections import namedtuple
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest

import sage_nb
from sage_nb.errors import PipelineError, SignatureError
from sage_nb.pipeline.context import Context
from sage_nb.pipeline.environment import BaseEnvironment
from sage_nb.pipeline.files import CsvSink, JsonlSink, ParquetSink
from sage_nb.pipeline.windows import WindowResult
from tests.support import LIMIT, Gate, endless, until

Point = namedtuple("Point", "x y")


@dataclasses.dataclass
class Pair:
    x: int
    y: Any


class Struct(msgspec.Struct):
    x: int
    y: Any


def begun(sink: Any, stopping: Callable[[], bool] = lambda: False) -> Any:
    """A sink as an operator has it before the first item."""
    sink.ctx = Context("file", None, stopping, logging.getLogger)  # type: ignore[arg-type]
    sink.open()
    return sink


def written(sink: Any, items: list[Any]) -> bytes:
    """What a job with these items leaves in the file."""
    begun(sink)
    for item in items:
        sink.execute(item)
    sink.close()
    return Path(sink._target).read_bytes()


def csv_of(path: Path, *items: Any, **settings: Any) -> str:
    return written(CsvSink(str(path / "out.csv"), **settings), list(items)).decode(settings.get("encoding", "utf-8"))


def jsonl_of(path: Path, *items: Any) -> str:
    return written(JsonlSink(str(path / "out.jsonl")), list(items)).decode()


def parquet_of(path: Path, *items: Any, **settings: Any) -> Any:
    parquet = pytest.importorskip("pyarrow.parquet")
    return parquet.read_table(io.BytesIO(written(ParquetSink(str(path / "out.parquet"), **settings), list(items))))


SINKS = [CsvSink, JsonlSink, ParquetSink]


@pytest.fixture(params=SINKS, ids=lambda cls: cls.__name__)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A sink of each kind and the path it writes to."""
    if request.param is ParquetSink:
        pytest.importorskip("pyarrow")
    path = tmp_path / "out"
    return request.param(str(path)), path


# When a file appears


def test_a_file_appears_when_the_job_is_done(target: Any) -> None:
    sink, path = target
    path.write_text("before")
    begun(sink)
    sink.execute({"a": 1})
    assert path.read_text() == "before"
    hidden = [one.name for one in path.parent.iterdir() if one != path]
    assert len(hidden) == 1
    assert hidden[0].startswith(".out.")
    sink.close()
    assert path.read_bytes() != b"before"
    assert list(path.parent.iterdir()) == [path]


def test_a_job_that_stops_or_fails_leaves_what_was_there(target: Any) -> None:
    sink, path = target
    path.write_text("before")
    ending = False
    begun(sink, lambda: ending)
    sink.execute({"a": 1})
    ending = True
    sink.close()
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


def test_a_stopped_job_leaves_no_file_where_there_was_none(target: Any) -> None:
    sink, path = target
    begun(sink, lambda: True)
    sink.close()
    assert list(path.parent.iterdir()) == []


def test_a_sink_that_was_never_opened_closes(target: Any) -> None:
    sink, path = target
    sink.close()
    assert list(path.parent.iterdir()) == []


def test_a_sink_that_cannot_begin_leaves_nothing(tmp_path: Path) -> None:
    sink = CsvSink(str(tmp_path / "out.csv"), encoding="no-such")
    with pytest.raises(LookupError):
        begun(sink)
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_went_away_is_told_when_the_job_begins(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        begun(CsvSink(str(tmp_path / "gone" / "out.csv")))


@pytest.mark.parametrize("cls", [CsvSink, JsonlSink])
def test_a_file_that_could_not_be_written_whole_never_appears(cls: Any, tmp_path: Path) -> None:
    """Nothing is lost in silence: not even where an error policy goes on after an item that failed."""
    sink = begun(cls(str(tmp_path / "out")))
    sink._layers[0].close()
    with pytest.raises(ValueError, match="closed file"):  # what a write then says
        sink.execute({"a": 0, "text": "x" * 1_000_000})
    with pytest.raises(ValueError, match="closed file"):
        sink.execute({"a": 1, "text": ""})
    with pytest.raises(ValueError, match="closed file"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


def test_the_new_file_has_the_old_ones_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.touch()
    path.chmod(0o600)
    csv_of(tmp_path, 1)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_new_file_has_the_usual_permissions(tmp_path: Path) -> None:
    csv_of(tmp_path, 1)
    (tmp_path / "usual").touch()
    assert (tmp_path / "out.csv").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real.csv"
    real.write_text("before")
    (tmp_path / "out.csv").symlink_to(real)
    csv_of(tmp_path, 1)
    assert (tmp_path / "out.csv").is_symlink()
    assert real.read_text() == "value\n1\n"


def test_a_long_name_is_no_hindrance(tmp_path: Path) -> None:
    name = "é" * 120 + ".csv"
    written(CsvSink(str(tmp_path / name)), [1])
    assert [one.name for one in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("cls", "content"), [(CsvSink, b""), (JsonlSink, b"")])
def test_no_items_make_an_empty_file(cls: Any, content: bytes, tmp_path: Path) -> None:
    assert written(cls(str(tmp_path / "out")), []) == content


def test_no_items_make_a_parquet_file_without_rows(tmp_path: Path) -> None:
    assert parquet_of(tmp_path).shape == (0, 0)


@pytest.mark.parametrize("cls", [CsvSink, JsonlSink])
def test_gz_is_compressed(cls: Any, tmp_path: Path) -> None:
    data = written(cls(str(tmp_path / "out.gz")), [{"a": "é"}] * 50_000)
    plain = written(cls(str(tmp_path / "out")), [{"a": "é"}] * 50_000)
    assert gzip.decompress(data) == plain
    assert written(cls(str(tmp_path / "empty.gz")), []) != b""
    stopped = begun(cls(str(tmp_path / "no.gz")), lambda: True)
    stopped.execute({"a": 1})
    stopped.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["empty.gz", "out", "out.gz"]


# CSV


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([{"a": 1, "b": "x"}, {"b": None, "a": 2.5}], "a,b\n1,x\n2.5,\n"),
        ([Point(1, 2), Pair(3, 4), Struct(5, 6), {"x": 7, "y": 8}], "x,y\n1,2\n3,4\n5,6\n7,8\n"),
        ([WindowResult("k", 0.0, 60.0, 3)], "key,start,end,value\nk,0.0,60.0,3\n"),
        ([1, "x", None, (1, 2)], 'value\n1\nx\n""\n"(1, 2)"\n'),
        ([{1: "int key"}], "1\nint key\n"),
        ([{"t": datetime(2024, 1, 2, 3)}], "t\n2024-01-02 03:00:00\n"),
    ],
)
def test_csv_columns_are_the_first_items_fields(tmp_path: Path, items: list[Any], text: str) -> None:
    assert csv_of(tmp_path, *items) == text


def test_csv_reads_back_as_it_was(tmp_path: Path) -> None:
    texts = ["plain", 'say "hi"', "a,b", "a\nb", "a\rb", "a\r\nb", " x ", "", "é€😀", "'", "\\"]
    got = csv_of(tmp_path, *({"n": str(n), "text": text} for n, text in enumerate(texts)))
    assert [row["text"] for row in csv.DictReader(io.StringIO(got, newline=""))] == texts


def test_csv_of_another_form(tmp_path: Path) -> None:
    assert csv_of(tmp_path, {"a": "x;y", "b": "é"}, delimiter=";", encoding="latin-1") == 'a;b\n"x;y";é\n'


@pytest.mark.parametrize("cls", [CsvSink, ParquetSink])
@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"a": 1}, "'b' is missing"),
        ({"a": 1, "b": 2, "c": 3}, "'c' is no column"),
        (Point(1, 2), "fields 'x', 'y', but the first one had 'a', 'b': 'a' is missing"),
        (5, "fields 'value'"),
    ],
)
def test_an_item_with_other_fields_is_refused_and_the_rest_is_written(
    cls: Any, item: Any, said: str, tmp_path: Path
) -> None:
    """An error policy may go on after it."""
    pytest.importorskip("pyarrow")
    sink = begun(cls(str(tmp_path / "out")))
    sink.execute({"a": 1, "b": 2})
    with pytest.raises(ValueError, match=said):
        sink.execute(item)
    sink.execute({"b": 4, "a": 3})
    sink.close()
    assert csv_of(tmp_path, {"a": 1, "b": 2}, {"b": 4, "a": 3}) == "a,b\n1,2\n3,4\n"
    if cls is ParquetSink:
        table = importlib.import_module("pyarrow.parquet").read_table(tmp_path / "out")
        assert table.to_pylist() == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    else:
        assert (tmp_path / "out").read_text() == "a,b\n1,2\n3,4\n"


@pytest.mark.parametrize("cls", [CsvSink, ParquetSink])
@pytest.mark.parametrize(("item", "said"), [({}, "no fields"), ({1: 0, "1": 0}, "two columns have the same name")])
def test_what_makes_no_columns_is_refused(cls: Any, item: Any, said: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    sink = begun(cls(str(tmp_path / "out")))
    with pytest.raises(ValueError, match=said):
        sink.execute(item)
    sink.close()


def test_what_an_encoding_cannot_say_is_not_half_written(tmp_path: Path) -> None:
    sink = begun(CsvSink(str(tmp_path / "out"), encoding="ascii"))
    sink.execute(["x"])
    with pytest.raises(UnicodeEncodeError):
        sink.execute("long enough to be seen, é")
    sink.execute("y")
    sink.close()
    assert (tmp_path / "out").read_text() == "value\n['x']\ny\n"


def test_an_array_in_a_cell_is_written_in_full(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    rows = csv_of(tmp_path, {"v": np.arange(3000)}, {"v": np.float64(0.5)}).split("\n")
    assert rows[1] == f'"{list(range(3000))}"'
    assert rows[2] == "0.5"


# JSON lines


class Color(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("item", "line"),
    [
        ({"a": 1, "b": None, "c": True}, '{"a":1,"b":null,"c":true}'),
        ("é€😀", '"é€😀"'),
        (2**70, str(2**70)),
        ([1, (2, 3)], "[1,[2,3]]"),
        (Point(1, Point(2, 3)), '{"x":1,"y":{"x":2,"y":3}}'),
        ({"p": [Point(1, 2)]}, '{"p":[{"x":1,"y":2}]}'),
        (Pair(1, [Point(2, 3)]), '{"x":1,"y":[{"x":2,"y":3}]}'),
        (Struct(1, 2), '{"x":1,"y":2}'),
        (WindowResult("k", 0.0, 60.0, 3), '{"key":"k","start":0.0,"end":60.0,"value":3}'),
        (
            {"t": datetime(2024, 1, 2, 3, tzinfo=UTC), "d": date(2024, 1, 2)},
            '{"t":"2024-01-02T03:00:00Z","d":"2024-01-02"}',
        ),
        (timedelta(seconds=90), '"PT90S"'),
        ([float("nan"), float("inf")], "[null,null]"),
        (Decimal("1.50"), '"1.50"'),
        (UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
        (Color.RED, '"red"'),
        ({1: "int key"}, '{"1":"int key"}'),
        ({7}, "[7]"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_one_json_value_per_line(tmp_path: Path, item: Any, line: str) -> None:
    assert jsonl_of(tmp_path, item, item) == f"{line}\n{line}\n"


def test_numpy_and_pandas_values_are_plain_json(tmp_path: Path) -> None:
    np, pd = pytest.importorskip("numpy"), pytest.importorskip("pandas")
    item = {
        "int": np.int64(1),
        "float": np.float32(0.5),
        "bool": np.bool_(True),
        "text": np.str_("é"),
        "array": np.arange(3),
        "nested": [np.array([[1.0, np.nan]])],
        "none": np.array(7),
        "time": np.datetime64("2024-01-02T03:04:05.123456789"),
        "times": np.array(["2024-01-02", "NaT"], dtype="datetime64[ns]"),
        "stamp": pd.Timestamp("2024-01-02"),
        "nat": pd.NaT,
        "na": pd.NA,
        "frame": pd.DataFrame({"a": [1]}),
    }
    assert json.loads(jsonl_of(tmp_path, item)) == {
        "int": 1,
        "float": 0.5,
        "bool": True,
        "text": "é",
        "array": [0, 1, 2],
        "nested": [[[1.0, None]]],
        "none": 7,
        "time": "2024-01-02T03:04:05.123456789",
        "times": ["2024-01-02T00:00:00.000000000", None],
        "stamp": "2024-01-02T00:00:00",
        "nat": None,
        "na": None,
        "frame": [{"a": 1}],
    }


@pytest.mark.parametrize(
    ("item", "named"), [(object(), "object"), ({"a": [1j]}, "complex"), ({(1, 2): 3}, "tuple"), ({None: 1}, "NoneType")]
)
def test_what_json_has_no_form_for_is_named_and_the_rest_is_written(tmp_path: Path, item: Any, named: str) -> None:
    sink = begun(JsonlSink(str(tmp_path / "out")))
    sink.execute(1)
    with pytest.raises(TypeError, match=f"to_jsonl: JSON has no form for {named}"):
        sink.execute(item)
    sink.execute(2)
    sink.close()
    assert (tmp_path / "out").read_text() == "1\n2\n"


# Parquet


def test_parquet_keeps_types_and_order(tmp_path: Path) -> None:
    rows = [{"n": n, "s": "é", "t": datetime(2024, 1, 2), "x": n / 2, "l": [n], "d": {"k": n}} for n in range(25)]
    table = parquet_of(tmp_path, *rows, rows_per_group=10)
    assert table.to_pylist() == rows
    file = importlib.import_module("pyarrow.parquet").ParquetFile(tmp_path / "out.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [10, 10, 5]


def test_parquet_rows_may_be_anything_with_fields(tmp_path: Path) -> None:
    assert parquet_of(tmp_path, Point(1, 2), Pair(3, None), Struct(5, 6)).to_pydict() == {
        "x": [1, 3, 5],
        "y": [2, None, 6],
    }
    assert parquet_of(tmp_path, 1, 2).to_pydict() == {"value": [1, 2]}


def test_later_groups_take_the_types_of_the_first(tmp_path: Path) -> None:
    table = parquet_of(tmp_path, {"x": 1.5}, {"x": 2}, rows_per_group=1)
    assert table.to_pydict() == {"x": [1.5, 2.0]}


def test_missing_values_of_pandas_are_null_beside_text(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    assert parquet_of(tmp_path, {"s": "a"}, {"s": float("nan")}).to_pydict() == {"s": ["a", None]}


@pytest.mark.parametrize("first", [1, None])
def test_a_value_of_another_type_names_the_column_and_leaves_no_file(tmp_path: Path, first: Any) -> None:
    """What was gathered with it is lost with it, so that no error policy may go on to a file without those rows."""
    pytest.importorskip("pyarrow")
    sink = begun(ParquetSink(str(tmp_path / "out"), rows_per_group=2))
    for value in (first, first, "text"):
        sink.execute({"a": 0, "b": value})
    with pytest.raises(ValueError, match=r"column 'b', which is (int64|null) as of the first rows"):
        sink.execute({"a": 0, "b": 2})
    with pytest.raises(ValueError, match="column 'b'"):
        sink.execute({"a": 0, "b": 3})
    with pytest.raises(ValueError, match="column 'b'"):
        sink.close()
    assert list(tmp_path.iterdir()) == []


def run_to_parquet(path: Path, items: list[Any], rows_per_group: int = 65_536) -> None:
    """Write in a job that would skip what fails."""
    env = sage_nb.LocalEnvironment("writes")
    env.from_batch(items).to_parquet(path / "out.parquet", rows_per_group=rows_per_group)
    env.submit(autostop=True, on_error="skip")


DAY, MOMENT = date(2024, 1, 2), datetime(2024, 1, 2, 3)


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (1, 1.5),
        (1.5, 2**53 + 1),
        (1, True),
        ("a", 1),
        ("a", b"a"),
        (b"a", "a"),
        (DAY, MOMENT),
        (MOMENT, DAY),
        (MOMENT, MOMENT.replace(tzinfo=UTC)),
        (Decimal("1.5"), Decimal("1.25")),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 1.5}),
        ({"a": {"b": DAY}}, {"a": {"b": MOMENT}}),
        ([1], [2.5]),
        ([], [1]),
    ],
    ids=repr,
)
def test_a_later_value_that_its_column_cannot_hold_fails_the_job(tmp_path: Path, first: Any, later: Any) -> None:
    pytest.importorskip("pyarrow")
    items = [{"other": 0, "v": value} for value in [first] * 10 + [later, first]]
    with pytest.raises(ValueError, match=r"to_parquet: column 'v', which is .* as of the first rows") as caught:
        run_to_parquet(tmp_path, items, 10)
    assert f"the {type(later).__name__} {later!r} as it is" in str(caught.value)
    assert "in a map() before" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (1.5, 2),
        (1, 2.0),
        (1, None),
        (1, float("nan")),
        (MOMENT, MOMENT + timedelta(microseconds=1)),
        (MOMENT.replace(tzinfo=UTC), (MOMENT + timedelta(1)).replace(tzinfo=UTC)),
        ({"a": 1, "b": "x"}, {"a": 2}),
        ({"a": [1.5]}, {"a": [2]}),
        ([1], []),
        ([1], (2, 3)),
        (Decimal("1.25"), Decimal("1.5")),
    ],
    ids=repr,
)
def test_a_later_value_of_another_type_is_kept_where_it_can_be(tmp_path: Path, first: Any, later: Any) -> None:
    read = parquet_of(tmp_path, {"v": first}, {"v": later}, rows_per_group=1).to_pydict()["v"]
    if isinstance(later, dict):
        later = dict.fromkeys(first) | later
    expected = None if later != later else list(later) if isinstance(later, tuple) else later
    assert read == [first, expected]


@pytest.mark.parametrize("values", [(DAY, MOMENT), (MOMENT, MOMENT.replace(tzinfo=UTC)), (b"a", "a"), (1.5, True)])
def test_nor_do_the_first_rows_lose_a_value(tmp_path: Path, values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"to_parquet: column 'v', which is .* as of the first rows"):
        run_to_parquet(tmp_path, [{"v": value} for value in values])


def test_frames_of_other_types_lose_no_value(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    read = parquet_of(tmp_path, pd.DataFrame({"v": [1, 2]}), pd.DataFrame({"v": [3.0]}), rows_per_group=1)
    assert read.to_pydict() == {"v": [1, 2, 3]}
    for first, later, named in ((1, 1.5, "float 1.5"), (1, "a", "str 'a'"), (DAY, MOMENT, "datetime"), ("a", 1, "1")):
        sink = begun(ParquetSink(str(tmp_path / "frames"), rows_per_group=1))
        sink.execute(pd.DataFrame({"v": [first]}))
        with pytest.raises(ValueError, match=f"column 'v', which is .* as of the first rows, cannot hold .*{named}"):
            sink.execute(pd.DataFrame({"v": [later]}))
        sink.close()
        assert pd.read_parquet(tmp_path / "frames")["v"].tolist() == [first]


@pytest.mark.parametrize("items", [[()], [tuple(range(21))], [1, (1, 2)]])
def test_a_tuple_without_columns_is_no_row_of_a_parquet_file(tmp_path: Path, items: list[Any]) -> None:
    pytest.importorskip("pyarrow")
    env = sage_nb.LocalEnvironment("tuples")
    env.from_batch(items).to_parquet(tmp_path / "out.parquet")
    with pytest.raises(TypeError, match=r"to_parquet: a tuple of \d+ .*; make a dict of each item in a map"):
        env.submit(autostop=True)


def test_of_tuples_the_positions_are_the_columns(tmp_path: Path) -> None:
    assert csv_of(tmp_path, ("a", 2), ("b", 3)) == "0,1\na,2\nb,3\n"
    sink = begun(CsvSink(str(tmp_path / "mixed.csv")))
    sink.execute((1, 2))
    with pytest.raises(ValueError, match="an item has the fields 'value', but the first one had 0, 1"):
        sink.execute(3)
    sink.close()


def test_parquet_memory_holds_one_group(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    sink = begun(ParquetSink(str(tmp_path / "out"), rows_per_group=10))
    for n in range(1005):
        sink.execute(n)
    assert len(sink._rows) + sum(map(len, sink._tables)) == 5
    sink.close()


# Frames as items


def frames() -> list[Any]:
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]}, index=[7, 8], dtype=object)
    table = pa.table({"b": ["z", "w"], "a": [5, 6]})
    return [frame, {"b": "y", "a": 4}, table, table.to_batches()[0].slice(1)]


def test_the_rows_of_frames_are_written(tmp_path: Path) -> None:
    items = frames()
    expected = [(1, "x"), (2, None), (4, "y"), (5, "z"), (6, "w"), (6, "w")]
    assert csv_of(tmp_path, *items) == "a,b\n" + "".join(f"{a},{b or ''}\n" for a, b in expected)
    got = [json.loads(line) for line in jsonl_of(tmp_path, *items).splitlines()]
    assert [(row["a"], row["b"]) for row in got] == expected
    for size in (1, 3, 100):
        table = parquet_of(tmp_path, *items, rows_per_group=size)
        assert [(row["a"], row["b"]) for row in table.to_pylist()] == expected


def test_arrays_of_two_axes_are_rows_and_others_are_values(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    square, line = np.array([[1, 2], [3, 4]]), np.array([1, 2])
    assert csv_of(tmp_path, square) == "0,1\n1,2\n3,4\n"
    assert jsonl_of(tmp_path, square) == "[1,2]\n[3,4]\n"
    assert parquet_of(tmp_path, square).to_pydict() == {"0": [1, 3], "1": [2, 4]}
    assert csv_of(tmp_path, line) == 'value\n"[1, 2]"\n'
    assert jsonl_of(tmp_path, line) == "[1,2]\n"
    assert parquet_of(tmp_path, line, line).to_pydict() == {"value": [[1, 2], [1, 2]]}


def test_a_frame_without_rows_has_columns_all_the_same(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    empty = pd.DataFrame({"a": pd.Series([], dtype="int64")})
    assert csv_of(tmp_path, empty) == "a\n"
    assert jsonl_of(tmp_path, empty) == ""
    assert parquet_of(tmp_path, empty).column_names == ["a"]
    assert parquet_of(tmp_path, empty, {"a": 1}).to_pydict() == {"a": [1]}


def test_the_keys_of_a_groupby_are_written(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    grouped = pd.DataFrame({"k": ["a", "b", "a"], "n": [1, 2, 3]}).groupby("k").sum()
    assert csv_of(tmp_path, grouped, grouped["n"]) == "k,n\na,4\nb,2\na,4\nb,2\n"
    assert parquet_of(tmp_path, grouped).to_pydict() == {"k": ["a", "b"], "n": [4, 2]}


def test_a_frame_of_other_columns_is_refused(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    for cls in (CsvSink, ParquetSink):
        sink = begun(cls(str(tmp_path / "out")))
        sink.execute({"a": 1})
        with pytest.raises(ValueError, match="'c' is no column"):
            sink.execute(pd.DataFrame({"a": [1], "c": [2]}))
        sink.close()


def test_a_chunk_is_written_as_its_rows_one_by_one(tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    for chunk in (np.arange(10_000), [{"value": n} for n in range(10_000)]):
        sink = begun(CsvSink(str(tmp_path / "out.csv")))
        sink.write_chunk(chunk)
        sink.close()
        assert (tmp_path / "out.csv").read_text() == csv_of(tmp_path, *range(10_000))
        sink = begun(ParquetSink(str(tmp_path / "out.parquet"), rows_per_group=4_000))
        sink.write_chunk(chunk)
        sink.close()
        parquet = importlib.import_module("pyarrow.parquet")
        assert parquet.read_table(tmp_path / "out.parquet")["value"].to_pylist() == list(range(10_000))


# Declared


def stream() -> Any:
    return BaseEnvironment("files").from_batch([1])


@pytest.mark.parametrize("method", ["to_csv", "to_jsonl", "to_parquet"])
def test_what_cannot_be_a_file_is_refused_when_declared(method: str, tmp_path: Path) -> None:
    declare = getattr(stream(), method)
    with pytest.raises(SignatureError, match=f"{method}: takes a path, not int"):
        declare(5)
    with pytest.raises(PipelineError, match=f"{method}: .* is a folder"):
        declare(tmp_path)
    with pytest.raises(PipelineError, match="is a folder"):
        declare(f"{tmp_path}/new/")
    with pytest.raises(PipelineError, match=f"{method}: there is no folder .*gone"):
        declare(tmp_path / "gone" / "out")
    with pytest.raises(PipelineError, match="a device or a pipe"):
        declare(os.devnull)
    with pytest.raises(PipelineError, match=r"\.gz only, not out\.zip"):
        declare(tmp_path / "out.zip")
    assert list(tmp_path.iterdir()) == []


def test_settings_are_checked_when_declared(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no encoding 'nonsense'"):
        stream().to_csv(tmp_path / "out", encoding="nonsense")
    with pytest.raises(PipelineError, match="delimiter is one character, not '::'"):
        stream().to_csv(tmp_path / "out", delimiter="::")
    with pytest.raises(PipelineError, match="rows_per_group is a whole number, 1 or more, not 0"):
        stream().to_parquet(tmp_path / "out", rows_per_group=0)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(PipelineError, match=r"to_parquet needs pyarrow: pip install sage-nb\[arrow\]"):
        stream().to_parquet(tmp_path / "out")
    with pytest.raises(PipelineError, match=r"from_parquet needs pyarrow: pip install sage-nb\[arrow\]"):
        BaseEnvironment("files").from_parquet(tmp_path / "out")
    with pytest.raises(PipelineError, match="format 'arrow' needs pyarrow"):
        stream().map_batches(len, format="arrow")


def test_a_path_is_where_it_was_declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook may change its folder between the cell that declares and the one that submits."""
    monkeypatch.chdir(tmp_path)
    declared = stream()
    declared.to_csv("out.csv")
    (operator,) = [op for op in declared._env._graph.operators if op.kind == "sink"]
    assert operator.spec.args == (str(tmp_path / "out.csv"),)


def test_two_sinks_of_one_file_are_refused(tmp_path: Path) -> None:
    declared = stream()
    declared.to_csv(tmp_path / "out", name="one").to_csv(tmp_path / "other")
    (tmp_path / "link").symlink_to("out")
    for path in (tmp_path / "out", f"{tmp_path}/./out", tmp_path / "link"):
        with pytest.raises(PipelineError, match=r"to_jsonl 'two': 'one' writes to .* already"):
            declared.map(str).to_jsonl(path, name="two")
    stream().to_csv(tmp_path / "out")
    assert len(declared._env._graph.operators) == 6


# In a job


def test_a_process_tells_what_a_stop_has_made_it_discard(tmp_path: Path) -> None:
    env = sage_nb.LocalEnvironment("stops", backend="processes")
    env.from_source(endless).map(lambda n: {"n": n}).to_csv(tmp_path / "a.csv")
    job = env.submit()
    until(lambda: job.progress.operators[-1].items_in)
    job.stop()
    assert "rows that it had were discarded" in "".join(job.notes)


def test_a_job_that_is_stopped_tells_what_it_discards(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    env = sage_nb.LocalEnvironment("stops")
    with Gate(at=50) as gate:
        rows = env.from_batch(endless).map(lambda n: {"n": gate(n)})
        rows.to_csv(tmp_path / "a.csv").to_jsonl(tmp_path / "a.jsonl").to_parquet(tmp_path / "a.parquet")
        job = env.submit()
        gate.wait()
        job.request_stop()
    job.wait(LIMIT)
    assert job.notes == tuple(
        f"to_{kind} 'a.{kind}': the job was stopped or has failed; the 50 rows that it had were discarded"
        for kind in ("csv", "jsonl", "parquet")
    )
    assert list(tmp_path.iterdir()) == []


def test_a_job_writes_its_files(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    env = sage_nb.LocalEnvironment("files")
    rows = [{"n": n, "s": f"é{n}"} for n in range(5000)]
    env.from_batch(rows).to_csv(tmp_path / "a.csv").to_jsonl(tmp_path / "a.jsonl").to_parquet(tmp_path / "a.parquet")
    env.submit(autostop=True)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.csv", "a.jsonl", "a.parquet"]

    back = sage_nb.LocalEnvironment("back")
    back.from_csv(tmp_path / "a.csv").map(lambda row: {**row, "n": int(row["n"])}).collect("csv")
    back.from_text(tmp_path / "a.jsonl").map(json.loads).collect("jsonl")
    back.from_parquet(tmp_path / "a.parquet").collect("parquet")
    results = back.submit(autostop=True).results
    assert [list(results[name]) == rows for name in ("csv", "jsonl", "parquet")] == [True, True, True]


def test_a_job_that_fails_writes_none(tmp_path: Path) -> None:
    env = sage_nb.LocalEnvironment("fails")
    env.from_batch([4, 2, 0]).map(lambda n: 8 / n).to_csv(tmp_path / "a.csv").to_jsonl(tmp_path / "a.jsonl")
    with pytest.raises(ZeroDivisionError):
        env.submit(autostop=True)
    assert list(tmp_path.iterdir()) == []
