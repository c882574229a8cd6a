"""Keeping the order of a stream whose items are shared among processes."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import Any

from sage_nb.engine.channels import BATCH, CAPACITY, Inbox, Lane, Sender
from sage_nb.engine.loops import LoopEnded

__all__ = ["Order", "in_order"]

_TICK = 0.2


class Order:
    """Shares the items of one stream among processes, and remembers in which order they went.

    How many a process has before it at once follows from how fast it is: about 50 ms of work, so that none is idle
    while another has a long queue. Where that is many, each turn is a run of items. `far` says that they are actors.
    """

    def __init__(self, lanes: list[Lane], sender: Sender, *, far: bool = False) -> None:
        self._lanes = lanes
        self._worth, self._turns = _FAR if far else _NEAR
        self._sender = sender
        self._room = threading.Condition()
        self._given = [0] * len(lanes)
        self._done = [0] * len(lanes)
        self._counted = [0] * len(lanes)
        self._spent = [0.0] * len(lanes)
        self._looked = [time.monotonic()] * len(lanes)
        self._allowed = [_FEW] * len(lanes)
        self._at = 0
        self._left = 0
        self.inboxes: list[Inbox] = []
        """Where the results are put in order."""
        self.turns: deque[tuple[int, int]] = deque()
        """Of each turn that is not through, the number of the lane, and up to which of its items it goes."""

    def __call__(self, item: Any) -> None:
        if not self._left:
            self._begin_turn()
        self._left -= 1
        at = self._at
        self._given[at] += 1
        lane = self._lanes[at]
        lane.items.append(item)
        if len(lane.items) > lane.limit:
            lane.press()

    def _begin_turn(self) -> None:
        with self._room:
            at = self._free()
            while at is None:
                if self._sender.must_leave():
                    raise LoopEnded
                if self._sender.is_cut() or all(lane.closed for lane in self._lanes):
                    self._left = 1  # the lane lets it go
                    return
                began = time.monotonic()
                self._room.wait(_TICK)
                self._lanes[0].blocked += time.monotonic() - began
                at = self._free()
            if self._given[at] == self._done[at]:
                self._looked[at] = time.monotonic()  # while it had nothing to do, it was not slow
            self._at = at
            self._left = max(1, self._allowed[at] // self._turns)
            if self.inboxes:  # else nobody asks for the order
                self.turns.append((at, self._given[at] + self._left))

    def _free(self) -> int | None:
        """The lane with the least before it, if that is not too much."""
        waiting = [given - done for given, done in zip(self._given, self._done, strict=True)]
        at = min(range(len(waiting)), key=waiting.__getitem__)
        return at if waiting[at] < self._allowed[at] else None

    def acknowledge(self, at: int, done: int) -> None:
        """The process behind lane `at` is through with `done` items in all."""
        with self._room:
            self._done[at] = done
            now = time.monotonic()
            self._spent[at] += now - self._looked[at]
            self._looked[at] = now
            if self._spent[at] >= _LONG_ENOUGH:
                rate = (done - self._counted[at]) / self._spent[at]
                self._spent[at], self._counted[at] = 0.0, done
                self._allowed[at] = int(min(CAPACITY, max(_FEW, self._worth * rate, self._allowed[at] / 2)))
            self._room.notify()
        for inbox in self.inboxes:
            inbox.rouse()

    def done(self, at: int) -> int:
        """How many items the process behind lane `at` is through with."""
        return self._done[at]

    def at_rest(self) -> bool:
        """Whether the processes are through with all that they were given."""
        return self._given == self._done


_FEW = 3
"""At least so many items are with each process: one in work, one that waits, one on its way."""
_LONG_ENOUGH = 0.01
"""Seconds after which a rate says something: what is acknowledged may come in heaps."""
_NEAR = 0.05, 16
"""Seconds of work that a process has before it, and the part of it that makes a turn."""
_FAR = 0.25, 3
"""The same of an actor, for which each turn is a call that takes about a millisecond."""


def in_order(inbox: Inbox, order: Order) -> Iterator[list[Any]]:
    """What comes from the processes, in the order in which the items went to them, in lists of what is at hand.

    A process tells how many items it is through with after it has sent what came of them. That it sent what came of a
    later item says as much: it may send no more before some of this is taken.
    """
    lanes = inbox.lanes
    while True:
        ended = all(lane.ended for lane in lanes)
        ready: list[Any] = []
        taken: list[tuple[Lane, int]] = []
        while order.turns and len(ready) < BATCH:
            at, end = order.turns[0]
            lane = lanes[at]
            through = lane.ended or order.done(at) >= end  # read first: by then, all that came of them is here
            before = len(ready)
            ready += _up_to(lane, end)
            if len(ready) > before and lane.idles:
                inbox.active_again(lane)
            taken.append((lane, len(ready) - before))
            through = through or _is_past(lane, end)
            if not through:
                break
            order.turns.popleft()
        if ready:
            inbox.look()
            inbox.current = ready
            yield ready
            for lane, count in taken:
                lane.done += count
            continue
        if ended and not any(lane.items for lane in lanes):
            for lane in lanes:
                lane.over = True
            return
        if ended and order.turns:
            order.turns.popleft()  # the last of a lane, which the stream's end has cut short
            continue
        if ended:  # a stop handed them on without a turn
            for lane in lanes:
                lane.drop()
            continue
        if order.at_rest():
            for lane in lanes:
                if lane.idle and not lane.items:
                    inbox.idle(lane)
        inbox.look()
        inbox.wait_for_word()


def _is_past(lane: Lane, end: int) -> bool:
    """Whether what waits in the lane came of items from `end` on: so all of those before are through."""
    return bool(lane.items) and lane.sequence is not None and lane.sequence[0] >= end


def _up_to(lane: Lane, end: int) -> list[Any]:
    """What there is of the process's first `end` items."""
    sequence = lane.sequence
    assert sequence is not None
    count = bisect_left(sequence, end, 0, len(lane.items))
    if not count:
        return []
    del sequence[:count]
    return lane.take(count)[0]
