"""The README's examples, run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.kernels import Kernel

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_notebook_example_runs(kernel: Callable[..., Kernel]) -> None:
    load, cell, *_ = BLOCKS
    assert len(cell.splitlines()) <= 20
    k = kernel(allow_stdin=False)
    k.run(f"import os; os.chdir({str(ROOT)!r})")
    assert k.run(load).status == "ok"
    reply = k.run(cell)
    assert reply.status == "ok", reply.traceback
    assert "Completed" in (reply.displays + reply.updates)[-1]["text/plain"]
    assert int(k.run("counts['job']").result or 0) > 1
    assert k.run("counts['the']").result == "0"
    assert k.run("all(len(w) > 9 for w in job.results['long words'])").result == "True"


def test_the_plain_example_runs(tmp_path: Path) -> None:
    assert printed_by(BLOCKS[2], tmp_path) == "[0, 1, 4, 9, 16, 25, 36, 49, 64, 81]\n"


def test_the_example_of_streams_prints_what_it_says(tmp_path: Path) -> None:
    _, promised = BLOCKS[3].split("#> ")
    assert printed_by(BLOCKS[3], tmp_path) == promised


def printed_by(block: str, folder: Path) -> str:
    script = folder / "example.py"
    script.write_text(block)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout


def test_what_the_readme_names_is_there() -> None:
    pictures = re.findall(r'(?:src|srcset)="([^"]+)"', README)
    for path in [*re.findall(r"\]\(((?!http)[^)]+)\)", README), *pictures]:
        assert (ROOT / path).exists(), path
