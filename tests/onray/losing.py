"""A process that loses two clusters, and is looked at again two minutes later. It waits beside other tests."""

from __future__ import annotations

from tests.onray.support import SOON
from tests.support import Script

__all__ = ["DECLARE", "Losing"]

DECLARE = """
import os, time
from sage_nb import LocalEnvironment, call_service

def slowly(n):
    time.sleep(0.01)
    return n, os.getpid()

def declare(count=100_000, **options):
    env = LocalEnvironment("slow", backend="ray", **options)
    env.from_batch(range(count)).map(slowly, parallelism=2, name="slowly").collect("out")
    return env
"""

_CODE = f"""
{DECLARE}
import psutil, signal
from pathlib import Path

def lose(program):
    env = declare()
    job = env.submit()
    while len(job.results["out"]) < 20:
        time.sleep(0.01)
    (found,) = [one for one in psutil.Process().children() if Path(one.exe()).name == program]
    found.send_signal(signal.SIGSTOP)  # what asks it at this moment gets no answer any more
    time.sleep(1.2)
    found.kill()
    began = time.monotonic()
    try:
        job.wait(60)
    except Exception as exc:
        print(program, type(exc).__name__, "the Ray cluster is lost" in str(exc), time.monotonic() - began < {SOON})

lose("gcs_server")
lose("raylet")
lost = time.monotonic()
print(len(declare(20).submit(autostop=True).results["out"]))
time.sleep(max(0, 120 - (time.monotonic() - lost)))
print("lives", len(declare(20).submit(autostop=True).results["out"]))
"""


class Losing:
    """The process, from its start on."""

    def __init__(self) -> None:
        self.script = Script(_CODE)
        self._heard: list[str] = []

    def said(self, count: int) -> list[str]:
        """The first lines that it says itself, once they are there: Ray says more."""
        while len(self._heard) < count:
            line = self.script.line()
            if line.startswith(("gcs_server", "raylet", "lives")) or line.isdigit():
                self._heard.append(line)
        return self._heard[:count]
