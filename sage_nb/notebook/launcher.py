"""`launcher(build)`: a form for the parameters of a function that declares a pipeline, and what it submits below it.

A click may come on any thread, and a callback that waits would hold the kernel; so Submit hands the work to a thread
of its own, which ends with it. What the form shows in a saved notebook is HTML and text: its values, and the last job.
"""

from __future__ import annotations

import html
import importlib.util
import inspect
import linecache
import re
import threading
import time
import traceback
import typing
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

import ipywidgets
import traitlets

from sage_nb.engine.dispatcher import ENDED
from sage_nb.engine.failure import describe_site, headline, user_line
from sage_nb.errors import PipelineError, SageError, SignatureError
from sage_nb.jobs.environment import LocalEnvironment
from sage_nb.jobs.job import Job
from sage_nb.jobs.submitting import SubmittingEnvironment
from sage_nb.notebook.controls import Control, as_code, control_of
from sage_nb.notebook.kernel import current_cell, pin_threads
from sage_nb.notebook.known import Known
from sage_nb.notebook.view import JobView, static_bundle
from sage_nb.pipeline.environment import BaseEnvironment
from sage_nb.pipeline.graph import Site
from sage_nb.pipeline.spelling import did_you_mean

__all__ = ["Launcher", "launcher"]

_TARGETS = {"kernel": "This kernel", "processes": "In processes", "ray": "Ray", "server": "Server"}
_WIDE = {"description_width": "130px"}
_DOUBLE_CLICK = 0.5
_SETTLE = 0.1
"""Seconds between a click and the look at the values: a page holds the newest value of a control back while the one
before it is under way, and the click overtakes it."""


def launcher(build: Callable[..., Any], /, **fixed: Any) -> Launcher:
    """A form for the parameters of `build(env, ...)`, which declares a pipeline on `env`.

    Each parameter's annotation says what its control is: `bool`, `int`, `float`, `str`, `Literal[...]`, an `Enum`,
    `list[Literal[...]]`, `pathlib.Path`, `datetime.date`, `datetime.datetime`, `datetime.time`; `T | None` may be left
    empty; `Annotated[int, Range(1, 10)]` is a slider; a text in `Annotated`, or the docstring, describes it. `fixed`
    are values for parameters that the form does not show.

    As the last line of a cell it shows the form: a target (this kernel, processes, Ray, a server), Submit, and the live
    view of the job. Submitting again stops and cleans the earlier job. Raises `PipelineError` for a parameter that no
    control can be made for.
    """
    return Launcher(build, fixed)


