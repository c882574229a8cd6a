"""The user's own modules, as source: found here, imported elsewhere under their own names.

A module is the user's where its file lies outside the installed distributions, wherever that is. All that are imported
travel, packages whole, and what they import without having it imported yet. Where they arrive, a finder serves them
from memory; their `__file__` stays what it was, so that data beside them is found on the same machine.
"""

from __future__ import annotations

import importlib.util
import os
import re
import site
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

from sage_nb.errors import ShippingError

__all__ = ["Sources", "install", "is_users", "sources"]

Sources = dict[str, tuple[str, bytes | None, tuple[str, ...] | None]]
"""By module name: the file; its bytes, None of a namespace package; the folders of a package, None of a module."""

_OWN = __name__.partition(".")[0]
_IMPORT = re.compile(rb"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import|import[ \t]+([\w., \t]+))", re.MULTILINE)


@lru_cache(maxsize=1)
def _installed_folders() -> tuple[str, ...]:
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    found = {sysconfig.get_path(key) for key in keys} | set(site.getsitepackages()) | {site.getusersitepackages()}
    return tuple(os.path.join(os.path.realpath(path), "") for path in found if path)


@lru_cache(maxsize=4096)
def _is_installed(file: str) -> bool:
    if file.startswith("<"):
        return True
    parts = file.split(os.sep)
    if "site-packages" in parts or "dist-packages" in parts:
        return True
    return os.path.realpath(file).startswith(_installed_folders())


def _place(module: ModuleType | ModuleSpec) -> str | None:
    """The file of a module, the first folder of a namespace package; None of what is built in or made at run time."""
    spec = module if isinstance(module, ModuleSpec) else getattr(module, "__spec__", None)
    if not isinstance(spec, ModuleSpec) or spec.origin in ("built-in", "frozen"):
        return None
    if spec.origin:
        return spec.origin
    folders = [path for path in spec.submodule_search_locations or () if not _is_installed(path)]
    return folders[0] if folders else None


def is_users(name: str) -> bool:
    """Whether the module `name`, imported here, is the user's own, and importable by that name."""
    top = name.partition(".")[0]
    if name == "__main__" or top == _OWN or top in sys.stdlib_module_names:
        return False
    place = _place(sys.modules[name]) if isinstance(sys.modules.get(name), ModuleType) else None
    return place is not None and not _is_installed(place)


def sources(reached: Iterable[str] = ()) -> Sources:
    """The source of every module of the user's that is imported here, or is imported by one of them.

    `reached` are names that must be among them where they are the user's. Raises `ShippingError` for one of these
    whose source cannot be had, or whose package holds such a one.
    """
    reached = set(reached)
    wanted = {name.partition(".")[0] for name in [*sys.modules] if is_users(name)}
    wanted |= {name for name in (one.partition(".")[0] for one in reached) if _would_be_users(name)}
    found: Sources = {}
    done: set[str] = set()
    while wanted - done:
        top = min(wanted - done)
        done.add(top)
        files = _tree(top)
        found.update(files)
        imported = {name for _, text, _ in files.values() for name in _imports(text or b"")}
        wanted |= {name for name in imported if _would_be_users(name)}
    _refuse_compiled(reached, found)
    return found


def _would_be_users(top: str) -> bool:
    """Whether the top-level module `top`, imported or not, is the user's."""
    if top in ("", "__main__", _OWN) or top in sys.stdlib_module_names:
        return False
    if top in sys.modules:
        return is_users(top)
    where = (os.getcwd(), *sys.path)
    if _SEEN_INSTALLED.get(top) == where and not _lies_in_users_folder(top):
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return False
    place = _place(spec) if spec else None
    if place is not None and _is_installed(place):
        _SEEN_INSTALLED[top] = where
    return place is not None and not _is_installed(place)


_SEEN_INSTALLED: dict[str, tuple[str, ...]] = {}
"""Modules that are not imported and were found to be installed, with the folders by which: to look takes long."""


def _lies_in_users_folder(top: str) -> bool:
    """Whether there is something of that name in a folder of `sys.path` that is the user's: it may be new."""
    folders = (folder or os.curdir for folder in sys.path if not folder or not _is_installed(os.path.join(folder, "")))
    return any(os.path.exists(os.path.join(folder, f"{top}{ending}")) for folder in folders for ending in ("", ".py"))


@lru_cache(maxsize=4096)
def _imports(text: bytes) -> frozenset[str]:
    """The top-level modules that a source text imports."""
    names = (part for from_, plain in _IMPORT.findall(text) for part in (from_ or plain).split(b","))
    return frozenset(name.split()[0].partition(b".")[0].decode() for name in names if name.strip())


def _tree(top: str) -> Sources:
    """A module, or a package with all that is in it."""
    if shipped := {name: entry for name, entry in _FINDER.entries.items() if name.partition(".")[0] == top}:
        return shipped
    module = sys.modules.get(top)
    spec = getattr(module, "__spec__", None) or importlib.util.find_spec(top)
    if spec is None:
        return {}
    if spec.submodule_search_locations is None:
        text = _text(top, spec.origin, spec.loader)
        return {} if text is None else {top: (spec.origin or f"<{top}>", text, None)}
    folders = [path for path in spec.submodule_search_locations if not _is_installed(path)]
    found: Sources = {}
    for folder in folders:
        _walk(top, folder, found)
    if spec.origin is None and folders:
        found.setdefault(top, ("", None, tuple(folders)))
    return found


