"""A control plane for ``meshctl top`` without processes: it gives the figures and failures it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tests.fakes.backend import T0, make_line, make_status

from meshctl.client.errors import DisconnectedError
from meshctl.errors import MeshctlError, NotRunningError
from meshctl.tui.reader import MeshReader
from meshctl.wire.metrics import Figures, History, Metrics, Point, ProcessUse, Row, Series, SidecarFigures
from meshctl.wire.models import LogLine, MeshStatus
from meshctl.wire.policies import PolicyList, PolicyOrigin, PolicyShape


def make_row(**changes: Any) -> Row:
    values: dict[str, Any] = {
        "requests": 250,
        "rate": 25.0,
        "success": 1.0,
        "p50_ms": 4.2,
        "p90_ms": 9.0,
        "p95_ms": 12.0,
        "p99_ms": 48.0,
        "connections": 3,
        "active": 1,
        "circuit": "closed",
        "secured": True,
        "age_s": 0.4,
    }
    return Row(**{**values, **changes})


IDLE: dict[str, Any] = {
    "requests": 0, "rate": 0.0, "success": None, "p50_ms": None, "p90_ms": None, "p95_ms": None, "p99_ms": None,
}  # fmt: skip
"""What a row says of a window without requests."""


def make_metrics(**changes: Any) -> Metrics:
    """The shop of ``make_status``: payment fails and its sidecar hangs, nobody calls frontend."""
    payment: dict[str, Any] = {
        "failures": 30,
        "success": 0.88,
        "rate": 2.5,
        "retries": 12,
        "circuit": "open",
        "p99_ms": 1400.0,
    }
    stale = {"age_s": 14.0, "stale": ["payment"]}
    edges = [
        make_row(source="frontend", destination="checkout"),
        make_row(source="checkout", destination="payment", **payment),
        make_row(source="gateway", destination="frontend", **IDLE),
    ]
    values: dict[str, Any] = {
        "time": T0 + 60,
        "window_s": 10.0,
        "services": [
            make_row(destination="checkout"),
            make_row(destination="frontend", **IDLE),
            make_row(destination="payment", **payment),
        ],
        "versions": [
            make_row(destination="checkout", version="v1", rate=22.5),
            make_row(destination="checkout", version="v2", rate=2.5, p99_ms=310.0),
            make_row(destination="payment", version="v1", **payment),
        ],
        "edges": edges,
        "routes": [make_row(destination="checkout", route="checkout", circuit="", connections=None)],
        "flows": [
            make_row(source="frontend", destination="checkout", version=version, route="checkout", connections=None)
            for version in ("v1", "v2")
        ],
        "instances": [
            make_row(destination="checkout", version="v1", instance="checkout-v1-1", rate=22.5),
            make_row(destination="payment", version="v1", instance="payment-v1-1", **{**payment, **stale}),
        ],
        "sidecars": [
            SidecarFigures(sidecar="checkout", age_s=0.4, stale=False, error="", resets=0),
            SidecarFigures(sidecar="payment", age_s=14.0, stale=True, error="did not answer within 2 s", resets=0),
        ],
        "processes": [
            ProcessUse(name="checkout-v1-1", service="checkout", pid=4001, cpu=0.12, memory=48 * 2**20),
            ProcessUse(name="checkout-v2-1", service="checkout", pid=4002, cpu=None, memory=40 * 2**20),
            ProcessUse(name="sidecar.checkout", service="checkout", pid=4101, cpu=0.5, memory=90 * 2**20),
        ],
    }
    return Metrics(**{**values, **changes})


def make_history(steps: int = 30) -> History:
    """Checkout's traffic grows, and its p99 with it."""
    points = [
        Point(time=T0 + 5 * i, requests=5 * i, failures=0, rate=float(i), success=1.0, p50_ms=4.0, p99_ms=10.0 + i)
        for i in range(steps)
    ]
    series = [
        Series(source="frontend", destination="checkout", version=version, points=points) for version in ("v1", "v2")
    ]
    return History(time=T0 + 5 * steps, step_s=5.0, series=series)


def make_policies() -> PolicyList:
    origin = PolicyOrigin(file="mesh.yaml", line=7, column=5, revision=3, author="ann@apply")
    return PolicyList(
        revision=4,
        policies=[PolicyShape(owner="checkout", kind="timeout", value="1s", words="1s", origin=origin)],
        yaml="services:\n  checkout:\n    timeout: 1s\n",
    )


@dataclass(slots=True, kw_only=True)
class FakeMesh:
    """A mesh whose control plane can be stopped, killed and started; ``connect`` is what ``top`` is given."""

    status: MeshStatus = field(default_factory=make_status)
    metrics: Metrics = field(default_factory=make_metrics)
    history: History = field(default_factory=make_history)
    running: bool = True
    failure: MeshctlError | None = None
    lines: list[LogLine] = field(default_factory=lambda: [make_line("checkout-v1-1", "listening")])
    asked: list[tuple[str, ...]] = field(default_factory=list)
    connects: int = 0
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, **changes: Any) -> None:
        """Give the next figures."""
        self.metrics = msgspec.structs.replace(self.metrics, **changes)
        self._wake()

    def stop(self, failure: MeshctlError | None = None) -> None:
        """End the control plane; with a failure as if it were killed."""
        self.running, self.failure = False, failure
        self._wake()

    def kill(self) -> None:
        self.stop(DisconnectedError("the control plane ended unexpectedly"))

    def start(self) -> None:
        self.running, self.failure = True, None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[MeshReader]:
        self.connects += 1
        yield FakeReader(self)


class FakeReader:
    """A MeshReader of a FakeMesh."""

    def __init__(self, mesh: FakeMesh) -> None:
        self._mesh = mesh

    def _check(self) -> None:
        if not self._mesh.running:
            raise self._mesh.failure or NotRunningError("no mesh runs in /mesh")

    async def status(self) -> MeshStatus:
        self._check()
        return self._mesh.status

    async def figures(self, window: float) -> Metrics:
        self._check()
        return self._mesh.metrics

    async def watch(self, window: float, interval: float) -> AsyncIterator[Metrics]:
        self._check()
        while True:
            # What is published while the figures before it are looked at is not missed.
            changed = self._mesh._changed
            yield self._mesh.metrics
            await changed.wait()
            if not self._mesh.running:
                if self._mesh.failure is not None:
                    raise self._mesh.failure
                return

    async def history(self, window: float, step: float) -> History:
        return self._mesh.history

    async def policies(self, owner: str) -> PolicyList:
        self._mesh.asked.append(("policies", owner))
        return make_policies()

    async def logs(self, sources: Sequence[str], *, sidecars: bool) -> AsyncIterator[LogLine]:
        self._mesh.asked.append(("logs", *sources, str(sidecars)))
        for line in self._mesh.lines:
            yield line


__all__ = ["FakeMesh", "Figures", "make_history", "make_metrics", "make_row"]
