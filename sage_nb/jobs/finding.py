"""Which job somebody means by a word: the same in a notebook, on the command line, and on a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from sage_nb.errors import JobNotFoundError
from sage_nb.pipeline.spelling import nearest

__all__ = ["find_job"]

_T = TypeVar("_T")
_NUMBERS = 6
"""What has more digits is the beginning of a uuid, and no number."""


def find_job(
    word: str,
    jobs: Mapping[str, _T],
    name: Callable[[_T], str],
    number: Callable[[_T], int | None] = lambda job: None,
    *,
    nobody: str = "no job goes by {word!r}",
    advice: str = "",
) -> _T:
    """The job with that uuid, number, name (the newest of that name), or beginning of a uuid that no other has.

    Where jobs have numbers, up to six digits are a number, never the beginning of a uuid: `stop 99` stops no other job.

    `jobs` maps uuids to jobs, the oldest first. Raises `JobNotFoundError`, which says `nobody`, the name that may have
    been meant, and `advice`.
    """
    if word in jobs:
        return jobs[word]
    newest_first = [*jobs.values()][::-1]
    counted = any(number(job) is not None for job in newest_first)
    counted = counted and word.isascii() and word.isdecimal() and len(word) <= _NUMBERS
    if counted:
        for job in newest_first:
            if number(job) == int(word):
                return job
    for job in newest_first:
        if name(job) == word:
            return job
    matches = [] if counted else [uuid for uuid in jobs if word and uuid.startswith(word)]
    if len(matches) == 1:
        return jobs[matches[0]]
    if matches:
        some = ", ".join(uuid[:13] for uuid in matches[:4])
        raise JobNotFoundError(f"{len(matches)} jobs begin with {word!r}: {some}; give more of the id")
    near = nearest(word, {name(job) for job in newest_first})
    hints = [f"did you mean {near!r}?" if near else "", advice]
    raise JobNotFoundError("; ".join([nobody.format(word=word), *filter(None, hints)]))
