"""Same answer everywhere: one list of pipelines, on every backend, with one instance of each operator and with more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parity.backends import BACKENDS, runs
from tests.parity.case import Case, dead_items, differs
from tests.parity.pipelines import PIPELINES
from tests.support import LIMIT, errors


def every_run() -> Iterator[Any]:
    for backend in BACKENDS:
        for number, case in enumerate(PIPELINES):
            for p in runs(backend, number) if case.scales else runs(backend, number)[:1]:
                yield pytest.param(backend, case, p, id=f"{backend} {p} {case.name}".replace("_", " "))


@pytest.mark.parametrize(("backend", "case", "p"), list(every_run()))
def test_the_answer_is_the_same_everywhere(backend: str, case: Case, p: int, tmp_path: Path) -> None:
    """Nothing is lost, nothing is doubled; order is kept where it is promised; errors and dead letters are counted."""
    env = BACKENDS[backend](case.name)
    case.declare(env, p, tmp_path)
    limit = 3 * LIMIT if backend == "ray" else LIMIT  # a wide pipeline has many actors to start
    job = env.submit(autostop=True, **{"timeout": limit, **case.submit})
    got = job.results["out"] if case.read is None else case.read(tmp_path)
    assert differs(got, case.expected(p), case.order_at(p), case.key) == ""
    for name, expected in case.more.items():
        assert differs(job.results[name], expected, "any", case.key) == "", name
    if case.errors is not None:
        assert errors(job) == case.errors
    for name, letters in case.dead.items():
        assert differs(dead_items(job, name), letters, "any", case.key) == "", name


def test_there_are_many_pipelines_and_each_has_a_name_of_its_own() -> None:
    names = [case.name for case in PIPELINES]
    assert len(names) == len(set(names)) >= 60
