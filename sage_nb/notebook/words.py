"""How numbers, durations and states are said, and how wide text is drawn.

`static/jobview.js` says the same things by the same rules; `tests/browser/test_jobview.py` holds the two together.
Rounding is therefore done on integers: the two languages round halves differently when they format a fraction.
"""

from __future__ import annotations

import math
import time
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from sage_nb.engine.dispatcher import ENDED
from sage_nb.engine.stages import SINKS
from sage_nb.jobs.plain import plain
from sage_nb.jobs.snapshot import DeadLetterView, JobSnapshot, OperatorView, ResultView

__all__ = [
    "MARKS",
    "Column",
    "at",
    "bars",
    "blocks",
    "cell_width",
    "clock",
    "columns",
    "count",
    "dead_letters",
    "duration",
    "ends_in",
    "extent",
    "facts",
    "fit",
    "flow",
    "in_and_out",
    "instances",
    "is_active",
    "is_only_picture",
    "kind",
    "named_count",
    "percent",
    "plain",
    "rate",
    "short_time",
    "shortened",
    "showing",
    "state_word",
    "trend",
]

MARKS = {
    "created": "○",
    "queued": "○",
    "starting": "◌",
    "running": "►",
    "paused": "‖",
    "stopping": "◌",
    "restarting": "◌",
    "completed": "✓",
    "failed": "✗",
    "stopped": "■",
}
"""The mark of every state; none of them is drawn as an emoji anywhere."""

_WORDS = {"created": "Not started"}
_BACKENDS = {"threads": "", "processes": "in processes", "ray": "on Ray"}


def state_word(status: str, reason: str | None = None) -> str:
    """What a state is called, and why it came about where nobody asked for it."""
    word = _WORDS.get(status, status[:1].upper() + status[1:])
    return f"{word}: {reason}" if reason else word


def is_active(status: str) -> bool:
    """Whether a job in this state can still change."""
    return status not in ENDED


def at(snapshot: JobSnapshot) -> str:
    """Which server runs it: `on 127.0.0.1:19001`; nothing where the kernel does."""
    return f"on {snapshot.server}" if snapshot.server else ""


def count(n: int) -> str:
    """`1234567` as `1,234,567`."""
    return f"{n:,}"


def named_count(n: int, noun: str) -> str:
    """`1 item`, `2,000 items`."""
    return f"{count(n)} {noun}" if n == 1 else f"{count(n)} {noun}s"


def showing(total: int, shown: int, noun: str) -> str:
    """`3 items`, or `1,234 items, showing the last 20`."""
    said = named_count(total, noun)
    return said if shown >= total else f"{said}, showing the last {count(shown)}"


def shortened(n: float) -> str:
    """A number in two or three figures: `8.4`, `812`, `8.1 k`, `80 k`, `1.2 M`."""
    for unit in ("", " k", " M", " G"):
        if n < 9.95:
            tenths = math.floor(n * 10 + 0.5)
            return f"{tenths // 10}.{tenths % 10}{unit}" if tenths % 10 else f"{tenths // 10}{unit}"
        if n < 999.5:
            return f"{math.floor(n + 0.5)}{unit}"
        n /= 1000
    return f"{math.floor(n + 0.5):,} T"


def rate(per_second: float) -> str:
    """Items per second: `0/s`, `2.5/s`, `812/s`, `80 k/s`."""
    return "< 0.1/s" if 0 < per_second < 0.05 else f"{shortened(per_second)}/s"


def percent(fraction: float) -> str:
    """`0.625` as `62 %`; it says `100 %` only when nothing is left."""
    return f"{math.floor(min(max(fraction, 0.0), 1.0) * 100)} %"


