"""Jobs that write to what their runner speaks with the server by: that ends them, and nobody else."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from contextlib import suppress

import pytest

from sage_nb import JobManagerClient, JobManagerServer, RemoteEnvironment, WorkerError
from sage_nb.remote.protocol import Kind, Order

HEAD = struct.Struct("<BxxxIQ")
SAID = {
    "noise": random.Random(1).randbytes(64),
    "many buffers": b"\xff" * 64,
    "a huge buffer": HEAD.pack(Kind.RESULTS, 1, 1 << 62),
    "an unknown kind": HEAD.pack(250, 0, 0),
    "a state that is none": HEAD.pack(Kind.STATE, 1, 3) + b"\xff\xff\xff",
    "an answer that is none": HEAD.pack(Order.ANSWER, 1, 1) + b"\xc1",
    "a picture that is none": HEAD.pack(Kind.SNAPSHOT, 1, 1) + b"[",
    "an end without a head": HEAD.pack(Kind.ENDED, 1, 0),
}


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
def test_a_job_that_says_nonsense_to_the_server_fails_alone(well: JobManagerServer, said: bytes) -> None:
    def speak(x: int) -> int:
        for fd in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:") and int(fd) > 2:
                    os.write(int(fd), said)
        return x

    env = RemoteEnvironment("noisy", port=well.port)
    env.from_source(lambda: 1, delay=0.01).map(speak).collect("out")
    with pytest.raises(WorkerError, match="the job's own process ended before the job did"):
        env.submit(autostop=True, timeout=20)


@pytest.fixture
def well(server: JobManagerServer, caplog: pytest.LogCaptureFixture) -> Iterator[JobManagerServer]:
    yield server
    client = JobManagerClient(port=server.port)
    assert client.health_check() == {"status": "ok"}
    assert client.get_server_info()["running"] == 0
    assert not [one for one in caplog.records if one.name in ("sage_nb.client", "asyncio") and one.levelname == "ERROR"]
