"""What the keeper must not forget when it is killed: one small JSON file and two FIFOs per process.  I/O.

Enters: records.  Leaves: ``<name>.<token>.json`` written atomically, ``<name>.<token>.stdout`` and ``.stderr``.
Standard library only: the keeper imports this module.

Invariant: a process is recorded before anybody is told of it, and an exit before anybody is told of that.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from typing import NamedTuple

from meshctl.wire.loglines import Stream

STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,179}")
_TOKEN = re.compile(r"[0-9a-f]{8,32}")


class Record(NamedTuple):
    """One process, running or ended.

    ``token`` names the attempt to start it; ``birth`` is that of process_identity; ``exited`` with ``code`` None means
    that it ended while nobody was there to learn how; ``acked`` that a control plane has taken note of the exit.
    ``held`` is the share of its time that is taken from it until ``held_until`` (seconds since the epoch); 0 for none.
    """

    name: str
    token: str
    pid: int
    birth: str
    started_at: float
    log_path: str
    log_max_bytes: int
    log_keep: int
    exited: bool = False
    code: int | None = None
    acked: bool = False
    held: float = 0.0
    held_until: float = 0.0

    @property
    def stem(self) -> str:
        """The name of its files without the ending."""
        return f"{self.name}.{self.token}"


def is_name(text: str) -> bool:
    """True for a name that may be part of a file's name."""
    return _NAME.fullmatch(text) is not None


def is_token(text: str) -> bool:
    """True for a token as clients make them."""
    return _TOKEN.fullmatch(text) is not None


class Records:
    """The records in one folder, which must exist and belong to this keeper alone."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def load(self) -> list[Record]:
        """All records that can be read, by age; files that belong to none of them are removed."""
        records = []
        for file in sorted(os.listdir(self.directory)):
            if file.endswith(".json"):
                # A record that cannot be read was being written when the machine went down: nobody was told of it.
                with contextlib.suppress(OSError, ValueError, TypeError):
                    with open(f"{self.directory}/{file}", encoding="ascii") as stored:
                        record = Record(**json.load(stored))
                    records.append(record)
        kept = {f"{record.stem}.{ending}" for record in records for ending in ("json", *STREAMS)}
        for file in os.listdir(self.directory):
            if file.endswith((".json", ".tmp", ".stdout", ".stderr")) and file not in kept:
                self._unlink(file)
        return sorted(records, key=lambda record: record.started_at)

    def save(self, record: Record) -> None:
        """Write a record so that a reader finds the old one or the new one, whole. Raises OSError."""
        path = f"{self.directory}/{record.stem}"
        with open(os.open(f"{path}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            json.dump(record._asdict(), file)
        os.replace(f"{path}.tmp", f"{path}.json")

    def make_fifos(self, stem: str) -> tuple[str, str]:
        """Make the FIFOs of a process that is about to start. Raises OSError."""
        paths = self.fifos(stem)
        for path in paths:
            os.mkfifo(path, 0o600)
        return paths

    def fifos(self, stem: str) -> tuple[str, str]:
        """The paths of the FIFOs for its standard output and standard error."""
        return f"{self.directory}/{stem}.stdout", f"{self.directory}/{stem}.stderr"

    def drop(self, stem: str) -> None:
        """Remove a record and its FIFOs; what is not there is no error."""
        for ending in ("json", *STREAMS):
            self._unlink(f"{stem}.{ending}")

    def _unlink(self, file: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.directory}/{file}")
