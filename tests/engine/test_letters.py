"""Dead letters: whose there are."""

from __future__ import annotations

import pytest

from tests.support import submitted


def test_a_name_that_no_operator_has_is_refused() -> None:
    job = submitted(lambda env: env.from_batch(["1", "x"]).map(int, on_error="dead_letter").map(abs))
    assert [letter.item for letter in job.dead_letters["int"]] == ["x"]
    with pytest.raises(KeyError, match=r"no operator is called 'itn'; those that keep dead letters: int"):
        job.dead_letters["itn"]
    assert "itn" not in job.dead_letters


def test_an_operator_without_dead_letters_has_none() -> None:
    job = submitted(lambda env: env.from_batch(["1"]).map(int, on_error="dead_letter").map(abs))
    assert len(job.dead_letters["int"]) == len(job.dead_letters["abs"]) == 0


def test_where_no_operator_keeps_any_it_is_said_how() -> None:
    job = submitted(lambda env: env.from_batch(["1"]).map(int))
    with pytest.raises(KeyError, match="on_error='dead_letter'"):
        job.dead_letters["itn"]