class Launcher:
    """The form. `job` is its latest job, `values` what is in its controls."""

    def __init__(self, build: Callable[..., Any], fixed: Mapping[str, Any]) -> None:
        self._build = build
        self._fixed = dict(fixed)
        self._name, self._title, parameters, helps = _described(build, fixed)
        self.controls: Mapping[str, Control] = MappingProxyType(
            {name: _control(build, name, *of, helps.get(name, "")) for name, of in parameters.items()}
        )
        """By the name of the parameter."""
        self.job: Job | None = None
        self.env: SubmittingEnvironment | None = None
        """Where the latest job was declared."""
        self._lock = threading.Lock()
        self._clicks = threading.Lock()
        """Held from a click on Submit until its work is done."""
        self._pressed: tuple[float, Any] = (-_DOUBLE_CLICK, None)
        """When Submit was pressed for the latest job, and with what in the form."""
        self._shell = _shell()
        self._cell = current_cell(self._shell) if self._shell is not None else None
        self._view: _View | None = None
        self._display_id: str | None = None
        self._last: dict[str, Any] = {}
        """How the latest job is shown without a kernel."""
        self._make_form()

    def __repr__(self) -> str:
        return self._as_text()

    # Values

    @property
    def values(self) -> dict[str, Any]:
        """What `build` will be called with, beside the environment. Raises `PipelineError` where a value is missing."""
        return {**{name: control.value for name, control in self.controls.items()}, **self._fixed}

    def set(self, **values: Any) -> Self:
        """Put values into the controls. Raises `PipelineError` where a control does not take one."""
        for name, value in values.items():
            if name not in self.controls:
                raise PipelineError(f"the form has no {name!r}{did_you_mean(name, self.controls)}")
            self.controls[name].value = value
        return self

    @property
    def target(self) -> str:
        """Where jobs run: `kernel`, `processes`, `ray`, or `HOST:PORT` of a JobManager server."""
        chosen: str = self._target.value
        return self._address.value.strip() if chosen == "server" else chosen

    @target.setter
    def target(self, target: str) -> None:
        if ":" in target:
            self._target.value, self._address.value = "server", target
            return
        there = [one for _, one in self._target.options if one != "server"]
        if target not in there:
            raise PipelineError(f"there is no target {target!r}{did_you_mean(target, [*there, 'HOST:PORT'])}")
        self._target.value = target

    # Doing

    def submit(self) -> Job:
        """Declare the pipeline with the values in the form, stop and clean the earlier job, and run the new one.

        Nothing is stopped where the pipeline cannot be declared. Raises what `build` raises, and what a submit does.
        """
        __tracebackhide__ = True
        with self._lock:
            try:
                self._say("")
                return self._submit()
            except Exception as exc:
                self._say(_one_line(exc), wrong=True)
                raise

    def _submit(self) -> Job:
        __tracebackhide__ = True
        env, values = self._environment(), self.values
        self._build(env, **values)
        env.explain()  # whether it can run at all
        if self.job is not None and not self.job._dispatcher.clean.is_set():
            self._say(f"stopping {self.job.name} {self.job.uuid[:8]} first …")
            self.job.stop()
        job = env.submit()
        self.env, self.job = env, job
        self._say("")
        if self._cell is not None and self._display_id is not None:
            self._show(job)
        shown = _shown(self._shell)
        if shown is not None and self._cell is not None:
            shown.add(self._cell, job, None, submitted=True)
        return job

    def _environment(self) -> SubmittingEnvironment:
        target = self.target
        if self._target.value != "server":
            return LocalEnvironment(self._name, backend="threads" if target == "kernel" else target)
        from sage_nb.remote.environment import RemoteEnvironment

        address = _known(self._shell).client_at(target)._address
        config = {"server": {"tls": True}} if address.tls else None
        return RemoteEnvironment(self._name, config, address.host, address.port, address.token)

    def code(self) -> str:
        """A cell that does what Submit does, with the values in the form. Raises `PipelineError` where a value is in no
        variable, and no code makes it."""
        imports: set[str] = set()
        variables = getattr(self._shell, "user_ns", None) or getattr(self._build, "__globals__", {})
        arguments = []
        for name, value in self.values.items():
            said = as_code(value, imports, variables)
            if said is None:
                raise PipelineError(f"no code makes the value of {name!r}: put it into a variable first")
            arguments.append(f", {name}={said}")
        build = next((name for name, one in variables.items() if one is self._build and name[:1] != "_"), None)
        if build is None:
            build = self._build.__qualname__
            imports.add(f"from {self._build.__module__} import {build}")
        target, how = self.target, ""
        if self._target.value == "server":
            made = "RemoteEnvironment"
            address = _known(self._shell).client_at(target)._address
            how = f", host={address.host!r}, port={address.port}"
        else:
            made = "LocalEnvironment"
            how = "" if target == "kernel" else f", backend={target!r}"
        lines = [*sorted({*imports, f"from sage_nb import {made}"}), "", f"env = {made}({self._name!r}{how})"]
        return "\n".join([*lines, f"{build}(env{''.join(arguments)})", "job = env.submit()", "job"])

    def new_cell(self) -> None:
        """Put `code()` into a new cell below the one that calls this: a notebook takes that from a cell that runs."""
        if self._shell is None:
            raise SageError("new_cell: there is no notebook here; print(form.code()) shows the code")
        self._shell.set_next_input(self.code())

    # The form

    def _make_form(self) -> None:
        known = _known(self._shell)
        there = [one for one in _TARGETS if one != "ray" or importlib.util.find_spec("ray") is not None]
        options = [(_TARGETS[one], one) for one in there]
        self._target = ipywidgets.Dropdown(options=options, description="target", style=_WIDE)
        self._address = ipywidgets.Combobox(
            value=known.where or "127.0.0.1:19001", options=_addresses(known), description="HOST:PORT", style=_WIDE
        )
        self._target.observe(self._show_address, "value")
        if known.where is not None:
            self._target.value = "server"
        self._show_address()
        self._button = ipywidgets.Button(description="Submit", button_style="primary", tooltip="run it; stops the last")
        self._button.on_click(self._clicked)
        as_cell = ipywidgets.Button(description="As code", tooltip="the values as the code of a cell")
        as_cell.on_click(self._show_code)
        self._said = ipywidgets.HTML()
        self._below = ipywidgets.VBox()
        self._form = ipywidgets.VBox(
            [
                ipywidgets.HTML(f"<strong>{html.escape(self._title)}</strong>"),
                *(control.row for control in self.controls.values()),
                ipywidgets.HBox([self._target, self._address], layout=ipywidgets.Layout(flex_flow="row wrap")),
                ipywidgets.HBox([self._button, as_cell], layout=ipywidgets.Layout(margin="0 0 0 138px")),
                self._said,
                self._below,
            ]
        )
        self._form.add_class("sage-launcher")

    def _show_address(self, _change: Any = None) -> None:
        self._address.layout.display = "" if self._target.value == "server" else "none"

    def _ipython_display_(self) -> None:
        shell = self._shell
        self._cell = current_cell(shell)
        shown = _shown(shell)
        if shown is not None:
            shown.replace(self._cell, spare=self.job.uuid if self.job is not None else None)
        self._display_id = self._display_id or uuid.uuid4().hex
        self._pin = pin_threads(shell)
        self._publish(update=False)

    def _publish(self, *, update: bool) -> None:
        """The form, with all that a page without a kernel can show of it."""
        if self._display_id is None:
            return
        bundle = {
            "text/html": f"{self._as_html()}{self._last.get('text/html', '')}",
            "text/plain": "\n\n".join(filter(None, [self._as_text(), self._last.get("text/plain", "")])),
        }
        if self._cell is not None and self._cell.watched:
            view = {"version_major": 2, "version_minor": 1, "model_id": self._form.model_id}
            bundle |= {"application/vnd.jupyter.widget-view+json": view}  # type: ignore[dict-item]
        self._shell.display_pub.publish(
            data=bundle,
            metadata={"sage_nb": {"form": True}},
            transient={"display_id": self._display_id},
            update=update,
        )

    def _clicked(self, _button: Any) -> None:
        """A click on Submit. It may come on any thread, and twice."""
        if not self._clicks.acquire(blocking=False):
            return
        self._button.disabled = True
        threading.Thread(target=self._work, args=(time.monotonic(),), name="sage_nb launcher", daemon=True).start()

    def _work(self, now: float) -> None:
        try:
            time.sleep(_SETTLE)
            before, said = self._pressed
            self._pressed = now, (self.target, self.values)
            if now - before < _DOUBLE_CLICK and said == self._pressed[1]:
                return  # a double click is one
            with self._pin():
                self.submit()
        except Exception as exc:  # noqa: BLE001 - it is shown below the form
            self._say(_one_line(exc), wrong=True)
        finally:
            self._button.disabled = False
            self._clicks.release()

    def _show_code(self, _button: Any) -> None:
        try:
            code = html.escape(self.code())
        except SageError as exc:
            self._say(str(exc), wrong=True)
        else:
            style = "margin:4px 0;padding:8px 12px;border:1px solid rgba(128,128,128,.3);border-radius:6px"
            style += ";background:transparent;line-height:1.5;user-select:all"
            self._said.value = f'One click selects it; copy it to a new cell.<pre style="{style}">{code}</pre>'

    def _say(self, line: str, *, wrong: bool = False) -> None:
        mark = '<span style="color:rgb(229,72,77)">✗</span> ' if wrong else ""
        self._said.value = f'<span role="status">{mark}{html.escape(line)}</span>' if line else ""

    def _show(self, job: Job) -> None:
        """The job below the form, in place of the earlier one."""
        earlier, self._view = self._view, None
        self._last = static_bundle(job.snapshot())
        if self._cell is not None and self._cell.watched:
            self._view = _View(job, self._shell, self._job_shown)
            self._view.show()
            self._below.children = (self._view.widget,)
        else:
            job._listen(self._job_changed)
            self._job_changed(job)
        if earlier is not None:
            earlier.discard()

    def _job_changed(self, job: Job) -> None:
        if job is self.job and job.status in ENDED:
            self._job_shown(static_bundle(job.snapshot()))

    def _job_shown(self, bundle: dict[str, Any]) -> None:
        self._last = bundle
        self._publish(update=True)

    # Without a kernel

    def _lines(self) -> list[tuple[str, str, str]]:
        rows = [(name, control.text, control.help) for name, control in self.controls.items()]
        return [*rows, ("target", _TARGETS.get(self.target, f"Server {self.target}"), "")]

    def _as_text(self) -> str:
        rows = self._lines()
        first, second = (max(len(row[n]) for row in rows) for n in (0, 1))
        lines = (f"  {name:<{first}}  {value:<{second}}  {help}".rstrip() for name, value, help in rows)
        return "\n".join([self._title, *lines])

    def _as_html(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f'<td style="text-align:left">{html.escape(cell)}</td>' for cell in row) + "</tr>"
            for row in self._lines()
        )
        return f"<p><strong>{html.escape(self._title)}</strong></p><table>{rows}</table>"


