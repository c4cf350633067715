"""The register of faults: stored before they are made, ended in time, taken over, undone until that has worked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.state_store import FakeStateStore
from tests.support.control_world import ControlWorld, make_request, until

from meshctl.control.control_plane import ControlPlane
from meshctl.control.faults import FaultOrder, Reach
from meshctl.control.request_faults import LEASE
from meshctl.errors import ConflictError, NotFoundError, RejectedError, UsageError
from meshctl.ports import FaultRecord
from meshctl.wire.faults import ClearRequest, InjectRequest

TOPOLOGY = """
name: test
gateway: {port: 18080, routes: [{path: /, service: web}]}
services:
  web: {command: ./web, upstreams: [api]}
  api: {command: ./web}
"""
BROKEN = f"faults: {{first: {{service: api, abort: 503, for: 1h}}}}\n{TOPOLOGY}"


@pytest.fixture
def world(tmp_path: Path) -> ControlWorld:
    return ControlWorld(tmp_path)


@asynccontextmanager
async def running(world: ControlWorld, text: str = TOPOLOGY) -> AsyncIterator[ControlPlane]:
    async with world.running() as plane:
        await plane.begin()
        await plane.up(make_request(text))
        await plane.ready(60)
        yield plane


def order(**changes: Any) -> FaultOrder:
    values: dict[str, Any] = {
        "kind": "toy",
        "subject": "api-v1-1",
        "services": ("api",),
        "summary": "paused",
        "detail": "{}",
        "duration": 60.0,
        "author": "ann@inject pause",
    }
    return FaultOrder(**{**values, **changes})


def ask(service: str = "api", **changes: Any) -> InjectRequest:
    return InjectRequest(**{"service": service, "abort": 503, "author": "ann@inject fault", **changes})


class Toy:
    """A kind of fault that notes what is asked of it, and what the store held then."""

    def __init__(self, world: ControlWorld) -> None:
        self.world = world
        self.seen: list[str] = []
        self.stored: list[int] = []
        self.failing = 0
        self.broken = False

    def note(self, what: str, fault: FaultRecord) -> None:
        self.seen.append(f"{what} {fault.id}")
        self.stored.append(len(self.world.store.faults()))

    async def begin(self, fault: FaultRecord) -> int:
        self.note("begin", fault)
        if self.broken:
            raise RejectedError("no")
        return 2

    async def end(self, fault: FaultRecord) -> int:
        self.note("end", fault)
        if self.failing:
            self.failing -= 1
            raise RejectedError("not yet")
        return 1

    async def resume(self, fault: FaultRecord) -> None:
        self.note("resume", fault)
        if self.broken:
            raise NotFoundError("its instance is gone")

    def reach(self, _fault: FaultRecord) -> Reach:
        return Reach()


def shares(world: ControlWorld, node: str) -> str:
    items = world.sidecars.snapshots[node].of("type.googleapis.com/envoy.service.runtime.v3.Runtime")
    return items["meshctl-faults"].body.decode("utf-8", "replace")


# -------------------------------------------------------------------------------------------------------- any kind


async def test_a_fault_is_stored_before_it_is_made_and_until_it_is_undone(world: ControlWorld) -> None:
    """Invariant 7."""
    async with running(world) as plane:
        toy = plane.fault_register.kinds["toy"] = Toy(world)
        record, acked = await plane.fault_register.inject(order())
        assert (record.id, acked) == ("f1", 2)
        assert world.store.faults() == (record,)
        await plane.fault_register.clear(["f1"])
        assert toy.seen == ["begin f1", "end f1"]
        assert toy.stored == [1, 1]
        assert world.store.faults() == ()
        assert [line.partition(" ")[0] for line in await world.event_lines()][-2:] == ["fault.on", "fault.off"]


async def test_a_fault_ends_at_its_deadline(world: ControlWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshctl.control.faults.SHORTEST_DURATION", 0.01)
    async with running(world) as plane:
        toy = plane.fault_register.kinds["toy"] = Toy(world)
        await plane.fault_register.inject(order(duration=0.05))
        await until(lambda: not plane.fault_register.active(), "it is over")
        assert toy.seen == ["begin f1", "end f1"]


async def test_what_cannot_be_undone_is_tried_again_and_listed_meanwhile(
    world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshctl.control.faults.SHORTEST_DURATION", 0.01)
    async with running(world) as plane:
        waits = list[float]()

        async def wait(seconds: float) -> None:
            waits.append(seconds)
            assert plane.fault_register.state("f1") == "ending"

        plane.fault_register._wait = wait
        toy = plane.fault_register.kinds["toy"] = Toy(world)
        toy.failing = 3
        await plane.fault_register.inject(order(duration=0.05))
        await until(lambda: not plane.fault_register.active(), "it is undone")
        assert len(waits) == 3
        assert sum(line.startswith("fault.stuck") for line in await world.event_lines()) == 1


async def test_nothing_is_left_of_a_fault_that_could_not_be_made(world: ControlWorld) -> None:
    async with running(world) as plane:
        toy = plane.fault_register.kinds["toy"] = Toy(world)
        toy.broken = True
        with pytest.raises(RejectedError):
            await plane.fault_register.inject(order())
        await until(lambda: not plane.fault_register.active(), "it is undone")
        assert toy.seen == ["begin f1", "end f1"]
        assert world.store.faults() == ()


async def test_the_next_control_plane_takes_over_what_is_not_overdue(world: ControlWorld) -> None:
    async with running(world) as plane:
        plane.fault_register.kinds["toy"] = Toy(world)
        await plane.fault_register.inject(order())
        short, _ = await plane.fault_register.inject(order(id="short"))
    world.store.put_fault(replace(short, ends_at=short.started_at))
    plane = world.make()
    toy = plane.fault_register.kinds["toy"] = Toy(world)
    await world.engine.start()
    try:
        await plane.begin()
        await until(lambda: len(plane.fault_register.active()) == 1, "the overdue one is undone")
        assert sorted(toy.seen) == ["end short", "resume f1"]
        # An id is not used twice: whoever reads a log later must not take one fault for another.
        record, _ = await plane.fault_register.inject(order())
        assert record.id == "f2"
    finally:
        await world.engine.close()
        await world.engine.parts.host.close(stop=False)


async def test_what_cannot_be_taken_over_is_ended(world: ControlWorld) -> None:
    async with running(world) as plane:
        plane.fault_register.kinds["toy"] = Toy(world)
        await plane.fault_register.inject(order())
    plane = world.make()
    toy = plane.fault_register.kinds["toy"] = Toy(world)
    toy.broken = True
    await world.engine.start()
    try:
        await plane.begin()
        await until(lambda: not plane.fault_register.active(), "it is ended")
        assert toy.seen == ["resume f1", "end f1"]
    finally:
        await world.engine.close()
        await world.engine.parts.host.close(stop=False)


async def test_down_ends_every_fault_before_anything_is_stopped(world: ControlWorld) -> None:
    async with running(world) as plane:
        toy = plane.fault_register.kinds["toy"] = Toy(world)
        toy.failing = 1
        await plane.fault_register.inject(order())
        await plane.fault_register.inject(order())
        await plane.down(force=False)
        assert toy.seen[2:] == ["end f1", "end f2"]
        assert world.store.faults() == ()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"duration": 0.5}, UsageError, "cannot last 500ms"),
        ({"duration": 90_000.0}, UsageError, "cannot last 25h"),
        ({"id": "Not/this"}, UsageError, "cannot be the name"),
        ({"id": "f1"}, ConflictError, "f1 is on already"),
    ],
)
async def test_faults_that_cannot_be_are_refused(
    world: ControlWorld, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    async with running(world) as plane:
        plane.fault_register.kinds["toy"] = Toy(world)
        await plane.fault_register.inject(order())
        with pytest.raises(error, match=words):
            await plane.fault_register.inject(order(**changes))


async def test_no_fault_without_a_mesh(world: ControlWorld) -> None:
    async with world.running() as plane:
        with pytest.raises(ConflictError, match="not up"):
            await plane.faults.inject(ask())
        assert plane.faults.list().faults == []


async def test_clearing_what_is_not_on_says_what_is(world: ControlWorld) -> None:
    async with running(world) as plane:
        await plane.faults.inject(ask())
        with pytest.raises(NotFoundError, match="no fault f9 is on") as raised:
            await plane.faults.clear(ClearRequest(ids=["f9"], author="ann"))
        assert raised.value.hint == "faults that are on: f1"
        assert [fault.id for fault in (await plane.faults.clear(ClearRequest(author="ann"))).faults] == ["f1"]
        assert (await plane.faults.clear(ClearRequest(author="ann"))).faults == []


# --------------------------------------------------------------------------------------------------------- requests


async def test_a_fault_on_requests_is_published_to_those_it_concerns_and_renewed(
    world: ControlWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshctl.control.request_faults.RENEW_EVERY", 0.05)
    async with running(world) as plane:
        done = await plane.faults.inject(ask(percent=20, callers=["web"]))
        assert done.fault is not None
        assert (done.acked, done.fault.summary) == (1, "abort 503, 20% of requests from web")
        assert "meshctl.fault.f1.0.abort" in shares(world, "api")
        assert "meshctl.fault" not in shares(world, "web")
        await until(lambda: "api" in world.sidecars.renewed, "its lease is renewed")
        assert "web" not in world.sidecars.renewed
        assert plane.faults.lease("api") == LEASE
        assert plane.status().faults[0].id == "f1"
        await plane.faults.clear(ClearRequest(ids=["f1"], author="ann"))
        assert "meshctl.fault" not in shares(world, "api")


async def test_a_lease_never_outlives_a_deadline(world: ControlWorld) -> None:
    async with running(world) as plane:
        await plane.faults.inject(ask(duration=f"{0.9 * LEASE:g}s"))
        assert 0 < plane.faults.lease("api") <= 0.9 * LEASE


async def test_a_fault_that_a_sidecar_refuses_is_undone(world: ControlWorld) -> None:
    async with running(world) as plane:
        world.sidecars.stubborn["api"] = world.sidecars.snapshots["api"].version
        with pytest.raises(RejectedError):
            await plane.faults.inject(ask())
        await until(lambda: not plane.fault_register.active(), "it is undone")
        assert "meshctl.fault" not in shares(world, "api")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"service": "apy"}, NotFoundError, "did you mean `api`"),
        ({"version": "v7"}, NotFoundError, "no version of `api`"),
        ({"instance": "api-v1-9"}, NotFoundError, "has no instance api-v1-9"),
        ({"callers": ["nobody"]}, NotFoundError, "no service"),
        ({"abort": 0}, UsageError, "does nothing"),
        ({"abort": 99}, UsageError, "--abort must be a whole number"),
        ({"duration": "2d"}, UsageError, "duration"),
        ({"percent": 0.0}, UsageError, "more than nothing"),
        ({"service": "web"}, ConflictError, "every request from outside for / will fail"),
        ({"service": "gateway"}, ConflictError, "wants a confirmation"),
        ({"name": "Bad name"}, UsageError, "cannot be the name"),
    ],
)
async def test_requests_for_faults_that_cannot_be_say_why(
    world: ControlWorld, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    async with running(world) as plane:
        with pytest.raises(error, match=words):
            await plane.faults.inject(ask(**changes))
        assert plane.fault_register.active() == ()


async def test_a_fault_and_a_rollout_at_one_service_want_force(world: ControlWorld) -> None:
    async with running(world) as plane:
        plane.faults.find_rollout = lambda service: f"a rollout of {service} is at 25%"
        with pytest.raises(ConflictError, match="a rollout of api is at 25%"):
            await plane.faults.inject(ask())
        await plane.faults.inject(ask(force=True))
        assert plane.rollout_runner.find_fault("api") == "fault f1 (abort 503, 100% of requests)"
        assert plane.rollout_runner.find_fault("web") == ""


async def test_there_are_only_so_many_slots(world: ControlWorld) -> None:
    async with running(world) as plane:
        for _ in range(3):
            await plane.faults.inject(ask(delay="10ms", percent=10.0, exclusive=True))
        with pytest.raises(ConflictError, match="too many faults on api already"):
            await plane.faults.inject(ask())
        # The other side has slots of its own, and so has another service.
        await plane.faults.inject(ask(side="caller"))
        await plane.faults.inject(ask("web", percent=10.0))
        # What the gateway makes of everything stands beside what it makes of requests to one service.
        for _ in range(5):
            await plane.faults.inject(ask("gateway", percent=10.0))
        with pytest.raises(ConflictError, match="too many faults"):
            await plane.faults.inject(ask("gateway", percent=10.0))


async def test_a_dry_run_changes_nothing(world: ControlWorld) -> None:
    async with running(world) as plane:
        seen = await plane.faults.inject(ask("gateway", dry_run=True))
        assert (seen.fault, seen.forecast.danger) == (None, "every request from outside will fail")
        assert world.store.faults() == ()


async def test_the_faults_of_a_topology_begin_with_it(world: ControlWorld) -> None:
    async with running(world, BROKEN) as plane:
        await until(lambda: "meshctl.fault.first" in shares(world, "api"), "it is on")
        (fault,) = plane.faults.list().faults
        assert (fault.id, fault.origin) == ("first", "topology")
        assert 3000 < fault.remaining <= 3600
        # One that was cleared stays so while its text is the same.
        await plane.faults.clear(ClearRequest(ids=["first"], author="ann"))
        await plane.up(make_request(BROKEN))
        await asyncio.sleep(0.05)
        assert plane.faults.list().faults == []
        await plane.up(make_request(BROKEN.replace("503", "500")))
        await until(lambda: plane.faults.list().faults, "it is on with its new text")
        await plane.up(make_request(TOPOLOGY))
        await until(lambda: not plane.faults.list().faults, "it is over with its text")


async def test_a_fault_of_a_topology_whose_name_is_taken_is_told_of(world: ControlWorld) -> None:
    async with running(world) as plane:
        await plane.faults.inject(ask(name="first"))
        await plane.up(make_request(BROKEN))
        await asyncio.sleep(0.05)
        assert [fault.origin for fault in plane.faults.list().faults] == ["command"]


async def test_a_store_that_was_left_by_a_mesh_that_is_down_has_no_faults_for_the_next(tmp_path: Path) -> None:
    store = FakeStateStore()
    store.put_fault(
        FaultRecord(
            id="f1",
            kind="http",
            subject="api",
            services=("api",),
            summary="",
            detail="{}",
            started_at=0.0,
            ends_at=1e12,
            author="ann",
        )
    )
    world = ControlWorld(tmp_path, store)
    async with world.running() as plane:
        await plane.begin()
        assert plane.faults.list().faults == []
        assert store.faults() == ()
