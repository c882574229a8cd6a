"""A job's log: the last lines, and how many there were.

Its loggers hang below the logger `sage_nb` of the standard library without being registered there, so that a
handler the user has set up sees the records, nothing is set up for them, and nothing outlives the job.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass

__all__ = ["JobLog", "LogLine"]

_WIDTH = 10_000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line: `time` in seconds since the epoch, the level's name, who said it, and the text."""

    time: float
    level: str
    source: str
    text: str

    def __str__(self) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(self.time))
        return f"{clock} {self.level:<7} {self.source}: {self.text}"


class JobLog(logging.Handler):
    """Keeps the last `size` lines of one job."""

    def __init__(self, size: int = 10_000) -> None:
        self.lock: threading.RLock | None = threading.RLock()
        # Handler.__init__ is left out on purpose: it enters the handler in logging's global list, and 1,000 jobs
        # would leave 1,000 entries until each is collected.
        self.filters: list[logging.Filter] = []  # type: ignore[assignment]
        self.level = logging.NOTSET
        self.formatter = None
        self._name = None
        self.lines: deque[LogLine] = deque(maxlen=size)
        self.total = 0

    def logger(self, source: str) -> logging.Logger:
        """A logger for `source`, at level INFO."""
        logger = logging.Logger(source, logging.INFO)
        logger.parent = logging.getLogger("sage_nb")
        logger.addHandler(self)
        return logger

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception as exc:  # noqa: BLE001 - as in logging itself, a slip in a log line does not stop the program
            text = f"{record.msg!r} does not fit its arguments {record.args!r}: {exc}"
        if record.exc_info:
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        self.say(record.name, text, record.levelname)

    def say(self, source: str, text: str, level: str = "INFO") -> None:
        """Add a line."""
        text = text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
        assert self.lock is not None
        with self.lock:
            self.total += 1
            self.lines.append(LogLine(time.time(), level, source, text))
