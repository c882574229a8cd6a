"""Where each operator lies in the picture: its column and its row.

Every operator hangs below one of those it reads from, its *parent*, so that the graph becomes a forest. A column is
the longest way from a source, a row is a leaf of the forest, and a parent lies beside its first child: chains stay
straight, and no two operators share a cell. A merge hangs below the middle one of its nearest inputs, so that it lies
between or beside them. A tree that feeds another one moves up to where there is room, for its operators and for the
edges that lead on from its leaves along their rows. An edge that closes a loop decides nothing, and what only loops
feed lies just before what reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

__all__ = ["places"]

Links = dict[int, list[int]]


def places(operators: Sequence[tuple[int, Sequence[int], str]]) -> dict[int, tuple[int, int]]:
    """Column and row, from 0, of each operator by its id.

    `operators` are (id, ids of its inputs, kind), in the order of their declaration. Inputs of a `future`, and those
    that are declared no earlier than what reads them, close loops.
    """
    inputs = _forward(_in_order(operators))
    readers: Links = {id: [] for id in inputs}
    for id, ups in inputs.items():
        for up in ups:
            readers[up].append(id)
    futures = {id for id, _, kind in operators if kind == "future"}
    fed = _fed_by_sources(inputs, futures)
    columns = _columns(inputs, readers, fed)
    parents = {id: _parent(id, ups, columns, fed) for id, ups in inputs.items()}
    rows = _rows(_trees(parents, inputs, fed), parents, readers, columns)
    return {id: (columns[id], rows[id]) for id in inputs}


def _in_order(operators: Sequence[tuple[int, Sequence[int], str]]) -> list[tuple[int, Sequence[int], str]]:
    """Each operator behind its inputs, loops apart: a window's late items may be declared before the window is."""
    if not any(kind == "late" for _, _, kind in operators):
        return list(operators)
    found: list[tuple[int, Sequence[int], str]] = []
    waiting = {id: (id, ups, kind) for id, ups, kind in operators}
    while waiting:
        ready = [
            one
            for one in waiting.values()
            if one[2] == "future" or not any(up in waiting and up != one[0] for up in one[1])
        ]
        for one in ready[:1] or list(waiting.values())[:1]:
            del waiting[one[0]]
            found.append(one)
    return found


def _forward(operators: Sequence[tuple[int, Sequence[int], str]]) -> Links:
    """The inputs of each operator, once each and without those that close loops."""
    known: Links = {}
    for id, ups, kind in operators:
        known[id] = [] if kind == "future" else [up for up in dict.fromkeys(ups) if up in known]
    return known


def _fed_by_sources(inputs: Links, futures: set[int]) -> set[int]:
    fed: set[int] = set()
    for id, ups in inputs.items():
        if (not ups and id not in futures) or any(up in fed for up in ups):
            fed.add(id)
    return fed


def _columns(inputs: Links, readers: Links, fed: set[int]) -> dict[int, int]:
    columns: dict[int, int] = {}
    for id, ups in inputs.items():
        columns[id] = 1 + max((columns[up] for up in ups), default=-1)
    for id in reversed(inputs):
        if id not in fed and readers[id]:
            columns[id] = min(columns[reader] for reader in readers[id]) - 1
    return columns


def _parent(id: int, ups: list[int], columns: dict[int, int], fed: set[int]) -> int | None:
    near = [up for up in ups if columns[up] == columns[id] - 1]
    near = [up for up in near if up in fed] or near
    return near[(len(near) - 1) // 2] if near else None


def _trees(parents: dict[int, int | None], inputs: Links, fed: set[int]) -> list[list[int]]:
    """The roots, sources first; those of trees that edges connect come together."""
    root_of: dict[int, int] = {}
    for id, parent in parents.items():
        root_of[id] = id if parent is None else root_of[parent]
    roots = [id for id, parent in parents.items() if parent is None]
    roots.sort(key=lambda root: root not in fed)
    beside: dict[int, dict[int, None]] = {root: {} for root in roots}
    for id, ups in inputs.items():
        for up in ups:
            a, b = root_of[id], root_of[up]
            if a != b:
                beside[a][b] = beside[b][a] = None
    place = {root: n for n, root in enumerate(roots)}
    groups: dict[int, dict[int, None]] = {}
    seen: set[int] = set()
    for first in roots:
        pending = [first]
        while pending:
            root = pending.pop()
            if root not in seen:
                seen.add(root)
                groups.setdefault(first, {})[root] = None
                pending.extend(sorted(beside[root], key=place.__getitem__, reverse=True))
    return [list(group) for group in groups.values()]


def _rows(
    groups: list[list[int]], parents: dict[int, int | None], readers: Links, columns: dict[int, int]
) -> dict[int, int]:
    """Groups lie below each other; in a group, each tree as high as it can."""
    children: Links = {id: [] for id in parents}
    for id, parent in parents.items():
        if parent is not None:
            children[parent].append(id)
    rows: dict[int, int] = {}
    top = 0
    for group in groups:
        taken: set[tuple[int, int]] = set()
        for root in group:
            tree = _leaves_in_rows(root, children)
            cells = {cell for id, row in tree.items() for cell in _cells(id, row, children, readers, columns)}
            down = 0
            while any((col, row + down) in taken for col, row in cells):
                down += 1
            taken.update((col, row + down) for col, row in cells)
            rows.update((id, top + row + down) for id, row in tree.items())
        top += 1 + max(row for _, row in taken)
    return rows


def _leaves_in_rows(root: int, children: Links) -> dict[int, int]:
    """For each operator of a tree, the number of leaves above it."""
    rows: dict[int, int] = {}
    leaves, pending = 0, [root]
    while pending:
        id = pending.pop()
        rows[id] = leaves
        leaves += not children[id]
        pending.extend(reversed(children[id]))
    return rows


def _cells(id: int, row: int, children: Links, readers: Links, columns: dict[int, int]) -> Iterator[tuple[int, int]]:
    """The operator's cell, and those through which an edge leads on from a leaf to what reads it."""
    end = columns[id] + 1
    if not children[id]:
        end = max([end, *(columns[reader] for reader in readers[id])])
    yield from ((col, row) for col in range(columns[id], end))
