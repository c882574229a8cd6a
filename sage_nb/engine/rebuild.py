"""Functions and classes that came from another process are put together here.

What a stream refers to is in this module, and little else, so that a worker process that only receives is up soon.
Functions that shared their globals where they came from share them here: in a worker the user's `__main__` has a
stand-in. What ran here may have set a global since, so that one that comes again is left as it is: a worker serves one
job. A class has a token; where a class of that token is here already, it is the one.
"""

from __future__ import annotations

import functools
import importlib
import os
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from types import CellType, CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any

__all__ = ["LOCK", "RECEIVED", "Known", "StandIn", "class_of", "key_of", "origin", "token_of"]

Known = dict[str, type]
"""Classes, by token, that the other side has. Keeping them keeps them alive, so that they are found again."""

RECEIVED: Known = {}
"""The classes that code brought to this process: those that the process which sent it has."""

LOCK = threading.RLock()
"""Held while something is put together: no other thread may see a class that is half made."""

_TOKENS: weakref.WeakKeyDictionary[type, str] = weakref.WeakKeyDictionary()
_CLASSES: weakref.WeakValueDictionary[str, type] = weakref.WeakValueDictionary()
_NAMESPACES: dict[str, ModuleType] = {}
_UNFILLED: set[str] = set()
_ORIGIN = os.urandom(16).hex()


class StandIn(ModuleType):
    """In a worker process, the `__main__` that stands for the user's."""


def origin() -> str:
    """What tells this process from others."""
    return _ORIGIN


# ---------------------------------------------------------------------------------------------------------- namespaces


def key_of(names: dict[str, Any]) -> str | None:
    """The key of the globals `names` where they are those of a `__main__`; None of others."""
    main = sys.modules["__main__"]
    if names is main.__dict__ and not isinstance(main, StandIn):
        return f"{_ORIGIN}:__main__"
    return next((key for key, module in [*_NAMESPACES.items()] if module.__dict__ is names), None)


def namespace_of_module(name: str) -> dict[str, Any]:
    return importlib.import_module(name).__dict__


def namespace_of_main(key: str) -> dict[str, Any]:
    main = sys.modules["__main__"]
    if key == f"{_ORIGIN}:__main__" and not isinstance(main, StandIn):
        return main.__dict__
    with LOCK:
        module = _NAMESPACES.get(key)
        if module is None:
            stands_in = isinstance(main, StandIn) and main not in _NAMESPACES.values()
            module = _NAMESPACES[key] = main if stands_in else ModuleType("__main__")
            module.__dict__.setdefault("__builtins__", __builtins__)
        return module.__dict__


def new_namespace(name: str | None) -> dict[str, Any]:
    return {"__name__": name, "__builtins__": __builtins__}


# ----------------------------------------------------------------------------------------------------------- functions


def make_function(code: CodeType, namespace: dict[str, Any], closure: tuple[CellType, ...]) -> FunctionType:
    return FunctionType(code, namespace, None, None, closure)


def fill_function(function: FunctionType, state: dict[str, Any]) -> None:
    for name in state["imports"]:
        importlib.import_module(name)
    for name, value in state["globals"].items():
        function.__globals__.setdefault(name, value)
    for cell, value in state["cells"]:
        cell.cell_contents = value
    for name, value in state["attributes"].items():
        setattr(function, name, value)
    function.__dict__.update(state["dict"])
    if state["text"] is not None:
        _remember_lines(*state["text"])


def _remember_lines(file: str, text: str) -> None:
    """Let tracebacks show the lines of a cell, which is no file here."""
    import linecache

    linecache.cache.setdefault(file, (len(text), None, text.splitlines(keepends=True), file))


def make_cell() -> CellType:
    return CellType()


def make_cached_property(function: Callable[..., Any], name: str | None) -> Any:
    made: Any = functools.cached_property(function)
    made.attrname = name
    return made


def make_proxy(mapping: dict[Any, Any]) -> MappingProxyType[Any, Any]:
    return MappingProxyType(mapping)


def make_lru_cache(size: int | None, typed: bool, function: Callable[..., Any]) -> Any:
    return functools.lru_cache(size, typed)(function)


def make_type_var(name: str, constraints: tuple[Any, ...], bound: Any, variance: dict[str, bool]) -> Any:
    from typing import TypeVar

    return TypeVar(name, *constraints, bound=bound, **variance)


# ------------------------------------------------------------------------------------------------------------- classes


def token_of(cls: type) -> str:
    """The token of a class, made at the first call."""
    with LOCK:
        token = _TOKENS.get(cls)
        if token is None:
            token = os.urandom(16).hex()
            _TOKENS[cls], _CLASSES[token] = token, cls
        return token


def class_of(token: str) -> type | None:
    """The class of a token, where it is here."""
    return _CLASSES.get(token)


def _received(cls: type, token: str) -> type:
    _TOKENS[cls], _CLASSES[token] = token, cls
    _UNFILLED.add(token)
    return cls


def known_class(token: str, name: str) -> type:
    found = _CLASSES.get(token)
    if found is None:
        raise pickle.UnpicklingError(f"the class {name} was here, and is no longer")
    return found


def load_class(token: str, definition: bytes) -> type:
    with LOCK:
        return _CLASSES.get(token) or pickle.loads(definition)


class _Quiet:
    """Keeps `__init_subclass__` of the bases from running: what it did is among the class's attributes already."""

    __slots__ = ()

    def __init_subclass__(cls, **_: Any) -> None:
        pass


def make_class(token: str, meta: type, name: str, bases: tuple[type, ...], names: dict[str, Any]) -> type:
    """A class with no attributes yet but `names`, which it has from the start."""
    found = _CLASSES.get(token)
    if found is not None:
        return found
    abc_meta: Any = type(Iterable)
    new = abc_meta.__new__ if issubclass(meta, abc_meta) else type.__new__
    hooked = any(isinstance(base.__init_subclass__, type(_Quiet.__init_subclass__)) for base in bases)
    cls = new(meta, name, (_Quiet, *bases) if hooked else bases, dict(names))
    if hooked:
        cls.__bases__ = bases
    return _received(cls, token)


def make_enum(
    token: str, meta: Any, name: str, bases: tuple[type, ...], names: dict[str, Any], members: dict[str, Any]
) -> type:
    found = _CLASSES.get(token)
    if found is not None:
        return found
    body = meta.__prepare__(name, bases)
    for key, value in {**names, **members}.items():
        body[key] = value
    return _received(meta.__new__(meta, name, bases, body), token)


def make_struct(token: str, name: str, fields: list[tuple[str, dict[str, Any]]], options: dict[str, Any]) -> type:
    found = _CLASSES.get(token)
    if found is not None:
        return found
    import msgspec

    return _received(msgspec.defstruct(name, [(n, Any, msgspec.field(**kw)) for n, kw in fields], **options), token)


def fill_class(cls: Any, state: tuple[str, bool, dict[str, Any], dict[str, dict[str, Any]]]) -> None:
    """Set the attributes; and of an Enum's members those that they have of their own."""
    token, is_global, attributes, members = state
    if token not in _UNFILLED:
        return  # the class was here before
    _UNFILLED.discard(token)
    for name, value in attributes.items():
        type.__setattr__(cls, name, value)
    for name, own in members.items():
        cls[name].__dict__.update(own)
    main = sys.modules["__main__"]
    if is_global and isinstance(main, StandIn):
        main.__dict__.setdefault(cls.__name__, cls)
