"""Functions and classes that no import gives: those of a notebook, lambdas, and what is defined inside a function.

They travel as what they are made of, and of their globals only those that they use. All functions that share their
globals here share them there as well. A class has a token, random and its own: where the token is known, the class that
has it is taken, so that an instance that went elsewhere and came back is an instance of the class it was made of.
"""

from __future__ import annotations

import builtins
import dataclasses
import datetime
import dis
import functools
import importlib
import io
import linecache
import marshal
import pickle
import socket
import sys
import threading
import types
import typing
import weakref
from collections.abc import Callable
from types import CellType, CodeType, FunctionType, ModuleType
from typing import Any

from sage_nb.engine import rebuild
from sage_nb.engine.buffers import Buffers
from sage_nb.engine.classes import is_called, reduce_class
from sage_nb.engine.rebuild import Known
from sage_nb.engine.usermodules import submodules

__all__ = ["dump", "is_by_reference", "used_globals"]

_MEANINGLESS = (
    io.IOBase, socket.socket, threading.local, types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType,
    types.FrameType, types.TracebackType,
)  # fmt: skip
_MEANINGLESS_TYPES = {type(threading.Lock()), type(threading.RLock()), type(datetime.datetime_CAPI)}
_TYPES = {value: name for name, value in vars(types).items() if isinstance(value, type)}
_IMMUTABLE = 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE: made in C


# ------------------------------------------------------------------------------------------------ by reference or not


def is_by_reference(obj: Any) -> bool:
    """Whether `obj`, a function or class, is found by its module and name in another process too."""
    name = getattr(obj, "__module__", None)
    return isinstance(name, str) and not _is_made_here(name) and is_called(obj, name)


def _is_made_here(name: str) -> bool:
    """Whether a module cannot be imported elsewhere: `__main__`, and what was made at run time."""
    top = sys.modules.get(name.partition(".")[0])
    return name == "__main__" or top is None or getattr(top, "__spec__", None) is None


# ----------------------------------------------------------------------------------------------------- used globals

_GLOBAL_OPS = {"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"}


@dataclasses.dataclass(frozen=True, slots=True)
class _Names:
    """What a code object, with those inside it, names."""

    used: frozenset[str]
    imported: frozenset[str]
    attributes: frozenset[str]


@functools.lru_cache(maxsize=1024)
def _names(code: CodeType) -> _Names:
    used: set[str] = set()
    imported: set[str] = set()
    attributes = set(code.co_names)
    for one in dis.get_instructions(code):
        if one.opname in _GLOBAL_OPS:
            used.add(one.argval)
        elif one.opname == "IMPORT_NAME" and one.argval:
            imported.add(one.argval)
    for const in code.co_consts:
        if isinstance(const, CodeType):
            inner = _names(const)
            used |= inner.used
            imported |= inner.imported
            attributes |= inner.attributes
    return _Names(frozenset(used), frozenset(imported), frozenset(attributes))


def used_globals(function: FunctionType) -> dict[str, Any]:
    """The globals that a function uses and that are there, by name."""
    names = function.__globals__
    return {name: names[name] for name in sorted(_names(function.__code__).used) if name in names}


# ------------------------------------------------------------------------------------------------------- the way out


def _sentinels() -> dict[int, str]:
    """Objects that are compared by identity: a copy of them would mean nothing."""
    names = ("MISSING", "KW_ONLY", "_FIELD", "_FIELD_CLASSVAR", "_FIELD_INITVAR", "_HAS_DEFAULT_FACTORY")
    return {id(getattr(dataclasses, name)): name for name in names if hasattr(dataclasses, name)}


_SENTINELS = _sentinels()
_SENTINEL_TYPES = tuple({type(getattr(dataclasses, name)) for name in _SENTINELS.values()})


@dataclasses.dataclass(frozen=True, slots=True)
class _Namespace:
    """The globals of a function, on the way: `make(name)` gives those there. `travels` says that their values do."""

    make: Callable[[Any], dict[str, Any]]
    name: Any
    travels: bool


