"""How a service is made, and which of its methods start and stop it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sage_nb.pipeline.context import Context

__all__ = ["DOWN", "UP", "make_instance", "resolve_hook"]

UP = ("setup",), ("start", "start_running")
DOWN = ("stop", "terminate"), ("cleanup", "close")


def resolve_hook(obj: Any, names: tuple[str, ...]) -> Callable[[], Any] | None:
    """The method that the most derived class defines under one of `names`; of two in one class, the first name."""
    found: list[tuple[int, int, Callable[[], Any]]] = []
    mro = type(obj).__mro__
    for n, name in enumerate(names):
        method = getattr(obj, name, None)
        if callable(method):
            depth = next((d for d, cls in enumerate(mro) if name in vars(cls)), -1)
            found.append((depth, n, method))
    return min(found, key=lambda entry: entry[:2])[2] if found else None


def make_instance(make: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any], ctx: Context) -> Any:
    """The service, with `ctx` in place before its `__init__` runs."""
    if isinstance(make, type) and type(make).__call__ is type.__call__:
        instance = make.__new__(make, *args, **kw)
        _give_context(instance, ctx)
        if isinstance(instance, make):
            instance.__init__(*args, **kw)  # type: ignore[misc]
    else:
        instance = make(*args, **kw)
        _give_context(instance, ctx)
    return instance


def _give_context(instance: Any, ctx: Context) -> None:
    with suppress(Exception):  # an object that takes no attributes, or none before its __init__, has no use for one
        if not hasattr(instance, "ctx"):
            instance.ctx = ctx
