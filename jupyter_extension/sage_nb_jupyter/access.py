"""Who may do what: whom Jupyter's authorizer lets read or execute `jobs`, say. It is asked after the login."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar, cast

from jupyter_server.auth.decorator import authorized

__all__ = ["may"]

_Method = TypeVar("_Method", bound=Callable[..., Any])


def may(action: Literal["read", "write", "execute"], resource: str = "jobs") -> Callable[[_Method], _Method]:
    """For a handler's method: refuse it with 403 to those who may not."""
    return cast(Callable[[_Method], _Method], authorized(action, resource))
