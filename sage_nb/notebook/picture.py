"""The pipeline as a picture: where boxes and edges lie, and the picture as one SVG file.

Where things lie is decided by `jobs/drawing.py`, once; `layout` adds what changes. `static/jobview.js` has the same
function for the live view; `tests/browser/test_jobview.py` holds that both give the same answer. `pipeline_svg` draws a
layout for pages without scripts. It goes into an `<img>`, where no theme reaches it, so boxes bring their own fill and
edges are of a grey that can be seen on white and on black.

A source is round on its left, a sink on its right: what begins and what ends is seen without colour. An edge that
passes over columns keeps to a row that is free there, else to the space between two rows, where each such edge has a
track of its own. One that closes a loop is dashed and leads back below the boxes. Amber is where items pile up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from sage_nb.jobs.drawing import NAME_SIZE, PAD, WIDTH, BoxPlace, EdgePlace, drawing_of
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

SPARK_WIDTH, SPARK_HEIGHT = 96, 18

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_FILL, _BORDER, _EDGE = "#f1f4f8", "#9aa4b2", "#8590a0"
_TEXT, _MUTED, _ACCENT, _ERROR = "#1c2430", "#566172", "#1976d2", "#c6202b"
_AMBER, _AMBER_FILL, _AMBER_TEXT = "#c07f0a", "#fdf1d8", "#6b4400"
PROCESS = "M2.5,2.5h5v5h-5zM3.5,.5v2M6.5,.5v2M3.5,7.5v2M6.5,7.5v2M.5,3.5h2M.5,6.5h2M7.5,3.5h2M7.5,6.5h2"
"""A chip, ten pixels wide: what runs in processes of its own."""


@dataclass(frozen=True)
class Box:
    """One operator as it is drawn: its `place`, and what changes. `busy` and `blocked` are lengths; `slow` says that
    the operators before it wait for it."""

    place: BoxPlace
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
    """One edge. `slow` says that items wait on it."""

    place: EdgePlace
    slow: bool


@dataclass(frozen=True)
class Picture:
    """Boxes, edges, and the size that holds them, in pixels."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]


def layout(snapshot: JobSnapshot) -> Picture:
    """What everything in the picture of a job says and where it lies."""
    drawing = drawing_of(snapshot.operators)
    known = {op.id: op for op in snapshot.operators}
    slow = _slow(drawing.edges, known) if words.is_active(snapshot.status) else set()
    waited_for = {edge.end for edge in drawing.edges if edge.key in slow}
    return Picture(
        width=drawing.width,
        height=drawing.height,
        boxes=tuple(_box(place, known[place.id], place.id in waited_for, snapshot) for place in drawing.boxes),
        edges=tuple(Edge(place, place.key in slow) for place in drawing.edges),
    )


def _slow(edges: Sequence[EdgePlace], known: Mapping[int, OperatorView]) -> set[str]:
    """Keys of the edges that hold back their start: those on which the most items wait."""
    most: dict[int, int] = {}
    for edge in edges:
        most[edge.start] = max(most.get(edge.start, 1), known[edge.end].queued)
    return {
        edge.key for edge in edges if words.blocks(known[edge.start]) and known[edge.end].queued * 2 >= most[edge.start]
    }


def _box(place: BoxPlace, op: OperatorView, slow: bool, snapshot: JobSnapshot) -> Box:
    wide = place.right - place.left
    active = words.is_active(snapshot.status)
    failed = snapshot.error is not None and snapshot.error.operator == op.name
    errors = f"{words.shortened(op.errors)} {'error' if op.errors == 1 else 'errors'}" if op.errors else ""
    badge = errors or ("failed" if failed else "")
    busy = math.floor(op.busy * wide) if active and op.busy is not None else None
    return Box(
        place=place,
        flow=words.flow(op),
        rate=words.rate(op.rate) if active and op.rate else "",
        busy=busy,
        blocked=min(math.floor((op.blocked or 0) * wide), wide - (busy or 0)) if active else 0,
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
    side = 0 if any(edge.place.back for edge in picture.edges) else PAD - 1
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
            *(part for box in picture.boxes for part in _box_svg(box, instead[box.place.id] if instead else box.flow)),
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
    dashes = ' stroke-dasharray="4 3"' if edge.place.back else ""
    color, width = (_AMBER, 2) if edge.slow else (_EDGE, 1.5)
    stroke = f'stroke="{color}" stroke-width="{width}" stroke-linecap="round" stroke-linejoin="round"'
    return (
        f'<path d="{edge.place.path}" fill="none" {stroke}{dashes}/><path d="{edge.place.head}" fill="none" {stroke}/>'
    )


def _box_svg(box: Box, flow: str) -> Iterable[str]:
    border, thick = (_ERROR, 2) if box.failed else (_BORDER, 1)
    yield f'<g transform="translate({box.place.x} {box.place.y})">'
    yield f'<path d="{box.place.outline}" fill="{_FILL}" stroke="{border}" stroke-width="{thick}"/>'
    yield _text_svg(box.place.left, 18, 10, _MUTED, box.place.kind)
    yield _text_svg(box.place.right, 18, 10, _MUTED, box.rate, "end")
    yield _text_svg(box.place.left, 34, NAME_SIZE, _TEXT, box.place.name, weight=600)
    yield _text_svg(box.place.right, 34, 11, _MUTED, box.place.many, "end", 600)
    if box.place.process is not None:
        yield f'<path d="{PROCESS}" transform="translate({box.place.process} 25)" fill="none" stroke="{_MUTED}"/>'
    yield _text_svg(box.place.left, 50, 11, _TEXT, flow)
    if box.busy is not None or box.blocked:
        busy = box.busy or 0
        yield _bar_svg(box.place.left, box.place.right - box.place.left, _BORDER, 0.35)
        yield _bar_svg(box.place.left, busy, _ACCENT)
        yield _bar_svg(box.place.left + busy, box.blocked, _AMBER)
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
