"""What `%load_ext sage_nb` sets up in a shell, and `%unload_ext` takes away."""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext
from typing import Any

from sage_nb.engine.results import Result
from sage_nb.jobs.explain import Explanation
from sage_nb.jobs.job import Job
from sage_nb.jobs.manager import use_thread_context
from sage_nb.jobs.submitting import SubmittingEnvironment
from sage_nb.notebook.completion import Completion
from sage_nb.notebook.declared import environment_html, environment_text
from sage_nb.notebook.html import render_explanation
from sage_nb.notebook.kernel import Gates, current_cell, mark_cell, pin_threads
from sage_nb.notebook.known import Known
from sage_nb.notebook.magics import SageMagics
from sage_nb.notebook.members import Members
from sage_nb.notebook.result import print_result, result_html
from sage_nb.notebook.servers import ServerMagics
from sage_nb.pipeline.spelling import nearest

__all__ = ["load", "loaded", "unload"]

_MAGIC = re.compile(r"^[ \t]*(%%?)(sage_?\w+)", re.MULTILINE)


class _Loaded:
    """What was set up in one shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.known = known = Known()
        self.magics = SageMagics(shell, known)
        shell.register_magics(self.magics, ServerMagics(shell, known))
        self.matchers = [Completion(shell, known).match, Members(shell).match]
        shell.Completer.custom_matchers.extend(self.matchers)
        shell.events.register("pre_run_cell", self.before_cell)
        shell.events.register("post_run_cell", self.after_cell)
        shell.display_formatter.ipython_display_formatter.for_type(Job, self.magics.show_value)
        html, text = (shell.display_formatter.formatters[mime] for mime in ("text/html", "text/plain"))
        html.for_type(Explanation, render_explanation)
        html.for_type(Result, result_html)
        text.for_type(Result, print_result)
        html.for_type(SubmittingEnvironment, environment_html)
        text.for_type(SubmittingEnvironment, lambda env, printer, cycle: printer.text(environment_text(env)))
        self.gates = Gates(shell)
        use_thread_context(lambda: pin_threads(shell), lambda: current_cell(shell).watched)

    def before_cell(self, info: Any) -> None:
        self.magics.raw_cell = info.raw_cell or ""
        mark_cell(running=True)
        if "%sage" in self.magics.raw_cell:
            self.hint_at_misspelt()

    def hint_at_misspelt(self) -> None:
        """Say which magic of ours may have been meant: IPython only says that there is none."""
        known = self.shell.magics_manager.magics
        for sign, name in _MAGIC.findall(self.magics.raw_cell):
            there = known["cell" if sign == "%%" else "line"]
            ours = [one for one in there if one.startswith("sage_")]
            if name not in there and (near := nearest(name, ours)) is not None:
                print(f"sage_nb: there is no {sign}{name}; did you mean {sign}{near}?", file=sys.stderr)

    def after_cell(self, _result: Any) -> None:
        mark_cell(running=False)

    def undo(self) -> None:
        use_thread_context(lambda: nullcontext)
        self.gates.remove()
        self.shell.display_formatter.ipython_display_formatter.pop(Job, None)
        html, text = (self.shell.display_formatter.formatters[mime] for mime in ("text/html", "text/plain"))
        html.pop(Explanation, None)
        html.pop(Result, None)
        text.pop(Result, None)
        html.pop(SubmittingEnvironment, None)
        text.pop(SubmittingEnvironment, None)
        for one in self.matchers:
            self.shell.Completer.custom_matchers.remove(one)
        self.shell.configurables[:] = [one for one in self.shell.configurables if one is not self.magics]
        self.shell.events.unregister("pre_run_cell", self.before_cell)
        self.shell.events.unregister("post_run_cell", self.after_cell)
        for kind in ("line", "cell"):
            magics = self.shell.magics_manager.magics[kind]
            for name in [name for name in magics if name.startswith("sage_")]:
                del magics[name]


_loaded: dict[int, _Loaded] = {}


def loaded(shell: Any) -> _Loaded | None:
    """What is set up in a shell."""
    return _loaded.get(id(shell))


def load(shell: Any) -> None:
    """Register magics and displays; a second time changes nothing."""
    if id(shell) not in _loaded:
        _loaded[id(shell)] = _Loaded(shell)


def unload(shell: Any) -> None:
    """Take back what `load` did."""
    loaded = _loaded.pop(id(shell), None)
    if loaded is not None:
        loaded.undo()
