"""The client's calls about the golden signals.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from meshctl.client.policies import QUICK, Ask
from meshctl.wire import metrics, models


class Stream(Protocol):
    """How a client asks for a stream."""

    def __call__(self, path: str, kind: type[models.S], query: list[tuple[str, str]]) -> AsyncIterator[models.S]:
        """The items of a stream as shapes."""
        ...


class MetricsClient:
    """The golden signals of one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, ask: Ask, stream: Stream) -> None:
        self._ask = ask
        self._stream = stream

    async def get(
        self,
        service: str = "",
        version: str = "",
        window: float = 10.0,
        *,
        until: float | None = None,
        buckets: bool = False,
    ) -> metrics.Metrics:
        """The golden signals of a window of so many seconds that ends ``until``, or now."""
        query = _name(service, version) | {"window": f"{window:g}", "buckets": "true" if buckets else "false"}
        if until is not None:
            query["until"] = f"{until:.3f}"
        return await self._ask("GET", "/metrics", metrics.Metrics, query=query, timeout=QUICK)

    def stream(
        self, service: str = "", version: str = "", window: float = 10.0, interval: float = 1.0
    ) -> AsyncIterator[metrics.Metrics]:
        """The golden signals every ``interval`` seconds, until the control plane ends."""
        query = _name(service, version) | {"window": f"{window:g}", "interval": f"{interval:g}"}
        return self._stream("/metrics/stream", metrics.Metrics, list(query.items()))

    async def history(self, service: str = "", *, window: float = 60.0, step: float = 1.0) -> metrics.History:
        """Figures of each edge and version in steps of so many whole seconds."""
        query = _name(service, "") | {"window": f"{window:g}", "step": f"{step:g}"}
        return await self._ask("GET", "/metrics/history", metrics.History, query=query, timeout=QUICK)


def _name(service: str, version: str) -> dict[str, str]:
    return {name: value for name, value in (("service", service), ("version", version)) if value}
