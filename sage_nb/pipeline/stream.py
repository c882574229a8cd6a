"""`DataStream`: what operators chain on.

Every method adds one operator and returns the stream to go on with: a new one behind `map`, `filter`,
`flatmap` and `take`, this same one behind a sink, so that a stream can be tapped in passing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from sage_nb.errors import PipelineError
from sage_nb.pipeline.checks import function_name, function_spec
from sage_nb.pipeline.graph import Operator

if TYPE_CHECKING:
    from sage_nb.pipeline.environment import BaseEnvironment

__all__ = ["DataStream"]


class DataStream:
    """A stream of items; made by an environment's `from_...` methods and by other streams."""

    __slots__ = ("_env", "_op")

    def __init__(self, env: BaseEnvironment, op: Operator) -> None:
        self._env = env
        self._op = op

    def __repr__(self) -> str:
        return f"<DataStream behind {self._op.name!r} of {self._env.name!r}>"

    @property
    def name(self) -> str:
        """Name of the operator whose items these are."""
        return self._op.name

    def map(self, fn: Callable[..., Any], *args: Any, name: str | None = None, **kw: Any) -> DataStream:
        """Replace each item by `fn(item)`; a result of None emits nothing.

        `fn` is a callable, or a class with `execute(item)` whose constructor gets `args` and `kw`.
        """
        return self._behind("map", fn, args, kw, name)

    def filter(self, fn: Callable[..., Any], *args: Any, name: str | None = None, **kw: Any) -> DataStream:
        """Let an item pass where `fn(item)` is truthy. `fn` as in `map`."""
        return self._behind("filter", fn, args, kw, name)

    def flatmap(self, fn: Callable[..., Any], *args: Any, name: str | None = None, **kw: Any) -> DataStream:
        """Replace each item by the items of the iterable `fn(item)`; None stands for none, text is one item.

        `fn` as in `map`. A `FlatMapFunction` may call `self.collect(x)` instead, or as well.
        """
        return self._behind("flatmap", fn, args, kw, name)

    def take(self, n: int, *, name: str | None = None) -> DataStream:
        """Let the first `n` items pass. The job ends as soon as nothing behind any `take` wants more."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise PipelineError(f"take: takes a whole number, 0 or more, not {n!r}")
        return DataStream(self._env, self._add("take", n, name, f"take {n:,}"))

    def sink(self, fn: Callable[..., Any], *args: Any, name: str | None = None, **kw: Any) -> Self:
        """Give each item to `fn`. `fn` as in `map`; what it returns is ignored."""
        self._add("sink", function_spec("sink", fn, args, kw), name, function_name(fn) or "sink")
        return self

    def print(self, prefix: str = "", *, name: str | None = None) -> Self:
        """Print each item, in a notebook below the cell that submitted the job."""
        self._add("print", str(prefix), name, "print")
        return self

    def collect(self, name: str) -> Self:
        """Keep all items as `job.results[name]`. The one operator whose memory grows with the stream."""
        self._env._graph.claim_result(name, "collect")
        self._add("collect", name, None, name)
        return self

    def show(self, name: str, rows: int = 10) -> Self:
        """Keep the last `rows` items as `job.results[name]`, and show them while the job runs."""
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise PipelineError(f"show: rows is a whole number, 1 or more, not {rows!r}")
        self._env._graph.claim_result(name, "show")
        self._add("show", (name, rows), None, name)
        return self

    def _behind(
        self, kind: str, fn: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any], name: str | None
    ) -> DataStream:
        spec = function_spec(kind, fn, args, kw)
        return DataStream(self._env, self._add(kind, spec, name, function_name(fn) or kind))

    def _add(self, kind: str, spec: Any, name: str | None, suggestion: str) -> Operator:
        self._env._check_open(kind)
        return self._env._graph.add(kind, spec, upstream=self._op.id, name=name, suggestion=suggestion)
