"""From a parameter of a function to the control of a form in which a person gives its value.

| annotation | control |
|---|---|
| `bool` | a checkbox |
| `int`, `float` | a box for numbers; with `Annotated[int, Range(1, 10)]`, a slider |
| `str` | a box for text |
| `Literal[...]`, an `Enum` | a list to choose from |
| `list[Literal[...]]`, `list[an Enum]`, or `tuple`, `set` | a list of which several can be chosen |
| `list[str]`, `list[int]`, `list[float]` | a box for several |
| `pathlib.Path` | a box for a path, which offers the files there are |
| `datetime.date`, `datetime.datetime`, `datetime.time` | pickers |
| `T \\| None` | the control for `T`, with a checkbox before it: without its mark, the value is None |

Where there is no annotation, the type of the default counts.
"""

from __future__ import annotations

import datetime
import enum
import inspect
import math
import os
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import ipywidgets
import traitlets

from sage_nb.engine.failure import safe_repr
from sage_nb.errors import PipelineError
from sage_nb.notebook.hints import Range

__all__ = ["Control", "as_code", "control_of"]

_FILES = 200
_WIDE = {"description_width": "130px"}
_TYPES = "bool, int, float, str, Literal, Enum, list, Path, date, datetime, time"
_MISSING = inspect.Parameter.empty


class Control:
    """One parameter's control: `widget` is what has the value, `row` what is shown."""

    def __init__(
        self,
        name: str,
        widget: Any,
        *,
        help: str,
        optional: bool,
        default: Any,
        read: Callable[[Any], Any],
        write: Callable[[Any], Any],
    ) -> None:
        self.name = name
        self.widget = widget
        self.help = help
        self._read = read
        self._write = write
        widget.description, widget.style, widget.tooltip = name.replace("_", " "), _WIDE, help or name
        widget.layout.width = "min(100%, 480px)"
        if widget.has_trait("continuous_update") and not isinstance(widget, ipywidgets.Combobox):
            widget.continuous_update = False  # a value comes when it is whole, and not after the click on Submit
        parts = [widget]
        self.given: Any = None
        """The checkbox that says whether there is a value; None where there has to be one."""
        if optional:
            self.given = ipywidgets.Checkbox(
                value=True, indent=False, description="given", tooltip=f"give {name}",
                layout=ipywidgets.Layout(width="auto", margin="2px 8px"),
            )  # fmt: skip
            self.given.observe(self._enable, "value")
            parts.append(self.given)
        if help:
            parts.append(ipywidgets.Label(help, layout=ipywidgets.Layout(flex="1 1 160px", overflow="visible")))
        self.row = ipywidgets.HBox(parts, layout=ipywidgets.Layout(flex_flow="row wrap", align_items="baseline"))
        if default is not _MISSING:
            self.value = default
        elif optional:
            self.value = None

    @property
    def value(self) -> Any:
        """What is given. Raises `PipelineError` where nothing is, and something has to be."""
        if self.given is not None and not self.given.value:
            return None
        if self.widget.value is None or (isinstance(self.widget, ipywidgets.Combobox) and not self.widget.value):
            raise PipelineError(f"{self.name} is empty: give a value")
        return self._read(self.widget.value)

    @value.setter
    def value(self, value: Any) -> None:
        if self.given is not None:
            self.given.value = value is not None
            if value is None:
                return
        try:
            self.widget.value = self._write(value)
        except (traitlets.TraitError, TypeError, ValueError, AttributeError) as exc:
            raise PipelineError(f"{self.name} cannot be {safe_repr(value)}: {exc}") from exc

    @property
    def text(self) -> str:
        """The value as a form on paper would say it."""
        try:
            value = self.value
        except PipelineError:
            return "(empty)"
        if isinstance(value, (list, tuple, set)):
            return ", ".join(map(_said, value)) or "(none)"
        return "(none)" if value is None else _said(value)

    def _enable(self, change: Any) -> None:
        self.widget.disabled = not change.new


def control_of(name: str, annotation: Any, default: Any, help: str) -> Control:
    """The control for a parameter. Raises `PipelineError` where there is none for it."""
    kind, hints, optional = _unwrapped(annotation if annotation is not _MISSING else _type_of(name, default))
    words = [hint for hint in hints if isinstance(hint, str)]
    widget, read, write = _widget(name, kind, hints)
    return Control(
        name, widget, help=words[0] if words else help, optional=optional, default=default, read=read, write=write
    )


def _type_of(name: str, default: Any) -> Any:
    if default is _MISSING:
        raise PipelineError(f"{name} has neither an annotation nor a default: write {name}: int, say, or {name}=10")
    if default is None:
        raise PipelineError(f"{name}=None says no type: write {name}: int | None = None, say")
    return Path if isinstance(default, Path) else type(default)


def _unwrapped(annotation: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """The type, what `Annotated` says beside it, and whether it may be None."""
    hints: tuple[Any, ...] = ()
    optional = False
    while True:
        if get_origin(annotation) is typing.Annotated:
            annotation, *more = get_args(annotation)
            hints += tuple(more)
        elif get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation):
            others = tuple(one for one in get_args(annotation) if one is not type(None))
            annotation, optional = Union[others], True  # noqa: UP007 - of as many as there are
        else:
            return annotation, hints, optional


