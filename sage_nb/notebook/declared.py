"""An environment as a cell shows it: the picture of what is declared, and how it would run, before it does."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from sage_nb.errors import SageError
from sage_nb.jobs.explain import Explanation
from sage_nb.jobs.submitting import SubmittingEnvironment
from sage_nb.notebook.html import render_explanation
from sage_nb.notebook.words import plain

__all__ = ["environment_html", "environment_text"]


def environment_text(env: SubmittingEnvironment) -> str:
    """The plan of what is declared, services and the latest job; or why there is no plan, and what to do."""
    plan = _plan(env)
    return f"{plan}{_more(env)}"


def environment_html(env: SubmittingEnvironment) -> str:
    """The same below the picture of the operators."""
    plan = _plan(env)
    if isinstance(plan, Explanation):
        return render_explanation(plan, more=_more(env))
    return f"<pre>{escape(plain(plan + _more(env), lines=True))}</pre>"


def _plan(env: SubmittingEnvironment) -> Explanation | str:
    if not env._graph.operators:
        return f"{plain(env.name)}: nothing is declared yet; begin with a source, say env.from_batch([1, 2]).print()"
    try:
        return env.explain()
    except SageError as exc:
        names = ", ".join(plain(op.name) for op in env._graph.operators)
        return f"{plain(env.name)}: {names}\n\nIt cannot run yet: {exc}"


def _more(env: SubmittingEnvironment) -> str:
    return "".join(f"\n\n{line}" for line in _lines(env))


def _lines(env: SubmittingEnvironment) -> Iterator[str]:
    services = env._graph.services.values()
    if services:
        said = (f"{plain(one.name)} ({plain(getattr(one.make, '__name__', 'made by a factory'))})" for one in services)
        yield f"Services: {', '.join(said)}"
    if env.job is not None:
        yield f"Its latest job: {plain(env.job.name)} {env.job.uuid[:8]}, {env.job.status}"
