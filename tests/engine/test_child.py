"""Worker processes: messages, ends, and what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from sage_nb import WorkerError
from sage_nb.engine.child import Child, start
from sage_nb.engine.frames import Connection, ConnectionClosed
from tests.engine.workers import ROOT
from tests.support import Script, until


def started(function: str, **options: object) -> Child:
    """A worker that runs a function of `workers`."""
    return start(f"tests.engine.workers:{function}", **options)  # type: ignore[arg-type]


def got(side: Child | Connection) -> tuple[int, list[bytes]]:
    """The next message."""
    kind, buffers = side.receive()
    return kind, [bytes(one) for one in buffers]


def alive(pid: int) -> bool:
    """Whether the process runs, and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


# ------------------------------------------------------------------------------------------------------------ messages


def test_messages_come_back_as_they_were_sent() -> None:
    child = started("echo")
    large = os.urandom(3_000_000)
    sender = threading.Thread(target=child.send, args=(7, large, b"", b"x", memoryview(large)[5:]))
    sender.start()
    assert got(child) == (7, [large, b"", b"x", large[5:]])
    sender.join()
    several: tuple[list[bytes], ...] = ([], [b""], [b"one"], [b"%d" % n for n in range(2500)])
    for buffers in several:
        child.send(255, *buffers)
        assert got(child) == (255, buffers)
    assert child.close() == "ended with exit code 0"


def test_several_threads_send_without_mixing_messages() -> None:
    child = started("echo")

    def send(n: int) -> None:
        for _ in range(20):
            child.send(n, bytes([n]) * 50_000)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(80):
        kind, (buffer,) = child.receive()
        assert buffer == bytes([kind]) * 50_000
    for thread in threads:
        thread.join()
    child.close()


def test_a_buffer_is_not_joined_with_others_nor_copied_to_be_sent() -> None:
    """Of a large message, a small pipe takes a part at a time."""
    reading, writing = os.pipe()
    unused = os.pipe()
    here, there = Connection(unused[0], writing), Connection(reading, unused[1])
    large = memoryview(bytearray(b"abc") * 1_000_000)
    sender = threading.Thread(target=here.send, args=(1, large, large))
    sender.start()
    assert got(there) == (1, [bytes(large)] * 2)
    sender.join()
    here.close_sending()
    with pytest.raises(ConnectionClosed):
        there.receive()
    with pytest.raises(BrokenPipeError):
        here.send(1)
    here.close()
    there.close()


def test_a_message_that_breaks_off_is_the_end() -> None:
    reading, writing = os.pipe()
    unused = os.pipe()
    there = Connection(reading, unused[1])
    os.write(writing, b"\x01\x00\x00\x00\x01\x00")
    os.close(writing)
    with pytest.raises(ConnectionClosed):
        there.receive()
    there.close()
    os.close(unused[0])


def test_the_worker_has_the_folder_environment_and_path_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGE_NB_TEST", "told")
    monkeypatch.setattr(sys, "path", [*sys.path, "/nowhere/at all"])
    child = started("describe")
    _, (shown,) = child.receive()
    assert shown.decode() == repr([os.getcwd(), "told", True, sys.path, sys.argv])
    child.close()


# ------------------------------------------------------------------------------------------------------------- endings


def test_a_killed_worker_is_told_with_its_signal() -> None:
    child = started("sleep")
    child.receive()
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=rf"worker \(process {child.pid}\) was killed by signal 9 \(SIGKILL\)"):
        child.receive()
    with pytest.raises(WorkerError, match="SIGKILL"):
        child.send(1, b"x")
    assert child.close() == "was killed by signal 9 (SIGKILL)"


def test_a_worker_that_ends_by_itself_is_told_with_its_exit_code() -> None:
    child = started("exit_with_3", name="worker of 'parse'")
    with pytest.raises(WorkerError, match=r"worker of 'parse' \(process \d+\) ended with exit code 3"):
        child.receive()
    assert child.close() == "ended with exit code 3"


def test_a_failing_worker_is_told_with_what_it_printed_last() -> None:
    said: list[str] = []
    child = started("fail", on_output=lambda text, _: said.append(text))
    with pytest.raises(WorkerError, match="ended with exit code 1") as caught:
        child.receive()
    assert "ValueError: wrong from the start" in caught.value.__notes__[0]
    child.close()
    assert "ValueError: wrong from the start" in "".join(said)


def test_what_a_worker_prints_comes_here_and_spoils_no_message() -> None:
    said: list[tuple[str, str]] = []
    child = started("speak", on_output=lambda *one: said.append(one))
    assert got(child) == (0, [b""])
    child.close()
    assert "".join(text for text, _ in said) == "from Python: ä\nfrom below\nfrom a process\nto stderr\n"
    assert [one for one in said if one[1] == "stderr"] == [("to stderr\n", "stderr")]


def test_a_worker_that_sleeps_ends_when_its_pipe_does(tmp_path: Path) -> None:
    """Hooks run first."""
    child = started("sleep_with_hook")
    child.send(0, str(tmp_path / "mark").encode())
    child.receive()
    assert not child.wait(0)
    begun = time.monotonic()
    child.close_sending()
    assert child.wait(5)
    assert time.monotonic() - begun < 2
    assert (tmp_path / "mark").read_text() == "closed"
    child.close()


def test_a_thread_of_the_users_does_not_keep_a_worker() -> None:
    child = started("leave_thread")
    assert child.wait(5)
    child.close()


def test_an_interrupt_reaches_no_worker() -> None:
    child = started("echo")
    child.send(1)
    child.receive()
    os.kill(child.pid, signal.SIGINT)
    child.send(2, b"still there")
    assert got(child) == (2, [b"still there"])
    child.close()


STARTS_A_WORKER = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from sage_nb.engine.child import start
child = start("tests.engine.workers:sleep")
try:
    print(child.receive()[1][0].decode())
    time.sleep(600)
except KeyboardInterrupt:
    print("interrupted")
    time.sleep(600)
"""


def test_an_interrupt_of_the_process_group_reaches_no_worker() -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", STARTS_A_WORKER], stdout=subprocess.PIPE, text=True, process_group=0
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    os.killpg(process.pid, signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    assert alive(pid)
    process.kill()
    process.communicate()
    until(lambda: not alive(pid), 3)


def test_a_worker_ends_when_the_process_that_started_it_is_killed() -> None:
    with Script(STARTS_A_WORKER) as script:
        process = script._process
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert alive(pid)
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: not alive(pid), 3)


def test_processes_that_a_worker_left_hide_its_end_from_nobody() -> None:
    child = started("leave_process")
    begun = time.monotonic()
    child.send(0)
    with pytest.raises(WorkerError, match="SIGKILL"):
        child.receive()
    child.close()
    assert time.monotonic() - begun < 3


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_the_user_forks_does_not_keep_a_worker() -> None:
    child = started("echo")
    child.send(1)
    child.receive()
    forked = os.fork()
    if not forked:
        time.sleep(5)
        os._exit(0)
    begun = time.monotonic()
    child.close()
    assert time.monotonic() - begun < 1.5
    os.kill(forked, signal.SIGKILL)
    os.waitpid(forked, 0)


def test_a_worker_leaves_no_zombie() -> None:
    children = [started("echo") for _ in range(3)]
    for child in children:
        child.kill()
    for child in children:
        child.close()
        assert not Path(f"/proc/{child.pid}").exists()
