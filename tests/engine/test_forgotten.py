"""A map whose function returns nothing is named, where nobody could have meant it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sage_nb import DataStream, LocalEnvironment, MapFunction
from sage_nb.jobs.job import Job


def run(declare: Callable[[DataStream], Any], items: int = 3, **options: Any) -> Job:
    env = LocalEnvironment("maps", **options)
    declare(env.from_batch(range(items)))
    return env.submit(autostop=True)


def forgets(n: int) -> None:
    str(n)


async def forgets_later(n: int) -> None:
    str(n)


def chooses(n: int) -> int | None:
    if n > 100:
        return n
    return None


class Forgets(MapFunction):
    def execute(self, item: Any) -> Any:
        self.seen = item


NOTE = "map {!r} returned None for each of its 3 items, so nothing came out; did it forget to return?"


@pytest.mark.parametrize("backend", ["threads", "processes"])
@pytest.mark.parametrize(
    ("fn", "name"), [(print, "print"), (forgets, "forgets"), (Forgets, "Forgets"), (forgets_later, "forgets_later")]
)
def test_a_map_that_returns_none_for_every_item_is_named(fn: Any, name: str, backend: str) -> None:
    job = run(lambda stream: stream.map(fn).filter(bool).collect("out"), backend=backend)
    assert job.notes == (NOTE.format(name),)
    assert job.snapshot().notes == job.notes


def test_it_is_named_with_its_only_item() -> None:
    job = run(lambda stream: stream.map(lambda n: print(n), name="shows").collect("out"), items=1)
    assert job.notes == ("map 'shows' returned None for its only item, so nothing came out; did it forget to return?",)


@pytest.mark.parametrize(
    "declare",
    [
        lambda stream: stream.map(chooses).collect("out"),
        lambda stream: stream.map(lambda n: n if n > 100 else None).collect("out"),
        lambda stream: stream.map(lambda n: n if n == 1 else print(n)).collect("out"),
        lambda stream: stream.filter(lambda n: None).collect("out"),
        lambda stream: stream.filter(lambda n: n > 100).map(forgets).collect("out"),
        lambda stream: stream.flatmap(lambda n: []).collect("out"),
        lambda stream: stream.map(lambda n: 1 / 0, on_error="skip").collect("out"),
    ],
    ids=["chooses", "lambda that chooses", "one passes", "filter", "no items", "flatmap", "errors"],
)
def test_what_may_be_meant_is_not_named(declare: Callable[[DataStream], Any]) -> None:
    assert run(declare).notes == ()


def test_a_map_that_nothing_reads_is_not_named() -> None:
    job = run(lambda stream: (stream.map(forgets), stream.collect("out")))
    assert not [note for note in job.notes if "returned None" in note]
