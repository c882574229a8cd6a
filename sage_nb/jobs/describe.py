"""From a running dispatcher to a `JobSnapshot`."""

from __future__ import annotations

import threading
import time
from collections import deque

from sage_nb.engine.dispatcher import ENDED, Dispatcher
from sage_nb.engine.failure import Failure, describe_site, safe_str, safe_text
from sage_nb.engine.loops import Counts
from sage_nb.engine.results import Result
from sage_nb.engine.rows import table_of
from sage_nb.jobs.snapshot import (
    CodeLine,
    ErrorView,
    JobSnapshot,
    LogView,
    OperatorView,
    Progress,
    ResultView,
    ServiceView,
)
from sage_nb.pipeline.graph import Operator

__all__ = ["Describer"]

_WINDOW = 2.0
_SPACING = 0.2
_RESULT_ROWS = 10
_LOG_LINES = 100
_ENOUGH_LOOKS = 10


class Describer:
    """Describes one job. Keeps the counters of the last two seconds, for the rates."""

    def __init__(self, uuid: str, name: str, dispatcher: Dispatcher) -> None:
        self._uuid = uuid
        self._name = name
        self._job = dispatcher
        self._places = _places(dispatcher.operators)
        self._samples: deque[tuple[float, dict[int, Counts]]] = deque()
        self._lock = threading.Lock()
        self._tables: dict[str, tuple[int, ResultView]] = {}

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
        lines = list(job.log.lines.copy())[-_LOG_LINES:]
        return JobSnapshot(
            uuid=self._uuid,
            name=safe_text(self._name, 200),
            status=job.status,  # type: ignore[arg-type]
            started=job.started,
            elapsed=elapsed,
            items=items,
            rate=sum(op.rate for op in sources),
            total=total,
            fraction=fraction,
            eta=self._eta(fraction, elapsed),
            waiting_for=job.waiting_for(),
            operators=operators,
            services=self._services(),
            results=tuple(self._result(result, counts) for result in job.results.values()),
            logs=tuple(LogView(time=e.time, level=e.level, source=e.source, text=safe_text(e.text)) for e in lines),
            log_total=job.log.total,
            error=self._error(),
            notes=tuple(safe_text(note) for note in job.notes),
        )

    # Counters

    def _sample(self) -> dict[int, Counts]:
        counts: dict[int, Counts] = {}
        for task in self._job.all_tasks:
            counts.update(zip((op.id for op in task.stage.operators), task.counts(), strict=True))
        now = time.monotonic()
        samples = self._samples
        with self._lock:  # a view, the user and the job's end may look at once
            if not samples or now - samples[-1][0] >= _SPACING:
                samples.append((now, counts))
                while len(samples) > 2 and now - samples[0][0] > _WINDOW:
                    samples.popleft()
        return counts

    def _rate(self, op: Operator, counts: Counts) -> float:
        job = self._job
        moved = _moved(op, counts)
        if job.status in ENDED or len(self._samples) < 2:
            began, ended = job.started, job.ended or time.time()
            return moved / max(ended - began, 1e-6) if began is not None and moved else 0.0
        then, before = self._samples[0]
        span = time.monotonic() - then
        return max(0.0, (moved - _moved(op, before[op.id])) / span) if span > 0 else 0.0

    def _operators(self, counts: dict[int, Counts]) -> tuple[OperatorView, ...]:
        failed = self._job.failure.operator if self._job.failure else None
        busy = self._busy()
        return tuple(
            OperatorView(
                id=op.id,
                name=safe_text(op.name, 200),
                kind=op.kind,
                col=self._places[op.id][0],
                row=self._places[op.id][1],
                upstream=() if op.upstream is None else (op.upstream,),
                items_in=counts[op.id].items_in,
                items_out=counts[op.id].items_out,
                rate=self._rate(op, counts[op.id]),
                busy=busy.get(op.id),
                errors=int(op.name == failed),
                where=describe_site(op.site) if op.site else None,
            )
            for op in self._job.operators
        )

    def _busy(self) -> dict[int, float]:
        found: dict[int, float] = {}
        for task in self._job.all_tasks:
            if task.looks >= _ENOUGH_LOOKS:
                found.update(
                    {op.id: seen / task.looks for op, seen in zip(task.stage.operators, task.seen, strict=True)}
                )
        return found

    def _services(self) -> tuple[ServiceView, ...]:
        return tuple(
            ServiceView(name=s.name, type=s.spec.type_name, state=s.state, calls=s.calls, note=s.note)
            for s in self._job.services_host
        )

    # The whole

    def _extent(self, items: int) -> tuple[int | None, float | None]:
        if any(op.kind == "take" for op in self._job.operators):  # how much of the source that needs, nobody knows
            return None, 1.0 if self._job.status == "completed" else None
        tasks = self._job.all_tasks
        totals = [task.total for task in tasks]
        if all(total is not None for total in totals):
            # A list may have grown since it was counted.
            total = sum(max(task.total or 0, task.counts()[0].items_out) for task in self._job.all_tasks)
            return total, (min(1.0, items / total) if total else 1.0)
        if self._job.status == "completed":
            return None, 1.0
        shares = [
            task.fraction() if task.total is None else task.counts()[0].items_out / max(task.total, 1) for task in tasks
        ]
        known = [share for share in shares if share is not None]
        return None, sum(known) / len(known) if len(known) == len(shares) else None

    def _eta(self, fraction: float | None, elapsed: float) -> float | None:
        if fraction is None or self._job.status != "running" or fraction < 0.01 or elapsed < 0.5:
            return None
        return elapsed * (1 - fraction) / fraction

    def _result(self, result: Result, counts: dict[int, Counts]) -> ResultView:
        op = next(op for op in self._job.operators if op.kind == result.kind and _result_name(op) == result.name)
        total = len(result) if result.kind == "collect" else max(counts[op.id].items_in, len(result))
        cached = self._tables.get(result.name)
        if cached is not None and cached[0] == total:
            return cached[1]
        columns, numeric, rows = table_of(result.tail(_RESULT_ROWS if result.kind == "collect" else len(result)))
        view = ResultView(name=result.name, kind=result.kind, total=total, columns=columns, numeric=numeric, rows=rows)
        self._tables[result.name] = (total, view)
        return view

    def _error(self) -> ErrorView | None:
        failure, error = self._job.failure, self._job.error
        if failure is not None:
            return _error_view(failure)
        return None if error is None else ErrorView(type=type(error).__name__, message=safe_text(safe_str(error)))


