"""What servers, runners and clients say to each other.

*Records* are what happens to a job: numbered by the server from 1, kept in its log, and sent to whoever watches. One is

    size of what follows: u32 | kind: u8 | number: u64 | size of the head: u32 | head: msgpack | body

all little-endian. The head is plain data of the kind's own type below. The body is what the user's code made: buffers
as `pack_buffers` puts them together. The server reads heads, and never a body.

*Snapshots* are not numbered and not kept: the newest wins. They travel as records of number 0.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any

import msgspec

from sage_nb.engine.buffers import Buffer, size_of
from sage_nb.errors import ProtocolError
from sage_nb.pipeline.graph import Operator
from sage_nb.pipeline.operators import RESULTS

__all__ = [
    "CHUNK",
    "PROTOCOL",
    "PROTOCOL_HEADER",
    "RECORD",
    "UNREADABLE",
    "Declared",
    "Ended",
    "Head",
    "Kind",
    "Letter",
    "Lines",
    "Order",
    "Restarted",
    "Results",
    "State",
    "Text",
    "head_of",
    "pack_buffers",
    "python_version",
    "record",
    "records_in",
    "unpack_buffers",
    "writable",
]

PROTOCOL = 1
"""Raised with every change that an older side would misunderstand."""

CHUNK = 256 * 1024
"""Bytes of records that go into one message, unless a single record is larger."""

PROTOCOL_HEADER = "X-Sage-NB-Protocol"
"""By which a server says, with `/health`, that it is one, and what it speaks."""

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What reading JSON or msgpack raises where it is wrong: a text in it that is no Unicode, or one that is too deep."""

RECORD = struct.Struct("<IBQI")
"""The beginning of a record; its first field does not count itself."""
_AFTER_SIZE = RECORD.size - 4


def python_version() -> str:
    """`3.12`: what has to be the same on both sides, as functions travel as bytecode."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


class Kind(IntEnum):
    """Kinds of records."""

    STATE = 1
    RESULTS = 2
    LINES = 3
    LETTER = 4
    DECLARED = 5
    RESTARTED = 6
    ENDED = 7
    CLEAN = 8
    OUTPUT = 9
    NOTE = 10
    SNAPSHOT = 11
    DISPLAY = 12


class Order(IntEnum):
    """Kinds of frames between a server and a runner that are not records: what they carry is msgpack."""

    RUN = 100  # to the runner: a dict, see `runner.py`
    PAUSE = 101  # to the runner: number of the order
    RESUME = 102
    STOP = 103  # to the runner: grace in seconds
    WATCHED = 104  # to the runner: whether somebody looks
    TAKEN = 105  # to the runner: bytes of results that have been taken in all
    HOLD = 106  # to the runner: whether results wait for a reader

    WARM = 120  # to the server: ready for a job
    ANSWER = 121  # to the server: number of the order, and None or (name of the error's type, its text)


class Head(msgspec.Struct, array_like=True, frozen=True):
    """The head of a record."""


class State(Head, frozen=True):
    """The job's state has changed."""

    status: str
    time: float
    attempt: int = 1
    why: str | None = None
    """What the reader should know: who stopped it, or what it waits for."""


class Results(Head, frozen=True):
    """Items of a `collect` or `show`, pickled, in the body. Those of a `collect` are the items `first` and following;
    of a `show` they are the last ones of `first + count`; with `latest=True` those that have changed."""

    name: str
    first: int
    count: int
    kept: bool
    """Whether all items of it come, one after the other."""
    at: list[int] | None = None
    """With `latest=True`, the number of each item's key, in the order in which the keys first came."""
    again: bool = False
    """Whether these were sent before: they may have been changed since, or the log may not have them any more."""
    total: int = 0
    """With `latest=True`, how many keys there are."""


class Lines(Head, frozen=True):
    """Lines of the job's log: (time, level, source, text) each."""

    lines: list[tuple[float, str, str, str]]
    total: int
    """Lines so far, those that are not sent included."""


class Letter(Head, frozen=True):
    """A dead letter; the body has the item's buffers and the exception's, as many as the head says of the item."""

    operator: str
    total: int
    time: float
    item_buffers: int
    text: str | None = None
    """What the item looked like, where it could not travel."""


