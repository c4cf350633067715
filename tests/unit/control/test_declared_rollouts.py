"""Rollouts that a topology names: when they begin, when not, and what the API tells of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import fields
from pathlib import Path

import pytest
from tests.support.control_world import ControlWorld, make_request, until
from tests.support.rollouts import make_counts, make_sample

from meshctl.canary.model import Rollout, Sample, Settings
from meshctl.canary.settings import settings_of
from meshctl.control.control_plane import ControlPlane
from meshctl.errors import StartError
from meshctl.spec.rollout_schema import RolloutRules
from meshctl.wire.explain import ExplainRequest
from meshctl.wire.rollouts import ChangeRequest, StartRequest

TOPOLOGY = """
services:
  front: {command: ./web, upstreams: [shop]}
  shop:
    command: ./web
    versions: {v1: {}, v2: {env: {PRICE: "%d"}}, v3: {command: ./crash, replicas: 0}}
    rollout: {version: v2, steps: [20, 100], window: 30s, alpha: 0.05}
"""
LINE = "shop: v2 is rolled out when all is ready"


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    def read(rollout: Rollout, now: float) -> Sample | None:
        del rollout
        return make_sample(now, make_counts(100, 1), make_counts(900, 9))

    async with ControlWorld(tmp_path).running() as running:
        running.rollout_runner.read = read
        yield running


async def bring_up(plane: ControlPlane, price: int = 1) -> list[str]:
    changes = (await plane.up(make_request(TOPOLOGY % price, author="ann@up"))).changes
    assert (await plane.ready(60)).state == "ready"
    return changes


def of_shop(plane: ControlPlane) -> Rollout | None:
    return next(iter(plane.rollout_runner.status("shop")), None)


async def begun(plane: ControlPlane, number: int) -> Rollout:
    def runs() -> bool:
        rollout = of_shop(plane)
        return rollout is not None and rollout.number == number and rollout.phase == "running"

    await until(runs, f"rollout {number} runs")
    rollout = of_shop(plane)
    assert rollout is not None
    return rollout


async def test_it_begins_by_itself_once_all_is_ready_as_the_topology_says(plane: ControlPlane) -> None:
    assert LINE in await bring_up(plane)
    rollout = await begun(plane, 1)
    assert (rollout.version, rollout.weight, rollout.author) == ("v2", 20, "ann@up")
    assert rollout.settings == Settings(steps=(20, 100), window=30.0, alpha=0.05)


async def test_what_is_under_way_or_was_tried_is_left_alone_until_it_is_new(plane: ControlPlane) -> None:
    await bring_up(plane)
    await begun(plane, 1)
    assert LINE not in await bring_up(plane)
    ended = await plane.rollouts.roll_back(ChangeRequest(service="shop", author="ann"))
    assert ended.phase == "rolled_back"
    assert LINE not in await bring_up(plane)
    await until(lambda: not list(plane.declared.find_new()), "nothing is new")
    assert LINE in await bring_up(plane, price=2)
    assert (await begun(plane, 2)).revision != ended.revision


async def test_a_rollout_of_another_version_is_not_ended_by_it(plane: ControlPlane) -> None:
    await plane.up(make_request((TOPOLOGY % 1).replace("rollout: {version: v2, ", "rollout: {")))
    assert (await plane.ready(60)).state == "ready"
    assert of_shop(plane) is None
    asked = StartRequest(service="shop", version="v2", author="ann", alpha=0.1)
    begun_by_hand = await plane.rollouts.start(asked)
    assert (begun_by_hand.settings.steps, begun_by_hand.settings.alpha) == ([20, 100], 0.1)
    assert begun_by_hand.phase == "running"
    found = await plane.up(make_request((TOPOLOGY % 1).replace("version: v2", "version: v3")))
    assert found.changes == ["shop: rollout changed"]
    assert found.differs == []
    assert found.notes[0] == "shop: a rollout to v2 is under way; `meshctl canary status shop` shows it"
    assert "v3 is not rolled out meanwhile; `meshctl canary start shop v3 --replace`" in found.notes[1]
    rollout = of_shop(plane)
    assert rollout is not None
    assert (rollout.number, rollout.version) == (1, "v2")


async def test_what_latched_is_told_with_the_way_out_of_it(plane: ControlPlane) -> None:
    await bring_up(plane)
    await begun(plane, 1)
    await plane.rollouts.roll_back(ChangeRequest(service="shop", author="ann"))
    notes = (await plane.up(make_request(TOPOLOGY % 1))).notes
    assert notes == [
        "shop: v2 is not rolled out: as it is now it was rolled back once (rollout 1)",
        "shop: `meshctl canary retry shop` does it all the same",
    ]


async def test_other_settings_are_for_the_next_rollout_and_up_says_so(plane: ControlPlane) -> None:
    await bring_up(plane)
    await begun(plane, 1)
    found = await plane.up(make_request((TOPOLOGY % 1).replace("[20, 100]", "[50, 100]")))
    assert found.changes == ["shop: rollout changed"]
    assert found.notes[1] == "shop: it goes on with the settings that it began with"
    rollout = of_shop(plane)
    assert rollout is not None
    assert (rollout.phase, rollout.weight, rollout.settings.steps) == ("running", 20, (20, 100))


async def test_a_promotion_is_not_undone_by_up_nor_called_a_slip(plane: ControlPlane) -> None:
    await bring_up(plane)
    await begun(plane, 1)
    await plane.rollouts.promote(ChangeRequest(service="shop", author="ann", full=True))
    found = await plane.up(make_request(TOPOLOGY % 1))
    assert (found.changes, found.differs) == ([], [])
    assert found.notes == [
        "shop: v2 has all of the traffic, since rollout 1 promoted it",
        "shop: write `stable: v2` in the topology; `meshctl up --reset` would take it back",
    ]
    assert split_of_shop(plane) == {"v2": 100}
    # Once the file says so too, nothing is left of it that differs from the file.
    said = (TOPOLOGY % 1).replace("rollout: {version: v2, ", "stable: v2\n    rollout: {")
    found = await plane.up(make_request(said))
    assert (found.differs, found.notes) == ([], [])
    assert split_of_shop(plane) == {"v2": 100}
    assert ("shop", "split") not in (plane.policies.changer._engine.parts.topology.revisions.documents or {})
    await plane.up(make_request(said, reset=True))
    assert split_of_shop(plane) == {"v2": 100}


async def test_a_promotion_that_was_undone_is_told_and_not_begun_again(plane: ControlPlane) -> None:
    await bring_up(plane)
    await begun(plane, 1)
    await plane.rollouts.promote(ChangeRequest(service="shop", author="ann", full=True))
    found = await plane.up(make_request(TOPOLOGY % 1, reset=True))
    assert "shop: split v2 100 -> v1 100" in found.changes
    assert found.notes[0] == "shop: v2 is not rolled out: as it is now it was promoted once (rollout 1)"
    assert "`meshctl canary start shop v2`" in found.notes[1]


def split_of_shop(plane: ControlPlane) -> dict[str, int]:
    mesh = plane.policies.changer._engine.mesh
    assert mesh is not None
    return dict(mesh.services["shop"].split)


async def test_a_version_that_does_not_come_up_is_an_error_and_another_chance(plane: ControlPlane) -> None:
    await plane.up(make_request((TOPOLOGY % 1).replace("version: v2, ", "")))
    assert (await plane.ready(60)).state == "ready"
    with pytest.raises(StartError, match="v3 of shop is not rolled out") as caught:
        await plane.rollouts.start(StartRequest(service="shop", version="v3", author="ann"))
    assert "canary retry shop" in caught.value.hint
    changes = (await plane.up(make_request((TOPOLOGY % 1).replace("version: v2", "version: v3")))).changes
    assert "shop: v3 is rolled out when all is ready" in changes


async def test_the_mesh_tells_of_it_wherever_it_tells_of_the_split(plane: ControlPlane) -> None:
    await bring_up(plane)
    await begun(plane, 1)
    notes = {service.name: service.rollout for service in plane.status().services}
    assert notes["front"] is None
    note = notes["shop"]
    assert note is not None
    assert (note.number, note.version, note.phase, note.weight) == (1, "v2", "running", 20)
    lines = plane.policies.explain(ExplainRequest(service="shop", source="front")).lines
    topics = [line.topic for line in lines]
    assert topics.index("rollout") == topics.index("goes to") + 1
    assert "at 20%, and sets the split" in lines[topics.index("rollout")].words
    await plane.rollouts.roll_back(ChangeRequest(service="shop", author="ann"))
    assert all(service.rollout is None for service in plane.status().services)


def test_the_topology_and_the_engine_have_the_same_settings() -> None:
    assert settings_of(RolloutRules()) == Settings()
    names = {field.name for field in fields(RolloutRules)}
    assert names - {field.name for field in fields(Settings)} == {"version", "where"}