class Reducer:
    """What a pickler needs to send functions and classes by value. Mixed into one, as its first base.

    `known` are the classes that the other side has. With `whole` set, classes are part of the stream; else each is
    a stream of its own, which the other side reads only where it does not know the class.
    """

    def begin(self, known: Known | None, *, whole: bool) -> None:
        """Set up; to be called before the first object."""
        self.known = known or {}
        self.sent: Known = {}
        """The classes that the other side has from now on."""
        self.whole = whole
        self.reached: set[str] = set()
        """The modules that what is sent refers to."""
        self._texts: dict[str, str] = {}
        self._namespaces: dict[int, _Namespace] = {}

    def reducer_override(self, obj: Any) -> Any:
        """How to send `obj`, or `NotImplemented` where pickle knows how."""
        cls = type(obj)
        handler = _HANDLERS.get(cls)
        if handler is not None:
            return handler(self, obj)
        if isinstance(obj, type):
            return self._class(obj)
        if isinstance(obj, ModuleType):
            return self._module(obj)
        return NotImplemented

    def _module(self, module: ModuleType) -> Any:
        if rebuild.key_of(module.__dict__) is not None:
            raise pickle.PicklingError("the notebook's own module, __main__, cannot travel; use what you need of it")
        if _is_made_here(module.__name__):
            raise pickle.PicklingError(f"the module {module.__name__} was made at run time and cannot be imported")
        self.reached.add(module.__name__)
        return importlib.import_module, (module.__name__,)

    def _function(self, function: FunctionType) -> Any:
        if is_by_reference(function):
            self.reached.add(function.__module__)
            return NotImplemented
        namespace = self._namespace(function.__globals__)
        names = _names(function.__code__)
        self.reached |= names.imported
        used = used_globals(function) if namespace.travels else {}
        if namespace.travels and (package := function.__globals__.get("__package__")):
            used["__package__"] = package  # relative imports start there
            self.reached.add(package)
        closure = function.__closure__ or ()
        cells = [(cell, cell.cell_contents) for cell in closure if _is_filled(cell)]
        modules = (one for one in (*used.values(), *(value for _, value in cells)) if isinstance(one, ModuleType))
        imports = [name for module in modules for name in submodules(module, names.attributes)]
        state = {
            "globals": used,
            "imports": imports,
            "cells": cells,
            "text": self._text(function.__code__.co_filename, namespace),
            "attributes": {name: getattr(function, name) for name in _FUNCTION_ATTRIBUTES},
            "dict": function.__dict__,
        }
        args = (function.__code__, namespace, closure)
        return rebuild.make_function, args, state, None, None, rebuild.fill_function

    def _namespace(self, names: dict[str, Any]) -> _Namespace:
        """What stands for a function's globals, the same for all that share them."""
        found = self._namespaces.get(id(names))
        if found is None:
            found = self._namespaces[id(names)] = self._new_namespace(names)
        return found

    def _new_namespace(self, names: dict[str, Any]) -> _Namespace:
        name = names.get("__name__")
        module = sys.modules.get(name) if isinstance(name, str) and not _is_made_here(name) else None
        if module is not None and module.__dict__ is names:
            self.reached.add(module.__name__)
            return _Namespace(rebuild.namespace_of_module, name, travels=False)
        key = rebuild.key_of(names)
        if key is not None:
            return _Namespace(rebuild.namespace_of_main, key, travels=True)
        return _Namespace(rebuild.new_namespace, name, travels=True)

    def _text(self, file: str, namespace: _Namespace) -> tuple[str, str] | None:
        """The lines of a cell, so that tracebacks show them there too."""
        if not namespace.travels:
            return None
        if file not in self._texts:
            self._texts[file] = "".join(linecache.getlines(file))
        return (file, self._texts[file]) if self._texts[file] else None

    def _globals(self, namespace: _Namespace) -> Any:
        return namespace.make, (namespace.name,)

    def _code(self, code: CodeType) -> Any:
        return marshal.loads, (marshal.dumps(code),)

    def _cell(self, cell: CellType) -> Any:
        return rebuild.make_cell, ()  # the functions that have it fill it, which cannot be a circle

    def _class(self, cls: type) -> Any:
        if cls.__flags__ & _IMMUTABLE or is_by_reference(cls):
            self.reached.add(cls.__module__)
            nameless = cls.__module__ == "builtins" and not hasattr(builtins, cls.__name__) and cls in _TYPES
            return (getattr, (types, _TYPES[cls])) if nameless else NotImplemented
        token = rebuild.token_of(cls)
        if token in self.known:
            return rebuild.known_class, (token, cls.__qualname__)
        self.sent[token] = cls  # and not into `known`: a circle of classes comes by here twice
        if not self.whole:
            return rebuild.load_class, (token, _definition(cls))
        return reduce_class(cls, token)

    def _sentinel(self, obj: Any) -> Any:
        return f"{_SENTINELS[id(obj)]}" if id(obj) in _SENTINELS else NotImplemented

    def _property(self, obj: property) -> Any:
        return property, (obj.fget, obj.fset, obj.fdel, obj.__doc__)

    def _method_kind(self, obj: staticmethod[..., Any] | classmethod[Any, ..., Any]) -> Any:
        return type(obj), (obj.__func__,)

    def _cached_property(self, obj: functools.cached_property[Any]) -> Any:
        return rebuild.make_cached_property, (obj.func, obj.attrname)

    def _lru_cache(self, obj: Any) -> Any:
        wrapped, settings = obj.__wrapped__, obj.cache_parameters()
        if is_by_reference(obj):
            self.reached.add(obj.__module__)
            return NotImplemented
        return rebuild.make_lru_cache, (settings["maxsize"], settings["typed"], wrapped)

    def _proxy(self, obj: types.MappingProxyType[Any, Any]) -> Any:
        return rebuild.make_proxy, (dict(obj),)

    def _weak(self, obj: Any) -> Any:
        return type(obj), ((set if isinstance(obj, weakref.WeakSet) else dict)(obj),)

    def _type_var(self, obj: Any) -> Any:
        if not _is_made_here(obj.__module__ or "__main__"):
            return NotImplemented
        variance = {"covariant": obj.__covariant__, "contravariant": obj.__contravariant__}
        return rebuild.make_type_var, (obj.__name__, obj.__constraints__, obj.__bound__, variance)


