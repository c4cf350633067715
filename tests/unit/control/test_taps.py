"""Taps on a machine in memory: what sidecars are asked for, who gets what, what is counted, and when it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.support.control_world import ControlWorld, make_request, until

from meshctl.control import taps as module
from meshctl.control.control_plane import ControlPlane
from meshctl.errors import ConflictError, NotFoundError
from meshctl.plan.addresses import inbound_key
from meshctl.plan.policies.telemetry import LAST_STATUS, TapPlan
from meshctl.wire.requests import SeenRequest, TapItem, TapSummary
from meshctl.wire.taps import TapQuery

TEXT = """
name: shop
services:
  front: {command: ./web, upstreams: [orders]}
  orders: {command: ./web}
"""


@pytest.fixture
def world(tmp_path: Path) -> ControlWorld:
    return ControlWorld(tmp_path)


@pytest.fixture
async def plane(world: ControlWorld) -> AsyncIterator[ControlPlane]:
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        assert (await plane.ready(60)).state == "ready"
        yield plane


def query(**changes: Any) -> TapQuery:
    values: dict[str, Any] = {"to": [], "source": [], "side": "caller", "path": "", "methods": [], "statuses": []}
    return TapQuery(**{**values, "minimum_ms": 0.0, **changes})


def fields(**changes: Any) -> dict[str, Any]:
    """What a sidecar reports of a request to orders."""
    values = {"listener": "upstream/orders", "cluster": "orders/v1", "method": "GET", "path": "/", "status": 200}
    return {**values, "time": 1.0, "us": 1000, **changes}


class Taken:
    """One who taps, and reads as fast as it can."""

    def __init__(self, plane: ControlPlane, asked: TapQuery, **limits: Any) -> None:
        self.requests: list[SeenRequest] = []
        self.summaries: list[TapSummary] = []
        limits = {"count": None, "seconds": None} | limits
        self.task = asyncio.create_task(self._read(plane.taps.tap(asked, **limits)))

    async def _read(self, items: Any) -> None:
        async with aclosing(items):
            async for item in items:
                self.take(item)

    def take(self, item: TapItem) -> None:
        if item.request is not None:
            self.requests.append(item.request)
        if item.summary is not None:
            self.summaries.append(item.summary)

    async def begun(self) -> Taken:
        await until(lambda: self.summaries or self.task.done(), "the tap has begun")
        return self

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


def planned(plane: ControlPlane, world: ControlWorld) -> dict[str, TapPlan]:
    mesh = world.engine.mesh
    assert mesh is not None
    return dict(plane.taps.plan(mesh))


# ------------------------------------------------------------------------------------------ who is asked for what


async def test_nobody_is_asked_for_anything_while_nobody_taps(plane: ControlPlane, world: ControlWorld) -> None:
    before = world.sidecars.asked
    assert planned(plane, world) == {}
    plane.taps.take("front", fields())
    tap = await Taken(plane, query(), seconds=0.01).begun()
    await tap.task
    assert planned(plane, world) == {}
    assert tap.requests == []
    assert world.sidecars.asked >= before


async def test_only_sidecars_of_named_callers_are_asked(plane: ControlPlane, world: ControlWorld) -> None:
    tap = await Taken(plane, query(source=["front"], to=["orders"], statuses=["5xx"], minimum_ms=20.0)).begun()
    wanted = TapPlan(outbound=True, upstreams=("orders",), lowest_status=500, highest_status=599, minimum_ms=20)
    assert planned(plane, world) == {"front": wanted}
    assert tap.summaries[0].sidecars == 1
    await tap.stop()
    assert planned(plane, world) == {}


async def test_sidecars_are_asked_for_the_widest_of_what_is_wanted(plane: ControlPlane, world: ControlWorld) -> None:
    failed = await Taken(plane, query(statuses=["5xx"], minimum_ms=50.0)).begun()
    callee = await Taken(plane, query(side="callee", to=["orders"], statuses=["404"])).begun()
    found = planned(plane, world)
    assert (found["orders"].inbound, found["orders"].outbound) == (True, True)
    assert (found["orders"].lowest_status, found["orders"].highest_status, found["orders"].minimum_ms) == (404, 599, 0)
    assert (found["front"].inbound, found["front"].outbound, found["front"].minimum_ms) == (False, True, 50)
    await callee.stop()
    assert not planned(plane, world)["orders"].inbound
    assert planned(plane, world)["orders"].highest_status == 599 <= LAST_STATUS
    await failed.stop()


async def test_names_that_do_not_exist_are_refused_with_those_that_do(plane: ControlPlane) -> None:
    tap = await Taken(plane, query(to=["payment"])).begun()
    with pytest.raises(NotFoundError, match="no service payment") as caught:
        await tap.task
    assert caught.value.hint == "there are: front, gateway, orders"


async def test_before_up_there_is_nothing_to_tap(world: ControlWorld) -> None:
    async with world.running() as plane:
        tap = await Taken(plane, query()).begun()
        with pytest.raises(ConflictError, match="not up yet"):
            await tap.task


# ------------------------------------------------------------------------------------------ who gets what


async def test_each_gets_what_fits_and_by_names(plane: ControlPlane, world: ControlWorld) -> None:
    port = world.engine.parts.topology.ports[inbound_key("orders-v1-1")]
    everything, failed = await Taken(plane, query()).begun(), await Taken(plane, query(statuses=["5xx"])).begun()
    plane.taps.take("front", fields(upstream=f"127.0.0.1:{port}"))
    plane.taps.take("front", fields(status=503))
    plane.taps.take("orders", fields(listener="inbound/orders-v1-1"))
    await until(lambda: len(everything.requests) == 2 and failed.requests, "both have theirs")
    assert [(r.source, r.destination, r.version, r.instance) for r in everything.requests] == [
        ("front", "orders", "v1", "orders-v1-1"),
        ("front", "orders", "v1", ""),
    ]
    assert [request.status for request in failed.requests] == [503]
    await everything.stop()
    await failed.stop()


async def test_a_tap_ends_after_so_many_requests_or_so_long(plane: ControlPlane) -> None:
    one = await Taken(plane, query(), count=1).begun()
    for _ in range(3):
        plane.taps.take("front", fields())
    await asyncio.wait_for(one.task, 60)
    assert (len(one.requests), one.summaries[-1].shown, one.summaries[-1].reported) == (1, 1, 3)
    await asyncio.wait_for((await Taken(plane, query(), seconds=0.02).begun()).task, 60)


async def test_a_mesh_that_is_stopped_ends_every_tap(plane: ControlPlane) -> None:
    tap = await Taken(plane, query()).begun()
    await plane.down(force=False)
    await asyncio.wait_for(tap.task, 60)


async def test_who_reads_slowly_loses_requests_and_is_told_how_many(
    plane: ControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a reader is bounded, and other readers have theirs."""
    monkeypatch.setattr(module, "_QUEUE", 10)
    monkeypatch.setattr(module, "_LOOK", 0.05)
    quick = await Taken(plane, query()).begun()
    items = plane.taps.tap(query(), count=None, seconds=None)
    await anext(items)
    for _ in range(5):
        for _ in range(5):
            plane.taps.take("front", fields())
        count = len(quick.requests) + 5
        await until(lambda wanted=count: len(quick.requests) == wanted, "the quick reader has all of them")
    found: list[SeenRequest] = []
    async for item in items:
        if item.request is not None:
            found.append(item.request)
        if item.summary is not None and found:
            assert (item.summary.reported, item.summary.dropped, item.summary.shown) == (25, 15, 10)
            break
    await items.aclose()  # type: ignore[attr-defined]
    assert len(found) == 10
    await quick.stop()


