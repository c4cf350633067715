"""Ports: every key gets one, no two the same, and those that were given stay."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.cases import load_mesh

from meshctl.plan.addresses import (
    COLLECTOR_KEY,
    FIRST_PORT,
    LAST_PORT,
    app_key,
    assign_ports,
    fixed_ports,
    inbound_key,
    instance_ids,
    needed_keys,
    outbound_key,
    upstream_key,
)

MESH = load_mesh(
    """
services:
  front: {command: ./front, upstreams: [orders, bank]}
  orders:
    versions:
      v1: {command: ./orders, replicas: 2, port: 9000}
      v2: {command: ./orders}
    stable: v1
  seed: {command: ./seed, job: true, upstreams: [orders]}
  bank: {address: "bank.example:443"}
"""
)

KEYS = st.lists(st.sampled_from([f"app/{name}" for name in "abcdefghij"]), unique=True)
PORTS = st.integers(FIRST_PORT, FIRST_PORT + 30)


def assign(keys: list[str], **given_: object) -> dict[str, int]:
    options: dict[str, object] = {
        "fixed": {},
        "remembered": {},
        "reserved": (),
        "seed": "shop",
        "is_free": lambda _: True,
    }
    return assign_ports(keys, **{**options, **given_})  # type: ignore[arg-type]


def test_instances_are_named_by_service_version_and_number() -> None:
    assert instance_ids(MESH.services["orders"], {}) == {
        "orders-v1-1": ("v1", 1),
        "orders-v1-2": ("v1", 2),
        "orders-v2-1": ("v2", 1),
    }


def test_replica_counts_set_by_command_win_but_not_for_jobs() -> None:
    counts = {"orders/v1": 1, "orders/v2": 0, "seed/v1": 3}
    assert list(instance_ids(MESH.services["orders"], counts)) == ["orders-v1-1"]
    assert list(instance_ids(MESH.services["seed"], counts)) == ["seed-v1-1"]


def test_ports_that_the_topology_fixes_count_up_with_the_instances() -> None:
    assert fixed_ports(MESH, {"orders/v1": 3}) == {
        "app/orders-v1-1": 9000,
        "app/orders-v1-2": 9001,
        "app/orders-v1-3": 9002,
    }


def test_what_needs_a_port() -> None:
    """A job has no listener of its own; an address outside has no sidecar."""
    assert set(needed_keys(MESH, {"orders/v1": 1, "orders/v2": 0}, ["orders-ext-1"])) == {
        app_key("front-v1-1"),
        inbound_key("front-v1-1"),
        outbound_key("front"),
        upstream_key("front", "orders"),
        upstream_key("front", "bank"),
        app_key("orders-v1-1"),
        inbound_key("orders-v1-1"),
        inbound_key("orders-ext-1"),
        outbound_key("orders"),
        outbound_key("seed"),
        upstream_key("seed", "orders"),
        COLLECTOR_KEY,
    }


@given(keys=KEYS, remembered=st.dictionaries(st.sampled_from([f"app/{name}" for name in "abcdefghij"]), PORTS),
       fixed=st.dictionaries(st.sampled_from(["app/a", "app/b", "app/z"]), PORTS).filter(
           lambda found: len(set(found.values())) == len(found)),
       reserved=st.sets(PORTS), busy=st.sets(PORTS))  # fmt: skip
def test_every_key_gets_a_port_of_its_own(
    keys: list[str], remembered: dict[str, int], fixed: dict[str, int], reserved: set[int], busy: set[int]
) -> None:
    ports = assign(keys, remembered=remembered, fixed=fixed, reserved=reserved, is_free=lambda port: port not in busy)
    assert set(ports) == set(keys)
    assert len(set(ports.values())) == len(ports)
    for key, port in ports.items():
        if key in fixed:
            assert port == fixed[key]
            continue
        assert port not in reserved | set(fixed.values())
        assert port == remembered.get(key) or port not in busy


@given(keys=KEYS, more=KEYS)
def test_ports_stay_when_others_come_and_go(keys: list[str], more: list[str]) -> None:
    before = assign(keys)
    after = assign([*more, *(key for key in keys if key not in more)], remembered=before)
    assert {key: after[key] for key in keys} == before


@given(keys=KEYS)
def test_equal_inputs_give_equal_ports(keys: list[str]) -> None:
    """Invariant 1."""
    assert assign(keys) == assign(list(keys))


def test_two_that_remember_one_port_do_not_share_it() -> None:
    ports = assign(["app/a", "app/b"], remembered={"app/a": 20100, "app/b": 20100})
    assert ports["app/a"] == 20100
    assert ports["app/b"] != 20100


def test_meshes_of_other_folders_begin_elsewhere() -> None:
    assert assign(["app/a"], seed="/one") != assign(["app/a"], seed="/two")


def test_ports_outside_the_range_are_never_given() -> None:
    asked: list[int] = []

    def refuse(port: int) -> bool:
        asked.append(port)
        return False

    with pytest.raises(LookupError, match="no free port between 20000 and 29999 for app/a"):
        assign(["app/a"], is_free=refuse)
    assert sorted(asked) == list(range(FIRST_PORT, LAST_PORT + 1))
