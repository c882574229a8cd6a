"""`sage-nb`, as it is typed: what it prints, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sage_nb import Job, JobManagerClient, MapFunction, RemoteEnvironment
from sage_nb.remote import daemon
from sage_nb.remote.access import Notice
from sage_nb.remote.runners import process_key
from tests.remote.commands import COMMAND, HERE, begun, sage_nb, server_in
from tests.support import LIMIT, until
from tests.terminals import Terminal


@pytest.fixture(scope="module", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("XDG_STATE_HOME", str(folder / "home"))
        patch.setenv("PYTHONPATH", str(HERE))
        patch.delenv("SAGE_NB_TOKEN", raising=False)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notice]:
    with server_in(tmp_path_factory.mktemp("state"), warm=1) as notice:
        yield notice
        JobManagerClient(port=notice.port).close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def waiting(folder: Path) -> Callable[[int], int]:
    """A function that passes items on, from the second one on only once `folder` has a file `go`."""

    def pass_on(item: int) -> int:
        import time

        while item and not (folder / "go").exists():
            time.sleep(0.01)
        return item

    return pass_on


@pytest.fixture
def running(server: Notice, tmp_path: Path) -> Iterator[Job]:
    """A job that has passed its first item on, and waits with its second."""
    env = RemoteEnvironment("waits", port=server.port)
    env.from_batch(range(3)).map(waiting(tmp_path), name="hold").collect("out")
    job = env.submit()
    until(lambda: len(job.results.get("out", ())) == 1)
    yield job
    job.stop(0.1)


@pytest.fixture(scope="module")
def done(server: Notice) -> Job:
    env = RemoteEnvironment("squares", port=server.port)
    env.from_batch(range(5)).map(lambda x: x * x, name="square").collect("out")
    return env.submit(autostop=True)


@pytest.fixture(scope="module")
def failed(server: Notice) -> Job:
    env = RemoteEnvironment("bad", port=server.port)
    env.from_batch([1, 0]).map(lambda x: 1 / x, name="divide").collect("out")
    job = env.submit()
    with pytest.raises(ZeroDivisionError):
        job.wait()
    return job


# The command line itself


def test_help_is_quick_as_it_imports_neither_the_engine_nor_the_network() -> None:
    code = "import sys; from sage_nb.cli import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "jobmanager" in printed
    loaded = set(printed.splitlines()[-1].split())
    assert not loaded & {"aiohttp", "asyncio", "dill", "msgspec", "IPython", "sage_nb.engine", "sage_nb.remote"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("jbo list", "sage-nb: there is no command 'jbo'; did you mean 'job'; see sage-nb --help"),
        ("job lst", "sage-nb job: there is no command 'lst'; did you mean 'list'; see sage-nb job --help"),
        ("job list --jsno", "sage-nb job list: there is no option --jsno; did you mean --json; see"),
        ("job list more", "sage-nb job list: there is no use for more; see sage-nb job list --help"),
        ("jobmanager start --port x", "sage-nb jobmanager start: argument --port: invalid int value: 'x'; see"),
        ("job stop", "sage-nb job stop: the following arguments are required: JOB; see"),
        ("run --remote", "sage-nb run: argument --remote: expected one argument; see"),
        ("--degub", "sage-nb: there is no option --degub; see sage-nb --help"),
    ],
)
def test_what_makes_no_sense_is_answered_in_one_line_with_exit_code_2(words: str, said: str) -> None:
    ended = sage_nb(*words.split())
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(said)
    assert ended.err.count("\n") == 1


def test_alone_it_says_what_there_is() -> None:
    ended = sage_nb()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == sage_nb("--help").out


@pytest.mark.parametrize("words", ["job list", "job show 1", "jobmanager stop", "jobmanager restart"])
def test_where_no_server_runs_it_says_so_in_one_line(words: str) -> None:
    ended = sage_nb(*words.split(), "--port", free_port())
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("sage-nb: no JobManager server ")
    assert "sage-nb jobmanager start" in ended.err or "stop" in words
    assert ended.err.count("\n") == 1


def test_a_traceback_comes_for_those_who_ask() -> None:
    ended = sage_nb("job", "list", "--debug", "--port", free_port())
    assert ended.code == 1
    assert ended.err.startswith("Traceback")


# Servers


def test_a_server_from_start_to_stop(tmp_path: Path) -> None:
    port = free_port()
    where = ("--port", port)
    ended = sage_nb("jobmanager", "start", *where, "--state", tmp_path / "state", "--max-running", 5, "--warm", 0)
    assert ended.code == 0, ended
    notice = daemon.running(port)
    assert notice is not None
    try:
        assert f"listens on 127.0.0.1:{port} (process {notice.pid})" in ended.out
        assert f"{tmp_path}/state/server.log" in ended.out
        assert str(notice.token) not in ended.out

        again = sage_nb("jobmanager", "start", *where)
        assert again.code == 1
        assert f"has the port already (process {notice.pid})" in again.err

        status = sage_nb("jobmanager", "status", *where)
        assert status.code == 0
        assert "0 running (5 at a time), 0 queued, 0 known" in status.out
        assert max(map(len, status.out.splitlines())) <= 80 + len(str(tmp_path))
        assert sage_nb("jobmanager", "status", *where, "--json").json["pid"] == notice.pid

        assert sage_nb("jobmanager", "restart", *where).code == 0
        assert sage_nb("jobmanager", "status", *where, "--json").json["max_running"] == 5

        stopped = sage_nb("jobmanager", "stop", *where)
        assert stopped.code == 0
        assert stopped.out.startswith(f"JobManager server on port {port} (process ")
    finally:
        if daemon.running(port) is not None:
            daemon.stop_background(port)
    status = sage_nb("jobmanager", "status", *where)
    assert status.code == 3
    assert status.out.startswith(f"No server runs on port {port}\n  start    sage-nb jobmanager start --port {port}\n")
    assert sage_nb("jobmanager", "status", *where, "--json").json == {"status": "not running", "port": port}


def test_settings_that_do_not_go_together_are_refused_before_anything_starts() -> None:
    ended = sage_nb("jobmanager", "start", "--host", "0.0.0.0", "--no-token", "--port", 0)
    assert ended.code == 1
    assert ended.err.startswith("sage-nb: a server on 0.0.0.0 can be reached from other machines")


def test_a_server_in_the_foreground_ends_with_ctrl_c(tmp_path: Path) -> None:
    words = ("jobmanager", "start", "--foreground", "--port", 0, "--state", tmp_path, "--warm", 0)
    with begun(*words, SAGE_NB_TOKEN="of-the-terminal") as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "Ctrl-C stops it" in line
            port = int(line.partition("127.0.0.1:")[2].partition(";")[0])
            refused = sage_nb("jobmanager", "restart", "--port", port)
            assert refused.code == 1
            assert "runs in a terminal" in refused.err
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert process.returncode == 0
    assert "listens on 127.0.0.1" in err
    assert "of-the-terminal" not in err
    assert "Traceback" not in err


def test_stop_force_kills_a_server(tmp_path: Path) -> None:
    with server_in(tmp_path) as notice:
        ended = sage_nb("jobmanager", "stop", "--force", "--port", notice.port)
        assert (ended.code, ended.out.split()[-1]) == (0, "killed")
        assert process_key(notice.pid) is None


# Jobs


def test_list_is_a_table_of_80_columns(server: Notice, done: Job, failed: Job) -> None:
    ended = sage_nb("job", "list", "--port", server.port)
    lines = ended.out.splitlines()
    assert lines[0].split() == ["no", "id", "name", "state", "began", "ran", "error"]
    by_id = {line.split()[1]: line for line in lines[1:]}
    assert by_id[done.uuid[:8]].split()[2:4] == ["squares", "completed"]
    assert "ZeroDivisionError" in by_id[failed.uuid[:8]]
    assert max(map(len, lines)) <= 80
    assert {one["uuid"] for one in sage_nb("job", "list", "--json", "--port", server.port).json} >= {done.uuid}
    assert len(sage_nb("job", "list", "-n", 1, "--port", server.port).out.splitlines()) == 2


def test_a_job_is_found_by_number_by_name_by_id_and_by_the_beginning_of_its_id(server: Notice, done: Job) -> None:
    number = JobManagerClient(port=server.port).get_job_status(done)["number"]
    for word in (done.uuid[:13], number, "squares"):
        found = sage_nb("job", "status", word, "--json", "--host", f"127.0.0.1:{server.port}").json
        assert found["uuid"] == done.uuid
        assert [one["status"] for one in found["states"]][-1] == "completed"
    unknown = sage_nb("job", "show", "zzz", "--port", server.port)
    assert unknown.code == 1
    assert unknown.err == (
        "sage-nb: the server knows no job 'zzz'; a job is its number, its id, a beginning of its id, or its name\n"
    )


def test_show_draws_the_job_as_a_notebook_does(server: Notice, failed: Job) -> None:
    ended = sage_nb("job", "show", failed.uuid, "--port", server.port)
    assert "✗ Failed  bad" in ended.out
    assert "✗ ZeroDivisionError: division by zero" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    assert sage_nb("job", "show", failed.uuid, "--json", "--port", server.port).json["status"] == "failed"


def test_logs_are_shown_and_said_as_json(server: Notice, failed: Job, done: Job) -> None:
    shown = sage_nb("job", "logs", failed.uuid, "--port", server.port)
    assert shown.out.endswith("ERROR   divide: ZeroDivisionError: division by zero\n")
    (line,) = sage_nb("job", "logs", failed.uuid, "--json", "--port", server.port).json
    assert line["source"] == "divide"
    nothing = sage_nb("job", "logs", done.uuid, "--port", server.port)
    assert (nothing.code, nothing.out) == (0, "")
    assert "has logged nothing" in nothing.err


def test_logs_follow_a_job_to_its_end_each_line_once(server: Notice, tmp_path: Path) -> None:
    hold = waiting(tmp_path)

    class Says(MapFunction):
        def execute(self, item: int) -> int:
            self.logger.info("item %d", hold(item))
            return item

    env = RemoteEnvironment("says", port=server.port)
    env.from_batch(range(5)).map(Says, name="says").collect("out")
    job = env.submit()
    until(lambda: job.logs())
    with begun("job", "logs", "-f", job.uuid, "--port", server.port) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            (tmp_path / "go").touch()
            rest, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    said = [line.partition(": ")[2] for line in [first, *rest.splitlines()]]
    assert [one.strip() for one in said] == [f"item {n}" for n in range(5)]
    assert (process.returncode, err) == (0, "")


def test_pause_continue_stop_and_delete(server: Notice, running: Job) -> None:
    where = (running.uuid, "--port", server.port)
    refused = sage_nb("job", "delete", *where)
    assert refused.code == 1
    assert "stop it first" in refused.err
    assert sage_nb("job", "pause", *where).out == f"waits {running.uuid[:8]} paused\n"
    assert sage_nb("job", "status", *where, "--json").json["status"] == "paused"
    assert sage_nb("job", "continue", *where).out == f"waits {running.uuid[:8]} goes on\n"
    assert sage_nb("job", "stop", "--timeout", "0.1", *where).out == f"waits {running.uuid[:8]} stopped\n"
    assert sage_nb("job", "delete", *where).out == f"waits {running.uuid[:8]} deleted\n"
    assert sage_nb("job", "status", *where).code == 1


def test_watch_draws_over_what_it_drew_and_gives_1_where_the_job_fails(
    server: Notice, running: Job, failed: Job, tmp_path: Path
) -> None:
    with Terminal([*COMMAND, "job", "watch", running.uuid, "--port", str(server.port)], cwd=HERE) as terminal:
        terminal.until(lambda text: "► Running  waits" in text and not terminal.cursor)
        (tmp_path / "go").touch()
        assert terminal.end() == 0
        assert terminal.text.startswith("✓ Completed  waits")
        assert terminal.text.count("waits") == 1
        assert terminal.cursor
        assert terminal.widest <= 80
    assert sage_nb("job", "watch", failed.uuid, "--port", server.port).code == 1


def test_ctrl_c_ends_the_watching_and_not_the_job(server: Notice, running: Job) -> None:
    with Terminal([*COMMAND, "job", "watch", running.uuid, "--port", str(server.port)], cwd=HERE) as terminal:
        terminal.until(lambda text: "Running" in text)
        terminal.interrupt()
        assert terminal.end() == 130
        assert f"sage-nb: waits {running.uuid[:8]} goes on" in terminal.text
        assert terminal.cursor
    assert JobManagerClient(port=server.port).get_job_status(running)["status"] == "running"


def test_watch_prints_plain_lines_where_there_is_no_terminal(server: Notice, done: Job) -> None:
    ended = sage_nb("job", "watch", done.uuid, "--port", server.port)
    assert ended.code == 0
    assert ended.out.startswith("✓ Completed  squares  5 items")
    assert "\x1b" not in ended.out
    lines = sage_nb("job", "watch", "--json", done.uuid, "--port", server.port).out.splitlines()
    assert json.loads(lines[-1])["status"] == "completed"


def test_a_wrong_token_is_told(server: Notice, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("wrong")
    ended = sage_nb("job", "list", "--port", server.port, "--token-file", tmp_path / "token")
    assert (ended.code, ended.err) == (1, "sage-nb: the server does not accept this token\n")
    from_environment = sage_nb("job", "list", "--port", server.port, SAGE_NB_TOKEN="wrong")
    told = "sage-nb: the server does not accept this token, which is that of SAGE_NB_TOKEN\n"
    assert (from_environment.code, from_environment.err) == (1, told)


def test_status_of_a_port_without_a_server_names_those_there_are(server: Notice) -> None:
    ended = sage_nb("jobmanager", "status", "--port", free_port())
    assert ended.code == 3
    assert f"  another  on port {server.port} (process {server.pid})\n" in ended.out
    host = sage_nb("jobmanager", "status", "--host", "127.0.0.1", "--port", port := free_port())
    assert (host.code, host.out) == (3, f"No server runs: 127.0.0.1 port {port}\n")


def test_a_reader_that_leaves_early_is_no_error(server: Notice, done: Job) -> None:
    with begun("job", "list", "--json", "--port", server.port) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(LIMIT) in (0, 141)


def test_a_reader_that_leaves_a_job_that_prints_is_no_error(server: Notice, running: Job) -> None:
    env = RemoteEnvironment("prints", port=server.port)
    env.from_source(lambda: "a line", delay=0.01).print()
    job = env.submit()
    with begun("job", "watch", job.uuid, "--port", server.port) as process:
        assert process.stdout is not None
        while "a line" not in process.stdout.readline():
            continue
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait(LIMIT) == 141
    job.stop()


# Scripts

SCRIPT = """
import os, sys, time
from pathlib import Path
from sage_nb import LocalEnvironment

