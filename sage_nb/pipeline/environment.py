"""`BaseEnvironment`: where a pipeline is declared. How it is submitted is the subclasses' part."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from sage_nb.errors import PipelineError, SignatureError
from sage_nb.pipeline.batches import need
from sage_nb.pipeline.checks import check_constructor, reject_reserved, settings_of
from sage_nb.pipeline.graph import Graph, ServiceSpec, Settings, call_site
from sage_nb.pipeline.missing import ENVIRONMENT, missing
from sage_nb.pipeline.placement import ray_options
from sage_nb.pipeline.requests import Requests, RequestSource, number_of, payload_of
from sage_nb.pipeline.restarts import restarts
from sage_nb.pipeline.sources import (
    ChunkSource,
    CsvSource,
    ParquetSource,
    TextSource,
    column_names,
    column_types,
    file_path,
    source_spec,
)
from sage_nb.pipeline.spelling import did_you_mean
from sage_nb.pipeline.stream import DataStream, FutureStream, KeyedStream

__all__ = ["BaseEnvironment"]

_CONFIG = {
    "fault_tolerance": "whether and when a job that failed is run anew",
    "ray": "the Ray cluster to use, and how",
    "inline": "whether simple lambdas are written into the loop",
    "service_stop_timeout": "seconds that each step of a service's stop may take",
    "server": "how the JobManager server is spoken with",
}
_HINTS = dict.fromkeys(
    ("map", "filter", "flatmap", "keyby", "sink", "collect", "show"),
    "a stream has it: begin with a source, such as from_batch() or from_csv()",
)
"""What to do about an operator that is asked of the environment."""


class BaseEnvironment:
    """Holds sources, operators and services.

    `name` is what the job will be called. `config` is a dict of settings: `service_stop_timeout`, the seconds
    that each step of a service's stop may take, 10 unless given; `inline`, False to call simple lambdas instead of
    writing their expressions into the loop; `fault_tolerance`, a dict that says whether and when a job that failed
    is run anew from its sources: `{"strategy": "fixed", "attempts": 3, "delay": 1.0}`, `{"strategy": "exponential",
    "attempts": 10, "delay": 1.0, "factor": 2.0, "max_delay": 60.0}`, or `{"strategy": "failure_rate", "failures": 3,
    "within": 300.0, "delay": 1.0}`; times are in seconds. `ray` is a dict that says which Ray cluster to use:
    `{"address": "head:6379"}`, or `{"address": "auto"}` for the one on this machine; its other entries go to
    `ray.init()`. Without an address it is the one that this process is connected to, or else a private one.
    """

    def __init__(self, name: str = "pipeline", config: dict[str, Any] | None = None) -> None:
        if not isinstance(name, str) or not name.strip():
            raise PipelineError(f"an environment's name is a string of at least one character, not {name!r}")
        self.name = name
        self.config = dict(config or {})
        for key in self.config.keys() - _CONFIG.keys():
            raise PipelineError(f"config: there is no setting {key!r}{did_you_mean(str(key), _CONFIG)}")
        limit = self.config.get("service_stop_timeout", 10.0)
        if isinstance(limit, bool) or not isinstance(limit, (int, float)) or not limit > 0:
            raise PipelineError(f"config: service_stop_timeout is a number of seconds above 0, not {limit!r}")
        if not isinstance(self.config.get("inline", True), bool):
            raise PipelineError(f"config: inline is True or False, not {self.config['inline']!r}")
        ray = self.config.get("ray", {})
        if not isinstance(ray, dict) or not all(isinstance(key, str) for key in ray):
            raise PipelineError(f"config: ray is a dict such as {{'address': 'auto'}}, not {ray!r}")
        self._restarts = restarts(self.config.get("fault_tolerance"))
        self._requests = Requests()
        self._graph = Graph()
        self._closed = False

    def __repr__(self) -> str:
        graph = self._graph
        return (
            f"<{type(self).__name__} {self.name!r}: {len(graph.operators)} operators, {len(graph.services)} services>"
        )

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise missing(self, name, _HINTS, ENVIRONMENT)

    # Sources

    def from_batch(self, source: Any, *args: Any, name: str | None = None, **kw: Any) -> DataStream:
        """A bounded source.

        `source` is an iterable, which ends at its own end (a None in it is an item); an array or table, whose rows
        are the items (of an array of one axis, Python values); a generator function; or a
        callable or a class with `execute()`, asked for one item after the other until it returns None or a
        `StopSignal`. `args` and `kw` go to the callable or to the class's constructor. An iterator or generator
        can be submitted once only; anything else again and again.
        """
        return self._from("from_batch", source, args, kw, name, bounded=True, delay=None)

    def from_collection(self, source: Any, *args: Any, name: str | None = None, **kw: Any) -> DataStream:
        """The same as `from_batch`."""
        return self._from("from_collection", source, args, kw, name, bounded=True, delay=None)

    def from_source(
        self, source: Any, *args: Any, delay: float | None = None, name: str | None = None, **kw: Any
    ) -> DataStream:
        """An unbounded source.

        Like `from_batch`, but None means "nothing now": the source is asked again, after 1 ms at first and 50 ms
        at most. A `StopSignal` ends it. `delay` is seconds between items.
        """
        if delay is not None and (isinstance(delay, bool) or not isinstance(delay, (int, float)) or not delay >= 0):
            raise PipelineError(f"from_source: delay is a number of seconds, 0 or more, not {delay!r}")
        return self._from("from_source", source, args, kw, name, bounded=False, delay=delay or None)

    def from_text(
        self, path: str | os.PathLike[str], *, encoding: str = "utf-8-sig", name: str | None = None
    ) -> DataStream:
        """The lines of a text file, plain, `.gz` or `.zip`, without their line ends.

        `encoding` is UTF-8 unless given; a byte-order mark is skipped.
        """
        path = file_path("from_text", path)
        return self._source(TextSource(path, encoding, None), name, os.path.basename(path), None)

    def from_csv(
        self,
        path: str | os.PathLike[str],
        *,
        delimiter: str = ",",
        quotechar: str = '"',
        encoding: str = "utf-8-sig",
        types: Mapping[str, Callable[[str], Any]] | None = None,
        name: str | None = None,
    ) -> DataStream:
        """The rows of a CSV file, plain, `.gz` or `.zip`: one dict per row, column name → text.

        The first row names the columns. `types` says by what the text of a column is read, as in `{"qty": int, "price":
        float, "day": date.fromisoformat}`; columns that it does not name stay text. A row of another width, or a text
        that cannot be read, fails the job, with the line's number.
        """
        path = file_path("from_csv", path)
        form = {"delimiter": delimiter, "quotechar": quotechar}
        source = CsvSource(path, encoding, "", format=form, types=column_types("from_csv", types))
        return self._source(source, name, os.path.basename(path), None)

    def from_parquet(
        self,
        path: str | os.PathLike[str],
        *,
        columns: Sequence[str] | None = None,
        name: str | None = None,
    ) -> DataStream:
        """The rows of a Parquet file: one dict per row, column name → Python value. Needs `pip install sage-nb[arrow]`.

        `columns` are those to read, all unless given. A `map_batches` right behind it gets the file's own record
        batches, without a Python object per row.
        """
        path = file_path("from_parquet", path)
        need("from_parquet", "pyarrow")
        spec = ParquetSource(path, column_names("from_parquet", columns))
        return self._source(spec, name, os.path.basename(path), None)

    def from_dataframe(self, frame: Any, *, name: str | None = None) -> DataStream:
        """The rows of a pandas DataFrame: one dict per row, column name → Python value.

        An index that has a name is a column as well; any other is left out.
        """
        if not hasattr(frame, "columns") or not hasattr(frame, "iloc"):
            raise SignatureError(f"from_dataframe: takes a pandas DataFrame, not {type(frame).__name__}")
        if not frame.columns.is_unique:
            twice = frame.columns[frame.columns.duplicated()][0]
            raise PipelineError(f"from_dataframe: two columns are called {twice!r}; rename one")
        return self._source(ChunkSource(frame), name, "dataframe", None)

    def from_requests(self, *, name: str | None = None) -> KeyedStream:
        """The requests to this pipeline, where it is a service of another: see `register_pipeline`.

        Items are the requests' payloads. `stream.reply()` sends an item back to who asked; one for each request. The
        key of the stream, by which the two are matched, is the request's number; `keyby` would replace it.
        """
        source = self._from("from_requests", RequestSource, (self._requests,), {}, name, bounded=False, delay=None)
        keyed = source.keyby(number_of, name=f"{source.name}: number", executor="thread")
        return cast("KeyedStream", keyed.map(payload_of, name=f"{source.name}: payload", executor="thread"))

    def from_future(self, name: str) -> FutureStream:
        """A stream whose items come from further down the pipeline: a loop, closed by `stream.fill_future(it)`.

        Items go round until an operator drops them or leads them elsewhere. The job ends by itself once the sources
        have ended and nothing is under way in the loop any more. Submitting with an open one is an error.
        """
        self._check_open("from_future")
        op = self._graph.add("future", None, inputs=(), name=name, suggestion="future")
        return FutureStream(self, (op.id,))

    # Services

    def register_service(
        self, name: str, cls: Any, *args: Any, remote: bool = False, ray: dict[str, Any] | None = None, **kw: Any
    ) -> None:
        """Register a class; the job makes and starts one instance of it before the first item.

        `args` and `kw` go to its constructor. The same name again replaces. Hooks: see `BaseService`.

        With `remote=True` it is an actor on Ray, whatever the backend: its hooks and calls run there. `ray` is what it
        asks for, such as `{"num_gpus": 1}`; `{"max_restarts": 3}` has it made anew where its process has died. A call
        during which it died raises `ServiceDiedError`.
        """
        if not isinstance(cls, type):
            hint = "register_service_factory takes functions" if callable(cls) else "give the class itself"
            raise SignatureError(f"register_service: takes a class, not {type(cls).__name__}; {hint}")
        self._service("register_service", name, cls, args, kw, remote, ray)

    def register_service_factory(
        self,
        name: str,
        factory: Callable[..., Any],
        *args: Any,
        remote: bool = False,
        ray: dict[str, Any] | None = None,
        **kw: Any,
    ) -> None:
        """Register a function that makes the service when the job starts. Otherwise like `register_service`."""
        if not callable(factory):
            raise SignatureError(f"register_service_factory: takes a callable, not {type(factory).__name__}")
        self._service("register_service_factory", name, factory, args, kw, remote, ray)

    def _service(
        self,
        kind: str,
        name: str,
        make: Callable[..., Any],
        args: tuple[Any, ...],
        kw: dict[str, Any],
        remote: bool = False,
        ray: Any = None,
    ) -> None:
        self._check_open(kind)
        if not isinstance(name, str) or not name.strip():
            raise PipelineError(f"{kind}: a service's name is a string of at least one character, not {name!r}")
        reject_reserved(kind, kw)
        if remote:
            need(f"{kind}: remote=True", "ray")
        options = ray_options(kind, ray, service=True)
        check_constructor(kind, make, args, kw)
        self._graph.services[name] = ServiceSpec(name, make, args, kw, call_site(), bool(remote), options)

    def _from(
        self,
        kind: str,
        source: Any,
        args: tuple[Any, ...],
        kw: dict[str, Any],
        name: str | None,
        *,
        bounded: bool,
        delay: float | None,
    ) -> DataStream:
        self._check_open(kind)
        settings = settings_of(kind, kw.pop("parallelism", 1), kw.pop("executor", None), ray=kw.pop("ray", None))
        if "on_error" in kw:
            raise PipelineError(f"{kind}: on_error is for operators; a source that fails has no item to skip")
        spec, suggestion = source_spec(kind, source, args, kw, bounded=bounded)
        if settings.parallelism != 1 and not isinstance(source, type):
            raise PipelineError(
                f"{kind}: only a class can have several instances, which look at self.ctx.parallel_index; "
                "give the operator behind it parallelism= instead"
            )
        return self._source(spec, name, suggestion, delay, settings)

    def _source(
        self,
        spec: Any,
        name: str | None,
        suggestion: str,
        delay: float | None,
        settings: Settings = Settings(),  # noqa: B008 - frozen
    ) -> DataStream:
        self._check_open("source")
        op = self._graph.add("source", (spec, delay), inputs=(), name=name, suggestion=suggestion, settings=settings)
        return DataStream(self, (op.id,))

    def _check_open(self, what: str) -> None:
        if self._closed:
            raise PipelineError(f"{what}: the environment {self.name!r} is closed; make a new one")
