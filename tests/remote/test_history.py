"""What a server remembers of its jobs: it survives, it is all or nothing, and what goes wrong is told in a sentence."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_nb import JobManagerClient, JobManagerServer, RemoteEnvironment
from sage_nb.errors import ServerBusyError
from sage_nb.remote.history import Entry, History
from tests.support import until

UUID = "facade00-0000-0000-0000-00000000000"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


def entry(n: int = 0, **more: object) -> Entry:
    return Entry(**{"uuid": f"{UUID}{n}", "name": "job", "environment": "env", "submitted": 1.0, **more})  # type: ignore[arg-type]


def test_jobs_are_numbered_in_the_order_of_submission(path: Path) -> None:
    history = History(path)
    assert [history.add(entry(n)).number for n in range(3)] == [1, 2, 3]
    history.forget(f"{UUID}2")
    assert history.add(entry(3)).number == 4  # a number is never given twice
    assert [one.number for one in history.all()] == [1, 2, 4]
    history.close()


def test_every_field_survives(path: Path) -> None:
    full = entry(
        status="failed", backend="ray", autostop=True, begins_anew=True, owner="me", owner_timeout=0.5, folder="/x",
        machine="here:1", started=2.0, stopped=3.5, last_update=4.0, restart_count=2, error="ValueError: \0 é 🐍",
        note="a note", runner="12:34", snapshot=bytes(range(256)),
    )  # fmt: skip
    history = History(path)
    history.add(full)
    history.close()
    again = History(path)
    assert again.all() == [full]
    again.close()


text = st.text(st.characters(blacklist_categories=["Cs"]), max_size=50)
maybe = st.none() | text
number = st.floats(allow_nan=False)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.builds(
    Entry, uuid=text, name=text, environment=text, status=text, autostop=st.booleans(), begins_anew=st.booleans(),
    owner=maybe, owner_timeout=number, folder=text, submitted=number, started=st.none() | number, error=maybe,
    snapshot=st.none() | st.binary(max_size=50), restart_count=st.integers(0, 2**60),
), unique_by=lambda one: one.uuid, max_size=5))  # fmt: skip
def test_whatever_is_remembered_comes_back(tmp_path_factory: pytest.TempPathFactory, entries: list[Entry]) -> None:
    history = History(tmp_path_factory.mktemp("history") / "h")
    for one in entries:
        history.add(one)
    assert history.all() == entries
    history.close()


def test_every_state_is_kept_and_no_change_that_is_none(path: Path) -> None:
    history = History(path)
    one = history.add(entry())
    for status in ("starting", "running", "running", "failed"):
        one.status, one.error = status, "why" if status == "failed" else None
        history.update(one)
    one.status, one.restart_count = "failed", 1
    history.update(one)
    states = [(attempt, status, error) for _, attempt, status, error in history.states(one.number)]
    assert states == [
        (1, "queued", None), (1, "starting", None), (1, "running", None), (1, "failed", "why"), (2, "failed", "why"),
    ]  # fmt: skip
    times = [when for when, *_ in history.states(one.number)]
    assert times == sorted(times)
    history.close()


def test_the_states_go_with_their_job(path: Path) -> None:
    history = History(path)
    one, other = history.add(entry(0)), history.add(entry(1))
    history.forget(one.uuid)
    history.forget("nobody")
    assert history.states(one.number) == []
    assert len(history.states(other.number)) == 1
    history.close()


def test_an_update_of_a_forgotten_job_makes_none(path: Path) -> None:
    history = History(path)
    one = history.add(entry())
    history.forget(one.uuid)
    one.status = "running"
    history.update(one)
    assert history.all() == []
    history.close()


def test_the_same_job_twice_is_refused_and_leaves_nothing_behind(path: Path) -> None:
    history = History(path)
    history.add(entry())
    with pytest.raises(ServerBusyError):
        history.add(entry())
    assert len(history.all()) == 1
    assert history.add(entry(1)).number == 2
    history.close()


def test_what_was_remembered_outlives_a_kill(path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from sage_nb.remote.history import Entry, History\n"
        "h = History(Path(sys.argv[1]))\n"
        "for n in range(5): h.add(Entry(uuid=str(n), name='n', environment='e'))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9
    history = History(path)
    assert [one.uuid for one in history.all()] == ["0", "1", "2", "3", "4"]
    history.close()


def test_a_history_of_a_newer_version_is_refused_and_left_alone(path: Path, tmp_path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    before = path.read_bytes()
    with pytest.raises(ServerBusyError, match=r"was written by a newer version of sage_nb; .* another --state folder"):
        History(path)
    assert path.read_bytes() == before


def test_a_server_with_such_a_history_does_not_begin(home: Path, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "history.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ServerBusyError, match="newer version"):
        JobManagerServer(port=0, warm=0, state=tmp_path).start()


@pytest.mark.parametrize("content", [b"this is no database" * 50, b"SQLite format 3\0junk"])
def test_a_file_that_is_no_history_is_told(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(ServerBusyError, match="history"):
        History(path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ServerBusyError, match="cannot be"):
        History(tmp_path / "nowhere" / "history.sqlite")


def test_another_process_that_writes_for_too_long_is_told_and_spoils_nothing(path: Path) -> None:
    history = History(path)
    one = history.add(entry())
    history._db.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    one.status = "running"
    with pytest.raises(ServerBusyError, match="locked"):
        history.update(one)
    with pytest.raises(ServerBusyError, match="locked"):
        history.add(entry(1))
    assert [found.status for found in history.all()] == ["queued"]  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    history.update(one)
    assert [found.status for found in history.all()] == ["running"]
    history.close()


def test_another_process_that_reads_holds_nobody_up(path: Path) -> None:
    history = History(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN")
    assert other.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    history.add(entry())
    assert other.execute("SELECT count(*) FROM jobs").fetchone() == (0,)
    other.execute("COMMIT")
    assert other.execute("SELECT count(*) FROM jobs").fetchone() == (1,)
    other.close()
    history.close()


def test_the_oldest_jobs_are_forgotten_where_all_take_more_room_than_they_may(home: Path, tmp_path: Path) -> None:
    with JobManagerServer(port=0, warm=1, state=tmp_path) as one:
        for n in range(3):
            env = RemoteEnvironment(f"job {n}", port=one.port)
            env.from_batch([n]).map(lambda n: bytes(8 << 20)).collect("out")
            env.submit(autostop=True)
    with JobManagerServer(port=0, warm=0, state=tmp_path, keep_size=20) as one:
        client = JobManagerClient(port=one.port)
        until(lambda: [job["name"] for job in client.list_jobs()] == ["job 1", "job 2"])
        until(lambda: len(list((tmp_path / "jobs").iterdir())) == 2)
