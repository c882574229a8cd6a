"""What an installed package brings along for Jupyter: the extension is on, and its panel is found, at once."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import sage_nb

ROOT = Path(__file__).parents[2]


def test_the_wheel_has_all_that_jupyter_looks_for(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        data = f"sage_nb-{sage_nb.__version__}.data/data/"
        enabled = json.loads(archive.read(f"{data}etc/jupyter/jupyter_server_config.d/sage_nb.json"))
        package = json.loads(archive.read(f"{data}share/jupyter/labextensions/sage-nb/package.json"))
    assert enabled == {"ServerApp": {"jpserver_extensions": {"sage_nb_jupyter": True}}}
    assert package["version"] == sage_nb.__version__
    assert f"{data}share/jupyter/labextensions/sage-nb/{package['jupyterlab']['_build']['load']}" in names
    modules = {f"sage_nb_jupyter/{path.name}" for path in (ROOT / "jupyter_extension/sage_nb_jupyter").glob("*.py")}
    static = {f"sage_nb/notebook/static/{path.name}" for path in (ROOT / "sage_nb/notebook/static").iterdir()}
    assert modules | static <= names


def test_the_package_that_is_worked_on_is_installed_with_it() -> None:
    for installed, source in (
        ("etc/jupyter/jupyter_server_config.d/sage_nb.json", "sage_nb.json"),
        ("share/jupyter/labextensions/sage-nb/package.json", "labextension/package.json"),
        ("share/jupyter/labextensions/sage-nb/static/remote.js", "labextension/static/remote.js"),
    ):
        assert (Path(sys.prefix) / installed).read_text() == (ROOT / "jupyter_extension" / source).read_text()
