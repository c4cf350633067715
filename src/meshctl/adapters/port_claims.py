"""Which ports the other meshes of this user were given, so that two that start at the same time never meet.  I/O.

A port is chosen a moment before it is listened on, and stays a service's own while its process is down; so whether
somebody listens on it says too little.  Each mesh writes the ports that it was given into its runtime folder, which
``down`` removes, and chooses while it holds a lock that all share.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from meshctl.errors import MeshctlError

_FILE = "ports.json"


class PortClaims:
    """The claims of one mesh; ``runtime`` is its runtime folder, which stands beside those of the other meshes."""

    def __init__(self, runtime: str) -> None:
        self._own = Path(runtime)

    @contextmanager
    def choosing(self) -> Iterator[frozenset[int]]:
        """Keep other meshes from choosing meanwhile; yields the ports that they have. Raises MeshctlError."""
        lock = self._own.parent / "ports.lock"
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MeshctlError(f"{lock} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield self._read_others()
        finally:
            os.close(descriptor)

    def hold(self, ports: Iterable[int]) -> None:
        """Say which ports this mesh has from now on. Raises MeshctlError."""
        file = self._own / _FILE
        draft = file.with_suffix(".tmp")
        try:
            draft.write_text(json.dumps(sorted(ports)), encoding="ascii")
            draft.replace(file)
        except OSError as error:
            raise MeshctlError(
                f"{file} cannot be written: {error.strerror}",
                hint="make room, or set XDG_RUNTIME_DIR to another folder",
            ) from error

    def _read_others(self) -> frozenset[int]:
        taken: set[int] = set()
        for file in self._own.parent.glob(f"*/{_FILE}"):
            if file.parent == self._own:
                continue
            try:
                found = json.loads(file.read_text(encoding="ascii"))
            except (OSError, ValueError):  # it went down meanwhile, or the machine did while it wrote
                continue
            if isinstance(found, list):
                taken.update(port for port in found if isinstance(port, int))
        return frozenset(taken)
