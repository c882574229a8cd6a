"""Which job a word means."""

from __future__ import annotations

import pytest

from sage_nb.errors import JobNotFoundError
from sage_nb.jobs.finding import find_job

JOBS = {"99af31c0-aa": 1, "12345678-bb": 2}


def found(word: str, *, numbered: bool = True) -> int:
    return find_job(word, JOBS, lambda job: f"job {job}", (lambda job: job) if numbered else lambda job: None)


def test_digits_are_a_number_and_never_the_beginning_of_a_uuid() -> None:
    """Else `stop 99` would stop a job that nobody meant."""
    assert found("2") == 2
    with pytest.raises(JobNotFoundError, match="no job goes by '99'"):
        found("99")


def test_more_digits_than_a_number_has_and_digits_where_no_job_has_one_begin_a_uuid() -> None:
    assert found("12345678") == 2
    assert found("99", numbered=False) == 1
    assert found("99af") == 1
