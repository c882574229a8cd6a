"""Results that keep the newest item of each key."""

from __future__ import annotations

import asyncio
import weakref
from typing import Any

import pytest

from sage_nb import LocalEnvironment, Tumbling
from sage_nb.errors import KeyTypeError, PipelineError
from tests.support import Gate, counts, until

SALES = [("tea", 3), ("coffee", 5), ("tea", 4), ("milk", 1), ("coffee", 2)]
REVENUE = [("tea", 7), ("coffee", 7), ("milk", 1)]


def key(sale: tuple[str, int]) -> str:
    return sale[0]


def value(sale: tuple[str, int]) -> int:
    return sale[1]


def revenue(env: LocalEnvironment, sales: Any = SALES) -> Any:
    return env.from_batch(sales).keyby(key).sum(value)


@pytest.mark.parametrize("kind", ["collect", "show"])
def test_the_newest_item_of_each_key_is_kept_in_the_order_in_which_the_keys_first_came(kind: str) -> None:
    env = LocalEnvironment("latest")
    getattr(revenue(env), kind)("revenue", latest=True)
    job = env.submit(autostop=True)
    out = job.results["revenue"]
    assert (list(out), len(out), dict(out)) == (REVENUE, 3, dict(REVENUE))
    assert (out[0], out[-1], out[1:], out == REVENUE) == (REVENUE[0], REVENUE[-1], REVENUE[1:], True)
    assert out.to_pandas().values.tolist() == [list(pair) for pair in REVENUE]
    assert repr(out) == "<Result 'revenue': 3 items>"
    assert counts(job)["revenue"] == (5, 0)


def test_it_is_written_with_one_row_for_each_key(tmp_path: Any) -> None:
    env = LocalEnvironment("written")
    revenue(env).map(lambda pair: {"what": pair[0], "sum": pair[1]}).collect("revenue", latest=True)
    env.submit(autostop=True).results["revenue"].to_csv(tmp_path / "revenue.csv")
    assert (tmp_path / "revenue.csv").read_text().split() == ["what,sum", "tea,7", "coffee,7", "milk,1"]


def test_what_is_not_the_newest_is_let_go() -> None:
    """Law 6: memory is bounded by the number of keys."""

    class Item:
        pass

    made: list[weakref.ref[Item]] = []

    def make(n: int) -> Item:
        item = Item()
        made.append(weakref.ref(item))
        return item

    env = LocalEnvironment("bounded")
    env.from_batch(range(1000)).keyby(lambda n: n % 4).map(make).collect("out", latest=True)
    job = env.submit(autostop=True)
    assert [one() for one in made[-4:]] == list(job.results["out"])
    assert sum(one() is not None for one in made) == 4


def test_it_is_live_and_so_is_its_table() -> None:
    gates = [Gate(at=3), Gate(at=4)]
    env = LocalEnvironment("live")
    sales = env.from_batch(SALES).map(gates[0]).map(gates[1])
    sales.keyby(key).sum(value).show("revenue", rows=2, latest=True)
    job = env.submit()
    seen = []
    for gate in gates:
        gate.wait()
        table = job.snapshot().results[0]
        seen.append((list(job.results["revenue"]), table.total, table.rows))
        gate.open()
    table = job.wait().snapshot().results[0]
    assert seen == [
        ([("tea", 3), ("coffee", 5)], 2, (("tea", "3"), ("coffee", "5"))),
        ([("tea", 7), ("coffee", 5)], 2, (("tea", "7"), ("coffee", "5"))),
    ]
    assert (table.total, table.rows) == (3, (("coffee", "7"), ("milk", "1")))


def test_an_object_that_is_changed_and_comes_again_is_shown_as_it_is() -> None:
    def tally(sale: tuple[str, int], ctx: Any) -> Any:
        ctx.state["sum"] = ctx.state.get("sum", 0) + sale[1]
        return ctx.state

    with Gate(at=3) as gate:
        env = LocalEnvironment("changed")
        env.from_batch(SALES[:3]).map(gate).keyby(key).process(tally).show("out", latest=True)
        job = env.submit()
        gate.wait()
        assert job.snapshot().results[0].rows == (("3",), ("5",))
    assert job.wait().snapshot().results[0].rows == (("7",), ("5",))


def test_a_table_has_two_hundred_rows_unless_it_is_said() -> None:
    env = LocalEnvironment("many")
    env.from_batch(range(300)).keyby(abs).show("out", latest=True)
    job = env.submit(autostop=True)
    table = job.snapshot().results[0]
    assert (table.total, len(table.rows), table.rows[-1], len(job.results["out"])) == (300, 200, ("299",), 300)


