"""Lets the gateway finish what it is working on before it is stopped.  I/O (admin socket)."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

from meshctl.ports import Clock, ProxyAdmin

GATEWAY_DRAIN_TIMEOUT = 2.0
"""Seconds for requests that are under way when the mesh is taken down."""

_POLL = 0.02
_ACTIVE = re.compile(r"^http\.gateway\.downstream_rq_active: (\d+)$", re.MULTILINE)


async def drain_gateway(admin: ProxyAdmin, socket: str, clock: Clock) -> None:
    """Take no new connections, close those that are idle after their next answer, and wait for what is under way.

    Returns after GATEWAY_DRAIN_TIMEOUT at the latest, and at once when the gateway does not answer.
    """
    with suppress(OSError):
        # A failed health check makes Envoy say "connection: close" with every answer. Source:
        # https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/operations/draining
        await admin.post(socket, "/healthcheck/fail")
        await admin.post(socket, "/drain_listeners")
        deadline = clock.monotonic() + GATEWAY_DRAIN_TIMEOUT
        while clock.monotonic() < deadline and await _count_active(admin, socket) > 0:  # noqa: ASYNC110 - Envoy has no event for it
            await asyncio.sleep(_POLL)


async def _count_active(admin: ProxyAdmin, socket: str) -> int:
    found = _ACTIVE.search(await admin.get(socket, r"/stats?filter=^http\.gateway\.downstream_rq_active$"))
    return int(found[1]) if found else 0
