"""The Ray cluster that the jobs of this process share.

A job takes a `Lease`. The first one has a thread connect: to the Ray that this process has initialised already, which
is left as it was; to the address that was asked for; or else to a private Ray, which is started on this machine and
ends when no job has used it for `IDLE` seconds, and with the process. That thread stays for as long as the
connection does, since a private Ray ends with the thread that started it. It also looks after the connection: Ray would
end the whole process a minute after its cluster is lost, so it is shut down before, and all leases are told.

    wanted -> connecting -> up -> (idle) -> shut down
                             └--> lost   -> shut down
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import logging
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from subprocess import Popen
from typing import Any

from sage_nb.engine.onray.hearing import heard_by
from sage_nb.engine.reaper import Reaper
from sage_nb.errors import ClusterError

__all__ = ["IDLE", "Lease", "acquire"]

IDLE = 60.0
"""Seconds after its last job that a private Ray is kept for the next one."""
_LOOK = 0.5
_ANSWER_WITHIN = 10.0
"""Seconds within which the cluster's control process has to answer; on this machine, its end is seen at once."""
_CONNECT_WITHIN = 4.0
_STARTS = 3
_TOO_SLOW = "timed out during startup"
"""What Ray says once its processes have not come up within its own limits, of 15 and 30 seconds."""
_LET_GO_WITHIN = 2.0
_SETTINGS = "RayParams"
"""The class of the settings of a start, in Ray."""
_NAMES = {"gcs_server": "its control process (GCS)", "raylet": "its node process (raylet)"}


class Lease:
    """A job's part in the cluster. `ready` is set once it is there, or once `error` says why it is not."""

    def __init__(
        self, settings: dict[str, Any], on_lost: Callable[[ClusterError], None], say: Callable[[str, str], None]
    ) -> None:
        self.settings = settings
        self.ready = threading.Event()
        self.error: BaseException | None = None
        self.connection: _Connection | None = None
        self.on_lost = on_lost
        self.say = say
        """Takes a line for the job's log, and its source: `"ray"`, or `"job"` for what is a note of it as well."""

    @property
    def is_private(self) -> bool:
        """Whether it is this process's own Ray, on this machine."""
        return self.connection is not None and self.connection.private

    @property
    def lost(self) -> ClusterError | None:
        """Why the cluster is not there any more; None while it is. To be asked before each call of Ray: with no
        cluster, many of its functions start one, or join somebody's."""
        connection = self.connection
        if connection is None:
            return None
        if connection.leaving:
            connection.lose("no job has used it for a while")
        elif connection.up and not _is_initialized():
            connection.lose(_SHUT_DOWN)
        return connection.lost

    def look(self) -> ClusterError | None:
        """As `lost`, with a look at the processes: what ended with one of them is not to blame for it."""
        connection = self.connection
        if connection is not None and connection.up and (why := _ended(connection)) is not None:
            connection.lose(why)
        return self.lost

    def using(self, user: object) -> None:
        """Note somebody who waits for Ray, and looks at `lost` meanwhile: it is shut down after he has let go."""
        if self.connection is not None:
            self.connection.users.add(user)

    def let_go(self, user: object) -> None:
        if self.connection is not None:
            self.connection.users.discard(user)

    def release(self) -> None:
        """The job has ended."""
        with _LOCK:
            connection = self.connection
            if connection is not None:
                connection.leases.discard(self)
                connection.idle_since = time.monotonic()
                connection.wake.set()


_SHUT_DOWN = "ray.shutdown() was called in this process"


def _is_initialized() -> bool:
    import ray

    return ray.is_initialized()


@dataclass(eq=False)
class _Connection:
    settings: dict[str, Any]
    leases: set[Lease] = field(default_factory=set)
    users: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    up: bool = False
    """Whether it can be used: it is there, and is not being shut down."""
    private: bool = False
    ours: bool = False
    """Whether this module has initialised Ray, and so is to shut it down."""
    lost: ClusterError | None = None
    starts: int = 0
    """How often a private one has been started."""
    leaving: bool = False
    """Whether it is not to be used any more: it is being shut down, or was never there."""
    over: bool = False
    idle_since: float = 0.0
    makes_way: bool = False
    """Whether nobody uses it, and another one is waiting for its end."""
    wake: threading.Event = field(default_factory=threading.Event)
    processes: list[tuple[Popen[bytes], str]] = field(default_factory=list)
    """Those of a private Ray without which it is lost."""
    reaper: Reaper | None = None
    host: tuple[str, int] | None = None
    """Where the control process of another Ray answers."""
    asking: threading.Thread | None = None
    unanswered: int = 0
    """How often it was looked at since it has answered. A process that was held up has not looked either."""

    def lose(self, why: str) -> None:
        with _LOCK:
            self.lost = self.lost or ClusterError(f"the Ray cluster is lost: {why}; the next job starts afresh")


