"""Rollouts on a machine in memory: what is written down and pushed, and how it goes on after a kill."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from tests.support.control_world import ControlWorld, make_request, until
from tests.support.rollouts import QUICK, make_counts, make_sample

from meshctl.canary.machine import replay
from meshctl.canary.model import Counts, Rollout, Sample
from meshctl.control.control_plane import ControlPlane
from meshctl.control.rollout_book import first_of
from meshctl.control.rollouts import Rollouts
from meshctl.errors import ConflictError, MeshctlError, NotFoundError, UsageError
from meshctl.wire.shifts import ShiftRequest

TOPOLOGY = """
services:
  front: {command: ./web, upstreams: [shop]}
  shop:
    command: ./web
    versions: {v1: {}, v2: {replicas: 0}, v3: {command: ./crash, replicas: 0}}
  wire: {protocol: tcp, command: ./web, versions: {v1: {}, v2: {}}}
"""

GOOD = make_counts(100, 1)
BAD = make_counts(100, 30)


class Driver:
    """A control plane whose rollouts see made-up traffic and a clock that is moved by hand."""

    def __init__(self, plane: ControlPlane, at: float = 1000.0) -> None:
        self.plane, self.rollouts, self.at = plane, plane.rollout_runner, at
        self.canary: Counts = GOOD
        self.fault = ""
        self.rollouts.now = lambda: self.at
        self.rollouts.read = self.read
        self.seen: list[float] = []

    def read(self, rollout: Rollout, now: float) -> Sample | None:
        self.seen.append(now)
        return make_sample(now, self.canary, make_counts(900, 9), fault=self.fault)

    @property
    def rollout(self) -> Rollout:
        (found,) = self.rollouts.status("shop")
        return found

    @property
    def split(self) -> dict[str, int]:
        mesh = self.plane.policies.changer._engine.mesh
        assert mesh is not None
        return dict(mesh.services["shop"].split)

    async def settle(self) -> Rollout:
        await until(lambda: not self.rollouts._work, "nothing is being pushed")
        return self.rollout

    async def tick(self, seconds: float = 1.0) -> Rollout:
        self.at += seconds
        self.rollouts.look()
        return await self.settle()

    async def start(self, version: str = "v2", **more: object) -> Rollout:
        await self.rollouts.start("shop", version, QUICK, author="ann@canary start", **more)  # type: ignore[arg-type]
        return await self.settle()


@pytest.fixture
def world(tmp_path: Path) -> ControlWorld:
    return ControlWorld(tmp_path)


@pytest.fixture
async def driver(world: ControlWorld) -> AsyncIterator[Driver]:
    async with world.running() as plane:
        await plane.up(make_request(TOPOLOGY))
        assert (await plane.ready(60)).state == "ready"
        yield Driver(plane)


async def test_a_good_version_goes_through_all_steps(world: ControlWorld, driver: Driver) -> None:
    rollout = await driver.start()
    assert (rollout.phase, rollout.weight, driver.split) == ("running", 5, {"v1": 95, "v2": 5})
    assert "shop-v2-1" in world.alive
    weights = [5]
    for _ in range(200):
        rollout = await driver.tick()
        if driver.split.get("v2", 0) != weights[-1]:
            weights.append(driver.split["v2"])
        if rollout.ended:
            break
    assert weights == [5, 10, 25, 50, 100]
    assert rollout.phase == "promoted"
    assert driver.split == {"v2": 100}
    ((_, decisions),) = driver.rollouts.history("shop")
    assert [decision.number for decision in decisions] == list(range(1, len(decisions) + 1))
    assert decisions[-1].phase == "promoted"


async def test_a_bad_version_is_rolled_back_and_stays_so(driver: Driver) -> None:
    await driver.start()
    driver.canary = BAD
    for _ in range(5):
        rollout = await driver.tick()
    assert rollout.phase == "rolled_back"
    assert driver.split == {"v1": 100}
    assert "30% errors at v2" in rollout.why
    with pytest.raises(ConflictError, match=r"this v2 of shop was rolled back \(rollout 1\)") as error:
        await driver.start()
    assert "canary retry" in error.value.hint
    again = await driver.rollouts.retry("shop", author="ann@canary retry")
    assert (again.number, again.phase) == (2, "starting")
    assert (await driver.settle()).phase == "running"


async def test_decisions_can_be_made_again_from_what_is_written_down(driver: Driver) -> None:
    await driver.start()
    for _ in range(15):
        await driver.tick()
    driver.canary = BAD
    for _ in range(5):
        await driver.tick()
    entries = driver.rollouts.entries(1)
    first = first_of(entries)
    assert first is not None
    events = [(entry.event, entry.decision.time) for entry in entries[1:] if entry.event is not None]
    assert replay(first, events) == [entry.decision for entry in entries]


async def test_a_version_that_does_not_come_up_gets_nothing(driver: Driver) -> None:
    rollout = await driver.start("v3")
    assert rollout.phase == "failed"
    assert "shop-v3-1" in rollout.why
    assert driver.split == {"v1": 100}
    assert driver.seen == []


async def test_what_cannot_be_rolled_out_is_refused(driver: Driver) -> None:
    async def start(service: str, version: str, **settings: object) -> None:
        chosen = type(QUICK)(**settings)  # type: ignore[arg-type]
        await driver.rollouts.start(service, version, chosen, author="ann@canary start")

    with pytest.raises(NotFoundError, match="no service nowhere"):
        await start("nowhere", "v2")
    with pytest.raises(NotFoundError, match="shop has no version v9") as missing:
        await start("shop", "v9")
    assert "v1 (stable), v2, v3" in missing.value.hint
    with pytest.raises(ConflictError, match="v1 is the stable version of shop"):
        await start("shop", "v1")
    with pytest.raises(ConflictError, match="wire speaks plain TCP"):
        await start("wire", "v2")
    with pytest.raises(UsageError, match=r"the window \(5s\) is shorter than the interval"):
        await start("shop", "v2", window=5.0)
    driver.rollouts.find_fault = lambda _service: "30% abort"
    with pytest.raises(ConflictError, match=r"a fault is on at shop \(30% abort\)"):
        await start("shop", "v2")
    with pytest.raises(ConflictError, match="no rollout of shop is under way"):
        await driver.rollouts.pause("shop", author="ann")
    with pytest.raises(ConflictError, match="shop has no rollout to retry"):
        await driver.rollouts.retry("shop", author="ann")
    assert driver.rollouts.status("shop") == []


async def test_one_rollout_at_a_time_unless_it_takes_over(driver: Driver) -> None:
    await driver.start()
    with pytest.raises(ConflictError, match="a rollout of shop to v2 is at 5%"):
        await driver.start()
    with pytest.raises(ConflictError, match="a rollout of shop to v2 is at 5%"):
        await driver.plane.shifts.shift(ShiftRequest(service="shop", weights={"v2": 50}, author="ann@canary shift"))
    # What can never be is said first.
    with pytest.raises(ConflictError, match="v1 is the stable version of shop"):
        await driver.rollouts.start("shop", "v1", QUICK, author="ann@canary start")
    with pytest.raises(NotFoundError, match="shop has no version v9"):
        await driver.rollouts.start("shop", "v9", QUICK, author="ann@canary start")
    rollout = await driver.start(replace=True)
    assert (rollout.number, rollout.phase) == (2, "running")
    ((first, _), _) = driver.rollouts.history("shop")
    assert (first.phase, first.why) == ("cancelled", "replaced by rollout 2 to v2")


async def test_a_version_that_was_rolled_back_before_another_can_be_tried_again(driver: Driver) -> None:
    await driver.start()
    await driver.rollouts.rollback("shop", author="ann")
    await driver.rollouts.start("shop", "v3", QUICK, author="ann@canary start")
    await driver.rollouts.rollback("shop", author="ann")
    with pytest.raises(ConflictError, match=r"was rolled back \(rollout 1\)") as latched:
        await driver.start()
    assert latched.value.hint.endswith("meshctl canary retry shop v2")
    rollout = await driver.rollouts.retry("shop", version="v2", author="ann")
    assert (rollout.number, rollout.version) == (3, "v2")
    await driver.rollouts.rollback("shop", author="ann")
    with pytest.raises(ConflictError, match="shop has no rollout of v1 to retry"):
        await driver.rollouts.retry("shop", version="v1", author="ann")


async def test_by_hand(driver: Driver) -> None:
    await driver.start()
    paused = await driver.rollouts.pause("shop", author="ann", reason="lunch")
    assert (paused.phase, paused.pause, paused.why) == ("paused", "by_hand", "paused by ann: lunch")
    assert (await driver.tick(1000)).phase == "paused"
    assert driver.seen == []
    assert (await driver.rollouts.resume("shop", author="ann")).phase == "running"
    assert (await driver.rollouts.promote("shop", full=False, author="ann")).weight == 10
    assert driver.split == {"v1": 90, "v2": 10}
    promoted = await driver.rollouts.promote("shop", full=True, author="ann")
    assert promoted.phase == "promoted"
    assert driver.split == {"v2": 100}


async def test_a_rollback_by_hand_is_one_step_to_zero(driver: Driver) -> None:
    await driver.start()
    for _ in range(30):
        await driver.tick()
    assert driver.split["v2"] > 5
    rollout = await driver.rollouts.rollback("shop", author="ann", reason="no")
    assert (rollout.phase, rollout.why, driver.split) == ("rolled_back", "rolled back by ann: no", {"v1": 100})


async def test_a_split_set_by_somebody_else_pauses(driver: Driver) -> None:
    await driver.start()
    await driver.plane.policies.changer.set_policy("shop", "split", {"v1": 60, "v2": 40}, author="bob@apply")
    rollout = await driver.tick()
    assert (rollout.phase, rollout.pause) == ("paused", "disturbed")
    assert rollout.why == "somebody else has set the split of shop: v1 60%, v2 40%"
    assert driver.split == {"v1": 60, "v2": 40}
    await driver.rollouts.resume("shop", author="ann")
    assert (await driver.settle()).phase == "running"
    assert driver.split == {"v1": 95, "v2": 5}


async def test_another_revision_of_the_version_begins_again(driver: Driver) -> None:
    await driver.start()
    for _ in range(30):
        await driver.tick()
    assert driver.split["v2"] > 5
    await driver.plane.up(make_request(TOPOLOGY.replace("v2: {replicas: 0}", "v2: {replicas: 0, env: {NEW: yes}}")))
    rollout = await driver.tick()
    assert (rollout.phase, rollout.weight) == ("running", 5)
    assert driver.split == {"v1": 95, "v2": 5}


async def test_a_version_that_leaves_the_topology_ends_its_rollout(driver: Driver) -> None:
    await driver.start()
    await driver.rollouts.rollback("shop", author="ann")
    await driver.rollouts.retry("shop", author="ann")
    await driver.settle()
    await driver.plane.up(make_request("services: {front: {command: ./web}}"))
    driver.rollouts.look()
    found = [rollout for rollout, _ in driver.rollouts.history()]
    assert (found[-1].phase, found[-1].why) == ("cancelled", "the topology no longer has shop")


async def test_a_fault_holds_and_is_no_evidence(driver: Driver) -> None:
    await driver.start()
    driver.canary, driver.fault = BAD, "30% abort"
    for _ in range(30):
        rollout = await driver.tick()
    assert (rollout.phase, rollout.weight) == ("running", 5)
    assert rollout.why == "30% abort is on: what it does is not held against v2"


async def test_a_fault_that_is_over_still_counts_for_the_tick_that_it_was_in(driver: Driver) -> None:
    await driver.start()
    since = driver.rollouts._fault_since
    assert since("shop", driver.at) == ""
    driver.rollouts.find_fault = lambda _service: "30% abort"
    await driver.tick(10)
    driver.rollouts.find_fault = lambda _service: ""
    await driver.tick(10)
    assert since("shop", driver.at - 10) == "30% abort"
    assert since("shop", driver.at - 4) == ""


async def test_a_sidecar_that_refuses_leaves_the_weight_before(world: ControlWorld, driver: Driver) -> None:
    await driver.start()
    world.sidecars.stubborn["front"] = world.sidecars.snapshots["front"].version
    with pytest.raises(ConflictError, match="10% to v2 is not in effect: the sidecar of front refused"):
        await driver.rollouts.promote("shop", full=False, author="ann")
    assert (driver.rollout.phase, driver.rollout.weight) == ("paused", 5)
    assert driver.split == {"v1": 95, "v2": 5}


async def test_what_cannot_be_written_down_is_done_once_it_can(
    world: ControlWorld, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when the answer comes: the weight is pushed again, which changes nothing, and noted then."""
    full = True
    put = world.rollouts.put_rollout

    def put_rollout(number: int, body: str, entries: Mapping[int, str]) -> None:
        if full and '"event":"applied"' in "".join(entries.values()):
            raise MeshctlError("the disk is full")
        put(number, body, entries)

    await driver.start()
    monkeypatch.setattr(world.rollouts, "put_rollout", put_rollout)
    asked = asyncio.ensure_future(driver.rollouts.promote("shop", full=False, author="ann"))
    await until(lambda: driver.split == {"v1": 90, "v2": 10}, "the weight is in effect")
    for _ in range(3):
        await driver.tick()
    assert (driver.rollout.phase, driver.rollout.applied) == ("shifting", 5)
    assert [line for line in await world.event_lines() if "disk" in line] == ["rollout.trouble shop: the disk is full"]
    full = False
    await driver.tick()
    assert (await asked).phase == "running"
    assert (driver.rollout.applied, driver.split) == (10, {"v1": 90, "v2": 10})


