"""The pipeline as a picture: where boxes and edges lie, and the picture as one SVG file.

`layout` decides everything but the colours, in whole pixels. `static/jobview.js` has the same function for the live
view; `tests/browser/test_jobview.py` holds that both give the same answer. `pipeline_svg` draws a layout for
pages without scripts. It goes into an `<img>`, where no theme reaches it, so boxes bring their own fill and edges
are of a grey that can be seen on white and on black.

A source is round on its left, a sink on its right: what begins and what ends is seen without colour. An edge that
passes over columns keeps to a row that is free there, else to the space between two rows, where each such edge has a
track of its own. One that closes a loop is dashed and leads back below the boxes. Amber is where items pile up.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from typing import Literal

from sage_nb.engine.stages import SINKS
from sage_nb.jobs.snapshot import JobSnapshot, OperatorView
from sage_nb.notebook import words

__all__ = [
    "Box",
    "Edge",
    "Picture",
    "layout",
    "pipeline_alt",
    "pipeline_size",
    "pipeline_svg",
    "spark_path",
    "spark_svg",
]

WIDTH, HEIGHT = 148, 62
GAP_X, GAP_Y, PAD = 36, 18, 12
TRACK = 6
CORNER, END_CORNER = 8, 24
TEXT_MARGIN, END_TEXT_MARGIN = 14, 20
NAME_SIZE = 12
MARK = 10
SPARK_WIDTH, SPARK_HEIGHT = 96, 18

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_FILL, _BORDER, _EDGE = "#f1f4f8", "#9aa4b2", "#8590a0"
_TEXT, _MUTED, _ACCENT, _ERROR = "#1c2430", "#566172", "#1976d2", "#c6202b"
_AMBER, _AMBER_FILL, _AMBER_TEXT = "#c07f0a", "#fdf1d8", "#6b4400"
PROCESS = "M2.5,2.5h5v5h-5zM3.5,.5v2M6.5,.5v2M3.5,7.5v2M6.5,7.5v2M.5,3.5h2M.5,6.5h2M7.5,3.5h2M7.5,6.5h2"
"""A chip, ten pixels wide: what runs in processes of its own."""


@dataclass(frozen=True)
class Box:
    """One operator as it is drawn. `left` and `right` bound its text, counted from `x`; `busy` and `blocked` are
    lengths; `slow` says that the operators before it wait for it."""

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
    flow: str
    rate: str
    busy: int | None
    blocked: int
    badge: str
    waiting: str
    slow: bool
    failed: bool


@dataclass(frozen=True)
class Edge:
    """One edge and the arrow head at its end. `back` marks one that closes a loop, `slow` one on which items wait."""

    key: str
    path: str
    head: str
    back: bool
    slow: bool


@dataclass(frozen=True)
class Picture:
    """Boxes, edges, and the size that holds them, in pixels."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


def layout(snapshot: JobSnapshot) -> Picture:
    """Where everything in the picture of a job lies, and what it says."""
    operators = snapshot.operators
    columns = max((op.col for op in operators), default=-1) + 1
    rows = max((op.row for op in operators), default=-1) + 1
    known = {op.id: op for op in operators}
    links = [_Link(known[up], op) for op in operators for up in dict.fromkeys(op.upstream) if up in known]
    taken = {(op.col, op.row) for op in operators}
    ways = [_way(link, taken) for link in links]
    tracks = _tracks(links, ways)
    wide = [0] * rows
    for n, track in tracks.items():
        wide[_lane(links[n])] = max(wide[_lane(links[n])], track * TRACK)
    tops = list(accumulate((HEIGHT + GAP_Y + extra for extra in wide), initial=PAD))
    slow = _slow(links) if words.is_active(snapshot.status) else set()
    waited_for = {links[n].end.id for n in slow}
    return Picture(
        width=columns * (WIDTH + GAP_X) - GAP_X + 2 * PAD if columns else 0,
        height=tops[-1] - GAP_Y + PAD if rows else 0,
        boxes=tuple(_box(op, tops[op.row], op.id in waited_for, snapshot) for op in operators),
        edges=tuple(
            _edge(link, way, tops, tracks.get(n, 0), n in slow)
            for n, (link, way) in enumerate(zip(links, ways, strict=True))
        ),
    )


@dataclass(frozen=True)
class _Link:
    """What becomes an edge: from one operator to another."""

    start: OperatorView
    end: OperatorView

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


