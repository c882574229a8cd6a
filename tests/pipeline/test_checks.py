"""Bad input: refused at the line that declares it, in one line that says what and what to do."""

from __future__ import annotations

import copy
import functools
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from sage_nb import (
    BaseService,
    BatchFunction,
    DuplicateNameError,
    LocalEnvironment,
    MapFunction,
    PipelineError,
    RemoteEnvironment,
    SageError,
    Session,
    SignatureError,
    Sliding,
    Tumbling,
)
from sage_nb.pipeline.missing import ENVIRONMENT, STREAM
from sage_nb.pipeline.stream import ConnectedStreams, KeyedStream
from tests.support import counts, ran


class NeedsTwo(MapFunction):
    def __init__(self, first: int, second: int) -> None:
        self.both = first, second

    def execute(self, data: Any) -> Any:
        return data


class Takes(MapFunction):
    def execute(self, data: Any) -> Any:
        return data


class TakesAlike(MapFunction):
    def __init__(self, paralelism: int, **others: Any) -> None:
        self.own = paralelism, others

    def execute(self, data: Any) -> Any:
        return self.own


class WithoutEnd(BatchFunction):
    def execute(self) -> Any:
        return None


class ForgotExecute(MapFunction):
    pass


class TakesTwo(MapFunction):
    def execute(self, data: Any, other: Any) -> Any:  # type: ignore[override]
        return data


class AsyncExecute(MapFunction):
    async def execute(self, data: Any) -> Any:
        return data


class WithArgument(BatchFunction):
    def execute(self, data: Any) -> Any:  # type: ignore[override]
        return data


class Nothing:
    pass


async def coroutine(item: Any) -> Any:
    return item


def pair(env: LocalEnvironment) -> Any:
    return env.from_batch([1]).connect(env.from_batch([2]))


async def async_items() -> Any:
    yield 1


def two(first: Any, second: Any) -> Any:
    return first, second


def frame() -> Any:
    import pandas as pd

    return pd.DataFrame({"a": [1]})


Declare = Callable[[Any], Any]
"""Untyped: what a type checker would refuse too is to be refused here."""