def duration(seconds: float) -> str:
    """A length of time: `20 ms`, `3.2 s`, `42 s`, `1 min 04 s`, `2 h 05 min`, `3 d 04 h`."""
    if seconds < 0.0995:
        ms = math.floor(max(seconds, 0.0) * 1000 + 0.5)
        return f"{ms} ms" if ms else "0 s"
    if seconds < 9.95:
        tenths = math.floor(seconds * 10 + 0.5)
        return f"{tenths // 10}.{tenths % 10} s"
    whole = math.floor(seconds)
    if whole < 60:
        return f"{max(whole, 10)} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def short_time(seconds: float) -> str:
    """What one item takes: `820 ns`, `35 µs`, `1.2 ms`, `2.4 s`."""
    n = max(seconds, 0.0) * 1e9
    for unit in ("ns", "µs", "ms"):
        if n < 9.95:
            tenths = math.floor(n * 10 + 0.5)
            return f"{tenths // 10}.{tenths % 10} {unit}" if tenths % 10 else f"{tenths // 10} {unit}"
        if n < 999.5:
            return f"{math.floor(n + 0.5)} {unit}"
        n /= 1000
    return duration(max(seconds, 1.0))


def ends_in(eta: float) -> str:
    """How long the rest will take: `about 40 s left`."""
    whole = math.ceil(eta)
    if whole < 1:
        return "almost done"
    return f"about {whole} s left" if whole < 60 else f"about {duration(whole)} left"


def clock(epoch: float) -> str:
    """The local time of day of a log line."""
    return time.strftime("%H:%M:%S", time.localtime(epoch))


def as_of(epoch: float) -> str:
    """When a job that goes on was as it is shown."""
    return f"As of {clock(epoch)}"


def flow(op: OperatorView) -> str:
    """An operator's counter: one number, or `in → out` where they differ, shortened when they are long."""
    if op.kind == "source":
        return count(op.items_out)
    if op.kind in SINKS or op.items_in == op.items_out:
        return count(op.items_in)
    say = shortened if max(op.items_in, op.items_out) >= 1_000_000 else count
    return f"{say(op.items_in)} → {say(op.items_out)}"


def in_and_out(op: OperatorView) -> tuple[str, str]:
    """An operator's two counters; a dash where there is nothing to count."""
    got = "–" if op.kind == "source" else count(op.items_in)
    return got, "–" if op.kind in SINKS else count(op.items_out)


def kind(op: OperatorView) -> str:
    """What an operator's kind is called."""
    return op.kind.replace("_", " ")


def instances(op: OperatorView) -> str:
    """How often it runs at the same time, and where: `4`, `4 in processes`, `4 actors`; nothing for one thread."""
    if op.executor == "process":
        return "in a process" if op.parallelism == 1 else f"{count(op.parallelism)} in processes"
    if op.executor == "actor":
        return "an actor" if op.parallelism == 1 else f"{count(op.parallelism)} actors"
    return count(op.parallelism) if op.parallelism > 1 else ""


def blocks(op: OperatorView) -> bool:
    """Whether it waits for the next operators so much that a person should see it."""
    return op.blocked is not None and op.blocked >= 0.1


class Column(NamedTuple):
    """One column of the table of operators."""

    head: str
    numeric: bool
    cells: list[str]


_ALWAYS = ("Operator", "Kind", "In", "Out", "Rate")
_COLUMNS: tuple[tuple[str, bool, Callable[[OperatorView], str]], ...] = (
    ("Operator", False, lambda op: op.name),
    ("Kind", False, kind),
    ("In", True, lambda op: in_and_out(op)[0]),
    ("Out", True, lambda op: in_and_out(op)[1]),
    ("Rate", True, lambda op: rate(op.rate)),
    ("Busy", True, lambda op: "" if op.busy is None else percent(op.busy)),
    ("Waiting", True, lambda op: count(op.queued) if op.queued else ""),
    ("Blocked", True, lambda op: percent(op.blocked) if op.blocked is not None and op.blocked >= 0.01 else ""),
    ("p50", True, lambda op: "" if op.p50 is None else short_time(op.p50)),
    ("p99", True, lambda op: "" if op.p99 is None else short_time(op.p99)),
    ("Errors", True, lambda op: count(op.errors) if op.errors else ""),
    ("Late", True, lambda op: count(op.late) if op.late else ""),
    ("Instances", False, instances),
    ("Declared in", False, lambda op: op.where or ""),
)


def columns(operators: Sequence[OperatorView]) -> list[Column]:
    """What is said of each operator, column by column; a column with nothing to say of any is left out."""
    said = [Column(head, numeric, [say(op) for op in operators]) for head, numeric, say in _COLUMNS]
    return [column for column in said if column.head in _ALWAYS or any(column.cells)]


