"""The magics in real kernels, with their jobs on a real JobManager server."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sage_nb import JobManagerClient
from sage_nb.remote.access import Notice
from sage_nb.remote.daemon import restart_background, start_background
from sage_nb.remote.settings import Settings
from tests.kernels import Kernel, Reply
from tests.notebook.test_magics import PARTS, WIDGET, rows_of, snapshots_of, usage_error
from tests.servers import own_folders
from tests.support import until

Start = Callable[..., Kernel]
ENDLESS = "%%sage_submit endless -o job --remote server\nenv.from_source(ticks).show('ticks')"
COUNTED = "%%sage_submit counted -o job --remote server\nenv.from_batch(range(1000)).collect('all')"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What kernels need in their environment to find the servers of these tests."""
    with own_folders(tmp_path_factory.mktemp("home")) as environment:
        yield environment


@pytest.fixture(scope="module")
def server(home: dict[str, str]) -> Notice:
    return start_background(Settings(port=0, max_running=6))


@pytest.fixture(scope="module")
def client(server: Notice) -> Iterator[JobManagerClient]:
    with JobManagerClient(port=server.port) as client:
        yield client


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, server: Notice, home: dict[str, str]) -> Iterator[Kernel]:
    """One kernel for the tests that leave it as it was, and connected to nothing."""
    kernel = Kernel(tmp_path_factory.mktemp("shared"), env=home)
    assert kernel.run(f"{PARTS}\nserver = '{at(server)}'").status == "ok"
    yield kernel
    kernel.shutdown()


@pytest.fixture(autouse=True)
def _nothing_left_on_the_server(client: JobManagerClient) -> Iterator[None]:
    """Each test begins and ends with a server that does nothing."""
    yield
    for job in client.list_jobs():
        client.stop_job(job["uuid"])


def at(server: Notice) -> str:
    return f"{server.host}:{server.port}"


def shown(kernel: Kernel, reply: Reply) -> list[dict[str, Any]]:
    """All that a cell's first output has been."""
    (outputs,) = [outputs for outputs in kernel.displays.values() if outputs[0] == reply.displays[0]]
    return outputs


def click(kernel: Kernel, reply: Reply, command: str) -> Reply:
    """Press a button of a cell's view."""
    comm = reply.displays[0][WIDGET]["model_id"]
    return kernel.wait(kernel.send_comm(comm, {"method": "custom", "content": {"command": command}}))


def is_in(kernel: Kernel, state: str, job: str = "job") -> None:
    """Wait until a job is in that state."""
    kernel.until(lambda: kernel.run(f"{job}.status").result == repr(state))


def test_a_cell_returns_at_once_and_its_view_ends_as_html_and_text(shared: Kernel, server: Notice) -> None:
    reply = shared.run(COUNTED, cell_id="first")
    assert {WIDGET, "text/html", "text/plain"} <= reply.displays[0].keys()
    assert shared.run("job.wait().status, len(job.results['all'])").result == "('completed', 1000)"
    shared.until(lambda: WIDGET not in shown(shared, reply)[-1])
    last = shown(shared, reply)[-1]
    assert f"✓ Completed  counted  on {at(server)}" in last["text/plain"]
    assert f"on {at(server)}" in last["text/html"]
    assert {s["server"] for s in snapshots_of(shared, "counted")} == {at(server)}


def test_prints_belong_to_the_cell_that_submitted_while_others_run(shared: Kernel) -> None:
    first = shared.run("%%sage_submit said -o job --remote server\nenv.from_source(ticks).take(100).print('said')")
    second = shared.run("print('mine'); job.wait();")
    shared.until(lambda: "said 99" in first.stdout)
    assert second.stdout == "mine\n"


def test_running_the_cell_again_stops_its_job_first(shared: Kernel) -> None:
    shared.run(ENDLESS, cell_id="again")
    shared.run("first = job")
    shared.run(ENDLESS, cell_id="again")
    assert shared.run("first.status").result == "'stopped'"
    is_in(shared, "running")
    shared.run("%%sage_submit here --wait --local\nenv.from_batch([1]).print()", cell_id="again")
    assert shared.run("job.status").result == "'stopped'"