async def test_a_stream_ends_with_its_rollout(driver: Driver) -> None:
    await driver.start()
    seen = [rollout.phase async for rollout in _follow(driver)]
    assert seen[0] == "running"
    assert seen[-1] == "rolled_back"


async def _follow(driver: Driver) -> AsyncIterator[Rollout]:
    driver.canary = BAD
    async for rollout in driver.rollouts.stream("shop"):
        yield rollout
        if not rollout.ended:
            await driver.tick()


# ---------------------------------------------------------------------------------------------- killed, and begun again


async def test_a_control_plane_that_was_killed_holds_the_weight_and_counts_afresh(world: ControlWorld) -> None:
    async with world.running() as plane:
        await plane.up(make_request(TOPOLOGY))
        assert (await plane.ready(60)).state == "ready"
        before = Driver(plane)
        await before.start()
        for _ in range(8):
            await before.tick()
        was = before.rollout
        assert was.requests > QUICK.min_requests
    async with world.running() as plane:
        after = Driver(plane, at=5000.0)
        rollout = await after.tick()
        assert (rollout.phase, rollout.weight, rollout.requests) == ("running", 5, 0)
        assert len(rollout.evidence.errors.rows) == len(was.evidence.errors.rows)
        assert after.split == {"v1": 95, "v2": 5}
        for _ in range(8):
            assert (await after.tick()).weight == 5
        for _ in range(4):
            await after.tick()
        assert after.split == {"v1": 90, "v2": 10}


