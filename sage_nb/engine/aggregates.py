"""What becomes of a window's values: folded one by one, except where the user wants the list of them."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

__all__ = ["Aggregate", "aggregate_of"]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """How a window's state begins with its first value, takes in the next ones, and becomes the value emitted.

    `merge` joins the states of two windows, that with the earlier first value first.
    """

    start: Callable[[Any], Any]
    fold: Callable[[Any, Any], Any]
    merge: Callable[[Any, Any], Any]
    result: Callable[[Any], Any] | None = None
    """None where the state is what is emitted."""
    stamped: bool = False
    """Whether a value is `(number of its arrival, value)`: a merge puts these in order again."""


def _as_it_is(value: Any) -> Any:
    return value


def _start_mean(value: Any) -> tuple[Any, int]:
    return value, 1


def _fold_mean(state: tuple[Any, int], value: Any) -> tuple[Any, int]:
    return state[0] + value, state[1] + 1


def _merge_mean(one: tuple[Any, int], other: tuple[Any, int]) -> tuple[Any, int]:
    return one[0] + other[0], one[1] + other[1]


def _mean(state: tuple[Any, int]) -> Any:
    return state[0] / state[1]


def _append(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


def _merge_stamped(one: list[Any], other: list[Any]) -> list[Any]:
    return sorted([*one, *other], key=itemgetter(0))


_NAMED = {
    "count": Aggregate(lambda _: 1, lambda n, _: n + 1, operator.add),
    "sum": Aggregate(_as_it_is, operator.add, operator.add),
    "mean": Aggregate(_start_mean, _fold_mean, _merge_mean, _mean),
    "min": Aggregate(_as_it_is, min, min),
    "max": Aggregate(_as_it_is, max, max),
    "first": Aggregate(_as_it_is, lambda first, _: first, lambda one, _: one),
    # Windows merge when an item comes that belongs to both: the last value is the one that comes next.
    "last": Aggregate(_as_it_is, lambda _, last: last, lambda _, other: other),
}


def aggregate_of(aggregate: str | Callable[[list[Any]], Any], *, merging: bool) -> Aggregate:
    """The aggregate of a `WindowSpec`; `merging` says whether its windows may merge."""
    if isinstance(aggregate, str) and aggregate != "list":
        return _NAMED[aggregate]
    function = list if isinstance(aggregate, str) else aggregate

    def of_stamped(state: list[Any]) -> Any:
        return function([value for _, value in state])

    def of_copy(state: list[Any]) -> Any:
        return function(list(state))

    if merging:
        return Aggregate(lambda value: [value], _append, _merge_stamped, of_stamped, stamped=True)
    return Aggregate(lambda value: [value], _append, operator.add, list if function is list else of_copy)
