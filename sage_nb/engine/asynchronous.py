"""Coroutine functions: one event loop per task, and up to `concurrency` items under way on it.

Items are taken from the inbox as there is room. Each waits in a *slot*, in order; a worker, one of as many coroutines
as are needed, takes the next slot, awaits the function and settles the slot. What is settled goes on to the operators
behind, on the same thread: from the front only where the order is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from sage_nb.engine.channels import BATCH, Lane
from sage_nb.engine.loops import LoopEnded, Made
from sage_nb.errors import ItemTimeout
from sage_nb.pipeline.context import key_at_hand
from sage_nb.pipeline.operators import AsyncSpec

if TYPE_CHECKING:
    from sage_nb.engine.task import Task

__all__ = ["drive"]

_AHEAD = 4
"""With the order kept, so many times `concurrency` items may wait for one that takes long."""
_TICK = 0.05


class _Slot:
    __slots__ = ("item", "key", "lane", "result", "settled")

    def __init__(self, item: Any, key: Any, lane: Lane) -> None:
        self.item = item
        self.key = key
        self.lane = lane
        self.result: Any = None
        self.settled = False


class _ItemFailed(Exception):
    def __init__(self, item: Any, cause: BaseException) -> None:
        self.item = item
        self.cause = cause


class _Ended(Exception):
    """What ended the loop, as its argument: a StopIteration would not come out of a coroutine as itself."""


class _Limit:
    """Cancels the coroutine that makes it after `seconds`, not counting those for which the loop was held up."""

    def __init__(self, driver: _Driver, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._driver = driver
        self._busy = driver.busy
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle = self._loop.call_later(seconds, self._strike)
        self.passed = False

    def _strike(self) -> None:
        held_up, self._busy = self._driver.busy - self._busy, self._driver.busy
        if held_up > 0:
            self._timer = self._loop.call_later(held_up, self._strike)
        else:
            self._timer = self._loop.call_soon(self._cancel)  # what is ready by now comes first

    def _cancel(self) -> None:
        self.passed = True
        self._task.cancel()

    def end(self) -> None:
        self._timer.cancel()
        if self.passed:
            self._task.uncancel()


def drive(task: Task, made: Made) -> None:
    """Run a task whose head awaits, to its end. Raises what the operators behind raise."""
    with asyncio.Runner() as runner:
        try:
            runner.run(_Driver(task, made).run())
        except _Ended as ended:
            cause: BaseException = ended.args[0]
        else:
            return
    if isinstance(cause, _ItemFailed):
        task.item_failed(1, cause.item, cause.cause)
        raise LoopEnded
    raise cause


class _Driver:
    def __init__(self, task: Task, made: Made) -> None:
        op = task.stage.members[1].op
        assert op is not None
        assert task.inbox is not None
        spec: AsyncSpec = op.spec
        self._task = task
        self._inbox = task.inbox
        self._emit = made.emits[1]
        self._keyed = task.stage.members[1].keyed
        self._function = task.function_at(1)
        self._catches = task.policy(op) != "fail"
        self._concurrency = spec.concurrency
        self._ordered = spec.ordered
        self._most = spec.concurrency * (_AHEAD if spec.ordered else 1)
        self._timeout = spec.timeout
        self._waiting: deque[_Slot] = deque()
        self._slots: deque[_Slot] = deque()
        self._open = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._wake = asyncio.Event()
        self._error: BaseException | None = None
        self._full = False
        """Whether there was no room for more when it was last looked at: what has come since has woken nobody."""
        self.busy = 0.0
        """Seconds for which the operators behind have held up the event loop."""

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._inbox.wake_with(lambda: loop.call_soon_threadsafe(self._wake.set))
        try:
            await self._until_ended()
        finally:
            self._inbox.wake_with(lambda: None)  # the loop is closed soon, and may not be called then
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)

    async def _until_ended(self) -> None:
        while True:
            self._wake.clear()
            self._task._look()
            if self._task.is_cut():
                raise LoopEnded
            ended = self._take_what_there_is()
            if self._error is not None:
                raise _Ended(self._error)
            if ended and not self._open:
                return
            if not ended and not self._open and self._inbox.comes_to_rest():
                continue
            stopping = self._task.attempt.is_stopping() or self._inbox.circle is not None
            try:
                await asyncio.wait_for(self._wake.wait(), _TICK if stopping else None)
            except TimeoutError:
                continue

    def _take_what_there_is(self) -> bool:
        """Fill the free slots from the inbox. Whether all its lanes have ended and are empty."""
        if not self._task.attempt.resumed.is_set():
            return False
        room = self._most - self._open
        for lane in self._inbox.by_rank():
            ended = lane.ended
            while room > 0 and lane.items:
                if lane.idles:
                    self._inbox.active_again(lane)
                items, keys, _, _ = lane.take(min(room, BATCH))
                room -= len(items)
                for n, item in enumerate(items):
                    self._begin(_Slot(item, None if keys is None else keys[n], lane))
            if ended and not lane.items and not lane.over:
                self._inbox.lane_over(lane)
            elif lane.idle and not lane.items and not self._open:
                self._inbox.idle(lane)
        self._full = room <= 0
        if room > 0:
            self._inbox.sleep()
        return all(lane.over for lane in self._inbox.lanes)

    def _begin(self, slot: _Slot) -> None:
        self._open += 1
        if self._ordered:
            self._slots.append(slot)
        self._waiting.append(slot)
        if self._idle:
            self._idle.popleft().set_result(None)
        elif len(self._workers) < self._concurrency:
            worker = asyncio.ensure_future(self._work())
            self._workers.add(worker)

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                idle: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._idle.append(idle)
                await idle
            slot = self._waiting.popleft()
            try:
                slot.result = await self._call(slot)
            except Exception as exc:  # noqa: BLE001 - the operator's policy says what becomes of it
                if not self._catches:
                    self._give_up(_ItemFailed(slot.item, exc))
                    return
                self._task.caught(1, slot.item, exc)
            except asyncio.CancelledError as exc:
                task = asyncio.current_task()
                if task is None or not task.cancelling():
                    self._give_up(_ItemFailed(slot.item, exc))
                raise
            except BaseException as exc:
                self._give_up(_ItemFailed(slot.item, exc))
                raise
            try:
                self._settle(slot)
            except BaseException as exc:  # noqa: BLE001 - of the operators behind; it is raised by `drive`
                self._give_up(exc)
                return

    async def _call(self, slot: _Slot) -> Any:
        if self._keyed:
            key_at_hand.set(slot.key)
        if self._timeout is None:
            return await self._function(slot.item)
        limit = _Limit(self, self._timeout)
        try:
            return await self._function(slot.item)
        except asyncio.CancelledError:
            if limit.passed:
                raise ItemTimeout(f"took longer than its item_timeout of {self._timeout:g} s") from None
            raise
        finally:
            limit.end()

    def _settle(self, slot: _Slot) -> None:
        if self._error is not None:
            return  # behind one that did not come through
        slot.settled = True
        if not self._ordered:
            self._pass_on(slot)
        else:
            while self._slots and self._slots[0].settled:
                self._pass_on(self._slots[0])
                self._slots.popleft()
        if self._full or self._inbox.queued() or not self._open or self._inbox.circle is not None:
            self._wake.set()

    def _pass_on(self, slot: _Slot) -> None:
        if slot.result is not None and self._emit is not None:
            began = time.monotonic()
            self._emit(((slot.result, slot.key),) if self._keyed else (slot.result,))
            self.busy += time.monotonic() - began
        self._open -= 1
        slot.lane.done += 1

    def _give_up(self, exc: BaseException) -> None:
        if self._error is None:
            self._error = exc
        self._wake.set()
