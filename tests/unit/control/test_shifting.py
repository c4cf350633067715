"""Shifting traffic on a machine in memory: what is started, what is refused, what is in force afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.control_world import ControlWorld, make_request, until

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
from meshctl.wire.models import RegisterRequest, ScaleRequest
from meshctl.wire.shifts import MirrorRequest, ShiftRequest, TrafficResult

TOPOLOGY = """
services:
  front: {command: ./web, upstreams: [shop, plain, remote, bare]}
  shop:
    command: ./web
    versions: {v1: {}, v2: {replicas: 0}, v3: {command: ./crash, replicas: 0}}
  split:
    command: ./web
    versions: {v1: {}, v2: {}}
    split: {v1: 80, v2: 20}
    routes: [{name: admins, match: {headers: {x-admin: "1"}}, version: v2}]
  plain: {command: ./web}
  work: {command: ./job, job: true}
  remote: {address: example.com:80}
  bare: {}
  ext: {versions: {v1: {command: ./web}, v2: {}}}
  wire: {protocol: tcp, command: ./web, versions: {v1: {}, v2: {}}}
"""


@pytest.fixture
def world(tmp_path: Path) -> ControlWorld:
    return ControlWorld(tmp_path)


@pytest.fixture
async def plane(world: ControlWorld) -> AsyncIterator[ControlPlane]:
    async with world.running() as plane:
        await plane.up(make_request(TOPOLOGY))
        assert (await plane.ready(60)).state == "ready"
        yield plane


async def shift(plane: ControlPlane, service: str = "shop", *, force: bool = False, **weights: int) -> TrafficResult:
    return await plane.shifts.shift(
        ShiftRequest(service=service, weights=weights, author="ann@canary shift", force=force)
    )


def written(plane: ControlPlane, owner: str = "shop") -> dict[str, Any]:
    """The policies of a service that are written somewhere."""
    return {policy.kind: policy.value for policy in plane.policies.list(owner, "").policies}


async def test_a_shift_starts_a_version_waits_and_is_a_revision(world: ControlWorld, plane: ControlPlane) -> None:
    assert "shop-v2-1" not in world.alive
    result = await shift(plane, v2=10)
    assert result.started == ["shop-v2-1"]
    assert result.waited_ms > 0
    assert "shop-v2-1" in world.alive
    assert (result.before.weights["v1"], result.after.weights) == (100, {"v1": 90, "v2": 10, "v3": 0})
    assert written(plane) == {"split": {"v1": 90, "v2": 10}}
    newest = plane.policies.history().revisions[0]
    assert (newest.author, newest.state) == ("ann@canary shift", "applied")


async def test_taken_back_it_leaves_no_trace_and_the_version_runs_on(world: ControlWorld, plane: ControlPlane) -> None:
    await shift(plane, v2=10)
    result = await shift(plane, v2=0)
    assert written(plane) == {}
    assert result.idle == ["v2"]
    assert "shop-v2-1" in world.alive


async def test_what_a_shift_started_is_started_again_by_the_next_up(world: ControlWorld, plane: ControlPlane) -> None:
    """The shift holds across `down` and `up`: without an instance its share of the requests would fail."""
    await shift(plane, v2=10)
    await plane.shifts.mirror(MirrorRequest(service="split", version="v2", author="a@canary mirror"))
    await plane.down(force=True)
    assert not world.alive
    async with world.running() as again:
        await again.up(make_request(TOPOLOGY))
        assert (await again.ready(10)).state == "ready"
        assert "shop-v2-1" in world.alive
        assert again._engine.parts.topology.replicas == {"shop/v2": 1}
        await again.instances.scale(ScaleRequest(service="shop", version="v2", replicas=0))
        await again.up(make_request(TOPOLOGY))
        assert (await again.ready(10)).state == "ready"
        assert "shop-v2-1" not in world.alive, "what was stopped by hand stays so"
        await again.up(make_request(TOPOLOGY, reset=True))
        assert written(again) == {}


async def test_a_version_scaled_to_nothing_is_started_again(world: ControlWorld, plane: ControlPlane) -> None:
    await plane.instances.scale(ScaleRequest(service="split", version="v2", replicas=0))
    await until(lambda: "split-v2-1" not in world.alive, "v2 is gone")
    result = await shift(plane, "split", v2=50)
    assert result.started == ["split-v2-1"]


async def test_nothing_is_started_for_what_does_not_grow(world: ControlWorld, plane: ControlPlane) -> None:
    await plane.instances.scale(ScaleRequest(service="split", version="v2", replicas=0))
    result = await shift(plane, "split", v2=10)
    assert result.started == []
    assert "split-v2-1" not in world.alive


@pytest.mark.parametrize(
    ("service", "weights", "kind", "said"),
    [
        ("shop", {"v2": 60, "v3": 45}, UsageError, ("weights must sum to 100, these sum to 105", "")),
        ("shop", {"v1": 80, "v2": 10}, UsageError, ("weights must sum to 100, these sum to 90", "leave v1 out")),
        ("shop", {"v2": -5}, UsageError, ("the weight of v2 cannot be -5", "from 0 to 100")),
        ("shop", {"v2": 101}, UsageError, ("the weight of v2 cannot be 101", "from 0 to 100")),
        ("shop", {"v9": 5}, NotFoundError, ("shop has no version v9", "v1 (stable), v2, v3")),
        ("shop", {"v1": 100}, UsageError, ("v1 is the stable version of shop", "v2=0")),
        ("shopp", {"v2": 5}, NotFoundError, ("no service shopp", "front")),
        ("plain", {"v2": 5}, NotFoundError, ("plain has no version v2", "v1 (stable)")),
        ("plain", {"v1": 5}, ConflictError, ("plain has one version only, v1", "services.plain.versions")),
        ("work", {"v1": 5}, ConflictError, ("work is a job", "")),
        ("remote", {"v2": 5}, ConflictError, ("remote lies outside the mesh", "")),
        ("bare", {"v2": 5}, ConflictError, ("knows no versions of bare", "services.bare.versions")),
    ],
)
async def test_what_cannot_be_is_refused_and_says_what_there_is(
    plane: ControlPlane, service: str, weights: dict[str, int], kind: type[MeshctlError], said: tuple[str, str]
) -> None:
    with pytest.raises(kind) as refused:
        await plane.shifts.shift(ShiftRequest(service=service, weights=weights, author="ann@canary shift"))
    words, hint = said
    assert words in refused.value.message
    assert hint in refused.value.hint
    assert len(plane.policies.history().revisions) == 1


async def test_an_unhealthy_version_changes_nothing_and_is_stopped_again(
    world: ControlWorld, plane: ControlPlane
) -> None:
    with pytest.raises(StartError, match=r"shop-v3-1 did not come up: .*; nothing was changed"):
        await shift(plane, v3=10)
    assert written(plane) == {}
    await until(lambda: "shop-v3-1" not in plane._engine.parts.supervisor.views(), "v3 is gone")
    assert "shop/v3" not in plane._engine.parts.topology.replicas


async def test_a_version_that_is_never_ready_is_given_up_in_time(world: ControlWorld, plane: ControlPlane) -> None:
    world.sick.add("shop-v2-1")
    request = ShiftRequest(service="shop", weights={"v2": 10}, author="ann@canary shift", timeout=0.5)
    with pytest.raises(WaitTimeoutError, match=r"shop-v2-1 is not healthy after 0.5 s \(.*answered 503\)"):
        await plane.shifts.shift(request)
    assert written(plane) == {}
    await until(lambda: "shop-v2-1" not in world.alive, "v2 is gone")


async def test_who_goes_away_before_it_is_healthy_changes_nothing(world: ControlWorld, plane: ControlPlane) -> None:
    world.sick.add("shop-v2-1")
    task = asyncio.ensure_future(shift(plane, v2=10))
    await until(lambda: "shop-v2-1" in world.alive, "v2 is started")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: "shop-v2-1" not in world.alive, "v2 is gone")
    assert written(plane) == {}


async def test_a_shift_that_a_sidecar_refuses_is_undone_with_what_was_started(
    world: ControlWorld, plane: ControlPlane
) -> None:
    await shift(plane, "split", v2=30)
    world.sidecars.refusing["gateway"] = "no"
    with pytest.raises(RejectedError):
        await shift(plane, "split", v2=40)
    assert written(plane, "split")["split"] == {"v1": 70, "v2": 30}
    with pytest.raises(RejectedError):
        await shift(plane, v2=10)
    await until(lambda: "shop-v2-1" not in world.alive, "v2 is gone")
    assert "split" not in written(plane)


async def test_a_base_that_is_gone_starts_nothing(world: ControlWorld, plane: ControlPlane) -> None:
    await shift(plane, "split", v2=30)
    with pytest.raises(ConflictError, match="revision 2 by ann@canary shift came first"):
        await plane.shifts.shift(ShiftRequest(service="shop", weights={"v2": 10}, author="bob@canary shift", base=1))
    assert "shop-v2-1" not in world.alive


async def test_a_dry_run_says_what_would_be_started(world: ControlWorld, plane: ControlPlane) -> None:
    request = ShiftRequest(service="shop", weights={"v2": 10}, author="ann@canary shift", dry_run=True)
    result = await plane.shifts.shift(request)
    assert result.after.weights["v2"] == 10
    assert "shop/v2 would be started" in result.notes[0]
    assert "shop-v2-1" not in world.alive
    assert written(plane) == {}


async def test_only_requests_with_the_header_reach_the_version(plane: ControlPlane) -> None:
    await shift(plane, "split", v2=50)
    request = ShiftRequest(service="split", weights={"v2": 100}, author="a@canary shift", header="X-Canary", value="1")
    result = await plane.shifts.shift(request)
    assert result.after.weights == {"v1": 100, "v2": 0}
    assert result.after.header is not None
    assert result.after.header.weights == {"v2": 100}
    assert result.idle == []
    assert any("pass over the other routes (admins)" in note for note in result.notes)
    routes = written(plane, "split")["routes"]
    assert [route["name"] for route in routes] == ["canary", "admins"]
    # Testers stay where they are while everybody else follows.
    result = await shift(plane, "split", v2=20)
    assert result.after.header is not None
    result = await shift(plane, "split", v2=100)
    assert result.after.header is None
    assert [route["name"] for route in written(plane, "split")["routes"]] == ["admins"]


async def test_a_version_that_others_run_has_to_be_registered_first(plane: ControlPlane) -> None:
    with pytest.raises(ConflictError, match="ext/v2 has no instance, and no command to start one") as refused:
        await shift(plane, "ext", v2=10)
    assert refused.value.hint == "meshctl register ext --version v2 --address HOST:PORT"
    registered = RegisterRequest(service="ext", address="127.0.0.1:9", version="v2", ttl=None)
    await plane.instances.register(registered)
    assert (await shift(plane, "ext", v2=10)).started == []


async def test_connections_of_plain_tcp_are_shifted_with_a_word_about_those_that_are_open(plane: ControlPlane) -> None:
    result = await shift(plane, "wire", v2=50)
    assert result.notes == ["open connections are closed after 5 s; their clients connect anew, by the new weights"]
    request = ShiftRequest(service="wire", weights={"v2": 5}, sticky="cookie", author="ann@canary shift")
    with pytest.raises(ConflictError, match="wire speaks plain TCP: --sticky is for requests"):
        await plane.shifts.shift(request)


async def test_a_mesh_that_was_stopped_shifts_nothing(plane: ControlPlane) -> None:
    await plane.down(force=True)
    with pytest.raises(ConflictError):
        await shift(plane, v2=5)


async def test_a_rollout_under_way_is_not_crossed_without_force(plane: ControlPlane) -> None:
    plane.shifts.find_rollout = lambda service: "a rollout of split to v2 is at 20%" if service == "split" else ""
    with pytest.raises(ConflictError, match="a rollout of split to v2 is at 20%"):
        await shift(plane, "split", v2=50)
    assert (await shift(plane, "split", v2=50, force=True)).after.weights["v2"] == 50


async def test_copies_go_to_a_version_that_is_brought_up(world: ControlWorld, plane: ControlPlane) -> None:
    result = await plane.shifts.mirror(MirrorRequest(service="shop", version="v2", percent=5, author="a@canary mirror"))
    assert result.started == ["shop-v2-1"]
    assert result.after.mirror is not None
    assert (result.after.mirror.version, result.after.mirror.percent) == ("v2", 5)
    stopped = await plane.shifts.mirror(MirrorRequest(service="shop", author="a@canary mirror"))
    assert stopped.after.mirror is None
    assert stopped.idle == ["v2"]
    assert written(plane) == {}
    with pytest.raises(ConflictError, match="no copies of requests to shop are sent"):
        await plane.shifts.mirror(MirrorRequest(service="shop", author="a@canary mirror"))
    with pytest.raises(ConflictError, match="v1 is the stable version of shop"):
        await plane.shifts.mirror(MirrorRequest(service="shop", version="v1", author="a@canary mirror"))
    with pytest.raises(ConflictError, match="wire speaks plain TCP"):
        await plane.shifts.mirror(MirrorRequest(service="wire", version="v2", author="a@canary mirror"))
