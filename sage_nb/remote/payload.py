"""A pipeline on its way to a server: a head that the server reads, and a body that only a runner opens.

magic: 8 bytes | size of the head: u32 | head: JSON of a `PayloadHead` | body: buffers as `pack_buffers` makes them
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

import sage_nb
from sage_nb.engine.buffers import Buffer
from sage_nb.engine.failure import cells, safe_text
from sage_nb.engine.shipping import dumps, loads
from sage_nb.engine.unshippable import captured_containers, what_travels
from sage_nb.errors import ProtocolError
from sage_nb.pipeline.graph import Graph
from sage_nb.remote.protocol import PROTOCOL, UNREADABLE, pack_buffers, python_version, unpack_buffers

if TYPE_CHECKING:
    from sage_nb.jobs.submitting import SubmittingEnvironment

__all__ = [
    "HEAD_LIMIT",
    "MAGIC",
    "PayloadHead",
    "check_body",
    "copy_warnings",
    "head_for",
    "joined",
    "make_payload",
    "read_head",
    "read_work",
]

MAGIC = b"sage_nb\x01"
HEAD_LIMIT = 64 * 1024
"""Bytes; what a head says of itself is not believed beyond that."""
_SIZE = struct.Struct("<I")
_MOST_BUFFERS = 1 << 20


class PayloadHead(msgspec.Struct, frozen=True, kw_only=True):
    """What the server is told of a job."""

    protocol: int
    python: str
    version: str
    name: str
    environment: str
    backend: str | None = None
    autostop: bool = False
    timeout: float | None = None
    cleanup: str = "always"
    on_error: str = "fail"
    begins_anew: bool = False
    """Whether the job asks for restarts, and its sources can be read once more."""
    owner: str | None = None
    """The client whose end the job shares; None where it outlives it."""
    owner_timeout: float = 60.0
    """Seconds for which the owner may be gone."""
    warnings: tuple[str, ...] = ()
    """What the one who submits is told of the pipeline, and whoever watches the job is to know."""
    watched: bool | None = None
    """Whether somebody looks at a page that what the job prints goes to; None where that is not known."""
    machine: str = ""
    folder: str = ""
    """Where it was submitted: relative paths mean that folder, if the server is on the same machine."""


def make_payload(env: SubmittingEnvironment, head: PayloadHead) -> list[Buffer]:
    """An environment's pipeline, in pieces that follow each other. Raises `ShippingError`, which names what cannot
    travel."""
    graph = env._graph.copy()
    parts = {f"operator {op.name!r} ({op.kind})": what_travels(op.spec) for op in graph.operators}
    for name, spec in graph.services.items():
        parts[f"service {name!r}"] = {"class": spec.make, "arguments": spec.args, "keywords": spec.kw}
    body = dumps((graph, env.config, cells()), parts=parts)
    packed = msgspec.json.encode(head)
    return [MAGIC + _SIZE.pack(len(packed)) + packed, *pack_buffers(body)]


def head_for(env: SubmittingEnvironment, name: str, **more: Any) -> PayloadHead:
    """The head of a payload of `env`."""
    return PayloadHead(
        protocol=PROTOCOL,
        python=python_version(),
        version=sage_nb.__version__,
        name=safe_text(name, 200),
        environment=safe_text(env.name, 200),
        begins_anew=env._restarts is not None,
        **more,
    )


def copy_warnings(graph: Graph) -> tuple[str, ...]:
    """What to say of sinks that fill a list of the caller's, by its name here: elsewhere they fill a copy of it."""
    return tuple(
        f"sink {op.name!r} runs on the server: it fills a copy of {', '.join(names)}, not yours; use collect()"
        for op in graph.operators
        if op.kind == "sink" and not op.spec.is_class and (names := captured_containers(op.spec.target))
    )


def read_head(data: Buffer) -> tuple[PayloadHead, int] | None:
    """The head at the beginning of `data`, and where the body begins; None where more of it has to come first.

    Raises `ProtocolError`, in words for the one who sent it.
    """
    if bytes(data[: len(MAGIC)]) != MAGIC[: len(data)]:
        raise ProtocolError("this is not a pipeline of sage_nb: it does not begin as one")
    begin = len(MAGIC) + _SIZE.size
    if len(data) < begin:
        return None
    (size,) = _SIZE.unpack_from(data, len(MAGIC))
    if size > HEAD_LIMIT:
        raise ProtocolError(f"the head of the pipeline claims {size:,} bytes; {HEAD_LIMIT:,} are allowed")
    if len(data) < begin + size:
        return None
    try:
        head = msgspec.json.decode(data[begin : begin + size], type=PayloadHead)
    except UNREADABLE as exc:
        raise ProtocolError(f"the head of the pipeline cannot be read: {exc}") from exc
    return head, begin + size


def check_body(file: BinaryIO, begin: int) -> None:
    """Raises `ProtocolError` where the body in a file is not as long as it says. Nothing of it is opened."""
    size = file.seek(0, os.SEEK_END) - begin
    file.seek(begin)
    count = int.from_bytes(file.read(4), "little")
    if count > _MOST_BUFFERS:
        raise ProtocolError(f"the pipeline claims {count:,} buffers; {_MOST_BUFFERS:,} are allowed")
    sizes = file.read(8 * count)
    claimed = 4 + 8 * count + (sum(struct.unpack(f"<{count}Q", sizes)) if len(sizes) == 8 * count else 0)
    if claimed != size:
        raise ProtocolError(f"the pipeline is cut off: its body says {claimed:,} bytes, and {max(size, 0):,} came")


def read_work(data: memoryview) -> tuple[Graph, dict[str, Any], dict[str, int]]:
    """In a runner: the graph, the configuration, and the numbers of the notebook's cells."""
    found = read_head(data)
    if found is None:
        raise ProtocolError("the pipeline is cut off")
    work: tuple[Graph, dict[str, Any], dict[str, int]] = loads(unpack_buffers(data[found[1] :]))
    return work


def joined(pieces: Sequence[Buffer]) -> bytes:
    """The pieces as one."""
    return b"".join(pieces)
