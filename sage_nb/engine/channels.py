"""Channels: how items get from the tasks of one stage to those of the next.

A *lane* leads from one task to one other. The sender appends to a plain list; the receiver, and only the receiver,
takes from its front. So an item costs one `append` and one comparison, and no lock. The comparison (`len(items) >
limit`) calls `press()`, which wakes a receiver that waits, or holds the sender while the lane is full. The receiver
sets `limit` by what it does:

    at work     nothing: the sender need not call before the lane is full
    waiting     to a batch: it looks by itself after 1, 2, 4 and 8 ms, so that few items do not wait for more
    asleep      to 0: the next item wakes it

What flows in a lane is in order: items, with their keys, event times and watermarks where the edge has such; then
`watermark`, which holds for all items before it; then `ended`. `closed` goes the other way: nobody wants more.

An *inbox* is where the lanes of one task end. It gives their items in batches, takes loops before all others, and
counts what has been done with (`done`): a loop has come to rest when its inputs have ended and every lane in it has
done what was appended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count, repeat
from typing import Any, Protocol

from sage_nb.engine.loops import LoopEnded
from sage_nb.errors import PipelineError

__all__ = ["ASLEEP", "BATCH", "CAPACITY", "SHARED", "Circle", "Inbox", "Lane", "Sender"]

BATCH = 1024
CAPACITY = 4096
SHARED = 64, 0.1
"""Of lanes that share a stream's items, each holds so many, or seconds of work: for what waits no other can take."""
LOOP_CAPACITY = 1_000_000
_MOMENTS = (0.001, 0.002, 0.004, 0.008)
ASLEEP = len(_MOMENTS)
"""For `Inbox.wait`, from when on the next item is to wake the receiver."""
_TICK = 0.2
_INF = float("inf")


class Sender(Protocol):
    """The task that appends to a lane: whether it has to leave instead of waiting for room."""

    def is_cut(self) -> bool:
        """True once a stop drops what waits in lanes, so that there is always room."""

    def must_leave(self) -> bool:
        """True once it has been given up, or its time for finishing what it holds is over."""


