"""Jobs of the user's JobManager server: started or found, listed, followed, told what to do, and passed through."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Iterator

import nbformat
import pytest

from sage_nb import Job, JobManagerClient, RemoteEnvironment
from sage_nb.remote.daemon import restart_background, running, start_background, stop_background
from sage_nb.remote.settings import Settings
from tests.jupyter.support import JupyterServer, Page, ServerKernel, opened, until
from tests.servers import own_folders


@pytest.fixture(scope="module")
def port(jupyter: JupyterServer) -> Iterator[int]:
    """The port of a server that was started by request."""
    with own_folders(jupyter.folder, runtime=jupyter.runtime):
        assert jupyter.get("server") == {"address": None, "state": "none", "error": None, "may_start": True}
        answer = jupyter.post("server/start")
        assert answer.status == 200, answer
        assert answer.json["state"] == "running"
        assert jupyter.post("server/start").json == answer.json  # the one that there is
        yield int(answer.json["address"].rpartition(":")[2])


def slow() -> Iterator[int]:
    for n in itertools.count():
        time.sleep(0.01)
        yield n


def submitted(port: int, name: str) -> Job:
    env = RemoteEnvironment(name, port=port)
    env.from_batch(slow).map(lambda x: x + 1).sink(lambda x: None)
    return env.submit()


def test_a_job_of_the_server_is_listed_followed_and_stopped(jupyter: JupyterServer, port: int, page: Page) -> None:
    page.state(lambda server: server["state"] == "running")
    job = submitted(port, "remote")
    row = page.row("remote", lambda row: row["status"] == "running" and row["items"] > 0)
    assert (row["uuid"], row["where"], row["place"], row["path"]) == (job.uuid, "server", f"127.0.0.1:{port}", None)
    assert row["number"] == job_number(port, job.uuid)
    page.say(op="follow", job=job.uuid)
    items = page.snapshot()["items"]
    page.snapshot(lambda snapshot: snapshot["items"] > items)
    for op, status in (("pause", "paused"), ("resume", "running"), ("resume", "running"), ("stop", "stopped")):
        assert jupyter.post(f"jobs/{job.uuid}/{op}").status == 202
        page.snapshot(lambda snapshot, status=status: snapshot["status"] == status)
    job.wait()
    items = job.snapshot().items
    page.row("remote", lambda row: row["status"] == "stopped" and row["items"] == items)
    assert jupyter.get(f"jobs/{job.uuid}")["server"] == f"127.0.0.1:{port}"
    assert jupyter.get(f"jobs/{job.uuid}/bundle")["text/plain"]
    assert isinstance(jupyter.get(f"jobs/{job.uuid}/logs?n=5"), list)
    JobManagerClient(port=port).delete_job(job.uuid)
    page.wait(lambda message: message == {"op": "gone", "job": job.uuid})


def test_a_notebook_is_made_that_attaches_to_a_job(jupyter: JupyterServer, port: int) -> None:
    job = submitted(port, "attached to")
    (jupyter.root / "some folder").mkdir(exist_ok=True)
    body = json.dumps({"beside": "some folder/other.ipynb"}).encode()
    answer = jupyter.ask("POST", f"sage-nb/jobs/{job.uuid}/notebook", body)
    assert answer.status == 201, answer
    path = answer.json["path"]
    assert path.startswith("some folder/")
    notebook = nbformat.read(jupyter.root / path, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert [cell.source for cell in notebook.cells] == [f"%load_ext sage_nb\n%sage_attach {job.uuid} 127.0.0.1:{port}"]
    assert jupyter.ask("POST", f"sage-nb/jobs/{job.uuid}/notebook", b"[]").status == 400
    assert jupyter.post("jobs/none/notebook").status == 404
    job.stop()


def job_number(port: int, uuid: str) -> int:
    number = JobManagerClient(port=port).get_job_status(uuid)["number"]
    assert isinstance(number, int)
    return number


def test_a_job_is_known_while_no_page_is_open(jupyter: JupyterServer, port: int) -> None:
    job = submitted(port, "unseen")
    assert jupyter.row("unseen", lambda row: row["status"] == "running")["uuid"] == job.uuid
    assert jupyter.post(f"jobs/{job.uuid}/stop").status == 202
    job.wait()
    assert jupyter.rows()["unseen"]["status"] == "stopped"


def test_a_job_that_a_notebook_submitted_has_its_cell(
    jupyter: JupyterServer, notebook: ServerKernel, port: int, page: Page
) -> None:
    uuid = notebook.run(
        f"""
import time
from sage_nb import RemoteEnvironment
def numbers():
    while True:
        time.sleep(0.01)
        yield 1
