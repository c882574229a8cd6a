"""Refusing, at the line that declares it, what could only fail later.

A `FunctionSpec` is a checked function: a plain callable, or a class with its constructor's arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from sage_nb.errors import PipelineError, SignatureError
from sage_nb.pipeline.graph import Settings
from sage_nb.pipeline.placement import ray_options
from sage_nb.pipeline.spelling import nearest

__all__ = [
    "ERROR_POLICIES",
    "FunctionSpec",
    "check_arity",
    "check_policy",
    "function_name",
    "function_spec",
    "is_coroutine",
    "reject_reserved",
    "settings_of",
]

_RESERVED = ("parallelism", "executor", "on_error", "ray", "concurrency", "ordered", "item_timeout")
_OPTIONS = {
    "map_async": ("concurrency", "ordered", "item_timeout"),
    "map_batches": ("size", "format"),
    "keyby": ("strategy",),
    "reduce": ("expire_after",),
    "process": ("expire_after",),
    "from_source": ("delay",),
}
"""What an operator takes beside `parallelism`, `executor` and `on_error`."""
_NEAR = 0.82
_EXECUTORS = ("thread", "process")
ERROR_POLICIES = ("fail", "skip", "dead_letter")
_GIVEN = ("no argument", "one argument", "two arguments", "three arguments")


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A function of an operator. `is_class` says that `target(*args, **kw).execute` is what is called."""

    target: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kw: dict[str, Any] | None = None
    is_class: bool = False


def reject_reserved(kind: str, kw: dict[str, Any], target: Any = None) -> None:
    """Refuse keywords that mean something to the engine, so that none reaches a constructor unseen.

    With the `target` that gets the others, also those that look like a slip in one: a constructor may take anything.
    """
    for key in _RESERVED:
        if key in kw:
            raise PipelineError(f"{kind}: {key!r} is reserved for the engine and has no meaning here; leave it out")
    if target is None or not kw:
        return
    own = _parameters(target)
    for key in kw:
        near = nearest(key, ("parallelism", "executor", "on_error", *_OPTIONS.get(kind, ())), _NEAR)
        if near and key not in own:
            raise SignatureError(f"{kind}: there is no option {key!r}; did you mean {near!r}?")


def _parameters(target: Any) -> Collection[str]:
    """The names of the parameters of a callable; none of one that does not tell."""
    try:
        return inspect.signature(target).parameters.keys()
    except (ValueError, TypeError):
        return ()


def settings_of(
    kind: str, parallelism: Any, executor: Any = None, on_error: Any = None, *, ray: Any = None
) -> Settings:
    """The checked reserved keywords of an operator."""
    if isinstance(parallelism, bool) or not isinstance(parallelism, int) or parallelism < 1:
        raise PipelineError(f"{kind}: parallelism is the number of instances, 1 or more, not {parallelism!r}")
    if executor is not None and executor not in _EXECUTORS:
        raise PipelineError(f"{kind}: executor is 'thread' or 'process', not {executor!r}")
    if on_error is not None:
        check_policy(kind, on_error)
    return Settings(parallelism, executor, on_error, ray_options(kind, ray))


def check_policy(kind: str, on_error: Any) -> None:
    """Refuse what is none of `ERROR_POLICIES`."""
    if on_error not in ERROR_POLICIES:
        raise PipelineError(f"{kind}: on_error is 'fail', 'skip' or 'dead_letter', not {on_error!r}")


def function_name(target: Any) -> str:
    """A short name for a function or class, fit for an operator; empty where it has none."""
    name = getattr(target, "__name__", "") or getattr(getattr(target, "func", None), "__name__", "")
    return name if isinstance(name, str) and name.isidentifier() else ""


def has_execute(cls: type, method: str = "execute") -> bool:
    """Whether `cls` is a function class. Raises where it derives from one but leaves `method` out."""
    execute = getattr(cls, method, None)
    if execute is not None and getattr(execute, "__isabstractmethod__", False):
        raise SignatureError(f"{cls.__name__} does not define {method}()")
    return callable(execute)


def check_arity(kind: str, fn: Callable[..., Any], count: int, what: str) -> None:
    """Refuse `fn` where it cannot be called with `count` positional arguments; builtins that do not tell pass."""
    try:
        signature = inspect.signature(fn)
    except (ValueError, TypeError):
        return
    try:
        signature.bind(*([None] * count))
    except TypeError as exc:
        raise SignatureError(f"{kind}: {what} is called with {_GIVEN[count]}, but takes {signature} ({exc})") from None


def check_constructor(kind: str, cls: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]) -> None:
    """Refuse constructor arguments that do not fit; builtins that do not tell pass."""
    try:
        signature = inspect.signature(cls)
    except (ValueError, TypeError):
        return
    try:
        signature.bind(*args, **kw)
    except TypeError as exc:
        name = getattr(cls, "__name__", repr(cls))
        raise SignatureError(f"{kind}: {name}{signature} cannot be made with these arguments ({exc})") from None


def function_spec(
    kind: str, fn: Any, args: tuple[Any, ...], kw: dict[str, Any], *, count: int = 1, coroutine: bool = False
) -> FunctionSpec:
    """Check what was given to an operator that calls its function with `count` arguments.

    `coroutine` says whether the operator awaits what the function returns.
    """
    reject_reserved(kind, kw, fn)
    if isinstance(fn, type) and has_execute(fn):
        check_constructor(kind, fn, args, kw)
        execute = inspect.getattr_static(fn, "execute")
        if inspect.isfunction(execute):
            _check_coroutine(kind, execute, coroutine)
            check_arity(kind, without_self(execute), count, f"{fn.__name__}.execute")
        return FunctionSpec(fn, args, kw, is_class=True)
    if not callable(fn):
        if hasattr(fn, "execute"):
            name = type(fn).__name__
            raise SignatureError(f"{kind}: give the class and its arguments, {kind}({name}, ...), not an instance")
        raise SignatureError(f"{kind}: takes a callable or a function class, not {type(fn).__name__}")
    if args or kw:
        name = function_name(fn) or "the function"
        raise SignatureError(
            f"{kind}: arguments after {name} go to a constructor, but {name} has no execute(); "
            "use a lambda or functools.partial"
        )
    _check_coroutine(kind, fn, coroutine)
    check_arity(kind, fn, count, function_name(fn) or "the function")
    return FunctionSpec(fn)


def is_coroutine(fn: Any) -> bool:
    """Whether calling `fn`, or the `execute` of the class `fn`, gives something to await."""
    if isinstance(fn, type):
        fn = getattr(fn, "execute", None)
    while hasattr(fn, "func"):
        fn = fn.func
    called = getattr(type(fn), "__call__", None)  # noqa: B004 - to look at it, not to ask for it
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(called)


def _check_coroutine(kind: str, fn: Any, wanted: bool) -> None:
    if is_coroutine(fn) and not wanted:
        name = function_name(fn) or "the function"
        raise SignatureError(f"{kind}: {name} is a coroutine function; use a plain one here, or await it in map_async")


def without_self(method: Callable[..., Any]) -> Callable[..., Any]:
    return method.__get__(object())  # type: ignore[no-any-return]
