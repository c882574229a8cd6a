"""Text that does no harm wherever it is shown."""

from __future__ import annotations

import unicodedata

__all__ = ["plain"]

_OTHER_SPACES = frozenset("\t\n\v\f\r\u2028\u2029\ufeff")
_DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str, *, lines: bool = False) -> str:
    """`text` without what would steer a terminal, turn the reading direction or break an XML file.

    White space becomes one space each, other control characters and lone surrogates `\N{REPLACEMENT CHARACTER}`;
    line feeds and tabs stay where `lines` is set.
    """
    return "".join(ch if lines and ch in "\n\t" else _plain_char(ch) for ch in text)


def _plain_char(ch: str) -> str:
    category = unicodedata.category(ch)
    if category == "Zs" or ch in _OTHER_SPACES:
        return " "
    if ch in _DIRECTION_MARKS:
        return ""
    return "\N{REPLACEMENT CHARACTER}" if category in ("Cc", "Cs") or ch in "\ufffe\uffff" else ch
