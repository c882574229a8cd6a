"""Endings that are rare: every one of them still ends the job, and leaves nothing."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sage_nb import BaseService, FlatMapFunction, LocalEnvironment, MapFunction, SourceFunction, call_service
from sage_nb.errors import JobStateError
from tests.support import Gate, endless, until

LIMIT = 30.0


class Noted(BaseService):
    """Writes down what is called."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.label, self.calls = name, calls

    def cleanup(self) -> None:
        self.calls.append(f"{self.label} cleaned")


def test_kept_services_are_stopped_even_where_one_of_them_hangs() -> None:
    calls: list[str] = []
    gate = threading.Event()

    class Hangs(BaseService):
        def stop(self) -> None:
            gate.wait(LIMIT)

    env = LocalEnvironment("kept", config={"service_stop_timeout": 0.1})
    env.register_service("noted", Noted, "noted", calls)
    env.register_service("hangs", Hangs)
    env.from_batch([1]).sink(lambda _: None)
    try:
        job = env.submit(autostop=True, cleanup="never")
        assert calls == []
        job.stop()
        assert calls == ["noted cleaned"]
        assert any("'hangs'" in note and "did not return" in note for note in job.notes)
    finally:
        gate.set()


def test_a_service_that_cannot_be_looked_at_fails_the_job_and_the_others_are_stopped() -> None:
    calls: list[str] = []

    class Odd:
        def setup(self) -> None:
            self.up = True

        def __getattr__(self, name: str) -> Any:
            if name in ("stop", "cleanup"):
                raise KeyError(name)
            raise AttributeError(name)

    env = LocalEnvironment("odd")
    env.register_service("noted", Noted, "noted", calls)
    env.register_service("odd", Odd)
    env.from_batch([1]).sink(lambda _: None)
    with pytest.raises(KeyError):
        env.submit(autostop=True, timeout=LIMIT)
    assert calls == ["noted cleaned"]


def test_close_is_called_once_wherever_the_giving_up_meets_it() -> None:
    """A source that answers just when it is given up is closed all the same."""
    closed: list[int] = []

    class AnswersLate(SourceFunction):
        def __init__(self, n: int, seconds: float) -> None:
            self.n, self.seconds = n, seconds

        def execute(self) -> None:
            time.sleep(self.seconds)  # the moment it answers is what this test is about

        def close(self) -> None:
            closed.append(self.n)

    count = 40
    jobs = []
    for n in range(count):
        env = LocalEnvironment(f"late {n}")
        env.from_source(AnswersLate, n, 0.19 + 0.002 * n).sink(lambda _: None)
        jobs.append(env.submit())
    for job in jobs:
        job.request_stop()
    for job in jobs:
        assert job.stop().status == "stopped"
    deadline = time.monotonic() + LIMIT
    while len(closed) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    assert sorted(closed) == list(range(count))


def test_a_close_that_takes_long_is_not_cut_by_a_stop() -> None:
    begun, gate = threading.Event(), threading.Event()
    ended: list[BaseException | None] = []

    class Closes(MapFunction):
        def execute(self, data: int) -> int:
            return data

        def close(self) -> None:
            begun.set()
            try:
                gate.wait(LIMIT)
            except BaseException as exc:
                ended.append(exc)
                raise
            ended.append(None)

    env = LocalEnvironment("closes")
    env.from_batch([1]).map(Closes).sink(lambda _: None)
    job = env.submit()
    assert begun.wait(LIMIT)
    assert job.snapshot().waiting_for == "close() of map 'Closes'"
    job.stop(timeout=0.05)
    assert "close() of map 'Closes'" in job.notes[0]
    gate.set()
    deadline = time.monotonic() + LIMIT
    while not ended and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ended == [None]
    assert job.status == "stopped"


def test_a_service_whose_start_was_given_up_is_undone_when_it_comes_back() -> None:
    calls: list[str] = []
    begun, gate, undone = threading.Event(), threading.Event(), threading.Event()

    class Slow(BaseService):
        def setup(self) -> None:
            begun.set()
            gate.wait(LIMIT)
            calls.append("set up")

        def start(self) -> None:
            calls.append("started")

        def cleanup(self) -> None:
            calls.append("cleaned")
            undone.set()

    env = LocalEnvironment("slow")
    env.register_service("slow", Slow)
    env.from_batch([1]).sink(lambda _: None)
    job = env.submit()
    assert begun.wait(LIMIT)
    job.stop(timeout=0.05)
    assert job.status == "stopped"
    assert calls == []
    gate.set()
    assert undone.wait(LIMIT)
    assert calls == ["set up", "cleaned"]
    assert job.progress.services[0].state == "hung"


def test_a_service_bound_to_its_thread_is_stopped_by_it_after_a_stop(tmp_path: Path) -> None:
    """A sensor that sleeps between readings, and a database that only its own thread may close."""
    path = tmp_path / "readings.db"
    reading = threading.Event()

    class Readings(BaseService):
        def setup(self) -> None:
            self.db = sqlite3.connect(path)
            self.db.execute("create table reading (value)")

        def put(self, value: float) -> None:
            self.db.execute("insert into reading values (?)", (value,))
            reading.set()

        def cleanup(self) -> None:
            self.db.commit()
            self.db.close()

    def sensor() -> Iterator[float]:
        while True:
            yield 21.5
            time.sleep(0.4)  # longer than a source without services would be waited for

    env = LocalEnvironment("sensor")
    env.register_service("readings", Readings)
    env.from_source(sensor).sink(lambda value: call_service("readings").put(value))
    job = env.submit()
    assert reading.wait(LIMIT)
    assert job.stop().status == "stopped"
    db = sqlite3.connect(path)
    assert db.execute("select count(*) from reading").fetchone()[0] >= 1
    db.close()


