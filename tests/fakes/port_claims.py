"""What other meshes have, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class FakeClaims:
    """``others`` are the ports of other meshes; ``held`` those of this one."""

    def __init__(self) -> None:
        self.others: set[int] = set()
        self.held: tuple[int, ...] = ()

    @contextmanager
    def choosing(self) -> Iterator[frozenset[int]]:
        """Yield what others have."""
        yield frozenset(self.others)

    def hold(self, ports: Iterable[int]) -> None:
        """Remember what this mesh has."""
        self.held = tuple(sorted(ports))
