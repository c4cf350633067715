"""The memory of sidecars' circuit breakers, as a test fills it."""

from __future__ import annotations

from meshctl.ports import CircuitFiles


class FakeCircuitFiles(CircuitFiles):
    """Files by path, and a clock that stands still."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.now = 1000.0

    def read(self, path: str, size: int) -> bytes:
        return self.files.get(path, b"")[:size]

    def clock(self) -> float:
        return self.now
