"""Jobs and those who submitted them: what ends with a client, and what does not."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.faults.servers import Server, gone
from tests.faults.support import wait_for
from tests.support import LIMIT, Script, until

SUBMITS = """
import time
from pathlib import Path
from sage_nb import BaseService, RemoteEnvironment, attach
from tests.faults.support import begin, mark
from tests.support import endless

class Marks(BaseService):
    def process(self): ...
    def cleanup(self):
        time.sleep({cleanup})
        mark(Path({folder!r}), "cleaned")

def tell(item):
    if item == 5:
        begin(Path({folder!r}))
    return item

env = RemoteEnvironment("owned", {{"server": {{"owner_timeout": 1}}}}, port={port}, owner={owner!r})
env.register_service("marks", Marks)
env.from_source(endless, delay=0.01).map(tell).collect("out")
{then}
"""


def submits(server: Server, folder: Path, then: str, owner: str = "detached", cleanup: float = 0.0) -> Script:
    return Script(SUBMITS.format(folder=str(folder), port=server.port, owner=owner, then=then, cleanup=cleanup))


def status(server: Server) -> str:
    """Of the newest job."""
    found: str = server.client.list_jobs()[-1]["status"]
    return found


def test_an_attached_job_ends_with_its_cleanup_when_its_client_is_killed(server: Server, tmp_path: Path) -> None:
    """And says why, once, however long that takes."""
    with submits(server, tmp_path, "env.submit(autostop=True)", "attached", 2.2) as script:
        (pid,) = wait_for(tmp_path)
        script.kill()
        until(lambda: status(server) == "stopped")
    assert (tmp_path / "cleaned").exists()
    job = server.client.attach(str(server.client.list_jobs()[-1]["uuid"])).wait(LIMIT)
    assert any("the notebook that it belongs to has been gone" in note for note in job.notes)
    assert len([note for note in job.notes if "notebook" in note]) == 1
    gone(pid)


def test_services_that_an_attached_job_kept_are_cleaned_up_when_its_client_is_killed(
    server: Server, tmp_path: Path
) -> None:
    """The job itself has ended before."""
    then = """
env = RemoteEnvironment("owned", {"server": {"owner_timeout": 1}}, port=env.port, owner="attached")
env.register_service("marks", Marks)
env.from_batch(range(6)).map(tell).collect("out")
job = env.submit(autostop=True, cleanup="never")
print(job.status, flush=True)
__import__("threading").Event().wait()
"""
    with submits(server, tmp_path, then) as script:
        script.wait_for("completed")
        (pid,) = wait_for(tmp_path)
        assert not (tmp_path / "cleaned").exists()
        script.kill()
        until(lambda: (tmp_path / "cleaned").exists())
    gone(pid)
    assert status(server) == "completed"


def test_a_detached_job_goes_on_when_its_client_is_killed(server: Server, tmp_path: Path) -> None:
    with submits(server, tmp_path, "env.submit(autostop=True)") as script:
        (pid,) = wait_for(tmp_path)
        script.kill()
        script.end()
    job = server.client.attach(str(server.client.list_jobs()[-1]["uuid"]))
    had = len(job.results["out"])
    until(lambda: len(job.results["out"]) > had + 150)  # for longer than an attached one would have
    assert job.status == "running"
    assert not (tmp_path / "cleaned").exists()
    job.stop()
    assert [*job.results["out"]] == [*range(len(job.results["out"]))]
    assert (tmp_path / "cleaned").exists()
    gone(pid)


def test_an_interrupt_of_a_script_that_waits_for_its_job_stops_it(server: Server, tmp_path: Path) -> None:
    with submits(server, tmp_path, "env.submit(autostop=True)") as script:
        (pid,) = wait_for(tmp_path)
        script.interrupt()
        code, _, err = script.end()
    assert (code, "KeyboardInterrupt" in err) == (-signal.SIGINT, True)
    assert status(server) == "stopped"
    assert (tmp_path / "cleaned").exists()
    gone(pid)


def test_an_interrupt_of_a_script_that_waits_for_an_attached_handle_leaves_the_job_alone(
    server: Server, tmp_path: Path
) -> None:
    then = """
job = attach(env.submit(), port=env.port)
print("waits", flush=True)
job.wait()
"""
    with submits(server, tmp_path, then) as script:
        script.wait_for("waits")
        (pid,) = wait_for(tmp_path)
        script.interrupt()
        assert script.end()[0] == -signal.SIGINT
    assert status(server) == "running"
    assert server.client.stop_job(server.client.list_jobs()[-1]["uuid"])["status"] == "stopped"
    gone(pid)