REFUSED: list[tuple[Declare, type[SageError], str]] = [
    # the wrong arity
    (lambda env: env.from_batch([1]).map(lambda: 1), SignatureError, "one argument"),
    (lambda env: env.from_batch([1]).map(two), SignatureError, "two is called with one argument"),
    (lambda env: env.from_batch([1]).filter(two), SignatureError, "filter: two"),
    (lambda env: env.from_batch([1]).flatmap(two), SignatureError, "flatmap: two"),
    (lambda env: env.from_batch([1]).sink(lambda: None), SignatureError, "sink:"),
    (lambda env: env.from_batch([1]).map(functools.partial(two, 1, 2)), SignatureError, "one argument"),
    (lambda env: env.from_batch([1]).map(lambda x, *, unit: x), SignatureError, "unit"),
    (lambda env: env.from_batch([1]).map(TakesTwo), SignatureError, "TakesTwo.execute"),
    (lambda env: env.from_batch(WithArgument), SignatureError, "WithArgument.execute"),
    (lambda env: env.from_batch(two), SignatureError, "two"),
    # what is no function
    (lambda env: env.from_batch([1]).map(5), SignatureError, "takes a callable or a function class, not int"),
    (lambda env: env.from_batch([1]).map(None), SignatureError, "not NoneType"),
    (lambda env: env.from_batch([1]).map(NeedsTwo(1, 2)), SignatureError, r"map\(NeedsTwo, \.\.\.\)"),
    (lambda env: env.from_batch([1]).map(ForgotExecute), SignatureError, r"does not define execute\(\)"),
    (lambda env: env.from_batch([1]).filter(coroutine), SignatureError, "coroutine function.*map_async"),
    (lambda env: env.from_batch([1]).flatmap(AsyncExecute), SignatureError, "coroutine"),
    (lambda env: env.from_batch([1]).map_async(len), SignatureError, r"takes that itself, as in map_async\(f\)"),
    (lambda env: env.from_batch([1]).map_async(lambda x: coroutine(x)), SignatureError, "or write an `async def`"),
    (lambda env: env.from_batch([1]).map(str.upper, 1), SignatureError, "lambda or functools.partial"),
    # slips in the options' names
    (lambda env: env.from_batch([1]).map(Takes, paralelism=2), SignatureError, "did you mean 'parallelism'"),
    (lambda env: env.from_batch([1]).map(str, paralelism=2), SignatureError, "did you mean 'parallelism'"),
    (lambda env: env.from_batch([1]).map_async(coroutine, concurency=3), SignatureError, "did you mean 'concurrency'"),
    (lambda env: env.from_batch([1]).map(coroutine, concurency=3), SignatureError, "did you mean 'concurrency'"),
    (lambda env: env.from_batch([1]).keyby(Takes, stratgy="hash"), SignatureError, "did you mean 'strategy'"),
    (lambda env: env.from_batch([1]).sink(Takes, onerror="skip"), SignatureError, "did you mean 'on_error'"),
    (lambda env: env.from_batch([1]).map_batches(Takes, sizes=3), SignatureError, "did you mean 'size'"),
    (lambda env: env.from_batch(WithoutEnd, excutor="process"), SignatureError, "did you mean 'executor'"),
    # constructors
    (lambda env: env.from_batch([1]).map(NeedsTwo, 1), SignatureError, "second"),
    (lambda env: env.from_batch([1]).map(NeedsTwo, 1, 2, third=3), SignatureError, "third"),
    # sources
    (lambda env: env.from_batch(5), SignatureError, "iterable, a callable or a class, and int is none"),
    (lambda env: env.from_collection(None), SignatureError, "from_collection"),
    (lambda env: env.from_source(object()), SignatureError, "from_source"),
    (lambda env: env.from_batch(Nothing), SignatureError, r"neither execute\(\) nor __iter__\(\)"),
    (lambda env: env.from_batch([1], 2), SignatureError, "no arguments after an iterable"),
    (lambda env: env.from_batch(coroutine), SignatureError, "asynchronous"),
    (lambda env: env.from_source(async_items), SignatureError, "asynchronous"),
    (lambda env: env.from_batch(frame()), SignatureError, "from_dataframe"),
    (lambda env: env.from_dataframe([1]), SignatureError, "not list"),
    (lambda env: env.from_text(5), SignatureError, "takes a path"),
    (lambda env: env.from_csv(None), SignatureError, "takes a path"),
    (lambda env: env.from_source(list, delay=-1), PipelineError, "0 or more"),
    (lambda env: env.from_source(list, delay="1"), PipelineError, "number of seconds"),
    # names
    (lambda env: env.from_batch([1], name="a").map(int, name="a"), DuplicateNameError, "'a' already; choose another"),
    (lambda env: env.from_batch([1]).map(int, name=""), PipelineError, "at least one character"),
    (lambda env: env.from_batch([1]).map(int, name=5), PipelineError, "not 5"),
    (lambda env: env.from_batch([1]).collect("r").collect("r"), DuplicateNameError, "result is called 'r' already"),
    (lambda env: env.from_batch([1]).collect("r").show("r"), DuplicateNameError, "result is called 'r' already"),
    (lambda env: env.from_batch([1]).collect(" "), PipelineError, "at least one character"),
    # numbers
    (lambda env: env.from_batch([1]).take(-1), PipelineError, "whole number, 0 or more"),
    (lambda env: env.from_batch([1]).take(1.5), PipelineError, "not 1.5"),
    (lambda env: env.from_batch([1]).take(True), PipelineError, "not True"),
    (lambda env: env.from_batch([1]).show("r", rows=0), PipelineError, "1 or more"),
    # what is asked of Ray
    (lambda env: env.from_batch(Nothing, ray={"cpus": 1}), PipelineError, "from_batch: ray has no option 'cpus'"),
    (lambda env: env.register_service("s", Nothing, ray=[]), PipelineError, "register_service: ray is a dict"),
    # how an operator runs
    (lambda env: env.from_batch([1]).map(int, parallelism=0), PipelineError, "number of instances, 1 or more, not 0"),
    (lambda env: env.from_batch([1]).map(int, parallelism=True), PipelineError, "not True"),
    (lambda env: env.from_batch([1]).map(int, executor="gpu"), PipelineError, "'thread' or 'process', not 'gpu'"),
    (lambda env: env.from_batch([1]).map(int, on_error="ignore"), PipelineError, "'skip' or 'dead_letter'"),
    (lambda env: env.from_batch([1]).map(int, ordered=False), PipelineError, "'ordered' is reserved"),
    (lambda env: env.from_batch([1]).map_async(coroutine, concurrency=0), PipelineError, "1 or more, not 0"),
    (lambda env: env.from_batch([1]).map_async(coroutine, item_timeout=0), PipelineError, "above 0"),
    (lambda env: env.from_batch([1], parallelism=2), PipelineError, "only a class can have several instances"),
    (lambda env: env.from_batch([1], on_error="skip"), PipelineError, "on_error is for operators"),
    # keys and windows
    (lambda env: env.from_batch([1]).keyby(int, strategy="random"), PipelineError, "'round_robin', not 'random'"),
    (lambda env: env.from_batch([1]).keyby(int).reduce(lambda x: x), SignatureError, "two arguments"),
    (lambda env: env.from_batch([1]).keyby(int).count(expire_after=0), PipelineError, "above 0"),
    (lambda env: env.from_batch([1]).window(5), SignatureError, r"takes Tumbling\(...\)"),
    (lambda env: env.from_batch([1]).window(Tumbling(5), lateness=1), PipelineError, "need an event_time"),
    (lambda env: env.from_batch([1]).window(Tumbling(5), event_time=two), SignatureError, "event_time is called with"),
    (lambda env: env.from_batch([1]).window(Tumbling(5)).late("late"), PipelineError, "without an event_time"),
    (lambda env: env.from_batch([1]).window(Tumbling(5)).aggregate("median"), PipelineError, "there is no 'median'"),
    (lambda env: env.from_batch([1]).window(Tumbling(5)).count(parallelism=2), PipelineError, "call keyby"),
    (lambda env: Tumbling(0), PipelineError, "above 0"),
    (lambda env: Sliding(1, 2), PipelineError, "would leave items out"),
    (lambda env: Session("1"), PipelineError, "timedelta"),
    # several streams
    (lambda env: env.from_batch([1]).connect([2]), SignatureError, "takes streams, not list"),
    (lambda env: env.from_batch([1]).connect(), SignatureError, "at least one other"),
    (lambda env: env.from_batch([1]).connect(LocalEnvironment("b").from_batch([1])), PipelineError, "another environ"),
    (lambda env: pair(env).comap(Nothing), SignatureError, r"has no map0\(\)"),
    (lambda env: pair(env).comap(two), SignatureError, "takes a class with map0"),
    (lambda env: pair(env).join(NeedsTwo, 1, 2), PipelineError, "has no key; call keyby"),
    (lambda env: env.from_batch([1]).fill_future(env.from_batch([1])), SignatureError, "what from_future"),
    (lambda env: env.from_batch([1]).map_batches(len, size=0), PipelineError, "1 or more, not 0"),
    (lambda env: env.from_batch([1]).map_batches(len, format="polars"), PipelineError, "not 'polars'"),
    # services
    (lambda env: env.register_pipeline("s", Nothing), SignatureError, "takes an environment"),
    (lambda env: env.register_pipeline("s", LocalEnvironment("b")), PipelineError, "takes no requests"),
    (lambda env: env.from_batch([1]).keyby(int).reply(), PipelineError, "request's number"),
    (lambda env: env.register_service("s", two), SignatureError, "register_service_factory"),
    (lambda env: env.register_service("s", Nothing()), SignatureError, "give the class itself"),
    (lambda env: env.register_service("s", NeedsTwo, 1), SignatureError, "second"),
    (lambda env: env.register_service("", BaseService), PipelineError, "at least one character"),
    (lambda env: env.register_service_factory("s", 5), SignatureError, "takes a callable"),
    (lambda env: env.register_service_factory("s", two, 1), SignatureError, "second"),
]


