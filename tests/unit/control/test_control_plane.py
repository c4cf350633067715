"""The verbs of a running mesh, on a machine in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.fakes.process_host import Behaviour
from tests.fakes.state_store import FakeStateStore
from tests.support.control_world import ControlWorld, make_request, until, until_awaited

from meshctl.control.control_plane import ControlPlane
from meshctl.errors import (
    ConflictError,
    MeshctlError,
    NotFoundError,
    RejectedError,
    StartError,
    UsageError,
    WaitTimeoutError,
)
from meshctl.wire.models import RegisterRequest, RestartRequest, ScaleRequest

TEXT = """
name: shop
trust_domain: shop.local
services:
  front: {command: ./web, upstreams: [orders]}
  orders: {command: ./web}
  cart: {command: ./web}
"""


@pytest.fixture
def world(tmp_path: Path) -> ControlWorld:
    return ControlWorld(tmp_path)


@pytest.fixture
async def plane(world: ControlWorld) -> AsyncIterator[ControlPlane]:
    async with world.running() as plane:
        yield plane


async def bring_up(plane: ControlPlane, text: str = TEXT, *services: str) -> list[str]:
    result = await plane.up(make_request(text, *services))
    ready = await plane.ready(60)
    assert ready.state == "ready", ready
    return result.changes


def register_request(address: str = "127.0.0.1:9000", *, service: str = "tax", version: str = "") -> RegisterRequest:
    return RegisterRequest(service=service, address=address, version=version, ttl=None)


# ------------------------------------------------------------------------------------------------- up, ready


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("name: shop\nservices:\n  seed: {command: ./job, job: true}\n", {"gateway", "sidecar.seed"}),
        ("name: shop\nservices:\n  bank: {address: 'bank.example:443'}\n", {"gateway"}),
        ("name: shop\nservices:\n  tax: {}\n", {"gateway", "sidecar.tax"}),
        ("name: shop\nservices:\n  web: {command: ./web, replicas: 0}\n", {"gateway", "sidecar.web"}),
    ],
    ids=["jobs", "external", "registered", "no replicas"],
)
async def test_a_mesh_without_instances_is_ready_when_its_sidecars_are(
    plane: ControlPlane, world: ControlWorld, text: str, runs: set[str]
) -> None:
    await bring_up(plane, text)
    assert world.alive == runs
    assert plane.status().state == "ready"


async def test_before_any_up_nothing_is_ready(plane: ControlPlane) -> None:
    assert (await plane.ready(0.01)).waiting == ["no topology was applied"]
    assert (plane.status().state, plane.status().mesh) == ("starting", "")
    with pytest.raises(ConflictError, match="not up yet"):
        plane.certificates()


async def test_a_second_up_says_what_changed_and_touches_nothing_else(plane: ControlPlane, world: ControlWorld) -> None:
    assert await bring_up(plane) == ["shop: starting 3 services"]
    before = {name: process.handle for name, process in world.machine.processes.items()}
    assert await bring_up(plane) == []
    changed = TEXT.replace("cart: {command: ./web}", "cart: {command: ./web, env: {A: b}}")
    assert await bring_up(plane, changed) == ["cart: v1 restarts (env changed)"]
    after = {name: process.handle for name, process in world.machine.processes.items()}
    assert {name for name in before if before[name] != after[name]} == {"cart-v1-1"}


async def test_ready_waits_until_every_changed_instance_was_replaced(plane: ControlPlane, world: ControlWorld) -> None:
    text = "name: shop\nservices:\n  web: {command: ./web, replicas: 3, env: {A: one}}\n"
    await bring_up(plane, text)
    before = {name: process.handle.pid for name, process in world.machine.processes.items()}
    await bring_up(plane, text.replace("one", "two"))
    after = {name: process.handle.pid for name, process in world.machine.processes.items()}
    assert {name for name in before if before[name] != after[name]} == {"web-v1-1", "web-v1-2", "web-v1-3"}


async def test_up_of_a_part_adds_to_what_runs_and_up_alone_asks_for_all(
    plane: ControlPlane, world: ControlWorld
) -> None:
    await bring_up(plane, TEXT, "orders")
    assert {"orders-v1-1"} == {name for name in world.alive if name.endswith("-1")}
    await bring_up(plane, TEXT, "cart")
    assert {"orders-v1-1", "cart-v1-1"} == {name for name in world.alive if name.endswith("-1")}
    await bring_up(plane)
    assert "front-v1-1" in world.alive
    assert await bring_up(plane, TEXT, "orders") == []
    assert "front-v1-1" in world.alive


async def test_what_failed_is_told_and_tried_again_by_the_next_up(plane: ControlPlane, world: ControlWorld) -> None:
    text = TEXT.replace("cart: {command: ./web}", "cart: {command: ./crash, restart: {policy: 'no'}}")
    await plane.up(make_request(text))
    result = await plane.ready(60)
    assert (result.state, [failure.name for failure in result.failures]) == ("failed", ["cart-v1-1"])
    assert (result.failures[0].exit_code, plane.status().state) == (3, "failed")
    world.machine.commands = {**(world.machine.commands or {}), "./crash": Behaviour()}
    assert await bring_up(plane, text) == ["cart-v1-1: started again, after it had failed"]
    assert world.starts("cart-v1-1") == 2
    assert world.starts("orders-v1-1") == 1


async def test_what_waits_to_be_tried_again_is_tried_at_once(plane: ControlPlane, world: ControlWorld) -> None:
    text = TEXT.replace("cart: {command: ./web}", "cart: {command: ./crash, restart: {backoff: 60s, max_backoff: 60s}}")
    await plane.up(make_request(text))
    states = world.engine.parts.supervisor.views
    await until(lambda: states()["cart-v1-1"].state.phase == "backoff", "it backs off")
    world.machine.commands = {**(world.machine.commands or {}), "./crash": Behaviour()}
    await bring_up(plane, text)


async def test_what_is_late_is_named(plane: ControlPlane, world: ControlWorld) -> None:
    world.sick = {"cart-v1-1"}
    world.sidecars.late = {"orders"}
    await plane.up(make_request(TEXT))
    await until_awaited(
        plane,
        "cart-v1-1: starting (waiting for its readiness check: answered 503)",
        "sidecar.orders: configuration stale",
    )


# ------------------------------------------------------------------------------------------------- instances


async def test_scaling_returns_when_all_are_up_or_gone(plane: ControlPlane, world: ControlWorld) -> None:
    await bring_up(plane)
    done = await plane.instances.scale(ScaleRequest(service="orders", version="", replicas=3))
    assert (done.message, done.acked, done.total) == ("orders/v1: 3 instances", 4, 4)
    assert {"orders-v1-1", "orders-v1-2", "orders-v1-3"} <= world.alive
    await plane.instances.scale(ScaleRequest(service="orders", version="v1", replicas=0))
    assert not [name for name in world.alive if name.startswith("orders-")]


@pytest.mark.parametrize("replicas", [-1, 101])
async def test_counts_out_of_bounds_are_refused(plane: ControlPlane, replicas: int) -> None:
    with pytest.raises(UsageError, match="not between 0 and 100"):
        await plane.instances.scale(ScaleRequest(service="orders", version="", replicas=replicas))


async def test_scaling_and_restarting_do_not_wait_for_what_is_none_of_their_business(
    plane: ControlPlane, world: ControlWorld
) -> None:
    text = TEXT.replace("cart: {command: ./web}", "cart: {command: ./crash, restart: {policy: 'no'}}")
    await plane.up(make_request(text))
    assert (await plane.ready(60)).state == "failed"
    world.sidecars.late = set()
    await plane.instances.scale(ScaleRequest(service="orders", version="", replicas=2))
    await plane.instances.restart(RestartRequest(targets=["orders"]))
    assert world.starts("orders-v1-1") == 2


async def test_an_instance_that_does_not_come_up_fails_the_scaling(plane: ControlPlane, world: ControlWorld) -> None:
    await bring_up(plane)
    world.machine.commands = {**(world.machine.commands or {}), "./web": Behaviour(exit_code=3)}
    with pytest.raises(StartError, match="orders-v1-2: exited with 3"):
        await plane.instances.scale(ScaleRequest(service="orders", version="", replicas=2))


async def test_an_instance_that_never_gets_ready_ends_the_wait(
    plane: ControlPlane, world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshctl.control.instances._SETTLE_TIMEOUT", 0.3)
    text = TEXT.replace("cart: {command: ./web}", "cart: {command: ./web, stop_grace: 0.1}")
    await bring_up(plane, text)
    world.sick = {"cart-v1-1", "orders-v1-2"}
    with pytest.raises(WaitTimeoutError, match="orders-v1-2: "):
        await plane.instances.scale(ScaleRequest(service="orders", version="", replicas=2))
    with pytest.raises(WaitTimeoutError, match="cart-v1-1: ") as caught:
        await plane.instances.restart(RestartRequest(targets=["cart"]))
    assert "orders" not in caught.value.message


async def test_a_change_that_a_sidecar_refuses_fails_in_envoys_words(plane: ControlPlane, world: ControlWorld) -> None:
    await bring_up(plane)
    world.sidecars.refusing = {"front": "clusters orders/v1: no"}
    with pytest.raises(RejectedError, match="front refused: clusters orders/v1: no"):
        await plane.instances.scale(ScaleRequest(service="orders", version="", replicas=2))


async def test_a_restart_of_nothing_known_names_what_there_is(plane: ControlPlane) -> None:
    await bring_up(plane)
    with pytest.raises(NotFoundError, match="nothing to restart is called tax") as caught:
        await plane.instances.restart(RestartRequest(targets=["orders", "tax"]))
    assert "orders-v1-1" in caught.value.hint


async def test_a_restart_without_names_restarts_every_instance(plane: ControlPlane, world: ControlWorld) -> None:
    await bring_up(plane)
    done = await plane.instances.restart(RestartRequest(targets=[]))
    assert done.message == "restarted cart-v1-1, front-v1-1, orders-v1-1"
    assert [world.starts(f"{name}-v1-1") for name in ("cart", "front", "orders")] == [2, 2, 2]
    assert world.starts("sidecar.cart") == 1


# ------------------------------------------------------------------------------------------------- registry


async def test_a_registered_instance_is_ready_when_its_check_passes(plane: ControlPlane, world: ControlWorld) -> None:
    world.sidecars.failing = {"tax-ext-1"}
    await bring_up(plane)
    made = await plane.instances.register(register_request())
    assert (made.id, made.version, made.expires_at) == ("tax-ext-1", "v1", None)
    await until_awaited(plane, "tax-ext-1: its health check does not pass yet")
    world.sidecars.failing = set()
    assert (await plane.ready(60)).state == "ready"


async def test_the_same_address_keeps_its_id_and_another_version_gets_another(
    plane: ControlPlane, world: ControlWorld
) -> None:
    await bring_up(plane)
    first = await plane.instances.register(register_request())
    assert await plane.instances.register(register_request()) == first
    other = await plane.instances.register(register_request(version="v2"))
    assert other.id == "tax-ext-2"
    assert [item.id for item in world.store.registrations()] == ["tax-ext-2"]


async def test_an_id_that_comes_again_for_another_address_has_to_prove_itself(
    plane: ControlPlane, world: ControlWorld
) -> None:
    await bring_up(plane)
    first = await plane.instances.register(register_request())
    assert (await plane.ready(60)).state == "ready"
    await plane.instances.deregister(first.id)
    world.sidecars.failing = {"tax-ext-1"}
    again = await plane.instances.register(register_request("127.0.0.1:9001"))
    assert again.id == first.id
    await until_awaited(plane, "tax-ext-1: its health check does not pass yet")


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (register_request("9000"), UsageError, "no address"),
        (register_request("127.0.0.1:0"), UsageError, "no address"),
        (register_request("127.0.0.1:70000"), UsageError, "no address"),
        (register_request("tax.example:80"), UsageError, "no IP address"),
        (register_request(service="gateway"), UsageError, "cannot be a service's name"),
        (register_request(service="Tax!"), UsageError, "cannot be a service's name"),
        (register_request(version="V_1"), UsageError, "cannot be a version's name"),
        (register_request(service="bank"), ConflictError, "lies outside the mesh"),
        (register_request(service="seed"), ConflictError, "is a job"),
    ],
)
async def test_registrations_that_cannot_be_are_refused(
    plane: ControlPlane, world: ControlWorld, request_: RegisterRequest, kind: type[MeshctlError], words: str
) -> None:
    await bring_up(plane, f"{TEXT}  bank: {{address: 'b.example:443'}}\n  seed: {{command: ./job, job: true}}\n")
    with pytest.raises(kind, match=words):
        await plane.instances.register(request_)
    assert world.store.registrations() == ()


async def test_nothing_is_registered_before_there_is_a_mesh(plane: ControlPlane) -> None:
    with pytest.raises(ConflictError, match="not up yet"):
        await plane.instances.register(register_request())


async def test_a_heartbeat_renews_and_moves_no_port(plane: ControlPlane, world: ControlWorld) -> None:
    await bring_up(plane)
    request = RegisterRequest(service="tax", address="[::1]:9000", version="", ttl=30.0)
    made = await plane.instances.register(request)
    assert (await plane.ready(60)).state == "ready"
    ports = dict(world.store.ports())
    world.taken = set(ports.values())
    assert isinstance(world.store, FakeStateStore)
    writes = world.store.writes
    renewed = await plane.instances.heartbeat(made.id)
    assert made.expires_at is not None
    assert renewed.expires_at is not None
    assert renewed.expires_at >= made.expires_at
    assert (dict(world.store.ports()), world.store.writes) == (ports, writes + 1)
    with pytest.raises(NotFoundError):
        await plane.instances.heartbeat("tax-ext-9")


# ------------------------------------------------------------------------------------------------- proxies


async def test_a_listener_whose_port_was_taken_is_told_once_and_tried_again_when_it_is_free(
    plane: ControlPlane, world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshctl.control.taken_ports._INTERVAL", 0.01)
    await bring_up(plane)
    world.taken = {20123}
    world.sidecars.refusing = {
        "cart": "outbound: error adding listener 'outbound': cannot bind '127.0.0.1:20123': Address already in use"
    }
    said = "sidecar.rejected cart: the sidecar of cart cannot listen: port 20123 is held by python3 (pid 7)"
    async with asyncio.timeout(60):
        while said not in await world.event_lines():
            await asyncio.sleep(0.01)
    assert world.sidecars.retried == []
    world.taken = set()
    await until(lambda: "cart" in world.sidecars.retried, "it is sent once more")
    assert (await world.event_lines()).count(said) == 1


async def test_where_a_call_goes(plane: ControlPlane, world: ControlWorld) -> None:
    await bring_up(plane)
    assert plane.call_target("").socket == world.paths.gateway_pipe
    target = plane.call_target("front")
    assert (target.host, target.port) == ("127.0.0.1", world.store.ports()["outbound/front"])
    with pytest.raises(NotFoundError, match="no sidecar tax"):
        plane.call_target("tax")


async def test_the_state_of_every_sidecar(plane: ControlPlane, world: ControlWorld) -> None:
    await bring_up(plane)
    world.sidecars.late = {"cart"}
    states = {item.sidecar: item.state for item in plane.proxy_status().proxies}
    assert states == {"cart": "stale", "front": "synced", "gateway": "synced", "orders": "synced"}
    assert plane.status().state == "degraded"


async def test_what_is_asked_for_is_an_event_each(plane: ControlPlane, world: ControlWorld) -> None:
    await bring_up(plane)
    assert (await plane.ready(60)).state == "ready"
    await plane.instances.scale(ScaleRequest(service="cart", version="", replicas=2))
    await plane.instances.restart(RestartRequest(targets=["orders"]))
    await bring_up(plane)
    told = [line for line in await world.event_lines() if line.startswith(("mesh.ready", "service."))]
    assert told == [
        "mesh.ready mesh: shop is ready",
        "service.scaled cart: cart: v1 is to have 2 instances",
        "service.restarting orders-v1-1: restarting orders-v1-1, as was asked for",
        "mesh.ready mesh: shop is ready",
    ]
