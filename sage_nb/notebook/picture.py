"""The pipeline as a picture: where boxes and edges lie, and the picture as one SVG file.

`layout` decides everything but the colours, in whole pixels. `static/jobview.js` has the same function for the live
view; `tests/browser/test_jobview.py` holds that both give the same answer. `pipeline_svg` draws a layout for
pages without scripts. It goes into an `<img>`, where no theme reaches it, so boxes bring their own fill and edges
are of a grey that can be seen on white and on black.

A source is round on its left, a sink on its right: what begins and what ends is seen without colour.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from sage_nb.engine.plan import SINKS
from sage_nb.jobs.snapshot import JobSnapshot, OperatorView
from sage_nb.notebook import words

__all__ = ["Box", "Edge", "Picture", "layout", "pipeline_alt", "pipeline_size", "pipeline_svg"]

WIDTH, HEIGHT = 148, 62
GAP_X, GAP_Y, PAD = 36, 18, 12
CORNER, END_CORNER = 8, 24
TEXT_MARGIN, END_TEXT_MARGIN = 14, 20
NAME_SIZE = 12

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_FILL, _BORDER, _EDGE = "#f1f4f8", "#9aa4b2", "#8590a0"
_TEXT, _MUTED, _ACCENT, _ERROR = "#1c2430", "#566172", "#1976d2", "#c6202b"


@dataclass(frozen=True)
class Box:
    """One operator as it is drawn. `left` and `right` bound its text, counted from `x`; `busy` is a length."""

    id: int
    x: int
    y: int
    left: int
    right: int
    outline: str
    kind: str
    name: str
    flow: str
    rate: str
    busy: int | None
    badge: str
    failed: bool


@dataclass(frozen=True)
class Edge:
    """One edge, with the arrow head at its end. `back` marks an edge against the flow."""

    key: str
    path: str
    back: bool


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
    edges = [_edge(known[up], op) for op in operators for up in op.upstream if up in known]
    return Picture(
        width=columns * (WIDTH + GAP_X) - GAP_X + 2 * PAD if columns else 0,
        height=rows * (HEIGHT + GAP_Y) - GAP_Y + 2 * PAD if rows else 0,
        boxes=tuple(_box(op, snapshot) for op in operators),
        edges=tuple(edges),
    )


def _box(op: OperatorView, snapshot: JobSnapshot) -> Box:
    begins, ends = op.kind == "source", op.kind in SINKS
    left = END_TEXT_MARGIN if begins else TEXT_MARGIN
    right = WIDTH - (END_TEXT_MARGIN if ends else TEXT_MARGIN)
    active = words.is_active(snapshot.status)
    failed = snapshot.error is not None and snapshot.error.operator == op.name
    errors = f"{words.shortened(op.errors)} {'error' if op.errors == 1 else 'errors'}"
    return Box(
        id=op.id,
        x=PAD + op.col * (WIDTH + GAP_X),
        y=PAD + op.row * (HEIGHT + GAP_Y),
        left=left,
        right=right,
        outline=_outline(END_CORNER if begins else CORNER, END_CORNER if ends else CORNER),
        kind=op.kind,
        name=_fit_name(words.plain(op.name), (right - left) * 100 // NAME_SIZE),
        flow=words.flow(op),
        rate=words.rate(op.rate) if active and op.rate else "",
        busy=math.floor(op.busy * (right - left)) if active and op.busy is not None else None,
        badge=errors if op.errors else ("failed" if failed else ""),
        failed=failed,
    )


def _outline(left: int, right: int) -> str:
    return (
        f"M{left},0H{WIDTH - right}A{right},{right} 0 0 1 {WIDTH},{right}V{HEIGHT - right}"
        f"A{right},{right} 0 0 1 {WIDTH - right},{HEIGHT}H{left}"
        f"A{left},{left} 0 0 1 0,{HEIGHT - left}V{left}A{left},{left} 0 0 1 {left},0Z"
    )


def _edge(start: OperatorView, end: OperatorView) -> Edge:
    """The edge between two operators; one that passes over columns takes the lane between two rows."""
    x1, y1 = PAD + start.col * (WIDTH + GAP_X) + WIDTH, PAD + start.row * (HEIGHT + GAP_Y) + HEIGHT // 2
    x2, y2 = PAD + end.col * (WIDTH + GAP_X), PAD + end.row * (HEIGHT + GAP_Y) + HEIGHT // 2
    half = GAP_X // 2
    head = f"M{x2 - 6},{y2 - 4}L{x2 - 1},{y2}L{x2 - 6},{y2 + 4}"
    if end.col == start.col + 1:
        path = f"M{x1},{y1}C{x1 + half},{y1} {x2 - half},{y2} {x2 - 1},{y2}{head}"
        return Edge(key=f"{start.id}-{end.id}", path=path, back=False)
    lane = y1 + (HEIGHT + GAP_Y) // 2 * (1 if end.row >= start.row else -1)
    back = end.col <= start.col
    a, b = (x1, x2) if back else (x1 + GAP_X, x2 - GAP_X)
    bend = PAD if back else half
    path = (
        f"M{x1},{y1}C{x1 + bend},{y1} {a + bend if back else a - bend},{lane} {a},{lane}L{b},{lane}"
        f"C{b - bend if back else b + bend},{lane} {x2 - bend},{y2} {x2 - 1},{y2}{head}"
    )
    return Edge(key=f"{start.id}-{end.id}", path=path, back=back)


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


def pipeline_alt(snapshot: JobSnapshot) -> str:
    """The picture in one sentence, for those who do not see it."""
    said = ", ".join(f"{words.plain(op.name)} ({op.kind}, {words.flow(op)})" for op in snapshot.operators)
    return f"Pipeline of {words.named_count(len(snapshot.operators), 'operator')}: {said}"


def pipeline_size(snapshot: JobSnapshot) -> tuple[int, int]:
    """Width and height of the SVG file in pixels."""
    picture = layout(snapshot)
    # The padding at the sides is for edges that lead back; without one the boxes begin where the page's text does.
    side = 0 if any(edge.back for edge in picture.edges) else PAD - 1
    return max(picture.width - 2 * side, 0), picture.height


def pipeline_svg(snapshot: JobSnapshot) -> str:
    """The picture as an SVG file that can be read on white and on dark pages."""
    picture = layout(snapshot)
    width, height = pipeline_size(snapshot)
    side = (picture.width - width) // 2
    size = f'width="{width}" height="{height}" viewBox="{side} 0 {width} {height}"'
    return "".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="{_FONT}">',
            f"<title>{escape(pipeline_alt(snapshot))}</title>",
            *map(_edge_svg, picture.edges),
            *(part for box in picture.boxes for part in _box_svg(box)),
            "</svg>",
        ]
    )


def _edge_svg(edge: Edge) -> str:
    dashes = ' stroke-dasharray="4 3"' if edge.back else ""
    stroke = f'stroke="{_EDGE}" stroke-width="1.5" stroke-linecap="round" stroke-linejoin="round"'
    return f'<path d="{edge.path}" fill="none" {stroke}{dashes}/>'


def _box_svg(box: Box) -> Iterable[str]:
    border, thick = (_ERROR, 2) if box.failed else (_BORDER, 1)
    yield f'<g transform="translate({box.x} {box.y})">'
    yield f'<path d="{box.outline}" fill="{_FILL}" stroke="{border}" stroke-width="{thick}"/>'
    yield _text_svg(box.left, 18, 10, _MUTED, box.kind)
    yield _text_svg(box.right, 18, 10, _MUTED, box.rate, "end")
    yield _text_svg(box.left, 34, NAME_SIZE, _TEXT, box.name, weight=600)
    yield _text_svg(box.left, 50, 11, _TEXT, box.flow)
    if box.busy is not None:
        yield f'<rect x="{box.left}" y="55" width="{box.right - box.left}" height="2" rx="1" fill="{_BORDER}" '
        yield 'opacity=".35"/>'
        yield f'<rect x="{box.left}" y="55" width="{box.busy}" height="2" rx="1" fill="{_ACCENT}"/>'
    if box.badge:
        wide = 7 * len(box.badge) + 12
        yield f'<rect x="{WIDTH - 10 - wide}" y="-8" width="{wide}" height="16" rx="8" fill="{_ERROR}"/>'
        yield _text_svg(WIDTH - 10 - wide // 2, 4, 10, "#fff", box.badge, "middle", 600)
    yield "</g>"


def _text_svg(x: int, y: int, size: int, fill: str, said: str, anchor: str = "start", weight: int = 400) -> str:
    if not said:
        return ""
    style = "font-variant-numeric:tabular-nums"
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}" '
        f'style="{style}">{escape(said)}</text>'
    )
