"""What is left to see two minutes after two clusters were lost. Comes last, as the other tests on Ray take as long."""

from __future__ import annotations

import pytest

from tests.onray.losing import Losing
from tests.support import LIMIT


@pytest.mark.timeout(300)
def test_a_process_that_lost_its_cluster_lives_on_and_runs_jobs(losing: Losing) -> None:
    """Ray would end it a minute after the loss."""
    assert losing.said(4)[3:] == ["lives 20"]
    assert losing.script.end(LIMIT)[0] == 0
