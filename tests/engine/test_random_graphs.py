"""Random graphs of all kinds of operators give what the obvious interpreter gives."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings

from sage_nb import LocalEnvironment
from tests.engine.random_graphs import Op, answers, declare, graphs
from tests.support import LIMIT


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_every_graph_gives_the_items_of_the_reference_in_the_order_that_is_promised(ops: list[Op]) -> None:
    """Nothing is lost, nothing is doubled, whatever the operators and their instances; loops end by themselves."""
    env = LocalEnvironment("graph")
    declare(env, ops)
    job = env.submit(autostop=True, timeout=LIMIT)
    for i, stream in enumerate(answers(ops)):
        if str(i) not in job.results:
            continue
        got, expected = list(job.results[str(i)]), [item for _, item in stream.items]
        if stream.order == "all":
            assert got == expected
        else:
            assert Counter(got) == Counter(expected)
