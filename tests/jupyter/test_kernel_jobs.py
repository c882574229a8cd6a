"""Jobs of kernels: listed, followed, and told what to do, whatever their kernel is doing."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.jupyter.support import JupyterServer, Page, ServerKernel, until

PREPARE = """
import threading, time
from sage_nb import LocalEnvironment
def numbers():
    n = 0
    while True:
        time.sleep(0.001)
        yield (n := n + 1)
def submit(name):
    env = LocalEnvironment(name)
    env.from_batch(numbers()).map(lambda x: x + 1).sink(lambda x: None)
    return env.submit()
def announces():
    return [thread.name for thread in threading.enumerate() if "announcements" in thread.name]
"""


@pytest.fixture
def kernel(jupyter: JupyterServer) -> Iterator[ServerKernel]:
    """A kernel of its own, without a notebook."""
    kernel = jupyter.kernel()
    kernel.run(PREPARE)
    yield kernel
    kernel.shutdown()


@pytest.fixture(scope="module", autouse=True)
def _prepared(notebook: ServerKernel) -> None:
    notebook.run(PREPARE)


def submit(kernel: ServerKernel, name: str, cell: str | None = None) -> str:
    """Submit a job that does not end by itself; its uuid."""
    return kernel.run(f"job = submit({name!r}); print(job.uuid)", cell).strip()


def test_a_plain_submit_is_listed_while_it_runs_and_afterwards(jupyter: JupyterServer, notebook: ServerKernel) -> None:
    uuid = submit(notebook, "plain", cell="a-cell")
    row = jupyter.row("plain", lambda row: row["status"] == "running")
    assert row["uuid"] == uuid
    assert (row["where"], row["place"], row["path"]) == ("kernel", "analysis.ipynb", "folder/analysis.ipynb")
    assert (row["kernel"], row["cell"], row["number"]) == (notebook.id, "a-cell", None)
    notebook.run("job.stop()")
    row = jupyter.row("plain", lambda row: row["status"] == "stopped")
    assert row["items"] > 0
    assert row["reason"] is None
    snapshot = jupyter.get(f"jobs/{uuid}")
    assert (snapshot["name"], snapshot["status"]) == ("plain", "stopped")
    bundle = jupyter.get(f"jobs/{uuid}/bundle")
    assert "plain" in bundle["text/html"]
    assert "plain" in bundle["text/plain"]


def test_all_ways_to_submit_are_announced_and_no_thread_is_left(jupyter: JupyterServer, notebook: ServerKernel) -> None:
    notebook.run("""
env = LocalEnvironment("awaited")
env.from_collection([1, 2]).collect("out")
await env.submit_async(wait=True)
with LocalEnvironment("in a thread") as threaded:
    threaded.from_collection([1, 2]).collect("out")
    thread = threading.Thread(target=threaded.submit, args=(True,))
    thread.start()
    thread.join()
