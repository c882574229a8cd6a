"""Outlets: which lane of an edge gets an item.

An outlet is the function that a loop calls with an item and, where the edge asks for them, its key and its origin.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

from sage_nb.engine.channels import Lane
from sage_nb.engine.stamps import Stamp

__all__ = ["outlet"]

_SHORT = 8
"""Up to so many items in a lane, turns are taken; from there on, the shortest lane is next, and gets a few."""
_RUN = 15
_MOMENT = 0.005


def outlet(how: str, lanes: list[Lane], keyed: bool, stamp: Stamp | None) -> Callable[..., None]:
    """The function that hands on `item`, or `(item, key)` where `keyed`, or `(item, key, origin)` with a `stamp`."""
    if stamp is not None:
        return _stamped(how, lanes, stamp)
    if lanes and lanes[0].sequence is not None:
        return _sequenced_to(lanes[0])
    if len(lanes) == 1:
        return _keyed_to(lanes[0]) if keyed else _to(lanes[0])
    send: list[Callable[..., None]] = [_keyed_to(lane) if keyed else _to(lane) for lane in lanes]
    if how == "broadcast":
        return _to_all(send, keyed)
    if how == "hash":
        from sage_nb.engine.keys import router  # much to import for a process that has no use for it

        pick = router(len(lanes))

        def by_key(item: Any, key: Any) -> None:
            send[pick(key)](item, key)

        return by_key
    if how == "round_robin":
        turns = cycle(send)
        return lambda *given: next(turns)(*given)
    return _balanced(lanes, send, keyed)


def _to(lane: Lane) -> Callable[[Any], None]:
    append, items, press = lane.items.append, lane.items, lane.press

    def send(item: Any) -> None:
        append(item)
        if len(items) > lane.limit:
            press()

    return send


def _sequenced_to(lane: Lane) -> Callable[[Any, int], None]:
    """With each item, which of the items that the process was given it comes of."""
    assert lane.sequence is not None
    append, items, press, append_number = lane.items.append, lane.items, lane.press, lane.sequence.append

    def send(item: Any, number: int) -> None:
        append_number(number)
        append(item)
        if len(items) > lane.limit:
            press()

    return send


def _keyed_to(lane: Lane) -> Callable[[Any, Any], None]:
    assert lane.keys is not None
    append, items, press, append_key = lane.items.append, lane.items, lane.press, lane.keys.append

    def send(item: Any, key: Any) -> None:
        append_key(key)  # before the item: the receiver goes by the items
        append(item)
        if len(items) > lane.limit:
            press()

    return send


def _to_all(send: list[Callable[..., None]], keyed: bool) -> Callable[..., None]:
    def keyed_to_all(item: Any, key: Any) -> None:
        for one in send:
            one(item, key)

    def to_all(item: Any) -> None:
        for one in send:
            one(item)

    return keyed_to_all if keyed else to_all


def _balanced(lanes: list[Lane], send: list[Callable[..., None]], keyed: bool) -> Callable[..., None]:
    """Takes turns while the lanes are short; then the shortest gets a run of items."""
    count, at, left = len(lanes), -1, 0
    queues = [lane.items for lane in lanes]
    to = send[0]

    def shortest() -> int:
        return min(range(count), key=lambda i: (lanes[i].closed, len(queues[i])))

    def is_cut() -> bool:
        sender = lanes[at].sender
        return sender is not None and sender.is_cut()

    def turn() -> None:
        nonlocal at, left, to
        at = (at + 1) % count
        if len(queues[at]) > _SHORT or lanes[at].closed:
            at = shortest()
            while len(queues[at]) >= lanes[at].capacity - _RUN - 1 and not lanes[at].closed and not is_cut():
                lanes[at].wait_for_room(_MOMENT)
                at = shortest()
            left = _RUN
        to = send[at]

    def keyed_send(item: Any, key: Any) -> None:
        nonlocal left
        if left:
            left -= 1
        else:
            turn()
        to(item, key)

    def plain_send(item: Any) -> None:
        nonlocal left
        if left:
            left -= 1
        else:
            turn()
        to(item)

    return keyed_send if keyed else plain_send


def _stamped(how: str, lanes: list[Lane], stamp: Stamp) -> Callable[[Any, Any, int], None]:
    time_of, mark_of = stamp.time_of, stamp.marks.stamp
    turns = cycle(range(len(lanes)))
    from sage_nb.engine.keys import router

    by_key = router(len(lanes))
    latest = float("-inf")

    def send(item: Any, key: Any, origin: int = 0) -> None:
        nonlocal latest
        at = time_of(item)
        mark = mark_of(at, origin)
        if how == "hash":
            targets = [lanes[by_key(key)]]
        else:
            targets = lanes if how == "broadcast" else [lanes[next(turns)]]
        for lane in targets:
            lane.add_stamped(key, at, mark)
            lane.items.append(item)
            if len(lane.items) > lane.limit:
                lane.press()
        if mark > latest:
            latest = mark
            for lane in lanes:
                lane.advance(mark)

    return send
