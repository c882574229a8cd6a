"""Jobs of kernels: listed, followed, and told what to do, whatever their kernel is doing."""

from __future__ import annotations

import time

from tests.jupyter.support import JupyterServer, Page, ServerKernel

ENDLESS = """
def numbers():
    n = 0
    while True:
        time.sleep(0.001)
        yield (n := n + 1)
env = LocalEnvironment({name!r})
env.from_batch(numbers()).map(lambda x: x + 1).sink(lambda x: None)
job = env.submit()
print(job.uuid)
"""


def endless(kernel: ServerKernel, name: str, cell: str | None = None) -> str:
    """Submit a job that does not end by itself; its uuid."""
    return kernel.run(ENDLESS.format(name=name), cell).strip()


def test_a_job_of_a_plain_submit_is_listed_while_it_runs_and_afterwards(
    jupyter: JupyterServer, notebook: ServerKernel
) -> None:
    uuid = endless(notebook, "plain", cell="a-cell")
    row = jupyter.row("plain", lambda row: row["status"] == "running")
    assert row["uuid"] == uuid
    assert (row["where"], row["place"], row["path"]) == ("kernel", "analysis.ipynb", "folder/analysis.ipynb")
    assert (row["kernel"], row["cell"], row["number"]) == (notebook.id, "a-cell", None)
    notebook.run("job.stop()")
    row = jupyter.row("plain", lambda row: row["status"] == "stopped")
    assert row["items"] > 0
    snapshot = jupyter.get(f"jobs/{uuid}")
    assert (snapshot["name"], snapshot["status"]) == ("plain", "stopped")
    bundle = jupyter.get(f"jobs/{uuid}/bundle")
    assert "plain" in bundle["text/html"]
    assert "plain" in bundle["text/plain"]


def test_stop_acts_while_the_main_thread_of_the_kernel_is_blocked(jupyter: JupyterServer, page: Page) -> None:
    kernel = jupyter.kernel("blocked.ipynb")
    kernel.run("import time\nfrom sage_nb import LocalEnvironment")
    uuid = endless(kernel, "blocked")
    kernel.start("time.sleep(600)")
    page.row("blocked", lambda row: row["status"] == "running")
    began = time.monotonic()
    assert jupyter.post(f"jobs/{uuid}/stop").status == 202
    page.row("blocked", lambda row: row["status"] == "stopped", 3.0)
    assert time.monotonic() - began < 3.0
    assert jupyter.post(f"jobs/{uuid}/stop").status == 202
    kernel.shutdown()
