"""Completion of methods and of names of results, asked of a real kernel as a front end does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_nb.pipeline.stream import DataStream, KeyedStream, WindowedStream
from tests.kernels import Kernel
from tests.notebook.test_completion import complete

DECLARED = """
%load_ext sage_nb
from sage_nb import *
env = LocalEnvironment("declared")
stream = env.from_batch([{"n": 1}, {"n": "x"}])
stream.map(lambda row: row["n"] + 1, name="plus one", on_error="dead_letter").collect("sums")
stream.collect("two words").collect('with "quotes"')
job = env.submit(autostop=True)
results, letters = job.results, job.dead_letters
called = []
def source():
    called.append(1)
    return env
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder: Path = tmp_path_factory.mktemp("shared")
    (folder / "sums.csv").touch()
    kernel = Kernel(folder)
    assert kernel.run(DECLARED).status == "ok"
    yield kernel
    kernel.shutdown()


def offered(kernel: Kernel, text: str) -> list[str]:
    """What may stand behind the last dot."""
    return [line.rpartition(".")[2] for line in complete(kernel, text)]


def public(cls: type) -> list[str]:
    return [name for name in dir(cls) if not name.startswith("_")]


@pytest.mark.parametrize(
    "code",
    [
        "env.from_csv('sales.csv').|",
        "stream.|",
        "stream.map(lambda row: (row['n'], [1])).filter(bool).|",
        "LocalEnvironment('new').from_batch([1]).|",
        "(env.from_batch([1])\n    .map(str)  # to text\n    .|",
        "(stream.map(str)).|",
        "rows = env.from_csv('x.csv', delimiter=';')\nrows.map(str).|",
        "%%sage_submit sales\nrows = env.from_csv('x.csv')\nrows.|",
        "stream.keyby(len).map_batches(list).|",
        "x = 1; rows = stream.map(str); rows.|",
        "stream.window(Tumbling(1)).count().|",
    ],
)
def test_what_a_stream_has_is_offered(shared: Kernel, code: str) -> None:
    assert offered(shared, code) == public(DataStream)


@pytest.mark.parametrize(
    "code",
    [
        "stream.keyby(len).|",
        "stream.keyby(len).map(str).filter(bool).|",
        "stream.keyby(len).window(Tumbling(1)).count().|",
        "keyed = stream.keyby(len)\ntotals = keyed.sum()\ntotals.|",
    ],
)
def test_what_a_keyed_stream_has_is_offered(shared: Kernel, code: str) -> None:
    assert offered(shared, code) == public(KeyedStream)


def test_what_else_there_is_is_offered(shared: Kernel) -> None:
    assert offered(shared, "stream.window(Tumbling(1)).|") == public(WindowedStream)
    assert offered(shared, "env.from_csv('sales.csv').ma|") == ["map", "map_async", "map_batches"]
    assert "comap" in offered(shared, "stream.connect(stream).|")
    assert {"from_csv", "name", "job"} <= {*offered(shared, "env.|")}
    assert "wait" in offered(shared, "env.submit().|")
    assert "wait" in offered(shared, "job.wait().|")
    assert offered(shared, "job.results['sums'].to_p|") == ["to_pandas", "to_parquet"]
    assert "index" in offered(shared, "job.dead_letters['plus one'].|")


def test_nothing_is_called_and_what_is_not_known_is_left_to_others(shared: Kernel) -> None:
    complete(shared, "source().from_batch([1]).|")
    complete(shared, "stream.collect(source()).|")
    assert shared.run("called").result == "[]"
    assert "append" in offered(shared, "[1].|")
    assert "upper" in offered(shared, "stream = 'text'\nstream.|")
    assert "__class__" in offered(shared, "env.__c|")
    assert [one.name for one in ()] == offered(shared, "stream.xyzzy().|")


@pytest.mark.parametrize(
    ("code", "completed"),
    [
        ("job.results[|", ["job.results['sums']", "job.results['two words']"]),
        ("job.results['|", ["job.results['sums']", "job.results['two words']"]),
        ("job.results['|']", ["job.results['sums']", "job.results['two words']"]),
        ('x = env.job.results["s|"]', ['x = env.job.results["sums"]']),
        ("results['two |", ["results['two words']"]),
        ("job.dead_letters['|", ["job.dead_letters['plus one']"]),
        ("letters[|", ["letters['plus one'"]),
    ],
)
def test_names_of_results_and_of_what_keeps_dead_letters_are_offered(
    shared: Kernel, code: str, completed: list[str]
) -> None:
    quoted = [line for line in complete(shared, code) if "quotes" in line]
    assert [line for line in complete(shared, code) if line not in quoted] == completed


def test_results_offer_their_names_by_themselves(shared: Kernel) -> None:
    assert shared.run("results._ipython_key_completions_()[:2]").result == "['sums', 'two words']"
    assert shared.run("'sums' in results, 'x' in results, results.get('x')").result == "(True, False, None)"


def test_jedi_is_not_asked_about_what_is_ours(shared: Kernel) -> None:
    """Its first answer takes seconds."""
    ask = (
        "from IPython.core.completer import CompletionContext\n"
        "known = {one.matcher_identifier: one for one in get_ipython().Completer.custom_matchers}\n"
        "text = 'env.from_csv(1).'; found = known['sage_nb members'](CompletionContext('', text, len(text), 0, 100))\n"
        "found['suppress'], len(found['completions']) > 10"
    )
    assert shared.run(ask).result == "(True, True)"
