"""Errors in the user's code: their own type, and notes that say operator, item and line."""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import BaseService, Job, KeyTypeError, LocalEnvironment, MapFunction
from tests.support import counts, errors, submitted


def failed(env: LocalEnvironment) -> tuple[BaseException, Job]:
    """What `submit` raises, and the job."""
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - each test looks at it
        env.submit(autostop=True)
    assert env.job is not None
    assert env.job.status == "failed"
    assert env.job.exception() is caught.value
    return caught.value, env.job


def failing(fn: Any, items: Any = (1, 2, 3), **options: Any) -> tuple[BaseException, Job]:
    env = LocalEnvironment("fails")
    env.from_batch(list(items)).map(fn, **options).collect("out")
    return failed(env)


def notes(exc: BaseException) -> str:
    return "\n".join(getattr(exc, "__notes__", []))


def line_here(offset: int = 0) -> str:
    """`file, line n` of the caller, as notes write it."""
    frame = inspect.stack()[1]
    return f"{Path(frame.filename).name}, line {frame.lineno + offset}"


def test_the_first_failing_item_ends_the_job_with_its_own_error() -> None:
    """No silent failure: the exception's own type, the item's repr, the operator's name, the user's line."""

    def parse(item: str) -> int:
        return 10 // int(item)

    where = line_here(-2)
    exc, job = failing(parse, ["5", "0", "2"])
    assert type(exc) is ZeroDivisionError
    assert exc.__notes__ == [
        f"sage_nb: in operator 'parse' (map), {where}: return 10 // int(item)",
        "sage_nb: on the item '0'",
    ]
    assert list(job.results["out"]) == [2]
    assert counts(job) == {"source": (0, 2), "parse": (2, 1), "out": (1, 0)}
    assert errors(job) == {"parse": 1}


def test_the_line_is_named_of_a_function_in_another_file(tmp_path: Path) -> None:
    path = tmp_path / "users.py"
    path.write_text("import json\n\n\ndef parse(text):\n    value = json.loads(text)\n    return value\n")
    spec = importlib.util.spec_from_file_location("users", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    exc, job = failing(module.parse, ["{"])
    assert type(exc).__name__ == "JSONDecodeError"
    assert "operator 'parse' (map), users.py, line 5: value = json.loads(text)" in notes(exc)
    error = job.snapshot().error
    assert error is not None
    assert (error.operator, error.item, error.where) == ("parse", "'{'", "users.py, line 5")
    assert [(line.number, line.text) for line in error.code if line.marked] == [(5, "    value = json.loads(text)")]


def test_the_line_of_a_lambda_is_named() -> None:
    env = LocalEnvironment("lambda")
    numbers = env.from_batch([1, 0])
    numbers.map(lambda x: 1 // x).collect("out")
    where = line_here(-1)
    exc, _ = failed(env)
    assert where in notes(exc)


def test_of_a_function_without_python_lines_the_declaring_line_is_named() -> None:
    env = LocalEnvironment("int")
    stream = env.from_batch(["1", "x"])
    stream.map(int).collect("out")
    where = line_here(-1)
    exc, _ = failed(env)
    assert type(exc) is ValueError
    assert f"operator 'int' (map), {where}: stream.map(int).collect" in notes(exc)
    assert "on the item 'x'" in notes(exc)


@pytest.mark.parametrize(
    "error", [StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit, StopAsyncIteration, RecursionError]
)
@pytest.mark.parametrize("kind", ["map", "filter", "flatmap", "sink"])
def test_every_exception_of_user_code_is_a_failure(kind: str, error: type[BaseException]) -> None:
    """None of those with a meaning to Python itself ends the job as if all were well."""

    def fails(item: int) -> Any:
        raise error("mine")

    env = LocalEnvironment("fails")
    stream = env.from_batch([1])
    getattr(stream, kind)(fails, name="at fault")
    stream.collect("out")
    exc, job = failed(env)
    assert type(exc) is error
    assert "operator 'at fault'" in notes(exc)
    assert errors(job) == {"at fault": 1}


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt, LookupError])
def test_an_exception_of_a_polled_source_is_a_failure(error: type[BaseException]) -> None:
    def ask() -> Any:
        raise error("mine")

    env = LocalEnvironment("fails")
    env.from_source(ask).collect("out")
    exc, job = failed(env)
    assert type(exc) is error
    assert errors(job) == {"ask": 1}
    assert "on the item" not in notes(exc)


