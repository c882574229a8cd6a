"""The JavaScript: its own tests, its size. Its types are checked by `make lint`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import sage_nb.notebook
from tools.node import ROOT, command

STATIC = Path(sage_nb.notebook.__file__).parent / "static"
REMOTE = ROOT / "jupyter_extension" / "labextension" / "static" / "remote.js"
MOST_LINES = 1_500


def test_the_javascript_passes_its_own_tests() -> None:
    """Node's own runner, on `tests/js`; at least one test ran."""
    done = subprocess.run([*command("test")], cwd=ROOT, capture_output=True, text=True, timeout=100)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    found = re.search(r"^\S+ pass (\d+)$", said, re.MULTILINE)
    assert found is not None, said
    assert int(found[1]) >= 1, said


def test_the_javascript_stays_small() -> None:
    """The view, the table, the panel and what loads it in 1,500 lines, none of which is longer than 120 columns."""
    lines = [line for file in (*STATIC.glob("*.js"), REMOTE) for line in file.read_text().splitlines()]
    assert len(lines) <= MOST_LINES
    assert [line for line in lines if len(line) > 120] == []
