"""Items on which a function fails: skipped or kept, counted, and nothing else is lost."""

from __future__ import annotations

from typing import Any

from sage_nb import BaseCoMapFunction, MapFunction
from tests.parity.case import Cases
from tests.parity.keyed import running
from tests.parity.merged import Matches

__all__ = ["cases"]

cases = Cases("errors")


class Fussy(MapFunction):
    """Goes on after a failure as if nothing had been."""

    def __init__(self) -> None:
        self.refused = 0

    def execute(self, data: int) -> int:
        if data % 4 == 0:
            self.refused += 1
            raise ValueError(f"not {data}")
        return data


class Halves(BaseCoMapFunction):
    def map0(self, data: int) -> float:
        return 1 / data

    def map1(self, data: int) -> float:
        return float(data)


class FussyMatches(Matches):
    def execute(self, payload: Any, key: Any, tag: int) -> list[Any]:
        return super().execute(10 // payload, key, tag)


def inverse(x: int) -> float:
    return 1 / x


def breaks_off(x: int) -> Any:
    """Fails behind its first item where `x` is odd."""
    yield x
    if x % 2:
        raise LookupError(x)
    yield x


async def inverse_later(x: int) -> float:
    return 1 / x


def plus(so_far: int, item: int) -> int:
    if item == 5:
        raise ArithmeticError(item)
    return so_far + item


def less_unless_three(n: int) -> int:
    if n == 3:
        raise OverflowError(n)
    return n - 1


def all_inverse(some: list[int]) -> list[float]:
    return [1 / x for x in some]


GOOD = [x for x in range(20) if x % 4]
BAD = [x for x in range(20) if x % 4 == 0]


@cases.add(GOOD, errors={"fussy": 5})
def a_map_skips(env: Any, p: int) -> Any:
    return env.from_batch(range(20)).map(Fussy, on_error="skip", name="fussy", parallelism=p)


@cases.add(GOOD, errors={"fussy": 5}, dead={"fussy": BAD})
def a_map_keeps_dead_letters(env: Any, p: int) -> Any:
    return env.from_batch(range(20)).map(Fussy, on_error="dead_letter", name="fussy", parallelism=p)


@cases.add([1, 2, 4], errors={"filter": 2}, dead={"filter": [0, 0]})
def a_filter_keeps_dead_letters(env: Any, p: int) -> Any:
    return env.from_batch([0, 1, 2, 0, 4]).filter(inverse, on_error="dead_letter", name="filter", parallelism=p)


@cases.add([0, 0, 1, 2, 2, 3], errors={"many": 2})
def a_flatmap_that_fails_half_way(env: Any, p: int) -> Any:
    return env.from_batch(range(4)).flatmap(breaks_off, on_error="skip", name="many", parallelism=p)


@cases.add(list(range(4)), errors={"taken": 1}, dead={"taken": [0]})
def a_sink_keeps_dead_letters_and_its_neighbour_gets_all(env: Any, p: int) -> Any:
    return env.from_batch(range(4)).sink(inverse, on_error="dead_letter", name="taken", parallelism=p)


@cases.add([("a", 1), ("b", 1), ("a", 2)], order="per_key", errors={"key": 2}, dead={"key": [7, None]})
def a_key_that_cannot_be_had(env: Any, p: int) -> Any:
    return env.from_batch(["a", 7, "b", None, "a"]).keyby(str.lower, on_error="dead_letter", name="key").count()


@cases.add([1, 3, 6], order="exact", errors={"sum": 1}, dead={"sum": [5]})
def a_reduce_goes_on_with_what_it_had(env: Any, p: int) -> Any:
    keyed = env.from_batch([1, 2, 5, 3]).keyby(lambda x: 0)
    return keyed.reduce(plus, on_error="dead_letter", name="sum", parallelism=p)


@cases.add(
    running([("a", 2), ("b", 4), ("a", 1)], lambda i: i[0], lambda i: 1 / i[1]),
    order="per_key",
    alone="per_key",
    errors={"sum": 1},
    dead={"sum": [("b", 0)]},
)
def a_sum_whose_value_cannot_be_had(env: Any, p: int) -> Any:
    keyed = env.from_batch([("a", 2), ("b", 0), ("b", 4), ("a", 1)]).keyby(lambda item: item[0])
    return keyed.sum(lambda item: 1 / item[1], on_error="dead_letter", name="sum", parallelism=p)


@cases.add([1.0, 0.5, 0.25], errors={"later": 1}, dead={"later": [0]})
def a_coroutine_that_fails(env: Any, p: int) -> Any:
    stream = env.from_batch([1, 0, 2, 4])
    return stream.map_async(inverse_later, on_error="dead_letter", name="later", parallelism=p)


@cases.add([1.0, 0.5, 0.0, 3.0], alone="any", errors={"halves": 1}, dead={"halves": [0]})
def a_comap_that_fails_on_one_stream(env: Any, p: int) -> Any:
    both = env.from_batch([0, 1, 2]).connect(env.from_batch([0, 3]))
    return both.comap(Halves, on_error="dead_letter", name="halves", parallelism=p)


@cases.add([(0, (0, 5), (1, 2)), (0, (0, 2), (1, 2))], alone="any", errors={"join": 1}, dead={"join": [0]})
def a_join_that_fails_on_an_item(env: Any, p: int) -> Any:
    left, right = (env.from_batch(items).keyby(lambda x: 0) for items in ([2, 0, 4], [5]))
    return left.connect(right).join(FussyMatches, on_error="dead_letter", name="join", parallelism=p)


@cases.add([1.0], errors=None, scales=False)
def a_batch_that_fails_is_left_out_whole(env: Any, p: int) -> Any:
    stream = env.from_batch([0, 1, 2, 0, 1])
    return stream.map_batches(all_inverse, size=2, on_error="skip", name="all")


@cases.add([1 / (x - 1) for x in GOOD if x != 1], errors={"fussy": 5, "rest": 1}, submit={"on_error": "skip"})
def the_default_of_the_submit(env: Any, p: int) -> Any:
    fussy = env.from_batch(range(20)).map(Fussy, name="fussy", parallelism=p)
    return fussy.map(lambda x: 1 / (x - 1), name="rest", parallelism=p)


@cases.add([x * 3 for x in GOOD], order="exact", errors={"fussy": 5}, dead={"fussy": BAD})
def a_map_in_processes_keeps_dead_letters(env: Any, p: int) -> Any:
    stream = env.from_batch(range(20))
    fussy = stream.map(Fussy, on_error="dead_letter", name="fussy", parallelism=p, executor="process")
    return fussy.map(lambda x: x * 3)


@cases.add([4, 3, 3, 0], alone="any", errors={"step": 2}, dead={"step": [3, 3]})
def an_error_in_a_loop_ends_its_way(env: Any, p: int) -> Any:
    again = env.from_future("again")
    both = env.from_batch([5, 4, 1]).connect(again)
    less = both.map(less_unless_three, on_error="dead_letter", name="step", parallelism=p)
    less.filter(lambda n: n > 0).fill_future(again)
    return less
