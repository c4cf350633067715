"""What Envoy's checks say, read from sidecars that answer, hang, or are not there yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from meshctl.control import health
from meshctl.control.health import HealthReader
from meshctl.telemetry.names import HEALTH_STATS


class FakeAdmin:
    """Sidecars by socket: the gauges of their instances; OSError where there are none."""

    def __init__(self) -> None:
        self.gauges: dict[str, dict[str, int]] = {}
        self.hanging: set[str] = set()
        self.late: set[str] = set()
        self.failures: dict[str, int] = {}
        self.asked: list[str] = []

    async def get(self, socket: str, path: str) -> str:
        self.asked.append(socket)
        if socket in self.hanging:
            await asyncio.Event().wait()
        if socket in self.late:
            raise OSError(f"{socket} did not answer in time")
        if socket not in self.gauges:
            raise ConnectionRefusedError(socket)
        lines = [f"cluster.local/{name}.membership_healthy: {n}" for name, n in self.gauges[socket].items()]
        lines += [f"cluster.local/{name}.upstream_rq_active: 3" for name in self.gauges[socket]]
        lines += [f"cluster.local/{name}.health_check.failure: {n}" for name, n in self.failures.items()]
        return "\n".join([*lines, "cluster.other.membership_healthy: 7", "nonsense", ""])

    async def post(self, socket: str, path: str) -> str:
        raise AssertionError("nothing is changed")


class World:
    def __init__(self) -> None:
        self.admin = FakeAdmin()
        self.sidecars: dict[str, tuple[str, ...]] = {}
        self.answers: dict[str, bool | None] = {}
        self.turns = 0
        self.errors: list[str] = []
        self.reader = HealthReader(
            admin=self.admin,
            sidecars=lambda: self.sidecars,
            report=self.answers.__setitem__,
            on_error=lambda name, error: self.errors.append(f"{name}: {error}"),
            wait=self.wait,
        )

    async def wait(self, _seconds: float) -> None:
        self.turns += 1
        await asyncio.sleep(0)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.reader.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert self.errors == []

    async def until(self, instance: str, answer: bool | None) -> None:
        async with asyncio.timeout(60):
            while self.answers.get(instance, "none") is not answer:
                await asyncio.sleep(0)


@pytest.fixture
def world() -> World:
    return World()


async def test_an_instance_passes_while_envoy_counts_it_as_a_healthy_member(world: World) -> None:
    world.sidecars = {"a": ("web-v1-1", "web-v1-2"), "b": ("api.x-1",), "c": ("new-v1-1",)}
    world.admin.gauges = {"a": {"web-v1-1": 1, "web-v1-2": 0}, "b": {"api.x-1": 1}, "c": {}}
    world.admin.failures = {"web-v1-1": 3, "web-v1-2": 1}
    assert not await world.reader.read()
    assert world.answers == {"web-v1-1": True, "web-v1-2": False, "api.x-1": True, "new-v1-1": None}


async def test_an_instance_that_was_not_checked_yet_is_not_said_to_fail(world: World) -> None:
    world.sidecars = {"a": ("web-v1-1",)}
    world.admin.gauges, world.admin.failures = {"a": {"web-v1-1": 0}}, {"web-v1-1": 0}
    assert not await world.reader.read()
    assert world.answers == {"web-v1-1": None}


async def test_what_somebody_else_read_of_a_sidecar_is_taken(world: World) -> None:
    world.sidecars = {"a": ("web-v1-1",)}
    for healthy, failures, answer in [(1, 0, True), (0, 2, False), (0, 0, None)]:
        gauge, counter = (f"cluster.local/web-v1-1.{stat}" for stat in HEALTH_STATS)
        world.reader.hear("a", {gauge: healthy, counter: failures})
        assert world.answers == {"web-v1-1": answer}
    world.reader.hear("gone", {})
    assert world.answers == {"web-v1-1": None}


async def test_a_sidecar_is_asked_only_while_nothing_is_heard_of_it(world: World) -> None:
    world.sidecars = {"a": ("web-v1-1",), "b": ("api-v1-1",)}
    world.admin.gauges = {"a": {"web-v1-1": 1}, "b": {"api-v1-1": 1}}
    world.reader.hear("a", {"cluster.local/web-v1-1.health_check.failure": 1})
    async with world.running():
        await world.until("api-v1-1", True)
        assert world.answers["web-v1-1"] is False
        # Nothing more is heard, so that it is asked in the next turn.
        await world.until("web-v1-1", True)


async def test_a_sidecar_that_does_not_answer_says_nothing(world: World) -> None:
    world.sidecars = {"a": ("web-v1-1",)}
    assert not await world.reader.read()
    assert world.answers == {"web-v1-1": None}
    assert await world.reader.active_requests("a", "web-v1-1") == 0


async def test_requests_under_way_are_counted(world: World) -> None:
    world.admin.gauges = {"a": {"web-v1-1": 1}}
    assert await world.reader.active_requests("a", "web-v1-1") == 3
    assert await world.reader.active_requests("a", "web-v1-2") == 0


async def test_a_sidecar_that_does_not_answer_in_time_counts_as_busy(world: World) -> None:
    world.admin.gauges, world.admin.late = {"a": {"web-v1-1": 1}}, {"a"}
    assert await world.reader.active_requests("a", "web-v1-1") == 1


async def test_without_sidecars_everything_passes(world: World) -> None:
    assert await world.reader.read()


async def test_in_a_hurry_it_reads_until_all_pass_and_then_rests(world: World) -> None:
    world.sidecars = {"a": ("web-v1-1",)}
    async with world.running():
        world.reader.hurry()
        await world.until("web-v1-1", None)
        world.admin.gauges = {"a": {"web-v1-1": 1}}
        await world.until("web-v1-1", True)
        async with asyncio.timeout(60):
            while world.reader.is_eager:
                await asyncio.sleep(0)


async def test_one_that_never_passes_does_not_keep_it_in_a_hurry(world: World) -> None:
    world.sidecars = {"a": ("web-v1-1",)}
    world.admin.gauges = {"a": {"web-v1-1": 0}}
    async with world.running():
        world.reader.hurry()
        async with asyncio.timeout(60):
            while world.reader.is_eager:
                await asyncio.sleep(0)
        assert world.turns <= health._EAGER_TURNS + 1


async def test_in_a_hurry_those_that_pass_are_read_seldom(world: World) -> None:
    world.sidecars = {"a": ("web-v1-1",), "b": ("api-v1-1",)}
    world.admin.gauges = {"a": {"web-v1-1": 1}, "b": {"api-v1-1": 0}}
    async with world.running():
        world.reader.hurry()
        async with asyncio.timeout(60):
            while world.reader.is_eager:
                await asyncio.sleep(0)
    assert world.admin.asked.count("b") > health._EAGER_TURNS - 5
    assert world.admin.asked.count("a") < 2 * health._EAGER_TURNS / health._TURNS_OF_ALL


async def test_a_sidecar_that_hangs_holds_up_no_other(world: World) -> None:
    world.sidecars = {"hangs": ("web-v1-1",), "b": ("api-v1-1",)}
    world.admin.hanging = {"hangs"}
    world.admin.gauges, world.admin.failures = {"b": {"api-v1-1": 0}}, {"api-v1-1": 1}
    async with world.running():
        world.reader.hurry()
        await world.until("api-v1-1", False)
        world.admin.gauges = {"b": {"api-v1-1": 1}}
        await world.until("api-v1-1", True)
        assert "web-v1-1" not in world.answers
    assert world.admin.asked.count("hangs") == 1


async def test_instances_that_are_gone_are_not_awaited(world: World) -> None:
    world.sidecars = {"a": ("web-v1-1",), "b": ("api-v1-1",)}
    world.admin.gauges = {"a": {"web-v1-1": 1}}
    async with world.running():
        world.reader.hurry()
        await world.until("api-v1-1", None)
        del world.sidecars["b"]
        async with asyncio.timeout(60):
            while world.reader.is_eager:
                await asyncio.sleep(0)
    assert world.turns < health._EAGER_TURNS


async def test_at_rest_sidecars_are_asked_in_turn_and_at_once_when_somebody_is_awaited(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_SPREAD", 3600.0)
    monkeypatch.setattr(health, "_STEADY", 3600.0)
    world.sidecars = {"a": ("web-v1-1",), "b": ("api-v1-1",)}
    world.admin.gauges = {"a": {"web-v1-1": 1}, "b": {"api-v1-1": 1}}
    async with world.running():
        await world.until("web-v1-1", True)
        assert world.admin.asked == ["a"]
        world.reader.hurry()
        await world.until("api-v1-1", True)
