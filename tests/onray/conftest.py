"""Every test here leaves the private Ray as it found it: without actors, and this process without threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.onray.losing import Losing


@pytest.fixture(autouse=True)
def _leaves_no_actor(no_actors: None) -> None:
    """See `no_actors`."""


@pytest.fixture(scope="session")
def losing() -> Iterator[Losing]:
    """A process that loses two clusters; started by the first test that asks for it."""
    one = Losing()
    with one.script:
        yield one
