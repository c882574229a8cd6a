"""Where operators lie in the picture."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence

import pytest

from sage_nb.jobs.layout import places

Graph = list[tuple[int, tuple[int, ...], str]]


def _graph(*inputs: Sequence[int], kinds: dict[int, str] | None = None) -> Graph:
    kinds = kinds or {}
    return [(id, tuple(ups), kinds.get(id, "map" if ups else "source")) for id, ups in enumerate(inputs)]


def _forest(rng: random.Random, size: int) -> Graph:
    return _graph(*((rng.randrange(id),) if id and rng.random() < 0.9 else () for id in range(size)))


def _any_graph(rng: random.Random, size: int) -> Graph:
    """Merges, loops and all: every operator reads from up to three others, a future from a later one."""
    graph: Graph = [(0, (), "source")]
    for id in range(1, size):
        kind = rng.choice(["source", "future", "map", "map", "map", "sink"])
        ups = [rng.randrange(id) for _ in range(rng.randint(1, 3))]
        graph.append((id, {"source": (), "future": (rng.randrange(size),)}.get(kind, tuple(ups)), kind))
    return graph


def _tree_places(graph: Graph) -> dict[int, tuple[int, int]]:
    """The rule for trees: depth is the column, each leaf has a row, a parent is beside its first child."""
    children: dict[int, list[int]] = {id: [ch for ch, ups, _ in graph if id in ups] for id, _, _ in graph}
    found: dict[int, tuple[int, int]] = {}
    rows = 0

    def place(id: int, col: int) -> None:
        nonlocal rows
        found[id] = (col, rows)
        for child in children[id]:
            place(child, col + 1)
        rows += not children[id]

    for id, ups, _ in graph:
        if not ups:
            place(id, 0)
    return found


def test_trees_lie_as_their_branches_are_declared() -> None:
    """A picture without merges is the one that it always was, for 200 random forests."""
    for seed in range(200):
        graph = _forest(random.Random(seed), 1 + seed % 40)
        assert places(graph) == _tree_places(graph)


def test_a_merge_of_two_lies_beside_the_first() -> None:
    """source 0 and source 1 merge in 2, which goes on to 3 in the same row."""
    assert places(_graph((), (), (0, 1), (2,))) == {0: (0, 0), 1: (0, 1), 2: (1, 0), 3: (2, 0)}


def test_a_merge_of_three_lies_between_them() -> None:
    assert places(_graph((), (), (), (0, 1, 2), (3,)))[3] == (1, 1)
    assert places(_graph((), (0,), (0,), (0,), (1, 2, 3), (4,))) == {
        0: (0, 0),
        1: (1, 0),
        2: (1, 1),
        3: (1, 2),
        4: (2, 1),
        5: (3, 1),
    }


def test_the_column_is_the_longest_way_from_a_source() -> None:
    """3 reads from the source and from the end of a chain; it lies behind the chain, and beside it."""
    assert places(_graph((), (), (1,), (0, 2)))[3] == (2, 1)
    assert places(_graph((), (0,), (1,), (0, 2))) == {0: (0, 0), 1: (1, 0), 2: (2, 0), 3: (3, 0)}


def test_what_a_loop_feeds_lies_just_before_its_reader() -> None:
    """The head of the loop, 3, is in the column before the merge 4 however far that is from the source."""
    kinds = {3: "future", 5: "filter", 6: "sink"}
    graph = _graph((), (0,), (1,), (5,), (2, 3), (4,), (4,), kinds=kinds)
    found = places(graph)
    assert [found[id] for id in (0, 1, 2, 4, 5)] == [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)]
    assert found[3] == (2, 1)
    assert found[6] == (4, 1)


def test_the_main_line_stays_straight_whichever_input_of_a_merge_comes_first() -> None:
    """A merge lies beside what sources feed, not beside the head of the loop, in whatever order they are given."""
    kinds = {1: "future"}
    for merge in ((0, 1), (1, 0)):
        found = places(_graph((), (2,), merge, (2,), kinds=kinds))
        assert [found[id] for id in (0, 2, 3, 1)] == [(0, 0), (1, 0), (2, 0), (0, 1)]


def test_a_source_lies_above_the_head_of_a_loop_that_was_declared_before_it() -> None:
    """The main line is the first row, whatever comes first in the cell."""
    found = places(_graph((3,), (), (1, 0), (2,), kinds={0: "future"}))
    assert [found[id] for id in (1, 2, 3, 0)] == [(0, 0), (1, 0), (2, 0), (0, 1)]


def test_the_way_of_an_edge_along_its_row_is_kept_free() -> None:
    """Source 5 feeds the merge 4 in column 3 along row 1, so the head of the loop, 6, lies in row 2."""
    graph: Graph = [
        (0, (), "source"),
        (5, (), "source"),
        (6, (4,), "future"),
        (1, (0,), "map"),
        (2, (1, 6), "map"),
        (4, (2, 5), "map"),
    ]
    found = places(graph)
    assert [found[id] for id in (0, 1, 2, 4)] == [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert (found[5], found[6]) == ((0, 1), (1, 2))


def test_a_loop_without_a_future_does_no_harm() -> None:
    """An operator that reads from itself and one that reads from a later one are placed as if they did not."""
    assert places(_graph((), (0, 1, 2), (1, 7))) == {0: (0, 0), 1: (1, 0), 2: (2, 0)}


def test_connected_pipelines_lie_together() -> None:
    """0 and 2 are joined in 3, and the pipeline of 1 does not lie between them."""
    found = places(_graph((), (), (), (0, 2), (1,)))
    assert [found[id][1] for id in (0, 2, 1)] == [0, 1, 2]


def test_ids_need_not_be_counted_from_zero() -> None:
    assert places([(7, (), "source"), (3, (7,), "map"), (5, (7, 3), "sink")]) == {7: (0, 0), 3: (1, 0), 5: (2, 0)}
    assert places([]) == {}


@pytest.mark.parametrize("seed", range(300))
def test_no_two_operators_share_a_cell_and_items_flow_to_the_right(seed: int) -> None:
    """Random graphs with merges and loops: cells are unique, rows have no gap, all but loops lead to the right."""
    graph = _any_graph(random.Random(seed), 1 + seed % 30)
    found = places(graph)
    assert len(set(found.values())) == len(graph)
    assert {row for _, row in found.values()} == set(range(1 + max(row for _, row in found.values())))
    assert all(col >= 0 for col, _ in found.values())
    assert min(col for col, _ in found.values()) == 0
    for id, ups, kind in graph:
        assert kind == "future" or all(found[up][0] < found[id][0] for up in ups if up < id)
    assert places(graph) == found


def test_a_long_chain_and_a_large_graph_take_a_moment() -> None:
    """2,000 operators in a row are placed, and 200 with merges and loops take less than 20 ms."""
    assert places(_graph((), *((id,) for id in range(1999))))[1999] == (1999, 0)
    graph = _any_graph(random.Random(0), 200)
    times = []
    for _ in range(7):
        began = time.perf_counter()
        places(graph)
        times.append(time.perf_counter() - began)
    assert statistics.median(times) < 0.020
