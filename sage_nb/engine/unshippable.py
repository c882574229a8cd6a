"""What cannot travel, by name: which part, which variable in it, of which type, and what to do instead.

Also the containers of the user's that a function fills: a copy of it fills a copy of them.
"""

from __future__ import annotations

import dis
import functools
import io
import itertools
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableMapping, MutableSequence, MutableSet
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from sage_nb.engine.buffers import Buffers
from sage_nb.engine.byvalue import dump, is_by_reference, used_globals
from sage_nb.engine.failure import headline, safe_repr
from sage_nb.engine.usermodules import is_users
from sage_nb.errors import ShippingError
from sage_nb.pipeline.checks import FunctionSpec
from sage_nb.pipeline.sources import IterableSource, MadeSource
from sage_nb.pipeline.windows import WindowSpec

__all__ = ["captured_containers", "explain", "what_travels"]

_DEPTH = 12
_WIDTH = 1000
"""How deep, and among how many items of one container, the culprit is looked for."""


def explain(obj: Any, parts: Mapping[str, Any], cause: BaseException) -> ShippingError:
    """The error for `obj`, which could not be sent because of `cause`. Looks into `parts` first."""
    for name, part in parts.items():
        if not _travels(part):
            return _error(f"{name} cannot run in another process", part, cause)
    return _error("this cannot be sent to another process", obj, cause)


def _error(what: str, obj: Any, cause: BaseException) -> ShippingError:
    path, culprit = _culprit(obj)
    why = cause if not path else _failure(culprit) or cause
    subject = f"{' of '.join(reversed(path))} is" if path else "it is"
    return ShippingError(
        f"{what}: {subject} {_typed(culprit)}, which cannot travel ({headline(why)}); {_advice(culprit)}"
    )


def _typed(obj: Any) -> str:
    cls = type(obj)
    kind = cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"
    return f"{'an' if kind.lstrip('_')[:1] in 'aeiouAEIOU' else 'a'} {kind}: {safe_repr(obj)}"


def _advice(obj: Any) -> str:
    if isinstance(obj, (types.GeneratorType, types.AsyncGeneratorType, types.CoroutineType)):
        return "give the function that makes it, so that it is made where it runs"
    if isinstance(obj, io.IOBase):
        return "open it in the function class's open(), where it runs"
    if isinstance(obj, ModuleType):
        return "put what you need of it into a module file, or use its names directly"
    return "make it in the function class's open(), where it runs, or register a service and call that"


def _failure(obj: Any) -> Exception | None:
    """What keeps `obj` from travelling."""
    try:
        dump(obj, buffers=Buffers())
    except Exception as exc:  # noqa: BLE001 - to be told to the user
        return exc
    return None


def _travels(obj: Any) -> bool:
    return _failure(obj) is None


def _culprit(obj: Any) -> tuple[list[str], Any]:
    """The innermost object that cannot travel although all in it can, and the way to it."""
    path: list[str] = []
    seen = {id(obj)}
    while len(path) < _DEPTH:
        for name, child in _children(obj):
            if id(child) not in seen and not _travels(child):
                seen.add(id(child))
                path.append(name)
                obj = child
                break
        else:
            break
    return path, obj


def _children(obj: Any) -> Iterator[tuple[str, Any]]:
    """What `obj` holds, each with a name for it."""
    if isinstance(obj, FunctionType):
        yield from _of_function(obj)
    elif isinstance(obj, functools.partial):
        yield "the function", obj.func
        yield from ((f"argument {n}", value) for n, value in enumerate(obj.args, 1))
        yield from ((f"argument {name!r}", value) for name, value in obj.keywords.items())
    elif isinstance(obj, (MethodType, BuiltinMethodType)):
        yield "the object", obj.__self__
    elif isinstance(obj, type):
        yield from ((f"attribute {name!r}", _plain(value)) for name, value in list(vars(obj).items()))
        yield from ((f"base {base.__name__}", base) for base in obj.__bases__)
    elif isinstance(obj, Mapping):
        for key, value in itertools.islice(obj.items(), _WIDTH):
            yield f"the key {safe_repr(key)}", key
            yield f"[{safe_repr(key)}]", value
    elif isinstance(obj, (list, tuple, deque, set, frozenset)):
        yield from ((f"item {n}", value) for n, value in enumerate(itertools.islice(obj, _WIDTH)))
    elif not _is_a_librarys(type(obj)):
        yield from _of_instance(obj)


