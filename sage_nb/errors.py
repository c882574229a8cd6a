"""Every exception that sage_nb itself raises.

    SageError
    ├── PipelineError          (ValueError)      a pipeline that cannot run as it is declared
    │   ├── SignatureError     (TypeError)       a callable or class that does not fit its operator
    │   └── DuplicateNameError                   a name given twice
    ├── SubmitError            (RuntimeError)    a pipeline that cannot be submitted now
    ├── JobNotFoundError       (LookupError)     no job, or more than one, goes by that id
    ├── JobStateError          (RuntimeError)    the job's state does not allow this
    ├── JobTimeout             (TimeoutError)    the job ran longer than its `timeout`
    └── ServiceError           (RuntimeError)
        ├── ServiceNotFoundError  (LookupError)
        ├── ServiceMethodError    (AttributeError)
        ├── ServiceTimeout        (TimeoutError)
        └── ServiceStoppedError

A failure in the user's own code is never wrapped: it keeps its type, and notes say which operator, item and
line it came from.
"""

from __future__ import annotations

__all__ = [
    "DuplicateNameError",
    "JobNotFoundError",
    "JobStateError",
    "JobTimeout",
    "PipelineError",
    "SageError",
    "ServiceError",
    "ServiceMethodError",
    "ServiceNotFoundError",
    "ServiceStoppedError",
    "ServiceTimeout",
    "SignatureError",
    "SubmitError",
]


class SageError(Exception):
    """Base of all errors that sage_nb raises itself."""

    def __str__(self) -> str:  # KeyError's quotes would come in by way of LookupError's subclasses
        return " ".join(str(arg) for arg in self.args)


class PipelineError(SageError, ValueError):
    """A pipeline that cannot run as it is declared."""


class SignatureError(PipelineError, TypeError):
    """A callable or class that does not fit the operator it was given to."""


class DuplicateNameError(PipelineError):
    """A name was given to two things."""


class SubmitError(SageError, RuntimeError):
    """The environment cannot be submitted now."""


class JobNotFoundError(SageError, LookupError):
    """No job, or more than one, goes by that id."""


class JobStateError(SageError, RuntimeError):
    """The job's state does not allow what was asked."""


class JobTimeout(SageError, TimeoutError):
    """The job ran longer than its `timeout` and was stopped."""


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
