"""Results that keep the newest item of each key, of jobs on a server."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import JobManagerServer, RemoteEnvironment, attach
from sage_nb.errors import ShippingError
from tests.support import until


@pytest.fixture
def env(server: JobManagerServer) -> Iterator[RemoteEnvironment]:
    with RemoteEnvironment("latest", port=server.port) as one:
        yield one


def waits_for(file: Path, n: int) -> int:
    while not os.path.exists(file):
        time.sleep(0.005)
    return n


def counted(env: RemoteEnvironment, file: Path) -> Any:
    """0 to 9 by their remainder of 3, counted; the sixth waits for a file."""
    numbers = env.from_batch(range(10)).map(lambda n: waits_for(file, n) if n == 5 else n)
    return numbers.keyby(lambda n: n % 3).count()


@pytest.mark.parametrize("kind", ["collect", "show"])
def test_it_is_live_here_as_there(env: RemoteEnvironment, tmp_path: Path, kind: str) -> None:
    getattr(counted(env, tmp_path / "go"), kind)("out", latest=True)
    job = env.submit()
    until(lambda: list(job.results["out"]) == [(0, 2), (1, 2), (2, 1)])
    until(lambda: job.snapshot().results[0].rows == (("0", "2"), ("1", "2"), ("2", "1")))
    (tmp_path / "go").touch()
    job.wait()
    assert job.results["out"] == [(0, 4), (1, 3), (2, 3)]
    assert job.snapshot().results[0].rows == (("0", "4"), ("1", "3"), ("2", "3"))
    assert job.snapshot().results[0].total == 3
    assert attach(job.uuid, port=env.port).wait().results["out"] == [(0, 4), (1, 3), (2, 3)]


def test_its_stream_gives_what_there_is_and_then_each_change(env: RemoteEnvironment, tmp_path: Path) -> None:
    counted(env, tmp_path / "go").collect("out", latest=True)

    async def main() -> list[Any]:
        job = env.submit()
        await asyncio.to_thread(until, lambda: list(job.results["out"]) == [(0, 2), (1, 2), (2, 1)])
        got = []
        async for item in job.stream("out"):
            got.append(item)
            if len(got) == 3:
                (tmp_path / "go").touch()
        return got

    got = asyncio.run(main())
    assert got[:3] == [(0, 2), (1, 2), (2, 1)]
    assert dict(got[3:]) == {0: 4, 1: 3, 2: 3}


def test_an_object_that_was_changed_and_came_again_is_here_as_it_is_there(
    env: RemoteEnvironment, tmp_path: Path
) -> None:
    def tally(n: int, ctx: Any) -> Any:
        ctx.state["last"] = waits_for(tmp_path / "go", n) if n == 5 else n
        return ctx.state

    env.from_batch(range(8)).keyby(lambda n: min(n, 4)).process(tally).collect("out", latest=True)

    async def main() -> list[Any]:
        job = env.submit()
        await asyncio.to_thread(until, lambda: len(job.results["out"]) == 5)
        (tmp_path / "go").touch()
        got = [item async for item in job.stream("out")]
        assert job.results["out"] == [{"last": n} for n in (0, 1, 2, 3, 7)]
        return got

    assert [item["last"] for item in asyncio.run(main())] == [0, 1, 2, 3, 4, 7]  # what did not change came once


def test_an_object_that_is_changed_in_place_is_live_here_as_there(env: RemoteEnvironment, tmp_path: Path) -> None:
    waits = {3: tmp_path / "go", 6: tmp_path / "end"}

    def tally(total: list[int], n: int) -> list[int]:
        if n in waits:
            waits_for(waits[n], n)
        total.append(n)
        return total

    env.from_batch(range(8)).map(lambda n: [n] if n == 0 else n).keyby(lambda n: 0).reduce(tally).collect(
        "out", latest=True
    )
    job = env.submit()
    until(lambda: job.results["out"] == [[0, 1, 2]])
    waits[3].touch()
    until(lambda: job.results["out"] == [[0, 1, 2, 3, 4, 5]])
    waits[6].touch()
    assert job.wait().results["out"] == [[*range(8)]]


def test_forty_thousand_keys_come(env: RemoteEnvironment) -> None:
    env.from_batch(range(80_000)).keyby(lambda n: n % 40_000).collect("out", latest=True)
    assert env.submit(autostop=True).results["out"] == list(range(40_000, 80_000))


def test_a_new_attempt_begins_with_nothing(server: JobManagerServer, tmp_path: Path) -> None:
    def fails_once(n: int) -> int:
        if n == 9 and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise OSError
        return n

    config = {"fault_tolerance": {"strategy": "fixed", "attempts": 1, "delay": 1.5}}  # what there is gets sent
    with RemoteEnvironment("again", config=config, port=server.port) as env:
        keys = env.from_batch(range(10)).map(fails_once)
        keys.keyby(lambda n: (n % 3, (tmp_path / "failed").exists())).count().collect("out", latest=True)
        job = env.submit()
        until(lambda: len(job.results["out"]) == 3 and job.status == "restarting")
        assert job.wait().results["out"] == [((0, True), 4), ((1, True), 3), ((2, True), 3)]


@pytest.fixture
def small_log(home: Path, tmp_path: Path) -> Iterator[RemoteEnvironment]:
    """Of a server that keeps a megabyte of each job."""
    with (
        JobManagerServer(port=0, warm=1, state=tmp_path / "small", spool_limit=1) as server,
        RemoteEnvironment("small_log", port=server.port) as env,
    ):
        yield env


def churn(env: RemoteEnvironment, go: Path, size: int) -> Any:
    """A row of so many bytes for each of ten keys, then ever newer ones of two of them, until there is a file."""

    def rows() -> Iterator[tuple[int, bytes]]:
        for key in range(10):
            yield key, os.urandom(size)
        while not os.path.exists(go):
            time.sleep(0.005)
            for key in (7, 2):
                yield key, os.urandom(50_000)

    return env.from_source(rows).keyby(lambda row: row[0])


@pytest.mark.parametrize("kind", ["collect", "show"])
def test_who_comes_when_the_log_has_forgotten_the_first_rows_has_them_all(
    small_log: RemoteEnvironment, tmp_path: Path, kind: str
) -> None:
    env, go = small_log, tmp_path / "go"
    rows = churn(env, go, 10)
    getattr(rows, kind)("out", latest=True)
    rows.filter(lambda row: row[0] == 9).show("nine")
    job = env.submit()
    log = tmp_path / "small" / "jobs" / job.uuid
    until(lambda: any(log.glob("*.log")))
    for _ in range(2):  # also when the rows that were sent again have been forgotten
        first = min(log.glob("*.log"))
        until(lambda first=first: first < min(log.glob("*.log"), default=first))
        late = attach(job.uuid, port=env.port)
        assert [key for key, _ in late.results["out"]] == list(range(10))
        assert late.results["out"][:2] == job.results["out"][:2]
        assert (late.results["out"].kind, len(late.results["nine"])) == (kind, 1)
    go.touch()
    job.wait()
    ended = attach(job.uuid, port=env.port)
    assert list(ended.results["out"]) == list(job.results["out"])
    assert list(ended.results["nine"]) == list(job.results["nine"])
    assert not [note for note in ended.snapshot().notes if "not kept" in note]


def test_who_comes_is_told_of_rows_that_the_log_cannot_keep(small_log: RemoteEnvironment, tmp_path: Path) -> None:
    env, go = small_log, tmp_path / "go"
    churn(env, go, 200_000).collect("out", latest=True)
    job = env.submit()
    log = tmp_path / "small" / "jobs" / job.uuid
    until(lambda: len(job.results["out"]) == 10)
    until(lambda: 0 < sum(one.stat().st_size for one in log.glob("*.log")) < 1 << 20)
    late = attach(job.uuid, port=env.port)
    assert sorted(late.results["out"]) == list(late.results["out"])
    assert [note for note in late.snapshot().notes if "of the 10 rows of 'out' are not kept" in note]
    go.touch()
    assert len(job.wait().results["out"]) == 10


def test_an_item_that_cannot_travel_fails_the_job(env: RemoteEnvironment) -> None:
    env.from_batch(range(4)).keyby(abs).map(lambda n: n if n < 3 else (x for x in ())).collect("out", latest=True)
    with pytest.raises(ShippingError, match="generator"):
        env.submit(autostop=True)
