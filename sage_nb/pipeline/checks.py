"""Refusing, at the line that declares it, what could only fail later.

A `FunctionSpec` is a checked function: a plain callable, or a class with its constructor's arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sage_nb.errors import PipelineError, SignatureError

__all__ = ["FunctionSpec", "check_arity", "function_name", "function_spec", "reject_reserved"]

_RESERVED = frozenset({"parallelism", "executor", "on_error", "ray"})


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """A function of an operator. `is_class` says that `target(*args, **kw).execute` is what is called."""

    target: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kw: dict[str, Any] | None = None
    is_class: bool = False


def reject_reserved(kind: str, kw: dict[str, Any]) -> None:
    """Refuse keywords that mean something to the engine, so that none reaches a constructor unseen."""
    for key in _RESERVED & kw.keys():
        raise PipelineError(f"{kind}: {key!r} is reserved for the engine, and this version does not offer it yet")


def function_name(target: Any) -> str:
    """A short name for a function or class, fit for an operator; empty where it has none."""
    name = getattr(target, "__name__", "") or getattr(getattr(target, "func", None), "__name__", "")
    return name if isinstance(name, str) and name.isidentifier() else ""


def has_execute(cls: type) -> bool:
    """Whether `cls` is a function class. Raises where it derives from one but leaves `execute` out."""
    execute = getattr(cls, "execute", None)
    if execute is not None and getattr(execute, "__isabstractmethod__", False):
        raise SignatureError(f"{cls.__name__} does not define execute()")
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
        given = {0: "no argument", 1: "one argument"}[count]
        raise SignatureError(f"{kind}: {what} is called with {given}, but takes {signature} ({exc})") from None


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


def function_spec(kind: str, fn: Any, args: tuple[Any, ...], kw: dict[str, Any]) -> FunctionSpec:
    """Check what was given to an operator that calls its function with one item."""
    reject_reserved(kind, kw)
    if isinstance(fn, type) and has_execute(fn):
        check_constructor(kind, fn, args, kw)
        execute = inspect.getattr_static(fn, "execute")
        if inspect.isfunction(execute):
            _refuse_coroutine(kind, execute)
            check_arity(kind, _without_self(execute), 1, f"{fn.__name__}.execute")
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
    _refuse_coroutine(kind, fn)
    check_arity(kind, fn, 1, function_name(fn) or "the function")
    return FunctionSpec(fn)


def _refuse_coroutine(kind: str, fn: Any) -> None:
    called = getattr(type(fn), "__call__", None)  # noqa: B004 - to look at it, not to ask for it
    if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(called):
        raise SignatureError(f"{kind}: {function_name(fn) or 'the function'} is a coroutine function; use a plain one")


def _without_self(method: Callable[..., Any]) -> Callable[..., Any]:
    return method.__get__(object())  # type: ignore[no-any-return]