def test_a_generator_source_that_raises_fails_after_the_items_before() -> None:
    def numbers() -> Iterator[int]:
        yield from range(3)
        raise LookupError("no more")

    env = LocalEnvironment("fails")
    env.from_batch(numbers).collect("out")
    exc, job = failed(env)
    assert "operator 'numbers' (source)" in notes(exc)
    assert list(job.results["out"]) == [0, 1, 2]
    assert counts(job) == {"numbers": (0, 3), "out": (3, 0)}


def test_an_error_inside_a_flatmaps_generator_names_the_flatmaps_item() -> None:
    def expand(item: int) -> Iterator[float]:
        for divisor in (1, 0):
            yield item / divisor

    env = LocalEnvironment("fails")
    env.from_batch([7]).flatmap(expand).collect("out")
    exc, job = failed(env)
    assert "return" not in notes(exc)
    assert "yield item / divisor" in notes(exc)
    assert "on the item 7" in notes(exc)
    assert list(job.results["out"]) == [7.0]


def test_a_flatmap_that_returns_no_iterable_is_named() -> None:
    env = LocalEnvironment("fails")
    env.from_batch([7]).flatmap(lambda x: x, name="no list").collect("out")
    exc, _ = failed(env)
    assert type(exc) is TypeError
    assert "operator 'no list'" in notes(exc)


@pytest.mark.parametrize("executor", ["thread", "process"])
@pytest.mark.parametrize("inline", [True, False])
def test_what_a_flatmap_cannot_take_apart_is_named(inline: bool, executor: str) -> None:
    env = LocalEnvironment("fails", config={"inline": inline})
    env.from_batch([[1, 2], 7]).flatmap(lambda x: x, executor=executor).collect("out")
    exc, _ = failed(env)
    assert type(exc) is TypeError
    assert "on the item 7" in notes(exc)


def test_of_several_flatmaps_the_item_of_the_one_that_failed_is_named() -> None:
    env = LocalEnvironment("fails")
    nested = env.from_batch([[[1], [2, 3]], [[5], 4]]).filter(bool).flatmap(lambda x: x).map(lambda x: (x, x))
    nested.keyby(len).filter(bool).flatmap(lambda x: x[0], name="inner").collect("out")
    exc, job = failed(env)
    assert "operator 'inner'" in notes(exc)
    assert "on the item (4, 4)" in notes(exc)
    assert list(job.results["out"]) == [1, 2, 3, 5]


@pytest.mark.parametrize("kind", ["count", "sum", "reduce"])
@pytest.mark.parametrize("key", [[], (1, {})], ids=repr)
def test_a_key_that_cannot_be_hashed_is_the_keybys_failure(kind: str, key: Any) -> None:
    env = LocalEnvironment("fails")
    keyed = env.from_batch([1, 2]).map(lambda x: x + 1).keyby(lambda x: x if x == 2 else key, name="by key")
    (keyed.reduce(lambda a, b: a + b) if kind == "reduce" else getattr(keyed, kind)()).collect("out")
    exc, job = failed(env)
    assert type(exc) is KeyTypeError
    assert "return a tuple" in str(exc)
    assert "operator 'by key' (keyby)" in notes(exc)
    assert "on the item 3" in notes(exc)
    assert len(job.results["out"]) == 1


def test_a_type_error_of_a_reducer_stays_its_own() -> None:
    env = LocalEnvironment("fails")
    env.from_batch([1, 2]).keyby(lambda x: 0).reduce(lambda a, b: a + "b", name="adds").collect("out")
    exc, _ = failed(env)
    assert "unsupported operand" in str(exc)
    assert "operator 'adds'" in notes(exc)


def test_the_traceback_begins_at_the_users_code() -> None:
    def inner(item: int) -> int:
        return item // 0

    exc, _ = failing(lambda x: inner(x))
    names = []
    tb = exc.__traceback__
    while tb is not None:
        names.append(tb.tb_frame.f_code.co_name)
        tb = tb.tb_next
    assert names[-2:] == ["<lambda>", "inner"]
    assert not {"run", "_work", "_run_tasks"} & set(names)