class Declared(Head, frozen=True):
    """What the job will have: results (name, kind, rows), operators, and those that keep dead letters."""

    results: list[tuple[str, str, int | None]]
    operators: list[str]
    keep_letters: list[str]
    latest: list[str] = []
    """The results that have only the newest item of each key."""

    @classmethod
    def of(cls, operators: Iterable[Operator], on_error: str) -> Declared:
        """What a job of these operators will have."""
        every = list(operators)
        return cls(
            [(op.spec.name, op.kind, op.spec.rows) for op in every if op.kind in RESULTS],
            [op.name for op in every],
            [op.name for op in every if (op.settings.on_error or on_error) == "dead_letter"],
            [op.spec.name for op in every if op.kind in RESULTS and op.spec.latest],
        )


class Restarted(Head, frozen=True):
    """A new attempt begins; results and dead letters of the last one do not count."""

    attempt: int
    server: bool = False
    """Whether it is because the server was gone, so that everything begins anew, its log too."""


class Ended(Head, frozen=True):
    """The job has ended; the body has its exception, where it failed."""

    status: str
    time: float
    clean: bool
    """Whether nothing of it is left; False where services are kept."""
    error: str | None = None
    """The exception's type and text."""
    snapshot: bytes | None = None
    """JSON of the last `JobSnapshot`."""


class Text(Head, frozen=True):
    """A note."""

    text: str


class Output(Head, frozen=True):
    """What was printed."""

    text: str
    stream: str = "stdout"
    """Or `stderr`."""


class Display(Head, frozen=True):
    """What was displayed: its representations by mime type, and their metadata."""

    data: dict[str, Any]
    metadata: dict[str, Any]


_HEADS: dict[int, type[Head]] = {
    Kind.STATE: State,
    Kind.RESULTS: Results,
    Kind.LINES: Lines,
    Kind.LETTER: Letter,
    Kind.DECLARED: Declared,
    Kind.RESTARTED: Restarted,
    Kind.ENDED: Ended,
    Kind.OUTPUT: Output,
    Kind.DISPLAY: Display,
    Kind.NOTE: Text,
}
_DECODERS = {kind: msgspec.msgpack.Decoder(head) for kind, head in _HEADS.items()}
_encode = msgspec.msgpack.Encoder().encode


def head_of(kind: int, head: Buffer) -> Head | None:
    """The head of a record; None of kinds that have none. Raises `ProtocolError`."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        return None
    try:
        return decoder.decode(head)
    except UNREADABLE as exc:
        raise ProtocolError(f"a record of kind {kind} is not what it should be: {exc}") from exc


def record(kind: int, number: int, head: Head | bytes | None = None, body: Sequence[Buffer] = ()) -> list[Buffer]:
    """A record, in pieces that follow each other; `head` as it is or packed already."""
    packed = head if isinstance(head, bytes) else b"" if head is None else _encode(head)
    size = _AFTER_SIZE + len(packed) + sum(map(size_of, body))
    if size >= 1 << 32:
        raise ProtocolError(f"a record of {size:,} bytes is too large; it has to be below 4 GiB")
    return [RECORD.pack(size, kind, number, len(packed)) + packed, *body]


def records_in(data: memoryview) -> Iterator[tuple[int, int, memoryview, memoryview]]:
    """The records in `data`: kind, number, head, body. Raises `ProtocolError` where it does not end with one."""
    at, end = 0, len(data)
    while at < end:
        if end - at < RECORD.size:
            raise ProtocolError("a record is cut off")
        size, kind, number, head = RECORD.unpack_from(data, at)
        begin, after = at + RECORD.size, at + 4 + size
        if after > end or begin + head > after:
            raise ProtocolError("a record is cut off")
        yield kind, number, data[begin : begin + head], data[begin + head : after]
        at = after


def pack_buffers(buffers: Sequence[Buffer]) -> list[Buffer]:
    """Buffers as pieces that follow each other, their sizes first."""
    sizes = [size_of(one) for one in buffers]
    return [struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes), *buffers]


def unpack_buffers(body: memoryview) -> list[memoryview]:
    """What `pack_buffers` was given. Raises `ProtocolError`."""
    try:
        (count,) = struct.unpack_from("<I", body)
        sizes = struct.unpack_from(f"<{count}Q", body, 4)
    except struct.error as exc:
        raise ProtocolError("the body of a record is cut off") from exc
    at, found = 4 + 8 * count, []
    for size in sizes:
        found.append(body[at : at + size])
        at += size
    if at != len(body):
        raise ProtocolError("the body of a record is cut off")
    return found


def writable(buffers: Sequence[memoryview]) -> list[Buffer]:
    """The stream as it is; large arrays in memory of their own, that can be written to."""
    return [buffers[0], *(bytearray(one) for one in buffers[1:])]
