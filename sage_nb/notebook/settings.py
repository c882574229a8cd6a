"""What a person can set for the views of one kernel: `%config SageMagics` shows and changes it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings", "settings"]


@dataclass
class Settings:
    """How views behave; those that are made later take what is set."""

    notify_after: float | None = 30.0
    """Seconds that a job must have taken for its end to be told to a reader who is elsewhere; None: never."""


settings = Settings()
