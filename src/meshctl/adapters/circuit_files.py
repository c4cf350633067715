"""The files in which sidecars keep the state of their circuit breakers.  I/O; implements ports.CircuitFiles.

They are mapped into the memory of their sidecars (envoy.circuit_layout); reading one sees what is there at that moment.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from meshctl.ports import CircuitFiles


class MappedCircuitFiles(CircuitFiles):
    """Those on this machine."""

    def read(self, path: str, size: int) -> bytes:
        """The first bytes of a file; none when there is no such file (its sidecar has had no request yet)."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)

    def clock(self) -> float:
        """The clock of the sidecars, in seconds."""
        return time.clock_gettime(time.CLOCK_MONOTONIC)

    @staticmethod
    def clear(folder: str) -> None:
        """Forget what sidecars of an earlier run have left: a mesh that is started begins with closed circuits."""
        for path in Path(folder).glob("*.circuits-*"):
            with suppress(OSError):
                path.unlink()