def test_it_can_be_read_while_keys_come() -> None:
    env = LocalEnvironment("grows")
    env.from_batch(range(300_000)).keyby(abs).collect("out", latest=True)
    job = env.submit()
    out, looks = job.results["out"], 0
    until(lambda: len(out) > 100)
    while job.status == "running":
        tail, all = out.tail(100), out[:]
        assert tail == list(range(tail[0], tail[0] + 100))
        assert all == list(range(len(all)))
        looks += 1
    assert looks > 1


def test_keys_of_windows_and_of_merged_streams_count() -> None:
    env = LocalEnvironment("kinds")
    one, other = env.from_batch([("a", 1), ("b", 12)]).keyby(key), env.from_batch([("c", 3)]).keyby(key)
    one.window(Tumbling(10), event_time=value).count().collect("windows", latest=True)
    one.connect(other).collect("merged", latest=True)
    results = env.submit(autostop=True).results
    assert [(window.key, window.start) for window in results["windows"]] == [("a", 0), ("b", 10)]
    assert sorted(results["merged"]) == [("a", 1), ("b", 12), ("c", 3)]


@pytest.mark.parametrize("kind", ["collect", "show"])
def test_without_a_key_it_is_refused_where_it_is_declared(kind: str) -> None:
    env = LocalEnvironment("refused")
    plain = env.from_batch(SALES, name="sales")
    late = plain.keyby(key).window(Tumbling(10), event_time=value)
    late.count()
    for stream in (plain, plain.keyby(key).connect(plain), plain.keyby(key).map_batches(list), late.late("late")):
        with pytest.raises(PipelineError, match=rf"{kind} 'out': latest=True .* has no key; call keyby\(\) first"):
            getattr(stream, kind)("out", latest=True)
    with pytest.raises(PipelineError, match="latest is True or False, not 1"):
        getattr(plain.keyby(key), kind)("out", latest=1)
    getattr(plain, kind)("out")  # nothing of what was refused is left
    assert [op.kind for op in env._graph.operators].count(kind) == 1


def test_a_key_that_cannot_be_one_is_said_of_the_keyby() -> None:
    env = LocalEnvironment("unhashable")
    env.from_batch(SALES).keyby(list, name="letters").collect("out", latest=True)
    with pytest.raises(KeyTypeError, match="return a tuple") as caught:
        env.submit(autostop=True)
    assert "in operator 'letters'" in "".join(caught.value.__notes__)


def test_a_new_attempt_begins_with_nothing() -> None:
    failures: list[int] = []

    def fails(sale: tuple[str, int]) -> tuple[str, int]:
        if sale == ("milk", 1) and not failures:
            failures.append(1)
            raise OSError
        return sale

    env = LocalEnvironment("again", config={"fault_tolerance": {"strategy": "fixed", "attempts": 1, "delay": 0.01}})
    sales = env.from_batch(SALES).map(fails)
    sales.keyby(lambda sale: (sale[0], len(failures))).collect("keys", latest=True)
    sales.keyby(key).sum(value).collect("revenue", latest=True)
    results = env.submit(autostop=True).results
    assert results["revenue"] == REVENUE
    assert len(results["keys"]) == 3


def test_its_stream_gives_what_there_is_and_then_each_change() -> None:
    gates = [Gate(at=1), Gate(at=4)]

    async def main() -> list[Any]:
        env = LocalEnvironment("changes")
        revenue(env, env_sales(gates)).collect("revenue", latest=True)
        job = env.submit()
        gates[0].open()
        await asyncio.to_thread(gates[1].wait)
        got = []
        async for item in job.stream("revenue"):
            got.append(item)
            if len(got) == 2:  # three items came before anybody looked
                gates[1].open()
        return got

    assert asyncio.run(main()) == [("tea", 7), ("coffee", 5), ("coffee", 7), ("milk", 1)]


def env_sales(gates: list[Gate]) -> Any:
    """The sales, the first and the fourth held."""
    for sale in SALES:
        yield gates[1](gates[0](sale))


def test_the_loop_has_one_store_for_an_item() -> None:
    from sage_nb.engine.nodes import nodes_of
    from sage_nb.engine.plan import make_plan
    from sage_nb.engine.writing import generate

    env = LocalEnvironment("loop")
    env.from_batch(SALES).keyby(key).collect("out", latest=True)
    (stage,) = make_plan(env._graph, "loop").stages
    assert "s2[k1] = x0" in generate(nodes_of(stage, "iterate")).text