def test_the_notes_are_there_once_however_often_the_error_is_raised() -> None:
    exc, job = failing(lambda x: 1 // 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError) as again:
            job.wait()
        assert again.value is exc
    assert len(exc.__notes__) == 2
    assert len(inspect.getinnerframes(exc.__traceback__)) < 8  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", ["__init__", "open", "close"])
def test_an_error_outside_execute_names_the_operator(phase: str) -> None:
    def fails(self: Any) -> None:
        raise LookupError(phase)

    body = {"execute": lambda self, data: data, phase: fails}
    exc, job = failing(type("Own", (MapFunction,), body), name="at fault")
    assert "operator 'at fault' (map)" in notes(exc)
    assert errors(job) == {"at fault": 1}


# Exceptions and items that are themselves troublesome must not keep a job from ending


class NoText(Exception):
    def __str__(self) -> str:
        raise LookupError("no text")


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class NoRepr:
    def __repr__(self) -> str:
        raise LookupError("no repr")


class ExitsInRepr:
    def __repr__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize("error", [NoText(), Frozen(3)])
def test_an_exception_that_cannot_be_shown_or_annotated_still_ends_the_job(error: Exception) -> None:
    def fails(item: int) -> None:
        raise error

    exc, job = failing(fails)
    assert exc is error
    view = job.snapshot().error
    assert view is not None
    assert view.type == type(error).__name__
    assert job.info.error is not None
    assert job.info.get_status()["error"].startswith(type(error).__name__)


@pytest.mark.parametrize("item", [NoRepr(), ExitsInRepr()])
def test_an_item_without_a_repr_still_ends_the_job(item: object) -> None:
    exc, _ = failing(lambda x: x.missing, [item])
    assert type(exc) is AttributeError
    assert type(item).__name__ in notes(exc)


def test_the_repr_of_a_huge_item_is_bounded() -> None:
    exc, _ = failing(lambda x: x.missing, [dict.fromkeys(range(10000), "x" * 1000)])
    assert len(notes(exc)) < 1_000


def test_a_failed_job_inside_a_job_keeps_both_stories() -> None:
    def run_another(item: int) -> Any:
        return submitted(lambda env: env.from_batch([item]).map(lambda x: x // 0, name="inner"))

    exc, _ = failing(run_another, name="outer")
    assert "operator 'inner'" in notes(exc)
    assert "operator 'outer'" in notes(exc)


def test_a_failure_in_one_pipeline_stops_the_others_of_the_job() -> None:
    env = LocalEnvironment("two")
    env.from_source(lambda: 1).sink(lambda _: None)
    env.from_batch([1]).map(lambda x: x // 0).collect("out")
    exc, _ = failed(env)
    assert type(exc) is ZeroDivisionError


def test_a_service_that_cannot_start_names_itself() -> None:
    class Broken(BaseService):
        def setup(self) -> None:
            raise ConnectionError("no database")

    env = LocalEnvironment("broken")
    env.register_service("db", Broken)
    env.from_batch([1]).collect("out")
    exc, job = failed(env)
    assert type(exc) is ConnectionError
    assert "the start of service 'db'" in notes(exc)
    assert counts(job) == {"source": (0, 0), "out": (0, 0)}


def test_after_a_failure_the_environment_runs_again() -> None:
    broken = [True]
    env = LocalEnvironment("again")
    env.from_batch([1]).map(lambda x: 1 // 0 if broken else x).collect("out")
    failed(env)
    broken.clear()
    assert list(env.submit(autostop=True).results["out"]) == [1]


def test_a_declaring_file_beside_the_package_is_the_users() -> None:
    """Only this package's own folder is left out of the lines that are named, not one whose name begins like it."""
    import sage_nb

    folder = Path(inspect.getfile(sage_nb)).parent
    code = compile("def declare(env):\n    return env.from_batch([1]).map(int)\n", f"{folder}_demo/users.py", "exec")
    names: dict[str, Any] = {}
    exec(code, names)
    job = submitted(names["declare"])
    assert [op.where for op in job.progress.operators][:2] == ["users.py, line 2"] * 2
