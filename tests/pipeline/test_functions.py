"""Function classes: their life and their members."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sage_nb import (
    BaseFunction,
    BatchFunction,
    FilterFunction,
    FlatMapFunction,
    LocalEnvironment,
    MapFunction,
    SinkFunction,
    SourceFunction,
    StopSignal,
)
from tests.support import Gate, counts, ran, submitted


class Recorded:
    """Notes its life; `trouble` names the method that raises."""

    life: list[str]
    trouble: str

    def _note(self, event: str) -> None:
        self.life.append(f"{self.label} {event}")
        if event == self.trouble:
            raise LookupError(f"{self.label} {event}")

    def __init__(self, label: str, life: list[str], trouble: str = "") -> None:
        self.label, self.life, self.trouble = label, life, trouble
        self._note("made")

    def open(self) -> None:
        self._note("open")

    def close(self) -> None:
        self._note("close")


class Source(Recorded, BatchFunction):
    left = 2

    def execute(self) -> int | None:
        self.left -= 1
        if self.left < 0:
            return None
        if self.trouble == "execute":
            self._note("execute")
        return self.left


class Endless(Recorded, SourceFunction):
    def execute(self) -> int:
        return 1


class Map(Recorded, MapFunction):
    def execute(self, data: Any) -> Any:
        if self.trouble == "execute":
            self._note("execute")
        return data


class Sink(Recorded, SinkFunction):
    def execute(self, data: Any) -> None:
        if self.trouble == "execute":
            self._note("execute")


def declared(life: list[str], trouble: str = "", at: str = "", source: type = Source) -> LocalEnvironment:
    def of(label: str) -> str:
        return trouble if at == label else ""

    env = LocalEnvironment("life")
    stream = env.from_batch(source, "source", life, of("source"))
    stream.map(Map, "map", life, of("map")).sink(Sink, "sink", life, of("sink"))
    return env


def test_each_function_is_made_and_opened_before_the_first_item_and_closed_after_the_last() -> None:
    life: list[str] = []
    declared(life).submit(autostop=True)
    assert life == [
        *("source made", "source open", "map made", "map open", "sink made", "sink open"),
        *("source close", "map close", "sink close"),
    ]


@pytest.mark.parametrize("at", ["source", "map", "sink"])
@pytest.mark.parametrize("trouble", ["made", "open", "execute", "close"])
def test_what_was_made_is_closed_once_wherever_the_job_fails(at: str, trouble: str) -> None:
    """`close()` runs once per instance, on every ending."""
    life: list[str] = []
    with pytest.raises(LookupError, match=f"{at} {trouble}") as caught:
        declared(life, trouble, at).submit(autostop=True)
    made = [event.split()[0] for event in life if event.endswith("made") and event != f"{at} {trouble}"]
    assert [event.split()[0] for event in life if event.endswith("close")] == made
    assert any(f"operator '{at.capitalize()}'" in note for note in caught.value.__notes__)


def test_functions_are_closed_once_when_the_job_is_stopped() -> None:
    life: list[str] = []
    job = declared(life, source=Endless).submit()
    job.stop()
    job.stop()
    assert [event for event in life if event.endswith("close")] == ["source close", "map close", "sink close"]


def test_functions_are_closed_once_when_the_job_runs_out_of_time() -> None:
    life: list[str] = []
    with pytest.raises(TimeoutError):
        declared(life, source=Endless).submit(autostop=True, timeout=0.1)
    assert [event for event in life if event.endswith("close")] == ["source close", "map close", "sink close"]


def test_a_call_that_was_given_up_is_closed_when_it_comes_back() -> None:
    closed = threading.Event()
    gate = Gate()

    class Stuck(MapFunction):
        def execute(self, data: Any) -> Any:
            return gate(data)

        def close(self) -> None:
            assert not closed.is_set()
            closed.set()

    job = submitted(lambda env: env.from_batch([1]).map(Stuck), autostop=False)
    with gate:
        gate.wait()
        job.stop(timeout=0.1)
        assert not closed.is_set()
    assert closed.wait(30)


def test_a_sink_whose_close_raises_fails_the_job_which_had_all_items() -> None:
    class Flushes(SinkFunction):
        def execute(self, data: Any) -> None: ...

        def close(self) -> None:
            raise OSError("disk full")

    env = LocalEnvironment("flush")
    env.from_batch([1, 2]).sink(Flushes)
    with pytest.raises(OSError, match="disk full") as caught:
        env.submit(autostop=True)
    assert "close() of operator 'Flushes' (sink)" in caught.value.__notes__[0]
    assert env.job is not None
    assert (env.job.status, counts(env.job)["Flushes"]) == ("failed", (2, 0))


def test_a_second_failure_is_logged_and_the_first_one_raised() -> None:
    life: list[str] = []

    class Fails(Map):
        def close(self) -> None:
            raise OSError("close too")

    env = LocalEnvironment("two failures")
    env.from_batch([1]).map(Fails, "map", life, "execute").collect("out")
    with pytest.raises(LookupError):
        env.submit(autostop=True)
    assert env.job is not None
    assert any("close too" in line.text for line in env.job.logs())


def test_each_use_of_a_class_is_an_instance_of_its_own() -> None:
    seen: list[int] = []

    class Counter(MapFunction):
        def __init__(self) -> None:
            seen.append(id(self))
            self.calls = 0

        def execute(self, data: int) -> int:
            self.calls += 1
            return self.calls

    env = LocalEnvironment("instances")
    env.from_batch([5, 5]).map(Counter).map(Counter).collect("out")
    for _ in range(2):
        assert list(env.submit(autostop=True).results["out"]) == [1, 2]
    assert len(seen) == 4


def test_the_context_is_there_from_open_on() -> None:
    class Looks(MapFunction):
        def __init__(self) -> None:  # super().__init__() left out on purpose
            self.early = getattr(self, "ctx", None)

        def open(self) -> None:
            self.ctx.state["offset"] = 10

        def execute(self, data: int) -> tuple[Any, ...]:
            ctx = self.ctx
            return (
                *(self.early, self.name, ctx.name, ctx.parallel_index, ctx.parallelism, ctx.get_key()),
                *(ctx.state["offset"] + data, ctx.is_stop_requested()),
            )

    (got,) = ran(lambda env: env.from_batch([1]).map(Looks, name="looker"))
    assert got == (None, "looker", "looker", 0, 1, None, 11, False)


def test_a_member_used_in_a_constructor_says_when_it_is_there() -> None:
    class TooEarly(MapFunction):
        def __init__(self) -> None:
            self.logger.info("hello")

        def execute(self, data: Any) -> Any:
            return data

    with pytest.raises(AttributeError, match=r"from open\(\) on; not in __init__"):
        ran(lambda env: env.from_batch([1]).map(TooEarly))


def test_a_function_may_have_a_name_of_its_own() -> None:
    class Named(MapFunction):
        def __init__(self, name_: str) -> None:
            self.name = name_

        def execute(self, data: Any) -> Any:
            return self.name

    assert ran(lambda env: env.from_batch([1]).map(Named, "mine")) == ["mine"]


class Sealed:
    """Takes no attribute from outside."""

    __slots__ = ()

    def execute(self, item: Any) -> Any:
        return item


class Guarded:
    def __setattr__(self, name: str, value: Any) -> None:
        raise ValueError(f"{name} is not a field")

    def execute(self, item: Any) -> Any:
        return item


@pytest.mark.parametrize("cls", [Sealed, Guarded])
def test_a_class_that_takes_no_attributes_fits(cls: type) -> None:
    assert ran(lambda env: env.from_batch([1]).map(cls)) == [1]


def test_a_source_that_waits_by_itself_can_ask_whether_to_stop() -> None:
    waiting = threading.Event()

    class Waits(SourceFunction):
        def execute(self) -> Any:
            pause = threading.Event()
            while not self.ctx.is_stop_requested():
                waiting.set()
                pause.wait(0.001)
            return StopSignal("asked to")

    job = submitted(lambda env: env.from_source(Waits), autostop=False)
    assert waiting.wait(30)
    assert job.stop().notes == ()


def test_the_logger_writes_to_the_jobs_log() -> None:
    class Logs(MapFunction):
        def execute(self, data: Any) -> Any:
            self.logger.warning("saw %s", data)
            self.logger.debug("not this")
            return data

    job = submitted(lambda env: env.from_batch([7]).map(Logs, name="watcher"))
    assert [(line.level, line.source, line.text) for line in job.logs()] == [("WARNING", "watcher", "saw 7")]


@pytest.mark.parametrize("base", [BaseFunction, MapFunction, FilterFunction, FlatMapFunction, SinkFunction])
def test_base_constructors_accept_and_ignore_anything(base: type) -> None:
    cls = type("Own", (base,), {"execute": lambda self, data: data})
    cls(1, 2, key="word")


def test_functions_of_one_task_run_on_one_thread() -> None:
    threads: set[int] = set()

    def here(item: Any) -> Any:
        threads.add(threading.get_ident())
        return item

    def numbers() -> Iterator[int]:
        threads.add(threading.get_ident())
        yield from range(3)

    ran(lambda env: env.from_batch(numbers).map(here).filter(lambda x: here(x) is not None))
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


@pytest.mark.parametrize("ending", ["completed", "failed", "stopped"])
def test_a_generator_source_runs_its_finally_on_every_ending(ending: str) -> None:
    events: list[str] = []
    gate = Gate(at=3)

    def numbers() -> Iterator[int]:
        try:
            yield from range(5) if ending == "completed" else itertools.count()
        finally:
            events.append("finally")

    def step(item: int) -> int:
        gate(item)
        if ending == "failed":
            raise LookupError(item)
        return item

    gate.open() if ending != "stopped" else None
    job = submitted(lambda env: env.from_source(numbers).map(step), autostop=False)
    if ending == "stopped":
        gate.wait()
        job.request_stop()
        gate.open()
    finish: Callable[[], Any] = job.stop if ending == "stopped" else job.wait
    if ending == "failed":
        with pytest.raises(LookupError):
            finish()
    else:
        finish()
    assert (events, job.status) == (["finally"], ending)