def _slow(links: Sequence[_Link]) -> set[int]:
    """Positions in `links` of the edges that hold back their start: those on which the most items wait."""
    most: dict[int, int] = {}
    for link in links:
        most[link.start.id] = max(most.get(link.start.id, 1), link.end.queued)
    return {
        n for n, link in enumerate(links) if words.blocks(link.start) and link.end.queued * 2 >= most[link.start.id]
    }


def _box(op: OperatorView, y: int, slow: bool, snapshot: JobSnapshot) -> Box:
    begins, ends = op.kind == "source", op.kind in SINKS
    left = END_TEXT_MARGIN if begins else TEXT_MARGIN
    right = WIDTH - (END_TEXT_MARGIN if ends else TEXT_MARGIN)
    active = words.is_active(snapshot.status)
    failed = snapshot.error is not None and snapshot.error.operator == op.name
    errors = f"{words.shortened(op.errors)} {'error' if op.errors == 1 else 'errors'}" if op.errors else ""
    badge = errors or ("failed" if failed else "")
    many = f"×{words.count(op.parallelism)}" if op.parallelism > 1 else ""
    room = right - left - (7 * len(many) + 6 if many else 0)
    process = left + room - MARK if op.executor != "thread" else None
    busy = math.floor(op.busy * (right - left)) if active and op.busy is not None else None
    return Box(
        id=op.id,
        x=PAD + op.col * (WIDTH + GAP_X),
        y=y,
        left=left,
        right=right,
        outline=_outline(END_CORNER if begins else CORNER, END_CORNER if ends else CORNER),
        kind=words.kind(op),
        name=_fit_name(words.plain(op.name), (room if process is None else room - MARK - 4) * 100 // NAME_SIZE),
        many=many,
        process=process,
        flow=words.flow(op),
        rate=words.rate(op.rate) if active and op.rate else "",
        busy=busy,
        blocked=min(math.floor((op.blocked or 0) * (right - left)), right - left - (busy or 0)) if active else 0,
        badge=badge,
        waiting=_waiting(op.queued, badge) if active and op.queued else "",
        slow=slow,
        failed=failed,
    )


def _waiting(queued: int, badge: str) -> str:
    """How many items wait; only the number where the other badge needs the room."""
    said = f"{words.shortened(queued)} waiting"
    return said if not badge or 6 * len(said) <= WIDTH - 14 - _badge_width(badge) else said[: -len(" waiting")]


def _badge_width(badge: str) -> int:
    return 7 * len(badge) + 12


def _outline(left: int, right: int) -> str:
    return (
        f"M{left},0H{WIDTH - right}A{right},{right} 0 0 1 {WIDTH},{right}V{HEIGHT - right}"
        f"A{right},{right} 0 0 1 {WIDTH - right},{HEIGHT}H{left}"
        f"A{left},{left} 0 0 1 0,{HEIGHT - left}V{left}A{left},{left} 0 0 1 {left},0Z"
    )


def _edge(link: _Link, way: Way, tops: Sequence[int], track: int, slow: bool) -> Edge:
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
    return Edge(key=f"{start.id}-{end.id}", path=f"M{x1},{y1}{line}", head=head, back=back, slow=slow)


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


def pipeline_alt(snapshot: JobSnapshot, instead: Mapping[int, str] | None = None) -> str:
    """The picture in one sentence, for those who do not see it; `instead` as for `pipeline_svg`."""
    flows = instead or {op.id: words.flow(op) for op in snapshot.operators}
    said = ", ".join(f"{words.plain(op.name)} ({_said(op, flows[op.id], snapshot)})" for op in snapshot.operators)
    return f"Pipeline of {words.named_count(len(snapshot.operators), 'operator')}: {said}"


def _said(op: OperatorView, flow: str, snapshot: JobSnapshot) -> str:
    kind = " ".join(filter(None, (words.kind(op), "×" if op.parallelism > 1 else "", words.instances(op))))
    waiting = f"{words.count(op.queued)} waiting" if op.queued and words.is_active(snapshot.status) else ""
    return ", ".join(filter(None, (kind, flow, waiting)))


def pipeline_size(snapshot: JobSnapshot) -> tuple[int, int]:
    """Width and height of the SVG file in pixels."""
    picture = layout(snapshot)
    # The padding at the sides is for edges that lead back; without one the boxes begin where the page's text does.
    side = 0 if any(edge.back for edge in picture.edges) else PAD - 1
    return max(picture.width - 2 * side, 0), picture.height


def pipeline_svg(snapshot: JobSnapshot, instead: Mapping[int, str] | None = None) -> str:
    """The picture as an SVG file that can be read on white and on dark pages.

    `instead` has, for every operator, what its box says in place of its counter.
    """
    picture = layout(snapshot)
    width, height = pipeline_size(snapshot)
    side = (picture.width - width) // 2
    size = f'width="{width}" height="{height}" viewBox="{side} 0 {width} {height}"'
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONT}">',
            f"<title>{escape(pipeline_alt(snapshot, instead))}</title>",
            *map(_edge_svg, sorted(picture.edges, key=lambda edge: edge.slow)),
            *(part for box in picture.boxes for part in _box_svg(box, instead[box.id] if instead else box.flow)),
            "</svg>",
        ]
    )


