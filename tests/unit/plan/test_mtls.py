"""Callers and callee change between plain text and mTLS in steps at which they always understand each other."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
from tests.support.cases import load_mesh

from meshctl.plan.policies.authorization import plan_authorization
from meshctl.plan.policies.mtls import Transport, next_transport, plan_inbound_tls, plan_transport
from meshctl.spec.schema import Mesh

MODES = ("true", "strict", "permissive", "false")


def mesh_of(mode: str, protocol: str = "http", more: str = "") -> Mesh:
    return load_mesh(f"services:\n  a: {{command: [a], protocol: {protocol}, security: {{mtls: {mode}{more}}}}}\n")


def transport(mode: str, protocol: str) -> Transport:
    return plan_transport(mesh_of(mode, protocol).services["a"])


def understands(callers: Transport, callee: Transport) -> bool:
    return callee.takes_tls if callers.encrypted else callee.takes_plain


@pytest.mark.parametrize(("before", "after", "protocol"), list(product(MODES, MODES, ("http", "tcp"))))
def test_every_caller_is_understood_at_every_step(before: str, after: str, protocol: str) -> None:
    now, target = transport(before, protocol), transport(after, protocol)
    ways = [now]
    while ways[-1] != target:
        ways.append(next_transport(ways[-1], target))
        assert len(ways) < 5
    for old, new in pairwise(ways):
        # While a step is on its way, either side may be at either end of it.
        assert understands(old, new)
        assert understands(new, old)


@pytest.mark.parametrize(
    ("mode", "protocol", "more", "takes"),
    [
        ("true", "http", "", (True, False)),
        ("permissive", "http", "", (True, True)),
        ("false", "http", "", (True, True)),
        ("strict", "tcp", "", (True, False)),
        ("permissive", "tcp", "", (True, True)),
        ("permissive", "tcp", ", rules: [{name: r, action: deny, from: [anonymous]}]", (True, False)),
        ("permissive", "tcp", ", authz_policy: none", (True, True)),
        ("false", "tcp", "", (False, True)),
    ],
)
def test_what_a_listener_takes(mode: str, protocol: str, more: str, takes: tuple[bool, bool]) -> None:
    mesh = mesh_of(mode, protocol, more)
    service = mesh.services["a"]
    tls = plan_inbound_tls(mesh, service, plan_transport(service), plan_authorization(mesh, service, ()))
    assert (tls is not None, tls is None or tls.plain) == takes