@pytest.mark.parametrize(("declare", "error", "message"), REFUSED)
def test_is_refused_where_it_is_declared(declare: Declare, error: type[SageError], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        declare(LocalEnvironment("bad"))
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)


def test_a_constructors_own_parameters_may_be_called_like_an_option() -> None:
    assert ran(lambda env: env.from_batch([1]).map(TakesAlike, paralelism=2, rate=3)) == [(2, {"rate": 3})]


MISSING: list[tuple[Declare, str]] = [
    (lambda stream: stream.count(), "^DataStream has no 'count'; call keyby"),
    (lambda stream: stream.reduce(max), "call keyby"),
    (lambda stream: stream.sum(), "call keyby"),
    (lambda stream: stream.process(print), "call keyby"),
    (lambda stream: stream.interval_join(stream, 0, 1), "call keyby"),
    (lambda stream: stream.comap(Nothing), "call connect"),
    (lambda stream: stream.connect(stream).count(), "map or keyby the merged stream first"),
    (lambda stream: stream.connect(stream).reduce(max), "map or keyby the merged stream first"),
    (lambda stream: stream.window(Tumbling(1)).collect("r"), r"end the window with count\(\), sum\(\) or aggregate"),
    (lambda stream: stream.window(Tumbling(1)).map(str), "end the window"),
    (lambda stream: stream.xyzzy(), "^DataStream has no 'xyzzy'$"),
    (lambda stream: stream.connect(stream).xyzzy(), "^ConnectedStreams has no 'xyzzy'$"),
    (lambda stream: stream.window(Tumbling(1)).xyzzy(), "^WindowedStream has no 'xyzzy'$"),
    (lambda stream: stream.mapp(str), r"^DataStream has no 'mapp'; did you mean 'map'\?$"),
    (lambda stream: stream.filtr(str), r"did you mean 'filter'\?$"),
    (lambda stream: stream.colect("x"), r"did you mean 'collect'\?$"),
    (lambda stream: stream.groupby(len), r"^DataStream has no 'groupby'; did you mean 'keyby'\?$"),
    (lambda stream: stream.gruopBy(len), r"did you mean 'keyby'\?$"),
    (lambda stream: stream.for_each(print), r"did you mean 'sink'\?$"),
    (lambda stream: stream.flat_map(list), r"did you mean 'flatmap'\?$"),
    (lambda stream: stream.where(bool), r"did you mean 'filter'\?$"),
    (lambda stream: stream.select(bool), r"did you mean 'map'\?$"),
    (lambda stream: stream.union(stream), r"did you mean 'connect'\?$"),
    (lambda stream: stream.fold(max), r"did you mean 'reduce'\? \(call keyby\(\) first\)$"),
    (lambda stream: stream.reduc(max), r"did you mean 'reduce'\? \(call keyby\(\) first\)$"),
    (lambda stream: stream.keyby(str).fold(max), r"^KeyedStream has no 'fold'; did you mean 'reduce'\?$"),
    (lambda stream: stream.keyby(str).aggregate(max), r"^KeyedStream has no 'aggregate'; a window has it, window"),
    (lambda stream: stream.window(Tumbling(1)).cuont(), r"did you mean 'count'\?$"),
    (lambda stream: stream.mean(), "^DataStream has no 'mean'; call keyby"),
    (lambda stream: stream.window(Tumbling(1)).mean(), r"^WindowedStream has no 'mean'; use aggregate\('mean'\)$"),
    (lambda stream: stream.window(Tumbling(1)).apply(max), r"did you mean 'aggregate'\?$"),
    (lambda stream: stream._env.from_cvs("x"), r"^LocalEnvironment has no 'from_cvs'; did you mean 'from_csv'\?$"),
    (lambda stream: stream._env.nmae, r"did you mean 'name'\?$"),
    (lambda stream: stream._env.read_csv("x"), r"did you mean 'from_csv'\?$"),
    (lambda stream: stream._env.execute(), r"did you mean 'submit'\?$"),
    (lambda stream: stream._env.map(str), r"a stream has it: begin with a source"),
]