def test_buttons_of_the_view_act(shared: Kernel) -> None:
    """Nothing waits for the server: a click is taken at once, and what it did is seen."""
    reply = shared.run(ENDLESS, cell_id="buttons")
    is_in(shared, "running")
    for command, state in (("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("stop", "stopped")):
        click(shared, reply, command)
        is_in(shared, state)
    assert shared.run("job.notes").result == "()"


def test_an_unwatched_cell_waits_and_fails_where_the_job_fails(shared: Kernel) -> None:
    reply = shared.run(COUNTED, allow_stdin=False)
    assert shared.run("job.status, len(job.results['all'])").result == "('completed', 1000)"
    assert all(WIDGET not in bundle for bundle in reply.displays + reply.updates)
    body = "\ndef invert(x):\n    return 1 / (x - 3)\n\nenv.from_batch(range(9)).map(invert).print()"
    reply = shared.run("%%sage_submit bad -o job --remote server\n" + body, allow_stdin=False)
    assert reply.error == ("ZeroDivisionError", "division by zero")
    assert re.search(r"operator 'invert' \(map\), Cell In\[\d+\], line 4: return 1 / \(x - 3\)", reply.traceback)
    assert "✗ Failed" in (reply.displays + reply.updates)[-1]["text/plain"]


def test_an_interrupt_of_a_cell_that_waits_stops_the_job(shared: Kernel) -> None:
    waiting = shared.start(ENDLESS.replace("-o job", "-o job --wait"))
    shared.until(lambda: bool(waiting.displays))
    shared.interrupt()
    reply = shared.wait(waiting, 15)
    assert reply.error is not None
    assert reply.error[0] == "KeyboardInterrupt"
    is_in(shared, "stopped")


def test_line_magic_submits_a_remote_environment(shared: Kernel, server: Notice) -> None:
    shared.run(f"mine = RemoteEnvironment('mine', port={server.port}); mine.from_batch([1, 2]).collect('all')")
    shared.run("%sage_submit mine --wait -o job")
    assert shared.run("job.name, list(job.results['all'])").result == "('mine', [1, 2])"
    said = usage_error(shared.run("%sage_submit mine --remote server"))
    assert said == "%sage_submit: the environment says where it runs; leave out --remote"


def test_connect_makes_a_server_the_place_of_following_cells(shared: Kernel, server: Notice) -> None:
    cell = "%%sage_submit short --wait -o job\nenv.from_batch([1]).print()"
    assert shared.run("%sage_connect").stdout.startswith("not connected; %sage_connect HOST:PORT has")
    said = shared.run("%sage_connect server").stdout
    assert re.fullmatch(rf"connected to {at(server)}: sage_nb \S+, 0 jobs running, \d+ known\n", said)
    assert shared.run("%sage_connect").stdout.startswith(f"connected to {at(server)}")
    shared.run(cell)
    assert shared.run("job.snapshot().server, type(env).__name__").result == f"('{at(server)}', 'RemoteEnvironment')"
    stopped = shared.run("%sage_stop --all").stdout
    assert stopped == f"0 jobs stopped; those of {at(server)} go on: %sage_stop ID stops one\n"
    shared.run(cell.replace("--wait", "--wait --local"))
    assert shared.run("job.snapshot().server").result is None
    assert shared.run("%sage_connect --off").stdout.startswith(f"not connected to {at(server)} any more")
    shared.run(cell)
    assert shared.run("job.snapshot().server").result is None


def test_connect_takes_a_token_from_a_file(shared: Kernel, server: Notice) -> None:
    assert server.token is not None
    file = Path(shared.folder) / "token"
    file.write_text("wrong\n")
    assert "token" in usage_error(shared.run("%sage_connect server --token-file token"))
    assert shared.run("%sage_connect").stdout.startswith("not connected")
    file.write_text(f"{server.token}\n")
    assert shared.run("%sage_connect server --token-file token").stdout.startswith("connected to")
    reply = shared.run(COUNTED.replace("-o job", "-o job --wait"))
    assert reply.status == "ok"
    everything = str([reply.messages for reply in shared.replies.values()])
    assert server.token not in everything
    shared.run("%sage_connect --off")


def test_jobs_of_kernel_and_server_are_in_one_table_and_found_by_any_id(
    shared: Kernel, server: Notice, client: JobManagerClient
) -> None:
    shared.run("%%sage_submit there --wait -o there --remote server\nenv.from_batch([1]).print()")
    shared.run("%%sage_submit here --wait -o here\nenv.from_batch([1]).print()")
    elsewhere = client.list_jobs()[-1]
    shared.run("%sage_connect server")
    (table,) = shared.run("%sage_jobs").displays
    lines = table["text/plain"].splitlines()
    assert lines[0].split() == ["id", "no.", "name", "state", "where", "began", "ran"]
    assert re.search(r"^\w{8} +here +completed +the kernel +\d\d:", lines[1])
    assert re.search(rf"^\w{{8}} +{elsewhere['number']} +there +completed +{at(server)} +\d\d:", lines[2])
    assert all(len(line) <= 80 for line in lines)
    for word in (str(elsewhere["number"]), "there", elsewhere["uuid"], elsewhere["uuid"][:8]):
        assert shared.run(f"%sage_stop {word}").stdout == f"there {elsewhere['uuid'][:8]} had already completed\n"
        (view,) = shared.run(f"%sage_job {word}").displays
        assert f"✓ Completed  there  on {at(server)}" in view["text/plain"]
    assert "here" in shared.run("%sage_stop here").stdout
    shared.run("%sage_connect --off")


def test_logs_and_stop_by_number(shared: Kernel, client: JobManagerClient) -> None:
    code = "%%sage_submit talker -o job --remote server\n"
    code += (
        "class Talk(MapFunction):\n    def execute(self, x):\n        self.logger.info('saw %s', x)\n        return x\n"
    )
    shared.run(code + "env.from_source(ticks).map(Talk).show('all')")
    number = client.list_jobs()[-1]["number"]
    shared.run("%sage_connect server")
    shared.until(lambda: "saw 4" in shared.run(f"%sage_logs {number}").stdout)
    assert len(shared.run(f"%sage_logs {number} -n 2").stdout.splitlines()) == 2
    assert re.fullmatch(r"talker \w{8} stopped\n", shared.run(f"%sage_stop {number}").stdout)
    shared.run("%sage_connect --off")


def test_a_job_outlives_its_kernel_and_another_one_shows_it_from_its_start(
    kernel: Start, server: Notice, client: JobManagerClient, home: dict[str, str]
) -> None:
    """Law 3: detached jobs ignore kernel events."""
    k = kernel(env=home)
    k.run(f"{PARTS}\nserver = '{at(server)}'")
    reply = k.run("%%sage_submit lasting -o job --remote server\nenv.from_source(ticks).print('said').collect('all')")
    uuid = (k.run("job.uuid").result or "").strip("'")
    k.until(lambda: "said 9" in reply.stdout)
    k.restart()
    assert client.get_job_status(uuid)["status"] == "running"
    k.run(f"{PARTS}\nserver = '{at(server)}'")
    reply = k.run(f"%sage_attach {uuid[:8]} server -o job", cell_id="attach")
    assert WIDGET in reply.displays[0]
    k.until(lambda: reply.stdout.startswith("said 0\nsaid 1\n"))
    assert k.run("job.results['all'][:3]").result == "[0, 1, 2]"
    k.kill()
    assert client.get_job_status(uuid)["status"] == "running"
    other = kernel(env=home)
    other.run("%load_ext sage_nb")
    other.run(f"%sage_connect {at(server)}")
    other.run(f"%sage_attach {uuid} -o job")
    client.stop_job(uuid)
    assert other.run(
        "items = list(job.wait().results['all']); items == list(range(len(items))), job.status"
    ).result == ("(True, 'stopped')")


def test_an_attaching_cell_that_runs_again_or_is_interrupted_leaves_the_job_alone(shared: Kernel) -> None:
    shared.run(ENDLESS, cell_id="submits")
    for _ in range(2):
        reply = shared.run("%sage_attach job server", cell_id="attaches")
        assert WIDGET in reply.displays[0]
    waiting = shared.start("%sage_attach job server", cell_id="attaches", allow_stdin=False)
    shared.until(lambda: len(waiting.displays) + len(waiting.updates) > 1)
    shared.interrupt()
    stopped = shared.wait(waiting, 10)
    assert stopped.error is not None
    assert stopped.error[0] == "KeyboardInterrupt"
    assert shared.run("job.status").result == "'running'"
    shared.run("%sage_attach job server", cell_id="submits")  # the cell that submitted it
    assert shared.run("job.status").result == "'running'"


WATCHED = """
def watched():
    from sage_nb.remote.client import _connections
    return sum(len(one._subscriptions) for one in _connections.values())
"""


def test_a_view_that_is_replaced_is_told_nothing_more(shared: Kernel) -> None:
    shared.run(WATCHED)
    shared.run(ENDLESS, cell_id="submits")
    shared.until(lambda: shared.run("watched()").result == "1")
    for _ in range(3):
        shared.run("%sage_attach job server", cell_id="attaches")
    shared.until(lambda: shared.run("watched()").result == "2")


def test_a_job_that_has_ended_is_shown_with_all_it_printed_and_gave(shared: Kernel, server: Notice) -> None:
    shared.run("%%sage_submit over --wait -o job --remote server\nenv.from_batch([1, 2]).print('said').collect('all')")
    reply = shared.run("%sage_attach job server -o again")
    assert "✓ Completed  over" in reply.displays[-1]["text/plain"]
    assert reply.stdout == "said 1\nsaid 2\n"
    assert shared.run("list(again.results['all'])").result == "[1, 2]"


def test_an_attached_job_is_owned_by_its_kernel(shared: Kernel, client: JobManagerClient) -> None:
    shared.run(ENDLESS.replace("--remote", "--attached --remote"))
    assert client.get_job_status(client.list_jobs()[-1]["uuid"])["owner"]
    shared.run(ENDLESS)
    assert client.get_job_status(client.list_jobs()[-1]["uuid"])["owner"] is None


def test_the_table_of_jobs_is_live_for_those_of_a_server_too(shared: Kernel, client: JobManagerClient) -> None:
    """Also for one that nobody here holds, and a click on Stop stops it."""
    shared.run(ENDLESS, cell_id="tabled")
    uuid = client.list_jobs()[-1]["uuid"]
    shared.run("del job, env")
    shared.run("%sage_connect server")
    table = shared.run("%sage_jobs")
    shared.run("%%sage_submit after --wait -o after\nenv.from_batch([1]).print()")
    shared.until(lambda: any(rows[0]["name"] == "after" for rows in rows_of(shared, table)))
    row = next(row for row in rows_of(shared, table)[-1] if row["uuid"] == uuid)
    assert (row["where"], row["status"], row["number"]) == ("server", "running", client.list_jobs()[-2]["number"])
    comm = table.displays[0][WIDGET]["model_id"]
    shared.wait(shared.send_comm(comm, {"method": "custom", "content": {"command": "stop", "job": uuid}}))
    until(lambda: client.get_job_status(uuid)["status"] == "stopped")
    shared.until(lambda: WIDGET not in shown(shared, table)[-1])
    assert "not connected" in shared.run("%sage_connect --off\n%sage_connect").stdout


def test_a_form_submits_to_the_server_that_the_notebook_is_connected_to(shared: Kernel, server: Notice) -> None:
    shared.run("%sage_connect server")
    shared.run("def build(env, n: int = 3):\n    env.from_batch(range(n)).collect('all')\nform = launcher(build)")
    assert shared.run("form.target").result == repr(at(server))
    assert shared.run("list(form.submit().wait().results['all'])").result == "[0, 1, 2]"
    assert (
        f"env = RemoteEnvironment('build', host='127.0.0.1', port={server.port})"
        in shared.run("print(form.code())").stdout
    )
    shared.run("%sage_connect --off\nform.target = 'kernel'")
    assert shared.run("form.submit().snapshot().server is None").result == "True"


def test_a_job_that_waits_for_a_runner_says_how_many_come_before_it(shared: Kernel) -> None:
    for number in range(9):
        shared.run(ENDLESS.replace("endless", f"one{number}").replace("-o job", f"-o job{number}"))
    for number, said in ((6, "it is the next"), (7, "1 job is before it"), (8, "2 jobs are before it")):
        is_in(shared, "queued", f"job{number}")
        (view,) = shared.run(f"%sage_job job{number}").displays
        assert f"Waiting for a runner: {said}" in view["text/plain"]


def test_classes_of_the_notebook_come_back_as_themselves(shared: Kernel) -> None:
    shared.run("from dataclasses import dataclass\n@dataclass\nclass Point:\n    x: int")
    shared.run("%%sage_submit points --wait -o job --remote server\nenv.from_batch([1, 2]).map(Point).collect('all')")
    assert shared.run("[type(p) is Point for p in job.results['all']]").result == "[True, True]"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "%%sage_submit x --remote 127.0.0.1:1\nenv.from_batch([1]).print()",
            "no JobManager server answers at 127.0.0.1:1",
        ),
        ("%%sage_submit x --remote a:b\nenv.from_batch([1]).print()", "a server's address is HOST:PORT, not 'a:b'"),
        ("%%sage_submit x --remote threading\nenv.from_batch([1]).print()", "threading is no address but a module"),
        (
            "%%sage_submit x --remote server --local\nenv.from_batch([1]).print()",
            "--local and --remote exclude each other",
        ),
        ("%%sage_submit x --attached\nenv.from_batch([1]).print()", "--attached is for a job of a server"),
        (
            "%%sage_submit x --remote server\nfile = open('log', 'w')\n"
            "env.from_batch([1]).map(lambda x: file.name).print()",
            "operator 'map' .map. cannot run in another process: the global variable 'file' that <lambda> uses is an "
            "_io.TextIOWrapper",
        ),
        (
            "%%sage_submit x --remote server\nlock = threading.Lock()\n"
            "env.from_batch([1]).map(lambda x: lock.locked()).print()",
            "the global variable 'lock' that <lambda> uses is a _thread.lock",
        ),
        (
            "%%sage_submit x --remote server\nenv.from_batch(ticks()).print()",
            "operator 'source' .source. cannot run in another process: it is a generator",
        ),
        ("%sage_connect 127.0.0.1:1", "no JobManager server answers at 127.0.0.1:1"),
        ("%sage_connect server --token-file nothing", "the token file nothing cannot be read"),
        ("%sage_connect --token-file nothing", "--token-file is for a server"),
        ("%sage_connect server --off", "--off takes nothing else"),
        ("%sage_attach beef server", "the server knows no job 'beef'"),
        ("%sage_attach beef 127.0.0.1:1", "no JobManager server answers at 127.0.0.1:1"),
        ("%sage_server begin", "invalid choice: 'begin'"),
        ("%sage_server stop --port 1", "no JobManager server of yours runs on port 1"),
        ("%sage_server status --port 1", "no JobManager server of yours runs on port 1; %sage_server start --port 1"),
        ("%sage_server --port 1", "no JobManager server of yours runs on port 1; %sage_server start --port 1"),
        ("%sage_server start --port 99999", "a port is a number from 0 to 65535"),
        ("%sage_server stop -o x", "-o is for start"),
    ],
)
def test_bad_input_gets_one_line_that_says_what_to_do(
    shared: Kernel, client: JobManagerClient, code: str, says: str
) -> None:
    before = len(client.list_jobs())
    assert re.search(says, usage_error(shared.run(code)))
    assert len(client.list_jobs()) == before


