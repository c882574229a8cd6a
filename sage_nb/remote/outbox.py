"""In a runner: what goes to the server, in the order in which it came about.

One thread sends. Items that a `collect` appends wait in a plain list; the thread takes all that wait at once, so that
a fast stream goes in large chunks and a slow one item by item, at once. Where much has been sent that the server has
not taken, it waits, and so do those that append: that is how a full disk, or a reader that does not come, holds the
source back.

A new attempt may follow a failed one. So everything that has to keep its place among the items is a *word* in one
queue, and items are taken only while no word waits.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from functools import partial
from itertools import groupby
from operator import is_not, itemgetter
from typing import TYPE_CHECKING, Any

import msgspec

from sage_nb.engine.buffers import Buffer, size_of
from sage_nb.engine.dispatcher import ENDED, Dispatcher
from sage_nb.engine.displaying import Bundle
from sage_nb.engine.failure import Failure, explain, headline, safe_repr, safe_str, safe_text
from sage_nb.engine.frames import Connection
from sage_nb.engine.letters import DeadLetter
from sage_nb.engine.results import Latest, Result, Results, make_results
from sage_nb.engine.shipping import RECEIVED, dumps_items
from sage_nb.engine.travelled import dumps_exception
from sage_nb.errors import ShippingError
from sage_nb.jobs.describe import error_view
from sage_nb.jobs.snapshot import JobSnapshot
from sage_nb.pipeline.graph import Operator
from sage_nb.pipeline.operators import RESULTS
from sage_nb.remote import protocol
from sage_nb.remote.protocol import Kind, pack_buffers

if TYPE_CHECKING:
    from sage_nb.jobs.job import Job

__all__ = ["Outbox"]

WINDOW = 8 << 20
"""Bytes of results that may be under way to the server."""
_CHUNK = 1 << 20  # bytes that a chunk of items should have
_MOST = 1 << 14  # items of a chunk
_LINES = 1000  # lines of the log in one record
_SHOWN = 200  # items that a collect keeps, for the views
_TICK = 0.05
_SOON = 0.02
_SNAPSHOTS = 0.125
_UNWATCHED = 1.0
_AGAIN = 1.0
"""Seconds after which items that may have been changed in place are sent again, or more: not above `_AGAIN_SIZE` bytes
a second, and for a twentieth of the time."""
_AGAIN_SIZE = 1 << 20
_AGAIN_SHARE = 20
_encode = msgspec.msgpack.Encoder().encode
_json = msgspec.json.Encoder().encode


class Outlet(Result):
    """A `collect` that keeps nothing but its last items: what is appended goes to the server."""

    def __init__(self, name: str, outbox: Outbox) -> None:
        super().__init__(name, "collect", None)
        self.sent = 0
        self.limit = 64
        """Items that may wait before those that append have to; it follows from how large they are."""
        self.pending: list[Any] = []
        self._shown: deque[Any] = deque(maxlen=_SHOWN)
        self._outbox = outbox
        self.append = self._append

    def _append(self, item: Any) -> None:
        pending = self.pending
        pending.append(item)
        if self._outbox.idle:
            self._outbox.wake()
        if len(pending) > self.limit:
            self._outbox.hold(self)

    def __len__(self) -> int:
        return self.sent + len(self.pending)

    def tail(self, count: int) -> list[Any]:
        return [*self._shown.copy(), *self.pending.copy()][-count:]

    def _snapshot(self) -> list[Any]:
        return self.tail(_SHOWN)

    def went(self, items: list[Any]) -> None:
        """These are on their way."""
        self.sent += len(items)
        self._shown.extend(items[-_SHOWN:])

    def begin_anew(self) -> None:
        """A new attempt begins."""
        self.sent = 0
        self._shown.clear()

    def clear(self) -> None:
        self._outbox.forget(self)


class Outbox:
    """Everything that one job tells the server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._words: deque[tuple[int, protocol.Head | None, list[Buffer]]] = deque()
        self._order = threading.Lock()
        self._woken = threading.Event()
        self._room = threading.Event()
        self._outlets: list[Outlet] = []
        self._shows: dict[str, list[Any]] = {}
        """By the name of a `show`, and of what is `latest=True`, the items that were sent last."""
        self._came: dict[str, int] = {}
        """By the name of what is `latest=True`, the items that had come when those that may change were sent."""
        self._next_again: dict[str, float] = {}
        self._job: Job | None = None
        self._run: Dispatcher | None = None
        self._thread: threading.Thread | None = None
        self._sent = 0
        self._taken = 0
        self._lines = 0
        self._notes = 0
        self._letters: dict[str, int] = {}
        self._printed: list[tuple[str, Any]] = []
        """`stdout` or `stderr` and the text, or `display` and what was displayed."""
        self._status = ""
        self._next_snapshot = 0.0
        self._last_snapshot = b""
        self.idle = False
        """Whether the thread waits for an item."""
        self.watched = False
        self._undescribed = False
        self._failure: Failure | None = None
        """Of an item that could not travel, so that none behind it is sent. The job may have ended before."""
        self.held = False
        """Whether the server has no room for results before somebody reads them."""
        self.log_keeps = 1 << 30
        """Bytes of what was sent that the server keeps at least, but for a quarter of them: what is older may go."""
        self._logged = 0
        """Bytes of all records that were sent."""
        self._whole_from = 0
        """Where, in these, began what was last sent whole of each `show`."""
        self._whole_size = 0
        self.gone = False
        """Whether the server is gone: nothing can be told any more, and nobody is held up."""

    # What the job's threads call

    def results(self, operators: tuple[Operator, ...]) -> Results:
        """The job's results: each leads here."""
        found = make_results(operators)
        for name, result in found.items():
            if result.kind == "collect" and not isinstance(result, Latest):
                found[name] = outlet = Outlet(name, self)
                self._outlets.append(outlet)
            else:
                self._shows[name] = []
        return found

    def wake(self) -> None:
        """Something waits to be sent."""
        self.idle = False
        self._woken.set()

    def hold(self, outlet: Outlet) -> None:
        """Wait until there is room for what `outlet` got."""
        run = self._run
        while len(outlet.pending) > outlet.limit and not self.gone:
            if run is not None and (run.is_overdue() or run.has_failed()):
                return
            self._room.clear()
            self.wake()
            if len(outlet.pending) > outlet.limit:
                self._room.wait(_TICK)

    def forget(self, outlet: Outlet) -> None:
        """What waits is of an attempt that has failed."""
        with self._order:
            outlet.pending.clear()

    def begin_anew(self) -> None:
        """A new attempt begins; its tasks do not run yet."""
        assert self._run is not None
        with self._order:
            self._words.append((Kind.RESTARTED, protocol.Restarted(self._run.attempt), []))
        self.wake()

    def changed(self, _job: object) -> None:
        """The job's state has changed."""
        run = self._run
        if run is None:
            return
        with self._order:
            status = run.status
            if status != self._status and status not in ENDED:
                self._status = status
                self._words.append((Kind.STATE, protocol.State(status, time.time(), run.attempt), []))
        self._next_snapshot = 0.0
        self.wake()

    def print(self, text: str, stream: str) -> None:
        """What a thread printed in this process."""
        run = self._run
        if run is None:
            self._add(stream, text)
        else:
            run.printed.take(text, partial(self._add, stream))

    def display(self, data: Bundle, metadata: Bundle) -> None:
        """What a thread displayed in this process."""
        if self._run is not None:
            self._run.printed.display(partial(self._add, "display", protocol.Display(data, metadata)), None)

    def _add(self, stream: str, what: Any) -> None:
        with self._order:
            self._printed.append((stream, what))
        if self.idle:
            self.wake()

    # What the thread that hears the server calls

    def taken(self, count: int) -> None:
        """The server has taken `count` bytes of results so far."""
        self._taken = count
        self._woken.set()

    def watch(self, watched: bool) -> None:
        """Somebody looks, or nobody does any more."""
        self.watched = watched
        self._next_snapshot = 0.0
        self.wake()

    def lose(self) -> None:
        """The server is gone."""
        self.gone = True
        self._room.set()
        self._woken.set()

    # The thread that sends

    def begin(self, job: Job, run: Dispatcher) -> None:
        """Tell of `job` from now on."""
        self._job, self._run = job, run
        self._thread = threading.Thread(target=self._live, name="sage_nb outbox", daemon=True)
        self._words.append((Kind.DECLARED, protocol.Declared.of(run.operators, run.on_error), []))
        self._thread.start()

    def join(self) -> None:
        """Wait until everything has been told."""
        if self._thread is not None:
            self._thread.join()

    def _live(self) -> None:
        assert self._run is not None
        try:
            while not self._run.done.is_set():
                self._turn()
                self._wait()
            self._finish()
        except OSError:
            self.lose()
        except BaseException as exc:  # noqa: BLE001 - a job whose end nobody hears of would be waited for for ever
            self._failure = explain(exc, "sage_nb itself; please report this")  # the job may have ended before
            self._run.fail(self._failure)
            self._run.done.wait()
            self._send_end(None)

    def _wait(self) -> None:
        """Until something has to be sent; what need not be sent at once is sent within 20 ms."""
        blocked = self._sent - self._taken >= WINDOW
        self.idle = not blocked
        nothing = not self._words and not any(outlet.pending for outlet in self._outlets)
        if nothing or (blocked and not self._words):
            quiet = not self._printed and self._run is not None and self._run.log.total == self._lines
            left = self._next_snapshot - time.monotonic()
            self._woken.wait(min(max(left, 0.0), _SNAPSHOTS if quiet else _SOON))
        self.idle = False
        self._woken.clear()

    def _turn(self) -> None:
        self._send_words()
        for outlet in self._outlets:
            self._send_items(outlet)
        self._send_output()
        self._send_lines()
        now = time.monotonic()
        if now >= self._next_snapshot:
            self._next_snapshot = now + (_SNAPSHOTS if self.watched else _UNWATCHED)
            if self._sent - self._taken < WINDOW:
                self._send_shows()
            self._send_letters()
            self._send_notes()
            self._send_snapshot()

    def _send(self, kind: int, head: protocol.Head | None, body: list[Buffer] | None = None) -> None:
        pieces = [b"" if head is None else _encode(head), *(body or [])]
        self._logged += protocol.RECORD.size + sum(map(size_of, pieces))
        self._connection.send(kind, *pieces)

    def _send_words(self) -> None:
        while True:
            with self._order:
                if not self._words:
                    return
                kind, head, body = self._words.popleft()
            if kind == Kind.RESTARTED:
                for outlet in self._outlets:
                    outlet.begin_anew()
                self._shows = {name: [] for name in self._shows}
                self._letters.clear()
                self._came.clear()
                self._failure = None
                self._whole_from, self._whole_size = self._logged, 0
            self._send(kind, head, body)

    def _send_items(self, outlet: Outlet) -> None:
        """All that waits, in chunks, for as long as the server takes them and no word comes between."""
        while outlet.pending and (self._sent - self._taken < WINDOW):
            with self._order:
                if self._words:
                    return
                count = min(len(outlet.pending), _MOST, max(1, outlet.limit))
                items = outlet.pending[:count]
                del outlet.pending[:count]
            self._room.set()
            size = self._send_chunk(protocol.Results(outlet.name, outlet.sent, count, True), items)
            outlet.limit = max(2, min(_MOST * 4, count * _CHUNK * 4 // max(size, 1)))
            outlet.went(items)

    def _send_shows(self, *, last: bool = False) -> None:
        """The items of each `show` as they are now, where they are others than before; where only the newest of each
        key is kept, those that are others, and now and then those that may have been changed since they were sent."""
        assert self._run is not None
        whole, begin = self._is_whole_due(last), self._logged
        counts = self._counts()
        for name, before in self._shows.items():
            if self._words:
                return
            result = self._run.results[name]
            items = result.to_list()
            self._shows[name] = items
            if isinstance(result, Latest):
                self._send_latest(name, items, before, whole, last, counts.get(name, 0))
            elif whole or len(items) != len(before) or any(map(is_not, items, before)):
                self._send_chunk(protocol.Results(name, 0, len(items), False), items)
        if whole:
            self._whole_from, self._whole_size = begin, self._logged - begin

    def _is_whole_due(self, last: bool) -> bool:
        """Whether all has to be sent once more, as the server may soon let go of what was sent. What is large is not,
        before twice as much has been sent, but for the end."""
        most = self.log_keeps // 2
        return self._logged - self._whole_from >= (most if last else max(most, 2 * self._whole_size))

    def _counts(self) -> dict[str, int]:
        """By the name of what is `latest=True`, the items that have come."""
        assert self._run is not None
        names = {op.id: op.spec.name for op in self._run.operators if op.kind in RESULTS and op.spec.latest}
        found = dict.fromkeys(names.values(), 0)
        for task in self._run.all_tasks if names else ():
            for id, one in task.counts().items():
                if id in names:
                    found[names[id]] += one.items_in
        return found

    def _send_latest(self, name: str, items: list[Any], before: list[Any], whole: bool, last: bool, came: int) -> None:
        changed = [n for n, one in enumerate(items) if n >= len(before) or one is not before[n]]
        self._send_newest(name, items, changed)
        began, size = time.monotonic(), self._logged
        due = self.watched and came != self._came.get(name) and began >= self._next_again.get(name, 0.0)
        if whole or last or due:
            sent = set(changed)
            again = [n for n, one in enumerate(items) if n not in sent and (whole or not _is_fixed(one))]
            self._send_newest(name, items, again, again=True)
            now = time.monotonic()
            pause = max(_AGAIN, (now - began) * _AGAIN_SHARE, (self._logged - size) / _AGAIN_SIZE)
            self._came[name], self._next_again[name] = came, now + pause

    def _send_newest(self, name: str, items: list[Any], numbers: list[int], *, again: bool = False) -> None:
        for first in range(0, len(numbers), _MOST):
            at = numbers[first : first + _MOST]
            head = protocol.Results(name, first, len(at), False, at, again, len(items))
            self._send_chunk(head, [items[n] for n in at])

    def _send_chunk(self, head: protocol.Results, items: list[Any]) -> int:
        """Send items, and give their size in bytes. Where one of them cannot travel, those before it are sent, and the
        job fails on it."""
        assert self._run is not None
        if self._failure is not None:
            return 0
        try:
            body = pack_buffers(_dumps(items))
        except ShippingError as exc:
            if len(items) == 1:
                if head.again and not self._run.done.is_set():
                    return 0  # it may be changing right now, and is sent once more at the end
                self._cannot_travel(head.name, items[0], exc)
                return 0
            half = len(items) // 2
            parts = ((0, half), (half, len(items)))
            return sum(self._send_chunk(_part(head, begin, end), items[begin:end]) for begin, end in parts)
        size = sum(map(size_of, body))
        self._sent += size
        self._send(Kind.RESULTS, head, body)
        return size

    def _cannot_travel(self, name: str, item: Any, exc: ShippingError) -> None:
        assert self._run is not None
        op = next(op for op in self._run.operators if op.kind in RESULTS and op.spec.name == name)
        subject = f"operator {op.name!r} ({op.kind})"
        self._failure = explain(exc, subject, operator=op.name, item=item, declared=op.site)
        self._run.fail(self._failure)

    def _send_output(self) -> None:
        with self._order:
            printed, self._printed = self._printed, []
        for stream, found in groupby(printed, key=itemgetter(0)):
            if stream == "display":
                for _, head in found:
                    self._send(Kind.DISPLAY, head)
            else:
                self._send(Kind.OUTPUT, protocol.Output("".join(text for _, text in found), stream))

    def _send_lines(self) -> None:
        assert self._run is not None
        log = self._run.log
        new = log.total - self._lines
        if new <= 0:
            return
        total = self._lines + new
        lines = list(log.lines.copy())[-new:][-_LINES:]
        self._lines = total
        told = [(one.time, one.level, one.source, safe_text(one.text, 10_000)) for one in lines]
        self._send(Kind.LINES, protocol.Lines(told, total))

    def _send_notes(self) -> None:
        assert self._run is not None
        notes = self._run.notes[self._notes :]
        self._notes += len(notes)
        for note in notes:
            self._send(Kind.NOTE, protocol.Text(safe_text(note)))

    def _send_letters(self) -> None:
        assert self._run is not None
        if self._words:
            return  # they may be of another attempt
        for name, letters in list(self._run.dead_letters.items()):
            known = self._letters.get(name, 0)
            total = letters.total
            if total <= known:
                continue
            self._letters[name] = total
            for number, letter in enumerate(letters[-min(total - known, len(letters)) :], 1):
                self._send_letter(name, total - min(total - known, len(letters)) + number, letter)

    def _send_letter(self, name: str, total: int, letter: DeadLetter) -> None:
        text = None
        try:
            item = [bytes(one) for one in _dumps(letter.item)]
        except ShippingError:
            item, text = [], safe_repr(letter.item)
        error = [bytes(one) for one in dumps_exception(letter.error, RECEIVED)]
        head = protocol.Letter(name, total, letter.time, len(item), text)
        self._send(Kind.LETTER, head, pack_buffers([*item, *error]))

    def _send_snapshot(self) -> None:
        now = self._described()
        if now is None:
            return
        if self.held:
            now = msgspec.structs.replace(now, waiting_for="a reader of its results: the server keeps no more of them")
        snapshot = _json(now)
        if snapshot != self._last_snapshot:
            self._last_snapshot = snapshot
            self._connection.send(Kind.SNAPSHOT, snapshot)

    def _described(self) -> JobSnapshot | None:
        """The job's description; None where it cannot be had, which its log says once."""
        assert self._job is not None
        try:
            return self._job.snapshot()
        except Exception as exc:  # noqa: BLE001 - what cannot be described runs all the same
            if not self._undescribed:
                self._undescribed = True
                self._job._dispatcher.say(f"the job could not be described: {headline(exc)}", "ERROR")
            return None

    def _finish(self) -> None:
        """The job has ended: everything that is left, then the end itself."""
        run = self._run
        assert run is not None
        run.join()
        while not self.gone:
            self._send_words()
            for outlet in self._outlets:
                self._send_items(outlet)
            if not self._words and not any(outlet.pending for outlet in self._outlets):
                break
            self._woken.wait(_TICK)
            self._woken.clear()
        self._send_output()
        self._send_shows(last=True)
        self._send_letters()
        self._send_lines()
        self._send_notes()
        clean = run.clean.is_set()
        self._send_end(self._described())
        if not clean:
            run.clean.wait()
            self._send_lines()
            self._send_snapshot()
            self._send(Kind.CLEAN, None)

    def _send_end(self, described: JobSnapshot | None) -> None:
        run = self._run
        assert run is not None
        error, status = run.error, run.status
        if error is None and self._failure is not None:
            error, status = self._failure.exception, "failed"
            if described is not None:
                changes = {"status": "failed", "error": error_view(self._failure)}
                described = msgspec.structs.replace(described, **changes)
        body: list[Buffer] = []
        if error is not None:
            body = pack_buffers([bytes(one) for one in dumps_exception(error, RECEIVED)])
        told = None if error is None else f"{type(error).__name__}: {safe_text(safe_str(error))}"
        snapshot = None if described is None else _json(described)
        ended = protocol.Ended(status, run.ended or time.time(), run.clean.is_set(), told, snapshot)
        self._send(Kind.ENDED, ended, body)


def _part(head: protocol.Results, begin: int, end: int) -> protocol.Results:
    """The head of some of the items."""
    at = None if head.at is None else head.at[begin:end]
    return msgspec.structs.replace(head, first=head.first + begin, count=end - begin, at=at)


def _is_fixed(item: Any) -> bool:
    """Whether it is certainly what it was when it was made."""
    return type(item) in _FIXED or (type(item) is tuple and all(map(_is_fixed, item)))


_FIXED = frozenset({str, int, float, bool, bytes, type(None)})


def _dumps(items: Any) -> list[Buffer]:
    """Raises `ShippingError`, also where the user's code asks for the end of the process."""
    try:
        return dumps_items(items, RECEIVED)
    except (SystemExit, KeyboardInterrupt) as exc:
        raise ShippingError(f"a {type(items).__name__} cannot travel: pickling it raised {headline(exc)}") from exc