_Made = tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]
"""A widget, from its value to the parameter's, and back."""


def _same(value: Any) -> Any:
    return value


def _widget(name: str, kind: Any, hints: tuple[Any, ...]) -> _Made:
    choices = _choices(kind)
    if choices is not None:
        return ipywidgets.Dropdown(options=choices), _same, _same
    if get_origin(kind) in (list, tuple, set):
        return _several(name, kind)
    if kind in (int, float):
        return _number(kind, hints)
    if kind in (datetime.date, datetime.datetime, datetime.time):
        return _PICKERS[kind](), _same, _same
    if kind is bool:
        return ipywidgets.Checkbox(indent=True), _same, bool
    if kind is str:
        return ipywidgets.Text(), _same, _same
    if isinstance(kind, type) and issubclass(kind, Path):
        return _path(), Path, os.fspath
    raise PipelineError(
        f"{name}: there is no control for {_called(kind)}, only for {_TYPES}; "
        f"give it a value: launcher(..., {name}=...)"
    )


_PICKERS: Mapping[Any, Any] = {
    datetime.date: ipywidgets.DatePicker,
    datetime.datetime: ipywidgets.NaiveDatetimePicker,
    datetime.time: ipywidgets.TimePicker,
}


def _choices(kind: Any) -> list[tuple[str, Any]] | None:
    if get_origin(kind) is Literal:
        return [(_said(one), one) for one in get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return [(one.name, one) for one in kind]
    return None


def _number(kind: type, hints: tuple[Any, ...]) -> _Made:
    whole = kind is int
    span = next((hint for hint in hints if isinstance(hint, (Range, range))), None)
    if span is None:
        return (ipywidgets.IntText() if whole else ipywidgets.FloatText(value=0.0)), kind, kind
    if isinstance(span, range):
        span = Range(span.start, span[-1], span.step)
    step = span.step or (1 if whole else (span.high - span.low) / 100)
    slider = ipywidgets.IntSlider if whole else ipywidgets.FloatSlider

    def within(value: Any) -> Any:
        if not span.low <= value <= span.high:
            raise ValueError(f"it is from {span.low} to {span.high}")
        return kind(value)

    return slider(min=kind(span.low), max=kind(span.high), step=kind(step), value=kind(span.low)), kind, within


def _several(name: str, kind: Any) -> _Made:
    make, (item, *_) = get_origin(kind), (*get_args(kind), str)
    choices = _choices(item)
    if choices is not None:
        rows = min(len(choices), 8)
        return ipywidgets.SelectMultiple(options=choices, rows=rows), make, tuple
    tags = {str: ipywidgets.TagsInput, int: ipywidgets.IntsInput, float: ipywidgets.FloatsInput}
    if item not in tags:
        raise PipelineError(
            f"{name}: there is no control for {_called(kind)}; give it a value: launcher(..., {name}=...)"
        )
    return tags[item](allow_duplicates=make is not set), make, list


def _path() -> Any:
    box = ipywidgets.Combobox(ensure_option=False, placeholder="a path", continuous_update=True)

    def offer(_change: Any = None) -> None:
        box.options = _entries(box.value)

    box.observe(offer, "value")
    offer()
    return box


def _entries(typed: str) -> tuple[str, ...]:
    """The paths that begin like what is typed; folders end with a slash."""
    folder = os.path.dirname(os.path.expanduser(typed)) or "."
    try:
        with os.scandir(folder) as found:
            names = sorted(one.name + ("/" if one.is_dir() else "") for one in found if one.name[:1] != ".")
    except OSError:  # no such folder yet, or none that may be read: there is nothing to offer
        return ()
    start = typed[: len(typed) - len(os.path.basename(typed))]
    return tuple(start + name for name in names[:_FILES])


def _said(value: Any) -> str:
    return value.name if isinstance(value, enum.Enum) else str(value)


def _called(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind).replace("typing.", "")


def as_code(value: Any, imports: set[str], variables: Mapping[str, Any]) -> str | None:
    """The expression that gives `value`, which needs `imports`; None where no code and no variable has it."""
    if isinstance(value, enum.Enum):
        return f"{_imported(type(value), imports)}.{value.name}"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if value is None or type(value) in (bool, int, float, str, bytes):
        return repr(value)
    if isinstance(value, Path):
        imports.add("from pathlib import Path")
        return f"Path({os.fspath(value)!r})"
    if type(value) in _PICKERS:
        imports.add("import datetime")
        return repr(value)
    if type(value) in (list, tuple, set):
        inner = [as_code(one, imports, variables) for one in value]
        if None not in inner:
            said = ", ".join(filter(None, inner))
            if isinstance(value, list):
                return f"[{said}]"
            if isinstance(value, tuple):
                return f"({said},)" if len(value) == 1 else f"({said})"
            return f"{{{said}}}" if value else "set()"
    return next((name for name, one in variables.items() if one is value and name[:1] != "_"), None)


def _imported(one: Any, imports: set[str]) -> str:
    """The name of a class or function, which is imported unless it is the notebook's."""
    if one.__module__ != "__main__":
        imports.add(f"from {one.__module__} import {one.__qualname__.partition('.')[0]}")
    name: str = one.__qualname__
    return name