class _View(JobView):
    """A job's live view inside of a form, which shows it instead of a cell."""

    def __init__(self, job: Job, shell: Any, shown: Callable[[dict[str, Any]], None]) -> None:
        super().__init__(job, shell)
        self._form_shown = shown

    @property
    def widget(self) -> Any:
        return self._widget

    def _publish(self, bundle: dict[str, Any], *, update: bool) -> None:
        if update:
            self._form_shown(bundle)

    def close(self) -> None:
        """It stays as long as the form shows it."""

    def discard(self) -> None:
        """The form shows another."""
        super().close()


# ------------------------------------------------------------------------------------------------------ the function


def _described(build: Any, fixed: Mapping[str, Any]) -> tuple[str, str, dict[str, tuple[Any, Any]], dict[str, str]]:
    """A function's name, its title, annotation and default of each parameter that the form shows, what the docstring
    says of them."""
    if not callable(build) or inspect.iscoroutinefunction(build):
        raise SignatureError(f"launcher: takes a function such as def build(env, n: int = 10), not {build!r}")
    name = getattr(build, "__name__", type(build).__name__)
    try:
        parameters = dict(inspect.signature(build).parameters)
        annotations = typing.get_type_hints(build, include_extras=True)
    except (NameError, TypeError, ValueError) as exc:
        raise PipelineError(f"launcher: the annotations of {name}() cannot be read: {exc}") from exc
    first = next(iter(parameters), None)
    kind = annotations.get(first or "")
    if first is None or not (first == "env" or (isinstance(kind, type) and issubclass(kind, BaseEnvironment))):
        raise SignatureError(f"launcher: {name}() takes no environment: begin it with env, as in def {name}(env, ...)")
    del parameters[first]
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = {key: one for key, one in parameters.items() if one.kind not in several}
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    for key in fixed:
        if key not in named and not takes_any:
            raise PipelineError(f"launcher: {name}() has no parameter {key!r}{did_you_mean(key, named)}")
    for key, one in named.items():
        if one.kind is inspect.Parameter.POSITIONAL_ONLY:
            raise PipelineError(f"launcher: {name}() takes {key} by position only; leave out the / after it")
    shown = {
        key: (annotations.get(key, inspect.Parameter.empty), one.default)
        for key, one in named.items()
        if key not in fixed
    }
    doc = inspect.getdoc(build) or ""
    title = doc.partition("\n")[0].rstrip(".") or name.replace("_", " ")
    return name, title, shown, {key: _help(doc, key) for key in shown}