def test_a_server_is_started_told_of_and_stopped_from_a_cell(kernel: Start, home: dict[str, str]) -> None:
    """It outlives the kernel; where one has the port already, that is what start says."""
    k = kernel(env=home)
    k.run("%load_ext sage_nb")
    said = k.run("%sage_server start --port 0 -o mine").stdout
    mine = re.fullmatch(r"a JobManager server runs at (127\.0\.0\.1:(\d+)) \(process \d+\)\n", said)
    assert mine is not None
    assert k.run("mine").result == repr(mine[1])
    again = k.run(f"%sage_server start {mine[2]}").stdout
    assert again == said.replace("runs at", "runs already at")
    k.restart()
    k.run("%load_ext sage_nb")
    assert re.match(
        rf"{mine[1]} \(process \d+\), up .*: sage_nb", k.run(f"%sage_server status --port {mine[2]}").stdout
    )
    assert k.run(f"%sage_server stop {mine[2]}").stdout.startswith(f"the JobManager server at {mine[1]} has stopped")
    assert "no JobManager server of yours" in usage_error(k.run(f"%sage_server stop --port {mine[2]}"))


def test_while_the_server_is_gone_the_view_says_so_and_the_kernel_works_on(
    kernel: Start, home: dict[str, str], tmp_path: Path
) -> None:
    """Clicks block nothing, and what could not be done is a note; the cell can run again elsewhere."""
    mine = start_background(Settings(port=0, state=tmp_path / "state"))
    k = kernel(env=home)
    k.run(f"{PARTS}\nserver = '{at(mine)}'")
    reply = k.run(ENDLESS, cell_id="lost")
    is_in(k, "running")
    k.run("%sage_connect server")
    os.kill(mine.pid, signal.SIGKILL)
    lost = f"the connection to {at(mine)}"
    k.until(lambda: [one["waiting_for"] for one in snapshots_of(k, "endless")][-1:] == [lost])
    before = len(snapshots_of(k, "endless"))
    assert (click(k, reply, "stop").seconds or 0) < 1
    assert k.run("1 + 1").result == "2"
    k.until(lambda: len(snapshots_of(k, "endless")) > before)
    k.until(lambda: "could not be told to stop" in str(snapshots_of(k, "endless")[-1]["notes"]))
    assert k.run("job.status").result == "'running'"
    listed = k.run("%sage_jobs")
    assert (listed.seconds or 9) < 2.5
    assert re.search(r"(?s)endless +running.*no JobManager server answers", listed.displays[0]["text/plain"])
    again = k.run("%%sage_submit here --wait --local -o here\nenv.from_batch([1]).print()", cell_id="lost")
    assert "was not stopped, and may still run: no JobManager server answers" in again.stderr
    assert k.run("here.status").result == "'completed'"
    restart_background(mine.port)
    is_in(k, "failed")
    assert "the JobManager server ended while the job ran" in (k.run("str(job.exception())").result or "")


def test_unload_takes_the_magics_of_servers_away(kernel: Start, home: dict[str, str]) -> None:
    k = kernel(env=home)
    k.run("%load_ext sage_nb")
    k.run("%unload_ext sage_nb")
    for magic in ("sage_connect", "sage_attach", "sage_server"):
        assert "not found" in k.run(f"%{magic}").stderr


def test_jobs_that_nobody_watches_any_more_go_on(client: JobManagerClient, shared: Kernel) -> None:
    shared.run(ENDLESS, cell_id="mine")
    uuid = client.list_jobs()[-1]["uuid"]
    shared.run("del job, env")
    until(lambda: client.get_job_status(uuid)["status"] == "running")
