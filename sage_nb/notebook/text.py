"""A job as plain text: for terminals, papermill, nbclient, and as `text/plain` beside the other views.

No line is wider than asked for; widths are counted in columns of a terminal, so that tables of wide East Asian
characters align as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sage_nb.jobs.snapshot import ErrorView, JobSnapshot, OperatorView, OutputView, ResultView, ServiceView
from sage_nb.notebook import words

__all__ = ["render_error", "render_line", "render_result_text", "render_text"]

_ROWS, _LOG_LINES, _OUTPUT_LINES = 10, 10, 10
_CELL = 32
_GAP = 2
_SHORT_NAME = 12
_BARS = 20
_DEEPEST = 24
_DISPENSABLE = {
    **dict.fromkeys(("p50", "Late", "Instances", "p99", "Blocked", "Waiting", "Busy"), 26),
    **dict.fromkeys(("Kind", "Errors", "Rate", "Out", "In"), 16),
}
"""Columns in the order in which they are left out, and how much room for names is worth it."""


def render_text(snapshot: JobSnapshot, width: int = 80, *, at: float | None = None) -> str:
    """The job as text, in lines of at most `width` columns (40 at least). Of one that goes on, `at` (seconds since the
    epoch) says when it was so."""
    width = max(width, 40)
    sections = [
        list(_header(snapshot, width, at)),
        list(_operators(snapshot, width)),
        list(_services(snapshot.services, width)),
        *(list(_result(result, width)) for result in snapshot.results),
        *(list(_result(words.dead_letters(letters), width)) for letters in snapshot.dead_letters),
        list(_error(snapshot.error, width)) if snapshot.error else [],
        list(_output(snapshot.output, width)) if snapshot.output else [],
        list(_logs(snapshot, width)),
        [line for note in snapshot.notes for line in _wrapped(f"! {words.plain(note)}", width, 2)],
    ]
    return "\n\n".join("\n".join(line.rstrip() for line in lines) for lines in sections if lines)


def render_line(snapshot: JobSnapshot, width: int = 80) -> str:
    """The job in one line of at most `width` columns: state, name, how far it is."""
    percent = words.percent(snapshot.fraction) if snapshot.fraction is not None and _is_live(snapshot) else ""
    left = words.ends_in(snapshot.eta) if snapshot.eta is not None and snapshot.status == "running" else ""
    elapsed, _, speed, _, attempt = words.facts(snapshot)
    items = words.named_count(snapshot.items, "item")
    state = f"{words.MARKS.get(snapshot.status, '○')} {words.state_word(snapshot.status)}"
    name = words.fit(words.plain(snapshot.name), 24)
    for parts in ([percent, items, speed, elapsed, left], [percent, items, elapsed, left], [percent, elapsed]):
        line = "  ".join(part for part in (state, name, attempt, *parts) if part)
        if words.cell_width(line) <= width:
            break
    return words.fit(line, width)


def render_error(error: ErrorView, width: int = 80) -> str:
    """Why a job failed, as `render_text` says it."""
    return "\n".join(line.rstrip() for line in _error(error, max(width, 40)))


def render_result_text(result: ResultView, width: int = 80) -> str:
    """One result, as `render_text` says it."""
    return "\n".join(line.rstrip() for line in _result(result, max(width, 40)))


def _is_live(snapshot: JobSnapshot) -> bool:
    return words.is_active(snapshot.status)


def _pad(text: str, width: int, *, right: bool = False) -> str:
    """`text` cut or filled to exactly `width` columns."""
    text = words.fit(text, width)
    space = " " * (width - words.cell_width(text))
    return space + text if right else text + space


def _wrapped(text: str, width: int, indent: int = 0) -> Iterator[str]:
    """`text` in lines of at most `width` columns, broken at spaces where there are any; later lines are indented."""
    prefix = ""
    while words.cell_width(prefix + text) > width:
        end = len(words.fit(text, width - len(prefix) + 1)) - 1
        space = text.rfind(" ", 1, end + 1)
        end = space if space > end // 2 else end
        yield prefix + text[:end]
        text, prefix = text[end:].lstrip(" "), " " * indent
    yield prefix + text


def _header(snapshot: JobSnapshot, width: int, at: float | None) -> Iterator[str]:
    state = f"{words.MARKS.get(snapshot.status, '○')} {words.state_word(snapshot.status, snapshot.reason)}"
    uuid = words.plain(snapshot.uuid[:8])
    room = width - words.cell_width(state) - words.cell_width(uuid) - 2 * _GAP
    server = words.plain(words.at(snapshot))
    beside = room - words.cell_width(server) - _GAP
    if server and beside >= _SHORT_NAME:
        yield "  ".join([state, words.fit(words.plain(snapshot.name), beside), server, uuid])
    else:
        yield "  ".join([state, words.fit(words.plain(snapshot.name), room), uuid])
        yield from _wrapped(f"  {server}", width, 2) if server else ()
    facts = " · ".join(words.plain(fact) for fact in words.facts(snapshot) if fact)
    bars = words.bars(snapshot.rates, _BARS)
    beside = bool(bars) and words.cell_width(facts) + len(bars) + 2 * _GAP <= width
    yield from _wrapped(f"  {facts}  {bars}" if beside else f"  {facts}", width, 2)
    if not _is_live(snapshot):
        return
    if snapshot.fraction is not None:
        done = round(24 * min(max(snapshot.fraction, 0.0), 1.0))
        left = words.ends_in(snapshot.eta) if snapshot.eta is not None and snapshot.status == "running" else ""
        said = " · ".join(part for part in (words.percent(snapshot.fraction), left) if part)
        yield words.fit(f"  {'━' * done}{'╌' * (24 - done)} {said}", width)
    if snapshot.waiting_for:
        yield from _wrapped(f"  Waiting for {words.plain(snapshot.waiting_for)}", width, 2)
    if at is not None:
        yield f"  {words.as_of(at)}"


def _table(columns: Sequence[str], right: Sequence[bool], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """An aligned table; columns that do not fit are left out, and it says how many."""
    natural = [max(1, *map(words.cell_width, column)) for column in zip(columns, *rows, strict=False)]
    shown, sizes, room = 0, [], width
    for i in range(len(columns)):
        size = min(natural[i], _CELL)
        if size + _GAP * (i > 0) > room:
            break
        room -= size + _GAP * (i > 0)
        sizes.append(size)
        shown += 1

    for i, size in enumerate(sizes):
        sizes[i] += min(natural[i] - size, room)
        room -= sizes[i] - size

    def line(cells: Sequence[str]) -> str:
        return "  ".join(_pad(cell, size, right=r) for cell, size, r in zip(cells, sizes, right, strict=False))

    yield line(columns)
    yield "  ".join("─" * size for size in sizes)
    yield from map(line, rows)
    if shown < len(columns):
        yield f"… and {words.named_count(len(columns) - shown, 'more column')}"


def _operators(snapshot: JobSnapshot, width: int) -> Iterator[str]:
    if not snapshot.operators:
        return
    tree = list(_tree(snapshot.operators))
    names = max(words.cell_width("operator"), *(words.cell_width(label) for label, _ in tree))
    known = {column.head: column for column in words.columns(snapshot.operators)}
    for head in ("Operator", "Declared in"):
        known.pop(head, None)
    active = _is_live(snapshot)
    heads = {head: "mean rate" if head == "Rate" and not active else head.lower() for head in known}
    sizes = {head: max(len(heads[head]), *map(len, known[head].cells)) for head in known}
    left_out = list(_too_much(sizes, names, width))
    shown = [head for head in known if head not in left_out]
    first = min(names, width - sum(sizes[head] + _GAP for head in shown))

    def line(label: str, cells: Iterable[str]) -> str:
        padded = (_pad(cell, sizes[head], right=known[head].numeric) for head, cell in zip(shown, cells, strict=True))
        return "  ".join([_pad(label, first), *padded])

    place = {op.id: n for n, op in enumerate(snapshot.operators)}
    yield line("operator", (heads[head] for head in shown))
    yield "  ".join("─" * size for size in (first, *(sizes[head] for head in shown)))
    yield from (line(label, (known[head].cells[place[op.id]] for head in shown)) for label, op in tree)
    if left_out:
        hidden = ", ".join(heads[head] for head in known if head in left_out)
        yield from _wrapped(f"… and {words.named_count(len(left_out), 'more column')}: {hidden}", width, 2)


def _too_much(sizes: Mapping[str, int], names: int, width: int) -> Iterator[str]:
    """The columns to leave out until the names have room, which matter most."""
    room = width - sum(size + _GAP for size in sizes.values())
    for head, enough in _DISPENSABLE.items():
        if head in sizes and room < min(names, enough):
            room += sizes[head] + _GAP
            yield head


def _tree(operators: Sequence[OperatorView]) -> Iterator[tuple[str, OperatorView]]:
    """Every operator once, below the first of those it reads from; further ones are named beside it."""
    by_id = {op.id: op for op in operators}
    parent = {op.id: next((up for up in op.upstream if up in by_id and up != op.id), None) for op in operators}
    below: dict[int | None, list[OperatorView]] = {}
    for op in operators:
        below.setdefault(parent[op.id], []).append(op)
    seen: set[int] = set()
    # What a feedback edge alone leads to hangs below no root, so every operator is a root where nothing came before it.
    roots = [*below.get(None, []), *operators]
    stack = [(op, "", "") for op in reversed(roots)]
    while stack:
        op, lead, branch = stack.pop()
        if op.id in seen:
            continue
        seen.add(op.id)
        others = [words.plain(by_id[up].name) for up in op.upstream if up in by_id and up != parent[op.id]]
        yield lead + branch + words.plain(op.name) + (f" (also from {', '.join(others)})" if others else ""), op
        inner = lead if len(lead) >= _DEEPEST else lead + {"": "", "├ ": "│ ", "└ ": "  "}[branch]
        children = below.get(op.id, [])
        ends = ["├ "] * (len(children) - 1) + ["└ "]
        stack += [(child, inner, end) for child, end in reversed(list(zip(children, ends, strict=False)))]


def _services(services: Iterable[ServiceView], width: int) -> Iterator[str]:
    for service in services:
        calls = words.named_count(service.calls, "call") if service.calls else None
        note = words.plain(service.note) if service.note else None
        said = " · ".join(part for part in (service.state, calls, note) if part)
        yield from _wrapped(f"service {words.plain(service.name)}: {said}", width, 2)


def _result(result: ResultView, width: int) -> Iterator[str]:
    rows = [[words.plain(cell) for cell in row] for row in result.rows[-_ROWS:]]
    said = words.extent(result, len(rows))
    yield words.fit(f"{words.fit(words.plain(result.name), max(width - len(said) - _GAP, 8))}: {said}", width)
    if rows and not words.is_only_picture(result):
        yield from _table([words.plain(column) for column in result.columns], result.numeric, rows, width)


def _error(error: ErrorView, width: int) -> Iterator[str]:
    cause = f"{error.type}: {error.message}" if error.message else error.type
    first, *more = words.plain(cause, lines=True).split("\n")
    yield from _wrapped(f"✗ {first}", width, 2)
    for line in more:
        yield from _wrapped(f"  {line.expandtabs(4)}", width, 2)
    place = [f"in {error.operator}" if error.operator else None, error.where]
    if any(place):
        yield from _wrapped("  " + words.plain(" · ".join(part for part in place if part)), width, 2)
    if error.item:
        yield from _wrapped(f"  item {words.plain(error.item)}", width, 4)
    digits = len(str(max((line.number for line in error.code), default=0)))
    for code in error.code:
        text = words.plain(code.text, lines=True).replace("\n", " ").expandtabs(4)
        yield words.fit(f"  {'❱' if code.marked else ' '} {code.number:>{digits}}  {text}", width)
    if error.traceback and not error.code:
        for line in words.plain(error.traceback, lines=True).rstrip().split("\n"):
            yield from _wrapped(f"  {line.expandtabs(4)}", width, 4)


def _output(output: OutputView, width: int) -> Iterator[str]:
    lines = output.lines[-_OUTPUT_LINES:]
    yield from _wrapped(f"output: {words.showing(output.total, len(lines), 'line')}", width, 2)
    yield from (words.fit(words.plain(line), width) for line in lines)


def _logs(snapshot: JobSnapshot, width: int) -> Iterator[str]:
    if not snapshot.log_total:
        return
    logs = snapshot.logs[-_LOG_LINES:]
    yield f"log: {words.showing(snapshot.log_total, len(logs), 'line')}"
    for log in logs:
        level = "" if log.level == "INFO" else f"{log.level} "
        yield words.fit(f"{words.clock(log.time)}  {level}{words.plain(log.source)}: {words.plain(log.text)}", width)
