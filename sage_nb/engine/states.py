"""The states in which a job has ended: alone here, so that what only looks at jobs need not load what runs them."""

from __future__ import annotations

__all__ = ["ENDED"]

ENDED = frozenset({"completed", "failed", "stopped"})