@pytest.mark.parametrize("moment", ["starting", "shifting", "rolling_back"])
async def test_what_was_decided_is_brought_into_effect_after_a_kill(world: ControlWorld, moment: str) -> None:
    """Invariant 6: the decision is in the store, and the push never came."""
    async with world.running() as plane:
        await plane.up(make_request(TOPOLOGY))
        assert (await plane.ready(60)).state == "ready"
        before = Driver(plane)
        if moment != "starting":
            await before.start()
        rollouts: Rollouts = before.rollouts
        rollouts._carry_out = lambda *_: None  # type: ignore[method-assign]
        if moment == "starting":
            await rollouts.start("shop", "v2", QUICK, author="ann@canary start")
        before.canary = BAD if moment == "rolling_back" else GOOD
        for _ in range(13):
            if before.rollout.phase not in ("running", "shifting"):
                break
            before.at += 1
            if before.rollout.phase == "running":
                rollouts.look()
        assert before.rollout.phase == moment
        split = before.split
        assert split == {"v1": 100} if moment == "starting" else {"v1": 95, "v2": 5}
    async with world.running() as plane:
        after = Driver(plane, at=5000.0)
        rollout = await after.tick()
        expected = {
            "starting": ("running", {"v1": 95, "v2": 5}),
            "shifting": ("running", {"v1": 90, "v2": 10}),
            "rolling_back": ("rolled_back", {"v1": 100}),
        }[moment]
        assert (rollout.phase, after.split) == expected
