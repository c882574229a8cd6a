"""`Job`: the user's live handle on one run."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from typing import Any

from sage_nb.engine.failure import headline
from sage_nb.engine.letters import Letters
from sage_nb.engine.live import LiveView
from sage_nb.engine.log import LogLine
from sage_nb.engine.results import Latest, Result
from sage_nb.errors import JobStateError, shown_at_caller
from sage_nb.jobs.info import JobInfo
from sage_nb.jobs.run import Description, Run
from sage_nb.jobs.snapshot import JobSnapshot, Progress

__all__ = ["INTERRUPT_GRACE", "Job"]

_TICK = 0.05  # an interrupt of an awaiting cell is seen only when the event loop turns
_LOOK = 0.2  # a signal that comes just before a thread blocks does not wake it, so nothing blocks for longer
_TURN = 0.01
_LATEST_SHARE = 10.0
INTERRUPT_GRACE = 2.0


class Job:
    """One run of a pipeline. `str(job)` is its uuid."""

    def __init__(self, info: JobInfo, dispatcher: Run, describer: Description) -> None:
        self._info = info
        self._dispatcher = dispatcher
        self._describer = describer
        self._listeners: list[Callable[[Job], None]] = []

    @classmethod
    def attach(
        cls, job: Job | str, host: str | None = None, port: int | None = None, *, token: str | None = None
    ) -> Job:
        """A handle on a job that runs, or has ended, on a JobManager server: see `sage_nb.attach`."""
        import sage_nb

        return sage_nb.attach(job, host, port, token=token)

    def __str__(self) -> str:
        return self.uuid

    def __repr__(self) -> str:
        return f"<Job {self.name!r} {self.uuid[:8]}: {self.status}>"

    @property
    def uuid(self) -> str:
        """The job's id."""
        return self._info.uuid

    @property
    def name(self) -> str:
        """The environment's name, or the one given to the cell."""
        return self._info.name

    @property
    def status(self) -> str:
        """`created`, `queued`, `starting`, `running`, `paused`, `restarting`, `stopping`, `completed`, `failed` or
        `stopped`."""
        return self._dispatcher.status

    @property
    def info(self) -> JobInfo:
        """The job's record."""
        return self._info

    @property
    def progress(self) -> Progress:
        """`operators`: one entry each with `name`, `items_in`, `items_out`, `rate` (items/s), `busy` (share of time,
        None until known), `queued`, `errors`; and `services`: `name` and `state`. Exact where the job waits or has
        ended; while it runs, at most the item at hand off."""
        return self._describer.progress()

    @property
    def results(self) -> Mapping[str, Result]:
        """The named results of `collect` and `show`, live."""
        return LiveView(lambda: self._dispatcher.results)

    @property
    def dead_letters(self) -> Mapping[str, Letters]:
        """By the operator's name, the items on which it failed, where `on_error="dead_letter"`: each with `item`,
        `error` and `time` (seconds since the epoch). The last 10,000 of each are kept; `total` counts all."""
        return self._dispatcher.dead_letters

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know beside the status: warnings, calls that did not return."""
        return tuple(self._dispatcher.notes)

    def logs(self) -> list[LogLine]:
        """The last 10,000 lines of the job's log, of 10,000 characters each at most; `snapshot().log_total` counts
        all."""
        return list(self._dispatcher.log.lines.copy())

    def exception(self) -> BaseException | None:
        """Why the job failed; None where it has not."""
        self._info.told = self._info.told or self._dispatcher.error is not None
        return self._dispatcher.error

    def snapshot(self) -> JobSnapshot:
        """Everything that a view shows, as it is now."""
        return self._describer.snapshot()

    # Orders

    def pause(self) -> None:
        """Hold the pipeline before its next item. Raises `JobStateError` where the job is not running."""
        self._dispatcher.pause()

    def resume(self) -> None:
        """Go on after `pause()`. Raises `JobStateError` where the job is not paused."""
        self._dispatcher.resume()

    def stop(self, timeout: float = 10.0) -> Job:
        """Stop the job, wait until it is cleaned up, and return it.

        No item is begun from now on. A source that does not answer is given up after 0.2 s (0.7 s where services
        are up), an operator at work on an item after `timeout` seconds; `notes` names what was given up. No service is
        kept, and those that `cleanup` kept of a job that has ended are stopped. Called from the job's own code, it
        returns at once. Raises `JobStateError` where `timeout` is not a number of seconds, 0 or more.
        """
        self.request_stop(timeout)
        if not self._dispatcher.is_own_thread():
            _wait(self._dispatcher.clean, None)
            self._dispatcher.join()
        return self

    def request_stop(self, timeout: float = 10.0) -> None:
        """Like `stop`, but returns at once."""
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout >= 0:
            raise JobStateError(f"stop: timeout is a number of seconds, 0 or more, not {timeout!r}")
        self._dispatcher.stop(timeout)

    def wait(self, timeout: float | None = None) -> Job:
        """Wait for the end of the job and of its cleanup, and return it.

        Raises the job's own exception where it failed, and `TimeoutError` where it is still running after
        `timeout` seconds (it goes on). An interrupt stops the job and raises `KeyboardInterrupt`.
        """
        __tracebackhide__ = True
        if self._dispatcher.is_own_thread():
            raise JobStateError(f"job {self.name!r} cannot wait for itself: this is its own thread")
        if not self._wait_done(timeout):
            late = TimeoutError(f"job {self.name!r} is still {self.status} after {timeout:g} s; it goes on")
            raise shown_at_caller(late)
        return self._ended()

    def _wait_done(self, timeout: float | None = None) -> bool:
        """Like `wait`, but returns whether the job has ended, and raises nothing of what the job did."""
        __tracebackhide__ = True
        try:
            return _wait(self._dispatcher.done, timeout)
        except KeyboardInterrupt as exc:
            raise self._waiter_interrupted(exc) from None

    def _waiter_interrupted(self, exc: KeyboardInterrupt) -> KeyboardInterrupt:
        """What to raise where what waits for the job is interrupted, which stops the job where that is so. One that
        the job itself has failed with is that, and one that has been told already."""
        if exc is self._dispatcher.error or hasattr(exc, "_render_traceback_"):
            return exc
        return shown_at_caller(KeyboardInterrupt(self._interrupted()))

    def _interrupted(self) -> str:
        """What waits for the job is interrupted: stop the job where that is so, and say what became of it."""
        if not self._dispatcher.ends_with_its_waiter:
            return f"job {self.name!r} goes on; only the waiting for it was interrupted"
        self.stop(INTERRUPT_GRACE)
        return f"job {self.name!r} was stopped, as what waited for it was interrupted"

    def __await__(self) -> Generator[Any, None, Job]:
        return self._wait_async().__await__()

    async def _wait_async(self) -> Job:
        __tracebackhide__ = True
        try:
            await self._until(self._dispatcher.done)
        except asyncio.CancelledError:  # what an interrupt becomes in a cell that awaits
            await self._stop_cancelled()
        if isinstance(self._dispatcher.error, StopIteration):  # cannot be raised out of a coroutine
            raise RuntimeError(f"job {self.name!r} failed with StopIteration") from self._dispatcher.error
        return self._ended()

    async def _stop_cancelled(self) -> None:
        """Stop, clean up, and raise `CancelledError` anew, without the frames of asyncio."""
        __tracebackhide__ = True
        if not self._dispatcher.ends_with_its_waiter:
            goes_on = f"job {self.name!r} goes on; only the waiting for it was interrupted"
            raise shown_at_caller(asyncio.CancelledError(goes_on)) from None
        self._dispatcher.stop(INTERRUPT_GRACE)
        await self._until(self._dispatcher.clean)
        stopped = f"job {self.name!r} was stopped, as what awaited it was interrupted"
        raise shown_at_caller(asyncio.CancelledError(stopped)) from None

    async def _until(self, event: threading.Event) -> None:
        loop, turned = asyncio.get_running_loop(), asyncio.Event()

        def wake(_job: Job) -> None:
            if event.is_set() and not loop.is_closed():
                loop.call_soon_threadsafe(turned.set)

        self._listen(wake)
        try:
            while not event.is_set():
                try:
                    await asyncio.wait_for(turned.wait(), _TICK)
                except TimeoutError:
                    continue
        finally:
            self._unlisten(wake)

    async def stream(self, name: str) -> AsyncIterator[Any]:
        """The items of `collect(name)`, from the first one on, as they come; ends with the job.

        With `latest=True`, the newest item of each key that there is, then each that is newer and another object: where
        several came for a key before the loop looked again, the last of them.

        Raises the job's exception after the last item where the job failed. Leaving the loop leaves the job alone;
        an interrupt while the loop waits for an item stops it. Of a job on a server, a loop that takes its time holds
        the job back, once as much waits for it as the server keeps.
        """
        __tracebackhide__ = True
        result = self._dispatcher.results.get(name)
        if result is None or result.kind != "collect":
            names = [r.name for r in self._dispatcher.results.values() if r.kind == "collect"]
            raise KeyError(f"no collect({name!r}) in this job; there are: {', '.join(names) or 'none'}")
        chunks = self._dispatcher.stream(name)
        if chunks is None:
            async for item in self._follow(result):
                yield item
        else:
            try:
                async for chunk in chunks:
                    for item in chunk:
                        yield item
            except asyncio.CancelledError:
                await self._stop_cancelled()
        self._ended()

    async def _follow(self, result: Result) -> AsyncIterator[Any]:
        """The items of a result in this process, as they come."""
        __tracebackhide__ = True
        if isinstance(result, Latest):
            async for item in self._follow_latest(result):
                yield item
            return
        at, turned = 0, time.monotonic()
        while True:
            ended = self._dispatcher.done.is_set()  # before looking: what comes in between is seen the next time
            caught_up = at >= len(result)
            if not caught_up:
                yield result[at]
                at += 1
            elif ended:
                break
            if caught_up or time.monotonic() - turned > _TURN:  # however fast items come, the event loop has its turns
                await self._turn(_TURN if caught_up else 0)
                turned = time.monotonic()

    async def _follow_latest(self, result: Latest) -> AsyncIterator[Any]:
        """The newest items of all keys, then those that are newer, as they come."""
        __tracebackhide__ = True
        told: dict[Any, Any] = {}
        while True:
            ended = self._dispatcher.done.is_set()
            began = time.monotonic()
            before, told = told, result.newest.copy()
            newer = [item for key, item in told.items() if key not in before or before[key] is not item]
            turned = time.monotonic()
            pause = max(_TURN, _LATEST_SHARE * (turned - began))  # a large table takes long to look through
            for item in newer:
                yield item
                if time.monotonic() - turned > _TURN:
                    await self._turn(0)
                    turned = time.monotonic()
            if ended:
                return
            await self._turn(pause)

    async def _turn(self, seconds: float) -> None:
        """Let the event loop go on with other things; an interrupt meanwhile stops the job."""
        __tracebackhide__ = True
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            await self._stop_cancelled()

    def _ended(self) -> Job:
        __tracebackhide__ = True
        self._dispatcher.join()
        error = self._dispatcher.error
        if error is not None:
            self._info.told = True
            failure = self._dispatcher.failure
            raise error.with_traceback(failure.traceback if failure else None)
        return self

    def _listen(self, listener: Callable[[Job], None]) -> None:
        """Call `listener` on every change of status, on the thread that changes it."""
        self._listeners.append(listener)

    def _unlisten(self, listener: Callable[[Job], None]) -> None:
        """Take back `_listen`."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def _changed(self) -> None:
        for listener in list(self._listeners):
            try:
                listener(self)
            except Exception as exc:  # noqa: BLE001 - one that looks on must not keep the others from hearing
                self._dispatcher.log.say("job", f"telling a listener failed: {headline(exc)}", "ERROR")


def _wait(event: threading.Event, timeout: float | None) -> bool:
    """`event.wait(timeout)`, which an interrupt ends within 0.2 s whenever it comes."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _LOOK if deadline is None else min(_LOOK, deadline - time.monotonic())
        if event.wait(max(0.0, left)):
            return True
        if deadline is not None and time.monotonic() >= deadline:
            return False
