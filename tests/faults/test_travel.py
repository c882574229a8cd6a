"""What goes to a worker process and comes back: items, exceptions, output, calls of services."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from sage_nb import (
    BaseService,
    LocalEnvironment,
    MapFunction,
    RemoteError,
    ServiceNotFoundError,
    ShippingError,
    call_service,
)
from sage_nb.errors import ServiceTimeout
from tests.faults.support import SOON, notes
from tests.support import LIMIT, errors

IN_PROCESSES = [{"executor": "process"}, {"executor": "process", "parallelism": 2}]
in_processes = pytest.mark.parametrize("options", IN_PROCESSES, ids=["a process", "a pool"])


@dataclass(frozen=True)
class Reading:
    """An item of a class of this module."""

    value: float


class Refused(Exception):
    """An exception of this module, with a constructor that takes more than a text."""

    def __init__(self, value: float, limit: float) -> None:
        super().__init__(f"{value} is above {limit}")
        self.value, self.limit = value, limit


def failure(build: Callable[[Any], Any], backend: str = "threads") -> tuple[BaseException, Any]:
    """The exception of a pipeline that fails, and its job."""
    env = LocalEnvironment("travels", backend=backend)
    build(env).collect("out")
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - the tests look at which it is
        env.submit(autostop=True, timeout=SOON)
    assert env.job is not None
    assert env.job.status == "failed"
    return caught.value, env.job


def result(build: Callable[[Any], Any], backend: str = "threads") -> list[Any]:
    """The items of a pipeline."""
    env = LocalEnvironment("travels", backend=backend)
    build(env).collect("out")
    return list(env.submit(autostop=True, timeout=LIMIT).results["out"])


# Items and functions


def locks(item: int) -> Any:
    return threading.Lock() if item else item


def generators(item: int) -> Any:
    return ((item for _ in range(2)),)


def same(item: Any) -> Any:
    return item


@in_processes
@pytest.mark.parametrize(("make", "said"), [(locks, "lock"), (generators, "generator")])
def test_an_item_that_cannot_go_to_a_process_names_operator_and_type(
    make: Any, said: str, options: dict[str, Any]
) -> None:
    exc, _ = failure(lambda env: env.from_batch([0, 1]).map(make).map(same, name="there", **options))
    assert isinstance(exc, ShippingError)
    assert said in str(exc)
    assert "operator 'there'" in notes(exc)


@in_processes
@pytest.mark.parametrize(("make", "said"), [(locks, "lock"), (generators, "generator")])
def test_a_result_that_cannot_come_back_names_operator_and_type(make: Any, said: str, options: dict[str, Any]) -> None:
    exc, _ = failure(lambda env: env.from_batch([0, 1]).map(make, name="there", **options))
    assert isinstance(exc, ShippingError)
    assert said in str(exc)
    assert "operator 'there'" in notes(exc)


def test_a_function_that_cannot_travel_is_named_with_its_variable() -> None:
    lock = threading.Lock()

    def holds(item: int) -> int:
        with lock:
            return item

    exc, _ = failure(lambda env: env.from_batch([1]).map(holds, executor="process", name="there"))
    assert isinstance(exc, ShippingError)
    assert "operator 'there' (map)" in str(exc)
    assert "'lock'" in str(exc)


def doubled(reading: Reading) -> Reading:
    assert type(reading) is Reading
    return Reading(2 * reading.value)


@in_processes
def test_items_come_back_as_instances_of_the_callers_own_class(options: dict[str, Any]) -> None:
    out = result(lambda env: env.from_batch([Reading(1.5), Reading(2)]).map(doubled, **options))
    assert out == [Reading(3.0), Reading(4)]
    assert {type(one) for one in out} == {Reading}


def test_a_class_made_in_a_function_keeps_its_identity() -> None:
    @dataclass
    class Local:
        value: int

    def plus(item: Local) -> Local:
        return Local(item.value + 1)

    (out,) = result(lambda env: env.from_batch([Local(1)]).map(plus, executor="process").map(plus, executor="process"))
    assert type(out) is Local
    assert out == Local(3)


# Exceptions


def checked(value: float) -> float:
    if value > 10:
        raise Refused(value, 10.0)
    return value


@in_processes
def test_an_exception_comes_back_as_its_own_type_with_operator_item_and_line(options: dict[str, Any]) -> None:
    exc, job = failure(lambda env: env.from_batch([1.0, 12.0]).map(checked, name="check", **options))
    assert type(exc) is Refused
    assert (exc.value, exc.limit, str(exc)) == (12.0, 10.0, "12.0 is above 10.0")
    assert "operator 'check' (map), test_travel.py, line" in notes(exc)
    assert "raise Refused(value, 10.0)" in notes(exc)
    assert "on the item 12.0" in notes(exc)
    error = job.snapshot().error
    assert (error.type, error.operator, error.item) == ("Refused", "check", "12.0")
    assert [line.text.strip() for line in error.code if line.marked] == ["raise Refused(value, 10.0)"]
    assert "in checked" in error.traceback
    assert errors(job) == {"check": 1}


def chained(item: int) -> int:
    try:
        return 1 // item
    except ZeroDivisionError as exc:
        raise LookupError("no share") from exc


def test_the_cause_of_an_exception_comes_along() -> None:
    exc, _ = failure(lambda env: env.from_batch([0]).map(chained, executor="process"))
    assert type(exc) is LookupError
    assert type(exc.__cause__) is ZeroDivisionError


def test_a_lambda_in_a_process_is_named_at_its_line() -> None:
    exc, _ = failure(lambda env: env.from_batch([1, 0]).map(lambda x: 1 // x, executor="process"))
    assert type(exc) is ZeroDivisionError
    assert "(map), test_travel.py, line" in notes(exc)
    assert "lambda x: 1 // x" in notes(exc)


@pytest.mark.parametrize("error", [StopIteration, SystemExit, KeyboardInterrupt])
def test_no_exception_in_a_process_ends_the_job_as_if_all_were_well(error: type[BaseException]) -> None:
    def fails(item: int) -> int:
        raise error("mine")

    exc, _ = failure(lambda env: env.from_batch([1]).map(fails, executor="process", name="there"))
    assert type(exc) is error
    assert "operator 'there'" in notes(exc)


class Phases(MapFunction):
    def __init__(self, phase: str) -> None:
        self.phase = phase
        if phase == "__init__":
            raise LookupError(phase)

    def open(self) -> None:
        if self.phase == "open":
            raise LookupError(self.phase)

    def execute(self, data: int) -> int:
        return data

    def close(self) -> None:
        if self.phase == "close":
            raise LookupError(self.phase)


@pytest.mark.parametrize("phase", ["__init__", "open", "close"])
def test_an_error_outside_execute_comes_back_with_its_operator(phase: str) -> None:
    exc, _ = failure(lambda env: env.from_batch([1]).map(Phases, phase, executor="process", name="there"))
    assert type(exc) is LookupError
    assert "operator 'there' (map)" in notes(exc)


def breaks() -> Iterator[int]:
    yield 1
    raise ConnectionError("lost")


def test_a_source_in_a_process_fails_with_its_own_error_after_the_items_before() -> None:
    exc, job = failure(lambda env: env.from_batch(breaks), backend="processes")
    assert type(exc) is ConnectionError
    assert "operator 'breaks' (source), test_travel.py, line" in notes(exc)
    assert list(job.results["out"]) in ([1], [])


# What it says


class Talks(MapFunction):
    def execute(self, data: int) -> int:
        print(f"printed {data}")
        self.logger.warning("logged %d", data)
        return os.getpid()


@pytest.mark.parametrize("backend", ["threads", "processes"])
def test_print_and_logger_in_a_process_reach_stdout_and_the_jobs_log(
    backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    env = LocalEnvironment("talks", backend=backend)
    env.from_batch([1, 2]).map(Talks, executor="process", name="talks").collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    assert os.getpid() not in job.results["out"]
    assert capsys.readouterr().out == "printed 1\nprinted 2\n"
    said = [(line.source, line.level, line.text) for line in job.logs()]
    assert ("talks", "WARNING", "logged 1") in said
    assert ("talks", "WARNING", "logged 2") in said


# Services


class Sums(BaseService):
    """Adds up, and says where."""

    def __init__(self) -> None:
        self.total = 0

    def process(self, value: int) -> tuple[int, int]:
        self.total += value
        return self.total, os.getpid()

    def refuse(self, value: float) -> None:
        raise Refused(value, 0.0)

    def wait(self) -> None:
        time.sleep(0.3)


def asks(item: int) -> Any:
    return call_service("sums", item), os.getpid()


class AsksLater(MapFunction):
    def execute(self, data: int) -> Any:
        return self.call_service_async("sums", data).result(LIMIT), os.getpid()


class AsksProxy(MapFunction):
    def execute(self, data: int) -> Any:
        return self.call_service("sums").process(data), os.getpid()


@pytest.mark.parametrize(
    ("function", "options"),
    [(asks, IN_PROCESSES[0]), (asks, IN_PROCESSES[1]), (AsksLater, IN_PROCESSES[0]), (AsksProxy, IN_PROCESSES[0])],
)
def test_a_service_called_from_a_process_runs_in_the_kernel(function: Any, options: dict[str, Any]) -> None:
    env = LocalEnvironment("asks")
    env.register_service("sums", Sums)
    env.from_batch(range(1, 31)).map(function, **options).collect("out")
    job = env.submit(autostop=True, timeout=LIMIT)
    out = list(job.results["out"])
    assert max(total for (total, _), _ in out) == sum(range(1, 31))
    assert {pid for (_, pid), _ in out} == {os.getpid()}
    assert os.getpid() not in {pid for _, pid in out}
    assert job.snapshot().services[0].calls == 30


def asks_unknown(item: int) -> Any:
    return call_service("sum", item)


def asks_unknown_by_proxy(item: int) -> Any:
    return call_service("sum").process(item)


def asks_too_much(item: int) -> Any:
    return call_service("sums", item, method="refuse")


def asks_briefly(item: int) -> Any:
    return call_service("sums", method="wait", timeout=0.01)


def asks_nothing_there(item: int) -> Any:
    return call_service("sums").absent(item)


@pytest.mark.parametrize(
    ("function", "error", "name"),
    [
        (asks_unknown, ServiceNotFoundError, "ServiceNotFoundError"),
        (asks_unknown_by_proxy, ServiceNotFoundError, "ServiceNotFoundError"),
        (asks_too_much, Refused, "Refused"),
        (asks_briefly, ServiceTimeout, "ServiceTimeout"),
        (asks_nothing_there, AttributeError, "ServiceMethodError"),
    ],
)
def test_an_error_of_a_service_reaches_the_process_that_called_with_its_type(
    function: Any, error: type[Exception], name: str
) -> None:
    def caught(item: int) -> str:
        try:
            function(item)
        except error as exc:
            return type(exc).__name__
        return "nothing was raised"

    env = LocalEnvironment("asks")
    env.register_service("sums", Sums)
    env.from_batch([1]).map(caught, executor="process").collect("out")
    assert list(env.submit(autostop=True, timeout=LIMIT).results["out"]) == [name]


class Gives(BaseService):
    """Raises what came from yet another process."""

    def process(self, item: int) -> None:
        raise RemoteError("Elsewhere", "what it said", "how it came")


def catches(item: int) -> tuple[str, str, str]:
    try:
        call_service("gives", item)
    except RemoteError as exc:
        return exc.type_name, exc.text, exc.remote_traceback
    return "", "", ""


def test_an_error_that_could_not_be_rebuilt_before_goes_on_to_the_next_process_whole() -> None:
    env = LocalEnvironment("gives")
    env.register_service("gives", Gives)
    env.from_batch([1]).map(catches, executor="process").collect("out")
    (out,) = env.submit(autostop=True, timeout=LIMIT).results["out"]
    assert out == ("Elsewhere", "what it said", "how it came")
