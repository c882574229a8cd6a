"""The examples of the pages in docs/, run as a reader would run them: one after the other, in one script."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sage_nb import LocalEnvironment
from sage_nb.engine.nodes import nodes_of
from sage_nb.engine.plan import make_plan
from sage_nb.engine.writing import generate

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BETWEEN = "\x1d"


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def promised(block: str) -> str:
    """What the lines that begin with `#>` say the block prints."""
    return "".join(f"{line[2:].removeprefix(' ')}\n" for line in block.splitlines() if line.startswith("#>"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_print_what_they_say(page: Path, tmp_path: Path) -> None:
    blocks = blocks_of(page)
    script = tmp_path / "examples.py"
    script.write_text(f"\nprint({BETWEEN!r})\n".join(blocks))
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    printed = done.stdout.split(f"{BETWEEN}\n") if blocks else []
    assert printed == [promised(block) for block in blocks]
    assert done.stderr == ""


def test_pages_name_what_is_there() -> None:
    """Links to files and to headings lead somewhere."""
    for page in PAGES:
        text = page.read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        for target in re.findall(r"\]\(((?!http)[^)]+)\)", text):
            file, _, anchor = target.partition("#")
            if file:
                assert (page.parent / file).exists(), f"{page.name}: {target}"
            else:
                assert anchor in anchors, f"{page.name}: {target}"


def test_the_loop_that_is_shown_is_the_one_that_runs() -> None:
    env = LocalEnvironment()
    env.from_batch([1]).map(abs).filter(bool).sink(print)
    (stage,) = make_plan(env._graph, env.name).stages
    generated = "\n".join(line.strip() for line in generate(nodes_of(stage, "iterate_sized")).text.splitlines())
    shown = re.search(
        r"^for x0 in source:.*?(?=^```)", (DOCS / "how-it-works.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert shown is not None
    assert "\n".join(line.strip() for line in shown[0].splitlines()) in generated
