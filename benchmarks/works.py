"""The works: what is run, by sage_nb and by hand. Both call the same callables, the sink included."""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from pathlib import Path

from benchmarks.measure import Pair, side_by_side
from sage_nb import LocalEnvironment

__all__ = ["latency", "make_text", "map_filter_sum", "word_count"]


class _Sum:
    def __init__(self) -> None:
        self.total = 0

    def add(self, x: int) -> None:
        self.total += x


def map_filter_sum(runs: int, items: int = 1_000_000) -> Pair:
    """W1: integers through map, filter, map, and a sum; all lambdas."""
    f, g, h = (lambda x: x + 1), (lambda x: x % 2 == 0), (lambda x: x * 3)
    totals: set[int] = set()

    def by_hand() -> None:
        sink = _Sum()
        add = sink.add
        for x in range(items):
            y = f(x)
            if g(y):
                add(h(y))
        totals.add(sink.total)

    def ours() -> None:
        sink = _Sum()
        env = LocalEnvironment("w1")
        env.from_batch(range(items)).map(f).filter(g).map(h).sink(sink.add)
        env.submit(autostop=True)
        totals.add(sink.total)

    pair = side_by_side(ours, by_hand, runs)
    assert len(totals) == 1, "the two do not agree"
    return pair


def make_text(path: Path, megabytes: int) -> None:
    """A text of `megabytes` MB: words with a natural spread of frequencies, always the same ones."""
    rng = random.Random(20130101)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(5000)]
    weights = [1 / (n + 1) for n in range(len(words))]
    block = "".join(" ".join(rng.choices(words, weights, k=12)) + "\n" for _ in range(20_000))
    with path.open("w") as file:
        written = 0
        while written < megabytes * 1_000_000:
            written += file.write(block)


def word_count(runs: int, text: Path) -> Pair:
    """W4: the words of a text file, counted."""
    found: list[Counter[str]] = []

    class Words:
        def __init__(self) -> None:
            self.counts: Counter[str] = Counter()

        def add(self, word: str) -> None:
            self.counts[word] += 1

    def by_hand() -> None:
        words = Words()
        add, split = words.add, str.split
        with open(text, encoding="utf-8") as lines:
            for line in lines:
                for word in split(line):
                    add(word)
        found[:1] = [words.counts]

    def ours() -> None:
        words = Words()
        env = LocalEnvironment("w4")
        env.from_text(text).flatmap(str.split).sink(words.add)
        env.submit(autostop=True)
        found[1:] = [words.counts]

    pair = side_by_side(ours, by_hand, runs)
    assert found[0] == found[1], "the two do not agree"
    return pair


class _Service:
    def setup(self) -> None:
        self.up = True

    def process(self, x: int) -> int:
        return x

    def cleanup(self) -> None:
        self.up = False


def latency(runs: int, *, service: bool) -> tuple[float, float]:
    """W7: submit of a one-item job to its return, everything cleaned up: p50 and p95 in seconds."""
    times: list[float] = []
    for _ in range(runs + 20):
        env = LocalEnvironment("w7")
        if service:
            env.register_service("s", _Service)
        env.from_batch([1]).sink(lambda x: None)
        began = time.perf_counter()
        env.submit(autostop=True)
        times.append(time.perf_counter() - began)
    counted = sorted(times[20:])
    return statistics.median(counted), counted[int(len(counted) * 0.95)]
