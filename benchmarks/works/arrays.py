"""W8: the arithmetic of W1 on numpy arrays: ten million integers, 65,536 at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.measure import Figure, side_by_side
from benchmarks.works.sinks import Sum

__all__ = ["ITEMS", "SIZE", "add_one", "beside", "evens", "total", "triple"]

ITEMS = 10_000_000
SIZE = 65_536

Array = np.ndarray[Any, np.dtype[np.int64]]


def add_one(xs: Array) -> Array:
    return xs + 1


def evens(xs: Array) -> Array:
    even: Array = xs[xs % 2 == 0]
    return even


def triple(xs: Array) -> Array:
    return xs * 3


def total(xs: Array) -> int:
    return int(xs.sum())


def by_hand(array: Array) -> int:
    sink = Sum()
    for start in range(0, len(array), SIZE):
        sink.add(total(triple(evens(add_one(array[start : start + SIZE])))))
    return sink.total


def in_a_thread(work: Callable[[], int]) -> int:
    """A job runs in a thread, where glibc keeps freed arrays; in the main thread it gives them back each time.

    That alone would make the loop by hand take twice as long, and the ratio say nothing about sage_nb.
    """
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def beside(run: Callable[[Array], int], runs: int) -> Figure:
    array = np.arange(ITEMS, dtype=np.int64)
    return side_by_side(lambda: run(array), lambda: in_a_thread(lambda: by_hand(array)), runs)
