"""Servers in the background: their start, their end, and what is known of them in between."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from sage_nb import JobManagerClient, JobManagerServer, RemoteEnvironment
from sage_nb.errors import AccessError, ServerBusyError, ServerError, ServerUnreachableError
from sage_nb.remote import daemon
from sage_nb.remote.access import notice_path, read_notice
from sage_nb.remote.runners import process_key
from sage_nb.remote.settings import Settings
from tests.faults.servers import family, gone
from tests.remote.commands import server_in
from tests.support import until


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SAGE_NB_TOKEN", raising=False)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_it_listens_when_start_returns_and_its_port_is_free_when_stop_returns(state: Path) -> None:
    with server_in(state) as notice:
        with JobManagerClient(port=notice.port) as client:
            assert client.get_server_info()["pid"] == notice.pid
        daemon.stop_background(notice.port)
        assert process_key(notice.pid) is None
        assert not notice_path(notice.port).exists()
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", notice.port))


def test_it_is_nobodys_child_in_a_session_of_its_own(state: Path) -> None:
    with server_in(state) as notice:
        assert os.getsid(notice.pid) != os.getsid(0)
        fields = Path(f"/proc/{notice.pid}/stat").read_text().rpartition(")")[2].split()
        assert int(fields[1]) != os.getpid()
        assert {os.readlink(f"/proc/{notice.pid}/fd/{fd}") for fd in (1, 2)} == {str(state / "server.log")}


def test_a_port_that_is_taken_is_refused_with_who_has_it(state: Path, tmp_path: Path) -> None:
    with server_in(state) as notice:
        with pytest.raises(ServerBusyError, match=f"has the port already .process {notice.pid}."):
            daemon.start_background(Settings(port=notice.port, state=tmp_path / "other"))
        assert read_notice(notice.port) == notice
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        with pytest.raises(ServerBusyError, match=f"process {os.getpid()} has the port already"):
            daemon.start_background(Settings(port=one.getsockname()[1], state=state))


def test_a_state_folder_that_another_server_has_is_refused(state: Path) -> None:
    with server_in(state), pytest.raises(ServerBusyError, match="another JobManager server keeps its jobs in"):
        daemon.start_background(Settings(port=0, state=state))


def test_a_state_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match=r"the folder .*/file/state cannot be used: "):
        daemon.start_background(Settings(port=0, state=tmp_path / "file" / "state"))


def test_a_process_that_ends_before_it_listens_is_told_with_its_last_words(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.exit('no Python today')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ServerError, match="ended before it listened: "):
        daemon.start_background(Settings(port=0, state=state))


def test_the_token_is_kept_from_the_list_of_processes_from_jobs_and_from_the_log(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGE_NB_TOKEN", "a-secret-of-ours")
    with server_in(state) as notice:
        assert notice.token == "a-secret-of-ours"
        env = RemoteEnvironment("asks", port=notice.port)
        env.from_batch(["SAGE_NB_TOKEN"]).map(lambda name: str(os.getenv(name))).collect("found")
        assert list(env.submit(autostop=True).results["found"]) == ["None"]
        with JobManagerClient(port=notice.port, token="another-secret") as client, pytest.raises(AccessError):
            client.list_jobs()
        for file in ("cmdline", "environ"):
            assert b"a-secret-of-ours" not in Path(f"/proc/{notice.pid}/{file}").read_bytes()
        env.jobmanager.close()
    log = (state / "server.log").read_text()
    assert "listens on" in log
    assert "secret" not in log
    assert "secret" not in repr(notice)


def test_a_token_file_that_holds_no_token_is_refused(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("two words\n")
    with pytest.raises(ServerError, match="has to hold one word"):
        daemon.start_background(Settings(port=0, state=state), token_file=file)
    with pytest.raises(ServerError, match="nothing cannot be read: No such file"):
        daemon.start_background(Settings(port=0, state=state), token_file=tmp_path / "nothing")


def test_a_restart_keeps_settings_token_and_jobs(state: Path) -> None:
    with server_in(state, max_running=7) as notice:
        env = RemoteEnvironment("before", port=notice.port)
        env.from_batch([1]).sink(str)
        job = env.submit(autostop=True)
        after = daemon.restart_background(notice.port)
        assert (after.port, after.token, after.state) == (notice.port, notice.token, notice.state)
        assert after.pid != notice.pid
        with JobManagerClient(port=notice.port) as client:
            assert client.get_server_info()["max_running"] == 7
            assert client.get_job_status(job)["status"] == "completed"


def test_a_restart_reads_the_token_file_anew(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    notice = daemon.start_background(Settings(port=0, state=state, warm=0), token_file=file)
    try:
        assert notice.token == "first"
        file.write_text("second\n")
        assert daemon.restart_background(notice.port).token == "second"
    finally:
        daemon.stop_background(notice.port)


def test_a_server_that_was_killed_is_not_running_and_can_be_started_again(state: Path) -> None:
    with server_in(state) as notice:
        os.kill(notice.pid, signal.SIGKILL)
        until(lambda: process_key(notice.pid) is None)
        assert daemon.running(notice.port) is None
        assert daemon.status(notice.port) is None
        assert daemon.restart_background(notice.port).token == notice.token
        daemon.stop_background(notice.port, force=True)
        assert not notice_path(notice.port).exists()
        with pytest.raises(ServerUnreachableError, match=f"no JobManager server of yours runs on port {notice.port}"):
            daemon.stop_background(notice.port)


def test_a_process_that_got_the_number_of_one_that_is_gone_is_left_alone(state: Path) -> None:
    """The notice of a killed server may name what is another process by now: here, this one."""
    with server_in(state) as notice:
        path = notice_path(notice.port)
        kept = path.read_bytes()
        daemon.stop_background(notice.port)
        path.write_bytes(kept.replace(str(notice.pid).encode(), str(os.getpid()).encode(), 1))
        assert read_notice(notice.port) is not None
        with pytest.raises(ServerUnreachableError, match="no JobManager server"):
            daemon.stop_background(notice.port)
        assert not path.exists()


def test_a_server_that_is_part_of_another_program_is_not_stopped(state: Path) -> None:
    with JobManagerServer(port=0, state=state, warm=0) as server:
        for order in (daemon.stop_background, daemon.restart_background):
            with pytest.raises(ServerError, match=f"is part of another program .process {os.getpid()}."):
                order(server.port)
        assert server.is_running
        JobManagerClient(port=server.port).close()


def test_status_says_where_it_is_and_what_it_does(state: Path) -> None:
    with server_in(state, max_running=3, backend="processes") as notice:
        found = daemon.status(notice.port)
        assert found is not None
        assert found["log"] == str(state / "server.log")
        assert (found["max_running"], found["backend"], found["running"]) == (3, "processes", 0)


def test_the_folder_of_a_server_on_any_free_port_goes_also_where_it_is_killed() -> None:
    notice = daemon.start_background(Settings(port=0))
    assert Path(notice.state).is_dir()
    daemon.stop_background(notice.port, force=True)
    until(lambda: not Path(notice.state).exists())


def test_the_folder_that_a_server_was_given_stays_where_it_is_killed(state: Path) -> None:
    notice = daemon.start_background(Settings(port=0, state=state, warm=1))
    until(lambda: reapers_of(notice.pid))
    reapers = reapers_of(notice.pid)
    assert len(reapers) == 1
    daemon.stop_background(notice.port, force=True)
    gone(*reapers)
    assert state.is_dir()


def test_the_folder_of_a_server_on_any_free_port_goes_with_it() -> None:
    notice = daemon.start_background(Settings(port=0, warm=0))
    assert Path(notice.state).is_dir()
    daemon.stop_background(notice.port)
    assert not Path(notice.state).exists()


def reapers_of(pid: int) -> list[int]:
    """The processes that look after those of a server."""
    return [one for one in family(pid) if b"reaper.py" in Path(f"/proc/{one}/cmdline").read_bytes()]
