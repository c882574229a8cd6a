"""The table, as plain text of 100 columns or as Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.catalogue import Bound, Work
from benchmarks.measure import Figure

__all__ = ["Group", "Line", "as_markdown", "as_text"]

_HEAD = ("", "time", "by hand", "ratio (min-max)", "runs", "bound", "held")
_WIDTHS = (34, 10, 10, 22, 6, 11, 6)


@dataclass(frozen=True, slots=True)
class Line:
    """One measurement, or the reason why there is none."""

    label: str
    figure: Figure | None
    reason: str = ""
    bound: Bound | None = None
    id: str = ""

    @property
    def missed(self) -> bool:
        """Whether it has a bound and does not hold it; a measurement of ours that failed holds nothing."""
        return self.bound is not None and (self.figure is None or not self.bound.holds(self.figure))


@dataclass(slots=True)
class Group:
    """A work and its lines."""

    work: Work
    lines: list[Line] = field(default_factory=list)


def as_text(groups: list[Group]) -> str:
    rows = [_padded(_HEAD)]
    for group in groups:
        rows += ["", group.work.title]
        for line in group.lines:
            cells = _cells(line, group.work.unit)
            rows.append(_padded(cells) if cells else f"  {line.label:<{_WIDTHS[0] - 2}}  {line.reason}"[:100])
    return "\n".join(row.rstrip() for row in rows)


def as_markdown(groups: list[Group]) -> str:
    rows = [f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in _HEAD)}|", "|:--|--:|--:|--:|--:|--:|:-:|"]
    for group in groups:
        rows.append(f"| **{group.work.title}** | | | | | | |")
        for line in group.lines:
            cells = _cells(line, group.work.unit) or (line.label, line.reason, "", "", "", "", "")
            rows.append(f"| {' | '.join(cell.strip() for cell in cells)} |")
    return "\n".join(rows)


def _padded(cells: tuple[str, ...]) -> str:
    first, *rest = cells
    return f"  {first}".ljust(_WIDTHS[0]) + "".join(c.rjust(w) for c, w in zip(rest, _WIDTHS[1:], strict=True))


def _cells(line: Line, unit: str) -> tuple[str, ...] | None:
    figure = line.figure
    if figure is None:
        return None
    hand = "" if figure.hand is None else _value(figure.hand, unit)
    bound = held = ""
    if line.bound is not None:
        bound, held = _bound(line.bound, unit), "NO" if line.missed else "yes"
    return (line.label, _value(figure.value, unit), hand, _spread(figure, unit), str(figure.runs), bound, held)


def _value(value: float, unit: str) -> str:
    if unit == "ms":
        return f"{value * 1e3:.3f} ms"
    if unit == "/s":
        return f"{value:.1f} /s"
    return f"{value:.1f} MB" if unit == "MB" else f"{value:.3f} s"


def _spread(figure: Figure, unit: str) -> str:
    if figure.ratio is None:
        return "" if figure.high is None else f"({_value(figure.high, unit)})"
    return f"{_ratio(figure.ratio)} ({_ratio(figure.low or 0)}-{_ratio(figure.high or 0)})"


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def _bound(bound: Bound, unit: str) -> str:
    sign = "≥" if bound.least else "≤"
    if bound.of == "ratio":
        return f"{sign} {bound.limit:.2f}"
    return f"{sign} {bound.limit * 1e3:.1f} ms" if unit == "ms" else f"{sign} {bound.limit:.0f} {unit}"
