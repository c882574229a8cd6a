"""Completion in the lines of the magics, asked of a real kernel as a front end does."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from sage_nb.remote.daemon import start_background
from sage_nb.remote.settings import Settings
from tests.kernels import Kernel
from tests.notebook.test_magics import ENDLESS, PARTS
from tests.servers import own_folders


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the kernel needs in its environment to find the server of these tests."""
    with own_folders(tmp_path_factory.mktemp("home")) as environment:
        yield environment


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, home: dict[str, str]) -> Iterator[Kernel]:
    kernel = Kernel(tmp_path_factory.mktemp("shared"), env=home)
    assert kernel.run(PARTS).status == "ok"
    yield kernel
    kernel.shutdown()


def complete(kernel: Kernel, text: str) -> list[str]:
    """What the line would be after each completion, with the cursor at `|`."""
    at = text.index("|")
    code = text.replace("|", "")
    reply = kernel.wait(kernel._send("complete_request", {"code": code, "cursor_pos": at}))
    found: dict[str, Any] = reply.content or {}
    return [code[: found["cursor_start"]] + match + code[found["cursor_end"] :] for match in found["matches"]]


def seconds(kernel: Kernel, text: str) -> float:
    """How long our part of a completion takes in the kernel."""
    code = (
        "from IPython.core.completer import CompletionContext\n"
        f"context = CompletionContext('', {text!r}, {len(text)}, 0, 100)\n"
        "match = next(m for m in get_ipython().Completer.custom_matchers if m.matcher_identifier == 'sage_nb')\n"
        "began = time.perf_counter(); match(context); time.perf_counter() - began"
    )
    return float(kernel.run(code).result or "nan")


def test_options_and_their_values(shared: Kernel) -> None:
    assert complete(shared, "%%sage_submit squares --wa|\nenv") == ["%%sage_submit squares --wait\nenv"]
    assert complete(shared, "%%sage_submit --backend p|\n") == ["%%sage_submit --backend processes\n"]
    assert complete(shared, "%%sage_submit --backend=r|") == ["%%sage_submit --backend=ray"]
    assert complete(shared, "%%sage_submit --cleanup |") == [
        f"%%sage_submit --cleanup {one}" for one in ("always", "on_success", "never")
    ]
    assert complete(shared, "%sage_server st|") == [f"%sage_server {one}" for one in ("start", "stop", "status")]
    assert "%sage_stop --all" in complete(shared, "%sage_stop |")
    assert "%%sage_submit --wait --wait" not in complete(shared, "%%sage_submit --wait --|")


def test_below_the_line_of_the_magic_python_is_completed(shared: Kernel) -> None:
    assert complete(shared, "%%sage_submit x\nLocalEnv|") == ["%%sage_submit x\nLocalEnvironment"]


def test_variables_and_environments(shared: Kernel) -> None:
    shared.run("mine = LocalEnvironment('mine'); mild = 3; mills = [1]; import msgspec as mime")
    assert complete(shared, "%sage_submit mi|") == ["%sage_submit mine"]
    assert complete(shared, "%%sage_submit -i mild,mi|") == [
        f"%%sage_submit -i mild,{name}" for name in ("mine", "mild", "mills")
    ]
    assert not [line for line in complete(shared, "%%sage_submit mi|") if "mine" in line]  # the name of a job to be


def test_jobs_by_variable_name_and_id(shared: Kernel) -> None:
    shared.run("%%sage_submit brief --wait -o first\nenv.from_batch([1]).print()")
    shared.run(ENDLESS.replace("endless", '"on and on"'), cell_id="jobs")
    short = (shared.run("job.uuid[:8]").result or "").strip("'")
    assert complete(shared, f"%sage_job {short[:5]}|")[0] == f"%sage_job {short}"
    assert complete(shared, "%sage_logs bri|") == ["%sage_logs brief"]
    assert complete(shared, "%sage_stop |")[:3] == [f"%sage_stop {one}" for one in ("job", '"on and on"', short)]
    assert not [line for line in complete(shared, "%sage_stop |") if "brief" in line]
    assert complete(shared, '%sage_job "on a|') == ['%sage_job "on and on"']
    assert "on and on" in shared.run('%sage_stop "on and on"').stdout
    assert shared.run("job.status").result == "'stopped'"


def test_servers_and_their_jobs_also_while_the_server_does_not_answer(shared: Kernel, home: dict[str, str]) -> None:
    notice = start_background(Settings(port=0))
    address = f"{notice.host}:{notice.port}"
    assert complete(shared, "%sage_connect 127.|") == [f"%sage_connect {address}"]
    assert complete(shared, "%%sage_submit --remote |") == [f"%%sage_submit --remote {address}"]
    assert complete(shared, "%sage_server stop |")[0] == f"%sage_server stop {notice.port}"
    shared.run(f"%sage_connect {address}")
    shared.run("%%sage_submit distant --wait -o far\nenv.from_batch([1]).print()")
    assert complete(shared, "%sage_attach dis|") == ["%sage_attach distant"]
    os.kill(notice.pid, signal.SIGSTOP)
    try:
        assert complete(shared, "%sage_job dist|") == ["%sage_job distant"]
        assert seconds(shared, "%sage_job dist") < 0.05
    finally:
        os.kill(notice.pid, signal.SIGCONT)
    shared.run("%sage_connect --off")
    assert seconds(shared, "%%sage_submit --remote 127") < 0.05
    assert f"{notice.port} has stopped" in shared.run(f"%sage_server stop {notice.port}").stdout


def test_unload_takes_the_completion_away(shared: Kernel) -> None:
    shared.run("%unload_ext sage_nb")
    assert complete(shared, "%%sage_submit --wa|") == []
    assert shared.run("%load_ext sage_nb").status == "ok"
    assert complete(shared, "%%sage_submit --wa|") == ["%%sage_submit --wait"]