def test_collect_in_close_is_refused_instead_of_lost() -> None:
    class Batches(FlatMapFunction):
        def __init__(self) -> None:
            self.batch: list[int] = []

        def execute(self, data: int) -> None:
            self.batch.append(data)

        def close(self) -> None:
            self.collect(self.batch)

    env = LocalEnvironment("batches")
    env.from_batch(range(3)).flatmap(Batches).collect("batches")
    with pytest.raises(JobStateError, match="too late"):
        env.submit(autostop=True)


def test_a_stop_in_the_middle_of_an_item_lets_every_consumer_have_it() -> None:
    """A stop is between items of the source, also where a flatmap makes several of one."""
    before: list[int] = []
    between: list[int] = []
    behind: list[int] = []
    began = threading.Event()

    def numbers() -> Iterator[int]:
        n = 0
        while True:
            yield n
            n += 1

    env = LocalEnvironment("whole")
    stream = env.from_source(numbers)
    stream.sink(before.append)
    stream.flatmap(lambda n: [n, n, n]).sink(lambda n: (between.append(n), began.set()))
    stream.sink(behind.append)
    for _ in range(20):
        began.clear()
        job = env.submit()
        assert began.wait(LIMIT)
        job.stop()
        assert len(before) == len(behind)
        assert len(between) == 3 * len(before)
        assert job.progress.operators[0].items_out == job.progress.operators[-1].items_in


def test_an_endless_flatmap_does_not_hold_up_a_stop() -> None:
    def forever(item: int) -> Iterator[int]:
        while True:
            yield item

    began = threading.Event()
    env = LocalEnvironment("endless")
    env.from_batch([1]).flatmap(forever).sink(lambda _: began.set())
    job = env.submit()
    assert began.wait(LIMIT)
    assert job.stop(timeout=LIMIT).status == "stopped"
    assert job.notes == ()


def test_a_fast_stream_leaves_the_event_loop_its_turns() -> None:
    """Whoever follows a flood of results can still be cancelled, and others go on."""

    async def main() -> tuple[int, str]:
        env = LocalEnvironment("flood")
        env.from_source(lambda: 1).collect("ones")
        job = env.submit()
        beats = 0

        async def follow() -> None:
            async for _ in job.stream("ones"):
                pass

        async def beat() -> None:
            nonlocal beats
            while beats < 10:
                await asyncio.sleep(0)
                beats += 1

        following = asyncio.create_task(follow())
        await beat()
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        return beats, job.status

    assert asyncio.run(asyncio.wait_for(main(), LIMIT)) == (10, "stopped")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, ValueError])
def test_an_item_that_cannot_be_shown_does_not_hold_up_the_end(error: type[BaseException]) -> None:
    class Unshowable:
        def __repr__(self) -> str:
            raise error

    env = LocalEnvironment("unshowable")
    env.from_batch(range(3)).map(lambda _: Unshowable()).show("items")
    job = env.submit(autostop=True)
    assert job.status == "completed"
    with ThreadPoolExecutor(1) as elsewhere:  # on the main thread a KeyboardInterrupt is taken for the user's
        snapshot = elsewhere.submit(job.snapshot).result()
    assert "Unshowable" in snapshot.results[0].rows[0][0]


def test_half_a_surrogate_pair_can_be_shown() -> None:
    env = LocalEnvironment("half \ud800")
    env.from_batch([{"key \ud800": "value \udfff"}]).show("rows")
    job = env.submit(autostop=True)
    str(job.snapshot().to_dict()).encode("utf-8")


def test_a_list_that_grows_while_it_is_read_is_read_and_counted_whole() -> None:
    pages = [1]

    def crawl(page: int) -> int:
        if page < 50:
            pages.append(page + 1)
        return page

    env = LocalEnvironment("crawl")
    env.from_batch(pages).map(crawl).collect("pages")
    job = env.submit(autostop=True)
    assert list(job.results["pages"]) == list(range(1, 51))
    assert [op.items_in for op in job.progress.operators] == [0, 50, 50]
    assert job.snapshot().total == 50


def test_a_very_long_line_is_read_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    path.write_text("x" * 30_000_000 + "\nshort\n")
    env = LocalEnvironment("long")
    env.from_text(path).map(len).collect("lengths")
    assert list(env.submit(autostop=True, timeout=LIMIT).results["lengths"]) == [30_000_000, 5]


def test_a_slip_in_a_log_line_does_not_fail_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("sage_nb"), "propagate", False)  # pytest's own handler raises

    class Talks(MapFunction):
        def execute(self, data: int) -> int:
            self.logger.info("got", data)  # noqa: PLE1205 - the slip
            return data

    env = LocalEnvironment("talks")
    env.from_batch([1]).map(Talks).collect("all")
    job = env.submit(autostop=True)
    assert "got" in job.logs()[0].text


@pytest.mark.parametrize("ends", ["runs", "fails meanwhile"])
def test_a_stop_of_a_running_job_keeps_no_service(ends: str) -> None:
    calls: list[str] = []
    env = LocalEnvironment("kept")
    env.register_service("noted", Noted, "noted", calls)
    gate = Gate()

    def fails(item: Any) -> Any:
        raise ValueError(gate(item))

    env.from_source(endless).sink(fails if ends == "fails meanwhile" else lambda _: None)
    job = env.submit(cleanup="never")
    if ends == "fails meanwhile":
        assert gate.reached.wait(LIMIT)
    stopping = threading.Thread(target=job.stop, daemon=True)
    stopping.start()
    until(lambda: job.status not in ("starting", "running"))
    gate.open()
    stopping.join(LIMIT)
    assert not stopping.is_alive()
    assert (job.status, calls) == ("failed" if ends == "fails meanwhile" else "stopped", ["noted cleaned"])
