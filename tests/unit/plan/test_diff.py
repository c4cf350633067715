"""What changed, in words: a line for everything that has an effect, and none for what has not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.cases import load_mesh

from meshctl.plan.diff import describe_changes

BASE = """
name: shop
gateway: {port: 8443, routes: [{path: /, service: front}]}
services:
  front: {command: ./front, upstreams: [orders]}
  orders:
    versions:
      v1: {command: ./orders, replicas: 2}
      v2: {command: ./orders}
    stable: v1
    split: {v1: 90, v2: 10}
"""

CHANGES = [
    ("name: shop", "name: store",
     ("mesh: name shop -> store, which restarts every service", "mesh: egress or trust domain changed")),
    ("port: 8443", "port: 8444", ("gateway: changed",)),
    ("path: /,", "path: /shop,", ("gateway: changed",)),
    ("name: shop\n", "name: shop\negress: registry_only\n", ("mesh: egress or trust domain changed",)),
    ("name: shop\n", "name: shop\ntrust_domain: a.b\n", ("mesh: egress or trust domain changed",)),
    ("./front,", "./front2,", ("front: v1 restarts (command changed)",)),
    ("./front,", "./front, env: {A: b}, port: 9000,", ("front: v1 restarts (env, port changed)",)),
    ("./front,", "./front, working_dir: sub,", ("front: v1 restarts (working_dir changed)",)),
    ("./front,", "./front, replicas: 3,", ("front: v1 replicas 1 -> 3",)),
    ("./front,", "./front, restart: {policy: on_failure},", ("front: v1 restart changed",)),
    ("./front,", "./front, readiness: {http: /up},", ("front: v1 readiness changed",)),
    ("./front,", "./front, liveness: {http: /up},", ("front: v1 liveness changed",)),
    ("./front,", "./front, stop_grace: 9s,", ("front: v1 stop_grace changed",)),
    ("./front,", "./front, depends_on: [orders],", ("front: depends_on changed",)),
    ("./front,", "./front, protocol: grpc,", ("front: protocol changed",)),
    ("./front,", "./front, timeout: 9s,", ("front: timeout changed",)),
    (", upstreams: [orders]", "", ("front: upstreams are now none",)),
    ("v1: 90, v2: 10", "v1: 50, v2: 50", ("orders: split v1 90, v2 10 -> v1 50, v2 50",)),
    ("stable: v1", "stable: v2", ("orders: stable changed",)),
    ("      v2: {command: ./orders}\n    stable: v1\n    split: {v1: 90, v2: 10}\n", "    stable: v1\n",
     ("orders: version v2 removed", "orders: split v1 90, v2 10 -> v1 100")),
    ("    stable: v1\n", "      v3: {command: ./three}\n    stable: v1\n", ("orders: version v3 added",)),
    ("services:\n", "services:\n  bank: {address: 'bank.example:80'}\n", ("bank: added",)),
    ("services:\n", "defaults: {timeout: 9s}\nservices:\n", ("front: timeout changed", "orders: timeout changed")),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "lines"), CHANGES, ids=[str(change[1]).strip()[:40] for change in CHANGES])
def test_every_change_has_its_line(old: str, new: str, lines: tuple[str, ...]) -> None:
    assert BASE.count(old) >= 1
    assert describe_changes(load_mesh(BASE), load_mesh(BASE.replace(old, new, 1))) == lines


def test_a_service_that_goes_has_its_line() -> None:
    whole = load_mesh(BASE.replace("services:\n", "services:\n  bank: {address: 'bank.example:80'}\n"))
    assert describe_changes(whole, load_mesh(BASE)) == ("bank: removed",)


def test_a_service_that_moves_outside_has_its_line() -> None:
    one, two = (f"services:\n  bank: {{address: '{host}:80'}}\n" for host in ("a.example", "b.example"))
    assert describe_changes(load_mesh(one), load_mesh(two)) == ("bank: address changed",)


def test_the_first_mesh_is_one_line() -> None:
    assert describe_changes(None, load_mesh(BASE)) == ("shop: starting 2 services",)
    assert describe_changes(None, load_mesh("name: a\nservices:\n  a: {command: ./a}\n")) == ("a: starting 1 service",)


@pytest.mark.parametrize(
    "text", [BASE, f"# a comment\n\n{BASE}", BASE.replace("upstreams: [orders]", "upstreams:\n      - orders")]
)
def test_another_way_to_write_the_same_is_no_change(text: str) -> None:
    """Places in files are part of a mesh, and have no effect."""
    text = text.replace("{command: ./front, upstreams:\n", "\n    command: ./front\n    upstreams:\n").replace(
        "- orders}", "- orders"
    )
    assert describe_changes(load_mesh(BASE), load_mesh(text)) == ()


@given(index=st.sampled_from(range(len(CHANGES))))
def test_a_change_and_its_undoing_are_both_told(index: int) -> None:
    old, new, _ = CHANGES[index]
    before, after = load_mesh(BASE), load_mesh(BASE.replace(old, new, 1))
    assert describe_changes(before, after)
    assert describe_changes(after, before)
    assert describe_changes(after, after) == ()


def test_every_field_of_a_version_is_looked_at() -> None:
    """A field that is added to the topology and forgotten here would change in silence."""
    mesh = load_mesh(BASE)
    front = mesh.services["front"]
    version = front.versions["v1"]
    others: dict[str, Any] = {
        "command": ("x",), "env": {"X": "y"}, "working_dir": "/x", "replicas": 7, "port": 7, "job": True,
        "restart": None, "readiness": 1, "liveness": 1, "stop_grace": 77.0,
    }  # fmt: skip
    assert set(others) | {"name", "where"} == set(type(version).__slots__)
    for name, value in others.items():
        changed = replace(front, versions={"v1": replace(version, **{name: value})})
        after = replace(mesh, services={**mesh.services, "front": changed})
        assert describe_changes(mesh, after), name
