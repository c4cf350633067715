"""The state of one mesh in a SQLite database.  I/O; implements ports.StateStore.

Enters and leaves: frozen values.  Each method is one transaction.

The journal is a write-ahead log (https://www.sqlite.org/wal.html): killing the control plane at any instant loses
nothing that was committed.  ``synchronous`` is NORMAL, not FULL: only the whole machine going down can then undo the
last commits, together, never in part; and the sidecars that those commits were pushed to went down with it, so that
the state still fits them (Invariant 6).  In return a commit costs microseconds and may be made in the event loop.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from meshctl.adapters.private_files import mend_file, open_private_directory
from meshctl.errors import ConflictError, MeshctlError
from meshctl.ports import (
    KEPT_ENTRIES,
    KEPT_EVENTS,
    KEPT_REVISIONS,
    KEPT_ROLLOUTS,
    FaultRecord,
    InstanceRecord,
    Registration,
    Revision,
    RolloutStore,
    StateStore,
    TopologySource,
)

T = TypeVar("T")

BUSY_TIMEOUT_MS = 2000
"""How long a commit waits for somebody else who holds the database; no two control planes share one."""


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE documents (name TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID")
    connection.execute("CREATE TABLE instances (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID")


def _add_revisions(connection: sqlite3.Connection) -> None:
    # A content is the whole of the policies, compressed: most of it is the same from one to the next.
    connection.execute("CREATE TABLE revisions (number INTEGER PRIMARY KEY, head BLOB NOT NULL, content BLOB NOT NULL)")


def _add_events(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE events (number INTEGER PRIMARY KEY, body BLOB NOT NULL)")


def _add_rollouts(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE rollouts (number INTEGER PRIMARY KEY, body TEXT NOT NULL)")
    connection.execute(
        "CREATE TABLE rollout_entries (rollout INTEGER NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL,"
        " PRIMARY KEY (rollout, number)) WITHOUT ROWID"
    )


def _add_faults(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE faults (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    _create_tables,
    _add_revisions,
    _add_events,
    _add_rollouts,
    _add_faults,
)
"""Migration n takes a database from version n to n + 1; the version is SQLite's ``user_version``. A change of what
is stored as JSON (see ports) that old JSON does not fit needs one, or old databases count as damaged."""

_FAULT_NUMBER = "fault number"

_DOCUMENTS: Mapping[str, type] = {
    "topology": TopologySource,
    "ports": dict[str, int],
    "scales": dict[str, int],
    "registrations": tuple[Registration, ...],
    "selection": tuple[str, ...],
    _FAULT_NUMBER: int,
}

_RECORDS: tuple[tuple[str, type], ...] = (
    ("SELECT body FROM instances", InstanceRecord),
    ("SELECT body FROM faults", FaultRecord),
)

_SIDE_FILES = ("-wal", "-shm", "-journal")


class SqliteStore(StateStore, RolloutStore):
    """The store in the database at ``path`` (absolute), used from the thread that made it.

    A database that is damaged, or holds what cannot be read, is moved aside and a new one is made: ``recovered`` then
    says so in a sentence, and is empty otherwise.

    Raises:
        ConflictError: another process holds the database.
        MeshctlError: it was written by a newer meshctl, or it cannot be opened or stored.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.recovered = ""
        open_private_directory(self._path.parent)
        try:
            self._connection = self._open()
        except _DamagedError:
            aside = self._move_aside()
            self.recovered = f"the state in {self._path} was damaged: it was moved to {aside}, and begins anew"
            self._connection = self._open()

    def close(self) -> None:
        """Let go of the database; what was committed is in it."""
        self._connection.close()

    # ------------------------------------------------------------------------------------------ documents

    def commit(
        self,
        *,
        topology: TopologySource | None = None,
        ports: Mapping[str, int] | None = None,
        scales: Mapping[str, int] | None = None,
        registrations: tuple[Registration, ...] | None = None,
        selection: tuple[str, ...] | None = None,
        revision: Revision | None = None,
        content: str = "",
        settled: tuple[Revision, ...] = (),
    ) -> None:
        """Replace what is given, all of it or nothing; what is None stays as it is."""
        given = {
            "topology": topology,
            "ports": None if ports is None else dict(ports),
            "scales": None if scales is None else dict(scales),
            "registrations": None if registrations is None else sorted(registrations, key=lambda item: item.id),
            "selection": selection,
        }
        rows = [(name, msgspec.json.encode(value)) for name, value in given.items() if value is not None]
        with self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO documents (name, body) VALUES (?, ?)", rows)
            self._put_revisions(revision, content, settled)

    def _put_revisions(self, revision: Revision | None, content: str, settled: tuple[Revision, ...]) -> None:
        for item in settled:
            head = msgspec.json.encode(item)
            self._connection.execute("UPDATE revisions SET head = ? WHERE number = ?", (head, item.number))
        if revision is not None:
            values = (revision.number, msgspec.json.encode(revision), zlib.compress(content.encode()))
            self._connection.execute("INSERT INTO revisions (number, head, content) VALUES (?, ?, ?)", values)
            oldest = revision.number - KEPT_REVISIONS
            self._connection.execute("DELETE FROM revisions WHERE number <= ?", (oldest,))

    # ------------------------------------------------------------------------------------------ events

    def put_event(self, number: int, body: bytes) -> None:
        """Keep an event, and forget those that are KEPT_EVENTS older."""
        with self._explained():
            self._connection.execute("INSERT OR REPLACE INTO events (number, body) VALUES (?, ?)", (number, body))
            self._connection.execute("DELETE FROM events WHERE number <= ?", (number - KEPT_EVENTS,))

    def events(self) -> tuple[bytes, ...]:
        """The events that are kept, oldest first."""
        with self._explained():
            return tuple(row[0] for row in self._connection.execute("SELECT body FROM events ORDER BY number"))

    # ------------------------------------------------------------------------------------------ parts

    def topology(self) -> TopologySource | None:
        """The topology last applied."""
        return self._get("topology", TopologySource)

    def ports(self) -> Mapping[str, int]:
        """Ports assigned so far, by key."""
        return self._get("ports", dict[str, int]) or {}

    def scales(self) -> Mapping[str, int]:
        """Replica counts set by command, by ``service/version``."""
        return self._get("scales", dict[str, int]) or {}

    def registrations(self) -> tuple[Registration, ...]:
        """Registered instances, by id."""
        return self._get("registrations", tuple[Registration, ...]) or ()

    def selection(self) -> tuple[str, ...]:
        """The services asked for; empty means all."""
        return self._get("selection", tuple[str, ...]) or ()

    # ------------------------------------------------------------------------------------------ revisions

    def revisions(self) -> tuple[Revision, ...]:
        """The revisions that are kept, oldest first."""
        with self._explained():
            rows = self._connection.execute("SELECT head FROM revisions ORDER BY number").fetchall()
        return tuple(self._decode(head, Revision) for (head,) in rows)

    def revision_content(self, number: int) -> str | None:
        """The content of a revision; None for one that is not kept."""
        with self._explained():
            row = self._connection.execute("SELECT content FROM revisions WHERE number = ?", (number,)).fetchone()
        try:
            return None if row is None else zlib.decompress(row[0]).decode()
        except (zlib.error, UnicodeDecodeError) as error:
            raise self._damaged() from error

    # ------------------------------------------------------------------------------------------ instances

    def instances(self) -> tuple[InstanceRecord, ...]:
        """What is remembered of instances, by id."""
        with self._explained():
            rows = self._connection.execute("SELECT body FROM instances ORDER BY id").fetchall()
        return tuple(self._decode(body, InstanceRecord) for (body,) in rows)

    def put_instance(self, record: InstanceRecord) -> None:
        """Remember an instance."""
        body = msgspec.json.encode(record)
        self._write("INSERT OR REPLACE INTO instances (id, body) VALUES (?, ?)", (record.id, body))

    def drop_instance(self, instance_id: str) -> None:
        """Forget an instance; one that is not remembered is no error."""
        self._write("DELETE FROM instances WHERE id = ?", (instance_id,))

    # ------------------------------------------------------------------------------------------ rollouts

    def put_rollout(self, number: int, body: str, entries: Mapping[int, str]) -> None:
        """Remember a rollout as it stands, with what came to it since, by number; what came before stays."""
        values = [(number, entry, text) for entry, text in entries.items()]
        with self._transaction():
            self._connection.execute("INSERT OR REPLACE INTO rollouts (number, body) VALUES (?, ?)", (number, body))
            self._connection.executemany("INSERT OR REPLACE INTO rollout_entries VALUES (?, ?, ?)", values)
            oldest = max(entries, default=0) - KEPT_ENTRIES
            statement = "DELETE FROM rollout_entries WHERE rollout = ? AND number <= ?"
            self._connection.execute(statement, (number, oldest))
            self._connection.execute("DELETE FROM rollouts WHERE number <= ?", (number - KEPT_ROLLOUTS,))
            self._connection.execute("DELETE FROM rollout_entries WHERE rollout <= ?", (number - KEPT_ROLLOUTS,))

    def rollouts(self) -> Mapping[int, str]:
        """The rollouts that are kept, by number, oldest first."""
        with self._explained():
            return dict(self._connection.execute("SELECT number, body FROM rollouts ORDER BY number").fetchall())

    def rollout_entries(self, number: int) -> Mapping[int, str]:
        """What came to a rollout, by number, oldest first; empty for one that is not kept."""
        statement = "SELECT number, body FROM rollout_entries WHERE rollout = ? ORDER BY number"
        with self._explained():
            return dict(self._connection.execute(statement, (number,)).fetchall())

    # ------------------------------------------------------------------------------------------ faults

    def number_fault(self) -> int:
        """A number that no fault had before, from 1."""
        number = (self._get(_FAULT_NUMBER, int) or 0) + 1
        body = msgspec.json.encode(number)
        self._write("INSERT OR REPLACE INTO documents (name, body) VALUES (?, ?)", (_FAULT_NUMBER, body))
        return number

    def faults(self) -> tuple[FaultRecord, ...]:
        """The faults that are on, or not wholly undone, by id."""
        with self._explained():
            rows = self._connection.execute("SELECT body FROM faults ORDER BY id").fetchall()
        return tuple(self._decode(body, FaultRecord) for (body,) in rows)

    def put_fault(self, record: FaultRecord) -> None:
        """Remember a fault."""
        body = msgspec.json.encode(record)
        self._write("INSERT OR REPLACE INTO faults (id, body) VALUES (?, ?)", (record.id, body))

    def drop_fault(self, fault_id: str) -> None:
        """Forget a fault; one that is not remembered is no error."""
        self._write("DELETE FROM faults WHERE id = ?", (fault_id,))

    # ------------------------------------------------------------------------------------------ transactions

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except sqlite3.Error:
                # Some errors (a full disk) have ended the transaction already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _get(self, name: str, kind: type[T]) -> T | None:
        with self._explained():
            row = self._connection.execute("SELECT body FROM documents WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._decode(row[0], kind)

    def _write(self, statement: str, values: tuple[object, ...]) -> None:
        # Without an open transaction each statement is one (autocommit).
        with self._explained():
            self._connection.execute(statement, values)

    def _decode(self, body: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.DecodeError as error:
            raise self._damaged() from error

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._explain(error) from error

    def _explain(self, error: sqlite3.Error) -> MeshctlError:
        # The low byte is the primary code: https://www.sqlite.org/rescode.html
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return ConflictError(
                f"the state in {self._path} is held by another process",
                hint=f"close what has it open (see: lsof {self._path}), then try again",
            )
        if code == sqlite3.SQLITE_FULL:
            return MeshctlError(
                f"the state cannot be stored in {self._path}: the disk is full",
                hint="free some space, then try again; nothing was changed",
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self._damaged()
        return MeshctlError(
            f"the state in {self._path} cannot be used: {error}",
            hint=f"make sure that you may read and write {self._path.parent}",
        )

    def _damaged(self) -> MeshctlError:
        return MeshctlError(
            f"the state in {self._path} is damaged",
            hint="run meshctl up: it moves the file aside and begins anew; services that run are not touched by that",
        )

    # ------------------------------------------------------------------------------------------ opening

    def _open(self) -> sqlite3.Connection:
        """Raises _DamagedError, or MeshctlError."""
        self._make_private()
        with self._explained():
            connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            self._migrate(connection)
            self._check(connection)
        except sqlite3.Error as error:
            connection.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise _DamagedError from error
            raise self._explain(error) from error
        except (MeshctlError, _DamagedError):
            connection.close()
            raise
        return connection

    def _make_private(self) -> None:
        # SQLite gives its side files the permissions of the database, which therefore has to have them first.
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            mend_file(self._path)
        except OSError as error:
            raise MeshctlError(
                f"the state in {self._path} cannot be used: {error.strerror}",
                hint=f"make sure that you may read and write {self._path.parent}",
            ) from error

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise MeshctlError(
                f"the state in {self._path} was written by a newer version of meshctl",
                hint=f"use that version, or move the file away to begin anew: {self._path}",
            )
        for number in range(version, len(MIGRATIONS)):
            connection.execute("BEGIN IMMEDIATE")
            MIGRATIONS[number](connection)
            connection.execute(f"PRAGMA user_version = {number + 1}")
            connection.execute("COMMIT")

    def _check(self, connection: sqlite3.Connection) -> None:
        """Read everything once: the database is small, and damage is best met before anything relies on it."""
        findings = connection.execute("PRAGMA quick_check").fetchall()
        if findings != [("ok",)]:
            raise _DamagedError
        try:
            _read_all(connection)
        except (msgspec.DecodeError, zlib.error, UnicodeDecodeError, TypeError) as error:
            raise _DamagedError from error
        except sqlite3.OperationalError as error:
            # Its version promises tables that it does not have.
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
                raise _DamagedError from error
            raise

    def _move_aside(self) -> Path:
        number = 1
        while (aside := self._path.with_name(f"{self._path.name}.corrupt-{number}")).exists():
            number += 1
        try:
            # First the side files: a log that stayed alone would be applied to the new database.
            for ending in (*_SIDE_FILES, ""):
                file = self._path.with_name(f"{self._path.name}{ending}")
                if file.exists():
                    file.rename(aside.with_name(f"{aside.name}{ending}"))
        except OSError as error:
            raise MeshctlError(
                f"the state in {self._path} is damaged and cannot be moved aside: {error.strerror}",
                hint=f"remove it: {self._path}",
            ) from error
        return aside


class _DamagedError(Exception):
    """The database cannot be read, or what is in it cannot."""


def _read_all(connection: sqlite3.Connection) -> None:
    for name, body in connection.execute("SELECT name, body FROM documents"):
        if name in _DOCUMENTS:
            msgspec.json.decode(body, type=_DOCUMENTS[name])
    for statement, kind in _RECORDS:
        for (body,) in connection.execute(statement):
            msgspec.json.decode(body, type=kind)
    for head, content in connection.execute("SELECT head, content FROM revisions"):
        msgspec.json.decode(head, type=Revision)
        zlib.decompress(content).decode()
    for (text,) in connection.execute("SELECT body FROM rollouts"):
        msgspec.json.decode(text)
