"""Figures that probes read: taken when every sidecar has been read once more, over a window that holds what was."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshctl.client.client import MeshClient
from meshctl.conduct import observe
from meshctl.conduct.observe import read_latency, read_requests
from meshctl.wire.metrics import Metrics, Row, SidecarFigures

ASKED = 100.9
Ages = Callable[[float], dict[str, float | None]]


class FakeMetrics:
    """A control plane a tenth of a second older at each look; ``ages`` gives those of its figures at a time."""

    def __init__(self, ages: Ages) -> None:
        self.now = ASKED
        self.asked: list[tuple[float, float | None]] = []
        self._ages = ages

    async def get(self, service: str, *, window: float, until: float | None = None) -> Metrics:
        """What the API answers."""
        self.asked.append((window, until))
        now = self.now
        self.now = round(now + 0.1, 3)
        sidecars = [
            SidecarFigures(sidecar=name, age_s=age, stale=age is None or age > 3, error="", resets=0)
            for name, age in self._ages(now).items()
        ]
        return Metrics(
            time=now if until is None else until,
            window_s=window,
            services=[Row(destination=service, requests=7, p50_ms=5.0)],
            versions=[],
            edges=[],
            routes=[],
            flows=[],
            instances=[],
            sidecars=sidecars,
            processes=[],
        )


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "_LOOK", 0.0)


def client_of(metrics: FakeMetrics) -> MeshClient:
    return cast("MeshClient", SimpleNamespace(metrics=metrics))


async def ask(metrics: FakeMetrics, read: Any = read_requests, **arguments: Any) -> Any:
    return await read(client_of(metrics), {"service": "web", "window": 10.0, **arguments})


async def test_what_ended_before_the_probe_began_is_in_its_figures() -> None:
    def ages(now: float) -> dict[str, float | None]:
        """Each is read once a second, and the second one late."""
        first = ASKED + 0.3 if now >= ASKED + 0.3 else ASKED - 0.7
        second = ASKED + 1.3 if now >= ASKED + 1.3 else ASKED - 0.2
        return {"first": now - first, "second": now - second}

    metrics = FakeMetrics(ages)
    assert await ask(metrics) == 7
    window, until = metrics.asked[-1]
    assert until == 102
    assert until - window <= ASKED - 10


async def test_who_does_not_answer_is_not_waited_for() -> None:
    metrics = FakeMetrics(lambda now: {"a": 0.0, "never": None, "hangs": 5.0 + now - ASKED})
    assert await ask(metrics) == 7
    assert len(metrics.asked) < 6


async def test_times_are_awaited_that_are_added_up_once_a_second() -> None:
    metrics = FakeMetrics(lambda _: {"a": 0.0})
    assert await ask(metrics, read_latency, quantile=50) == 5.0
    assert metrics.now >= ASKED + 1.2


async def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "PATIENCE", 0.0)
    metrics = FakeMetrics(lambda _: {"a": 2.0})
    assert await ask(metrics) == 7
    assert len(metrics.asked) == 2


async def test_a_window_is_never_longer_than_what_is_kept() -> None:
    metrics = FakeMetrics(lambda _: {"a": 0.0})
    await ask(metrics, window=3600)
    assert metrics.asked[-1][0] == 3600
