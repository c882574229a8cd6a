"""Every test here leaves the private Ray as it found it: without actors, and this process without threads."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _leaves_no_actor(no_actors: None) -> None:
    """See `no_actors`."""
