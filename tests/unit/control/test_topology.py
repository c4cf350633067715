"""What the mesh is meant to be: committed before it is so, and refused whole."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.fakes.port_claims import FakeClaims
from tests.fakes.state_store import FakeStateStore
from tests.support.topologies import make_source

from meshctl.control.topology import PortProbe, Topology
from meshctl.errors import ConflictError, InvalidTopology, MeshctlError, NotFoundError, PortTakenError
from meshctl.ports import Registration

TEXT = """
name: shop
gateway: {port: 48080, routes: [{path: /, service: front}]}
services:
  front: {command: ./front, upstreams: [orders]}
  orders:
    versions:
      v1: {command: ./orders, port: 49000, replicas: 2}
      v2: {command: ./orders}
    stable: v1
  cart: {command: ./cart, port: 49002}
  seed: {command: ./seed, job: true}
"""
NONE: frozenset[str] = frozenset()


class World:
    def __init__(self) -> None:
        self.store = FakeStateStore()
        self.taken: set[int] = set()
        self.claims = FakeClaims()
        self.topology = self.open()

    def open(self) -> Topology:
        """As another control plane finds it."""
        return Topology(
            self.store,
            PortProbe(
                explain=lambda _, port: f"port {port} is held by python3 (pid 7)" if port in self.taken else "",
                is_free=lambda _, port: port not in self.taken,
                claims=self.claims,
            ),
        )

    def stored(self) -> tuple[object, ...]:
        return (self.store.topology(), self.store.ports(), self.store.scales(), self.store.registrations(),
                self.store.selection())  # fmt: skip

    def assert_refused(self, kind: type[MeshctlError], words: str, act: Callable[[], object]) -> MeshctlError:
        """What cannot be changes neither the store nor the mesh."""
        before = (self.stored(), self.topology.mesh, dict(self.topology.ports), dict(self.topology.replicas))
        with pytest.raises(kind, match=words) as caught:
            act()
        assert (self.stored(), self.topology.mesh, self.topology.ports, self.topology.replicas) == before
        return caught.value


@pytest.fixture
def world() -> World:
    return World()


def registration(service: str = "orders", number: int = 1) -> Registration:
    return Registration(
        id=f"{service}-ext-{number}",
        service=service,
        version="v1",
        host="127.0.0.1",
        port=9000,
        ttl=30.0,
        expires_at=130.0,
    )


def test_a_new_topology_is_one_commit(world: World) -> None:
    """Invariant 6: whatever moment a crash comes at, the store is at a whole revision."""
    world.topology.replace(make_source(TEXT), ("front",), in_use=NONE)
    assert world.store.writes == 1
    after = world.open()
    assert after.restore()
    assert after.mesh == world.topology.mesh
    assert (after.ports, after.selection, after.replicas) == (world.topology.ports, ("front",), {})
    assert after.mesh is not None
    assert set(after.mesh.services) == {"front", "orders"}


def test_a_new_count_and_a_new_registration_are_one_commit_each(world: World) -> None:
    """Invariant 6."""
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    world.topology.set_replicas("front", "", 3, in_use=NONE)
    world.topology.set_registrations((registration(),), in_use=NONE)
    assert world.store.writes == 3
    after = world.open()
    assert (after.ports, after.replicas, after.registrations) == (
        world.topology.ports, {"front/v1": 3}, (registration(),)
    )  # fmt: skip
    assert {"app/front-v1-3", "inbound/orders-ext-1"} <= set(after.ports)


def test_ports_of_other_meshes_are_not_given_and_those_that_they_took_are_let_go(world: World) -> None:
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    first = dict(world.topology.ports)
    assert world.claims.held == tuple(sorted(first.values()))
    lost = {first["app/front-v1-1"], first["outbound/front"]}
    world.claims.others = {*lost, first["app/front-v1-1"] + 1000}
    world.topology.replace(make_source(TEXT), (), in_use=frozenset({"outbound/front"}))
    now = world.topology.ports
    assert {key for key in first if first[key] != now[key]} == {"app/front-v1-1"}
    assert now["app/front-v1-1"] not in world.claims.others
    assert world.claims.held == tuple(sorted(now.values()))


def test_a_file_with_problems_changes_nothing(world: World) -> None:
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    world.assert_refused(
        InvalidTopology, "problem", lambda: world.topology.replace(make_source("services: 1"), (), in_use=NONE)
    )


def test_a_service_that_does_not_exist_changes_nothing(world: World) -> None:
    world.assert_refused(
        NotFoundError, "no service tax", lambda: world.topology.replace(make_source(TEXT), ("tax",), in_use=NONE)
    )


def test_a_service_asked_for_earlier_that_left_the_files_is_asked_for_no_more(world: World) -> None:
    world.topology.replace(make_source(TEXT), ("cart", "seed"), in_use=NONE)
    without = TEXT.replace("  cart: {command: ./cart, port: 49002}\n", "")
    world.topology.replace(make_source(without), ("cart", "seed"), in_use=NONE)
    assert world.topology.selection == ("seed",)


def test_the_trust_domain_of_a_running_mesh_stays(world: World) -> None:
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    other = make_source(f"trust_domain: else.where\n{TEXT}")
    error = world.assert_refused(ConflictError, "trust domain", lambda: world.topology.replace(other, (), in_use=NONE))
    assert "meshctl down" in error.hint


def test_a_stored_topology_that_cannot_be_read_is_not_taken_up(world: World) -> None:
    world.store.commit(topology=make_source("services: 1"))
    with pytest.raises(InvalidTopology):
        world.topology.restore()
    assert (world.topology.mesh, world.topology.source) == (None, None)


def test_without_a_stored_topology_there_is_none(world: World) -> None:
    assert not world.topology.restore()
    assert (world.topology.mesh, world.topology.open_services) == (None, ())


# ------------------------------------------------------------------------------------------------- ports


def test_ports_are_remembered_unless_somebody_took_them(world: World) -> None:
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    before = dict(world.topology.ports)
    world.taken = {before["outbound/front"]}
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    after = world.topology.ports
    assert {key for key in before if before[key] != after[key]} == {"outbound/front"}


def test_ports_that_the_mesh_itself_holds_are_kept(world: World) -> None:
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    before = dict(world.topology.ports)
    world.taken = {*before.values(), 48080}
    world.topology.replace(make_source(TEXT), (), in_use=frozenset({*before, "gateway"}))
    assert world.topology.ports == before


@pytest.mark.parametrize(("port", "who"), [(48080, "the gateway"), (49001, "orders-v1-2")])
def test_a_fixed_port_that_is_taken_is_named_with_its_holder(world: World, port: int, who: str) -> None:
    world.taken = {port}
    world.assert_refused(
        PortTakenError,
        rf"^{who} cannot listen: port {port} is held by python3 \(pid 7\)$",
        lambda: world.topology.replace(make_source(TEXT), (), in_use=NONE),
    )


def test_the_gateway_may_move_to_a_port_that_is_free_and_no_other(world: World) -> None:
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    running = frozenset({*world.topology.ports, "gateway"})
    world.taken = {48080, 48081}
    moved = make_source(TEXT.replace("48080", "48081"))
    world.assert_refused(PortTakenError, "48081", lambda: world.topology.replace(moved, (), in_use=running))
    world.topology.replace(make_source(TEXT.replace("48080", "48082")), (), in_use=running)


def test_a_gateway_on_a_port_given_before_takes_it_and_the_other_gets_a_new_one(world: World) -> None:
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    port = world.topology.ports["outbound/front"]
    world.topology.replace(make_source(TEXT.replace("48080", str(port))), (), in_use=NONE)
    assert port not in world.topology.ports.values()


def test_when_no_port_is_left_it_is_said(world: World) -> None:
    world.taken = set(range(20000, 30000))
    world.assert_refused(
        ConflictError, "no free port", lambda: world.topology.replace(make_source(TEXT), (), in_use=NONE)
    )


# ------------------------------------------------------------------------------------------------- replicas


def test_a_count_set_by_command_holds_until_the_file_says_otherwise(world: World) -> None:
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    assert world.topology.set_replicas("orders", "", 1, in_use=NONE) == "v1"
    assert world.topology.set_replicas("orders", "v2", 3, in_use=NONE) == "v2"
    world.topology.replace(make_source(f"# touched\n{TEXT}"), (), in_use=NONE)
    assert world.topology.replicas == {"orders/v1": 1, "orders/v2": 3}
    world.topology.replace(make_source(TEXT.replace("replicas: 2", "replicas: 1")), (), in_use=NONE)
    assert world.topology.replicas == {"orders/v2": 3}


@pytest.mark.parametrize(
    ("wish", "kind", "words"),
    [
        (("tax", "", 1), NotFoundError, "no service tax"),
        (("orders", "v9", 1), NotFoundError, "orders has no version v9"),
        (("seed", "", 1), ConflictError, "seed is a job"),
        (("stock", "", 1), ConflictError, "stock/v1 has no command"),
        (("bank", "", 1), NotFoundError, "no service bank"),
        (("orders", "v1", 3), ConflictError, "port 49002"),
    ],
)
def test_counts_that_cannot_be_are_refused(
    world: World, wish: tuple[str, str, int], kind: type[MeshctlError], words: str
) -> None:
    more = "  stock: {versions: {v1: {}}}\n  bank: {address: 'bank.example:443'}\n"
    world.topology.replace(make_source(TEXT + more), (), in_use=NONE)
    world.assert_refused(kind, words, lambda: world.topology.set_replicas(*wish, in_use=NONE))


def test_ports_beyond_the_last_are_refused(world: World) -> None:
    world.topology.replace(make_source(TEXT.replace("49002", "65535")), (), in_use=NONE)
    world.assert_refused(
        ConflictError,
        "port 65536, which does not exist",
        lambda: world.topology.set_replicas("cart", "", 2, in_use=NONE),
    )


def test_a_service_that_was_not_asked_for_is_not_scaled(world: World) -> None:
    world.topology.replace(make_source(TEXT), ("cart",), in_use=NONE)
    error = world.assert_refused(
        ConflictError, "no part of what was started", lambda: world.topology.set_replicas("orders", "", 2, in_use=NONE)
    )
    assert error.hint == "start it first: meshctl up orders"


def test_nothing_is_scaled_before_there_is_a_mesh(world: World) -> None:
    world.assert_refused(ConflictError, "not up yet", lambda: world.topology.set_replicas("orders", "", 2, in_use=NONE))


# ------------------------------------------------------------------------------------------------- registrations


def test_a_registered_name_becomes_a_service_with_ports(world: World) -> None:
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    world.topology.set_registrations((registration("tax"),), in_use=NONE)
    assert world.topology.open_services == ("tax",)
    assert {"inbound/tax-ext-1", "outbound/tax"} <= set(world.topology.ports)


def test_renewing_moves_no_port(world: World) -> None:
    world.topology.replace(make_source(TEXT), (), in_use=NONE)
    world.topology.set_registrations((registration(),), in_use=NONE)
    before = dict(world.topology.ports)
    world.taken = set(before.values())
    renewed = (replace(registration(), expires_at=999.0),)
    world.topology.renew_registrations(renewed)
    assert world.topology.ports == before
    assert world.open().registrations == renewed


def test_registrations_of_an_earlier_run_may_go_before_there_is_a_mesh(world: World) -> None:
    world.store.commit(registrations=(registration(),))
    topology = world.open()
    topology.set_registrations((), in_use=NONE)
    assert world.open().registrations == ()


def test_the_end_of_a_run_forgets_in_one_commit_what_holds_only_while_it_runs(world: World) -> None:
    world.topology.replace(make_source(TEXT), ("orders",), in_use=NONE)
    world.topology.set_replicas("orders", "v2", 3, in_use=NONE)
    world.topology.set_registrations((registration(),), in_use=NONE)
    writes, ports = world.store.writes, dict(world.topology.ports)
    world.topology.clear()
    assert world.store.writes == writes + 1
    after = world.open()
    assert (after.selection, after.replicas, after.registrations, after.ports) == ((), {}, (), ports)
