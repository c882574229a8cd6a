"""What the kernel's side of a job view gives to its page."""

from __future__ import annotations

from typing import Any

import pytest

from sage_nb.engine.results import Result
from sage_nb.errors import PipelineError
from sage_nb.notebook import downloads
from sage_nb.notebook.downloads import as_file
from tests.kernels import Kernel

LOOK = """
from sage_nb import LocalEnvironment
from sage_nb.notebook.view import JobView, settings

class Dot:
    def _repr_png_(self):
        return b"png"

env = LocalEnvironment("dots")
env.from_batch([1, 2]).map(lambda n: Dot()).collect("dots")
job = env.submit(autostop=True)
def model(after):
    settings.notify_after = after
    widget = JobView(job, get_ipython())._widget
    return widget.notify, widget.formats, list(widget.pictures), widget.snapshot["results"][0]["picture"]
print(model(30.0), model(None))
"""


def test_a_view_is_told_when_to_notify_and_gets_pictures_apart_from_the_snapshot(kernel: Any) -> None:
    """The snapshot is sent eight times a second; a picture only when there is a new one."""
    one: Kernel = kernel()
    said = one.run(LOOK).stdout
    formats = "['csv', 'parquet']"
    assert f"(30.0, {formats}, ['dots'], None) (None, {formats}, ['dots'], None)" in said


def result_of(*items: Any) -> Result:
    result = Result("out", "collect", None)
    result.extend(items)
    return result


def test_a_file_for_the_page_holds_the_whole_result() -> None:
    assert as_file(result_of(*({"n": n} for n in range(300))), "csv").splitlines()[-1] == b"299"
    assert as_file(result_of({"n": 1}), "parquet").startswith(b"PAR1")


def test_what_is_too_large_for_the_page_says_how_to_write_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "LIMIT", 10)
    with pytest.raises(PipelineError, match=r'job\.results\["out"\]\.to_csv\("out\.csv"\) writes the file'):
        as_file(result_of(*range(100)), "csv")
    with pytest.raises(PipelineError, match="more than 0 MB are too many"):
        as_file(result_of({"n": 1}), "parquet")
    with pytest.raises(PipelineError, match="csv or parquet, not as 'exe'"):
        as_file(result_of(1), "exe")


def test_what_is_too_large_for_the_page_is_not_written_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Long:
        written = 0

        def __str__(self) -> str:
            Long.written += 1
            return "long" * 250_000

    monkeypatch.setattr(downloads, "LIMIT", 3_000_000)
    with pytest.raises(PipelineError, match="more than 2 MB are too many"):
        as_file(result_of(*(Long() for _ in range(50))), "csv")
    assert 3 <= Long.written <= 5