_LOCK = threading.RLock()
_CURRENT: _Connection | None = None


def acquire(
    settings: dict[str, Any], on_lost: Callable[[ClusterError], None], say: Callable[[str, str], None]
) -> Lease:
    """Ask for the cluster that `settings`, those of `config={"ray": ...}`, describe. Returns at once.

    `on_lost` is called once it is lost, `say` with what it has to say.
    """
    lease = Lease(settings, on_lost, say)
    _join(lease)
    return lease


def _join(lease: Lease) -> None:
    """Give a lease a connection: the one there is, or a new one behind it."""
    global _CURRENT
    with _LOCK:
        current, settings = _CURRENT, lease.settings
        usable = current is not None and not current.leaving and current.lost is None
        if current is not None and current.up and not _is_initialized():
            usable = False  # it has not been seen yet that it is lost
        if current is not None and usable and current.settings != settings:
            if current.leases:
                lease.error = ClusterError(
                    "this process is connected to Ray with other settings, and has one connection only: "
                    f"{_described(current.settings)}, not {_described(settings)}; wait for the jobs that use it"
                )
                lease.ready.set()
                return
            usable, current.makes_way = False, True
            current.wake.set()
        if current is None or not usable:
            before, current = current, _Connection(settings)
            _CURRENT = current
            threading.Thread(target=_live, args=(current, before), name="sage_nb ray", daemon=True).start()
        current.leases.add(lease)
        lease.connection = current
        if current.up:
            lease.ready.set()


def _described(settings: dict[str, Any]) -> str:
    return str(settings.get("address", settings or "a private one"))


def _live(one: _Connection, before: _Connection | None) -> None:
    """The life of a connection, on a thread of its own."""
    while before is not None and not before.over:
        time.sleep(0.05)
    try:
        _connect(one)
    except BaseException as exc:  # noqa: BLE001 - it is told to those who wait
        if one.private and _TOO_SLOW in str(exc) and one.starts < _STARTS:
            _tell(one, f"Ray was too slow to start, as a busy machine may make it; start {one.starts + 1} of {_STARTS}")
            threading.Thread(target=_live, args=(one, None), name="sage_nb ray", daemon=True).start()
        else:
            _refuse(one, exc)
        return  # and with this thread, what has been started of a private Ray
    with _LOCK:
        one.up, one.idle_since = True, time.monotonic()
        for lease in one.leases:
            lease.ready.set()
    try:
        with _no_other():
            with _shut_down_last(one):
                _look_after(one)
            _leave(one)
    finally:
        with _LOCK:
            one.over = True
            one.leases.clear()


def _connect(one: _Connection) -> None:
    import ray

    settings = dict(one.settings)
    address = settings.pop("address", None)
    if ray.is_initialized():
        one.host = _host()
        if address is not None and address not in ("auto", ray.get_runtime_context().gcs_address):
            raise ClusterError(
                f"Ray is connected to {ray.get_runtime_context().gcs_address} in this process, not to {address}; "
                "leave the address out, or call ray.shutdown() before"
            )
        return
    _check_answers(address)
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False, **settings}
    if address is None:
        options = {"include_dashboard": False, "_node_ip_address": "127.0.0.1", **options}
        one.private = True
        one.starts += 1
    try:
        with _unreported(), _quiet(), heard_by(partial(_tell, one)), _lean() if one.private else nullcontext():
            ray.init(address=address or "local", **options)
    except Exception as exc:
        with contextlib.suppress(Exception):  # what was begun is left to end
            ray.shutdown()
        where = f"Ray at {address} cannot be reached" if address else "a private Ray cannot be started"
        raise ClusterError(f"{where}: {type(exc).__name__}: {exc}") from exc
    one.ours = True
    one.host = None if one.private or "://" in (address or "") else _host()
    node = getattr(ray._private.worker, "_global_node", None)
    if one.private and node is not None:
        for kind, name in _NAMES.items():
            one.processes += [(info.process, name) for info in node.all_processes.get(kind, ())]
        one.reaper = Reaper()


def _tell(one: _Connection, text: str) -> None:
    """The cluster says something: to the jobs that use it."""
    with _LOCK:
        told = list(one.leases)
    for lease in told:
        lease.say("ray", text)


def _host() -> tuple[str, int] | None:
    """Where the control process answers; None where Ray does not say so, as behind a `ray://` address."""
    import ray

    host, _, port = str(ray.get_runtime_context().gcs_address).rpartition(":")
    return (host.strip("[]"), int(port)) if port.isdigit() else None


