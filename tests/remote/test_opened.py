"""Where the user's bytes are opened: in runners and in clients, and never in the server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sage_nb import JobManagerClient, RemoteEnvironment, attach
from tests.support import Script

# The server's process refuses every way there is to open a pickle, and notes that it was asked to.
SERVER = """
import pickle, sys, threading
import _pickle, dill
from pathlib import Path
from sage_nb import JobManagerServer

def refuse(*args, **kw):
    with open({refused!r}, "a") as file:
        print(args, file=file)
    raise RuntimeError("a pickle was opened in the server")

def watch(event, args):
    if event == "pickle.find_class":
        refuse(event, args)

class Refusing:
    def __init__(self, *args, **kw):
        refuse(args)

with JobManagerServer(port=0, warm=1, state=Path({state!r})) as server:
    sys.addaudithook(watch)
    for module in (pickle, _pickle, dill):
        module.loads = module.load = refuse
    pickle.Unpickler = _pickle.Unpickler = dill.Unpickler = Refusing
    print(server.port, flush=True)
    print("ready", flush=True)
    threading.Event().wait()
"""


@pytest.fixture
def port(home: Path, tmp_path: Path) -> Iterator[int]:
    """A server in a process that opens nothing."""
    code = SERVER.format(refused=str(tmp_path / "refused"), state=str(tmp_path / "state"))
    with Script(code) as script:
        (line,) = script.wait_for("ready")
        yield int(line)
        assert not (tmp_path / "refused").exists(), (tmp_path / "refused").read_text()


class Point:
    """A class that an import does not give: its definition travels."""

    def __init__(self, x: int) -> None:
        self.x = x


class Lost(Exception):
    """One that travels, too."""


def test_the_server_opens_no_pickle_whatever_goes_through_it(port: int) -> None:
    def make(x: int) -> Point:
        print("made", x)
        return Point(x)

    env = RemoteEnvironment("sealed", port=port)
    env.from_collection(range(10)).map(make).collect("points")
    env.from_collection(range(3)).map(lambda x: 1 // x, on_error="dead_letter", name="divide").show("shown")
    job = env.submit(autostop=True)
    assert [point.x for point in job.results["points"]] == [*range(10)]
    assert [type(letter.error) for letter in job.dead_letters["divide"]] == [ZeroDivisionError]

    def lose(x: int) -> int:
        raise Lost(x)

    failing = RemoteEnvironment("failing", port=port)
    failing.from_collection([1]).map(lose).collect("never")
    with pytest.raises(Lost):
        failing.submit(autostop=True)

    client = JobManagerClient(port=port)
    again = attach(str(job.uuid), port=port)
    again.wait()
    assert [point.x for point in again.results["points"]] == [*range(10)]
    for word in client.jobs:
        client.get_job_status(word)
        client.job_logs(word)
        client.job_states(word)
        list(client.watch(word))
        client.delete_job(word)
    client.close()


def test_the_payload_of_a_job_is_not_what_the_server_runs(port: int, tmp_path: Path) -> None:
    """A pickle that would leave its process's id, as a stranger might send it."""
    mark = tmp_path / "pid"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return eval, (f"open({str(mark)!r}, 'w').write(str(__import__('os').getpid()))",)

    client = JobManagerClient(port=port)
    env = RemoteEnvironment("evil", port=port)
    env.from_collection([Evil()]).collect("out")
    mark.unlink(missing_ok=True)
    client.submit_job(env.serialize(), autostop=True)
    assert int(mark.read_text()) not in (os.getpid(), client.get_server_info()["pid"])
    client.close()
