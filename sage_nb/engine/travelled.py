"""Exceptions that travel: rebuilt as their own type, with arguments, notes, attributes and cause.

The user's `__init__` is not run again, as its arguments are not known. What cannot be rebuilt comes as `RemoteError`.
The traceback comes as text.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from typing import Any

from sage_nb.engine.shipping import Buffer, Known, dumps_items, loads_items
from sage_nb.errors import RemoteError, ShippingError

__all__ = ["dumps_exception", "loads_exception", "remote_frames", "remote_traceback"]

_LIMIT = 20_000
_DEPTH = 16
_TRACEBACK = "_sage_nb_remote_traceback"


def dumps_exception(exc: BaseException, known: Known | None = None) -> list[Buffer]:
    """An exception as buffers for `loads_exception`. Never fails: what cannot travel is left out, or told as text."""
    return dumps_items(_record(exc, known, _DEPTH), known)


def loads_exception(buffers: Sequence[Buffer]) -> BaseException:
    """The exception, of its own type where that can be had here, else a `RemoteError`. See `remote_traceback`."""
    return _rebuilt(loads_items(buffers))


def remote_traceback(exc: BaseException) -> str:
    """The traceback, as text, of an exception that came from another process; empty for others."""
    if isinstance(exc, RemoteError):
        return exc.remote_traceback
    return str(getattr(exc, _TRACEBACK, ""))


def remote_frames(exc: BaseException) -> str:
    """The same without what a traceback of `exc` here says as well, its last lines and notes; empty without frames."""
    text = remote_traceback(exc)
    notes = "".join(f"{note}\n" for note in _listed(getattr(exc, "__notes__", None)))
    for said in ("".join(traceback.format_exception_only(exc)), notes):
        if said and text.endswith(said):
            text = text.removesuffix(said)
            break
    return text.rstrip() if '  File "' in text else ""


def _record(exc: BaseException, known: Known | None, depth: int) -> dict[str, Any]:
    """What an exception is made of. Its type and values are streams of their own, so that each can fail alone."""
    record: dict[str, Any] = {
        "name": type(exc).__qualname__,
        "text": _text(exc),
        "notes": [str(note) for note in _listed(getattr(exc, "__notes__", None))],
        "traceback": _formatted(exc),
        "suppress": exc.__suppress_context__,
    }
    if depth:
        for name, other in (("cause", exc.__cause__), ("context", exc.__context__)):
            if other is not None and not (name == "context" and other is exc.__cause__):
                record[name] = _record(other, known, depth - 1)
        if isinstance(exc, BaseExceptionGroup):
            record["group"] = [_record(one, known, depth - 1) for one in exc.exceptions]
    args, state = _reduced(exc)
    made = (type(exc), args[:1], ()) if "group" in record else (type(exc), args, exc.args)
    record["made"] = _stream(made, known)
    record["state"] = {name: _stream(value, known) for name, value in state.items()}
    return record


def _listed(notes: Any) -> list[Any]:
    return list(notes) if isinstance(notes, (list, tuple)) else []


def _reduced(exc: BaseException) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments and attributes of an exception, those of the built-in types among them."""
    args, state = exc.args, vars(exc)
    try:
        made = exc.__reduce__()
    except Exception:  # noqa: BLE001 - the user's, and then the usual way it is
        made = ""
    if isinstance(made, tuple) and made[0] is type(exc):
        args = made[1]
        if len(made) > 2 and isinstance(made[2], dict):
            state = {**state, **made[2]}
    return args, {name: value for name, value in state.items() if name not in ("__notes__", _TRACEBACK)}


def _stream(value: Any, known: Known | None) -> list[bytes] | None:
    """A stream of its own; None where `value` cannot travel."""
    try:
        return [bytes(buffer) for buffer in dumps_items(value, known)]
    except ShippingError:
        return None


def _text(exc: BaseException) -> str:
    try:
        return str(exc)[:_LIMIT]
    except Exception as other:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<its str() raised {type(other).__name__}>"


def _formatted(exc: BaseException) -> str:
    if earlier := remote_traceback(exc):
        return earlier
    try:
        return "".join(traceback.format_exception(exc, limit=-30))[-_LIMIT:]
    except Exception:  # noqa: BLE001 - as in _text
        return f"{type(exc).__qualname__}: {_text(exc)}\n"


def _rebuilt(record: dict[str, Any]) -> BaseException:
    try:
        exc = _made(record)
    except Exception:  # noqa: BLE001 - the class is the user's, and may refuse in any way
        exc = RemoteError(record["name"], record["text"], record["traceback"])
    for note in record["notes"]:
        exc.add_note(note)
    for name, stream in record["state"].items():
        _set(exc, name, stream)
    _set_value(exc, _TRACEBACK, record["traceback"])
    for name in ("cause", "context"):
        if name in record:
            setattr(exc, f"__{name}__", _rebuilt(record[name]))
    exc.__suppress_context__ = record["suppress"]
    return exc


def _made(record: dict[str, Any]) -> BaseException:
    if record["made"] is None:
        raise TypeError("its arguments did not travel")
    cls, args, shown = loads_items(record["made"])
    if cls is RemoteError:
        return RemoteError(*args)
    if "group" in record:
        group: BaseException = cls.__new__(cls, args[0], [_rebuilt(one) for one in record["group"]])
        return group
    builtin = cls  # the one whose layout in memory it has: of several, Python takes no other's
    while builtin.__module__ != "builtins":
        builtin = builtin.__base__
    exc: BaseException = builtin.__new__(cls, *args)
    builtin.__init__(exc, *args)
    exc.args = shown
    return exc


def _set(exc: BaseException, name: str, stream: list[bytes] | None) -> None:
    if stream is None or isinstance(exc, RemoteError):
        return
    try:
        value = loads_items(stream)
    except Exception:  # noqa: BLE001 - an attribute less is better than the exception lost
        return
    _set_value(exc, name, value)


def _set_value(exc: BaseException, name: str, value: Any) -> None:
    try:
        object.__setattr__(exc, name, value)
    except (AttributeError, TypeError):  # it has no room for it
        return
