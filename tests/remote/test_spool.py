"""The log of a job: what is appended is read, once and in order, by any number of readers, also after a crash."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_nb.remote.protocol import CHUNK, Kind, Text, head_of, records_in
from sage_nb.remote.spool import Reader, Spool

SMALL = 4 * CHUNK
"""A limit with which a segment is as small as it can be: 256 KB."""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    one = Spool(tmp_path, SMALL)
    yield one
    one.rest()


def said(data: bytes) -> list[tuple[int, int, bytes, bytes]]:
    """The records in a chunk."""
    return [(kind, number, bytes(head), bytes(body)) for kind, number, head, body in records_in(memoryview(data))]


def read_all(reader: Reader) -> list[tuple[int, int, bytes, bytes]]:
    """All that is left for a reader."""
    found = []
    while (chunk := reader.read()) is not None:
        data, last = chunk
        records = said(data)
        assert records[-1][1] == last
        found += records
    return found


def numbers(reader: Reader) -> list[int]:
    return [number for _, number, _, _ in read_all(reader)]


def segments(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.log"))


def test_what_is_appended_is_read_in_order_and_numbered_from_one(spool: Spool) -> None:
    assert [spool.append(Kind.NOTE, Text(f"note {n}"), [b"a", b"b" * n]) for n in range(5)] == [1, 2, 3, 4, 5]
    found = read_all(spool.reader(0))
    assert [(kind, number, body) for kind, number, _, body in found] == [
        (Kind.NOTE, n + 1, b"a" + b"b" * n) for n in range(5)
    ]
    assert [head_of(kind, head) for kind, _, head, _ in found] == [Text(f"note {n}") for n in range(5)]


def test_an_empty_log_has_nothing_to_read(spool: Spool) -> None:
    assert spool.reader(0).read() is None
    assert (spool.first, spool.last, spool.size, spool.full) == (1, 0, 0, False)


@pytest.mark.parametrize("after", [0, 1, 500, 999, 1000])
def test_a_reader_goes_on_after_the_record_that_it_names(spool: Spool, after: int) -> None:
    for _ in range(1000):
        spool.append(Kind.NOTE, Text("x" * 300))
    assert numbers(spool.reader(after)) == [*range(after + 1, 1001)]


@pytest.mark.parametrize(("after", "first"), [(-5, 1), (11, 11), (10**30, 11)])
def test_a_reader_begins_at_the_nearest_record_that_there_is(spool: Spool, after: int, first: int) -> None:
    for _ in range(10):
        spool.append(Kind.NOTE)
    reader = spool.reader(after)
    spool.append(Kind.NOTE)
    assert numbers(reader)[:1] == [first]


def test_a_chunk_has_256_KB_at_most_unless_one_record_is_larger(spool: Spool) -> None:
    sizes = [1, 100_000, 100_000, 100_000, 3 * CHUNK, 5, 5]
    for size in sizes:
        spool.append(Kind.RESULTS, None, [bytes(size)])
    reader, chunks = spool.reader(0), []
    while (chunk := reader.read()) is not None:
        chunks.append([len(body) for _, _, _, body in said(chunk[0])])
    assert [size for chunk in chunks for size in chunk] == sizes
    assert all(len(chunk) == 1 or sum(chunk) < CHUNK for chunk in chunks)
    assert [3 * CHUNK] in chunks


def test_old_notes_go_when_the_log_is_at_its_limit(spool: Spool, tmp_path: Path) -> None:
    for _ in range(40):
        spool.append(Kind.NOTE, None, [bytes(100_000)])
    assert spool.size <= SMALL + CHUNK
    assert spool.first > 1
    assert not spool.full or len(segments(tmp_path)) > 1
    assert numbers(spool.reader(0)) == [*range(spool.first, 41)]


def test_results_wait_for_a_reader_and_the_log_is_full_until_then(spool: Spool) -> None:
    while not spool.full:
        spool.append(Kind.RESULTS, None, [bytes(100_000)])
    last = spool.last
    reader = spool.reader(0)
    assert numbers(reader) == [*range(1, last + 1)]
    assert spool.full  # it was sent, and perhaps not received
    assert spool.took(reader, last)
    assert not spool.full
    assert not spool.took(reader, last)


def test_notes_behind_results_that_wait_go_so_that_the_log_does_not_grow_for_ever(spool: Spool, tmp_path: Path) -> None:
    spool.append(Kind.RESULTS, None, [b"first"])
    for _ in range(20):
        spool.append(Kind.NOTE, None, [bytes(100_000)])
    spool.append(Kind.RESTARTED, None)
    for _ in range(100):
        spool.append(Kind.NOTE, None, [bytes(100_000)])
    spool.append(Kind.RESULTS, None, [b"second"])
    assert spool.size <= SMALL + CHUNK
    for one in (spool, Spool(tmp_path, SMALL)):
        found = [(kind, body) for kind, _, _, body in read_all(one.reader(0)) if kind != Kind.NOTE]
        assert found == [(Kind.RESULTS, b"first"), (Kind.RESTARTED, b""), (Kind.RESULTS, b"second")]


def test_the_slowest_reader_decides_what_is_kept(spool: Spool) -> None:
    slow, fast = spool.reader(0), spool.reader(0)
    while not spool.full:
        spool.append(Kind.RESULTS, None, [bytes(100_000)])
    last = spool.last
    assert not spool.took(fast, last)
    assert spool.full
    assert numbers(slow) == [*range(1, last + 1)]
    assert spool.took(slow, last)


def test_a_reader_that_has_gone_keeps_nothing(spool: Spool) -> None:
    slow, fast = spool.reader(0), spool.reader(0)
    while not spool.full:
        spool.append(Kind.RESULTS, None, [bytes(100_000)])
    slow.close()
    assert spool.took(fast, spool.last)


def test_what_nobody_can_have_taken_is_not_believed(spool: Spool) -> None:
    reader = spool.reader(0)
    spool.append(Kind.RESULTS, None, [b"x"])
    spool.took(reader, 10**9)
    while not spool.full:
        spool.append(Kind.RESULTS, None, [bytes(100_000)])
    assert spool.first <= 2
    spool.took(reader, -5)
    assert reader.taken == 1


def test_a_reader_whose_place_was_let_go_goes_on_with_the_oldest_that_is_kept(spool: Spool) -> None:
    reader = spool.reader(0)
    for _ in range(60):
        spool.append(Kind.NOTE, None, [bytes(100_000)])
    first = spool.first
    assert first > 1
    assert numbers(reader) == [*range(first, 61)]


def test_nothing_is_kept_for_a_reader_that_does_not_count(spool: Spool) -> None:
    looker, reader = spool.reader(0, counts=False), spool.reader(0)
    while not spool.full:
        spool.append(Kind.RESULTS, None, [bytes(100_000)])
    assert not spool.took(looker, spool.last)
    assert spool.full
    assert spool.took(reader, spool.last)


def test_a_log_that_rests_has_no_file_open_and_can_be_read_and_written_to(spool: Spool) -> None:
    reader = spool.reader(0)
    spool.append(Kind.NOTE)
    spool.rest()
    assert all(segment.fd < 0 for segment in spool._segments)
    assert reader.read() is not None
    assert len(list(spool.backwards(Kind.NOTE))) == 1
    assert spool.append(Kind.NOTE) == 2


def test_the_newest_come_first_backwards(spool: Spool) -> None:
    for n in range(30):
        spool.append(Kind.LINES if n % 2 else Kind.NOTE, Text(f"{n:05d}" * 10_000))
    heads = [head_of(Kind.NOTE, head) for head in spool.backwards(Kind.NOTE)]
    kept = [n for n in range(28, -1, -2) if n + 1 >= spool.first]
    assert heads == [Text(f"{n:05d}" * 10_000) for n in kept]


def test_a_log_can_be_read_backwards_while_it_is_trimmed(spool: Spool) -> None:
    for n in range(20):
        spool.append(Kind.NOTE, Text(f"{n}"), [bytes(100_000)])
    heads = spool.backwards(Kind.NOTE)
    assert head_of(Kind.NOTE, next(heads)) == Text("19")
    for _ in range(40):
        spool.append(Kind.LINES, None, [bytes(100_000)])
    rest = [head_of(Kind.NOTE, head) for head in heads]
    assert rest == [Text(str(n)) for n in range(18, 18 - len(rest), -1)]
    assert rest


# After a crash


def test_a_log_goes_on_where_the_last_server_left_it(tmp_path: Path) -> None:
    before = Spool(tmp_path, SMALL)
    for n in range(15):
        before.append(Kind.RESULTS, Text(str(n)), [bytes(60_000)])
    left = (before.first, before.last, before.size)
    before.rest()
    after = Spool(tmp_path, SMALL)
    assert (after.first, after.last, after.size) == left
    assert after.append(Kind.NOTE) == 16
    assert numbers(after.reader(0)) == [*range(1, 17)]
    assert numbers(after.reader(9)) == [*range(10, 17)]
    after.rest()


@pytest.mark.parametrize("cut", [1, 4, 10, 16, 17, 30])
def test_a_record_that_a_crash_cut_off_is_dropped_and_its_number_used_again(tmp_path: Path, cut: int) -> None:
    before = Spool(tmp_path, SMALL)
    for n in range(5):
        before.append(Kind.NOTE, Text(f"a note, of number {n}"))
    before.rest()
    (path,) = tmp_path.glob("*.log")
    os.truncate(path, path.stat().st_size - cut)
    after = Spool(tmp_path, SMALL)
    assert after.last == 4
    assert after.append(Kind.NOTE, Text("again")) == 5
    assert numbers(after.reader(0)) == [1, 2, 3, 4, 5]
    after.rest()


TAILS = [bytes(1), bytes(17), bytes(5000), b"\xff" * 5000, b"\x0d\0\0\0" * 2000, random.Random(1).randbytes(3000)]


@pytest.mark.parametrize("tail", TAILS, ids=range(len(TAILS)))
def test_what_a_crash_of_the_machine_left_behind_the_records_is_dropped(tmp_path: Path, tail: bytes) -> None:
    before = Spool(tmp_path, SMALL)
    for n in range(3):
        before.append(Kind.NOTE, Text(str(n)))
    before.rest()
    (path,) = tmp_path.glob("*.log")
    with open(path, "ab") as file:
        file.write(tail)
    after = Spool(tmp_path, SMALL)
    assert after.last == 3
    assert after.append(Kind.NOTE) == 4
    assert numbers(after.reader(0)) == [1, 2, 3, 4]
    after.rest()


def test_a_disk_that_is_full_leaves_the_log_as_it_was(spool: Spool, tmp_path: Path) -> None:
    spool.append(Kind.NOTE, Text("before"))
    (path,) = tmp_path.glob("*.log")
    size = path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, hard))
    try:
        with pytest.raises(OSError, match="large"):
            spool.append(Kind.NOTE, None, [bytes(100_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert path.stat().st_size == size
    assert spool.append(Kind.NOTE, Text("after")) == 2
    assert numbers(spool.reader(0)) == [1, 2]


# Many at once


def test_readers_of_other_threads_get_everything_while_it_is_written(spool: Spool) -> None:
    count, found = 3000, [[], [], []]  # type: ignore[var-annotated]
    written = threading.Event()

    def read(mine: list[int]) -> None:
        reader = spool.reader(0)
        while not mine or mine[-1] < count:
            over = written.is_set()
            mine += numbers(reader)
            if mine:
                spool.took(reader, mine[-1])
            assert not over or mine[-1] == count

    threads = [threading.Thread(target=read, args=(one,)) for one in found]
    readers = [spool.reader(0)]  # nothing goes before all have begun
    for one in threads:
        one.start()
    for n in range(count):
        spool.append(Kind.RESULTS, None, [bytes(n % 2000)])
    written.set()
    for one in threads:
        one.join()
    readers[0].close()
    assert found == [[*range(1, count + 1)]] * 3


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from("aaaarrtmo"), st.integers(0, 200_000)), max_size=60), st.integers(0, 2**32))
def test_any_order_of_doings_keeps_every_record_that_must_be_kept(
    tmp_path_factory: pytest.TempPathFactory, doings: list[tuple[str, int]], seed: int
) -> None:
    """Beside a model: what was appended, and where each reader is."""
    folder, dice = tmp_path_factory.mktemp("log"), random.Random(seed)
    spool = Spool(folder, SMALL)
    kept: dict[int, tuple[int, int]] = {}
    readers: list[tuple[Reader, int]] = []
    for doing, size in doings:
        if doing == "a":
            kind = dice.choice([Kind.RESULTS, Kind.NOTE])
            kept[spool.append(kind, None, [bytes(size)])] = (kind, size)
        elif doing == "m":
            readers.append((spool.reader(0), spool.first - 1))
        elif doing == "o":
            spool.rest()
            spool, readers = Spool(folder, SMALL), []
        elif readers:
            n = dice.randrange(len(readers))
            reader, last = readers[n]
            if doing == "t":
                spool.took(reader, last)
            elif (chunk := reader.read()) is not None:
                found = said(chunk[0])
                assert found[0][1] > last
                assert [one[1] for one in found] == [*range(found[0][1], found[-1][1] + 1)]
                assert [(kind, len(body)) for kind, _, _, body in found] == [kept[one[1]] for one in found]
                readers[n] = (reader, found[-1][1])
    left = [number for kind, number, _, _ in read_all(spool.reader(0)) if kind == Kind.RESULTS]
    assert left == [number for number, (kind, _) in kept.items() if kind == Kind.RESULTS and number >= spool.first]
    assert spool.size == sum(path.stat().st_size for path in folder.glob("*.log"))
    spool.rest()
    assert not [one for one in os.listdir("/proc/self/fd") if str(folder) in _target(one)]


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""
