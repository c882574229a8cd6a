"""Every test here leaves the private Ray as it found it: without actors, and this process without threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.onray.support import living_actors, our_threads
from tests.support import until


@pytest.fixture(autouse=True)
def _leaves_no_actor() -> Iterator[None]:
    yield
    until(lambda: not living_actors())
    until(lambda: not our_threads())
