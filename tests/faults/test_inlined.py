"""Lambdas written into the loop: what a failure says does not depend on it."""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from sage_nb import LocalEnvironment
from tests.faults.support import notes
from tests.support import LIMIT, errors


def divides(env: Any) -> Any:
    return env.from_batch([2, 1, 0]).map(lambda x: x + 0).map(lambda x: 10 // x, name="divides")


def filters(env: Any) -> Any:
    return env.from_batch([2, 1, 0]).filter(lambda x: 10 // x, name="divides")


def keys(env: Any) -> Any:
    return env.from_batch([2, 1, 0]).keyby(lambda x: 10 // x, name="divides").count()


def reduces(env: Any) -> Any:
    return env.from_batch([2, 1, 0]).keyby(lambda x: "all").reduce(lambda a, b: a // b, name="divides")


def sums(env: Any) -> Any:
    return env.from_batch([2, 1, 0]).keyby(lambda x: "all").sum(lambda x: 10 // x, name="divides")


def sinks(env: Any) -> Any:
    return env.from_batch([2, 1, 0]).sink(lambda x: 10 // x, name="divides")


def behind_a_boundary(env: Any) -> Any:
    return env.from_batch([2, 1, 0]).map(lambda x: x, parallelism=2).map(lambda x: 10 // x, name="divides")


def in_instances(env: Any) -> Any:
    return env.from_batch([2, 1, 0]).map(lambda x: 10 // x, name="divides", parallelism=2)


def over_lines(env: Any) -> Any:
    return env.from_batch([2, 1, 0]).map(
        lambda x: (
            x,
            10 // x,
        ),
        name="divides",
    )


def through_a_function(env: Any) -> Any:
    return env.from_batch([2, 1, 0]).map(lambda x: ten_by(x), name="divides")


def ten_by(x: int) -> int:
    return 10 // x


BUILDS = [divides, filters, keys, reduces, sums, sinks, behind_a_boundary, in_instances, over_lines, through_a_function]


def story(build: Callable[[Any], Any], inline: bool, on_error: str = "fail") -> dict[str, Any]:
    """All that is told of a failure."""
    env = LocalEnvironment("inlined", config={"inline": inline})
    build(env).collect("out")
    job = env.submit(on_error=on_error)
    assert job._dispatcher.clean.wait(LIMIT)
    exc, error = job.exception(), job.snapshot().error
    letters = job.dead_letters["divides"]
    return {
        "notes": notes(exc),
        "where": error and error.where,
        "code": error and error.code,
        "traceback": error and re.sub("0x[0-9a-f]+", "0x", error.traceback),
        "errors": errors(job),
        "letters": [
            (one.item, type(one.error), [frame.lineno for frame in traceback.extract_tb(one.error.__traceback__)][-1:])
            for one in letters
        ],
    }


@pytest.mark.parametrize("build", BUILDS)
def test_a_failing_lambda_is_told_at_the_users_line_inlined_or_not(build: Callable[[Any], Any]) -> None:
    inlined, called = story(build, True), story(build, False)
    first, last = build.__code__.co_firstlineno, max(line for _, _, line in build.__code__.co_lines() if line)
    found = re.fullmatch(r"test_inlined\.py, line (\d+)", inlined["where"])
    assert found
    if build is through_a_function:
        assert int(found[1]) == ten_by.__code__.co_firstlineno + 1
    else:
        assert first <= int(found[1]) <= last + 6
    assert "//" in inlined["notes"]
    assert "operator 'divides'" in inlined["notes"]
    assert "on the item 0" in inlined["notes"]
    assert inlined == called
    assert inlined["errors"] == {"divides": 1}


@pytest.mark.parametrize("build", BUILDS)
def test_dead_letters_of_a_lambda_are_the_same_inlined_or_not(build: Callable[[Any], Any]) -> None:
    inlined, called = story(build, True, "dead_letter"), story(build, False, "dead_letter")
    assert inlined == called
    assert [(item, kind) for item, kind, _ in inlined["letters"]] == [(0, ZeroDivisionError)]