def spark_path(rates: Sequence[float]) -> str:
    """The curve of rates as a path; empty where two points are missing."""
    most = max(rates, default=0.0)
    if len(rates) < 2 or not most > 0:
        return ""
    last = len(rates) - 1
    xs = (i * SPARK_WIDTH // last for i in range(len(rates)))
    ys = (SPARK_HEIGHT - 1 - math.floor(rate / most * (SPARK_HEIGHT - 2)) for rate in rates)
    return "M" + "L".join(f"{x},{y}" for x, y in zip(xs, ys, strict=True))


def spark_svg(rates: Sequence[float]) -> str:
    """The curve of rates as an SVG file; empty where two points are missing."""
    path = spark_path(rates)
    if not path:
        return ""
    size = f'width="{SPARK_WIDTH}" height="{SPARK_HEIGHT}"'
    stroke = f'fill="none" stroke="{_ACCENT}" stroke-width="1.5" stroke-linejoin="round"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><path d="{path}" {stroke}/></svg>'


def _edge_svg(edge: Edge) -> str:
    dashes = ' stroke-dasharray="4 3"' if edge.back else ""
    color, width = (_AMBER, 2) if edge.slow else (_EDGE, 1.5)
    stroke = f'stroke="{color}" stroke-width="{width}" stroke-linecap="round" stroke-linejoin="round"'
    return f'<path d="{edge.path}" fill="none" {stroke}{dashes}/><path d="{edge.head}" fill="none" {stroke}/>'


def _box_svg(box: Box, flow: str) -> Iterable[str]:
    border, thick = (_ERROR, 2) if box.failed else (_BORDER, 1)
    yield f'<g transform="translate({box.x} {box.y})">'
    yield f'<path d="{box.outline}" fill="{_FILL}" stroke="{border}" stroke-width="{thick}"/>'
    yield _text_svg(box.left, 18, 10, _MUTED, box.kind)
    yield _text_svg(box.right, 18, 10, _MUTED, box.rate, "end")
    yield _text_svg(box.left, 34, NAME_SIZE, _TEXT, box.name, weight=600)
    yield _text_svg(box.right, 34, 11, _MUTED, box.many, "end", 600)
    if box.process is not None:
        yield f'<path d="{PROCESS}" transform="translate({box.process} 25)" fill="none" stroke="{_MUTED}"/>'
    yield _text_svg(box.left, 50, 11, _TEXT, flow)
    if box.busy is not None or box.blocked:
        busy = box.busy or 0
        yield _bar_svg(box.left, box.right - box.left, _BORDER, 0.35)
        yield _bar_svg(box.left, busy, _ACCENT)
        yield _bar_svg(box.left + busy, box.blocked, _AMBER)
    if box.badge:
        wide = _badge_width(box.badge)
        yield f'<rect x="{WIDTH - 10 - wide}" y="-8" width="{wide}" height="16" rx="8" fill="{_ERROR}"/>'
        yield _text_svg(WIDTH - 10 - wide // 2, 4, 10, "#fff", box.badge, "middle", 600)
    if box.waiting:
        fill, line, text = (_AMBER_FILL, _AMBER, _AMBER_TEXT) if box.slow else (_FILL, _BORDER, _MUTED)
        wide = 6 * len(box.waiting) + 12
        yield f'<rect x="-12" y="-8" width="{wide}" height="16" rx="8" fill="{fill}" stroke="{line}"/>'
        yield _text_svg(wide // 2 - 12, 4, 10, text, box.waiting, "middle")
    yield "</g>"


def _bar_svg(x: int, length: int, fill: str, opacity: float = 1) -> str:
    rect = f'<rect x="{x}" y="55" width="{length}" height="2" rx="1" fill="{fill}" opacity="{opacity}"/>'
    return rect if length else ""


def _text_svg(x: int, y: int, size: int, fill: str, said: str, anchor: str = "start", weight: int = 400) -> str:
    if not said:
        return ""
    style = "font-variant-numeric:tabular-nums"
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}" '
        f'style="{style}">{escape(said)}</text>'
    )