def _check_answers(address: str | None) -> None:
    """Refuse an address at which nobody answers: Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if not host or "://" in host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_WITHIN).close()
    except OSError as exc:
        raise ClusterError(f"Ray at {address} cannot be reached: {exc.strerror or exc}") from exc


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what Ray says of its start: it would be written below whatever cell is the newest."""
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _lean() -> Iterator[None]:
    """Without two processes that a Ray of one process does not need: one that would ask a cloud for more nodes, and one
    that reads the files of workers, which say what they print to us. That saves a third of the time that a start takes.
    A Ray whose settings have other names starts them."""
    from ray._private import parameter

    theirs = parameter.RayParams

    class Lean(theirs):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kw: Any) -> None:
            known = inspect.signature(theirs).parameters
            fewer = {"include_log_monitor": False, "no_monitor": True}
            super().__init__(*args, **{name: value for name, value in fewer.items() if name in known} | kw)

    setattr(parameter, _SETTINGS, Lean)
    try:
        yield
    finally:
        setattr(parameter, _SETTINGS, theirs)


@contextlib.contextmanager
def _unreported() -> Iterator[None]:
    """Without usage statistics, unless the user's environment says something of them."""
    if "RAY_USAGE_STATS_ENABLED" in os.environ:
        yield
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        yield
    finally:
        del os.environ["RAY_USAGE_STATS_ENABLED"]


@contextlib.contextmanager
def _no_other() -> Iterator[None]:
    """Without what many of Ray's functions do where there is none: start one, or join somebody's. Who looks whether it
    is there, and then calls it, may be a moment late."""
    from ray._private import auto_init_hook

    before = auto_init_hook.enable_auto_connect
    auto_init_hook.enable_auto_connect = False
    try:
        yield
    finally:
        auto_init_hook.enable_auto_connect = before


@contextlib.contextmanager
def _shut_down_last(one: _Connection) -> Iterator[None]:
    """Have a `ray.shutdown()` of the user's wait for those who are calling Ray at this moment: it would end the whole
    process with a call of Ray that comes too late. They let go at once, as the cluster is lost to them from then on."""
    import ray

    theirs = ray.shutdown

    @functools.wraps(theirs)
    def shutdown(*args: Any, **kw: Any) -> Any:
        one.lose(_SHUT_DOWN)
        one.wake.set()
        _await_users(one)
        return theirs(*args, **kw)

    ray.shutdown = shutdown
    try:
        yield
    finally:
        if ray.shutdown is shutdown:
            ray.shutdown = theirs


def _await_users(one: _Connection) -> None:
    deadline = time.monotonic() + _LET_GO_WITHIN
    while one.users and time.monotonic() < deadline:
        time.sleep(0.02)


def _refuse(one: _Connection, exc: BaseException) -> None:
    with _LOCK:
        one.over = one.leaving = True
        for lease in one.leases:
            lease.error = exc
            lease.ready.set()


def _look_after(one: _Connection) -> None:
    """Until the connection is lost, or nobody has used it for long."""
    while True:
        one.wake.wait(_LOOK)
        one.wake.clear()
        if one.reaper is not None:
            one.reaper.look_at_families([process.pid for process, _ in one.processes])
        why = _why_lost(one)
        with _LOCK:
            if why is not None:
                one.lose(why)
            if one.lost is not None:
                one.up, one.leaving = False, True
                told = list(one.leases)
                break
            idle = one.makes_way or not one.ours or time.monotonic() - one.idle_since > IDLE
            if idle and not one.leases:
                one.up, one.leaving = False, True
                return
    for lease in told:
        lease.on_lost(one.lost)
    _await_users(one)


def _why_lost(one: _Connection) -> str | None:
    if not _is_initialized():
        return _SHUT_DOWN
    if (why := _ended(one)) is not None:
        return why
    if one.host is not None and (one.asking is None or not one.asking.is_alive()):
        one.asking = threading.Thread(target=_ask, args=(one, one.host), name="sage_nb ray asks", daemon=True)
        one.asking.start()
    one.unanswered += one.host is not None
    if one.unanswered * _LOOK > _ANSWER_WITHIN:
        return f"{_NAMES['gcs_server']} has not answered for {_ANSWER_WITHIN:g} s"
    return None


def _ended(one: _Connection) -> str | None:
    for process, what in one.processes:
        if process.poll() is not None:
            return f"{what}, process {process.pid}, has ended"
    return None


def _ask(one: _Connection, host: tuple[str, int]) -> None:
    """Look whether the control process is there. Not by a call of Ray: one that waits for a control process which has
    gone would end this whole process a minute later, even where Ray has been shut down."""
    with contextlib.suppress(OSError):  # then it has not answered
        socket.create_connection(host, _ANSWER_WITHIN).close()
        one.unanswered = 0


def _leave(one: _Connection) -> None:
    import ray

    if one.ours:
        with contextlib.suppress(Exception):  # whatever is wrong with it, it is not needed any more
            ray.shutdown()
    if one.reaper is not None:
        one.reaper.end()
