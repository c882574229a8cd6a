"""What a server remembers of its jobs, in SQLite: it survives the server, however that ends."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec

from sage_nb.errors import ServerBusyError

__all__ = ["Entry", "History"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    environment TEXT NOT NULL,
    status TEXT NOT NULL,
    backend TEXT NOT NULL,
    autostop INTEGER NOT NULL,
    begins_anew INTEGER NOT NULL,
    owner TEXT,
    owner_timeout REAL NOT NULL,
    folder TEXT NOT NULL,
    machine TEXT NOT NULL,
    submitted REAL NOT NULL,
    started REAL,
    stopped REAL,
    last_update REAL NOT NULL,
    restart_count INTEGER NOT NULL DEFAULT 0,
    error TEXT,
    note TEXT,
    runner TEXT,
    snapshot BLOB
);
CREATE TABLE IF NOT EXISTS states (
    job INTEGER NOT NULL REFERENCES jobs (number) ON DELETE CASCADE,
    time REAL NOT NULL,
    attempt INTEGER NOT NULL,
    status TEXT NOT NULL,
    error TEXT
);
CREATE INDEX IF NOT EXISTS states_by_job ON states (job);
"""
_VERSION = 1


class Entry(msgspec.Struct, kw_only=True):
    """The record of one job. Times are seconds since the epoch."""

    uuid: str
    name: str
    environment: str
    status: str = "queued"
    backend: str = "threads"
    autostop: bool = False
    begins_anew: bool = False
    owner: str | None = None
    owner_timeout: float = 60.0
    folder: str = ""
    machine: str = ""
    number: int = 0
    """In the order of submission, from 1; for people to type."""
    submitted: float = 0.0
    started: float | None = None
    stopped: float | None = None
    last_update: float = 0.0
    restart_count: int = 0
    error: str | None = None
    note: str | None = None
    runner: str | None = None
    """The process that runs it: its id, and when it began, by which a later one of the same id is told apart."""
    snapshot: bytes | None = None


_FIELDS = [name for name in Entry.__struct_fields__ if name != "number"]
_INSERT = f"INSERT INTO jobs ({', '.join(_FIELDS)}) VALUES ({', '.join('?' * len(_FIELDS))})"
_UPDATE = f"UPDATE jobs SET {', '.join(f'{name} = ?' for name in _FIELDS)} WHERE uuid = ?"


class History:
    """The jobs of one server, in a file of their own. One thread at a time may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite would let others read it
        except OSError as exc:
            raise self._cannot(exc) from exc
        try:
            self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        except sqlite3.Error as exc:
            raise self._cannot(exc) from exc
        try:
            self._begin()
        except sqlite3.Error as exc:
            self._db.close()
            raise self._cannot(exc) from exc
        except BaseException:
            self._db.close()
            raise

    def _begin(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise ServerBusyError(
                f"{self._path} was written by a newer version of sage_nb; use that one, or another --state folder"
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._db.executescript(_SCHEMA)
        self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def add(self, entry: Entry) -> Entry:
        """Remember a job. It has its number from then on."""
        with self._transaction():
            cursor = self._db.execute(_INSERT, _row(entry))
            entry.number = cursor.lastrowid or 0
            self._state(entry)
        return entry

    def update(self, entry: Entry) -> None:
        """Remember what has become of a job; a new state is kept beside those before."""
        with self._transaction():
            known = self._db.execute("SELECT status, restart_count FROM jobs WHERE uuid = ?", (entry.uuid,)).fetchone()
            self._db.execute(_UPDATE, (*_row(entry), entry.uuid))
            if known is not None and known != (entry.status, entry.restart_count):
                self._state(entry)

    def forget(self, uuid: str) -> None:
        """Forget a job."""
        with self._transaction():
            self._db.execute("DELETE FROM jobs WHERE uuid = ?", (uuid,))

    def probe(self) -> None:
        """Write what changes nothing. Raises `ServerBusyError` where that cannot be done."""
        with self._transaction():
            self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def all(self) -> list[Entry]:
        """Every job, in the order of submission."""
        rows = self._db.execute(f"SELECT number, {', '.join(_FIELDS)} FROM jobs ORDER BY number").fetchall()
        found = []
        for number, *values in rows:
            given: dict[str, Any] = dict(zip(_FIELDS, values, strict=True))
            found.append(
                Entry(
                    **{**given, "autostop": bool(given["autostop"]), "begins_anew": bool(given["begins_anew"])},
                    number=number,
                )
            )
        return found

    def states(self, number: int) -> list[tuple[float, int, str, str | None]]:
        """The states that a job went through: when, in which attempt, which, and why it failed."""
        rows: list[tuple[float, int, str, str | None]] = self._db.execute(
            "SELECT time, attempt, status, error FROM states WHERE job = ? ORDER BY rowid", (number,)
        ).fetchall()
        return rows

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _state(self, entry: Entry) -> None:
        self._db.execute(
            "INSERT INTO states VALUES (?, ?, ?, ?, ?)",
            (entry.number, time.time(), entry.restart_count + 1, entry.status, entry.error),
        )

    def _transaction(self) -> _Transaction:
        return _Transaction(self)

    def _cannot(self, exc: Exception) -> ServerBusyError:
        return ServerBusyError(f"the server's history {self._path} cannot be written: {exc}; is the disk full?")


class _Transaction:
    """All or nothing; SQLite's errors as ours."""

    def __init__(self, history: History) -> None:
        self._history = history

    def __enter__(self) -> None:
        try:
            self._history._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as exc:
            raise self._history._cannot(exc) from exc

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _tb: object) -> None:
        db = self._history._db
        try:
            db.execute("COMMIT" if exc is None else "ROLLBACK")
        except sqlite3.Error as other:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise self._history._cannot(other) from other
        if isinstance(exc, sqlite3.Error):
            raise self._history._cannot(exc) from exc


def _row(entry: Entry) -> tuple[Any, ...]:
    return tuple(getattr(entry, name) for name in _FIELDS)
