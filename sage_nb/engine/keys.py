"""Which instance gets which key: the same answer in every process, and the same for keys that are equal.

Python's own hash of numbers has both properties; that of text has neither between processes. So text and bytes are
hashed here, everything that is made of numbers is left to Python, and a type that offers no such hash is refused.
"""

from __future__ import annotations

import datetime as dt
import enum
import numbers
import uuid
from collections.abc import Callable
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from zlib import crc32

from sage_nb.errors import KeyTypeError, PipelineError

__all__ = ["router", "stable_hash"]

_MICRO = dt.timedelta(microseconds=1)
_EPOCH = dt.datetime(1, 1, 1)
_MASK = (1 << 64) - 1


def stable_hash(key: Any) -> int:
    """A hash that is the same in every process; equal keys have equal hashes, also across types (1, 1.0, True).

    Numbers, str, bytes, None, bool, dates and times, `timedelta`, `UUID`, `Enum` members, paths, and tuples and
    frozensets of these. Raises `KeyTypeError` for anything else, and for NaN, which is not equal to itself.
    """
    cls = type(key)
    if cls is str:
        try:
            return crc32(key.encode())
        except UnicodeEncodeError:
            return _of_str(key)
    if cls is int or cls is bool:
        return hash(key)
    return (_BY_TYPE.get(cls) or _handler(key))(key)


def _of_str(key: str) -> int:
    return crc32(str.encode(key, "utf-8", "surrogatepass"))


def _of_int(key: int) -> int:
    return int.__hash__(key)


def _of_number(key: Any) -> int:
    if key.is_nan() if isinstance(key, Decimal) else key != key:
        raise _nan(key)
    return hash(key)


def _of_tuple(key: tuple[Any, ...]) -> int:
    return hash(tuple([stable_hash(part) for part in key]))


def _of_frozenset(key: frozenset[Any]) -> int:
    return hash(frozenset([stable_hash(part) for part in key]))


def _of_datetime(key: dt.datetime) -> int:
    if key != key:
        raise _nan(key)
    # As `datetime.__hash__`: of the two moments that a repeated hour may mean, the first.
    offset = key.replace(fold=0).utcoffset()
    naive = dt.datetime(key.year, key.month, key.day, key.hour, key.minute, key.second, key.microsecond) - _EPOCH
    return hash(naive // _MICRO if offset is None else (naive - offset) // _MICRO)


def _of_date(key: dt.date) -> int:
    return hash((1, key.toordinal()))


def _of_time(key: dt.time) -> int:
    offset = key.replace(fold=0).utcoffset() or dt.timedelta()
    since = dt.timedelta(hours=key.hour, minutes=key.minute, seconds=key.second, microseconds=key.microsecond)
    return hash((since - offset) // _MICRO)


def _of_timedelta(key: dt.timedelta) -> int:
    return hash((key.days, key.seconds, key.microseconds))


def _of_enum(key: enum.Enum) -> int:
    cls = type(key)
    name = key.name if isinstance(key.name, str) else repr(key.value)  # a combination of flags may have no name
    return _of_str(f"{cls.__module__}.{cls.__qualname__}.{name}")


# In this order: the first that a key is an instance of decides, and then for all keys of that type.
_KINDS: tuple[tuple[type, Callable[[Any], int]], ...] = (
    (str, _of_str),
    (int, _of_int),
    (bytes, crc32),
    (tuple, _of_tuple),
    (numbers.Number, _of_number),
    (dt.datetime, _of_datetime),
    (dt.date, _of_date),
    (dt.time, _of_time),
    (dt.timedelta, _of_timedelta),
    (uuid.UUID, lambda key: hash(key.int)),
    (PurePath, lambda key: _of_str(str(key).lower())),
    (frozenset, _of_frozenset),
    (enum.Enum, _of_enum),  # after the types that an Enum may be mixed with, as it is equal to their values then
    (type(None), lambda _: 0x5EED),
)
_BY_TYPE: dict[type, Callable[[Any], int]] = {}


def _handler(key: Any) -> Callable[[Any], int]:
    cls = type(key)
    found = next((handler for kind, handler in _KINDS if isinstance(key, kind)), None)
    if found is None:
        if cls.__module__ != "numpy" or cls.__name__ not in ("bool", "bool_"):
            raise _refusal(key)
        found = hash  # of all of numpy's numbers, the one that `numbers` does not know
    _BY_TYPE[cls] = found
    return found


def _nan(key: Any) -> KeyTypeError:
    return KeyTypeError(
        f"{key!r} cannot be a key: it is not equal to itself, so its items would never come together; "
        "return None for what has no value, or filter such items out"
    )


_HINTS: tuple[tuple[type, str], ...] = (
    (list, "return a tuple"),
    (set, "return a frozenset"),
    (bytearray, "return bytes"),
    (dict, "return a tuple of the values that matter"),
)
_HINT = "return a str, a number, or a tuple of the fields that make it what it is"


def _refusal(key: Any) -> KeyTypeError:
    cls = type(key)
    name = cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"
    hint = next((text for kind, text in _HINTS if isinstance(key, kind)), _HINT)
    return KeyTypeError(f"a key of type {name} has no hash that is the same in every process; {hint}")


def _mixed(hashed: int) -> int:
    """Spread the bits, so that neighbours and multiples do not end up in one place (after MurmurHash3's finaliser)."""
    x = hashed & _MASK
    x = ((x ^ (x >> 33)) * 0xFF51AFD7ED558CCD) & _MASK
    x = ((x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53) & _MASK
    return x ^ (x >> 33)


class _Routes(dict[Any, int]):
    """Instances by key. What is looked up often costs one look-up; `limit` bounds what is kept."""

    __slots__ = ("count", "limit")

    def __init__(self, count: int, limit: int) -> None:
        self.count = count
        self.limit = limit

    def __missing__(self, key: Any) -> int:
        index = _mixed(stable_hash(key)) % self.count
        if len(self) >= self.limit:
            self.clear()
        self[key] = index
        return index


def router(count: int, limit: int = 1 << 16) -> Callable[[Any], int]:
    """A function that gives each key one of the instances 0 to `count` - 1. For use by one thread.

    The routes of the last keys are kept, at most `limit`. Raises `KeyTypeError` as `stable_hash` does.
    """
    if count < 1:
        raise PipelineError(f"keys are routed to 1 instance or more, not {count}")
    routes = _Routes(count, limit)

    def route(key: Any) -> int:
        try:
            return routes[key]
        except KeyTypeError:
            raise
        except TypeError:  # not hashable: say which part of it is not
            return _mixed(stable_hash(key)) % count

    return route
