"""What `%load_ext sage_nb` sets up in a shell, and `%unload_ext` takes away."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from sage_nb.jobs.explain import Explanation
from sage_nb.jobs.job import Job
from sage_nb.jobs.manager import use_thread_context
from sage_nb.notebook.html import render_explanation
from sage_nb.notebook.kernel import Gates, current_cell, mark_cell, pin_threads
from sage_nb.notebook.known import Known
from sage_nb.notebook.magics import SageMagics
from sage_nb.notebook.servers import ServerMagics
from sage_nb.notebook.view import show_job

__all__ = ["load", "unload"]


class _Loaded:
    """What was set up in one shell."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        known = Known()
        self.magics = SageMagics(shell, known)
        shell.register_magics(self.magics, ServerMagics(shell, known))
        shell.events.register("pre_run_cell", self.before_cell)
        shell.events.register("post_run_cell", self.after_cell)
        shell.display_formatter.ipython_display_formatter.for_type(Job, self.display_job)
        shell.display_formatter.formatters["text/html"].for_type(Explanation, render_explanation)
        self.gates = Gates(shell)
        use_thread_context(lambda: pin_threads(shell))

    def before_cell(self, info: Any) -> None:
        self.magics.raw_cell = info.raw_cell or ""
        mark_cell(running=True)

    def after_cell(self, _result: Any) -> None:
        mark_cell(running=False)

    def display_job(self, job: Job) -> None:
        show_job(job, self.shell, live=current_cell(self.shell).watched)

    def undo(self) -> None:
        use_thread_context(lambda: nullcontext)
        self.gates.remove()
        self.shell.display_formatter.ipython_display_formatter.pop(Job, None)
        self.shell.display_formatter.formatters["text/html"].pop(Explanation, None)
        self.shell.events.unregister("pre_run_cell", self.before_cell)
        self.shell.events.unregister("post_run_cell", self.after_cell)
        for kind in ("line", "cell"):
            magics = self.shell.magics_manager.magics[kind]
            for name in [name for name in magics if name.startswith("sage_")]:
                del magics[name]


_loaded: dict[int, _Loaded] = {}


def load(shell: Any) -> None:
    """Register magics and displays; a second time changes nothing."""
    if id(shell) not in _loaded:
        _loaded[id(shell)] = _Loaded(shell)


def unload(shell: Any) -> None:
    """Take back what `load` did."""
    loaded = _loaded.pop(id(shell), None)
    if loaded is not None:
        loaded.undo()