def _error_view(failure: Failure) -> ErrorView:
    return ErrorView(
        type=type(failure.exception).__name__,
        message=safe_text(safe_str(failure.exception)),
        operator=failure.operator,
        item=None if failure.item is None else safe_text(failure.item),
        where=failure.where,
        code=tuple(CodeLine(number=n, text=safe_text(text, 500), marked=marked) for n, text, marked in failure.code),
        traceback=safe_text(failure.text(), 20_000),
    )


def _result_name(op: Operator) -> str:
    name: str = op.spec if op.kind == "collect" else op.spec[0]
    return name


def _moved(op: Operator, counts: Counts) -> int:
    return counts.items_out if op.upstream is None else counts.items_in


def _places(operators: tuple[Operator, ...]) -> dict[int, tuple[int, int]]:
    """Column and row of each operator: depth from left to right, a row per leaf, a parent beside its first child."""
    children: dict[int | None, list[int]] = {}
    for op in operators:
        children.setdefault(op.upstream, []).append(op.id)
    places: dict[int, tuple[int, int]] = {}
    rows = 0
    pending = [(source, 0) for source in reversed(children.get(None, []))]
    while pending:
        at, col = pending.pop()
        places[at] = (col, rows)
        below = children.get(at, [])
        if not below:
            rows += 1
        pending.extend((child, col + 1) for child in reversed(below))
    return places
