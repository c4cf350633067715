"""Faults of processes and ways on a machine in memory: what is refused, what is made, what is undone."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.process_host import Behaviour
from tests.support.control_world import ControlWorld, make_request, until

from meshctl.control.control_plane import ControlPlane
from meshctl.errors import ConflictError, MeshctlError, NotFoundError, UsageError
from meshctl.wire.disturbances import DisturbRequest
from meshctl.wire.explain import ExplainRequest
from meshctl.wire.faults import ClearRequest
from meshctl.wire.models import ScaleRequest

TOPOLOGY = """
gateway: {port: 48080, routes: [{path: /, service: front}]}
services:
  front: {command: ./web, upstreams: [shop, plain]}
  shop: {command: ./web, replicas: 2}
  plain: {command: ./web, security: {mtls: false}}
  away: {address: example.com:80}
  work: {command: ./job, job: true}
"""


@pytest.fixture
async def world(tmp_path: Path) -> ControlWorld:
    return ControlWorld(tmp_path)


@pytest.fixture
async def plane(world: ControlWorld) -> AsyncIterator[ControlPlane]:
    async with world.running() as plane:
        await plane.up(make_request(TOPOLOGY))
        await plane.ready(60)
        yield plane


def ask(kind: Any, target: str, **more: Any) -> DisturbRequest:
    return DisturbRequest(kind=kind, target=target, author="ann@inject", **more)


async def clear(plane: ControlPlane) -> None:
    await plane.faults.clear(ClearRequest(author="ann@inject"))


async def test_all_instances_of_a_service_are_held_and_let_go_together(
    world: ControlWorld, plane: ControlPlane
) -> None:
    result = await plane.disturbances.disturb(ask("pause", "shop", duration=60))
    processes = world.machine.processes
    assert [processes[name].held for name in ("shop-v1-1", "shop-v1-2", "front-v1-1")] == [1.0, 1.0, 0.0]
    assert processes["shop-v1-1"].held_until == result.ends_at
    (fault,) = plane.faults.list().faults
    assert (fault.id, fault.kind, fault.services, fault.summary) == (result.id, "pause", ["shop"], "paused")
    await clear(plane)
    assert processes["shop-v1-1"].held == processes["shop-v1-2"].held == 0.0
    assert plane.faults.list().faults == []


@pytest.mark.parametrize("target", ["shop-v1-2", "shop/shop-v1-2", "shop/v1-2"])
async def test_one_instance_is_named_by_its_id_or_behind_its_service(
    world: ControlWorld, plane: ControlPlane, target: str
) -> None:
    await plane.disturbances.disturb(ask("cpu", target, percent=25, duration=60))
    processes = world.machine.processes
    assert (processes["shop-v1-1"].held, processes["shop-v1-2"].held) == (0.0, 0.25)


async def test_a_hold_is_over_when_its_process_is_gone(world: ControlWorld, plane: ControlPlane) -> None:
    await plane.disturbances.disturb(ask("pause", "shop-v1-1", duration=60))
    world.machine.finish("shop-v1-1", 1)
    await until(lambda: plane.faults.list().faults == [], "nothing is left to be undone")


@pytest.mark.parametrize(("kind", "signum"), [("kill", signal.SIGKILL), ("exit", signal.SIGTERM)])
async def test_what_is_struck_is_started_again_and_nothing_is_left(
    world: ControlWorld, plane: ControlPlane, kind: str, signum: int
) -> None:
    before = world.starts("shop-v1-1")
    result = await plane.disturbances.disturb(ask(kind, "shop-v1-1"))
    assert ("shop-v1-1", signum) in world.machine.signals
    assert (result.id, result.instances) == ("", ["shop-v1-1"])
    assert plane.faults.list().faults == []
    await until(lambda: world.starts("shop-v1-1") == before + 1, "it is started again")


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (ask("pause", "nobody"), NotFoundError, "nobody"),
        (ask("pause", "work"), ConflictError, "no instance of work runs"),
        (ask("cpu", "shop", percent=100), UsageError, "cannot be taken"),
        (ask("pause", "shop", duration=90_000), UsageError, "cannot last"),
        (ask("partition", "shop", source="nobody"), NotFoundError, "nobody"),
        (ask("partition", "away", source="front"), ConflictError, "outside the mesh"),
        (ask("partition", "plain", source="shop"), ConflictError, "neither calls the other"),
        (ask("partition", "gateway", source="shop"), ConflictError, "neither calls the other"),
        (ask("partition", "front", source="shop", one_way=True), ConflictError, "shop -> front: nobody calls it so"),
        (ask("latency", "shop", delay_ms=5, source="plain"), UsageError, "plain does not call shop"),
        (ask("latency", "shop", delay_ms=5, source="gateway"), UsageError, "gateway does not call shop"),
        (ask("latency", "shop", delay_ms=0), UsageError, "a delay of 0 ms"),
        (ask("latency", "shop", delay_ms=5, jitter_ms=6), UsageError, "jitter"),
        (ask("cert-expired", "plain"), ConflictError, "plain text"),
    ],
)
async def test_what_cannot_be_is_refused_and_leaves_nothing(
    plane: ControlPlane, request_: DisturbRequest, error: type[MeshctlError], words: str
) -> None:
    with pytest.raises(error, match=words):
        await plane.disturbances.disturb(request_)
    assert plane.faults.list().faults == []


async def test_a_rollout_keeps_its_service_from_being_disturbed(plane: ControlPlane) -> None:
    plane.disturbances.find_rollout = lambda service: "a rollout of shop is under way" if service == "shop" else ""
    with pytest.raises(ConflictError, match="rollout"):
        await plane.disturbances.disturb(ask("pause", "shop"))
    await plane.disturbances.disturb(ask("pause", "shop", force=True))
    await plane.disturbances.disturb(ask("pause", "front"))


async def test_a_process_is_held_by_one_fault_at_a_time(plane: ControlPlane) -> None:
    await plane.disturbances.disturb(ask("pause", "shop-v1-1", duration=60))
    with pytest.raises(ConflictError, match="shop-v1-1: held by a fault already"):
        await plane.disturbances.disturb(ask("cpu", "shop", percent=50))
    await plane.disturbances.disturb(ask("cpu", "shop-v1-2", percent=50))


def run_relays(world: ControlWorld) -> None:
    """Let relays of this machine say that they listen on port 61000."""

    def answer(name: str) -> None:
        if name.startswith("relay."):
            spec = json.loads(world.machine.processes[name].spec.argv[-1])
            Path(spec["ready"]).parent.mkdir(exist_ok=True)
            Path(spec["ready"]).write_text(json.dumps(dict.fromkeys(spec["targets"], 61000)))

    world.machine.commands = {**(world.machine.commands or {}), sys.executable: Behaviour()}
    world.machine.on_start = answer


async def test_the_gateway_is_cut_off_from_what_it_calls(world: ControlWorld, plane: ControlPlane) -> None:
    run_relays(world)
    await plane.disturbances.disturb(ask("partition", "gateway", source="front", duration=60))
    assert set(world.engine.plan_detours()) == {("gateway", "front-v1-1")}
    (fault,) = plane.faults.list().faults
    assert (fault.subject, fault.services) == ("front <-> gateway", ["front"])


@pytest.mark.parametrize(
    ("request_", "met", "not_met"),
    [
        (ask("partition", "shop", source="front"), ("front", "shop"), ("plain", "shop")),
        (ask("partition", "shop", source="front"), ("", "shop"), ("gateway", "front")),
        (ask("latency", "shop", delay_ms=5, source="front"), ("front", "shop"), ("front", "plain")),
        (ask("pause", "front"), ("gateway", "front"), ("front", "shop")),
        (ask("cert-expired", "front"), ("front", "shop"), ("plain", "shop")),
        (ask("cert-expired", "front"), ("gateway", "front"), ("gateway", "shop")),
    ],
)
async def test_a_fault_is_shown_between_those_that_meet_it(
    world: ControlWorld,
    plane: ControlPlane,
    request_: DisturbRequest,
    met: tuple[str, str],
    not_met: tuple[str, str],
) -> None:
    run_relays(world)
    await plane.disturbances.disturb(request_)
    (fault,) = plane.faults.list().faults
    assert (fault.is_met(*met), fault.is_met(*not_met)) == (True, False)


async def test_explain_tells_of_faults_on_the_way(world: ControlWorld, plane: ControlPlane) -> None:
    run_relays(world)
    await plane.disturbances.disturb(ask("latency", "shop", delay_ms=5, source="front", name="far"))
    first = plane.policies.explain(ExplainRequest(service="shop", source="front")).lines[0]
    assert (first.topic, first.words) == ("fault", "far is on: front -> shop: bytes come 5ms late, each way")
    others = plane.policies.explain(ExplainRequest(service="plain", source="front")).lines
    assert "fault" not in {line.topic for line in others}


async def test_a_partition_leads_callers_to_a_relay_and_back(world: ControlWorld, plane: ControlPlane) -> None:
    run_relays(world)
    result = await plane.disturbances.disturb(ask("partition", "shop", source="front", name="cut", duration=600))
    assert (result.id, result.subject) == ("cut", "front <-> shop")
    spec = json.loads(world.machine.processes["relay.cut"].spec.argv[-1])
    assert (sorted(spec["targets"]), spec["drop"]) == (["shop-v1-1", "shop-v1-2"], True)
    assert 500 < spec["seconds"] <= 600
    assert world.engine.plan_detours() == {("front", "shop-v1-1"): 61000, ("front", "shop-v1-2"): 61000}
    with pytest.raises(ConflictError, match="disturbed already"):
        await plane.disturbances.disturb(ask("latency", "shop", delay_ms=5))
    await clear(plane)
    assert world.engine.plan_detours() == {}
    assert ("relay.cut", signal.SIGTERM) in world.machine.signals


async def test_an_instance_that_comes_meanwhile_is_led_elsewhere_too(world: ControlWorld, plane: ControlPlane) -> None:
    run_relays(world)
    await plane.disturbances.disturb(ask("partition", "shop", source="front", name="cut", duration=600))
    await plane.instances.scale(ScaleRequest(service="shop", version="v1", replicas=3))
    assert ("front", "shop-v1-3") in world.engine.plan_detours()
    await until(lambda: "relay.cut.2" in world.machine.processes, "it has a relay of its own")
    spec = json.loads(world.machine.processes["relay.cut.2"].spec.argv[-1])
    assert list(spec["targets"]) == ["shop-v1-3"]
    await clear(plane)
    assert {("relay.cut", signal.SIGTERM), ("relay.cut.2", signal.SIGTERM)} <= set(world.machine.signals)
    assert list(Path(world.engine.parts.paths.runtime).glob("relay.*")) == []


async def test_it_is_told_when_a_fault_does_not_hold_for_a_new_instance(
    world: ControlWorld, plane: ControlPlane
) -> None:
    run_relays(world)
    await plane.disturbances.disturb(ask("latency", "shop", delay_ms=5, source="front", name="far", duration=600))
    world.machine.commands = {name: it for name, it in (world.machine.commands or {}).items() if name != sys.executable}
    await plane.instances.scale(ScaleRequest(service="shop", version="v1", replicas=3))
    words = "fault far does not hold for what is new: command not found"
    while not any(words in line for line in await world.event_lines()):
        await asyncio.sleep(0.01)
    assert ("front", "shop-v1-1") in world.engine.plan_detours()


async def test_open_connections_of_plain_tcp_are_cut_off(world: ControlWorld) -> None:
    text = TOPOLOGY.replace("plain: {command: ./web,", "plain: {command: ./web, protocol: tcp,")
    async with world.running() as plane:
        run_relays(world)
        await plane.up(make_request(text))
        await plane.ready(60)
        cut = await plane.disturbances.disturb(ask("partition", "plain", source="front", name="cut", duration=600))
        assert "open are cut" in cut.note
        assert world.engine.plan_cuts() == {("front", "plain"): "cut"}
        await clear(plane)
        assert world.engine.plan_cuts() == {}
        late = await plane.disturbances.disturb(ask("latency", "plain", delay_ms=5, source="front"))
        assert (world.engine.plan_cuts(), "go on as they were" in late.note) == ({}, True)


async def test_the_next_control_plane_takes_over_what_is_held(world: ControlWorld) -> None:
    async with world.running() as plane:
        await plane.up(make_request(TOPOLOGY))
        await plane.ready(60)
        await plane.disturbances.disturb(ask("pause", "shop-v1-1", name="nap", duration=60))
    async with world.running() as plane:
        await plane.fault_register.take_over()
        assert [fault.id for fault in plane.faults.list().faults] == ["nap"]
        assert world.machine.processes["shop-v1-1"].held == 1.0
        await clear(plane)
        assert world.machine.processes["shop-v1-1"].held == 0.0
