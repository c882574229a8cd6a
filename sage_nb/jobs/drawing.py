"""The parts of a pipeline's picture that do not change while the job runs: where boxes and edges lie, in whole pixels.

A source is round on its left, a sink on its right. An edge that passes over columns keeps to a row that is free
there, else to the space between two rows, where each such edge has a track of its own. One that closes a loop leads
back below the boxes.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

import msgspec

from sage_nb.engine.stages import SINKS
from sage_nb.jobs.plain import plain

if TYPE_CHECKING:
    from sage_nb.jobs.snapshot import OperatorView

__all__ = ["HEIGHT", "NAME_SIZE", "PAD", "WIDTH", "BoxPlace", "Drawing", "EdgePlace", "drawing_of"]

WIDTH, HEIGHT = 148, 62
GAP_X, GAP_Y, PAD = 36, 18, 12
TRACK = 6
CORNER, END_CORNER = 8, 24
TEXT_MARGIN, END_TEXT_MARGIN = 14, 20
NAME_SIZE = 12
MARK = 10


class BoxPlace(msgspec.Struct, frozen=True):
    """One operator. `left` and `right` bound its text, counted from `x`; `process` is where the mark of processes
    lies, None without one."""

    id: int
    x: int
    y: int
    left: int
    right: int
    outline: str
    kind: str
    name: str
    many: str
    process: int | None


class EdgePlace(msgspec.Struct, frozen=True):
    """One edge from operator `start` to operator `end`, and the arrow head there. `back` marks one that closes a
    loop."""

    key: str
    start: int
    end: int
    path: str
    head: str
    back: bool


class Drawing(msgspec.Struct, frozen=True):
    """Boxes, edges, and the size that holds them."""

    width: int
    height: int
    boxes: tuple[BoxPlace, ...]
    edges: tuple[EdgePlace, ...]


@dataclass(frozen=True, slots=True)
class _Node:
    """What of an operator decides how it is drawn."""

    id: int
    name: str
    kind: str
    col: int
    row: int
    upstream: tuple[int, ...]
    parallelism: int
    executor: str


def drawing_of(operators: Sequence[OperatorView]) -> Drawing:
    """Where the operators and the edges between them lie."""
    return _drawing(
        tuple(
            _Node(op.id, op.name, op.kind, op.col, op.row, tuple(op.upstream), op.parallelism, op.executor)
            for op in operators
        )
    )


@lru_cache(maxsize=64)
def _drawing(nodes: tuple[_Node, ...]) -> Drawing:
    columns = max((node.col for node in nodes), default=-1) + 1
    rows = max((node.row for node in nodes), default=-1) + 1
    known = {node.id: node for node in nodes}
    links = [_Link(known[up], node) for node in nodes for up in dict.fromkeys(node.upstream) if up in known]
    taken = {(node.col, node.row) for node in nodes}
    ways = [_way(link, taken) for link in links]
    tracks = _tracks(links, ways)
    wide = [0] * rows
    for n, track in tracks.items():
        wide[_lane(links[n])] = max(wide[_lane(links[n])], track * TRACK)
    tops = list(accumulate((HEIGHT + GAP_Y + extra for extra in wide), initial=PAD))
    return Drawing(
        width=columns * (WIDTH + GAP_X) - GAP_X + 2 * PAD if columns else 0,
        height=tops[-1] - GAP_Y + PAD if rows else 0,
        boxes=tuple(_box(node, tops[node.row]) for node in nodes),
        edges=tuple(
            _edge(link, way, tops, tracks.get(n, 0)) for n, (link, way) in enumerate(zip(links, ways, strict=True))
        ),
    )


def _box(node: _Node, y: int) -> BoxPlace:
    begins, ends = node.kind == "source", node.kind in SINKS
    left = END_TEXT_MARGIN if begins else TEXT_MARGIN
    right = WIDTH - (END_TEXT_MARGIN if ends else TEXT_MARGIN)
    many = f"×{node.parallelism:,}" if node.parallelism > 1 else ""
    room = right - left - (7 * len(many) + 6 if many else 0)
    process = left + room - MARK if node.executor != "thread" else None
    return BoxPlace(
        id=node.id,
        x=PAD + node.col * (WIDTH + GAP_X),
        y=y,
        left=left,
        right=right,
        outline=_outline(END_CORNER if begins else CORNER, END_CORNER if ends else CORNER),
        kind=node.kind.replace("_", " "),
        name=_fit_name(plain(node.name), (room if process is None else room - MARK - 4) * 100 // NAME_SIZE),
        many=many,
        process=process,
    )


@dataclass(frozen=True)
class _Link:
    """What becomes an edge: from one operator to another."""

    start: _Node
    end: _Node

    @property
    def back(self) -> bool:
        return self.end.col <= self.start.col


Way = Literal["near", "out", "in", "lane"]


def _way(link: _Link, taken: set[tuple[int, int]]) -> Way:
    """To the next column; along the row of the start or of the end, where that is free; or between two rows."""
    start, end = link.start, link.end
    if end.col == start.col + 1:
        return "near"
    between = range(start.col + 1, end.col)
    if not link.back and all((col, start.row) not in taken for col in between):
        return "out"
    if not link.back and all((col, end.row) not in taken for col in between):
        return "in"
    return "lane"


def _lane(link: _Link) -> int:
    """The row below which an edge between rows runs."""
    start, end = link.start.row, link.end.row
    if link.back:
        return max(start, end)
    return start if end >= start else start - 1


def _tracks(links: Sequence[_Link], ways: Sequence[Way]) -> dict[int, int]:
    """By position in `links`: the track between the rows, from 0. Short edges lie nearer to the boxes."""
    found: dict[int, int] = {}
    used: dict[tuple[int, int], list[tuple[int, int, _Link]]] = {}
    lanes = [n for n, way in enumerate(ways) if way == "lane"]
    for n in sorted(lanes, key=lambda n: abs(links[n].end.col - links[n].start.col)):
        link, row, track = links[n], _lane(links[n]), 0
        first, last = sorted((link.start.col * 2 + 1, link.end.col * 2 - 1))
        while any(
            low <= last and first <= high and not _may_share(link, other)
            for low, high, other in used.setdefault((row, track), [])
        ):
            track += 1
        used[row, track].append((first, last, link))
        found[n] = track
    return found


def _may_share(one: _Link, other: _Link) -> bool:
    return one.back == other.back and (one.start is other.start or one.end is other.end)


def _outline(left: int, right: int) -> str:
    return (
        f"M{left},0H{WIDTH - right}A{right},{right} 0 0 1 {WIDTH},{right}V{HEIGHT - right}"
        f"A{right},{right} 0 0 1 {WIDTH - right},{HEIGHT}H{left}"
        f"A{left},{left} 0 0 1 0,{HEIGHT - left}V{left}A{left},{left} 0 0 1 {left},0Z"
    )


def _edge(link: _Link, way: Way, tops: Sequence[int], track: int) -> EdgePlace:
    start, end = link.start, link.end
    x1, y1 = PAD + start.col * (WIDTH + GAP_X) + WIDTH, tops[start.row] + HEIGHT // 2
    x2, y2 = PAD + end.col * (WIDTH + GAP_X), tops[end.row] + HEIGHT // 2
    lane = tops[_lane(link)] + HEIGHT + GAP_Y // 2 + TRACK * track
    bend = PAD if link.back else GAP_X // 2
    a, b, turn = (x1, x2, -bend) if link.back else (x1 + GAP_X, x2 - GAP_X, bend)
    if way == "near":
        line = f"C{x1 + bend},{y1} {x2 - bend},{y2} {x2 - 1},{y2}"
    elif way == "out":
        line = f"L{b},{y1}C{b + turn},{y1} {x2 - bend},{y2} {x2 - 1},{y2}"
    elif way == "in":
        line = f"C{x1 + bend},{y1} {a - turn},{y2} {a},{y2}L{x2 - 1},{y2}"
    else:
        line = f"C{x1 + bend},{y1} {a - turn},{lane} {a},{lane}L{b},{lane}"
        line += f"C{b + turn},{lane} {x2 - bend},{y2} {x2 - 1},{y2}"
    head = f"M{x2 - 6},{y2 - 4}L{x2 - 1},{y2}L{x2 - 6},{y2 + 4}"
    back = link.back or end.kind == "future"
    return EdgePlace(f"{start.id}-{end.id}", start.id, end.id, f"M{x1},{y1}{line}", head, back)


def _fit_name(name: str, room: int) -> str:
    """`name`, cut where it is estimated to be wider than `room` hundredths of an em: SVG text does not cut itself."""
    if sum(map(_em, name)) <= room:
        return name
    kept, left = "", room - 90
    for ch in name:
        left -= _em(ch)
        if left < 0:
            break
        kept += ch
    return kept.rstrip(" ") + "…"


def _em(ch: str) -> int:
    if ch in "iljtfrI.,:;'|!()[]{}/\\- ":
        return 40
    if ch in "mwMW@%&":
        return 106
    code = ord(ch)
    if code < 128:
        return 62 if ch.islower() else 72
    if unicodedata.category(ch) in ("Mn", "Mc", "Me", "Cf"):
        return 0
    return 100 if code >= 0x2E80 or 0x1100 <= code < 0x1160 else 70
