"""A server whose jobs run on a Ray cluster that they share."""

from __future__ import annotations

from pathlib import Path

import pytest

from sage_nb import JobManagerServer, RemoteEnvironment
from tests.support import LIMIT

pytest.importorskip("ray")


@pytest.mark.timeout(180)
def test_jobs_of_a_server_on_ray_share_one_cluster_that_ends_with_it(tmp_path: Path) -> None:
    def where(item: int) -> tuple[int, str]:
        import ray

        return item, ray.get_runtime_context().gcs_address

    with JobManagerServer(port=0, backend="ray", state=tmp_path) as server:
        found = []
        for _ in range(2):
            env = RemoteEnvironment("on ray", port=server.port)
            env.from_batch(range(4)).map(where, parallelism=2).collect("out")
            job = env.submit(autostop=True, timeout=3 * LIMIT)
            assert sorted(item for item, _ in job.results["out"]) == [0, 1, 2, 3]
            assert [op.executor for op in job.progress.operators][1] == "actor"
            found += [address for _, address in job.results["out"]]
        assert len(set(found)) == 1
    assert not answers(found[0])


def answers(address: str) -> bool:
    """Whether somebody listens there."""
    import socket

    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 2.0).close()
    except OSError:
        return False
    return True
