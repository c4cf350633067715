"""A small database of one service, shared by all of its instances: a SQLite file.

The file is `$<SERVICE>_DB`, or `.meshctl/data/<service>.db` under the working folder.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from time import monotonic, sleep

WAIT = 5.0
"""Seconds to wait for another instance that is writing."""


class Database:
    """One connection, used by one thread at a time; instances keep out of each other's way by SQLite's own lock."""

    def __init__(self, service: str, *tables: str) -> None:
        path = Path(os.environ.get(f"{service.upper()}_DB") or f".meshctl/data/{service}.db")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = Lock()
        self._connection = sqlite3.connect(path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._use_log(monotonic() + WAIT)
        with self.writing() as connection:
            for table in tables:
                connection.execute(f"CREATE TABLE IF NOT EXISTS {table}")

    def _use_log(self, deadline: float) -> None:
        """With a write-ahead log readers need not wait for writers, and a commit survives the death of the process."""
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = NORMAL")
            except sqlite3.OperationalError:  # SQLite does not wait here when another instance does the same
                if monotonic() > deadline:
                    raise
                sleep(0.01)
            else:
                return

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that no other thread or instance writes beside; undone when the block raises."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def read(self, query: str, *arguments: object) -> list[sqlite3.Row]:
        """The rows of a query."""
        with self._lock:
            return self._connection.execute(query, arguments).fetchall()
