"""Forms for functions that declare pipelines, in real kernels: filled, submitted, submitted again, told as code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernels import Kernel, Reply
from tests.notebook.test_magics import PARTS, WIDGET

Start = Callable[..., Kernel]
BUILD = """
import datetime, enum
from pathlib import Path
from typing import Annotated, Literal

class Color(enum.Enum):
    RED = 1
    BLUE = 2

def build(env, n: Annotated[int, Range(1, 10)] = 3, factor: float = 1.5, mode: Literal["sum", "each"] = "each",
          color: Color = Color.BLUE, parts: list[Literal["a", "b", "c"]] = ["a"], file: Path = Path("in.csv"),
          day: datetime.date = datetime.date(2026, 1, 2), name: str = "x", limit: int | None = None, loud=False):
    '''Multiply numbers.

    Args:
        n: how many numbers
        factor (float): what they are multiplied with
    '''
    if n == 7:
        raise ValueError("7 is too many")
    env.register_service("clock", Clock)
    env.from_source(ticks).take(n).map(lambda x: x * factor).collect("all")

def endless(env, step: int = 1):
    env.register_service("clock", Clock)
    env.from_source(ticks).map(lambda x: x * step).show("ticks")
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path_factory.mktemp("shared"))
    assert kernel.run(PARTS + BUILD).status == "ok"
    yield kernel
    kernel.shutdown()


def click(kernel: Kernel, button: str, times: int = 1) -> None:
    """Press a button as a page does."""
    comm = (kernel.run(f"{button}.model_id").result or "").strip("'")
    for reply in [kernel.send_comm(comm, {"method": "custom", "content": {"event": "click"}}) for _ in range(times)]:
        kernel.wait(reply)


def said(kernel: Kernel) -> str:
    return kernel.run("print(form._said.value)").stdout


def shown(kernel: Kernel, reply: Reply) -> list[dict[str, Any]]:
    (outputs,) = [outputs for outputs in kernel.displays.values() if outputs[0] == reply.displays[0]]
    return outputs


def test_every_annotation_has_its_control(shared: Kernel) -> None:
    shared.run("form = launcher(build)")
    kinds = shared.run("print({name: type(one.widget).__name__ for name, one in form.controls.items()})").stdout
    assert kinds.strip() == str(
        {
            "n": "IntSlider", "factor": "FloatText", "mode": "Dropdown", "color": "Dropdown",
            "parts": "SelectMultiple", "file": "Combobox", "day": "DatePicker", "name": "Text", "limit": "IntText",
            "loud": "Checkbox",
        }
    )  # fmt: skip
    assert shared.run("form.values == dict(n=3, factor=1.5, mode='each', color=Color.BLUE, parts=['a'], "
                      "file=Path('in.csv'), day=datetime.date(2026, 1, 2), name='x', limit=None, loud=False)"
                      ).result == "True"  # fmt: skip
    text = shared.run("print(form)").stdout.splitlines()
    assert text[0] == "Multiply numbers"
    assert text[1].split() == ["n", "3", "how", "many", "numbers"]
    assert text[2].split() == ["factor", "1.5", "what", "they", "are", "multiplied", "with"]


def test_submit_runs_what_the_form_says_and_a_saved_notebook_can_be_read(shared: Kernel) -> None:
    reply = shared.run("form = launcher(build)\nform")
    assert {WIDGET, "text/html", "text/plain"} <= reply.displays[0].keys()
    shared.run("form.set(n=4, factor=2.0, color=Color.RED)")
    click(shared, "form._button")
    shared.until(lambda: shared.run("form.job is not None and form.job.wait().status").result == "'completed'")
    assert shared.run("list(form.job.results['all']), form.job.name").result == "([0.0, 2.0, 4.0, 6.0], 'build')"
    shared.until(lambda: "✓ Completed  build" in shown(shared, reply)[-1]["text/plain"])
    last = shown(shared, reply)[-1]
    assert re.search(r"Multiply numbers\n  n +4 .*\n", last["text/plain"])
    assert "Completed" in last["text/html"]
    assert WIDGET in last  # the form goes on
    assert shared.run("type(form._below.children[0]).__name__").result == "'JobWidget'"
    shared.until(lambda: shared.run("leftovers()").result == "[]")


def test_submitting_again_stops_and_cleans_the_earlier_job(shared: Kernel) -> None:
    before = int(shared.run("cleaned()").result or 0)
    shared.run("form = launcher(endless)\nform")
    shared.run("form.submit();")
    shared.until(lambda: shared.run("form.job.status").result == "'running'")
    shared.run("first, view = form.job, form._below.children[0]; form.set(step=2)")
    click(shared, "form._button", times=2)  # a double click is one
    shared.until(lambda: shared.run("form.job is not first and form.job.status").result == "'running'")
    assert shared.run("first.status, cleaned(), form._below.children[0] is view").result == (
        f"('stopped', {before + 1}, False)"
    )
    shared.run("form.job.stop()")
    assert shared.run("len([i for i in form.env.jobmanager.jobs.values() if i.status == 'running'])").result == "0"


def test_running_the_cell_again_stops_what_its_form_has_submitted(shared: Kernel) -> None:
    shared.run("form = launcher(endless)\nform", cell_id="form")
    shared.run("first = form.submit()")
    assert shared.run("first.status in ('starting', 'running')").result == "True"
    shared.run("form = launcher(endless)\nform", cell_id="form")
    assert shared.run("first.status").result == "'stopped'"