bad = LocalEnvironment("bad")
bad.from_collection([0]).map(lambda x: 1 // x).collect("out")
try:
    bad.submit(autostop=True)
except ZeroDivisionError:
    pass
""")
    notebook.run("%load_ext sage_nb")
    notebook.run("%%sage_submit magic\nenv.from_collection([1, 2]).collect('out')", cell="its-cell")
    for name in ("awaited", "in a thread", "magic"):
        assert jupyter.row(name, lambda row: row["status"] == "completed")["items"] == 2
    assert jupyter.rows()["magic"]["cell"] == "its-cell"
    assert jupyter.row("bad", lambda row: row["status"] == "failed")["error"].startswith("ZeroDivisionError: ")
    until(lambda: notebook.run("print(announces())").strip() == "[]")


def test_stop_acts_while_the_main_thread_of_the_kernel_is_blocked(
    jupyter: JupyterServer, kernel: ServerKernel, page: Page
) -> None:
    uuid, pid = submit(kernel, "blocked"), kernel.pid
    kernel.start("time.sleep(600)")
    page.row("blocked", lambda row: row["status"] == "running")
    began = time.monotonic()
    assert jupyter.post(f"jobs/{uuid}/stop").status == 202
    page.row("blocked", lambda row: row["status"] == "stopped", 3.0)
    assert time.monotonic() - began < 3.0
    assert jupyter.post(f"jobs/{uuid}/stop").status == 202  # once more is no matter
    os.kill(pid, signal.SIGINT)


def test_a_job_pauses_and_resumes(jupyter: JupyterServer, notebook: ServerKernel, page: Page) -> None:
    uuid = submit(notebook, "paused")
    page.say(op="follow", job=uuid)
    page.snapshot(lambda snapshot: snapshot["status"] == "running")
    assert jupyter.post(f"jobs/{uuid}/pause").status == 202
    page.snapshot(lambda snapshot: snapshot["status"] == "paused")
    assert jupyter.post(f"jobs/{uuid}/resume").status == 202
    items = page.snapshot(lambda snapshot: snapshot["status"] == "running")["items"]
    page.snapshot(lambda snapshot: snapshot["items"] > items)
    notebook.run("job.stop()")
    last = page.snapshot(lambda snapshot: snapshot["status"] == "stopped")
    assert last["items"] == int(notebook.run("print(job.snapshot().items)"))


def test_what_nobody_knows_is_said_in_a_sentence(jupyter: JupyterServer, page: Page) -> None:
    unknown = "00000000-0000-4000-8000-000000000000"
    assert jupyter.get(f"jobs/{unknown}/bundle") == {}  # which an output of it is to show instead: nothing
    for answer in (
        jupyter.ask("GET", f"sage-nb/jobs/{unknown}"),
        jupyter.ask("GET", f"sage-nb/jobs/{unknown}/logs"),
        jupyter.post(f"jobs/{unknown}/stop"),
        jupyter.post("jobs/%2e%2e/stop"),
    ):
        assert answer.status == 404
        assert "knows the job" in answer.json["message"]
    page.say(op="follow", job=unknown)
    page.wait(lambda message: message == {"op": "gone", "job": unknown})


def test_counters_come_at_the_pace_that_a_page_needs(jupyter: JupyterServer, notebook: ServerKernel) -> None:
    uuid = submit(notebook, "paced")
    with jupyter.page() as looking, jupyter.page() as hidden:
        looking.row("paced", lambda row: row["status"] == "running")
        hidden.row("paced", lambda row: row["status"] == "running")
        looking.say(op="visible", visible=True)
        began, items = time.monotonic(), 0
        for _ in range(4):
            items = looking.row("paced", lambda row, before=items: row["items"] > before)["items"]
        assert time.monotonic() - began > 2.0  # one a second
        looking.say(op="follow", job=uuid)
        began = time.monotonic()
        for _ in range(5):
            items = looking.snapshot(lambda snapshot, before=items: snapshot["items"] > before)["items"]
        assert time.monotonic() - began > 0.7  # four a second
        looking.say(op="visible", visible=False)
        looking.say(op="unfollow", job=uuid)
        assert jupyter.post(f"jobs/{uuid}/stop").status == 202
        hidden.row("paced", lambda row: row["status"] == "stopped")
        told = [row["items"] for message in hidden.heard for row in message["rows"] if row["name"] == "paced"]
        assert len(told) <= 5  # states alone: running, stopping, stopped


def test_the_lines_of_a_log_while_it_runs_and_afterwards(jupyter: JupyterServer, notebook: ServerKernel) -> None:
    uuid = notebook.run("""
from sage_nb import MapFunction
class Says(MapFunction):
    def execute(self, item):
        self.logger.info("line %d", item)
        return item
env, go_on = LocalEnvironment("says"), threading.Event()
def items():
    yield from range(300)
    go_on.wait()
    yield from range(300, 700)
env.from_batch(items()).map(Says).sink(lambda x: None)
job = env.submit()
print(job.uuid)
""").strip()

    def lines(n: int) -> list[str]:
        return [line["text"] for line in jupyter.get(f"jobs/{uuid}/logs?n={n}")]

    until(lambda: lines(1) == ["line 299"])
    assert lines(500)[-300:] == [f"line {n}" for n in range(300)]
    notebook.run("go_on.set(); job.wait()")
    until(lambda: lines(1) == ["line 699"])
    assert lines(500) == [f"line {n}" for n in range(200, 700)]
    assert {*jupyter.get(f"jobs/{uuid}/logs?n=1")[0]} == {"time", "level", "source", "text"}
    assert jupyter.ask("GET", f"sage-nb/jobs/{uuid}/logs?n=none").status == 400


def test_jobs_of_a_killed_kernel_are_stopped(jupyter: JupyterServer, kernel: ServerKernel, page: Page) -> None:
    uuid = submit(kernel, "killed")
    page.row("killed", lambda row: row["status"] == "running")
    os.kill(kernel.pid, signal.SIGKILL)
    row = page.row("killed", lambda row: row["status"] == "stopped")
    assert row["reason"] == jupyter.get(f"jobs/{uuid}")["reason"] == "its kernel is gone"
    assert "Stopped: its kernel is gone" in jupyter.get(f"jobs/{uuid}/bundle")["text/plain"]
    assert jupyter.post(f"jobs/{uuid}/stop").status == 202


def test_jobs_of_a_restarted_kernel_are_stopped_and_go_with_it(
    jupyter: JupyterServer, kernel: ServerKernel, page: Page
) -> None:
    submit(kernel, "before")
    page.row("before", lambda row: row["status"] == "running")
    kernel.restart()
    row = page.row("before", lambda row: row["status"] == "stopped")
    assert row["reason"] == "its kernel was restarted or shut down"
    kernel.run(PREPARE)
    submit(kernel, "after")
    row = page.row("after", lambda row: row["status"] == "running")
    assert row["kernel"] == kernel.id
    assert row["place"] == f"kernel {kernel.id[:8]}"
    assert jupyter.rows()["before"]["status"] == "stopped"
    kernel.run("job.stop()")
    other = jupyter.kernel("gone.ipynb")
    other.run(PREPARE)
    uuid = submit(other, "shut down")
    page.row("shut down", lambda row: row["status"] == "running")
    other.shutdown()
    page.wait(lambda message: "rows" in message and "shut down" not in {row["name"] for row in message["rows"]})
    assert jupyter.get(f"jobs/{uuid}")["status"] == "stopped"  # for the outputs that still show it


def test_a_child_of_the_kernel_announces_nothing(jupyter: JupyterServer, notebook: ServerKernel) -> None:
    """What inherits the variable and is no kernel, and what was forked, leaves the telling to the kernel."""
    notebook.run("""
import os, subprocess, sys
code = '''
from sage_nb import LocalEnvironment
env = LocalEnvironment("of a script")
env.from_collection([1]).collect("out")
env.submit(autostop=True)
'''
subprocess.run([sys.executable, "-c", code], check=True)
pid = os.fork()
if pid == 0:
    env = LocalEnvironment("of a fork")
    env.from_collection([1]).collect("out")
    env.submit(autostop=True)
    os._exit(0)
os.waitpid(pid, 0)
env = LocalEnvironment("of the kernel")
env.from_collection([1]).collect("out")
env.submit(autostop=True)
""")
    jupyter.row("of the kernel", lambda row: row["status"] == "completed")
    assert not {"of a script", "of a fork"} & jupyter.rows().keys()


def test_without_the_variable_there_is_no_thread_and_nothing_is_listed(
    jupyter: JupyterServer, kernel: ServerKernel
) -> None:
    kernel.run("import os; os.environ['SAGE_NB_JUPYTER'] = ''")
    submit(kernel, "alone")
    assert kernel.run("print(announces())").strip() == "[]"
    kernel.run("os.environ['SAGE_NB_JUPYTER'] = '/nowhere/at/all.sock'")
    submit(kernel, "lost")
    assert kernel.run("print(announces())").strip() == "['sage_nb announcements']"
    kernel.run("job.stop()")
    until(lambda: kernel.run("print(announces(), job.status, job.notes)").strip() == "[] stopped ()")
    assert not {"alone", "lost"} & jupyter.rows().keys()


def test_there_are_at_most_200_jobs_and_the_oldest_ended_go_first(jupyter: JupyterServer, kernel: ServerKernel) -> None:
    uuid = submit(kernel, "oldest")
    kernel.run("""
env = LocalEnvironment("many")
env.from_collection([1]).collect("out")
for n in range(205):
    env.submit(autostop=True)
""")
    until(lambda: len(jupyter.get("jobs")["rows"]) == 200)
    rows = jupyter.get("jobs")["rows"]
    assert [row["started"] for row in rows] == sorted((row["started"] for row in rows), reverse=True)
    assert rows[-1]["uuid"] == uuid


def test_the_last_word_of_a_short_job_is_never_lost(jupyter: JupyterServer, kernel: ServerKernel, page: Page) -> None:
    """However the pace that the page asks for crosses the end of the job."""
    uuids = kernel.run("""
for n in range(100):
    env = LocalEnvironment(f"short {n}")
    env.from_collection([1]).collect("out")
    print(env.submit(autostop=True).uuid)
""").split()
    until(lambda: [row["status"] for row in jupyter.get("jobs")["rows"] if row["uuid"] in uuids] == 100 * ["completed"])
