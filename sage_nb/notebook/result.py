"""A result as a cell shows it: the table that the job's own view ends with, and text of 80 columns."""

from __future__ import annotations

from typing import Any

from sage_nb.engine.results import Result
from sage_nb.engine.rows import picture_of
from sage_nb.jobs.describe import result_view
from sage_nb.jobs.snapshot import ResultView
from sage_nb.notebook.html import ROWS, render_result
from sage_nb.notebook.text import render_result_text

__all__ = ["print_result", "result_html"]


def result_html(result: Result) -> str:
    """Its last rows as a table."""
    return render_result(_view(result))


def print_result(result: Result, printer: Any, cycle: bool) -> None:
    """The same as text; within a list or a dict, what `repr` says."""
    inside = len(printer.stack) > 1
    printer.text(repr(result) if inside or cycle else render_result_text(_view(result)))


def _view(result: Result) -> ResultView:
    items = result.tail(ROWS)
    return result_view(result, max(len(result), len(items)), items, picture_of(items[-1]) if items else None)