def _is_a_librarys(cls: type) -> bool:
    """Whether instances of `cls` are best named as they are: a lock in an Event of `threading` says little."""
    return is_by_reference(cls) and not is_users(cls.__module__)


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    name = function.__name__
    if is_by_reference(function):
        return
    for variable, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"the variable {variable!r} that {name} uses", cell.cell_contents
        except ValueError:  # not set yet
            continue
    if not function.__globals__.get("__spec__"):
        for variable, value in used_globals(function).items():
            yield f"the global variable {variable!r} that {name} uses", value
    for value in function.__defaults__ or ():
        yield f"a default argument of {name}", value
    for key, value in (function.__kwdefaults__ or {}).items():
        yield f"the default of {key!r} of {name}", value
    yield from ((f"attribute {key!r}", value) for key, value in vars(function).items())


def _plain(value: Any) -> Any:
    return value.__func__ if isinstance(value, (staticmethod, classmethod)) else value


def _of_instance(obj: Any) -> Iterator[tuple[str, Any]]:
    attributes = getattr(obj, "__dict__", None)
    if isinstance(attributes, dict):
        yield from ((f"attribute {name!r}", value) for name, value in list(attributes.items()))
    for cls in type(obj).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if hasattr(obj, name):
                yield f"attribute {name!r}", getattr(obj, name)


def what_travels(spec: Any) -> Any:
    """The user's own objects in what an operator was given, to look into where one of them cannot travel."""
    if isinstance(spec, tuple):
        spec = spec[0]  # a source, beside its delay
    if isinstance(spec, IterableSource):
        return spec.iterable
    function = getattr(spec, "function", None) or spec
    if isinstance(function, (FunctionSpec, MadeSource)):
        if not function.args and not function.kw:
            return function.target
        return {"class": function.target, "arguments": function.args, "keywords": function.kw or {}}
    if isinstance(spec, WindowSpec):
        return {"event_time": spec.event_time, "aggregate": spec.aggregate, "value": spec.value}
    return spec


# ------------------------------------------------------------------------------------------------ captured containers

_CONTAINERS = (MutableSequence, MutableSet, MutableMapping, deque)
_FILLING = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft", "remove",
    "setdefault", "update", "__setitem__",
}  # fmt: skip
_STORES = {"STORE_SUBSCR", "DELETE_SUBSCR"}


def captured_containers(function: Callable[..., Any]) -> list[str]:
    """The names of the user's lists, dicts and sets that `function` fills, such as `taken` in `taken.append`.

    Empty for a class, whose instances are made where they run.
    """
    found: dict[str, None] = {}
    _collect(function, found, set())
    return list(found)


def _collect(obj: Any, found: dict[str, None], seen: set[int]) -> None:
    if id(obj) in seen:
        return
    seen.add(id(obj))
    if isinstance(obj, functools.partial):
        _collect(obj.func, found, seen)
        for value in (*obj.args, *obj.keywords.values()):
            if isinstance(value, _CONTAINERS):
                found[_name_of(value)] = None
    elif isinstance(obj, (BuiltinMethodType, MethodType)):
        if isinstance(obj.__self__, _CONTAINERS) and obj.__name__ in _FILLING:
            found[_name_of(obj.__self__)] = None
        elif isinstance(obj, MethodType):
            _collect(obj.__func__, found, seen)
    elif isinstance(obj, FunctionType) and not is_by_reference(obj):
        filled = set(_filled_names(obj.__code__))
        for name, value in _variables(obj).items():
            if isinstance(value, _CONTAINERS):
                if name in filled:
                    found[name] = None
            else:
                _collect(value, found, seen)


def _variables(function: FunctionType) -> dict[str, Any]:
    found = used_globals(function)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet
            continue
    return found


def _filled_names(code: CodeType) -> Iterator[str]:
    """The variables, of those from outside, that the code calls a filling method of; all where it sets an item."""
    outside: list[str] = []
    last: str | None = None
    sets_items = False
    for one in dis.get_instructions(code):
        if one.opname in _STORES:
            sets_items = True
        if one.opname in ("LOAD_GLOBAL", "LOAD_DEREF", "LOAD_NAME"):
            last = one.argval
            outside.append(one.argval)
            continue
        if one.opname in ("LOAD_METHOD", "LOAD_ATTR") and last is not None and one.argval in _FILLING:
            yield last
        last = None
    if sets_items:
        yield from outside
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _filled_names(const)


def _name_of(container: Any) -> str:
    """The name that the notebook has for a container, else its type."""
    names = vars(sys.modules["__main__"])
    kind = type(container).__name__
    return next((name for name, value in [*names.items()] if value is container and name[:1] != "_"), f"a {kind}")
