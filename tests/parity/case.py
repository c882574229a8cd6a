"""A pipeline as data: how to declare it, what comes out, and in which order.

A family of cases is one module; `@cases.add(...)` before a function makes a case of it. What is expected is computed
by plain Python, next to the pipeline. The function gets the environment and the number of instances for its
operators; with `files=True` also a folder of its own. The stream that it returns is collected as `out`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["Case", "Cases", "Order", "by_key", "dead_items", "differs"]

Order = Literal["exact", "per_key", "last_per_key", "any"]
"""What is promised: the list itself; the list of each key; the last item of each key; the items, in any order."""


@dataclass(frozen=True)
class Case:
    """A pipeline, and what it has to give."""

    name: str
    build: Callable[..., Any]
    out: Any
    """The items of `out`: a list, or a function of the number of instances."""
    order: Order = "any"
    alone: Order = "exact"
    """The order with one instance; that is `order` with several."""
    key: Callable[[Any], Any] = field(default=lambda item: item[0])
    """The key of an item that comes out, for the orders by key."""
    more: Mapping[str, list[Any]] = field(default_factory=dict)
    """Further results by name, in any order."""
    errors: Mapping[str, int] | None = field(default_factory=dict)
    """Errors counted, by operator; None where that is not said."""
    dead: Mapping[str, list[Any]] = field(default_factory=dict)
    """Dead letters by operator, in any order."""
    submit: Mapping[str, Any] = field(default_factory=dict)
    """Options of `submit`."""
    files: bool = False
    read: Callable[[Path], list[Any]] | None = None
    """Reads what was written to the folder; takes the place of `out`."""
    scales: bool = True
    """Whether the number of instances makes a difference."""

    def declare(self, env: Any, p: int, folder: Path) -> None:
        """Declare the pipeline, with `p` instances."""
        stream = self.build(env, p, folder) if self.files else self.build(env, p)
        if self.read is None:
            stream.collect("out")

    def expected(self, p: int) -> list[Any]:
        """The items of `out` with `p` instances."""
        return list(self.out(p) if callable(self.out) else self.out)

    def order_at(self, p: int) -> Order:
        return self.alone if p == 1 else self.order


@dataclass(frozen=True)
class Cases:
    """The cases of one family."""

    family: str
    all: list[Case] = field(default_factory=list)

    def add(self, out: Any = None, **how: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Make a case of the function below; fields as in `Case`."""

        def make(build: Callable[..., Any]) -> Callable[..., Any]:
            self.all.append(Case(f"{self.family} {build.__name__}", build, out, **how))
            return build

        return make


def differs(got: Iterable[Any], expected: Iterable[Any], order: Order, key: Callable[[Any], Any]) -> str:
    """In what way `got` is not what is promised; empty where it is."""
    got, expected = list(got), list(expected)
    if order == "exact":
        return "" if got == expected else f"got {got}, expected {expected}"
    if order in ("per_key", "last_per_key"):
        mine, other = by_key(got, key), by_key(expected, key)
        if order == "last_per_key":
            mine, other = {k: v[-1:] for k, v in mine.items()}, {k: v[-1:] for k, v in other.items()}
        wrong = [k for k in {**mine, **other} if mine.get(k) != other.get(k)]
        return "; ".join(f"of key {k!r}: got {mine.get(k)}, expected {other.get(k)}" for k in wrong)
    extra, missing = _minus(got, expected), _minus(expected, got)
    return f"lost {missing}, got besides {extra}" if extra or missing else ""


def by_key(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    """The items of each key, in order."""
    groups: dict[Any, list[Any]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _minus(these: list[Any], those: list[Any]) -> list[Any]:
    if all(isinstance(one, Hashable) for one in these + those):
        try:
            return list((Counter(these) - Counter(those)).elements())
        except TypeError:  # a tuple is hashable only where its items are
            pass
    left = list(these)
    for one in those:
        if one in left:
            left.remove(one)
    return left


def dead_items(job: Any, operator: str) -> list[Any]:
    """The items of an operator's dead letters."""
    return [letter.item for letter in job.dead_letters[operator]]
