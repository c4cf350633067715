"""The client's calls about traces.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from urllib.parse import quote

from meshctl.client.policies import QUICK, Ask
from meshctl.wire.traces import Trace, TraceList, TraceQuery


class TraceClient:
    """The traces of one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def list(self, query: TraceQuery) -> TraceList:
        """The newest traces that fit."""
        asked = {"limit": str(query.limit), "minimum_ms": f"{query.minimum_ms:g}"}
        asked |= {name: "true" for name, is_set in (("error", query.error), ("slow", query.slow)) if is_set}
        if query.service:
            asked["service"] = query.service
        if query.since is not None:
            asked["since"] = f"{query.since:.3f}"
        return await self._ask("GET", "/traces", TraceList, query=asked, timeout=QUICK)

    async def get(self, trace_id: str) -> Trace:
        """One trace, by the beginning of its id. Raises NotFoundError, or UsageError when several begin so."""
        return await self._ask("GET", f"/traces/{quote(trace_id, safe='')}", Trace, timeout=QUICK)