def test_what_goes_wrong_is_one_line_below_the_form_and_stops_nothing(shared: Kernel) -> None:
    shared.run("form = launcher(build)\nform")
    shared.run("first = form.submit(); first.wait(); form.set(n=7)")
    click(shared, "form._button")
    shared.until(lambda: "7 is too many" in said(shared))
    line = re.sub("<[^>]*>", "", said(shared)).strip()
    assert re.fullmatch(r"✗ ValueError: 7 is too many \(Cell In\[\d+\], line \d+: raise ValueError\(.*\)\)", line)
    assert shared.run("form.job is first").result == "True"
    reply = shared.run("form.submit()")
    assert reply.error == ("ValueError", "7 is too many")
    shared.run("form.set(n=2).controls['file'].widget.value = ''")
    assert shared.run("form.submit()").error == ("PipelineError", "file is empty: give a value")


def test_the_values_as_code_do_the_same_again(shared: Kernel) -> None:
    shared.run("form = launcher(build, name='fixed').set(n=2, limit=5, parts=['b', 'c'])")
    shared.run("code = form.code()")
    assert shared.run("print(code)").stdout.splitlines() == [
        "from pathlib import Path",
        "from sage_nb import LocalEnvironment",
        "import datetime",
        "",
        "env = LocalEnvironment('build')",
        "build(env, n=2, factor=1.5, mode='each', color=Color.BLUE, parts=['b', 'c'], file=Path('in.csv'), "
        "day=datetime.date(2026, 1, 2), limit=5, loud=False, name='fixed')",
        "job = env.submit()",
        "job",
    ]
    assert shared.run("exec(code); list(job.wait().results['all'])").result == "[0.0, 1.5]"
    reply = shared.run("form.new_cell()")
    assert reply.content is not None
    assert reply.content["payload"][0]["text"].startswith("from pathlib import Path")
    shared.run("form")
    click(shared, "form._form.children[-3].children[1]")
    assert "env = LocalEnvironment(&#x27;build&#x27;)" in said(shared)


def test_in_processes(shared: Kernel) -> None:
    shared.run("form = launcher(build).set(n=2); form.target = 'processes'")
    assert shared.run("list(form.submit().wait().results['all']), form.env.backend").result == (
        "([0.0, 1.5], 'processes')"
    )
    assert "backend='processes'" in shared.run("print(form.code())").stdout
    assert shared.run("form.target = 'there'").error == (
        "PipelineError", "there is no target 'there'; there are: HOST:PORT, kernel, processes, ray"
    )  # fmt: skip
    shared.run("form.target = '127.0.0.1:1'")
    reply = shared.run("form.submit()")
    assert reply.error is not None
    assert "no JobManager server answers at 127.0.0.1:1" in reply.error[1]


def test_unwatched_it_is_text_and_submits(shared: Kernel) -> None:
    reply = shared.run("form = launcher(build)\nform", allow_stdin=False)
    assert WIDGET not in reply.displays[0]
    assert reply.displays[0]["text/plain"].startswith("Multiply numbers\n")
    assert shared.run("form.submit().wait().status", allow_stdin=False).result == "'completed'"
    assert "✓ Completed  build" in shown(shared, reply)[-1]["text/plain"]


def test_a_path_is_completed_from_the_files_there_are(shared: Kernel) -> None:
    folder = Path(shared.folder) / "data"
    folder.mkdir()
    (folder / "a.csv").touch()
    shared.run("form = launcher(build).set(file='data/')")
    assert shared.run("form.controls['file'].widget.options").result == "('data/a.csv',)"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("launcher(3)", "takes a function such as def build"),
        ("def f(): pass\nlauncher(f)", r"f\(\) takes no environment: begin it with env"),
        ("def f(n: int): pass\nlauncher(f)", r"f\(\) takes no environment"),
        ("def f(env, n): pass\nlauncher(f)", r"f\(\): n has neither an annotation nor a default"),
        ("def f(env, n=None): pass\nlauncher(f)", r"f\(\): n=None says no type"),
        ("def f(env, n: complex): pass\nlauncher(f)", r"n: there is no control for complex, only for bool"),
        ("def f(env, n: list[complex]): pass\nlauncher(f)", r"no control for list\[complex\]"),
        ("def f(env, n: Annotated[int, Range(1, 5)] = 9): pass\nlauncher(f)", r"n cannot be 9: it is from 1 to 5"),
        ("def f(env, n: Literal['a'] = 'b'): pass\nlauncher(f)", r"n cannot be 'b'"),
        ("def f(env, number: int): pass\nlauncher(f, nubmer=1)", "no parameter 'nubmer'; did you mean 'number'?"),
        ("def f(env, n: 'Nothing'): pass\nlauncher(f)", "name 'Nothing' is not defined"),
        ("launcher(build).set(nn=1)", "the form has no 'nn'; did you mean 'n'?"),
        ("Range(3, 1)", "the first number is below the second"),
        ("launcher(build, name=object()).code()", "no code makes the value of 'name'"),
    ],
)
def test_what_it_cannot_make_a_form_of_it_says(shared: Kernel, code: str, says: str) -> None:
    reply = shared.run(code)
    assert reply.error is not None
    assert reply.error[0] in ("PipelineError", "SignatureError")
    assert re.search(says, reply.error[1])
