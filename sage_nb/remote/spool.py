"""The log of one job: its records, in files, from which any number of readers read at their own pace.

The log is cut into segments. When it has grown to its limit, the oldest segment goes that holds nothing that a reader
needs, or that every reader who is there has. Where none can go, the log is *full*: the job is held until somebody
reads.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sage_nb.engine.buffers import Buffer, size_of
from sage_nb.remote.protocol import CHUNK, RECORD, Ended, Head, Kind, head_of, record

__all__ = ["Reader", "Spool"]

SEGMENT = 16 << 20
_NEEDED = frozenset({Kind.RESULTS, Kind.RESTARTED, Kind.ENDED})
"""Without which a reader would miss items, have some twice, or wait for an end that was."""
_INDEX_EVERY = 64 * 1024
_AT_ONCE = 1000


@dataclass(eq=False)
class _Segment:
    path: Path
    first: int
    last: int
    size: int = 0
    needed: bool = False
    """Whether it has records that a reader cannot do without."""
    index: list[tuple[int, int]] = field(default_factory=list)
    """Numbers of records, and where they begin: one every 64 KB."""
    fd: int = -1
    """Where it is written to; -1 where it is not. To read, it is opened each time: there are thousands of logs."""
    removed: bool = False

    def read(self, size: int, at: int) -> bytes:
        """So many bytes from there on."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return _pread(fd, size, at)
        finally:
            os.close(fd)

    def begin(self, flags: int = 0) -> None:
        """Be written to."""
        if self.fd < 0:
            self.fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)

    def rest(self) -> None:
        """Be written to no more, for now."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class Reader:
    """A place in a log. `taken` is the number of the last record that its owner has for good."""

    def __init__(self, spool: Spool, after: int, counts: bool) -> None:
        self._spool = spool
        self.counts = counts
        """Whether it is one that results are kept for."""
        self.next = after + 1
        self.taken = after
        self.at: tuple[_Segment, int] | None = None

    def read(self) -> tuple[bytes, int] | None:
        """The next records, 256 KB of them or a single larger one, and the number of the last; None at the end."""
        return self._spool.read(self)

    def took(self, number: int) -> bool:
        """All up to that record is kept; whether that made room."""
        return self._spool.took(self, number)

    def close(self) -> bool:
        """Nobody reads here any more; whether that made room."""
        return self._spool.drop(self)


class Spool:
    """The log in `folder`. Any thread may append, any thread may read."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._segment = min(SEGMENT, max(limit // 4, CHUNK))
        self._lock = threading.Lock()
        self._segments: list[_Segment] = []
        self._readers: set[Reader] = set()
        self._was_read = 0
        self.size = 0
        self.last = 0
        """The number of the last record."""
        self.end: bytes | None = None
        """The head of the record of the job's end."""
        self.has_clean = False
        """Whether it says that the job is cleaned up."""
        self._load()

    @property
    def first(self) -> int:
        """The number of the oldest record that is kept."""
        return self._segments[0].first if self._segments else self.last + 1

    @property
    def full(self) -> bool:
        """Whether the log holds as much as it may, and some of it waits for a reader."""
        with self._lock:
            return self._is_full()

    def append(self, kind: int, head: Head | bytes | None = None, body: Sequence[Buffer] = ()) -> int:
        """Add a record; its number. Raises `OSError` where the disk is full."""
        with self._lock:
            number = self.last + 1
            pieces = record(kind, number, head, body)
            size = sum(map(size_of, pieces))
            segment = self._segments[-1] if self._segments else None
            if segment is None or (segment.size and segment.size + size > self._segment):
                segment = self._begin(number)
            segment.begin()
            try:
                _write(segment.fd, pieces)
            except OSError:
                os.ftruncate(segment.fd, segment.size)
                raise
            if not segment.index or segment.size - segment.index[-1][1] >= _INDEX_EVERY:
                segment.index.append((number, segment.size))
            segment.size += size
            segment.last = self.last = number
            segment.needed = segment.needed or kind in _NEEDED
            self.size += size
            if kind in (Kind.ENDED, Kind.CLEAN, Kind.RESTARTED):
                self._note_end(kind, bytes(pieces[0][RECORD.size :]))
            if self.size >= self._limit:
                self._trim()
            return number

    def reader(self, after: int, *, counts: bool = True) -> Reader:
        """A reader of what comes after record `after`; unless it `counts`, nothing is kept for it."""
        reader = Reader(self, min(max(after, self.first - 1), self.last), counts)
        with self._lock:
            self._readers.add(reader)
        return reader

    def took(self, reader: Reader, number: int) -> bool:
        """A reader has everything up to `number`; whether there is room again that there was not."""
        with self._lock:
            if not reader.counts:
                return False
            was_full = self._is_full()
            reader.taken = max(reader.taken, min(number, self.last))
            self._was_read = max(self._was_read, reader.taken)
            return was_full and self._made_room()

    def read(self, reader: Reader) -> tuple[bytes, int] | None:
        with self._lock:
            if reader.next > self.last or not self._segments:
                return None
            segment, offset = self._find(reader)
            data = segment.read(min(CHUNK, segment.size - offset), offset)
            end, last = _whole(data)
            if not end:
                (size,) = (RECORD.unpack_from(data)[0] + 4,)
                data, end = segment.read(size, offset), size
                last = RECORD.unpack_from(data)[2]
            reader.next = last + 1
            reader.at = (segment, offset + end)
            return (data if end == len(data) else data[:end]), last

    def backwards(self, kind: int) -> Iterator[bytes]:
        """The heads of the records of a kind, the newest first."""
        with self._lock:
            segments = [*self._segments]
        for segment in reversed(segments):
            try:
                found = list(_heads(segment, kind))
            except FileNotFoundError:
                return  # it was let go meanwhile
            yield from reversed(found)

    def drop(self, reader: Reader) -> bool:
        """A reader is there no more; whether there is room again that there was not."""
        with self._lock:
            was_full = self._is_full()
            self._readers.discard(reader)
            return was_full and self._made_room()

    def rest(self) -> None:
        """Have no file open until the next record is added."""
        with self._lock:
            for segment in self._segments:
                segment.rest()

    def _begin(self, number: int) -> _Segment:
        path = self._folder / f"{number:012d}.log"
        segment = _Segment(path, number, number - 1)
        segment.begin(os.O_CREAT | os.O_TRUNC)
        if self._segments:
            self._segments[-1].rest()
        self._segments.append(segment)
        return segment

    def _find(self, reader: Reader) -> tuple[_Segment, int]:
        if reader.at is not None and not reader.at[0].removed and reader.at[1] < reader.at[0].size:
            return reader.at
        reader.next = max(reader.next, self.first)
        segment = next(one for one in self._segments if one.last >= reader.next)
        offset = max((at for number, at in segment.index if number <= reader.next), default=0)
        while True:
            size, _, number, _ = RECORD.unpack(segment.read(RECORD.size, offset))
            if number >= reader.next:
                return segment, offset
            offset += size + 4

    def _trim(self) -> None:
        """Let go of the oldest segments that can go, while there is too much."""
        for one in self._segments[:-1]:
            if self.size < self._limit:
                return
            if not (one.needed and self._waits(one.last)):
                self._remove(one)

    def _made_room(self) -> bool:
        self._trim()
        return not self._is_full()

    def _is_full(self) -> bool:
        return self.size >= self._limit and self._waits(self.last)

    def _waits(self, number: int) -> bool:
        """Whether a record waits for a reader: for one that is there, or, if nobody has had it, for one to come."""
        return self._was_read < number or any(one.counts and one.taken < number for one in self._readers)

    def _note_end(self, kind: int, head: bytes) -> None:
        self.end = head if kind == Kind.ENDED else None if kind == Kind.RESTARTED else self.end
        ended = head_of(Kind.ENDED, head) if kind == Kind.ENDED else None
        self.has_clean = kind == Kind.CLEAN or (isinstance(ended, Ended) and ended.clean)

    def _remove(self, segment: _Segment) -> None:
        self._segments.remove(segment)
        self.size -= segment.size
        segment.rest()
        segment.removed = True
        segment.path.unlink(missing_ok=True)

    def _load(self) -> None:
        """Take up the files of a server that is gone. A record that it did not finish is cut off."""
        for path in sorted(self._folder.glob("*.log")):
            segment = _Segment(path, int(path.stem), int(path.stem) - 1)
            segment.begin()
            if length := os.fstat(segment.fd).st_size:
                with mmap.mmap(segment.fd, length, prot=mmap.PROT_READ) as data:
                    self._scan(segment, data, length)
            os.ftruncate(segment.fd, segment.size)
            segment.rest()
            self._segments.append(segment)
            self.size += segment.size
            self.last = max(self.last, segment.last)

    def _scan(self, segment: _Segment, data: mmap.mmap, length: int) -> None:
        """Find the whole records of a segment."""
        at, last, indexed = 0, segment.last, -_INDEX_EVERY
        while at + RECORD.size <= length:
            size, kind, number, head = RECORD.unpack_from(data, at)
            if at + 4 + size > length or size < RECORD.size - 4 or number != last + 1:
                break
            if kind in _NEEDED:
                segment.needed = True
            if kind in (Kind.ENDED, Kind.CLEAN, Kind.RESTARTED):
                self._note_end(kind, data[at + RECORD.size : at + RECORD.size + head])
            if at - indexed >= _INDEX_EVERY:
                segment.index.append((number, at))
                indexed = at
            at, last = at + 4 + size, number
        segment.size, segment.last = at, last


def _heads(segment: _Segment, kind: int) -> Iterator[bytes]:
    """The heads of a segment's records of a kind."""
    with open(segment.path, "rb") as file:
        at, end = 0, segment.size
        while at < end:
            file.seek(at)
            size, found, _, head = RECORD.unpack(file.read(RECORD.size))
            if found == kind:
                yield file.read(head)
            at += 4 + size


def _whole(data: bytes) -> tuple[int, int]:
    """Where the last whole record of `data` ends, and its number."""
    at = last = 0
    while at + RECORD.size <= len(data):
        size, _, number, _ = RECORD.unpack_from(data, at)
        if at + 4 + size > len(data):
            break
        at, last = at + 4 + size, number
    return at, last


def _pread(fd: int, size: int, offset: int) -> bytes:
    """All `size` bytes: one call gives 2 GB at most."""
    pieces = []
    while size and (piece := os.pread(fd, size, offset)):
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _write(fd: int, pieces: Sequence[Buffer]) -> None:
    views = [memoryview(one).cast("B") for one in pieces if size_of(one)]
    while views:
        count = os.writev(fd, views[:_AT_ONCE])
        while views and count >= views[0].nbytes:
            count -= views.pop(0).nbytes
        if count:
            views[0] = views[0][count:]