# ------------------------------------------------------------------------------------------ what is counted


async def test_what_passed_since_the_tap_began_is_counted_by_the_sidecars(
    plane: ControlPlane, world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.01)
    world.sidecars.passed["front"] = 1000
    tap = await Taken(plane, query(source=["front"])).begun()
    assert tap.summaries[0].passed == 0
    world.sidecars.passed["front"] = 1300
    await until(lambda: tap.summaries[-1].passed == 300, "what passed is counted")
    world.sidecars.passed["front"] = 20
    await until(lambda: tap.summaries[-1].passed == 320, "a sidecar that was restarted counts anew")
    await tap.stop()


async def test_what_passed_before_is_not_counted_when_the_sidecar_was_late_to_say_how_much(
    plane: ControlPlane, world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.01)
    world.sidecars.passed["front"] = 1000
    await (await Taken(plane, query(source=["front"])).begun()).stop()
    world.sidecars.passed["front"] = 1500
    world.sidecars.mute.add("front")
    tap = await Taken(plane, query(source=["front"])).begun()
    assert tap.summaries[0].silent == ["front"]
    for _ in range(2):
        plane.taps.take("front", fields())
    world.sidecars.passed["front"] = 1502
    world.sidecars.mute.clear()
    await until(lambda: tap.summaries[-1].silent == [], "it is heard")
    assert tap.summaries[-1].passed == 2
    world.sidecars.passed["front"] = 1505
    await until(lambda: tap.summaries[-1].passed == 5, "what passed is counted")
    await tap.stop()


async def test_a_sidecar_that_does_not_answer_is_named_and_holds_up_nobody(
    plane: ControlPlane, world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK", 0.01)
    world.sidecars.late.add("orders")
    tap = await Taken(plane, query()).begun()
    assert tap.summaries[0].silent == ["orders"]
    plane.taps.take("front", fields())
    await until(lambda: tap.requests, "the others report")
    world.sidecars.late.clear()
    await until(lambda: tap.summaries[-1].silent == [], "it is heard again")
    await tap.stop()
