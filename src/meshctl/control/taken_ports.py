"""Listeners that a sidecar could not open because another process took the port meanwhile.  I/O (asyncio).

A port is free when it is assigned, and bound a moment later: somebody can come between.  Envoy then refuses the
listener; here that is told with the name of the process that holds the port, and the listener is sent once more as
soon as the port is free again.  The port is not exchanged for another one: the services know it from their environment.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable

from meshctl.ads.status import SyncStatus
from meshctl.control.topology import PortProbe

_BIND_ERROR = re.compile(r"cannot bind '(?P<host>[^' ]*):(?P<port>\d+)'")
# Envoy's words: "error adding listener 'outbound': cannot bind '127.0.0.1:20005': Address already in use".

_INTERVAL = 1.0


def find_bind_errors(status: SyncStatus) -> tuple[tuple[str, int], ...]:
    """The addresses (host, port) that a sidecar could not listen on, as it says itself."""
    if status.state != "rejected":
        return ()
    found = (match for item in status.types for match in _BIND_ERROR.finditer(item.error))
    return tuple(sorted({(match["host"].strip("[]"), int(match["port"])) for match in found}))


class TakenPorts:
    """Watches for listeners that could not be opened.

    Args:
        nodes: the sidecars that run now.
        sync: the status of one.
        probe: asks for ports.
        retry: sends a sidecar once more what it refused.
        report: takes (subject, message) for the event log.
        wait: sleeps so many seconds.
    """

    def __init__(
        self,
        *,
        nodes: Callable[[], Iterable[str]],
        sync: Callable[[str], SyncStatus],
        probe: PortProbe,
        retry: Callable[[str], None],
        report: Callable[[str, str], None],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._nodes = nodes
        self._sync = sync
        self._probe = probe
        self._retry = retry
        self._report = report
        self._wait = wait
        self._told: dict[str, tuple[tuple[str, int], ...]] = {}

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self.look()
            await self._wait(_INTERVAL)

    def look(self) -> None:
        """Tell of what is new, and try again what may succeed now."""
        told: dict[str, tuple[tuple[str, int], ...]] = {}
        for node in self._nodes():
            taken = find_bind_errors(self._sync(node))
            if not taken:
                continue
            told[node] = taken
            if self._told.get(node) != taken:
                reasons = "; ".join(self._probe.explain(host, port) or f"port {port} was taken" for host, port in taken)
                self._report(node, f"the sidecar of {node} cannot listen: {reasons}")
            if any(self._probe.is_free(host, port) for host, port in taken):
                self._retry(node)
        self._told = told
