"""Instances that a sidecar keeps away from, told by name, once each, however the sidecar answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.control_world import ControlWorld, make_request

from meshctl.control.control_plane import ControlPlane
from meshctl.control.outliers import Outliers, read_ejected
from meshctl.plan.addresses import inbound_key

TEXT = """
name: shop
services:
  front: {command: ./web, upstreams: [orders]}
  orders: {command: ./web, replicas: 2}
"""
GAUGE = "cluster.orders/v1.outlier_detection.ejections_active"


@pytest.fixture
def world(tmp_path: Path) -> ControlWorld:
    return ControlWorld(tmp_path)


@pytest.fixture
async def plane(world: ControlWorld) -> AsyncIterator[ControlPlane]:
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        assert (await plane.ready(10)).state == "ready"
        yield plane


def clusters(*hosts: tuple[int, bool]) -> dict[str, Any]:
    """What Envoy says of a cluster with hosts at these ports, ejected or not."""
    statuses = [
        {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "health_status": {"eds_health_status": "HEALTHY"} | ({"failed_outlier_check": True} if ejected else {}),
        }
        for port, ejected in hosts
    ]
    pipe = {"address": {"pipe": {"path": "/x"}}, "health_status": {"failed_outlier_check": True}}
    return {
        "cluster_statuses": [
            {"name": "control-plane"},
            {"name": "orders/v1", "host_statuses": [*statuses, pipe]},
        ]
    }


async def read_counters(world: ControlWorld) -> None:
    for task in world.engine.parts.metrics.reader.begin_reading():
        await task


async def told(world: ControlWorld) -> list[str]:
    return [line for line in await world.event_lines() if line.startswith("outlier.")]


async def test_each_ejection_and_return_is_told_once(world: ControlWorld, plane: ControlPlane) -> None:
    ports = world.engine.parts.topology.ports
    one, two = (ports[inbound_key(f"orders-v1-{number}")] for number in (1, 2))
    outliers = Outliers(world.engine)

    async def look(count: int, *hosts: tuple[int, bool]) -> None:
        world.sidecars.counted["front"] = {GAUGE: count}
        world.sidecars.clusters["front"] = clusters(*hosts)
        await read_counters(world)
        await outliers.look()

    await look(0, (one, False), (two, False))
    assert await told(world) == []
    await look(1, (one, False), (two, True))
    await look(1, (one, False), (two, True))
    ejected = "outlier.ejected front -> orders: front -> orders: orders-v1-2 failed too often, and is given no requests"
    assert await told(world) == [f"{ejected} for a while"]
    await look(0, (one, False), (two, False))
    returned = "outlier.returned front -> orders: front -> orders: orders-v1-2 is given requests again"
    assert await told(world) == [f"{ejected} for a while", returned]


async def test_a_sidecar_that_does_not_say_which_is_asked_again(world: ControlWorld, plane: ControlPlane) -> None:
    one = world.engine.parts.topology.ports[inbound_key("orders-v1-1")]
    outliers = Outliers(world.engine)
    world.sidecars.counted["front"] = {GAUGE: 1}
    await read_counters(world)
    odd = {"cluster_statuses": [{"name": "x", "host_statuses": [{"health_status": 1}]}]}
    answers: list[object] = ["no list", [], odd]
    for broken in answers:
        world.sidecars.clusters["front"] = broken
        await outliers.look()
        assert await told(world) == []
    world.sidecars.clusters["front"] = clusters((one, True))
    await outliers.look()
    assert len(await told(world)) == 1


async def test_while_nothing_changes_no_sidecar_is_asked(world: ControlWorld, plane: ControlPlane) -> None:
    await read_counters(world)
    outliers = Outliers(world.engine)
    asked = world.sidecars.asked_clusters
    await outliers.look()
    await outliers.look()
    assert world.sidecars.asked_clusters == asked


KEYS = ["cluster_statuses", "name", "host_statuses", "health_status", "address", "failed_outlier_check"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["cluster_statuses", "name", "host_statuses", "health_status", "address", "failed_outlier_check"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_a_sidecar_says_is_read_or_refused(answer: Any) -> None:
    try:
        found = read_ejected(json.loads(json.dumps(answer)), {})
    except ValueError:
        return
    assert isinstance(found, dict)