FOLDER = Path(__file__).parent
WHAT = sys.argv[1]

class Item:
    def __init__(self, value):
        self.value = value

def hold(item):
    (FOLDER / f"pid {os.getpid()}").touch()
    while item and not (FOLDER / "go").exists():
        time.sleep(0.01)
    return Item(item)

env = LocalEnvironment("script")
stream = env.from_batch(range(3)).map(hold, name="hold")
stream.collect("out")
if WHAT == "fails":
    stream.map(lambda item: 1 // item.value, name="divide").sink(lambda item: None)
if WHAT == "result":
    job = env.submit(autostop=True)
    print([type(item) is Item for item in job.results["out"]], sys.argv[1:], type(env.jobmanager).__name__)
elif WHAT == "raises":
    env.submit()
    {}["no such key"]
elif WHAT == "exits":
    env.submit()
    sys.exit(5)
elif WHAT == "handles":
    other = LocalEnvironment("other")
    other.from_batch([0]).map(lambda x: 1 / x).sink(print)
    try:
        other.submit(autostop=True)
    except ZeroDivisionError:
        print("handled")
elif WHAT == "nothing":
    LocalEnvironment("nothing").submit()
else:
    env.submit()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(params=["here", "remote"])
def place(request: pytest.FixtureRequest) -> list[object]:
    """Options of `run` for a place where the jobs run."""
    if request.param == "here":
        return []
    return ["--remote", f"127.0.0.1:{request.getfixturevalue('server').port}"]


def test_run_gives_a_script_what_python_gives_it_and_runs_its_jobs_there(script: Path, place: list[object]) -> None:
    (script.parent / "go").touch()
    ended = sage_nb("run", script, *place, "result", "--timeout", "of the script")
    manager = "JobManagerClient" if place else "JobManager"
    assert ended.out == f"[True, True, True] ['result', '--timeout', 'of the script'] {manager}\n"
    assert (ended.code, ended.err) == (0, "")
    (pid,) = [path.name for path in script.parent.glob("pid *")]
    assert pid != f"pid {os.getpid()}"


def test_run_waits_for_what_still_runs_and_shows_it(script: Path, place: list[object]) -> None:
    with Terminal([*COMMAND, "run", *map(str, place), str(script), "waits"], cwd=HERE) as terminal:
        terminal.until(lambda text: "► Running  script" in text and "hold" in text)
        (script.parent / "go").touch()
        assert terminal.end() == 0
        assert terminal.text.startswith("✓ Completed  script  3 items")
        assert terminal.cursor


def test_run_ends_with_1_and_the_users_error_where_a_job_failed(script: Path, place: list[object]) -> None:
    (script.parent / "go").touch()
    ended = sage_nb("run", *place, script, "fails")
    assert ended.code == 1
    assert "✗ ZeroDivisionError: integer division or modulo by zero" in ended.err
    assert "in divide · script.py, line 23" in ended.err
    assert "Traceback" not in ended.err


def test_ctrl_c_stops_the_jobs_of_a_run(script: Path, place: list[object]) -> None:
    with begun("run", *place, script, "waits") as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "Running" in line:
                    break
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert process.returncode == 130
    assert err.endswith("sage-nb: interrupted; 1 job stopped\n")
    if place:
        newest = sage_nb("job", "list", "-n", 1, "--json", "--host", place[1]).json
        assert newest[0]["status"] == "stopped"


def test_a_timeout_of_a_run_is_that_of_jobs_that_name_none(script: Path, place: list[object]) -> None:
    ended = sage_nb("run", *place, "--timeout", "0.3", script, "waits")
    assert ended.code == 1
    assert "✗ JobTimeout: job 'script' ran longer than its timeout of 0.3 s" in ended.err


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("raises", 1, "KeyError: 'no such key'\n"),
        ("exits", 5, ""),
        ("nothing", 1, "script.py, line 41: 'nothing' has no source: begin with env.from_batch(...), "),
    ],
)
def test_a_script_that_fails_stops_its_jobs(script: Path, what: str, code: int, said: str) -> None:
    ended = sage_nb("run", script, what)
    assert ended.code == code
    assert said in ended.err
    assert ("Traceback" in ended.err) == (what == "raises")
    assert "sage_nb/cli" not in ended.err


def test_a_failure_that_the_script_has_handled_is_none(script: Path) -> None:
    ended = sage_nb("run", script, "handles")
    assert (ended.code, ended.out, ended.err) == (0, "handled\n", "")


def test_what_cannot_be_run_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def (:\n")
    missing = sage_nb("run", tmp_path / "missing.py")
    assert (missing.code, missing.err.count("\n")) == (1, 1)
    assert missing.err.endswith("missing.py cannot be read: No such file or directory\n")
    assert "SyntaxError" in sage_nb("run", tmp_path / "bad.py").err
    unreachable = sage_nb("run", "--remote", f"127.0.0.1:{free_port()}", HERE / "tests" / "__init__.py")
    assert unreachable.code == 1
    assert "no JobManager server answers at 127.0.0.1:" in unreachable.err
    assert ": Connection refused; start one with" in unreachable.err
    named = sage_nb("job", "list", "--host", "localhost", "--port", free_port())
    assert ": Connection refused; start one with" in named.err
    nameless = sage_nb("run", "--remote", "127.0.0.1:1")
    assert (nameless.code, nameless.err) == (
        2,
        "sage-nb run: the following arguments are required: SCRIPT; see sage-nb run --help\n",
    )
