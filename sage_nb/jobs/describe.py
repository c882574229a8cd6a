"""From a running dispatcher to a `JobSnapshot`."""

from __future__ import annotations

import threading
import time
from collections import deque
from itertools import chain
from operator import is_
from typing import Any

from sage_nb.engine.dispatcher import ENDED, Dispatcher
from sage_nb.engine.failure import Failure, describe_site, headline, safe_repr, safe_str, safe_text
from sage_nb.engine.loops import Counts
from sage_nb.engine.results import Latest, Result
from sage_nb.engine.rows import frame_shape, picture_of, table_of
from sage_nb.engine.task import Task
from sage_nb.jobs.drawing import drawing_of
from sage_nb.jobs.layout import places
from sage_nb.jobs.rates import RateHistory
from sage_nb.jobs.snapshot import (
    CodeLine,
    DeadLetterView,
    ErrorView,
    JobSnapshot,
    LogView,
    OperatorView,
    OutputView,
    Progress,
    ResultView,
    ServiceView,
)
from sage_nb.pipeline.graph import Operator

__all__ = ["Describer", "error_view", "result_view"]

_WINDOW = 2.0
_SPACING = 0.2
_RESULT_ROWS, _FAST_ROWS = 200, 10
_FAST = 20
"""Items more than at the last look, from which on nobody reads the rows: fewer are shown then, which costs less."""
_RESULT_SIZE = 1 << 15
"""Characters that the rows of all results may have together; the newest ten of each are always there."""
_PICTURE_SHARE = 10
"""A picture is made anew only after ten times as long as the last one took to make."""
_LOG_LINES = 100
_OUTPUT_LINES, _LIVE_OUTPUT_LINES = 500, 20
_ENOUGH_LOOKS = 10
_TIMED = frozenset({"window", "interval_join"})


