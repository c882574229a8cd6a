"""Looking at the stacks of threads that run."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

from sage_nb.engine.stacks import stack_of
from tests.support import Gate

COLLECTING = """
import gc, threading, time
from sage_nb.engine.stacks import stack_of

class Cycle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        time.sleep(0.0005)  # as what frees a file or a lock: another thread may run

def deep(n):
    return deep(n - 1) if n else [None]

def work():
    while time.monotonic() < end:
        deep(20)

def begin_threads():
    while time.monotonic() < end:
        one = threading.Thread(target=int)
        one.start()
        one.join()

gc.set_threshold(6)
end = time.monotonic() + 2
threads = [threading.Thread(target=target, daemon=True) for target in (work, work, begin_threads)]
for one in threads:
    one.start()
while time.monotonic() < end:
    for one in threads:
        Cycle()
        stack_of(one.ident)
for one in threads:
    one.join()
print("through")
"""


def test_a_garbage_collection_meanwhile_neither_stops_nor_crashes_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECTING], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "through\n"


def test_a_stack_goes_from_the_innermost_frame_on_and_collecting_goes_on_as_before() -> None:
    gate = Gate()

    def inner() -> None:
        gate(0)

    thread = threading.Thread(target=inner)
    thread.start()
    try:
        assert gate.reached.wait(10)
        names = [name for _, name, _ in stack_of(thread.ident or 0)]
        assert names.index("inner") < names.index("run")
        assert gc.isenabled()
        gc.disable()
        stack_of(thread.ident or 0)
        assert not gc.isenabled()
    finally:
        gc.enable()
        gate.open()
        thread.join()
    assert stack_of(thread.ident or 0) == []
