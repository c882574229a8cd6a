"""`DataStream` and its kin: what operators chain on.

Every method adds one operator and returns the stream to go on with: a new one behind an operator, this same one
behind a sink, so that a stream can be tapped in passing.

Each operator takes the same reserved keywords. `name` is what it is called in views and errors. `parallelism` is its
number of instances, 1 unless given: each is made and closed on its own, and runs at the same time as the others.
`executor="process"` runs them in processes of their own. `on_error` says what becomes of an item on which the
function fails: `"fail"` ends the job, `"skip"` counts and drops the item, `"dead_letter"` keeps it as well, in
`job.dead_letters[name]`.
"""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

from sage_nb.errors import PipelineError, SignatureError
from sage_nb.pipeline.batches import batch_spec
from sage_nb.pipeline.checks import (
    FunctionSpec,
    check_arity,
    check_constructor,
    function_name,
    function_spec,
    has_execute,
    is_coroutine,
    reject_reserved,
    settings_of,
    without_self,
)
from sage_nb.pipeline.fields import as_function, check_names
from sage_nb.pipeline.files import CsvSink, JsonlSink, ParquetSink, check_target, is_written
from sage_nb.pipeline.graph import Operator, Settings
from sage_nb.pipeline.missing import STREAM, missing
from sage_nb.pipeline.operators import VALUED, AsyncSpec, IntervalSpec, KeyBySpec, ProcessSpec, ReduceSpec, ResultSpec
from sage_nb.pipeline.requests import ReplySink, number_of
from sage_nb.pipeline.windows import AGGREGATES, Session, Sliding, Tumbling, WindowSpec, duration

if TYPE_CHECKING:
    from sage_nb.pipeline.environment import BaseEnvironment

__all__ = ["ConnectedStreams", "DataStream", "FutureStream", "KeyedStream", "WindowedStream"]

_PLAIN = Settings()
_ROWS, _LATEST_ROWS = 10, 200
_KEYED = ("reduce", "count", *VALUED, "process", "interval_join")
_AGGREGATE = dict.fromkeys(
    ("aggregate", "agg"), "a window has it, window(...).aggregate(), and a key has count(), sum(), mean() and reduce()"
)
_CONNECT = dict.fromkeys(("comap", "join"), "call connect() first")
_HINTS = {**dict.fromkeys(_KEYED, "call keyby() first"), **_CONNECT, **_AGGREGATE}
"""What to do before an operator that a stream does not have."""
_STRATEGIES = ("hash", "broadcast", "round_robin")


