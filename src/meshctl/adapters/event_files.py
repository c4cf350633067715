"""The events that a mesh left in its database, for when it does not run.  I/O."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote


def read_events(database: str) -> tuple[bytes, ...]:
    """The events that are kept, oldest first; none when there is no database, or one that cannot be read.

    Nothing is changed: not even a database of an earlier version is brought up to date.
    """
    if not Path(database).exists():
        return ()
    try:
        with closing(sqlite3.connect(f"file:{quote(database)}?mode=ro", uri=True)) as connection:
            return tuple(row[0] for row in connection.execute("SELECT body FROM events ORDER BY number"))
    except sqlite3.Error:
        return ()
