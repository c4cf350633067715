"""The engine between crashes: whatever moment a control plane ends at, the next one goes on from there."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from tests.fakes.process_host import Behaviour
from tests.support.control_world import ControlWorld, make_request, until
from tests.support.topologies import make_source

from meshctl.errors import ConflictError, MeshctlError
from meshctl.ports import Registration

TEXT = """
name: shop
trust_domain: shop.local
services:
  front: {command: ./web, upstreams: [orders], depends_on: {orders: healthy}}
  orders: {command: ./web, replicas: 2}
"""
EVERYTHING = {"gateway", "sidecar.front", "sidecar.orders", "front-v1-1", "orders-v1-1", "orders-v1-2"}


@pytest.fixture
def world(tmp_path: Path) -> ControlWorld:
    return ControlWorld(tmp_path)


async def bring_up(world: ControlWorld, text: str = TEXT) -> None:
    """Up and ready, by a control plane that is killed after that."""
    async with world.running() as plane:
        await plane.up(make_request(text))
        assert (await plane.ready(10)).state == "ready"


def expired(service: str = "orders") -> Registration:
    return Registration(
        id=f"{service}-ext-1", service=service, version="v1", host="127.0.0.1", port=9000, ttl=1.0, expires_at=1.0
    )


async def test_what_runs_is_taken_over_untouched(world: ControlWorld) -> None:
    """Invariant 4."""
    await bring_up(world)
    before = {name: process.handle for name, process in world.machine.processes.items()}
    async with world.running() as plane:
        assert (await plane.ready(10)).state == "ready"
        assert {name: process.handle for name, process in world.machine.processes.items()} == before
        assert "mesh.adopted mesh: took over 6 processes" in await world.event_lines()


async def test_with_nothing_running_nothing_is_taken_over(world: ControlWorld) -> None:
    await bring_up(world)
    for name in list(world.alive):
        world.machine.finish(name, -9)
    async with world.running() as plane:
        assert plane.status().services == []
        assert world.alive == set()


async def test_what_a_crash_kept_from_being_started_is_started_with_all_that_it_needs(world: ControlWorld) -> None:
    """A kill between the commit of a topology and its coming into effect."""
    await bring_up(world)
    more = f"{TEXT}  cart: {{command: ./web}}\n"
    async with world.running():
        # The commit alone, and then the end.
        topology = world.engine.parts.topology
        topology.replace(make_source(more), (), in_use=world.engine.ports_in_use)
    async with world.running() as plane:
        await until(lambda: "cart-v1-1" in world.alive, "the new service runs")
        assert Path(world.paths.bootstrap("cart")).exists()
        assert (await plane.ready(10)).state == "ready"
        assert world.starts("sidecar.cart") == 1


async def test_the_ports_of_a_sidecar_that_is_down_are_its_own_while_somebody_runs_who_was_told_them(
    world: ControlWorld,
) -> None:
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        assert (await plane.ready(10)).state == "ready"
        views = world.engine.parts.supervisor.views
        # Nothing can be started any more.
        world.machine.commands = {}
        world.machine.finish("sidecar.front", -9)
        await until(lambda: views()["sidecar.front"].state.pid is None, "the sidecar is down")
        assert {"app/front-v1-1", "outbound/front", "upstream/front/orders"} <= world.engine.ports_in_use
        world.machine.finish("front-v1-1", -9)
        await until(lambda: views()["front-v1-1"].state.pid is None, "the service is down, too")
        assert not {"app/front-v1-1", "outbound/front", "upstream/front/orders"} & world.engine.ports_in_use


async def test_a_teardown_stops_what_runs_and_starts_nothing(world: ControlWorld) -> None:
    """Invariant 5."""
    await bring_up(world)
    world.machine.finish("orders-v1-1", -9)
    world.machine.finish("sidecar.front", -9)
    started = len(world.machine.started)
    world.machine.signals.clear()
    async with world.running(teardown=True) as plane:
        await plane.down(force=False)
    assert world.alive == set()
    assert len(world.machine.started) == started
    stopped = [name for name, signum in world.machine.signals if signum == signal.SIGTERM]
    # In the order of a stop: the gateway, what depends on others, those, sidecars.
    assert stopped == ["gateway", "front-v1-1", "orders-v1-2", "sidecar.orders"]
    assert world.ended


async def test_a_topology_that_cannot_be_read_any_more_strands_nothing(world: ControlWorld) -> None:
    await bring_up(world)
    world.store.commit(topology=make_source("services: 1"))
    async with world.running() as plane:
        await until(lambda: not world.alive, "everything has been stopped")
        assert any(line.startswith("mesh.unreadable mesh: ") for line in await world.event_lines())
        await plane.up(make_request(TEXT))
        assert (await plane.ready(10)).state == "ready"
    assert world.alive == EVERYTHING


async def test_a_second_down_waits_for_the_first(world: ControlWorld) -> None:
    world.machine.commands = {**(world.machine.commands or {}), "./web": Behaviour(ignores=frozenset({signal.SIGTERM}))}
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        await plane.ready(10)
        first = asyncio.ensure_future(plane.down(force=False))
        await until(lambda: "gateway" not in world.alive, "the stop is under way")
        second = asyncio.ensure_future(plane.down(force=False))
        with pytest.raises(ConflictError, match="being stopped"):
            await plane.up(make_request(TEXT))
        with pytest.raises(ConflictError, match="being stopped"):
            await plane.ready(10)
        assert not second.done()
        assert world.alive
        await asyncio.gather(plane.down(force=True), first, second)
    assert world.alive == set()


async def test_a_down_whose_client_went_away_is_brought_to_its_end(world: ControlWorld) -> None:
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        await plane.ready(10)
        down = asyncio.ensure_future(plane.down(force=False))
        await until(lambda: world.engine.stopping, "the stop is under way")
        down.cancel()
        await until(lambda: world.engine.stopped, "everything has been stopped")
    assert world.alive == set()


async def test_only_when_nothing_is_left_is_it_stopped(world: ControlWorld) -> None:
    world.machine.commands = {**(world.machine.commands or {}), "./web": Behaviour(ignores=frozenset({signal.SIGTERM}))}
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        await plane.ready(10)
        down = asyncio.ensure_future(plane.down(force=False))
        await until(lambda: world.engine.stopping, "the stop is under way")
        assert not world.engine.stopped
    await asyncio.wait([down])
    assert not world.engine.stopped
    assert world.alive


async def test_a_stop_that_failed_may_be_asked_for_again(world: ControlWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        await plane.ready(10)

        def fail() -> None:
            raise MeshctlError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(world.engine.parts.topology, "clear", fail)
            with pytest.raises(MeshctlError, match="the disk is full"):
                await plane.down(force=False)
        assert not world.engine.stopping
        await plane.down(force=False)
    assert world.alive == set()


async def test_what_cannot_be_published_is_tried_again_and_told_once(
    world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshctl.control.engine._RETRY_PUBLISH", 0.01)
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        await plane.ready(10)
        good, calls = world.engine.parts.publisher.publish, 0

        def fail(_plan: object) -> dict[str, str]:
            nonlocal calls
            calls += 1
            raise ValueError("a bug")

        monkeypatch.setattr(world.engine.parts.publisher, "publish", fail)
        world.engine.mark_dirty()
        await until(lambda: calls > 3, "it is tried again")
        assert not world.engine.is_settled
        monkeypatch.setattr(world.engine.parts.publisher, "publish", good)
        await until(lambda: world.engine.is_settled, "it is published")
        told = [line for line in await world.event_lines() if line.startswith("daemon.error")]
        assert told == ["daemon.error refresh: refresh failed: ValueError('a bug')"]


async def test_registrations_of_an_earlier_run_expire_before_there_is_a_mesh_and_after(
    world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshctl.control.engine._CHECK_EXPIRY", 0.01)
    world.store.commit(registrations=(expired(),))
    async with world.running() as plane:
        await until(lambda: world.store.registrations() == (), "the stale one has gone")
        await plane.up(make_request(TEXT))
        world.engine.parts.topology.set_registrations((expired(),), in_use=frozenset())
        await until(lambda: world.store.registrations() == (), "another one has gone")
        assert not [line for line in await world.event_lines() if line.startswith("daemon.error")]


async def test_a_drain_waits_for_the_others_when_one_sidecar_has_refused_something(
    world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        await plane.ready(10)
        world.sidecars.refusing["gateway"] = "outbound: no"
        awaited: list[set[str]] = []

        async def wait(versions: dict[str, str], timeout: float, **_: object) -> None:
            awaited.append(set(versions))

        monkeypatch.setattr(world.engine.parts.publisher, "wait", wait)
        await world.engine.drain("orders-v1-1")
        assert awaited == [{"front", "orders"}]


# ------------------------------------------------------------------------------------------------- health


async def test_until_its_first_check_an_instance_is_not_unhealthy_but_awaited(world: ControlWorld) -> None:
    world.sidecars.failing = {"orders-v1-1"}
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        views = world.engine.parts.supervisor.views
        await until(lambda: "orders-v1-1" in views() and views()["orders-v1-1"].state.ready, "its process is ready")
        asked = world.sidecars.asked
        await until(lambda: world.sidecars.asked > asked + 6, "Envoy was asked")
        assert views()["orders-v1-1"].health == "unknown"
        world.sidecars.failing = set()
        assert (await plane.ready(10)).state == "ready"
        lines = await world.event_lines()
        assert not [line for line in lines if line.startswith("instance.unhealthy")]
        world.sidecars.failing = {"orders-v1-1"}
        await until(lambda: views()["orders-v1-1"].health == "unhealthy", "a failing check counts now")


async def test_what_envoy_said_of_the_process_before_does_not_count_for_the_next(world: ControlWorld) -> None:
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        await plane.ready(10)
        world.sidecars.failing = {"orders-v1-1"}
        pid = world.machine.processes["orders-v1-1"].handle.pid
        world.machine.finish("orders-v1-1", -9)
        views = world.engine.parts.supervisor.views
        await until(
            lambda: views()["orders-v1-1"].state.pid not in (None, pid) and views()["orders-v1-1"].state.ready,
            "its next process is ready",
        )
        assert views()["orders-v1-1"].health != "healthy"
        world.sidecars.failing = set()
        assert (await plane.ready(10)).state == "ready"


async def test_an_answer_about_nobody_is_dropped(world: ControlWorld) -> None:
    async with world.running() as plane:
        await plane.up(make_request(TEXT))
        await plane.ready(10)
        count = len(await world.event_lines())
        world.engine.checks.take("orders-ext-1", True)
        world.engine.checks.take("orders-ext-1", False)
        assert len(await world.event_lines()) == count
