"""From plans to sidecars: only what changed, only where it matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from tests.support.cases import PLACEHOLDER, make_case

from meshctl.ads.snapshot import ENDPOINT, Snapshot
from meshctl.control.publisher import Publisher
from meshctl.envoy.translate import Credentials
from meshctl.errors import RejectedError
from meshctl.plan.build import build
from meshctl.plan.facts import InstanceHealth
from meshctl.plan.model import MeshPlan, ProxyPlan

CASE = make_case(
    "services:\n  front: {command: ./f, upstreams: [orders]}\n  orders: {command: ./o}\n  cart: {command: ./c}\n"
)


class FakeXds:
    """Records what it is handed."""

    def __init__(self) -> None:
        self.published: list[Snapshot] = []
        self.forgotten: list[str] = []
        self.renewed: list[str] = []
        self.waits: list[tuple[dict[str, str], float, bool]] = []
        self.refuses = ""

    def publish(self, snapshot: Snapshot) -> None:
        self.published.append(snapshot)

    def forget(self, node: str) -> None:
        self.forgotten.append(node)

    def renew_leases(self, node: str) -> None:
        self.renewed.append(node)

    async def wait_synced(
        self, node_versions: Mapping[str, str], timeout: float, *, require_connected: bool = True
    ) -> None:
        self.waits.append((dict(node_versions), timeout, require_connected))
        if self.refuses:
            raise RejectedError(self.refuses)


class World:
    def __init__(self) -> None:
        self.server = FakeXds()
        self.credentials: dict[str, Credentials] = {}
        self.publisher = Publisher(self.server, lambda node: self.credentials.get(node, PLACEHOLDER))


@pytest.fixture
def world() -> World:
    return World()


def with_health(health: InstanceHealth) -> MeshPlan:
    instances = tuple(
        replace(item, health=health) if item.service == "orders" else item for item in CASE.facts.instances
    )
    return build(CASE.mesh, replace(CASE.facts, instances=instances))


def test_the_first_plan_goes_to_every_sidecar(world: World) -> None:
    versions = world.publisher.publish(CASE.plan)
    assert {item.node: item.version for item in world.server.published} == versions == world.publisher.versions
    assert set(versions) == {"front", "orders", "cart", "gateway"}


def test_an_equal_plan_goes_nowhere(world: World) -> None:
    world.publisher.publish(CASE.plan)
    world.server.published.clear()
    assert world.publisher.publish(build(CASE.mesh, CASE.facts)) == {}
    assert world.server.published == []


def test_a_change_goes_only_to_the_sidecars_that_it_concerns(world: World) -> None:
    """Invariant 2."""
    world.publisher.publish(CASE.plan)
    world.server.published.clear()
    changed = world.publisher.publish(with_health("unhealthy"))
    assert set(changed) == {"front", "gateway"}
    assert {item.node for item in world.server.published} == {"front", "gateway"}


def test_only_the_resource_that_changed_has_another_version(world: World) -> None:
    """Invariant 2."""
    world.publisher.publish(CASE.plan)
    world.publisher.publish(with_health("unhealthy"))
    before, after = (item for item in world.server.published if item.node == "front")
    changed = {
        (url, name)
        for url, items in after.resources.items()
        for name, item in items.items()
        if before.of(url)[name].version != item.version
    }
    assert changed == {(ENDPOINT, "orders/v1")}


def test_new_credentials_are_a_change(world: World) -> None:
    world.publisher.publish(CASE.plan)
    world.credentials["cart"] = replace(PLACEHOLDER, leaf_chain=b"(another)")
    assert set(world.publisher.publish(CASE.plan)) == {"cart"}


def test_a_sidecar_that_is_no_more_is_forgotten(world: World) -> None:
    world.publisher.publish(CASE.plan)
    rest = {node: plan for node, plan in CASE.plan.proxies.items() if node != "cart"}
    assert world.publisher.publish(MeshPlan(proxies=rest)) == {}
    assert world.server.forgotten == ["cart"]
    assert "cart" not in world.publisher.versions


def test_a_plan_that_cannot_be_translated_publishes_nothing(world: World) -> None:
    """Invariant 2: the last good configuration stays."""
    world.publisher.publish(CASE.plan)
    before = dict(world.publisher.versions)
    world.server.published.clear()
    good = with_health("unhealthy").proxies
    broken: ProxyPlan = replace(good["orders"], route_tables=("no table",))  # type: ignore[arg-type]
    without_cart = {node: plan for node, plan in good.items() if node != "cart"}
    with pytest.raises(AttributeError):
        world.publisher.publish(MeshPlan(proxies={**without_cart, "orders": broken}))
    assert (world.server.published, world.server.forgotten) == ([], [])
    assert world.publisher.versions == before


async def test_waiting_leaves_out_sidecars_that_are_no_more(world: World) -> None:
    world.publisher.publish(CASE.plan)
    await world.publisher.wait({"front": "1", "gone": "2"}, 3.0)
    await world.publisher.wait({"gone": "2"}, 3.0)
    assert world.server.waits == [({"front": "1"}, 3.0, False)]


async def test_a_refusal_is_passed_on_in_envoys_words(world: World) -> None:
    versions = world.publisher.publish(CASE.plan)
    world.server.refuses = "the sidecar of front refused listeners outbound: no"
    with pytest.raises(RejectedError, match="front refused listeners outbound"):
        await world.publisher.wait(versions, 1.0, require_connected=True)
    assert world.server.waits[0][2] is True
