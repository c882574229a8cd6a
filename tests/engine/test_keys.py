"""Keys: the same instance in every process, and for all keys that are equal."""

from __future__ import annotations

import datetime as dt
import enum
import os
import subprocess
import sys
import uuid
from collections import Counter, namedtuple
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_nb import KeyTypeError, PipelineError
from sage_nb.engine.keys import router, stable_hash

ROOT = Path(__file__).parents[2]
Pair = namedtuple("Pair", "left right")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Word(str, enum.Enum):  # noqa: UP042 - the older way, which the users have too
    A = "a"


class Half(float, enum.Enum):
    HALF = 0.5


class Number(enum.IntEnum):
    ONE = 1


class Access(enum.Flag):
    READ = 1
    WRITE = 2


UTC = dt.UTC
BERLIN = ZoneInfo("Europe/Berlin")

PLAIN = [
    "", "a", "ä€😀", "\ud800", "x" * 10_000, b"", b"ab", 0, -1, 2**70, 1.5, float("inf"), 1 + 2j, True, None,
    Decimal("1.50"), Fraction(1, 3), (), ("a", 1, None, (b"x",)), dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 12),
    dt.time(12, 30),
    dt.datetime(2024, 2, 29, 12, tzinfo=UTC), dt.timedelta(days=1, microseconds=3), uuid.UUID(int=7), Path("a/b"),
    frozenset({"a", 1}), Colour.RED, Access.READ | Access.WRITE, Word.A, Pair(1, "b"), np.int64(5), np.str_("s"),
]  # fmt: skip


def hashes(seed: str) -> str:
    """The hashes of `PLAIN` in a new process."""
    code = "from tests.engine.test_keys import PLAIN, stable_hash; print([stable_hash(key) for key in PLAIN])"
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_key_has_the_same_hash_in_every_process() -> None:
    assert hashes("1") == hashes("2") == str([stable_hash(key) for key in PLAIN])


EQUAL = [
    (0, False, 0.0, -0.0, Decimal(0), Fraction(0), 0j, np.int64(0), np.float32(0), np.bool_(False), np.uint8(0)),
    (1, True, 1.0, Decimal("1.0"), Fraction(1), np.int8(1), np.float64(1), np.bool_(True), Number.ONE),
    (2**61, float(2**61), Decimal(2**61)),
    (0.5, Half.HALF, Fraction(1, 2), np.float16(0.5)),
    ("a", np.str_("a"), Word.A),
    (b"a", np.bytes_(b"a")),
    ((1, "a"), (1.0, np.str_("a")), (True, "a"), Pair(1, "a")),
    (
        dt.datetime(2024, 7, 1, 12, tzinfo=UTC),
        dt.datetime(2024, 7, 1, 14, tzinfo=BERLIN),
        dt.datetime(2024, 7, 1, 7, tzinfo=dt.timezone(dt.timedelta(hours=-5))),
        pd.Timestamp("2024-07-01T12:00Z"),
    ),
    (dt.datetime(2024, 7, 1), pd.Timestamp("2024-07-01")),
    (dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN), dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN)),
    (dt.datetime.min.replace(tzinfo=dt.timezone(dt.timedelta(hours=5))),),
    (dt.time(12, tzinfo=UTC), dt.time(14, tzinfo=dt.timezone(dt.timedelta(hours=2)))),
    (dt.timedelta(hours=24), dt.timedelta(days=1), pd.Timedelta(days=1)),
    (Path("a"), PurePosixPath("a")),
    (frozenset({1, "a"}), frozenset({1.0, np.str_("a")})),
]


@pytest.mark.parametrize("keys", EQUAL, ids=lambda keys: repr(keys[0]))
def test_equal_keys_go_together(keys: tuple[Any, ...]) -> None:
    assert all(keys[0] == key for key in keys)
    assert len({stable_hash(key) for key in keys}) == 1
    assert len({router(1000)(key) for key in keys}) == 1


leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(), st.fractions(),
    st.decimals(allow_nan=False), st.datetimes(), st.datetimes(timezones=st.timezones()), st.dates(), st.times(),
    st.times(timezones=st.timezones()), st.timedeltas(), st.uuids(),
)  # fmt: skip
small = st.one_of(st.booleans(), st.integers(-3, 3), st.floats(-3, 3).map(round), st.sampled_from("ab"), st.none())
keys = st.recursive(leaves | small, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


@given(keys, keys)
def test_equal_keys_have_equal_hashes(one: Any, other: Any) -> None:
    assert isinstance(stable_hash(one), int)
    if one == other:
        assert stable_hash(one) == stable_hash(other)


@given(st.datetimes(timezones=st.timezones()), st.timezones())
def test_a_moment_has_one_hash_in_all_zones(moment: dt.datetime, zone: dt.tzinfo) -> None:
    try:
        other = moment.astimezone(zone)
    except OverflowError:
        return
    if moment == other:
        assert stable_hash(moment) == stable_hash(other)


@given(st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_of_all_types_have_one_hash(number: float) -> None:
    assert stable_hash(number) == stable_hash(Fraction(number)) == stable_hash(Decimal(number))


class Own:
    """A type of the user's."""


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ([1], "type list .* return a tuple"),
        ({1}, "type set .* return a frozenset"),
        ({"a": 1}, "type dict .* a tuple of the values"),
        (bytearray(b"a"), "type bytearray .* return bytes"),
        (Own(), r"test_keys\.Own has no hash .* a tuple of the fields"),
        ((1, [2]), "type list"),
        (np.array([1]), r"numpy\.ndarray"),
        (object, "type type"),
        (np.datetime64("2024-01-01"), "datetime64"),
    ],
)
def test_a_type_without_a_stable_hash_is_refused(key: Any, text: str) -> None:
    for call in (stable_hash, router(4)):
        with pytest.raises(KeyTypeError, match=text) as caught:
            call(key)
        assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    "key", [float("nan"), Decimal("nan"), Decimal("snan"), np.float32("nan"), pd.NaT, complex("nan")]
)
def test_nan_is_refused(key: Any) -> None:
    with pytest.raises(KeyTypeError, match="not equal to itself"):
        stable_hash(key)
    with pytest.raises(KeyTypeError, match="not equal to itself"):
        router(2)(("a", key))


@pytest.mark.parametrize("count", [2, 3, 4, 8])
@pytest.mark.parametrize(
    "made",
    [
        lambda n: n,
        lambda n: n * 8,
        lambda n: n * 987,
        lambda n: n * 1000,
        lambda n: n / 4,
        lambda n: -n,
        lambda n: f"user{n}",
        lambda n: f"{n:08d}",
        lambda n: (n % 10, f"k{n}"),
        lambda n: dt.datetime(2024, 1, 1, tzinfo=UTC) + dt.timedelta(hours=n),
        lambda n: dt.date(2000, 1, 1) + dt.timedelta(days=n),
        lambda n: uuid.UUID(int=n),
    ],
)
def test_keys_spread_over_the_instances(made: Any, count: int) -> None:
    """Of 2,000 that are alike, none gets a quarter less or more than its share."""
    route = router(count)
    found = Counter(route(made(n)) for n in range(2000))
    assert set(found) == set(range(count))
    assert all(0.75 < got * count / 2000 < 1.25 for got in found.values()), found


def test_the_routes_that_are_kept_are_bounded_and_stay_the_same() -> None:
    route = router(4, limit=100)
    first = [route(n) for n in range(1000)]
    assert [route(n) for n in range(1000)] == first == [router(4)(n) for n in range(1000)]


def test_one_instance_or_more() -> None:
    assert router(1)("a") == 0
    with pytest.raises(PipelineError, match="1 instance or more, not 0"):
        router(0)
