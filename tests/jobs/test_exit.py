"""The end of the process, and interrupts: real Python processes."""

from __future__ import annotations

import time

import pytest

from tests.support import Script

SETUP = """
import os, sys, threading, time
from sage_nb import BaseService, LocalEnvironment

class Service(BaseService):
    def start(self): print("service up")
    def stop(self): print("service stopped")
    def cleanup(self): print("service cleaned")

env = LocalEnvironment("script")
env.register_service("s", Service)
"""

RUNNING = (
    SETUP
    + """
began = threading.Event()
def numbers():
    while True:
        began.set()
        yield 1
env.from_source(numbers).sink(lambda x: None)
"""
)

BLOCKED = (
    SETUP
    + """
began = threading.Event()
def numbers():
    yield 1
    began.set()
    time.sleep(3600)
env.from_source(numbers).sink(lambda x: None)
"""
)

INTERRUPTED = """
threading.Thread(target=lambda: began.wait() and print("ready")).start()
try:
    WAIT
except KeyboardInterrupt:
    print("KeyboardInterrupt", env.job.status)
"""


@pytest.mark.parametrize("pipeline", [RUNNING, BLOCKED], ids=["running", "blocked"])
@pytest.mark.parametrize(
    "wait",
    [
        "env.submit(autostop=True)",
        "env.submit().wait()",
        "import asyncio; asyncio.run(env.submit_async(autostop=True))",
    ],
)
def test_an_interrupt_while_waiting_stops_the_job_and_is_a_keyboard_interrupt(pipeline: str, wait: str) -> None:
    """Nothing is left running after an interrupt of a cell that waits for the job."""
    with Script(pipeline + INTERRUPTED.replace("WAIT", wait)) as script:
        script.wait_for("ready")
        began = time.monotonic()
        script.interrupt()
        code, lines, err = script.end()
    assert time.monotonic() - began < 10
    assert lines == ["service stopped", "service cleaned", "KeyboardInterrupt stopped"]
    assert (code, err) == (0, "")


@pytest.mark.parametrize("pipeline", [RUNNING, BLOCKED], ids=["running", "blocked"])
@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise LookupError('mine')"])
def test_a_script_that_ends_with_a_running_job_cleans_its_services(pipeline: str, ending: str) -> None:
    began = time.monotonic()
    with Script(f"{pipeline}\nenv.submit()\nbegan.wait()\n{ending}") as script:
        code, lines, err = script.end()
    assert time.monotonic() - began < 20
    assert lines == ["service up", "service stopped", "service cleaned"]
    assert "sage_nb: job 'script' was still running when Python ended" in err
    assert "submit(autostop=True)" in err
    assert code == {"": 0, "sys.exit(3)": 3}.get(ending, 1)


@pytest.mark.parametrize(
    ("asked", "said"), [("", 1), ("job.exception()", 0), ("\ntry: job.wait()\nexcept ValueError: pass", 0)]
)
def test_a_failure_that_nobody_was_told_of_is_said_when_python_ends(asked: str, said: int) -> None:
    code = "env = LocalEnvironment('silent')\nenv.from_batch(['1', 'x']).map(int).collect('o')\njob = env.submit()\n"
    wait = "while job.status != 'failed': time.sleep(0.01)\n"
    with Script("import time\nfrom sage_nb import LocalEnvironment\n" + code + wait + asked) as script:
        code, lines, err = script.end()
    assert (code, lines) == (0, [])
    assert err.count("sage_nb: job 'silent' has failed, and nobody asked how it ended: ValueError: invalid") == said
    assert err.count("job.wait()") == said


def test_services_that_were_kept_are_cleaned_when_python_ends() -> None:
    with Script(SETUP + "env.from_batch([1]).sink(print)\nenv.submit(autostop=True, cleanup='never')") as script:
        code, lines, err = script.end()
    assert lines == ["service up", "1", "service stopped", "service cleaned"]
    assert (code, err) == (0, "")


def test_a_service_that_hangs_does_not_hold_the_process() -> None:
    """At the end of the process services have two seconds in all, and those that do not hang are stopped."""
    hangs = """
class Hangs(BaseService):
    def stop(self): print("hangs"); time.sleep(3600)
env.register_service("hangs", Hangs)
"""
    with Script(f"{RUNNING}{hangs}\nenv.submit()\nbegan.wait()\nprint('ready')") as script:
        script.wait_for("ready")
        began = time.monotonic()
        code, lines, _ = script.end()
    assert time.monotonic() - began < 15
    assert lines == ["hangs", "service stopped", "service cleaned"]
    assert code == 0


def test_a_finished_job_says_nothing_at_the_end() -> None:
    with Script(SETUP + "env.from_batch([1]).sink(print)\nenv.submit(autostop=True)") as script:
        assert script.end() == (0, ["service up", "1", "service stopped", "service cleaned"], "")


@pytest.mark.parametrize("ending", ["os._exit(7)", "sys.exit(7)"])
def test_a_forked_child_leaves_the_parents_job_alone(ending: str) -> None:
    code = f"""
import warnings; warnings.simplefilter("ignore", DeprecationWarning)  # of fork() beside threads
job = env.submit()
began.wait()
if (pid := os.fork()) == 0:
    {ending}
print("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), job.status)
job.stop()
"""
    with Script(RUNNING + code) as script:
        assert script.end() == (0, ["service up", "child 7 running", "service stopped", "service cleaned"], "")


def test_importing_is_light_and_starts_nothing() -> None:
    code = """
import sys, threading, os, signal
handlers = [signal.getsignal(n) for n in signal.valid_signals()]
import sage_nb
from sage_nb import LocalEnvironment, JobManager, BaseService, call_service
env = LocalEnvironment("light")
env.from_batch([1]).collect("out")
env.submit(autostop=True)
heavy = {"pandas", "numpy", "anywidget", "ipywidgets", "IPython", "ipykernel", "jedi", "socketserver"}
print(sorted(heavy & sys.modules.keys()), threading.active_count(), "logging.config" in sys.modules)
print(handlers == [signal.getsignal(n) for n in signal.valid_signals()])
print([os.readlink(f"/proc/self/fd/{n}") for n in range(3, 20) if os.path.exists(f"/proc/self/fd/{n}")])
"""
    with Script(code) as script:
        assert script.end() == (0, ["[] 1 False", "True", "[]"], "")


def test_import_alone_loads_next_to_nothing() -> None:
    code = """
import sys
before = set(sys.modules)
import sage_nb
print(sorted(name for name in set(sys.modules) - before if name.startswith("sage_nb")))
"""
    with Script(code) as script:
        assert script.end() == (0, ["['sage_nb']"], "")
