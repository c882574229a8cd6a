"""W4: the words of a text of 50 MB, counted: by a sink, or by key."""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import Figure, side_by_side

__all__ = ["Counts", "Latest", "beside", "beside_keyed", "split", "word_itself"]

MEGABYTES = 50

split: Callable[[str], list[str]] = str.split
word_itself: Callable[[str], str] = lambda word: word  # noqa: E731 - only lambdas are inlined


class Counts:
    """Counts the words that come."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def add(self, word: str) -> None:
        self.counts[word] += 1


class Latest:
    """Keeps the latest count of each word."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def put(self, pair: tuple[str, int]) -> None:
        word, self.counts[word] = pair


@contextmanager
def text() -> Iterator[Path]:
    """A file of words with a natural spread of frequencies, always the same ones."""
    rng = random.Random(20130101)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(5000)]
    weights = [1 / (n + 1) for n in range(len(words))]
    block = "".join(" ".join(rng.choices(words, weights, k=12)) + "\n" for _ in range(20_000))
    with tempfile.TemporaryDirectory(prefix="sage_nb-bench-") as folder:
        path = Path(folder) / "words.txt"
        with path.open("w") as file:
            written = 0
            while written < MEGABYTES * 1_000_000:
                written += file.write(block)
        yield path


def by_hand(path: Path) -> dict[str, int]:
    words = Counts()
    add, parts = words.add, split
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            for word in parts(line):
                add(word)
    return words.counts


def keyed_by_hand(path: Path) -> dict[str, int]:
    latest = Latest()
    put, parts, key = latest.put, split, word_itself
    counts: dict[str, int] = {}
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            for word in parts(line):
                name = key(word)
                count = counts[name] = counts.get(name, 0) + 1
                put((name, count))
    return latest.counts


def beside(run: Callable[[Path], dict[str, int]], runs: int) -> Figure:
    """A sink counts."""
    with text() as path:
        return side_by_side(lambda: run(path), lambda: by_hand(path), runs, normal=dict)


def beside_keyed(run: Callable[[Path], dict[str, int]], runs: int) -> Figure:
    """The words are keys, and each gives its count so far."""
    with text() as path:
        return side_by_side(lambda: run(path), lambda: keyed_by_hand(path), runs, normal=dict)
