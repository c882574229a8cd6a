"""What the user is told of an exception in their code: operator, item, and the line.

The exception itself stays what it was. It gets notes, which every traceback shows, and its traceback loses the
engine's own frames.
"""

from __future__ import annotations

import linecache
import os
import reprlib
import site
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

from sage_nb.engine.loops import FILENAME, LoopEnded
from sage_nb.pipeline.graph import Site

__all__ = [
    "Failure",
    "add_note",
    "describe_site",
    "explain",
    "headline",
    "loop_frames",
    "safe_repr",
    "safe_str",
    "safe_text",
    "user_line",
]

_PACKAGE = str(Path(__file__).resolve().parent.parent) + os.sep
_REPR_LIMIT = 300


@dataclass(frozen=True, slots=True)
class Failure:
    """One exception of the user's code, and where it came from."""

    exception: BaseException
    traceback: TracebackType | None
    """The traceback without the engine's frames."""
    subject: str
    """What failed, as a person would say it: `operator 'parse' (map)`."""
    operator: str | None
    item: str | None
    where: str | None
    code: tuple[tuple[int, str, bool], ...]
    """Lines around the failing one: number, text, whether it is that one."""
    remote: str | None = None
    """The traceback as text, where it is of another process."""

    def text(self) -> str:
        """The traceback as text, bounded."""
        if self.remote is not None:
            return self.remote[-20_000:]
        lines = traceback.format_exception(type(self.exception), self.exception, self.traceback, limit=-30)
        return "".join(lines)[-20_000:]


def safe_repr(value: Any) -> str:
    """`repr(value)`, bounded, and never an exception."""
    try:
        shown = _SHORT.repr(value)
    except LoopEnded:
        raise
    except BaseException as exc:
        if isinstance(exc, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        shown = f"<{type(value).__name__}: its repr() raised {type(exc).__name__}>"
    return shown if len(shown) <= _REPR_LIMIT else shown[: _REPR_LIMIT - 1] + "…"


def safe_text(text: str, limit: int = 2000) -> str:
    """`text`, bounded, and without what cannot be sent: half of a surrogate pair."""
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def safe_str(exc: BaseException) -> str:
    """`str(exc)`, and never an exception."""
    try:
        return str(exc)
    except (Exception, SystemExit) as other:  # noqa: BLE001 - a user's __str__ may raise anything
        return f"<its str() raised {type(other).__name__}>"


def headline(exc: BaseException) -> str:
    """The exception's type and the first line of its text."""
    text = safe_str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {text[0][:300]}" if text else type(exc).__name__


class _InOrder(reprlib.Repr):
    """Like `reprlib.Repr`, which sorts a dict's keys, but with the keys in their own order."""

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0 and x:
            return "{...}"
        pairs = [f"{self.repr1(k, level - 1)}: {self.repr1(v, level - 1)}" for k, v in islice(x.items(), self.maxdict)]
        return "{" + ", ".join([*pairs, "..."] if len(x) > self.maxdict else pairs) + "}"


_SHORT = _InOrder()
_SHORT.maxdict = _SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = 30
_SHORT.maxstring = _SHORT.maxother = 120


@lru_cache(maxsize=1)
def _library_folders() -> tuple[str, ...]:
    paths = {sysconfig.get_path(key) for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    paths.update(site.getsitepackages() if hasattr(site, "getsitepackages") else ())
    return tuple(p.rstrip(os.sep) + os.sep for p in paths if p)


def _is_ours(code: CodeType) -> bool:
    return code.co_filename == FILENAME or code.co_filename.startswith(_PACKAGE)


def _is_users(filename: str) -> bool:
    return not filename.startswith((FILENAME, "<frozen", _PACKAGE, *_library_folders()))


CELLS: dict[str, int] = {}
"""Of a worker process: the numbers of the notebook's cells, by the names of their files."""


def cells() -> dict[str, int]:
    """The numbers of the notebook's cells, by the names of their files; empty outside IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return dict(getattr(getattr(shell, "compile", None), "_filename_map", {}))


def describe_site(at: Site) -> str:
    """`Cell In[3], line 4` for a line of a notebook cell, `script.py, line 4` for one of a file."""
    number = cells().get(at.filename, CELLS.get(at.filename))
    if number is not None:
        return f"Cell In[{number}], line {at.lineno}"
    return f"{os.path.basename(at.filename)}, line {at.lineno}"


def _tb_lines(tb: TracebackType | None) -> Iterator[Site]:
    while tb is not None:
        yield Site(tb.tb_frame.f_code.co_filename, tb.tb_lineno)
        tb = tb.tb_next


def user_line(lines: Iterator[Site] | list[Site]) -> Site | None:
    """The innermost line that is the user's own; of a library that user code called, the calling line."""
    found = [at for at in lines if _is_users(at.filename)]
    return found[-1] if found else None


def _without_engine(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and _is_ours(tb.tb_frame.f_code):
        tb = tb.tb_next
    return tb


def loop_frames(tb: TracebackType | None) -> list[tuple[FrameType, int]]:
    """The frames of generated code in a traceback, outermost first, and the lines they were at."""
    found: list[tuple[FrameType, int]] = []
    while tb is not None:
        if tb.tb_frame.f_code.co_filename == FILENAME:
            found.append((tb.tb_frame, tb.tb_lineno))
        tb = tb.tb_next
    return found


def _around(at: Site, context: int = 2) -> tuple[tuple[int, str, bool], ...]:
    lines = linecache.getlines(at.filename)
    first, last = max(1, at.lineno - context), min(len(lines), at.lineno + context)
    found = [(n, lines[n - 1].rstrip("\n"), n == at.lineno) for n in range(first, last + 1)]
    while found and not found[0][2] and not found[0][1].strip():
        found.pop(0)
    while found and not found[-1][2] and not found[-1][1].strip():
        found.pop()
    return tuple(found)


def add_note(exc: BaseException, note: str) -> None:
    """`exc.add_note(note)`, once, where the exception takes notes: one that is a frozen dataclass does not."""
    if note not in getattr(exc, "__notes__", ()):
        with suppress(Exception):
            exc.add_note(note)


_NO_ITEM = object()


def explain(
    exc: BaseException, subject: str, *, operator: str | None = None, item: Any = _NO_ITEM, declared: Site | None = None
) -> Failure:
    """Add notes to `exc` that say what failed, on which item, at which line; and describe it for the views."""
    tb = _without_engine(exc.__traceback__)
    at = user_line(_tb_lines(tb)) or declared
    shown = None if item is _NO_ITEM else safe_repr(item)
    where = describe_site(at) if at else None
    note = f"sage_nb: in {subject}"
    if at and where:
        source = linecache.getline(at.filename, at.lineno).strip()
        note += f", {where}" + (f": {source}" if source else "")
    add_note(exc, note)
    if shown is not None:
        add_note(exc, f"sage_nb: on the item {shown}")
    exc = exc.with_traceback(tb)
    return Failure(exc, tb, subject, operator, shown, where, _around(at) if at else ())