@pytest.mark.parametrize(("declare", "message"), MISSING)
def test_an_operator_that_a_stream_does_not_have_is_refused_with_a_hint(declare: Declare, message: str) -> None:
    with pytest.raises(AttributeError, match=message):
        declare(LocalEnvironment("bad").from_batch([1]))


def test_a_hint_is_no_attribute() -> None:
    stream = LocalEnvironment("bad").from_batch([1])
    assert not any(hasattr(stream, name) for name in ("count", "_repr_html_", "__len__"))
    assert not hasattr(stream.connect(stream), "count")
    assert not hasattr(stream.window(Tumbling(1)), "collect")
    assert copy.copy(stream).name == stream.name
    assert not any(hasattr(stream._env, name) for name in ("read_csv", "_repr_latex_", "__len__"))
    for name in ("_repr_latex_", "__deepcopy__"):
        with pytest.raises(AttributeError, match=f"^'DataStream' object has no attribute '{name}'$"):
            getattr(stream, name)


def test_the_words_of_others_lead_to_what_there_is() -> None:
    known = {*dir(KeyedStream), *dir(ConnectedStreams)}
    assert {*STREAM.values()} <= known
    assert not {*STREAM} & known
    assert {*ENVIRONMENT.values()} <= {*dir(LocalEnvironment)}
    assert not {*ENVIRONMENT} & {*dir(RemoteEnvironment)}


