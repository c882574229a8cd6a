"""A job as HTML that needs nothing but itself: what a saved notebook shows.

It is read where nothing can be relied on. JupyterLab takes `<style>`, `<svg>` and `aria-*` out of notebooks that it
does not trust; GitHub takes out `style=` as well. So looks are inline, the picture is an `<img>` with its content in
its address, whose text says the same, and what remains without any style is still headings, tables and `<details>`
in the order in which they should be read. No colour of text or page is set, so that every theme's own is used: lines
and tints are half transparent, the marks of states are of a middle brightness.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from sage_nb.jobs.explain import Explanation
from sage_nb.jobs.snapshot import ErrorView, JobSnapshot, LogView, OutputView, ResultView, ServiceView
from sage_nb.notebook import words
from sage_nb.notebook.picture import pipeline_alt, pipeline_size, pipeline_svg, spark_svg

__all__ = ["ROWS", "render_explanation", "render_html", "render_result"]

ROWS, _CELL = 20, 200
_LINE = "1px solid rgba(128,128,128,.3)"
_MONO = "font-family:ui-monospace,Menlo,Consolas,monospace"
_GREEN, _RED, _BLUE, _AMBER, _GREY = "45,164,78", "229,72,77", "47,134,221", "191,135,0", "128,128,128"
_TINTS = {
    "completed": _GREEN,
    "failed": _RED,
    "hung": _RED,
    "running": _BLUE,
    "starting": _BLUE,
    "paused": _AMBER,
    "stopping": _AMBER,
    "restarting": _AMBER,
    "kept": _AMBER,
}
_FRAME = f"margin:2px 0;padding:12px 16px;border:{_LINE};border-radius:8px;font-size:13px;line-height:1.45"
_BLOCK = "margin:10px 0 0"
_MUTED = "opacity:.72"
_PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+")


def render_html(snapshot: JobSnapshot, *, at: float | None = None) -> str:
    """The job as self-contained HTML: no script, no style sheet, no class, and everything of the user's escaped. Of one
    that goes on, `at` (seconds since the epoch) says when it was so."""
    parts = [
        *_header(snapshot, at),
        *([_error(snapshot.error)] if snapshot.error else []),
        *(_div(f"⚠ {_text(note)}", _BLOCK) for note in snapshot.notes),
        *(_operators(snapshot) if snapshot.operators else []),
        *([_services(snapshot.services)] if snapshot.services else []),
        *(_result(result) for result in snapshot.results),
        *(_result(words.dead_letters(letters)) for letters in snapshot.dead_letters),
        *([_output(snapshot.output)] if snapshot.output else []),
        *([_logs(snapshot)] if snapshot.log_total else []),
    ]
    return _div("\n".join(parts), _FRAME)


def render_result(result: ResultView) -> str:
    """One result as the HTML of its job has it."""
    return _div(_result(result), _FRAME)


def render_explanation(explanation: Explanation, *, more: str = "") -> str:
    """A plan: its picture, in which every box says its stage, above its text, which `more` ends."""
    stages = {name: stage.number for stage in explanation.stages for name in stage.operators}
    operators = explanation.snapshot.operators
    said = {op.id: f"stage {stages[op.name]}" if op.name in stages else "" for op in operators}
    parts = [*([_picture(explanation.snapshot, said)] if operators else []), _pre(_lines(str(explanation) + more))]
    return _div("\n".join(parts), _FRAME)


def _text(said: str) -> str:
    return escape(words.plain(said))


def _lines(said: str) -> str:
    return escape(words.plain(said, lines=True))


def _div(content: str, style: str) -> str:
    return f'<div style="{style}">{content}</div>'


def _span(content: str, style: str) -> str:
    return f'<span style="{style}">{content}</span>'


def _header(snapshot: JobSnapshot, at: float | None) -> Iterable[str]:
    tint = _AMBER if snapshot.reason else _TINTS.get(snapshot.status, _GREY)
    pill = f"padding:3px 10px;border-radius:12px;background-color:rgba({tint},.16);font-size:12px;white-space:nowrap"
    mark = _span(words.MARKS.get(snapshot.status, "○"), f"color:rgb({tint})")
    state = _span(f"<strong>{mark} {_text(words.state_word(snapshot.status, snapshot.reason))}</strong>", pill)
    name = f'<strong style="margin:0 4px;font-size:14px">{_text(snapshot.name)}</strong>'
    uuid = f'<code style="background-color:transparent;font-size:11px;{_MUTED}">{_text(snapshot.uuid[:8])}</code>'
    server = _span(_text(words.at(snapshot)), f"margin-right:4px;font-size:12px;{_MUTED}") if snapshot.server else ""
    yield _div(" ".join(part for part in (state, name, server, uuid) if part), "margin:0;line-height:2")
    facts = " · ".join(_text(fact) for fact in words.facts(snapshot) if fact)
    yield _div(facts + _spark(snapshot), f"margin:4px 0 0;{_MUTED}")
    if not words.is_active(snapshot.status):
        return
    if snapshot.fraction is not None:
        value = min(max(snapshot.fraction, 0.0), 1.0)
        bar = f'<progress value="{value:.3f}" max="1" style="width:60%;vertical-align:middle"></progress>'
        yield _div(f"{bar} {words.percent(value)}", _BLOCK)
    seen = words.as_of(at) if at is not None else "This is how the job was when the view was last saved."
    waits = f"Waiting for {_text(snapshot.waiting_for)}. " if snapshot.waiting_for else ""
    yield _div(f"<em>{waits}{seen}</em>", f"{_BLOCK};{_MUTED}")


def _spark(snapshot: JobSnapshot) -> str:
    svg = spark_svg(snapshot.rates)
    if not svg:
        return ""
    data = base64.b64encode(svg.encode()).decode()
    look = "display:inline;margin:0 0 0 12px;vertical-align:middle"
    return f' <img src="data:image/svg+xml;base64,{data}" alt="{escape(words.trend(snapshot))}" style="{look}">'


def _error(error: ErrorView) -> str:
    message = f": {_lines(error.message)}" if error.message else ""
    where = f"in {error.operator}" if error.operator else None
    places = [where, error.where, f"item {error.item}" if error.item else None]
    mark = _span("✗", f"color:rgb({_RED})")
    parts = [_div(f"{mark} <strong>{_text(error.type)}</strong>{message}", "margin:0;white-space:pre-wrap")]
    if any(places):
        parts.append(_div(" · ".join(_text(place) for place in places if place), f"margin:4px 0 0;{_MUTED}"))
    if error.code:
        wide = len(str(max(line.number for line in error.code)))
        rows = (_code_line(line.number, line.text, line.marked, wide) for line in error.code)
        parts.append(_pre("\n".join(rows)))
    if error.traceback:
        parts.append(_details("Traceback", _pre(_lines(error.traceback))))
    card = (
        f"{_BLOCK};padding:10px 14px;border:1px solid rgba({_RED},.45);border-left:4px solid rgb({_RED});"
        f"border-radius:6px;background-color:rgba({_RED},.06)"
    )
    return _div("\n".join(parts), card)


def _code_line(number: int, text: str, marked: bool, wide: int) -> str:
    line = f"{'❱' if marked else ' '} {number:>{wide}}  {_text(text)}"
    return f'<strong style="background-color:rgba({_RED},.18)">{line}</strong>' if marked else line


def _pre(content: str) -> str:
    style = (
        f"margin:6px 0 0;padding:8px 12px;overflow:auto;border:{_LINE};border-radius:6px;background-color:transparent;"
        f"font-size:12px;line-height:1.5;white-space:pre;{_MONO}"
    )
    return f'<pre style="{style}">{content}</pre>'


def _details(summary: str, content: str) -> str:
    return f'<details style="{_BLOCK}"><summary style="cursor:pointer">{summary}</summary>\n{content}\n</details>'


def _operators(snapshot: JobSnapshot) -> Iterable[str]:
    yield _picture(snapshot)
    columns = words.columns(snapshot.operators)
    rows = list(zip(*(column.cells for column in columns), strict=True))
    table = _table([column.head for column in columns], [column.numeric for column in columns], rows)
    yield _details(words.named_count(len(snapshot.operators), "operator"), table)


def _picture(snapshot: JobSnapshot, instead: Mapping[int, str] | None = None) -> str:
    width, _ = pipeline_size(snapshot)
    data = base64.b64encode(pipeline_svg(snapshot, instead).encode()).decode()
    image = (
        f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(pipeline_alt(snapshot, instead))}" '
        f'style="display:block;width:100%;min-width:{width * 72 // 100}px;max-width:{width}px;height:auto;margin:0">'
    )
    return _div(image, "margin:6px 0 0;overflow:auto")


def _table(columns: Sequence[str], numeric: Sequence[bool], rows: Sequence[Sequence[str]]) -> str:
    cell = f"padding:4px 12px;border-bottom:{_LINE};vertical-align:top;white-space:nowrap"
    looks = [f"text-align:{'right' if right else 'left'};{cell}" for right in numeric]
    # GitHub takes the styles out and keeps `align`.
    aligns = [' align="right"' if right else ' align="left"' for right in numeric]

    def row(tag: str, cells: Sequence[str]) -> str:
        inner = "".join(
            f'<{tag}{align} style="{look}">{_text(words.fit(said, _CELL))}</{tag}>'
            for said, align, look in zip(cells, aligns, looks, strict=False)
        )
        return f'<tr style="background-color:transparent">{inner}</tr>'

    head, body = row("th", columns), "\n".join(row("td", cells) for cells in rows)
    table = "margin:0;border-collapse:collapse;border:none;font-size:12px;table-layout:auto"
    return _div(
        f'<table style="{table}"><thead>{head}</thead>\n<tbody>{body}</tbody></table>', "margin:4px 0 0;overflow:auto"
    )


def _services(services: Sequence[ServiceView]) -> str:
    chip = f"display:inline-block;margin:0 4px 4px 0;padding:2px 10px;border:{_LINE};border-radius:13px;font-size:12px"
    chips = []
    for service in services:
        calls = words.named_count(service.calls, "call") if service.calls else None
        said = " · ".join(_text(part) for part in (service.state, calls, service.note) if part)
        mark = _span("●", f"color:rgb({_TINTS.get(service.state, _GREY)})")
        chips.append(_span(f"{mark} <strong>{_text(service.name)}</strong> {_span(said, _MUTED)}", chip))
    return _div("\n".join(chips), _BLOCK)


def _result(result: ResultView) -> str:
    rows = result.rows[-ROWS:]
    said = _span(words.extent(result, len(rows)), _MUTED)
    table = _table(result.columns, result.numeric, rows) if rows and not words.is_only_picture(result) else ""
    return _div(f"<strong>{_text(result.name)}</strong> {said}{_newest(result)}{table}", _BLOCK)


def _newest(result: ResultView) -> str:
    """The newest item, where it is a picture."""
    if result.picture is None or not _PICTURE.fullmatch(result.picture):
        return ""
    alt = f"The newest item of {words.plain(result.name)}"
    look = "display:block;max-width:100%;max-height:480px;margin:6px 0 0"
    return f'<img src="{result.picture}" alt="{escape(alt)}" style="{look}">'


def _output(output: OutputView) -> str:
    said = words.showing(output.total, len(output.lines), "line")
    return _details(f"Output {_span(said, _MUTED)}", _pre("\n".join(map(_text, output.lines))))


def _logs(snapshot: JobSnapshot) -> str:
    said = words.showing(snapshot.log_total, len(snapshot.logs), "line")
    return _details(f"Log {_span(said, _MUTED)}", _pre("\n".join(_log_line(log) for log in snapshot.logs)))


def _log_line(log: LogView) -> str:
    line = f"{words.clock(log.time)}  {_text(log.level):<8}  {_text(log.source)}  {_lines(log.text)}"
    return f"<strong>{line}</strong>" if log.level in ("WARNING", "ERROR", "CRITICAL") else line