class Lane:
    """From one task to another. `tag` is the input's number, `origin` the lane's place in its inbox."""

    __slots__ = (
        "blocked",
        "capacity",
        "closed",
        "done",
        "dropped",
        "ended",
        "feedback",
        "first",
        "idle",
        "idles",
        "inbox",
        "items",
        "keys",
        "limit",
        "mark",
        "marks",
        "on_closed",
        "on_taken",
        "origin",
        "over",
        "rank",
        "sender",
        "sequence",
        "shared",
        "tag",
        "taken",
        "times",
        "watermark",
    )

    def __init__(
        self, inbox: Inbox, tag: int, *, keyed: bool = False, stamped: bool = False, feedback: bool = False
    ) -> None:
        self.inbox = inbox
        self.tag = tag
        self.feedback = feedback
        self.capacity = LOOP_CAPACITY if feedback else CAPACITY
        self.shared = False
        """Whether it is one of several that an item may go by."""
        self.items: list[Any] = []
        self.keys: list[Any] | None = [] if keyed else None
        self.times: list[float] | None = [] if stamped else None
        self.marks: list[float] | None = [] if stamped else None
        self.sequence: list[int] | None = None
        self.first = feedback
        """Whether it is served before others: it is part of a loop."""
        self.limit: float = 0
        self.watermark = -_INF
        """What the sender says of the items it has appended."""
        self.mark = -_INF
        """The same for the items that were taken."""
        self.ended = False
        self.closed = False
        self.over = False
        """Whether the inbox has seen its end."""
        self.taken = 0
        self.dropped = 0
        """How many items a stop has dropped from it."""
        self.done = 0
        self.idle = False
        """Whether the sender has nothing now, and says so: no watermark waits for it."""
        self.idles = False
        """Whether the receiver has seen that, and no item since."""
        self.blocked = 0.0
        """Seconds for which the sender has been held."""
        self.sender: Sender | None = None
        self.on_closed: Callable[[], None] = lambda: None
        self.on_taken: Callable[[], None] | None = None
        self.origin = len(inbox.lanes)
        self.rank = sum(lane.tag == tag for lane in inbox.lanes)
        """Its place among those of the same input."""
        inbox.lanes.append(self)

    # The sender's side

    def press(self) -> None:
        """Called by the sender once there is more in the lane than `limit`."""
        inbox = self.inbox
        if self.closed:
            self._clear()
            return
        with inbox.lock:
            if self.limit < self.capacity - 1:
                self.limit = self.capacity - 1
                inbox.notify()
            if len(self.items) < self.capacity:
                return
        if self.feedback:
            raise PipelineError(
                f"the loop through {inbox.name!r} holds {self.capacity:,} items and still grows; "
                "let fewer items go round, or drop them sooner"
            )
        self._hold()

    def _hold(self) -> None:
        inbox, began = self.inbox, time.monotonic()
        with inbox.lock:
            while len(self.items) >= self.capacity and not self.closed:
                if self.sender is not None and self.sender.must_leave():
                    raise LoopEnded
                if self.sender is not None and self.sender.is_cut():
                    break
                inbox.room.wait(_TICK)
        self.blocked += time.monotonic() - began

    def wait_for_room(self, seconds: float) -> None:
        """Wait until there is room, for so long at most."""
        if self.sender is not None and self.sender.must_leave():
            raise LoopEnded
        began = time.monotonic()
        with self.inbox.lock:
            if not self.closed:
                self.inbox.room.wait(seconds)
        self.blocked += time.monotonic() - began

    def extend(self, items: Sequence[Any], keys: Any, times: Any, marks: Any) -> None:
        """Append many at once: for what comes from another process."""
        if self.closed:
            return
        self.idle = False
        if self.keys is not None:
            self.keys.extend(keys)
        if self.times is not None and self.marks is not None:
            self.times.extend(times)
            self.marks.extend(marks)
        self.items.extend(items)
        if len(self.items) > self.limit:
            self.press()

    def add_stamped(self, key: Any, at: float, mark: float) -> None:
        """Append what comes with an item; the item itself is next."""
        assert self.keys is not None
        assert self.times is not None
        assert self.marks is not None
        self.keys.append(key)
        self.times.append(at)
        self.marks.append(mark)

    def advance(self, watermark: float) -> None:
        """Say that the watermark after all items so far is this."""
        if watermark > self.watermark:
            self.watermark = watermark
            if self.limit <= 0:
                self.inbox.rouse()

    def rest(self) -> None:
        """Say that there is nothing now."""
        if not self.idle:
            self.idle = True
            self.inbox.rouse()

    def end(self) -> None:
        """Say that nothing more will come."""
        self.ended = True
        self.inbox.rouse()

    # The receiver's side

    def take(self, most: int) -> tuple[list[Any], Any, Any, Any]:
        """The first items, up to `most`, with their keys, times and watermarks."""
        items, keys, times, marks = self.items, self.keys, self.times, self.marks
        full = len(items) * 2 >= self.capacity  # somebody may wait for room
        n = min(len(items), most)
        batch = items[:n]
        got_keys = got_times = got_marks = None
        if keys is not None:
            got_keys = keys[:n]
            del keys[:n]
        if times is not None and marks is not None:
            got_times, got_marks = times[:n], marks[:n]
            del times[:n], marks[:n]
        self.taken += n
        del items[:n]
        if self.on_taken is not None:
            self.on_taken()
        if full:
            with self.inbox.lock:
                self.inbox.room.notify_all()
        return batch, got_keys, got_times, got_marks

    def fit(self, count: int, seconds: float) -> None:
        """Hold as much as is worked off in a short time, going by how long `count` items took."""
        least, worth = SHARED
        self.capacity = int(min(CAPACITY, max(least, worth * count / max(seconds, 1e-6))))

    def close(self) -> None:
        """Say that nobody wants more. What is in the lane, and what still comes, is let go."""
        self.closed = True
        self.limit = -1
        with self.inbox.lock:
            self.inbox.room.notify_all()
        self.on_closed()
        if self.inbox.circle is not None:
            self.inbox.circle.rouse()

    def drop(self) -> None:
        """Let go what is in the lane."""
        count = len(self.items)  # what comes with an item is there before it
        self.dropped += count
        for column in self._columns():
            del column[:count]
        if self.on_taken is not None:
            self.on_taken()
        with self.inbox.lock:
            self.inbox.room.notify_all()

    def _clear(self) -> None:
        for column in self._columns():
            column.clear()

    def _columns(self) -> list[list[Any]]:
        columns = (self.items, self.keys, self.times, self.marks, self.sequence)
        return [column for column in columns if column is not None]

    def appended(self) -> int:
        return self.taken + len(self.items)