def _walk(name: str, folder: str, found: Sources) -> None:
    """Add the package `name` in `folder`. What has no `__init__.py` is a package where it holds one module or more."""
    subfolders = []
    try:
        entries = os.scandir(folder)
    except OSError:
        return  # moved or deleted since it was imported
    with entries:
        for entry in entries:
            stem, ending = os.path.splitext(entry.name)
            if entry.is_dir():
                if entry.name.isidentifier() and entry.name != "__pycache__" and not entry.is_symlink():
                    subfolders.append(entry)
            elif ending == ".py" and stem.isidentifier() and (text := _text(stem, entry.path)) is not None:
                if stem == "__init__":
                    found[name] = (entry.path, text, (folder,))
                else:
                    found[f"{name}.{stem}"] = (entry.path, text, None)
    for entry in subfolders:
        inner: Sources = {}
        if not os.path.exists(os.path.join(entry.path, "pyvenv.cfg")):
            _walk(f"{name}.{entry.name}", entry.path, inner)
        if inner:
            inner.setdefault(f"{name}.{entry.name}", ("", None, (entry.path,)))
            found.update(inner)


_TEXTS: dict[str, tuple[tuple[int, int], bytes]] = {}


def _text(name: str, file: str | None, loader: Any = None) -> bytes | None:
    """The bytes of a source file, read again only where it has changed; else what the loader gives."""
    try:
        if file is not None and file.endswith(".py"):
            stat = os.stat(file)
            signature = (stat.st_mtime_ns, stat.st_size)
            known = _TEXTS.get(file)
            if known is None or known[0] != signature:
                with open(file, "rb") as opened:
                    known = _TEXTS[file] = (signature, opened.read())
            return known[1]
    except OSError:
        pass  # moved or deleted since; the loader may still know it
    try:
        text = loader.get_source(name)
    except (AttributeError, ImportError, OSError):
        return None
    return text.encode() if isinstance(text, str) else None


def _refuse_compiled(reached: set[str], found: Sources) -> None:
    tops = {name.partition(".")[0] for name in reached}
    for name in sorted(sys.modules):
        if name in found or name.partition(".")[0] not in tops or not is_users(name):
            continue
        place = _place(sys.modules[name]) or ""
        if os.path.isdir(place):
            continue
        kind = "a compiled extension" if place.endswith(tuple(EXTENSION_SUFFIXES)) else "a module without source"
        raise ShippingError(
            f"the module {name} ({place}) is {kind} outside the installed packages, and cannot travel to another "
            "process; install its package there and here, for example with pip"
        )


class _Loader(SourceFileLoader):
    """A module whose source came from elsewhere. Files beside it are read from disk, where they are."""

    def __init__(self, name: str, file: str, text: bytes) -> None:
        super().__init__(name, file)
        self._text = text

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError("in memory")  # tells the base class to neither look for a cached .pyc nor write one

    def get_data(self, path: str) -> bytes:
        return self._text if path == self.path else super().get_data(path)


class _Finder:
    """Finds the modules that came from elsewhere, before any of the same name on `sys.path`."""

    def __init__(self) -> None:
        self.entries: Sources = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.entries:
            return None
        file, text, folders = self.entries[name]
        if text is None:
            return self._namespace(name, path, folders or ())
        # The same text on disk may have a .pyc, which saves compiling it.
        loader = SourceFileLoader(name, file) if _on_disk(file) == text else _Loader(name, file, text)
        search = list(folders) if folders is not None else None
        return importlib.util.spec_from_file_location(name, file, loader=loader, submodule_search_locations=search)

    def _namespace(self, name: str, path: Sequence[str] | None, folders: Iterable[str]) -> ModuleSpec:
        there = PathFinder.find_spec(name, path)
        spec = ModuleSpec(name, None, is_package=True)
        installed = there.submodule_search_locations or () if there is not None and there.origin is None else ()
        spec.submodule_search_locations = list(dict.fromkeys([*folders, *installed]))
        return spec


def _on_disk(file: str) -> bytes | None:
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError:
        return None


_FINDER = _Finder()
_LOCK = threading.Lock()


def install(arrived: Sources) -> None:
    """Make modules that came from elsewhere importable. Those that this process has already are left as they are."""
    new = {name: entry for name, entry in arrived.items() if name not in sys.modules and name not in _FINDER.entries}
    if not new:
        return
    with _LOCK:
        _FINDER.entries.update(new)
        if _FINDER not in sys.meta_path:
            sys.meta_path.insert(0, _FINDER)


def submodules(module: ModuleType, names: Iterable[str]) -> Iterator[str]:
    """The imported submodules of `module` that are reached by attributes called `names`."""
    names = list(names)
    for name in names:
        full = f"{module.__name__}.{name}"
        if isinstance(inner := sys.modules.get(full), ModuleType):
            yield full
            yield from submodules(inner, names)
