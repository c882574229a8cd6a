"""What a person can set for the views of one kernel: `%config SageMagics` shows and changes it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Settings", "settings"]


@dataclass
class Settings:
    """Times are in seconds."""

    notify_after: float | None = 30.0
    """How long a job has to run for its end to be told by a notification of the browser; None for never."""


settings = Settings()