class Circle:
    """The lanes of one loop. `at_rest` is True once nothing is in flight and nothing can come from outside."""

    def __init__(self) -> None:
        self.inside: list[Lane] = []
        self.inboxes: list[Inbox] = []
        self.ended = False

    def at_rest(self) -> bool:
        """Whether all that was appended is done with, and all inputs from outside have ended.

        The count of what is done is read first: it never passes the other, and neither ever falls, so that their
        being equal means that nothing was in flight in between.
        """
        outside = (lane for inbox in self.inboxes for lane in inbox.lanes if lane not in self.inside)
        if not all(lane.closed or (lane.over and lane.done >= lane.taken) for lane in outside):
            return False
        inside = [lane for lane in self.inside if not lane.closed]  # whose task has not ended before the loop
        done = sum(lane.done for lane in inside)
        return done == sum(lane.appended() for lane in inside)

    def end(self) -> None:
        """End the lanes that lead round, so that the stages of the loop end like others."""
        self.ended = True
        for lane in self.inside:
            if lane.feedback:
                lane.end()

    def rouse(self) -> None:
        for inbox in self.inboxes:
            inbox.rouse()


class Inbox:
    """Where the lanes of one task end.

    `on_end(lane)` is called when a lane has ended, `on_idle(lane)` when it has nothing now. `due()` says when something
    fires, by `clock`; `fire(now)` lets it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.lanes: list[Lane] = []
        self.lock = threading.Lock()
        self.wake = threading.Condition(self.lock)
        self.notify: Callable[[], object] = self.wake.notify
        self.room = threading.Condition(self.lock)
        self.circle: Circle | None = None
        self.on_end: Callable[[Lane], None] | None = None
        self.on_idle: Callable[[Lane], None] | None = None
        self.on_active: Callable[[Lane], None] | None = None
        self.due: Callable[[], float | None] | None = None
        self.fire: Callable[[float], None] | None = None
        self.advanced: Callable[[float], None] | None = None
        self.clock: Callable[[], float] = time.time
        self.fine = False
        """Whether `done` is to follow item by item, instead of batch by batch."""
        self.on_done: Callable[[], object] = lambda: None
        """Called now and then when more is done."""
        self.look: Callable[[], None] = lambda: None
        """Called between batches and waits; raises `LoopEnded` where the task has to leave."""
        self.current: list[Any] = []
        """The batch at hand."""
        self._roused = False
        self._mark = -_INF

    def rouse(self) -> None:
        """Wake the receiver, if it waits, to look at what has changed."""
        with self.lock:
            self._roused = True
            self.notify()

    def wake_with(self, notify: Callable[[], object]) -> None:
        """Wake the receiver by calling this, from any thread, instead of by the condition that `batches` waits for."""
        with self.lock:
            self.notify = notify

    def sleep(self) -> None:
        """Ask to be woken by the next item, of a lane that has none."""
        with self.lock:
            for lane in self.lanes:
                if not lane.closed:
                    lane.limit = 0
            if any(lane.items for lane in self.lanes):
                self.notify()

    def by_rank(self) -> list[Lane]:
        """The lanes that have not ended, loops first."""
        return sorted((lane for lane in self.lanes if not lane.over), key=lambda lane: not lane.first)

    def queued(self) -> int:
        """How many items wait."""
        return sum(len(lane.items) for lane in self.lanes)

    def cut(self) -> None:
        """Drop what waits, and what is left of the batch at hand; what still comes is taken as before."""
        self.current.clear()
        for lane in self.lanes:
            lane.drop()

    # Batches

    def batches(self) -> Iterator[tuple[Lane, tuple[list[Any], Any, Any, Any]]]:
        """What comes, as `(lane, (items, keys, times, marks))`, until every lane has ended.

        When the next one is asked for, the one before is done with.
        """
        lanes = sorted(self.lanes, key=lambda lane: not lane.first)
        loops = [lane for lane in lanes if lane.first]
        moments = 0
        while True:
            got = False
            for lane in lanes:
                if lane.over:
                    continue
                ended = lane.ended
                watermark = lane.watermark
                while lane.items:
                    got = True
                    self.look()
                    if lane.idles:
                        self.active_again(lane)
                    batch = lane.take(BATCH)
                    began, count = time.monotonic(), len(batch[0])
                    self.current = batch[0]
                    yield lane, batch
                    if lane.shared:
                        lane.fit(count, time.monotonic() - began)
                    if not self.fine:
                        lane.done += count
                    self.on_done()
                    self._fire_due()
                    if not ended or any(one.items for one in loops):
                        break
                if lane.items:
                    continue
                if lane.idle and not ended and not lane.items:  # in this order: it appends, and then rests
                    self.idle(lane)
                if watermark > lane.mark:
                    lane.mark = watermark
                    self._advance()
                if ended:
                    self.lane_over(lane)
            if got:
                moments = 0
                continue
            if all(lane.over for lane in lanes):
                return
            self.look()
            self._fire_due()
            if self.comes_to_rest():
                continue
            self.wait(moments)
            moments += 1

    def lane_over(self, lane: Lane) -> None:
        """A lane has ended, and all its items are taken."""
        lane.over = True
        if lane.marks is not None:
            lane.mark = _INF
            self._advance()
        if self.on_end is not None:
            self.on_end(lane)
        if self.circle is not None and not lane.first:
            self.circle.rouse()

    def active_again(self, lane: Lane) -> None:
        """A lane that had nothing has an item."""
        lane.idles = False
        if self.on_active is not None:
            self.on_active(lane)

    def idle(self, lane: Lane) -> None:
        """A lane has nothing now, and says so."""
        lane.idle = False
        if not lane.idles:
            lane.idles = True
            if lane.marks is not None:
                self._advance()
            if self.on_idle is not None:
                self.on_idle(lane)

    def _advance(self) -> None:
        mark = min((lane.mark for lane in self.lanes if not lane.idles), default=_INF)
        if mark > self._mark and mark < _INF:
            self._mark = mark
            if self.advanced is not None:
                self.advanced(mark)

    def comes_to_rest(self) -> bool:
        """End the loop that the task is part of, if nothing is in flight in it any more. Whether it did."""
        circle = self.circle
        if circle is None or circle.ended or not circle.at_rest():
            return False
        circle.end()
        return True

    def _fire_due(self) -> None:
        if self.due is not None and self.fire is not None:
            due = self.due()
            if due is not None:
                now = self.clock()
                if now >= due:
                    self.fire(now)

    def wait(self, moments: int, longest: float | None = None) -> None:
        """Wait for a change: the longer, the more `moments` have passed without; at most `longest` seconds."""
        asleep = moments >= ASLEEP
        timeout: float | None = longest if asleep else _MOMENTS[moments]
        if asleep and self.circle is not None:
            timeout = 0.05  # a loop comes to rest without a sign
        if self.due is not None:
            due = self.due()
            if due is not None:
                left = max(0.0, due - self.clock())
                timeout = left if timeout is None else min(timeout, left)
        with self.lock:
            if self._roused:
                self._roused = False
                return
            for lane in self.lanes:
                if not lane.closed:
                    lane.limit = 0 if asleep else min(BATCH, lane.capacity) - 1
            if any(self._has_news(lane) for lane in self.lanes if not lane.over):
                return
            self.wake.wait(timeout)
            self._roused = False

    def wait_for_word(self) -> None:
        """Wait until `rouse` is called, whatever is in the lanes: for items whose turn has not come."""
        with self.lock:
            if not self._roused:
                self.wake.wait(_TICK)
            self._roused = False

    @staticmethod
    def _has_news(lane: Lane) -> bool:
        return len(lane.items) > lane.limit or (lane.marks is not None and lane.watermark > lane.mark)

    def close(self) -> None:
        """Nobody wants more of any lane."""
        for lane in self.lanes:
            lane.close()

    # What a loop iterates over

    def items(self, columns: str) -> Iterator[Any]:
        """The items one by one, with what `columns` names: see `loops.Node`."""
        for lane, (items, keys, times, marks) in self.batches():
            if not columns:
                yield items
                continue
            found: list[Any] = [items]
            for column in columns:
                if column == "k":
                    found.append(repeat(None) if keys is None else keys)
                elif column == "t":
                    found.append(repeat(lane.tag))
                elif column == "r":
                    found.append(repeat(lane.rank))
                elif column == "o":
                    found.append(repeat(lane.origin))
                elif column == "w":
                    found.append(times)
                elif column == "s":
                    found.append(count(lane.done))
                else:
                    found.append(marks if len(self.lanes) == 1 else self._least(lane, marks))
            rows = zip(*found, strict=False)
            yield self._one_by_one(lane, rows) if self.fine else rows

    def _one_by_one(self, lane: Lane, rows: Iterator[Any]) -> Iterator[Any]:
        told = time.monotonic()
        for row in rows:
            yield row
            lane.done += 1
            if time.monotonic() - told > _MOMENTS[0]:
                self.on_done()
                told = time.monotonic()

    def _least(self, lane: Lane, marks: list[float]) -> Iterator[float]:
        """The watermark of all lanes, as that of one goes on."""
        for mark in marks:
            if mark > lane.mark:
                lane.mark = mark
            self._mark = max(self._mark, min(one.mark for one in self.lanes if not one.idles))
            yield self._mark
