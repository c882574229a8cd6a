"""How fast a job was, in a few numbers."""

from __future__ import annotations

import random

import pytest

from sage_nb.jobs.rates import MOST, RateHistory


def test_a_steady_rate_is_the_same_in_every_part() -> None:
    history = RateHistory()
    for n in range(1, 101):
        history.add(n / 10, n * 5)
    assert history.rates() == pytest.approx([50.0] * len(history.rates()))


@pytest.mark.parametrize("seconds", [1, 7, 8, 60, 3_600, 1_000_000])
def test_there_are_at_most_sixty_parts_however_long_it_took(seconds: int) -> None:
    history = RateHistory()
    for n in range(1, 1_001):
        history.add(seconds * n / 1_000, n)
        assert len(history.rates()) <= MOST
    assert len(history.rates()) >= min(MOST // 2, 8 * seconds) - 1


def test_every_item_is_in_one_part() -> None:
    """At any pace of looking, the parts together have all items, but for a part that has only begun."""
    rng = random.Random(5)
    history, now, items = RateHistory(), 0.0, 0
    for _ in range(2_000):
        now, items = now + rng.random() * rng.choice([0.01, 0.3]), items + rng.randrange(50)
        history.add(now, items)
    rates = history.rates()
    assert sum(rates) * now / len(rates) == pytest.approx(items, rel=0.05)


def test_a_pause_is_seen_and_a_new_attempt_begins_anew() -> None:
    history = RateHistory()
    for n in range(1, 31):
        history.add(n / 10, min(n, 10) * 10 + max(0, n - 20) * 10)
    rates = history.rates()
    assert min(rates[9:15]) == 0.0
    assert min(rates[0], rates[-1]) == pytest.approx(100.0)
    history.add(3.1, 1)
    assert sum(history.rates()) < 10


def test_what_nobody_looked_at_is_not_made_up() -> None:
    """One look at the end says nothing about what was between."""
    history = RateHistory()
    history.add(10.0, 1_000)
    assert history.rates() == ()
