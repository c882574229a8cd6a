"""What reading JSON raises where it is wrong."""

from __future__ import annotations

import msgspec

__all__ = ["UNREADABLE"]

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Also of a text in it that is no Unicode, or one that is too deep."""
