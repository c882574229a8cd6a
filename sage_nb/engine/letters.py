"""Dead letters: items on which an operator failed, and that its policy took."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

from sage_nb.engine.failure import headline
from sage_nb.engine.log import JobLog
from sage_nb.pipeline.graph import Operator

__all__ = ["DeadLetter", "DeadLetters", "Letters"]

_MOST = 10_000


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An item, the exception it led to, and when, in seconds since the epoch."""

    item: Any
    error: Exception
    time: float


class Letters(Sequence[DeadLetter]):
    """The dead letters of one operator: the last 10,000; `total` counts all."""

    def __init__(self) -> None:
        self._kept: deque[DeadLetter] = deque(maxlen=_MOST)
        self.total = 0

    def __repr__(self) -> str:
        return f"<{self.total:,} dead letters>"

    def __len__(self) -> int:
        return len(self._kept)

    @overload
    def __getitem__(self, index: int) -> DeadLetter: ...
    @overload
    def __getitem__(self, index: slice) -> list[DeadLetter]: ...
    def __getitem__(self, index: int | slice) -> Any:
        return list(self._kept.copy())[index]

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(self._kept.copy())

    def add(self, letter: DeadLetter) -> None:
        self.total += 1
        self._kept.append(letter)


class DeadLetters(dict[str, Letters]):
    """The dead letters of one job, by the operator's name; those of operators that keep none are empty.

    Raises `KeyError` where no operator has the name.
    """

    def __init__(self, operators: list[Operator], on_error: str) -> None:
        super().__init__()
        self._told: set[tuple[str, str]] = set()
        self._names = {op.name for op in operators}
        for op in operators:
            if (op.settings.on_error or on_error) == "dead_letter":
                self[op.name] = Letters()

    def __missing__(self, name: object) -> Letters:
        if name in self._names:
            return Letters()
        kept = ", ".join(self) or "none; on_error='dead_letter' lets an operator keep them"
        raise KeyError(f"no operator is called {name!r}; those that keep dead letters: {kept}")

    def add(self, op: Operator, policy: str, item: Any, exc: Exception, log: JobLog) -> None:
        """Take in an item; the first one of an operator is told in the log."""
        if policy == "dead_letter":
            self.setdefault(op.name, Letters()).add(DeadLetter(item, exc, time.time()))
        kind = (op.name, type(exc).__name__)
        if kind not in self._told:
            self._told.add(kind)
            what = "kept as a dead letter" if policy == "dead_letter" else "skipped"
            log.say(op.name, f"an item is {what}, as are others that fail so: {headline(exc)}", "WARNING")

    def clear(self) -> None:
        """Forget what was kept, for a new attempt."""
        for name in self:
            self[name] = Letters()
        self._told.clear()
