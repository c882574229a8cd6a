"""What Binder needs to open the quickstart, as far as it can be checked without building an image."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
BINDER = ROOT / "binder"


def test_pins_are_those_of_the_lock() -> None:
    """Whoever opens the notebook on Binder gets the versions that were tested."""
    # Not the markers: a package may be wanted in fewer places without the tests' own requirements.
    lock = {line.partition(" ;")[0] for line in pins(ROOT / "requirements.lock")}
    binder = [line.partition(" ;")[0] for line in pins(BINDER / "requirements.txt")]
    assert binder
    assert [pin for pin in binder if pin not in lock] == []


def test_every_direct_requirement_is_pinned() -> None:
    """The package is installed without its dependencies, so Binder's list has to hold all of them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {canonicalize_name(Requirement(line).name) for line in pins(BINDER / "requirements.txt")}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["demo"]]
    assert {canonicalize_name(Requirement(line).name) for line in wanted} <= pinned


def test_lists_name_packages_and_versions_only() -> None:
    """No index address and no path, which would hold on one machine alone."""
    for file in (ROOT / "requirements.lock", BINDER / "requirements.txt"):
        for line in pins(file):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; .+)?", line), f"{file.name}: {line}"


def test_post_build_can_be_executed() -> None:
    """Binder runs it as a program, and fails the build where it is not one."""
    script = BINDER / "postBuild"
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!")


def test_python_is_one_the_package_supports() -> None:
    """Binder's Python is at least the oldest that pyproject.toml allows."""
    runtime = (BINDER / "runtime.txt").read_text().strip()
    match = re.fullmatch(r"python-(\d+\.\d+)", runtime)
    assert match, runtime
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert Requirement(f"python{project['requires-python']}").specifier.contains(match[1])


def test_quickstart_is_where_the_links_point() -> None:
    """The badge opens lab/tree/notebooks/01_quickstart.ipynb."""
    assert (ROOT / "notebooks" / "01_quickstart.ipynb").is_file()


def pins(file: Path) -> list[str]:
    return [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
