"""The golden signals of a mesh in memory: what is asked for, and what cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.support.control_world import ControlWorld, make_request

from meshctl.control.control_plane import ControlPlane
from meshctl.control.metrics import expose
from meshctl.errors import ConflictError, NotFoundError, UsageError
from meshctl.plan.routes import GATEWAY
from meshctl.telemetry.exposition import OPENMETRICS

TEXT = """
name: shop
gateway: {port: 8080, routes: [{path: /, service: front}]}
services:
  front: {command: ./web, upstreams: [orders, bank]}
  orders: {command: ./web, versions: {v1: {}, v2: {}}, split: {v1: 50, v2: 50}}
  bank: {address: "https://bank.example"}
  seed: {command: ./job, job: true, upstreams: [orders]}
"""
COUNTER = "caller.rq.C.orders/{version}.S.{status}.G..F.-.R.orders"


@pytest.fixture
def world(tmp_path: Path) -> ControlWorld:
    return ControlWorld(tmp_path)


@pytest.fixture
async def plane(world: ControlWorld) -> AsyncIterator[ControlPlane]:
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        assert (await plane.ready(60)).state == "ready"
        yield plane


async def read(world: ControlWorld) -> None:
    """Have every sidecar read now."""
    await asyncio.gather(*world.engine.parts.metrics.reader.begin_reading())
    while not {*world.engine.parts.metrics.reader.rollup.sidecars} >= world.engine.nodes:
        await asyncio.sleep(0.01)
        await asyncio.gather(*world.engine.parts.metrics.reader.begin_reading())


async def count(world: ControlWorld, **versions: int) -> None:
    await read(world)
    world.sidecars.counted["front"] = {COUNTER.format(version=v, status=200): n for v, n in versions.items()}
    await read(world)


async def test_before_any_up_there_is_nothing_to_tell(world: ControlWorld) -> None:
    async with world.running() as plane:
        with pytest.raises(ConflictError):
            plane.get_metrics()
        assert expose(world.engine, OPENMETRICS).text == "# EOF\n"


async def test_everything_that_there_is_has_a_row(plane: ControlPlane, world: ControlWorld) -> None:
    await read(world)
    found = plane.get_metrics()
    assert [row.destination for row in found.services] == ["bank", "front", "orders"]
    assert [(row.destination, row.version) for row in found.versions] == [
        ("front", "v1"),
        ("orders", "v1"),
        ("orders", "v2"),
    ]
    edges = [(row.source, row.destination) for row in found.edges]
    assert edges == [("front", "bank"), ("front", "orders"), (GATEWAY, "front"), ("seed", "orders")]
    assert [row.secured for row in found.services] == [False, True, True]
    assert [row.instance for row in found.instances] == ["front-v1-1", "orders-v1-1", "orders-v2-1"]
    assert [item.sidecar for item in found.sidecars] == ["front", GATEWAY, "orders", "seed"]
    assert {item.name for item in found.processes} >= {"front-v1-1", "sidecar.front", GATEWAY}


async def test_one_version_of_one_service_is_one_call(plane: ControlPlane, world: ControlWorld) -> None:
    await count(world, v1=30, v2=10)
    found = plane.get_metrics("orders", "v2", 60)
    assert [(row.version, row.requests) for row in found.versions] == [("v2", 10)]
    assert [row.requests for row in found.services] == [40]
    assert {row.destination for row in found.edges} == {"orders"}
    (bucketless,) = found.versions
    assert bucketless.buckets == []


async def test_a_history_has_equal_steps(plane: ControlPlane, world: ControlWorld) -> None:
    await count(world, v1=30)
    found = plane.metrics.history("orders", window=10, step=5)
    (series,) = found.series
    assert (series.source, series.destination, series.version) == ("front", "orders", "v1")
    assert len(series.points) == 2
    assert sum(point.requests for point in series.points) == 30
    assert series.points[1].time - series.points[0].time == 5


async def test_a_stream_goes_on(plane: ControlPlane) -> None:
    stream = plane.metrics.stream("front", interval=0.2)
    first, second = await anext(stream), await anext(stream)
    assert first.time < second.time
    with pytest.raises(UsageError):
        await anext(plane.metrics.stream(interval=0.01))


@pytest.mark.parametrize(
    ("service", "version", "window", "failure"),
    [
        ("nobody", "", 10, NotFoundError),
        ("orders", "v9", 10, NotFoundError),
        ("", "v1", 10, NotFoundError),
        ("", "", 0.5, UsageError),
        ("", "", 3601, UsageError),
    ],
)
async def test_what_cannot_be_is_refused(
    plane: ControlPlane, service: str, version: str, window: float, failure: type[Exception]
) -> None:
    with pytest.raises(failure):
        plane.get_metrics(service, version, window)


@pytest.mark.parametrize(("window", "step"), [(10, 0.5), (10, 1.5), (3600, 1), (0, 1)])
async def test_steps_are_whole_seconds_and_not_too_many(plane: ControlPlane, window: float, step: float) -> None:
    with pytest.raises(UsageError):
        plane.metrics.history(window=window, step=step)


async def test_prometheus_is_told_the_same(plane: ControlPlane, world: ControlWorld) -> None:
    await count(world, v1=30)
    text = expose(world.engine, OPENMETRICS).text
    labels = 'source="front",destination="orders",version="v1",route="orders",status="200"'
    assert f"meshctl_requests_total{{{labels}}} 30" in text