def test_a_misspelt_method_is_asked_about_once_and_at_the_users_line() -> None:
    with pytest.raises(AttributeError) as caught:
        LocalEnvironment("bad").from_batch([1]).mapp(str)
    assert "".join(traceback.format_exception(caught.value)).count("id you mean") == 1
    assert "".join(traceback.format_exception_only(caught.value)).startswith("AttributeError: DataStream has no 'mapp'")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (AttributeError, str(caught.value))


def test_what_was_refused_leaves_the_pipeline_as_it_was() -> None:
    env = LocalEnvironment("bad")
    stream = env.from_batch([7])
    stream.collect("out")
    for declare in (
        lambda: env.from_batch(5),
        lambda: stream.map(two),
        lambda: stream.map(int, name="source"),
        lambda: stream.show("out"),
        lambda: stream.show("other", rows=0),
        lambda: env.register_service("s", NeedsTwo),
    ):
        with pytest.raises(PipelineError):
            declare()
    stream.show("other")
    job = env.submit(autostop=True)
    assert counts(job) == {"source": (0, 1), "out": (1, 0), "other": (1, 0)}
    assert job.progress.services == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": ""}, "at least one character"),
        ({"name": None}, "not None"),
        ({"config": {"service_stop_timout": 1}}, "did you mean 'service_stop_timeout'"),
        ({"config": {"service_stop_timeout": 0}}, "above 0"),
        ({"config": {"service_stop_timeout": "1"}}, "number of seconds"),
        ({"backend": "thread"}, "did you mean 'threads'"),
        ({"config": {"inline": 1}}, "inline is True or False"),
        ({"config": {"fault_tolerance": "fixed"}}, "a dict with a strategy"),
        ({"config": {"fault_tolerance": {"strategy": "fixed", "atempts": 3}}}, "has no 'atempts'"),
        ({"config": {"fault_tolerance": {"strategy": "fixed", "attempts": -1}}}, "whole number, 0 or more"),
    ],
)
def test_an_environment_refuses_unknown_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        LocalEnvironment(**options)


def test_a_closed_environment_takes_no_more() -> None:
    env = LocalEnvironment("closed")
    stream = env.from_batch([1])
    env.close()
    for declare in (lambda: env.from_batch([2]), lambda: stream.map(int), lambda: env.register_service("s", Nothing)):
        with pytest.raises(PipelineError, match="make a new one"):
            declare()


@pytest.mark.parametrize(
    "fn",
    [int, str.strip, lambda x, y=1: x, lambda *args: args[0], functools.partial(pow, exp=1), "{}".format, max],
)
def test_a_callable_that_takes_one_item_is_accepted(fn: Any) -> None:
    LocalEnvironment("fine").from_batch([1]).map(fn)


def test_bound_methods_and_callable_objects_are_accepted() -> None:
    class Adder:
        def __call__(self, item: int) -> int:
            return item + 1

        def method(self, item: int) -> int:
            return item * 10

    assert ran(lambda env: env.from_batch([1]).map(Adder()).map(Adder().method)) == [20]
