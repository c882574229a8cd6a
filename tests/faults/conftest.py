"""Tests of faults leave no process behind, either."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.support import children
from tests.support import until


@pytest.fixture(autouse=True)
def _leaves_no_process() -> Iterator[None]:
    before = children()
    yield
    until(lambda: not children() - before, 3.0)
