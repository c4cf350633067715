"""Configuration that sidecars refuse, told as events: once when it begins, once when it is over.  Pure but for events.

Enters: the status of a sidecar whenever it changes.  Leaves: events. A listener whose port another process took has
words of its own (``taken_ports``) and is left to these.
"""

from __future__ import annotations

from meshctl.ads.status import SyncStatus
from meshctl.control.events import EventLog
from meshctl.control.taken_ports import find_bind_errors


class Rejections:
    """Tells of sidecars that refuse something, and of those that do no longer."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._told: dict[str, str] = {}

    def take(self, node: str, status: SyncStatus) -> None:
        """The status of a sidecar has changed."""
        told = self._told.get(node, "")
        if status.state == "rejected":
            if status.error != told and not find_bind_errors(status):
                self._told[node] = status.error
                self._events.add("sidecar.rejected", node, f"{node}: its sidecar refused {status.error}", "error")
        elif told and status.state == "synced":
            del self._told[node]
            self._events.add("sidecar.accepted", node, f"{node}: its sidecar has all of its configuration again")
