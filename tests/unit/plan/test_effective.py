"""The part of a mesh that was asked for, with what was registered."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.cases import load_mesh

from meshctl.errors import NotFoundError
from meshctl.plan.effective import REGISTERED, add_registered, open_services, select_services
from meshctl.ports import Registration

MESH = load_mesh(
    """
name: shop
gateway:
  port: 8443
  routes: [{path: /, service: front}, {path: /stock, service: stock}]
services:
  front: {command: ./front, upstreams: [orders]}
  orders: {command: ./orders, upstreams: [bank], depends_on: [seed]}
  seed: {command: ./seed, job: true}
  stock: {command: ./stock}
  bank: {address: "bank.example:443"}
"""
)


def registration(service: str, number: int = 1) -> Registration:
    return Registration(
        id=f"{service}-ext-{number}",
        service=service,
        version="v1",
        host="127.0.0.1",
        port=9000 + number,
        ttl=None,
        expires_at=None,
    )


@pytest.mark.parametrize(
    ("names", "services"),
    [
        ((), {"front", "orders", "seed", "stock", "bank"}),
        (("stock",), {"stock"}),
        (("orders",), {"orders", "seed", "bank"}),
        (("front", "stock"), {"front", "orders", "seed", "stock", "bank"}),
        (("bank",), {"bank"}),
    ],
)
def test_a_service_comes_with_all_that_it_calls_or_depends_on(names: tuple[str, ...], services: set[str]) -> None:
    chosen = select_services(MESH, names)
    assert set(chosen.services) == services
    assert chosen.gateway is not None
    assert {route.service for route in chosen.gateway.routes} == services & {"front", "stock"}


def test_services_that_call_each_other_are_no_trap() -> None:
    mesh = load_mesh("services:\n  a: {command: ./a, upstreams: [b]}\n  b: {command: ./b, upstreams: [a]}\n")
    assert set(select_services(mesh, ["a"]).services) == {"a", "b"}


def test_an_unknown_name_is_named_with_those_there_are() -> None:
    with pytest.raises(NotFoundError, match="no service fornt, zap in shop") as caught:
        select_services(MESH, ["zap", "fornt", "front"])
    assert caught.value.hint == "services: bank, front, orders, seed, stock"


@given(names=st.sets(st.sampled_from(sorted(MESH.services))))
def test_what_was_chosen_is_closed_and_choosing_it_again_changes_nothing(names: set[str]) -> None:
    chosen = select_services(MESH, names)
    for service in chosen.services.values():
        assert set(service.upstreams) <= set(chosen.services)
        assert set(service.depends_on) <= set(chosen.services)
    assert select_services(chosen, names) == chosen


def test_a_registered_name_that_the_topology_does_not_know_is_a_service_that_all_may_call() -> None:
    items = [registration("tax"), registration("tax", 2), registration("orders")]
    assert open_services(MESH, items) == ("tax",)
    added = add_registered(MESH, items).services
    assert set(added) == {*MESH.services, "tax"}
    assert (added["tax"].versions, added["tax"].where, added["tax"].policies) == ({}, REGISTERED, MESH.defaults)
    assert added["orders"] is MESH.services["orders"]


def test_without_strange_names_the_mesh_is_the_same() -> None:
    assert add_registered(MESH, [registration("orders")]) is MESH
