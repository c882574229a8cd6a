"""The table of jobs that `%sage_jobs` shows."""

from __future__ import annotations

import html
import time
from typing import Any

from sage_nb.notebook.known import Found
from sage_nb.notebook.words import cell_width, duration, fit, plain

__all__ = ["jobs_bundle"]

_WIDTH = 80
_NAME, _SHORT_NAME, _ERROR = 24, 12, 68


def jobs_bundle(jobs: list[Found], limit: int, why_not: str | None = None, *, live: bool = False) -> dict[str, Any]:
    """Text and HTML of a table of the last `limit` of `jobs`, the last one first: id, name, state, when it began, how
    long it ran, its error; its number and where it runs, where there are servers' jobs. `why_not` says why such are
    missing; of a table that is `live`, it is said when its jobs were so."""
    more = f"{len(jobs) - limit:,} more before them: %sage_jobs -n {len(jobs)} lists all" if len(jobs) > limit else ""
    when = f"This is how the jobs were at {time.strftime('%H:%M:%S')}." if live else ""
    said = "\n".join(filter(None, [more, why_not, when]))
    jobs = jobs[-limit:]
    if not jobs:
        text = "\n".join(filter(None, ["no jobs yet: %%sage_submit starts one", said]))
        return {"text/plain": text, "text/html": f"<p>{html.escape(text)}</p>"}
    places = any(job.where for job in jobs)
    header = (
        "id",
        *(["no."] if places else []),
        "name",
        "state",
        *(["where"] if places else []),
        "began",
        "ran",
        "error",
    )
    rows = [_row(job, places=places) for job in reversed(jobs)]
    head = "".join(f'<th style="text-align:left">{html.escape(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead>{body}</table>"
    return {
        "text/plain": "\n".join([*_lines(header, rows), *([said] if said else [])]),
        "text/html": table + (f"<p>{html.escape(said)}</p>" if said else ""),
    }


def _lines(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """The table in 80 columns, where the names can be cut for that; an error has a line of its own."""
    name = header.index("name")
    sizes = [max(cell_width(row[n]) for row in [header, *rows]) for n in range(len(header) - 1)]
    sizes[name] = min(sizes[name], max(_SHORT_NAME, sizes[name] + _WIDTH - sum(sizes) - 2 * (len(sizes) - 1)))
    lines = []
    for row in [header, *rows]:
        cells = (fit(cell, size) for cell, size in zip(row, sizes, strict=False))
        lines.append("  ".join(cell + " " * (size - cell_width(cell)) for cell, size in zip(cells, sizes, strict=True)))
        if row[-1] and row is not header:
            lines.append(fit(f"{'':{sizes[0]}}  {row[-1]}", _WIDTH))
    return [line.rstrip() for line in lines]


def _row(job: Found, *, places: bool) -> tuple[str, ...]:
    info = job.info
    began = time.strftime("%H:%M:%S", time.localtime(info.start_time)) if info.start_time else ""
    ran = duration(info.runtime) if info.start_time else ""
    error = fit(plain((info.error or "").partition("\n")[0]), _ERROR)
    number = ["" if job.number is None else str(job.number)] if places else []
    where = [job.where or "the kernel"] if places else []
    return info.uuid[:8], *number, fit(plain(info.name), _NAME), info.status, *where, began, ran, error