class Describer:
    """Describes one job. Keeps the counters of the last two seconds, for the rates."""

    def __init__(self, uuid: str, name: str, dispatcher: Dispatcher) -> None:
        self._uuid = uuid
        self._name = name
        self._job = dispatcher
        self._places = _places(dispatcher.operators)
        self._samples: deque[tuple[float, dict[int, Counts], dict[int, float]]] = deque()
        self._attempt = 1
        self._lock = threading.Lock()
        self._tables: dict[str, tuple[int, int, ResultView]] = {}
        """By the name of a result: its total and its number of rows when it was described, and its description."""
        self._newest: dict[str, tuple[int, list[Any], ResultView]] = {}
        """By the name of a result with `latest=True`: how many items had come when it was described, those it had, and
        its description."""
        self._pictures: dict[str, tuple[int, str | None, float]] = {}
        """By the name of a result: its total when its picture was made, the picture, and when it may be made anew."""
        self._history = RateHistory()

    def progress(self) -> Progress:
        """Counters of operators and states of services, as they are now."""
        return Progress(operators=self._operators(self._sample()), services=self._services())

    def snapshot(self) -> JobSnapshot:
        """Everything that a view draws, as it is now."""
        job = self._job
        counts = self._sample()
        operators = self._operators(counts)
        sources = [op for op in operators if op.kind == "source"]
        items = sum(op.items_out for op in sources)
        total, fraction = self._extent(items)
        elapsed = 0.0 if job.started is None else (job.ended or time.time()) - job.started
        with self._lock:
            self._history.add(elapsed, items)
            rates = self._history.rates()
        lines = list(job.log.lines.copy())[-_LOG_LINES:]
        return JobSnapshot(
            uuid=self._uuid,
            name=safe_text(self._name, 200),
            status=job.status,  # type: ignore[arg-type]
            backend=job.plan.backend,
            started=job.started,
            elapsed=elapsed,
            items=items,
            rate=sum(op.rate for op in sources),
            total=total,
            fraction=fraction,
            eta=self._eta(fraction, elapsed),
            rates=tuple(float(f"{rate:.4g}") for rate in rates),
            waiting_for=job.waiting_for(),
            operators=operators,
            drawing=drawing_of(operators),
            services=self._services(),
            results=tuple(self._result(result, counts) for result in job.results.values()),
            logs=tuple(LogView(time=e.time, level=e.level, source=e.source, text=safe_text(e.text)) for e in lines),
            log_total=job.log.total,
            output=self._output(),
            error=self._error(),
            attempt=job.attempt,
            dead_letters=self._dead_letters(),
            reason=job.reason if job.status == "stopped" else None,
            notes=tuple(safe_text(note) for note in job.notes),
        )

    def _output(self) -> OutputView | None:
        printed = self._job.printed
        if not printed.held_size:
            return None
        lines = printed.last(_OUTPUT_LINES if self._job.status in ENDED else _LIVE_OUTPUT_LINES)  # counts those as well
        wide = 1000 if self._job.status in ENDED else 200
        return OutputView(total=printed.lines, held=printed.held, lines=tuple(safe_text(line, wide) for line in lines))

    # Counters

    def _sample(self) -> dict[int, Counts]:
        counts: dict[int, Counts] = {}
        blocked: dict[int, float] = {}
        for task in self._job.all_tasks:
            for id, one in task.counts().items():
                known = counts.get(id)
                counts[id] = (
                    one if known is None else Counts(known.items_in + one.items_in, known.items_out + one.items_out)
                )
            held = task.blocked() / task.stage.parallelism
            for member in task.stage.members:
                last = task.stage.members[member.upstream].op if member.edge is not None else None
                if last is not None:
                    blocked[last.id] = blocked.get(last.id, 0.0) + held
            task.sample()
        for op in self._job.operators:
            counts.setdefault(op.id, Counts(0, 0))
        now = time.monotonic()
        samples = self._samples
        with self._lock:  # a view, the user and the job's end may look at once
            if samples and self._attempt != self._job.attempt:
                samples.clear()
            self._attempt = self._job.attempt
            if not samples or now - samples[-1][0] >= _SPACING:
                samples.append((now, counts, blocked))
                while len(samples) > 2 and now - samples[0][0] > _WINDOW:
                    samples.popleft()
        return counts

    def _rate(self, op: Operator, counts: Counts) -> float:
        job = self._job
        moved = _moved(op, counts)
        if job.status in ENDED or len(self._samples) < 2:
            began, ended = job.started, job.ended or time.time()
            return moved / max(ended - began, 1e-6) if began is not None and moved else 0.0
        then, before, _ = self._samples[0]
        span = time.monotonic() - then
        return max(0.0, (moved - _moved(op, before[op.id])) / span) if span > 0 else 0.0

    def _blocked(self) -> dict[int, float]:
        """Share of the last seconds for which an operator waited for room."""
        if len(self._samples) < 2 or self._job.status in ENDED:
            return {}
        (then, _, before), (now, _, after) = self._samples[0], self._samples[-1]
        span = now - then
        return {id: min(1.0, (held - before.get(id, 0.0)) / span) for id, held in after.items()} if span > 0 else {}

    def _operators(self, counts: dict[int, Counts]) -> tuple[OperatorView, ...]:
        failed = self._job.failure.operator if self._job.failure else None
        blocked = self._blocked()
        by_op = self._by_operator()
        found: list[OperatorView] = []
        for op in self._job.operators:
            at = by_op.get(op.id, [])
            times = sorted(chain.from_iterable(task.times[i].copy() for task, i in at if task.times[i]))
            rate = self._rate(op, counts[op.id])
            found.append(
                OperatorView(
                    id=op.id,
                    name=safe_text(op.name, 200),
                    kind=op.kind,
                    col=self._places[op.id][0],
                    row=self._places[op.id][1],
                    upstream=op.inputs,
                    stage=at[0][0].stage.number + 1 if at else 0,
                    parallelism=at[0][0].stage.parallelism if at else 1,
                    executor=at[0][0].stage.place if at else "thread",  # type: ignore[arg-type]
                    items_in=counts[op.id].items_in,
                    items_out=counts[op.id].items_out,
                    rate=rate,
                    busy=_busy(at),
                    queued=sum(task.queued() for task, i in at if _is_first(task, i)),
                    blocked=blocked.get(op.id),
                    p50=times[len(times) // 2] if times else None,
                    p99=times[min(len(times) - 1, int(len(times) * 0.99))] if times else None,
                    errors=sum(task.errors[i] for task, i in at) + int(op.name == failed),
                    late=sum(task.late().get(op.id, 0) for task, _ in at) if op.kind in _TIMED else 0,
                    where=describe_site(op.site) if op.site else None,
                )
            )
        return tuple(found)

    def _by_operator(self) -> dict[int, list[tuple[Task, int]]]:
        """Where each operator runs: the tasks, and its place in them."""
        found: dict[int, list[tuple[Task, int]]] = {}
        for task in self._job.all_tasks:
            for i, member in enumerate(task.stage.members):
                if member.op is not None:
                    found.setdefault(member.op.id, []).append((task, i))
        return found

    def _dead_letters(self) -> tuple[DeadLetterView, ...]:
        return tuple(
            DeadLetterView(
                operator=safe_text(name, 200),
                total=letters.total,
                rows=tuple(
                    (safe_text(safe_repr(x.item), 100), safe_text(headline(x.error), 300)) for x in letters[-5:]
                ),
            )
            for name, letters in list(self._job.dead_letters.items())
            if letters.total
        )

    def _services(self) -> tuple[ServiceView, ...]:
        return tuple(
            ServiceView(name=s.name, type=s.spec.type_name, state=s.state, calls=s.calls, note=s.note)
            for s in self._job.services_host
        )

    # The whole

    def _extent(self, items: int) -> tuple[int | None, float | None]:
        if any(op.kind == "take" for op in self._job.operators):  # how much of the source that needs, nobody knows
            return None, 1.0 if self._job.status == "completed" else None
        tasks = [task for task in self._job.all_tasks if task.inbox is None]
        totals = [task.total for task in tasks]
        taken = [self._taken(task) for task in tasks]
        if all(total is not None for total in totals):
            # A list may have grown since it was counted.
            total = sum(max(task.total or 0, got) for task, got in zip(tasks, taken, strict=True))
            return total, (min(1.0, items / total) if total else 1.0)
        if self._job.status == "completed":
            return None, 1.0
        shares = [
            task.fraction() if task.total is None else got / max(task.total, 1)
            for task, got in zip(tasks, taken, strict=True)
        ]
        known = [share for share in shares if share is not None]
        return None, sum(known) / len(known) if len(known) == len(shares) else None

    @staticmethod
    def _taken(task: Task) -> int:
        return task.counts()[task.stage.operators[0].id].items_out

    def _eta(self, fraction: float | None, elapsed: float) -> float | None:
        if fraction is None or self._job.status != "running" or fraction < 0.01 or elapsed < 0.5:
            return None
        return elapsed * (1 - fraction) / fraction

    def _result(self, result: Result, counts: dict[int, Counts]) -> ResultView:
        op = next(op for op in self._job.operators if op.kind == result.kind and op.spec.name == result.name)
        if isinstance(result, Latest):
            return self._latest(result, counts[op.id].items_in)
        total = len(result) if result.kind == "collect" else max(counts[op.id].items_in, len(result))
        before, shown, cached = self._tables.get(result.name, (0, 0, None))
        wanted = len(result)
        if result.kind == "collect":
            fast = total - before > _FAST and self._job.status not in ENDED
            wanted = min(total, _FAST_ROWS if fast else _RESULT_ROWS)
        picture = self._picture(result, total)
        if cached is not None and (before, shown, cached.picture) == (total, wanted, picture):
            return cached
        view = result_view(result, total, result.tail(wanted), picture, self._room())
        self._tables[result.name] = (total, wanted, view)
        return view

    def _latest(self, result: Latest, came: int) -> ResultView:
        """Its total stays where a row changes. What tells is the number of items that came, as one of them may be an
        object that was changed, and whether they are the same: one that is just coming is not counted yet."""
        items = result.tail(result.rows or _RESULT_ROWS)
        total = max(len(result), len(items))
        before, shown, view = self._newest.get(result.name, (-1, [], None))
        same = before == came and len(items) == len(shown) and all(map(is_, items, shown))
        if view is None or view.total != total or not same:
            view = result_view(result, total, items, None, self._room())
            self._newest[result.name] = (came, items, view)
        return view

    def _room(self) -> int:
        """Characters that the rows of one result may have."""
        return _RESULT_SIZE // len(self._job.results)

    def _picture(self, result: Result, total: int) -> str | None:
        """The newest item as a picture. One that takes long to make is made less often, and again at the end."""
        made_of, picture, due = self._pictures.get(result.name, (0, None, 0.0))
        began = time.monotonic()
        if made_of == total or (began < due and self._job.status not in ENDED):
            return picture
        items: list[Any] = result.tail(1)
        picture = picture_of(items[0]) if items else None
        now = time.monotonic()
        self._pictures[result.name] = (total, picture, now + (now - began) * _PICTURE_SHARE)
        return picture

    def _error(self) -> ErrorView | None:
        failure, error = self._job.failure, self._job.error
        if failure is not None:
            return error_view(failure)
        return None if error is None else ErrorView(type=type(error).__name__, message=safe_text(safe_str(error)))


def result_view(
    result: Result, total: int, items: list[Any], picture: str | None = None, room: int = _RESULT_SIZE
) -> ResultView:
    """The last `items` of a result, as views show them: at most `room` characters of them, but ten rows at least."""
    columns, types, rows = table_of(items, room)
    forgets = result.kind == "show" and not isinstance(result, Latest)
    return ResultView(
        name=result.name,
        kind=result.kind,
        total=total,
        columns=columns,
        types=types,
        rows=rows,
        shape=frame_shape(items[-1]) if items else None,
        picture=picture,
        kept=len(items) if forgets and len(items) < total else None,
    )


def error_view(failure: Failure) -> ErrorView:
    """A failure as the views show it."""
    traceback = failure.text()
    return ErrorView(
        type=type(failure.exception).__name__,
        message=safe_text(safe_str(failure.exception)),
        operator=failure.operator,
        item=None if failure.item is None else safe_text(failure.item),
        where=failure.where,
        code=tuple(CodeLine(number=n, text=safe_text(text, 500), marked=marked) for n, text, marked in failure.code),
        traceback=safe_text(traceback, 20_000) if '  File "' in traceback else "",  # else it says all that again
    )


def _places(operators: tuple[Operator, ...]) -> dict[int, tuple[int, int]]:
    """Column and row of each operator in the picture. Of a chain, which most are, they need no working out."""
    if all(op.inputs == ((op.id - 1,) if op.id else ()) and op.kind != "future" for op in operators):
        return {op.id: (op.id, 0) for op in operators}
    return places([(op.id, op.inputs, op.kind) for op in operators])


def _busy(at: list[tuple[Task, int]]) -> float | None:
    """The share of looks at which the operator was at work, in any of its instances."""
    looks = sum(task.looks for task, _ in at)
    return sum(task.seen[i] for task, i in at) / looks if looks >= _ENOUGH_LOOKS else None


def _is_first(task: Task, i: int) -> bool:
    """Whether what waits before the task waits for this operator."""
    return task.inbox is not None and all(member.op is None for member in task.stage.members[:i])


def _moved(op: Operator, counts: Counts) -> int:
    return counts.items_out if op.kind == "source" else counts.items_in