def dead_letters(letters: DeadLetterView) -> ResultView:
    """Dead letters in the form of a result, which is how they are drawn."""
    return ResultView(
        name=f"Dead letters of {letters.operator}",
        kind="show",
        total=letters.total,
        columns=("item", "error"),
        types=("text", "text"),
        rows=letters.rows,
    )


def extent(result: ResultView, shown: int) -> str:
    """How much of a result is shown: `1,234 items, showing the last 20`, `1,234 items, keeping the last 50`, `3 items,
    the newest 9 rows × 2 columns`."""
    said = named_count(result.total, "item")
    newest = f"{said}, " if result.total == 1 else f"{said}, the newest "
    if result.picture is not None:
        return f"{newest}a picture"
    if result.shape is None and result.kept is not None:
        return f"{said}, keeping the last {count(result.kept)}" + (
            "" if shown >= result.kept else f", showing {count(shown)}"
        )
    if result.shape is None:
        return showing(result.total, shown, "item")
    rows, columns = result.shape
    return f"{newest}{named_count(rows, 'row')} × {named_count(columns, 'column')}"


def is_only_picture(result: ResultView) -> bool:
    """Whether a table beside the picture would say nothing more than that it is one."""
    return result.picture is not None and len(result.columns) < 2


def trend(snapshot: JobSnapshot) -> str:
    """What the curve of rates shows: `Rate over time: 12 k/s now, 20 k/s at most`."""
    when = "now" if is_active(snapshot.status) else "on average"
    return f"Rate over time: {rate(snapshot.rate)} {when}, {rate(max(snapshot.rates))} at most"


_BARS = "▁▂▃▄▅▆▇█"


def bars(rates: Sequence[float], width: int) -> str:
    """The curve of rates in at most `width` characters; nothing where two points are missing."""
    most = max(rates, default=0.0)
    if len(rates) < 2 or not most > 0:
        return ""
    edges = [n * len(rates) // min(width, len(rates)) for n in range(min(width, len(rates)) + 1)]
    means = [sum(rates[a:b]) / (b - a) for a, b in pairwise(edges)]
    return "".join(_BARS[math.floor(mean / most * (len(_BARS) - 1) + 0.5)] for mean in means)


def facts(snapshot: JobSnapshot) -> list[str]:
    """What is said of the whole job beside its state: elapsed time, items, rate, backend, attempt."""
    items = named_count(snapshot.items, "item")
    if snapshot.total is not None and snapshot.total != snapshot.items:
        items = f"{count(snapshot.items)} of {named_count(snapshot.total, 'item')}"
    speed = rate(snapshot.rate) if is_active(snapshot.status) else f"{rate(snapshot.rate)} on average"
    backend = _BACKENDS.get(snapshot.backend, snapshot.backend)
    attempt = f"attempt {count(snapshot.attempt)}" if snapshot.attempt > 1 else ""
    return [duration(snapshot.elapsed), items, speed if snapshot.items else "", backend, attempt]


_ENDS = {"completed": "completed in", "failed": "failed after", "stopped": "was stopped after"}


def told(snapshot: JobSnapshot) -> str:
    """A job in a line below its view: `job 'flights' completed in 2.1 s, 3 operators; its view is above`."""
    state = _ENDS.get(snapshot.status, f"is {snapshot.status}:")
    operators = named_count(len(snapshot.operators), "operator")
    return f"job {snapshot.name!r} {state} {duration(snapshot.elapsed)}, {operators}; its view is above"


def cell_width(text: str) -> int:
    """How many columns of a terminal `text` takes: wide East Asian characters take two, combining marks none."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def _char_width(ch: str) -> int:
    if unicodedata.combining(ch) or unicodedata.category(ch) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(ch) in "WF" else 1


def fit(text: str, width: int) -> str:
    """`text`, cut with an ellipsis where it takes more than `width` columns."""
    if cell_width(text) <= width:
        return text
    kept, left = [], width - 1
    for ch in text:
        left -= _char_width(ch)
        if left < 0:
            break
        kept.append(ch)
    return "".join(kept).rstrip() + "…" if width > 0 else ""
