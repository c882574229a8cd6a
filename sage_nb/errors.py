"""Every exception that sage_nb itself raises.

    SageError
    ├── PipelineError          (ValueError)      a pipeline that cannot run as it is declared
    │   ├── SignatureError     (TypeError)       a callable or class that does not fit its operator
    │   ├── DuplicateNameError                   a name given twice
    │   ├── KeyTypeError       (TypeError)       a key of a type that cannot be routed the same way everywhere
    │   └── ShippingError      (TypeError)       something that cannot travel to another process
    ├── SubmitError            (RuntimeError)    a pipeline that cannot be submitted now
    ├── JobNotFoundError       (LookupError)     no job, or more than one, goes by that id
    ├── JobStateError          (RuntimeError)    the job's state does not allow this
    ├── JobTimeout             (TimeoutError)    the job ran longer than its `timeout`
    ├── ItemTimeout            (TimeoutError)    an awaited item took longer than its `item_timeout`
    ├── WorkerError            (RuntimeError)    a worker process or an actor ended while it was needed
    ├── ClusterError           (RuntimeError)    the Ray cluster cannot be had, or is lost
    ├── RemoteError                              an exception of another process that cannot be rebuilt here
    ├── ServerError            (RuntimeError)    a JobManager server that cannot do what is asked
    │   ├── ServerUnreachableError (ConnectionError)  no server answers there
    │   ├── ServerBusyError    (OSError)         the port is taken, or the disk is full
    │   ├── AccessError        (PermissionError) a wrong token, or none
    │   └── ProtocolError      (ValueError)      the two sides do not speak the same language
    └── ServiceError           (RuntimeError)
        ├── ServiceNotFoundError  (LookupError)
        ├── ServiceMethodError    (AttributeError)
        ├── ServiceTimeout        (TimeoutError)
        ├── ServiceDiedError                     the actor of a service has died
        └── ServiceStoppedError

A failure in the user's own code is never wrapped: it keeps its type, and notes say which operator, item and
line it came from.
"""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any, TypeVar

__all__ = [
    "AccessError",
    "ClusterError",
    "DuplicateNameError",
    "ItemTimeout",
    "JobNotFoundError",
    "JobStateError",
    "JobTimeout",
    "KeyTypeError",
    "PipelineError",
    "ProtocolError",
    "RemoteError",
    "SageError",
    "ServerBusyError",
    "ServerError",
    "ServerUnreachableError",
    "ServiceDiedError",
    "ServiceError",
    "ServiceMethodError",
    "ServiceNotFoundError",
    "ServiceStoppedError",
    "ServiceTimeout",
    "ShippingError",
    "SignatureError",
    "SubmitError",
    "WorkerError",
]


def render_at_caller(exc: BaseException) -> list[str]:
    """An exception as IPython shows it, without those of the innermost frames that are sage_nb's own."""
    from IPython.core.getipython import get_ipython

    entries, tb = [], exc.__traceback__
    while tb is not None:
        entries.append(tb)
        tb = tb.tb_next
    while len(entries) > 2 and f"{entries[-1].tb_frame.f_globals.get('__name__')}.".startswith("sage_nb."):
        entries.pop()  # the first is IPython's, the second the cell's
    for entry in reversed(entries):
        tb = TracebackType(tb, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    shell: Any = get_ipython()
    lines: list[str] = shell.InteractiveTB.structured_traceback(type(exc), exc, tb)
    return lines


_E = TypeVar("_E", bound=BaseException)


def shown_at_caller(exc: _E) -> _E:
    """`exc`, which a notebook shows at the user's own line."""
    exc.__dict__["_render_traceback_"] = partial(render_at_caller, exc)
    return exc


class SageError(Exception):
    """Base of all errors that sage_nb raises itself."""

    def __str__(self) -> str:  # KeyError's quotes would come in by way of LookupError's subclasses
        return " ".join(str(arg) for arg in self.args)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of it."""
        return render_at_caller(self)


class PipelineError(SageError, ValueError):
    """A pipeline that cannot run as it is declared."""


class SignatureError(PipelineError, TypeError):
    """A callable or class that does not fit the operator it was given to."""


class DuplicateNameError(PipelineError):
    """A name was given to two things."""


class KeyTypeError(PipelineError, TypeError):
    """A key of a type that has no hash that is the same in every process."""


class ShippingError(PipelineError, TypeError):
    """Something that cannot travel to another process."""


class SubmitError(SageError, RuntimeError):
    """The environment cannot be submitted now."""


class JobNotFoundError(SageError, LookupError):
    """No job, or more than one, goes by that id."""


class JobStateError(SageError, RuntimeError):
    """The job's state does not allow what was asked."""


class ItemTimeout(SageError, TimeoutError):
    """An item of `map_async` took longer than its `item_timeout`, and its coroutine was cancelled."""


class JobTimeout(SageError, TimeoutError):
    """The job ran longer than its `timeout` and was stopped."""


class WorkerError(SageError, RuntimeError):
    """A worker process, or an actor on Ray, ended while it was needed."""


class ClusterError(SageError, RuntimeError):
    """The Ray cluster cannot be reached, cannot give what is asked for, or is lost."""


class RemoteError(SageError):
    """An exception of another process whose type cannot be rebuilt in this one.

    `type_name` is the type's name, `text` what the exception says, `remote_traceback` its traceback there.
    """

    def __init__(self, type_name: str, text: str = "", remote_traceback: str = "") -> None:
        super().__init__(type_name, text, remote_traceback)
        self.type_name = type_name
        self.text = text
        self.remote_traceback = remote_traceback

    def __reduce__(self) -> tuple[type[RemoteError], tuple[str, str, str]]:
        return type(self), (self.type_name, self.text, self.remote_traceback)

    def __str__(self) -> str:
        return f"{self.type_name}: {self.text}" if self.text else self.type_name


class ServerError(SageError, RuntimeError):
    """A JobManager server cannot do what is asked, and says why."""


class ServerUnreachableError(ServerError, ConnectionError):
    """No JobManager server answers at that address."""


class ServerBusyError(ServerError, OSError):
    """The server lacks what it needs of its machine: its port is taken, or its disk is full."""


class AccessError(ServerError, PermissionError):
    """The server was given a wrong token, or none."""


class ProtocolError(ServerError, ValueError):
    """The other side of a connection says what this version does not understand."""


class ServiceError(SageError, RuntimeError):
    """Base of what can go wrong with a service."""


class ServiceNotFoundError(ServiceError, LookupError):
    """No service of that name is registered."""


class ServiceMethodError(ServiceError, AttributeError):
    """The service has no such method."""


class ServiceTimeout(ServiceError, TimeoutError):
    """A call of a service took longer than its `timeout`; the call itself may still be running."""


class ServiceStoppedError(ServiceError):
    """The service is not running: it was called before its start or after its stop."""


class ServiceDiedError(ServiceError):
    """The actor of a service has died. Whether the call had an effect before is not known."""
