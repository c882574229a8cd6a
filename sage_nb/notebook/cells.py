"""Running the body of a `%%sage_submit` cell so that every line keeps the number it has on the page."""

from __future__ import annotations

import ast
import sys
from typing import Any

from IPython.core.error import UsageError

__all__ = ["run_body"]


def run_body(shell: Any, raw_cell: str, body: str, magic: str) -> None:
    """Run `body`, the part of `raw_cell` below its `magic` line, in the user's namespace.

    Raises `UsageError` where the body has no statement, and whatever the body raises.
    """
    __tracebackhide__ = True
    lines = raw_cell.splitlines()
    offset = next((n for n, line in enumerate(lines, 1) if line.lstrip().startswith(magic)), 1)
    if lines[offset:] != body.splitlines():  # the magic was called from code, with a body of its own
        raw_cell, offset = f"{magic}\n{body}", 1
    offset += len(body.splitlines()) - len(body.lstrip("\n\r\t ").splitlines())  # transform_cell() drops them
    filename = shell.compile.cache(raw_cell, shell.displayhook.prompt_count, raw_code=raw_cell)
    try:
        tree = ast.parse(shell.transform_cell(body), filename)
    except SyntaxError as exc:
        _shift(exc, offset)
        _show_as_in_a_plain_cell(shell, exc)
        raise
    if not tree.body:
        raise UsageError(f"{magic}: the cell is empty; declare a pipeline on env, say env.from_batch([1, 2]).print()")
    tree = shell.transform_ast(ast.increment_lineno(tree, offset))
    code = shell.compile(tree, filename, "exec")
    exec(code, shell.user_global_ns, shell.user_ns)


def _show_as_in_a_plain_cell(shell: Any, exc: SyntaxError) -> None:
    """Have `exc` shown without the frames that lead here: IPython takes it for one of code that runs, not of a cell."""

    def show(filename: str | None = None, running_compiled_code: bool = False) -> None:
        del shell.showsyntaxerror
        shell.showsyntaxerror(filename, running_compiled_code and sys.exc_info()[1] is not exc)

    shell.showsyntaxerror = show


def _shift(exc: SyntaxError, offset: int) -> None:
    if exc.lineno is not None:
        exc.lineno += offset
    if exc.end_lineno is not None:
        exc.end_lineno += offset
