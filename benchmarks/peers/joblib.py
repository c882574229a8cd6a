"""The works by joblib: its pool of processes is warm when the clock starts, as it is kept between calls."""

from __future__ import annotations

from functools import partial

from joblib import Parallel, delayed

from benchmarks.works import cpu

__all__ = ["WORKS"]


def w6(pieces: list[int]) -> list[int]:
    return list(Parallel(n_jobs=cpu.PROCESSES)(delayed(cpu.spin)(rounds) for rounds in pieces))


WORKS = {"W6": partial(cpu.beside, w6)}
