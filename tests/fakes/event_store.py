"""Events in memory. Passes the same contract as the real store (tests/contracts/test_event_store.py)."""

from __future__ import annotations

from meshctl.errors import MeshctlError
from meshctl.ports import KEPT_EVENTS, EventStore


class FakeEventStore(EventStore):
    """Implements ports.EventStore. ``full`` makes it refuse to keep anything more."""

    def __init__(self) -> None:
        self.bodies: dict[int, bytes] = {}
        self.full = False

    def put_event(self, number: int, body: bytes) -> None:
        if self.full:
            raise MeshctlError("no room")
        self.bodies[number] = body
        self.bodies.pop(number - KEPT_EVENTS, None)

    def events(self) -> tuple[bytes, ...]:
        return tuple(body for _, body in sorted(self.bodies.items()))
