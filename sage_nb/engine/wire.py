"""What a task's process and the kernel say to each other: kinds of frames, and small records as bytes."""

from __future__ import annotations

import marshal
from enum import IntEnum
from typing import Any

from sage_nb.engine.shipping import Buffer, Known, dumps_items, loads_items

__all__ = ["ACTOR_WINDOW", "WINDOW", "Say", "data", "pack", "read_data", "unpack"]

WINDOW = 4096
"""Items of one lane that may be under way to a process, or from it: its pipes never fill, and orders get through."""

ACTOR_WINDOW = 32_768
"""The same to an actor, and from it: a call takes longer than a pipe, and brings more."""


class Say(IntEnum):
    """Kinds of frames; the records they carry are tuples in the order given."""

    INIT = 1  # to the process: what to run
    DATA = 2  # both ways: lane (its number; or edge, target, whether sent after a stop dropped what waited), columns
    MARK = 3  # both ways: lane, watermark
    END = 4  # to the process: lane
    STATE = 5  # to the process: begun, stopping, failed, paused
    CLOSED = 6  # to the process: edge, target: nobody wants more there
    REPLY = 7  # to the process: number of the call, whether it went well; then the result or the exception
    IDLE = 9  # both ways: lane: there is nothing now
    LOOK = 8  # to the process: time the operators on the next few items

    TAKEN = 10  # to the process: edge, target, how many of its items were taken there

    HEARD = 11  # to an actor: how many more of the parcels that it has sent were opened

    READY = 20  # to the kernel: the functions are made; total of the source
    ACK = 21  # lane, how many of its items are done with
    COUNTS = 22  # what `worker` knows of itself
    CALL = 23  # number, name, method, timeout; then args and keywords
    LOG = 24  # source, level, text
    FAIL = 25  # subject, operator, item, where, code, traceback; then the exception
    CAUGHT = 26  # node; then the item and the exception
    UNWANTED = 28  # nobody wants the items of the process's source
    DONE = 27  # nothing more will come
    OUTPUT = 29  # of an actor: text that was printed there
    DISPLAY = 30  # what was displayed: its representations by mime type, and their metadata


def pack(*values: Any) -> bytes:
    """A record of plain values."""
    return marshal.dumps(values)


def unpack(buffer: Any) -> Any:
    """The values that `pack` was given."""
    return marshal.loads(buffer)


def data(lane: tuple[int, ...], columns: tuple[Any, ...], known: Known) -> list[Buffer]:
    """A frame of items: the items themselves apart from what comes with them, which is nearly always plain."""
    items, keys, times, *plain = columns
    alone = keys is None and times is None
    return [pack(*lane), pack(alone, *plain), *dumps_items(items if alone else [items, keys, times], known)]


def read_data(buffers: list[Any]) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """The lane, and the columns: items, keys, times, marks, sequence."""
    alone, *plain = unpack(buffers[1])
    found = loads_items(buffers[2:])
    return unpack(buffers[0]), (*((found, None, None) if alone else found), *plain)