def _help(doc: str, name: str) -> str:
    """What a docstring says of a parameter, in the manner of Google, numpy or Sphinx."""
    found = re.search(
        rf"^\s*(?::param (?:\w+ )?{name}:|[-*]\s*`?{name}`?:|`?{name}`?\s*(?:\([^)\n]*\))?:|{name} :[^\n]*\n)\s*(.+)$",
        doc,
        re.MULTILINE,
    )
    return found[1].strip().rstrip(".") if found else ""


def _control(build: Any, name: str, annotation: Any, default: Any, help: str) -> Control:
    try:
        return control_of(name, annotation, default, help)
    except (PipelineError, traitlets.TraitError) as exc:
        raise PipelineError(f"launcher: {getattr(build, '__name__', 'build')}(): {exc}") from exc


def _one_line(exc: BaseException) -> str:
    """What went wrong, and the user's own line."""
    at = user_line([Site(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(exc.__traceback__)])
    said = str(exc) if isinstance(exc, SageError) else headline(exc)
    if at is None:
        return said
    code = linecache.getline(at.filename, at.lineno).strip()
    return f"{said} ({describe_site(at)}{': ' + code if code else ''})"


# -------------------------------------------------------------------------------------------------------- the notebook


def _shell() -> Any:
    from IPython.core.getipython import get_ipython

    return get_ipython()


def _known(shell: Any) -> Known:
    from sage_nb.notebook.extension import loaded

    found = loaded(shell)
    return found.known if found is not None else Known()


def _shown(shell: Any) -> Any:
    from sage_nb.notebook.extension import loaded

    found = loaded(shell)
    return found.magics._shown if found is not None else None


def _addresses(known: Known) -> tuple[str, ...]:
    from sage_nb.notebook.completion import server_addresses

    return tuple(dict.fromkeys([*([known.where] if known.where else []), *server_addresses()]))
