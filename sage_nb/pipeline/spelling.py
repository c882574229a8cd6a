"""What to say of a word that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest"]


def nearest(word: str, words: Iterable[str], likeness: float = 0.6) -> str | None:
    """The one of `words` that is most like `word`, if one is like it; 1.0 would be the word itself."""
    return next(iter(difflib.get_close_matches(word, list(words), 1, likeness)), None)


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `words`, or what there is instead."""
    words = list(words)
    near = nearest(word, words)
    return f"; did you mean {near!r}?" if near else f"; there are: {', '.join(sorted(words))}"