env = RemoteEnvironment("from a cell", port={port})
env.from_batch(numbers).sink(lambda x: None)
remote = env.submit()
print(remote.uuid)
""",
        cell="that-cell",
    ).strip()
    row = page.row("from a cell", lambda row: row["status"] == "running" and row["path"] and row["number"])
    where = ("folder/analysis.ipynb", "that-cell", "server")
    assert row["place"] == f"analysis.ipynb on 127.0.0.1:{port}"
    assert (row["path"], row["cell"], row["where"]) == where
    # Nor does it move to where somebody attaches to it, also when the kernel that submitted it is gone.
    attach = f"import sage_nb; again = sage_nb.attach({uuid!r}, port={port})"
    other = jupyter.kernel("other.ipynb")
    other.run(attach, cell="other-cell")
    notebook.run(attach, cell="later-cell")
    other.shutdown()
    notebook.restart()
    notebook.run(attach, cell="last-cell")
    page.say(op="follow", job=uuid)
    items = page.snapshot()["items"]
    page.snapshot(lambda snapshot: snapshot["items"] > items)
    row = jupyter.rows()["from a cell"]
    assert (row["path"], row["cell"], row["where"]) == where
    assert jupyter.post(f"jobs/{uuid}/stop").status == 202
    page.row("from a cell", lambda row: row["status"] == "stopped")


def test_a_server_that_is_killed_and_started_again_is_found_again(
    jupyter: JupyterServer, port: int, page: Page
) -> None:
    job = submitted(port, "survivor")
    page.row("survivor", lambda row: row["status"] == "running")
    notice = running(port)
    assert notice is not None
    os.kill(notice.pid, signal.SIGKILL)
    page.state(lambda server: server["state"] in ("unreachable", "none"))
    restart_background(port)
    page.state(lambda server: server["state"] == "running")
    page.row("survivor", lambda row: row["status"] == "failed")
    other = submitted(port, "next")
    page.row("next", lambda row: row["status"] == "running" and row["items"] > 0)
    other.stop()
    page.row("next", lambda row: row["status"] == "stopped")
    assert job.uuid in {row["uuid"] for row in jupyter.get("jobs")["rows"]}


def test_another_server_takes_the_place_of_one_that_has_stopped(jupyter: JupyterServer, port: int, page: Page) -> None:
    page.state(lambda server: server["state"] == "running")
    with_job = submitted(port, "of the first")
    page.row("of the first", lambda row: row["status"] == "running")
    with_job.stop()
    stop_background(port)
    page.state(lambda server: server["state"] == "none")
    assert jupyter.ask("GET", "sage-nb/jobmanager/health").status == 503
    second = start_background(Settings(port=0))
    page.state(lambda server: server["address"] == f"127.0.0.1:{second.port}")
    assert "of the first" not in jupyter.rows()
    stop_background(second.port)
    start_background(Settings(port=port))


def test_the_server_is_passed_through_and_its_token_is_not(jupyter: JupyterServer, port: int) -> None:
    notice = running(port)
    assert notice is not None
    assert notice.token
    answer = jupyter.ask("GET", "sage-nb/jobmanager/v1/server")
    assert answer.status == 200
    assert answer.json["pid"] == notice.pid
    assert notice.token not in answer.body.decode() + str(answer.headers) + jupyter.log
    assert jupyter.ask("GET", "sage-nb/jobmanager/v1/jobs/none").json["error"]["type"] == "JobNotFoundError"
    assert jupyter.ask("GET", "sage-nb/jobmanager/../api/status").status in (400, 403, 404)
    job = submitted(port, "passed")
    url = f"{jupyter.url}sage-nb/jobmanager/v1/watch?format=json&token={jupyter.token}".replace("http", "ws", 1)
    socket = opened(url)
    socket.send(json.dumps({"op": "watch", "sub": 1, "job": job.uuid}))
    while json.loads(socket.recv())["op"] != "snapshot":
        pass
    asked = jupyter.ask("POST", f"sage-nb/jobmanager/v1/jobs/{job.uuid}/stop", b'{"timeout": 5}')
    assert asked.json["status"] == "stopped"
    while json.loads(socket.recv()).get("kind") != "ENDED":
        pass
    socket.close()
    data = RemoteEnvironment("sent", port=port)
    data.from_collection([1]).collect("out")
    uuid = "10000000-0000-4000-8000-000000000000"
    assert jupyter.ask("PUT", f"sage-nb/jobmanager/v1/jobs/{uuid}", data.serialize()).status == 201
    jupyter.row("sent", lambda row: row["status"] == "completed" and row["items"] == 1)
    assert jupyter.ask("DELETE", f"sage-nb/jobmanager/v1/jobs/{uuid}").status == 200
    until(lambda: "sent" not in jupyter.rows())
