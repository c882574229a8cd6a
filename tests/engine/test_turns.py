"""How many loops share the interpreter."""

from __future__ import annotations

import sys
import threading
from itertools import count

from sage_nb import Job, LocalEnvironment
from tests.support import until


def running(loops: int) -> list[Job]:
    begun = [threading.Event() for _ in range(loops)]
    jobs = []
    for event in begun:
        env = LocalEnvironment("flat out")
        env.from_batch(count()).map(lambda n, event=event: event.set()).sink(id)
        jobs.append(env.submit())
    until(lambda: all(event.is_set() for event in begun))
    return jobs


def test_many_loops_take_shorter_turns_until_they_have_ended() -> None:
    """Else a thread that wants the interpreter waits for thirty turns of 5 ms."""
    before = sys.getswitchinterval()
    few = running(2)
    assert sys.getswitchinterval() == before
    many = running(18)
    assert abs(sys.getswitchinterval() - before / 5) < 1e-5
    for job in few + many:
        job.stop()
    assert sys.getswitchinterval() == before


def test_an_interval_that_the_user_sets_meanwhile_is_kept() -> None:
    """Law 4."""
    before = sys.getswitchinterval()
    try:
        jobs = running(6)
        sys.setswitchinterval(0.02)
        for job in jobs:
            job.stop()
        assert abs(sys.getswitchinterval() - 0.02) < 1e-6
    finally:
        sys.setswitchinterval(before)
