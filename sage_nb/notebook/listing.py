"""The table of jobs that `%sage_jobs` shows."""

from __future__ import annotations

import html
import time
from typing import Any

from sage_nb.jobs.info import JobInfo
from sage_nb.notebook.words import duration, fit

__all__ = ["jobs_bundle"]


def jobs_bundle(infos: list[JobInfo]) -> dict[str, Any]:
    """Text and HTML of a table: id, name, state, when it began, how long it ran; the newest first."""
    if not infos:
        text = "no jobs yet: %%sage_submit starts one"
        return {"text/plain": text, "text/html": f"<p>{html.escape(text)}</p>"}
    header = ("id", "name", "state", "began", "ran", "error")
    rows = [_row(info) for info in reversed(infos)]
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    head = "".join(f'<th style="text-align:left">{html.escape(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) + "</tr>"
        for row in rows
    )
    return {"text/plain": "\n".join(lines), "text/html": f"<table><thead><tr>{head}</tr></thead>{body}</table>"}


def _row(info: JobInfo) -> tuple[str, ...]:
    began = time.strftime("%H:%M:%S", time.localtime(info.start_time)) if info.start_time else ""
    error = fit((info.error or "").partition("\n")[0], 60)
    return info.uuid[:8], info.name, info.status, began, duration(info.runtime), error