class DataStream:
    """A stream of items; made by an environment's `from_...` methods and by other streams."""

    __slots__ = ("_env", "_inputs")
    _hints: ClassVar[dict[str, str]] = _HINTS

    def __init__(self, env: BaseEnvironment, inputs: tuple[int, ...]) -> None:
        self._env = env
        self._inputs = inputs

    def __repr__(self) -> str:
        return f"<{type(self).__name__} behind {self.name!r} of {self._env.name!r}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise missing(self, name, self._hints, STREAM)

    @property
    def name(self) -> str:
        """Name of the operator whose items these are."""
        return " + ".join(self._env._graph.operators[one].name for one in self._inputs)

    # Item by item

    def map(
        self,
        fn: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> Any:
        """Replace each item by `fn(item)`; a result of None emits nothing.

        `fn` is a callable, or a class with `execute(item)` whose constructor gets `args` and `kw`. A coroutine
        function is awaited, as by `map_async`.
        """
        if is_coroutine(fn):
            return self.map_async(
                fn, *args, name=name, parallelism=parallelism, executor=executor, on_error=on_error, **kw
            )
        return self._function("map", fn, args, kw, name, settings_of("map", parallelism, executor, on_error, ray=ray))

    def named(self, *columns: str, name: str | None = None, on_error: str | None = None) -> Any:
        """Make each item, a tuple or list of so many parts, a dict with these keys: a row with columns of these names.

        `keyby("store").sum("price").named("store", "total")` makes `{"store": "Rome", "total": 9.5}` of each sum.
        """
        return self.map(check_names(columns), name=name, on_error=on_error)

    def filter(
        self,
        fn: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> Any:
        """Let an item pass where `fn(item)` is truthy. `fn` as in `map`."""
        return self._function(
            "filter", fn, args, kw, name, settings_of("filter", parallelism, executor, on_error, ray=ray)
        )

    def flatmap(
        self,
        fn: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> Any:
        """Replace each item by the items of the iterable `fn(item)`; None stands for none, text is one item.

        `fn` as in `map`. A `FlatMapFunction` may call `self.collect(x)` instead, or as well.
        """
        return self._function(
            "flatmap", fn, args, kw, name, settings_of("flatmap", parallelism, executor, on_error, ray=ray)
        )

    def map_async(
        self,
        fn: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        concurrency: int = 100,
        ordered: bool = True,
        item_timeout: float | timedelta | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> Any:
        """Replace each item by `await fn(item)`, with up to `concurrency` items under way at once.

        `fn` is a coroutine function, or a class whose `execute(item)` is one. Results come in the order of the items
        that the instance got, or as they are ready where `ordered` is False. An item that takes longer than
        `item_timeout` seconds fails with `ItemTimeout`; its coroutine is cancelled, as is every other when the job
        stops.
        """
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
            raise PipelineError(f"map_async: concurrency is a whole number, 1 or more, not {concurrency!r}")
        limit = None if item_timeout is None else duration("map_async: item_timeout", item_timeout)
        settings = settings_of("map_async", parallelism, executor, on_error, ray=ray)
        function = function_spec("map_async", fn, args, kw, coroutine=True)
        if not is_coroutine(fn) and inspect.isroutine(fn) and not hasattr(fn, "func"):
            raise SignatureError(
                f"map_async: {function_name(fn) or 'the function'} is not a coroutine function; it takes that itself, "
                "as in map_async(f), or write an `async def`"
            )
        spec = AsyncSpec(function, concurrency, bool(ordered), limit)
        return self._stream(self._add("async", spec, name, function_name(fn) or "map_async", settings))

    def map_batches(
        self,
        fn: Callable[..., Any],
        *args: Any,
        size: int | None = None,
        format: str = "list",
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> Any:
        """Call `fn` with many items at once; the rows of what it returns go on as items.

        `format` is what `fn` gets: a `"list"`, a `"numpy"` array, a `"pandas"` DataFrame or an `"arrow"` table, of up
        to `size` items; None for as many as the source or the operator before hands over, 4,096 of single items. A
        result of another `map_batches`, or of an array or frame given to `from_batch`, is handed on as it is, without
        a Python object per row. Any other iterable, such as a generator, is taken apart, as by `flatmap`; None is no
        item, and everything else is one: text, dicts, and what else has fields.
        """
        spec = batch_spec(fn, args, kw, size, format)
        settings = settings_of("map_batches", parallelism, executor, on_error, ray=ray)
        return self._stream(self._add("batches", spec, name, function_name(fn) or "map_batches", settings))

    def take(self, n: int, *, name: str | None = None) -> Any:
        """Let the first `n` items pass. The job ends as soon as nothing behind any `take` wants more."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise PipelineError(f"take: takes a whole number, 0 or more, not {n!r}")
        return self._stream(self._add("take", n, name, f"take {n:,}"))

    # Keys and windows

    def keyby(
        self,
        fn: Callable[..., Any] | str,
        *args: Any,
        strategy: str = "hash",
        name: str | None = None,
        parallelism: int | None = None,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> KeyedStream:
        """Give each item the key `fn(item)`, which travels with it until the next `keyby`. A name for `fn` stands for
        the column of that name, of dicts, named tuples and dataclasses.

        Where an operator behind has several instances, `strategy` says which one gets an item: `"hash"`, the one
        that gets all items of that key; `"round_robin"`, the next one; `"broadcast"`, every one. The keys themselves
        are made by as many instances as the operator before has, unless `parallelism` says otherwise. With `"hash"`,
        keys are None, bools, numbers, text, bytes, dates, enums, and tuples of these: what has the same hash in every
        process.
        """
        if strategy not in _STRATEGIES:
            raise PipelineError(f"keyby: strategy is one of {', '.join(map(repr, _STRATEGIES))}, not {strategy!r}")
        settings = settings_of("keyby", parallelism or 1, executor, on_error, ray=ray)
        if parallelism is None:
            settings = replace(settings, parallelism=None)
        fn = as_function(fn)
        spec = KeyBySpec(function_spec("keyby", fn, args, kw), strategy)
        op = self._add("keyby", spec, name, function_name(fn) or "keyby", settings)
        return KeyedStream(self._env, (op.id,))

    def window(
        self,
        window: Tumbling | Sliding | Session,
        *,
        event_time: Callable[[Any], Any] | None = None,
        out_of_orderness: float | timedelta = 0,
        lateness: float | timedelta = 0,
    ) -> WindowedStream:
        """Gather the items of each key, or all where there is no key, in windows of time.

        `event_time(item)` gives an item's time: seconds since the epoch, or a `datetime`; without it, the time at
        which the item comes counts. `out_of_orderness` is by how much items may come out of order: the watermark is
        the latest time seen, less that. A window fires when the watermark passes its end; an item that comes for it
        later, but within `lateness`, lets it fire again. What comes later still is left to `late()`.
        """
        if not isinstance(window, (Tumbling, Sliding, Session)):
            raise SignatureError(f"window: takes Tumbling(...), Sliding(...) or Session(...), not {window!r}")
        if event_time is not None:
            if not callable(event_time):
                raise SignatureError(f"window: event_time is a function of an item, not {type(event_time).__name__}")
            check_arity("window", event_time, 1, "event_time")
        disorder = duration("window: out_of_orderness", out_of_orderness, zero=True)
        late = duration("window: lateness", lateness, zero=True)
        if event_time is None and (disorder or late):
            raise PipelineError("window: out_of_orderness and lateness need an event_time")
        return WindowedStream(self, WindowSpec(window, event_time, disorder, late, "count", None))

    # Several streams

    def connect(self, *others: DataStream) -> ConnectedStreams:
        """This stream together with others: merged, or told apart by `comap` and `join`."""
        for other in others:
            if not isinstance(other, DataStream):
                raise SignatureError(f"connect: takes streams, not {type(other).__name__}")
            if other._env is not self._env:
                raise PipelineError(f"connect: {other.name!r} belongs to another environment, {other._env.name!r}")
        if not others:
            raise SignatureError("connect: give at least one other stream")
        inputs = (*self._inputs, *(one for other in others for one in other._inputs))
        return ConnectedStreams(self._env, inputs)

    def fill_future(self, future: FutureStream) -> None:
        """Lead these items back to where `future` was declared: a loop.

        The loop ends by itself once the sources have ended and nothing is under way in it any more.
        """
        if not isinstance(future, FutureStream):
            raise SignatureError(f"fill_future: takes what from_future() returned, not {type(future).__name__}")
        if future._env is not self._env:
            raise PipelineError(f"fill_future: {future.name!r} belongs to another environment, {future._env.name!r}")
        graph, id = self._env._graph, future._inputs[0]
        if graph.operators[id].inputs:
            raise PipelineError(f"fill_future: {future.name!r} is filled already; connect the streams that lead to it")
        if id in self._inputs:
            raise PipelineError(f"fill_future: {future.name!r} would be filled with itself")
        self._env._check_open("fill_future")
        graph.connect(id, self._inputs)

    # Sinks

    def sink(
        self,
        fn: Callable[..., Any],
        *args: Any,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> Self:
        """Give each item to `fn`. `fn` as in `map`; what it returns is ignored."""
        settings = settings_of("sink", parallelism, executor, on_error, ray=ray)
        self._add("sink", function_spec("sink", fn, args, kw), name, function_name(fn) or "sink", settings)
        return self

    def print(self, prefix: str = "", *, name: str | None = None) -> Self:
        """Print each item, in a notebook below the cell that submitted the job."""
        self._add("print", str(prefix), name, "print")
        return self

    def collect(self, name: str | None = None, *, latest: bool = False) -> Self:
        """Keep all items as `job.results[name]`. The one operator whose memory grows with the stream.

        Without a name it is called like the operator whose items these are.

        With `latest=True`, behind a `keyby`, only the newest item of each key, in the order in which the keys first
        came; memory grows with the number of keys.
        """
        name = self._result_name(name)
        self._result("collect", ResultSpec(name, None, self._latest("collect", name, latest)))
        return self

    def show(self, name: str | None = None, rows: int | None = None, *, latest: bool = False) -> Self:
        """Keep the last `rows` items, 10 unless given, as `job.results[name]`, and show them while the job runs.

        Without a name it is called like the operator whose items these are.

        With `latest=True`, behind a `keyby`, keep what `collect(name, latest=True)` does: the table has a row for each
        key, which changes as its items come; `rows` is how many it has at most, 200 unless given.
        """
        if rows is not None and (isinstance(rows, bool) or not isinstance(rows, int) or rows < 1):
            raise PipelineError(f"show: rows is a whole number, 1 or more, not {rows!r}")
        name = self._result_name(name)
        newest = self._latest("show", name, latest)
        self._result("show", ResultSpec(name, rows or (_LATEST_ROWS if newest else _ROWS), newest))
        return self

    def to_csv(
        self, path: str | os.PathLike[str], *, encoding: str = "utf-8", delimiter: str = ",", name: str | None = None
    ) -> Self:
        """Write each item as a row of a CSV file.

        The first item's fields (of a dict, named tuple or dataclass; of a tuple its positions; of anything else
        `value`) are the columns. The file appears under its name when it is complete.
        """
        return self._file("to_csv", CsvSink, path, {"encoding": encoding, "delimiter": delimiter}, name)

    def to_jsonl(self, path: str | os.PathLike[str], *, name: str | None = None) -> Self:
        """Write each item as a line of JSON. The file appears under its name when it is complete."""
        return self._file("to_jsonl", JsonlSink, path, {}, name)

    def to_parquet(
        self, path: str | os.PathLike[str], *, rows_per_group: int = 65_536, name: str | None = None
    ) -> Self:
        """Write the items as rows of a Parquet file, fields as in `to_csv`. Needs pyarrow: `sage-nb[arrow]`.

        The first `rows_per_group` rows decide on the types of the columns; a value that its column cannot hold as it is
        fails the job. The file appears under its name when it is complete.
        """
        return self._file("to_parquet", ParquetSink, path, {"rows_per_group": rows_per_group}, name)

    # How it is done

    def _result_name(self, given: str | None) -> str:
        """What a result is called that was given no name: like its stream, with a number where that is taken."""
        results = self._env._graph.results
        numbered = (self.name if n == 1 else f"{self.name} {n}" for n in itertools.count(1))
        return next(name for name in numbered if name not in results) if given is None else given

    def _result(self, kind: str, spec: ResultSpec) -> None:
        graph = self._env._graph
        graph.claim_result(spec.name, kind)
        taken = any(op.name == spec.name for op in graph.operators)
        self._add(kind, spec, None, f"{kind} {spec.name}" if taken else spec.name)

    def _latest(self, kind: str, name: str, latest: bool) -> bool:
        """Whether only the newest item of each key is kept. Raises `PipelineError` where there are no keys."""
        if not isinstance(latest, bool):
            raise PipelineError(f"{kind}: latest is True or False, not {latest!r}")
        graph = self._env._graph
        for one in self._inputs if latest else ():
            if graph.keyed_by(graph.operators[one]) is None:
                raise PipelineError(
                    f"{kind} {name!r}: latest=True keeps the newest item of each key, but the stream behind "
                    f"{graph.operators[one].name!r} has no key; call keyby() first"
                )
        return latest

    def _file(self, kind: str, cls: Any, path: Any, kw: dict[str, Any], name: str | None) -> Self:
        target = check_target(kind, path, kw)
        for op in self._env._graph.operators:
            if is_written(op, target):
                raise PipelineError(
                    f"{kind} {name or os.path.basename(target)!r}: {op.name!r} writes to {target} already, and one "
                    "would replace the other; give each a path of its own"
                )
        self._add("sink", FunctionSpec(cls, (target,), kw, is_class=True), name, os.path.basename(target))
        return self

    def _function(
        self,
        kind: str,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kw: dict[str, Any],
        name: str | None,
        settings: Settings,
    ) -> Any:
        spec = function_spec(kind, fn, args, kw)
        return self._stream(self._add(kind, spec, name, function_name(fn) or kind, settings))

    def _add(self, kind: str, spec: Any, name: str | None, suggestion: str, settings: Settings = _PLAIN) -> Operator:
        self._env._check_open(kind)
        return self._env._graph.add(
            kind, spec, inputs=self._inputs, name=name, suggestion=suggestion, settings=settings
        )

    def _stream(self, op: Operator) -> DataStream:
        keyed = self._env._graph.keyed_by(op) is not None
        return (KeyedStream if keyed else DataStream)(self._env, (op.id,))


class KeyedStream(DataStream):
    """A stream whose items have a key, which they keep until the next `keyby`."""

    __slots__ = ()
    _hints: ClassVar[dict[str, str]] = {**_CONNECT, **_AGGREGATE}

    def reduce(
        self,
        fn: Callable[..., Any],
        *args: Any,
        expire_after: float | timedelta | None = None,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> KeyedStream:
        """Combine the items of each key: emits, per item, `fn(value so far, item)`; of a key's first item, that item.

        With `expire_after`, a key that no item came for in so many seconds begins anew.
        """
        spec = ReduceSpec(function_spec("reduce", fn, args, kw, count=2), _expiry("reduce", expire_after))
        settings = settings_of("reduce", parallelism, executor, on_error, ray=ray)
        return self._keyed(self._add("reduce", spec, name, function_name(fn) or "reduce", settings))

    def count(
        self,
        *,
        expire_after: float | timedelta | None = None,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
    ) -> KeyedStream:
        """Emit, per item, `(key, how many items the key has had)`. `expire_after` as in `reduce`."""
        spec = ReduceSpec(None, _expiry("count", expire_after))
        return self._keyed(
            self._add("count", spec, name, "count", settings_of("count", parallelism, executor, ray=ray))
        )

    def sum(
        self,
        value: Callable[[Any], Any] | str | None = None,
        *,
        expire_after: float | timedelta | None = None,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
    ) -> KeyedStream:
        """Emit, per item, `(key, sum of the key's values)`; `value(item)` gives the value, else it is the item.

        A name for `value` stands for the column of that name.
        """
        settings = settings_of("sum", parallelism, executor, on_error, ray=ray)
        return self._valued("sum", value, expire_after, name, settings)

    def min(
        self,
        value: Callable[[Any], Any] | str | None = None,
        *,
        expire_after: float | timedelta | None = None,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
    ) -> KeyedStream:
        """Emit, per item, `(key, least of the key's values)`. `value` and `expire_after` as in `sum`."""
        settings = settings_of("min", parallelism, executor, on_error, ray=ray)
        return self._valued("min", value, expire_after, name, settings)

    def max(
        self,
        value: Callable[[Any], Any] | str | None = None,
        *,
        expire_after: float | timedelta | None = None,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
    ) -> KeyedStream:
        """Emit, per item, `(key, greatest of the key's values)`. `value` and `expire_after` as in `sum`."""
        settings = settings_of("max", parallelism, executor, on_error, ray=ray)
        return self._valued("max", value, expire_after, name, settings)

    def mean(
        self,
        value: Callable[[Any], Any] | str | None = None,
        *,
        expire_after: float | timedelta | None = None,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
    ) -> KeyedStream:
        """Emit, per item, `(key, mean of the key's values)`. `value` and `expire_after` as in `sum`."""
        settings = settings_of("mean", parallelism, executor, on_error, ray=ray)
        return self._valued("mean", value, expire_after, name, settings)

    def process(
        self,
        fn: Callable[..., Any],
        *args: Any,
        expire_after: float | timedelta | None = None,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> KeyedStream:
        """Like `map`, with a state per key: `self.ctx.state` is a dict of the key at hand, `self.ctx.get_key()`.

        `fn` is a class with `execute(item)`, or a callable of an item or of an item and the context. A generator, or
        a `FlatMapFunction`, emits any number of items. `expire_after` seconds after its last item, a key's state is
        dropped.
        """
        with_ctx = False
        if not isinstance(fn, type) and callable(fn) and not args and not kw:
            with_ctx = _takes(fn, 2)
        checked = function_spec("process", fn, args, kw, count=2 if with_ctx else 1)
        spec = ProcessSpec(checked, with_ctx, _expiry("process", expire_after))
        settings = settings_of("process", parallelism, executor, on_error, ray=ray)
        return self._keyed(self._add("process", spec, name, function_name(fn) or "process", settings))

    def reply(self, *, name: str | None = None) -> Self:
        """Send each item back to who asked: behind `from_requests()`, where the pipeline is a service of another."""
        graph = self._env._graph
        key = graph.keyed_by(graph.operators[self._inputs[0]])
        if key is None or key.spec.function.target is not number_of:
            raise PipelineError("reply: the stream does not have its request's number for a key; keyby() replaces it")
        spec = FunctionSpec(ReplySink, (self._env._requests,), {}, is_class=True)
        self._add("sink", spec, name, "reply", Settings(executor="thread"))
        return self

    def interval_join(
        self,
        other: KeyedStream,
        lower: float | timedelta,
        upper: float | timedelta,
        *,
        event_time: Callable[[Any], Any] | tuple[Callable[[Any], Any], Callable[[Any], Any]],
        out_of_orderness: float | timedelta = 0,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
    ) -> KeyedStream:
        """Pairs `(mine, other's)` of one key whose times lie `lower` to `upper` seconds apart, both included.

        That is: `lower <= time of the other's - time of mine <= upper`. `event_time` gives an item's time, as in
        `window`; two functions where the streams differ. Items are kept as long as a partner may come.
        """
        if not isinstance(other, KeyedStream):
            raise SignatureError("interval_join: the other stream needs a key as well; call keyby() on it")
        times = event_time if isinstance(event_time, tuple) else (event_time, event_time)
        if len(times) != 2 or not all(callable(one) for one in times):
            raise SignatureError("interval_join: event_time is a function of an item, or two of them")
        for one in times:
            check_arity("interval_join", one, 1, "event_time")
        low, high = _signed("lower", lower), _signed("upper", upper)
        if low > high:
            raise PipelineError(f"interval_join: lower ({low:g} s) is above upper ({high:g} s)")
        disorder = duration("interval_join: out_of_orderness", out_of_orderness, zero=True)
        both = self.connect(other)
        spec = IntervalSpec(low, high, times, disorder)
        settings = settings_of("interval_join", parallelism, executor, ray=ray)
        return self._keyed(both._add("interval_join", spec, name, "interval_join", settings))

    def _valued(self, kind: str, value: Any, expire_after: Any, name: str | None, settings: Settings) -> KeyedStream:
        fn = None if value is None else function_spec(kind, as_function(value), (), {})
        return self._keyed(self._add(kind, ReduceSpec(fn, _expiry(kind, expire_after)), name, kind, settings))

    def _keyed(self, op: Operator) -> KeyedStream:
        return KeyedStream(self._env, (op.id,))


class ConnectedStreams(DataStream):
    """Several streams together: every operator of a `DataStream` sees them merged, in the order of their arrival."""

    __slots__ = ()
    _hints: ClassVar[dict[str, str]] = {**dict.fromkeys(_KEYED, "map or keyby the merged stream first"), **_AGGREGATE}

    def comap(
        self,
        cls: type,
        *args: Any,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> Any:
        """Replace each item by `map0(item)`, `map1(item)`, ... of one instance of `cls`, by the stream it came from.

        A result of None emits nothing.
        """
        reject_reserved("comap", kw, cls)
        if not isinstance(cls, type):
            raise SignatureError(f"comap: takes a class with map0, map1, ..., not {type(cls).__name__}")
        for n in range(len(self._inputs)):
            if not has_execute(cls, f"map{n}"):
                count = len(self._inputs)
                raise SignatureError(f"comap: {count} streams are connected, but {cls.__name__} has no map{n}()")
            _check_method("comap", cls, f"map{n}", 1)
        check_constructor("comap", cls, args, kw)
        settings = settings_of("comap", parallelism, executor, on_error, ray=ray)
        spec = FunctionSpec(cls, args, kw, is_class=True)
        return self._stream(self._add("comap", spec, name, function_name(cls) or "comap", settings))

    def join(
        self,
        cls: type,
        *args: Any,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
        on_error: str | None = None,
        **kw: Any,
    ) -> Any:
        """Call `execute(payload, key, tag)` of one instance of `cls`; the items of the list it returns go on.

        `tag` is the number of the stream, from 0, in the order of `connect`. All streams need a key: see `keyby`.
        """
        if not isinstance(cls, type):
            raise SignatureError(f"join: takes a class with execute(payload, key, tag), not {type(cls).__name__}")
        if not has_execute(cls):
            raise SignatureError(f"join: {cls.__name__} has no execute(payload, key, tag)")
        graph = self._env._graph
        for one in self._inputs:
            if graph.keyed_by(graph.operators[one]) is None:
                raise PipelineError(f"join: the stream behind {graph.operators[one].name!r} has no key; call keyby()")
        settings = settings_of("join", parallelism, executor, on_error, ray=ray)
        spec = function_spec("join", cls, args, kw, count=3)
        return self._stream(self._add("join", spec, name, function_name(cls) or "join", settings))


class FutureStream(DataStream):
    """A stream whose items come from further down: see `from_future`."""

    __slots__ = ()


class WindowedStream:
    """Windows over a stream; `count`, `sum` and `aggregate` say what becomes of each window's items."""

    __slots__ = ("_late", "_operator", "_spec", "_stream")

    def __init__(self, stream: DataStream, spec: WindowSpec) -> None:
        self._stream = stream
        self._spec = spec
        self._operator: Operator | None = None
        self._late: Operator | None = None

    def __repr__(self) -> str:
        return f"<WindowedStream of {self._spec.window!r} behind {self._stream.name!r}>"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise missing(self, name, _WINDOWED, _WINDOW_WORDS)

    def count(
        self,
        *,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
    ) -> Any:
        """Emit `WindowResult(key, start, end, number of items)`."""
        return self._aggregate("count", None, name, "count", settings_of("count", parallelism, executor, ray=ray))

    def sum(
        self,
        value: Callable[[Any], Any] | str | None = None,
        *,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
    ) -> Any:
        """Emit `WindowResult(key, start, end, sum)`; `value(item)` gives what is added, else it is the item.

        A name for `value` stands for the column of that name.
        """
        return self._aggregate("sum", value, name, "sum", settings_of("sum", parallelism, executor, ray=ray))

    def aggregate(
        self,
        fn: str | Callable[[list[Any]], Any],
        value: Callable[[Any], Any] | str | None = None,
        *,
        name: str | None = None,
        parallelism: int = 1,
        executor: str | None = None,
        ray: dict[str, Any] | None = None,
    ) -> Any:
        """Emit `WindowResult(key, start, end, aggregate)`.

        `fn` is `"count"`, `"sum"`, `"mean"`, `"min"`, `"max"`, `"first"`, `"last"` or `"list"`, or a function of the
        list of the window's values, in order of arrival. `value(item)` gives an item's value, else the item is it; a
        name stands for the column of that name.
        """
        if isinstance(fn, str):
            if fn not in AGGREGATES:
                raise PipelineError(f"aggregate: there is no {fn!r}; there are: {', '.join(AGGREGATES)}, or a function")
            suggestion = fn
        else:
            if not callable(fn):
                raise SignatureError(f"aggregate: takes a name or a function, not {type(fn).__name__}")
            check_arity("aggregate", fn, 1, function_name(fn) or "the function")
            suggestion = function_name(fn) or "aggregate"
        return self._aggregate(fn, value, name, suggestion, settings_of("aggregate", parallelism, executor, ray=ray))

    def late(self, name: str) -> DataStream:
        """The items that come too late for their windows, as a stream; it begins at an operator called `name`.

        Without it they are counted and dropped, and the job says so.
        """
        if self._late is not None:
            raise PipelineError(f"late: the late items of this window are {self._late.name!r} already")
        env = self._stream._env
        env._check_open("late")
        if self._spec.event_time is None:
            raise PipelineError("late: without an event_time no item is late")
        inputs = () if self._operator is None else (self._operator.id,)
        self._late = env._graph.add("late", None, inputs=inputs, name=name, suggestion="late")
        return DataStream(env, (self._late.id,))

    def _aggregate(self, fn: Any, value: Any, name: str | None, suggestion: str, settings: Settings) -> Any:
        if value is not None:
            value = as_function(value)
            function_spec(suggestion, value, (), {})
        if settings.parallelism != 1 and not isinstance(self._stream, KeyedStream):
            keyed = all(
                self._stream._env._graph.keyed_by(self._stream._env._graph.operators[one]) is not None
                for one in self._stream._inputs
            )
            if not keyed:
                raise PipelineError(f"{suggestion}: a window without a key has one instance; call keyby() first")
        if self._operator is not None:
            raise PipelineError(
                f"{suggestion}: this window is aggregated by {self._operator.name!r} already; call window() once more"
            )
        base = self._spec
        spec = WindowSpec(base.window, base.event_time, base.out_of_orderness, base.lateness, fn, value)
        self._operator = self._stream._add("window", spec, name, suggestion, settings)
        if self._late is not None:
            self._stream._env._graph.connect(self._late.id, (self._operator.id,))
        return self._stream._stream(self._operator)


_WINDOW_WORDS = dict.fromkeys(("agg", "apply", "fold", "reduce"), "aggregate")
_WINDOWED = dict.fromkeys(
    [one for one in (*dir(KeyedStream), *STREAM) if one[0] != "_" and one not in _WINDOW_WORDS],
    "end the window with count(), sum() or aggregate() first",
) | {name: f"use aggregate({name!r})" for name in VALUED[1:]}


def _expiry(kind: str, value: float | timedelta | None) -> float | None:
    return None if value is None else duration(f"{kind}: expire_after", value)


def _signed(what: str, value: float | timedelta) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds != seconds:
        raise PipelineError(f"interval_join: {what} is a number of seconds, or a timedelta; not {value!r}")
    return float(seconds)


def _takes(fn: Callable[..., Any], count: int) -> bool:
    """Whether `fn` has to be called with `count` arguments: it takes them, and no fewer."""
    try:
        signature = inspect.signature(fn)
    except (ValueError, TypeError):
        return False
    return _binds(signature, count) and not _binds(signature, count - 1)


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*([None] * count))
    except TypeError:
        return False
    return True


def _check_method(kind: str, cls: type, name: str, count: int) -> None:
    method = inspect.getattr_static(cls, name)
    if inspect.isfunction(method):
        check_arity(kind, without_self(method), count, f"{cls.__name__}.{name}")
