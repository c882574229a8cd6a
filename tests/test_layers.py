"""The package's shape: imports point one way, and every public name is there."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import sage_nb

ROOT = Path(sage_nb.__file__).parent
EXTENSION = ROOT.parent / "jupyter_extension" / "sage_nb_jupyter"
LAYERS = ["errors", "pipeline", "engine", "jobs", "remote", "notebook"]
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def layer_of(module: str) -> str | None:
    """`pipeline` of `sage_nb.pipeline.stream`."""
    parts = module.split(".")
    return parts[1] if parts[0] == "sage_nb" and len(parts) > 1 else None


def imported(path: Path) -> set[str]:
    """The modules that a file imports anywhere, also inside functions and for type checking."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    """errors ← pipeline ← engine ← jobs ← remote ← notebook ← sage_nb_jupyter."""
    assert not [name for name in imported(path) if name.startswith("sage_nb_jupyter")]
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    if own not in LAYERS:
        assert own in ("cli", "__main__")
        return
    above = LAYERS[LAYERS.index(own) + 1 :]
    assert not {name for name in imported(path) if layer_of(name) in above}


@pytest.mark.parametrize("path", sorted(EXTENSION.glob("*.py")), ids=lambda path: path.name)
def test_the_server_extension_is_on_top(path: Path) -> None:
    """It takes what it shows from the layers below, and has no part in how jobs run."""
    assert not {layer_of(name) for name in imported(path)} & {"pipeline", "cli"}


def test_every_folder_is_a_layer() -> None:
    assert {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in MODULES} <= {*LAYERS, "cli", "__main__"}


def test_every_public_name_is_there_once_and_in_order() -> None:
    names = [name for name in sage_nb.__all__ if not name.endswith("ipython_extension")]
    assert names == sorted(set(names))
    for name in sage_nb.__all__:
        assert getattr(sage_nb, name).__name__ == name
    assert set(sage_nb.__all__) <= set(dir(sage_nb))


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        sage_nb.nonsense  # noqa: B018


NAMES = [found.name for found in pkgutil.walk_packages([str(ROOT)], "sage_nb.") if ".notebook" not in found.name]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_module_offers_is_there(name: str) -> None:
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", []):
        assert hasattr(module, public)


def test_every_error_of_ours_is_public() -> None:
    from sage_nb import errors

    assert set(errors.__all__) <= set(sage_nb.__all__)