_FUNCTION_ATTRIBUTES = (
    "__name__", "__qualname__", "__module__", "__doc__", "__defaults__", "__kwdefaults__", "__annotations__",
)  # fmt: skip

_HANDLERS: dict[type, Callable[[Any, Any], Any]] = {
    FunctionType: Reducer._function,
    _Namespace: Reducer._globals,
    CodeType: Reducer._code,
    CellType: Reducer._cell,
    ModuleType: Reducer._module,
    type: Reducer._class,
    property: Reducer._property,
    staticmethod: Reducer._method_kind,
    classmethod: Reducer._method_kind,
    functools.cached_property: Reducer._cached_property,
    functools._lru_cache_wrapper: Reducer._lru_cache,
    types.MappingProxyType: Reducer._proxy,
    weakref.WeakKeyDictionary: Reducer._weak,
    weakref.WeakValueDictionary: Reducer._weak,
    weakref.WeakSet: Reducer._weak,
    typing.TypeVar: Reducer._type_var,
    **dict.fromkeys(_SENTINEL_TYPES, Reducer._sentinel),
}


def _is_filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - it raises where the cell is empty
    except ValueError:
        return False
    return True


# ------------------------------------------------------------------------------------------------------------ picklers

_DEFINITIONS: weakref.WeakKeyDictionary[type, tuple[tuple[tuple[str, int], ...], bytes]] = weakref.WeakKeyDictionary()


class CodePickler(Reducer, pickle.Pickler):
    """The usual one, and quick."""


@functools.lru_cache(maxsize=1)
def make_dill_pickler() -> type:
    """The one for rare types, such as weak references and the types of functions; made late, as dill is slow to import.

    Without dill's ways for what means nothing elsewhere, such as locks, open files and sockets.
    """
    import dill  # type: ignore[import-untyped]

    class DillPickler(Reducer, dill.Pickler):  # type: ignore[misc]
        dispatch = dill.Pickler.dispatch.copy()

        def reducer_override(self, obj: Any) -> Any:
            in_memory = isinstance(obj, (io.BytesIO, io.StringIO))
            if (isinstance(obj, _MEANINGLESS) and not in_memory) or type(obj) in _MEANINGLESS_TYPES:
                raise pickle.PicklingError(f"a {type(obj).__name__} means nothing in another process")
            if isinstance(obj, type) and obj in (type(None), type(...), type(NotImplemented)):
                return type, ({type(None): None, type(...): ...}.get(obj, NotImplemented),)
            return super().reducer_override(obj)

    DillPickler.dispatch[dict] = pickle._Pickler.dispatch[dict]
    return DillPickler


def dump(
    obj: Any, known: Known | None = None, *, whole: bool = True, buffers: Buffers | None = None
) -> tuple[bytes, set[str], Known]:
    """The stream of an object, the modules that it refers to, and the classes that it has; see `Reducer`.

    Large arrays go to `buffers`, where that is given. Raises what the quick pickler did where neither can do it.
    """
    try:
        return _dump(CodePickler, obj, known, whole, buffers)
    except Exception as exc:  # noqa: BLE001 - what a user's __reduce__ or __getstate__ raises may be anything
        first = exc
    if buffers is not None:
        buffers.clear()
    try:
        return _dump(make_dill_pickler(), obj, known, whole, buffers)
    except Exception:  # noqa: BLE001 - as above
        raise first from None


def _dump(
    kind: Any, obj: Any, known: Known | None, whole: bool, buffers: Buffers | None
) -> tuple[bytes, set[str], Known]:
    file = io.BytesIO()
    pickler = kind(file, protocol=5, buffer_callback=None if buffers is None else buffers.take)
    pickler.begin(known, whole=whole)
    pickler.dump(obj)
    return file.getvalue(), pickler.reached, pickler.sent


def _definition(cls: type) -> bytes:
    """A class as a stream of its own, made again where an attribute was set since."""
    signature = tuple((name, id(value)) for name, value in cls.__dict__.items())
    made = _DEFINITIONS.get(cls)
    if made is None or made[0] != signature:
        made = _DEFINITIONS[cls] = (signature, dump(cls)[0])
    return made[1]
