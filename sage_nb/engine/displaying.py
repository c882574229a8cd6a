"""`display(...)` where there is no notebook: in worker processes, and in runners.

There, what is displayed is formatted as IPython would, and sent on to where there is one. IPython is not imported for
that before somebody displays something: what asks for its `display` gets ours.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

__all__ = ["Bundle", "publish", "send_displays"]

Bundle = dict[str, Any]
_MODULE = "IPython.core.display_functions"
_INLINE = "module://matplotlib_inline.backend_inline"
_send: Callable[[Bundle, Bundle], object] | None = None


def publish(data: Bundle, metadata: Bundle) -> None:
    """Show what was displayed in another process: in the notebook; where there is none, as text."""
    if _send is not None:
        _send(data, metadata)
        return
    shell = sys.modules.get("IPython.core.interactiveshell")
    if shell is not None and shell.InteractiveShell.initialized():
        shell.InteractiveShell.instance().display_pub.publish(data, metadata)
    else:
        print(data.get("text/plain", ""))


def send_displays(send: Callable[[Bundle, Bundle], object]) -> None:
    """From now on `send` gets what is displayed in this process: representations by mime type, and metadata."""
    global _send
    _send = send
    builtins.display = _display  # type: ignore[attr-defined]  # as IPython does, and notebooks rely on it
    if importlib.util.find_spec("matplotlib_inline") is not None:
        os.environ.setdefault("MPLBACKEND", _INLINE)
    if _MODULE in sys.modules:
        _replace(sys.modules[_MODULE])
    else:
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module that has IPython's `display`, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        found: ModuleType | None = self._loader.create_module(spec)
        return found

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _replace(module)


def _replace(module: ModuleType) -> None:
    module.display = _display  # type: ignore[attr-defined]
    module.publish_display_data = _publish_display_data  # type: ignore[attr-defined]


def _publish_display_data(data: Bundle, metadata: Bundle | None = None, **_more: Any) -> None:
    assert _send is not None
    _send(_plain(data), _plain(metadata or {}))


def _plain(value: Any) -> Any:
    """What can travel of representations and metadata: numbers of numpy as Python's own, what is nothing known as text.
    A display that works in the notebook must not fail elsewhere."""
    if value is None or type(value) in (str, bytes, bool, float):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if getattr(value, "ndim", None) == 0:
        return _plain(value.tolist())
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 64:
        return int(value)
    return float(value) if isinstance(value, float) else str(value)


def _display(*objs: Any, include: Any = None, exclude: Any = None, metadata: Any = None, **options: Any) -> None:
    """Like `IPython.display.display`; what it displays cannot be changed later."""
    for obj in objs:
        if options.get("raw"):
            _publish_display_data(obj, metadata)
            continue
        data, found = _formatter(obj).format(obj, include=include, exclude=exclude)
        if data:  # else the object has displayed itself
            _publish_display_data(data, {**found, **(metadata or {})})


def _formatter(obj: Any) -> Any:
    from IPython.core.formatters import DisplayFormatter

    formatter = DisplayFormatter()
    if type(obj).__module__ == "matplotlib.figure":
        from IPython.core.pylabtools import print_figure

        formatter.formatters["image/png"].for_type(type(obj), print_figure)
    return formatter
