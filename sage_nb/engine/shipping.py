"""Sending code and data to another process, and getting the user's own objects back.

Code (`dumps`) takes the user's modules along as source, and by value what no import would give; data (`dumps_items`)
goes through the C pickler as it is. Both make a list of buffers: the stream, then the memory of large arrays, which is
not copied.
Instances of the caller's classes come back as just that, and so do exceptions.
"""

from __future__ import annotations

import marshal
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from sage_nb.engine.buffers import Buffer, Buffers
from sage_nb.engine.rebuild import LOCK, RECEIVED, Known, class_of, origin

__all__ = [
    "RECEIVED",
    "Buffer",
    "Known",
    "dumps",
    "dumps_items",
    "loads",
    "loads_items",
]


def dumps(obj: Any, *, parts: Mapping[str, Any] | None = None, known: Known | None = None) -> list[Buffer]:
    """Functions, classes and what they hold, as buffers for `loads` in another process.

    `parts` names pieces of `obj`, such as `{"operator 'parse' (map)": its function}`, for the message where one cannot
    travel. `known` are the classes that the other side has; those that are sent are added.

    Raises `ShippingError`, before anything is sent, that says which part, which variable in it, of which type.
    """
    from sage_nb.engine.usermodules import sources

    buffers = Buffers()
    stream, reached, sent = _dump(obj, parts or {}, known, buffers, whole=True)
    found = sources(reached)
    if known is not None:
        known.update(sent)
    return [marshal.dumps((origin(), found, list(sent))), stream, *buffers]


def loads(buffers: Sequence[Buffer]) -> Any:
    """What `dumps` was given. Its modules are importable from then on."""
    whose, found, classes = marshal.loads(buffers[0])
    if whose != origin():
        from sage_nb.engine.usermodules import install

        install(found)
    with LOCK:
        made = pickle.loads(buffers[1], buffers=buffers[2:])
        if whose != origin():
            RECEIVED.update({token: cls for token in classes if (cls := class_of(token)) is not None})
        return made


def _dump(
    obj: Any, parts: Mapping[str, Any], known: Known | None, buffers: Buffers, *, whole: bool
) -> tuple[bytes, set[str], Known]:
    from sage_nb.engine.byvalue import dump

    try:
        return dump(obj, known, whole=whole, buffers=buffers)
    except Exception as exc:
        from sage_nb.engine.unshippable import explain

        raise explain(obj, parts, exc) from exc


def dumps_items(items: Any, known: Known | None = None) -> list[Buffer]:
    """Data as buffers for `loads_items`: the stream, then the memory of large arrays, which is not copied.

    The buffers must be sent, or copied, before the arrays are written to again. `known` are the classes that the other
    side has; the definition of any other class of a notebook goes with every call, so that the other side need not keep
    it. Raises `ShippingError` for what cannot travel.
    """
    if type(items) is list and items and type(items[0]).__module__ == "__main__":
        return _dump_slowly(items, known)
    buffers = Buffers()
    try:
        stream = pickle.dumps(items, 5, buffer_callback=buffers.take)
    except Exception:  # noqa: BLE001 - the other way may do it, and else says what is wrong
        return _dump_slowly(items, known)
    return _dump_slowly(items, known) if b"__main__" in stream else [stream, *buffers]


def _dump_slowly(items: Any, known: Known | None) -> list[Buffer]:
    buffers = Buffers()
    stream, _, _ = _dump(items, {}, known, buffers, whole=False)
    return [stream, *buffers]


def loads_items(buffers: Sequence[Buffer]) -> Any:
    """What `dumps_items` was given. Arrays lie in the buffers; they can be written to where these can."""
    return pickle.loads(buffers[0], buffers=buffers[1:])
