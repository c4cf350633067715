"""What is known, as facts to plan from, as status to show, and as what is still awaited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.support.cases import load_mesh
from tests.support.instances import make_job, make_sidecar, make_spec

from meshctl.ads.status import SyncStatus, describe_disconnected
from meshctl.control.observe import Observed, gateway_status, instance_facts, service_statuses
from meshctl.control.readiness import find_failed, find_waiting, mesh_state
from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.model import InstanceState, Phase
from meshctl.plan.facts import InstanceHealth
from meshctl.ports import Registration

MESH = load_mesh(
    """
name: shop
gateway: {port: 48080, routes: [{path: /, service: web}]}
services:
  web: {command: ./web, upstreams: [bank]}
  seed: {command: ./seed, job: true}
  tax: {}
  bank: {address: "bank.example:443"}
"""
)
PORTS = {
    "app/web-v1-1": 20001,
    "inbound/web-v1-1": 20002,
    "outbound/web": 20003,
    "upstream/web/bank": 20004,
    "inbound/tax-ext-1": 20005,
}
REGISTERED = Registration(
    id="tax-ext-1", service="tax", version="v2", host="127.0.0.1", port=9000, ttl=None, expires_at=None
)


def view(phase: Phase = "ready", *, check: bool | None = True, ready: bool | None = None, **more: Any) -> InstanceView:
    is_ready = phase == "ready" if ready is None else ready
    state = InstanceState(phase=phase, ready=is_ready, pid=7, started_at=5.0, **more.pop("state", {}))
    spec = more.pop("spec", make_spec("web-v1-1", envoy_checked=True))
    return InstanceView(spec=spec, state=state, envoy_check=check, **more)


def synced(node: str) -> SyncStatus:
    return replace(describe_disconnected(node), state="synced", connected=True)


def observe(views: Mapping[str, InstanceView] | None = None, **more: Any) -> Observed:
    sidecar = view(spec=make_sidecar("sidecar.web"))
    seen = Observed(
        mesh=MESH,
        views={"web-v1-1": view(), "sidecar.web": sidecar} if views is None else views,
        registrations=(),
        checks={},
        ports=PORTS,
        sync=synced,
        log=lambda name: f"/logs/{name}.log",
        admin_socket=lambda node: f"/run/{node}.admin",
    )
    return replace(seen, **more)


# ------------------------------------------------------------------------------------------------- facts


@pytest.mark.parametrize(
    ("phase", "ready", "check", "listening", "health"),
    [
        ("pending", False, None, False, "starting"),
        ("starting", False, None, False, "starting"),
        ("ready", True, None, True, "starting"),
        ("ready", True, True, True, "healthy"),
        ("ready", True, False, True, "unhealthy"),
        ("ready", False, True, False, "unhealthy"),
        ("draining", True, True, True, "draining"),
        ("stopping", True, True, True, "draining"),
        ("stopping", False, True, False, "draining"),
        ("backoff", False, True, False, "starting"),
        ("failed", False, True, False, "starting"),
        ("stopped", False, True, False, "starting"),
    ],
)
def test_what_proxies_have_to_know_of_an_instance(
    phase: Phase, ready: bool, check: bool | None, listening: bool, health: InstanceHealth
) -> None:
    (fact,) = instance_facts([view(phase, ready=ready, check=check)], (), checks={}, ports=PORTS)
    assert (fact.id, fact.port, fact.inbound_port) == ("web-v1-1", 20000, 20002)
    assert (fact.listening, fact.health) == (listening, health)


def test_only_services_that_have_ports_are_facts() -> None:
    views = [view(spec=make_job()), view(spec=make_sidecar()), view(spec=make_spec("other-v1-1")),
             view(spec=make_spec(port=None))]  # fmt: skip
    assert instance_facts(views, (), checks={}, ports=PORTS) == ()


@pytest.mark.parametrize(("check", "health"), [(None, "starting"), (True, "healthy"), (False, "unhealthy")])
def test_a_registered_instance_is_as_its_check_says(check: bool | None, health: InstanceHealth) -> None:
    checks = {} if check is None else {"tax-ext-1": check}
    (fact,) = instance_facts([], [REGISTERED], checks=checks, ports=PORTS)
    assert (fact.host, fact.port, fact.inbound_port, fact.version) == ("127.0.0.1", 9000, 20005, "v2")
    assert (fact.listening, fact.health) == (True, health)


# ------------------------------------------------------------------------------------------------- status


def test_every_service_is_shown_with_its_kind() -> None:
    shown = service_statuses(observe(registrations=(REGISTERED,), checks={"tax-ext-1": True}))
    assert [(item.name, item.kind, item.state, item.health) for item in shown] == [
        ("bank", "external", "ready", "unknown"),
        ("seed", "job", "stopped", "unknown"),
        ("tax", "registered", "registered", "healthy"),
        ("web", "service", "ready", "healthy"),
    ]
    assert [item.sidecar is not None for item in shown] == [False, False, False, True]


def test_an_instance_is_shown_with_all_that_is_known_of_it() -> None:
    web = service_statuses(observe({"web-v1-1": view(state={"restarts": 2, "exit_code": 3, "reason": "why"})}))[-1]
    (shown,) = web.instances
    assert (shown.id, shown.version, shown.pid, shown.address) == ("web-v1-1", "v1", 7, "127.0.0.1:20001")
    assert (shown.port, shown.inbound_port, shown.restarts, shown.exit_code) == (20001, 20002, 2, 3)
    assert (shown.reason, shown.started_at, shown.log) == ("why", 5.0, "/logs/web-v1-1.log")
    assert web.upstreams == {"bank": 20004}
    assert web.identity == f"spiffe://{MESH.trust_domain}/web"


def test_a_sidecar_is_shown_with_its_ports_and_what_it_refused() -> None:
    refused = replace(synced("web"), state="rejected", error="outbound: no")
    web = service_statuses(observe(sync=lambda _: refused))[-1]
    assert web.sidecar is not None
    assert (web.sidecar.outbound_port, web.sidecar.inbound_ports) == (20003, {"web-v1-1": 20002})
    assert (web.sidecar.config, web.sidecar.config_error) == ("rejected", "outbound: no")
    assert web.sidecar.admin_socket == "/run/web.admin"


@pytest.mark.parametrize(
    ("phases", "state"),
    [
        (["ready", "failed", "backoff"], "failed"),
        (["ready", "backoff"], "backoff"),
        (["ready", "starting"], "starting"),
        (["ready", "draining"], "draining"),
        (["ready", "stopped"], "ready"),
    ],
)
def test_a_service_is_as_the_worst_of_its_instances(phases: list[Phase], state: str) -> None:
    views = {f"web-v1-{n}": view(phase, spec=make_spec(f"web-v1-{n}")) for n, phase in enumerate(phases, start=1)}
    assert service_statuses(observe(views))[-1].state == state


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:48080"),
        ("0.0.0.0", "http://localhost:48080"),
        ("::", "http://localhost:48080"),
        ("::1", "http://[::1]:48080"),
    ],
)
def test_the_gateways_url_is_one_that_a_browser_takes(host: str, url: str) -> None:
    assert MESH.gateway is not None
    shown = gateway_status(observe(mesh=replace(MESH, gateway=replace(MESH.gateway, host=host))))
    assert shown is not None
    assert (shown.url, shown.host) == (url, host)


def test_a_mesh_may_have_no_gateway() -> None:
    assert gateway_status(observe(mesh=replace(MESH, gateway=None))) is None


# ------------------------------------------------------------------------------------------------- what is awaited


@pytest.mark.parametrize(
    ("shown", "line"),
    [
        (view(), None),
        (view("completed", spec=make_job("web-v1-1")), None),
        (view("starting", spec=make_job("web-v1-1"), state={"reason": "running"}), "web-v1-1: starting (running)"),
        (view("starting", state={"reason": "waiting for its readiness check: no"}),
         "web-v1-1: starting (waiting for its readiness check: no)"),
        (view(check=None), "web-v1-1: ready (its sidecar's health check does not pass yet)"),
        (view(check=False), "web-v1-1: ready (its sidecar's health check does not pass yet)"),
        (view("stopped", spec=make_spec("web-v1-1")), "web-v1-1: stopped"),
        (view("stopping", removed=True), "web-v1-1: stopping, to be removed"),
        (view(outdated=True), "web-v1-1: ready, to be restarted with what changed"),
    ],
)  # fmt: skip
def test_an_instance_is_awaited_until_it_is_what_it_is_meant_to_be(shown: InstanceView, line: str | None) -> None:
    assert find_waiting(observe({"web-v1-1": shown})) == (() if line is None else (line,))


def test_a_sidecar_is_awaited_until_it_has_acknowledged_everything() -> None:
    assert find_waiting(observe()) == ()
    stale = observe(sync=lambda node: replace(synced(node), state="stale"))
    assert find_waiting(stale) == ("sidecar.web: configuration stale",)
    refused = observe(sync=lambda node: replace(synced(node), state="rejected", error="outbound: no"))
    assert find_waiting(refused) == ("sidecar.web: configuration rejected: outbound: no",)
    going = observe({"sidecar.web": view(spec=make_sidecar(), removed=True)}, sync=describe_disconnected)
    assert find_waiting(going) == ("sidecar.web: ready, to be removed",)


def test_a_registered_instance_is_awaited_until_its_check_passes() -> None:
    assert find_waiting(observe({}, registrations=(REGISTERED,), checks={"tax-ext-1": True})) == ()
    for checks in ({}, {"tax-ext-1": False}):
        waiting = find_waiting(observe({}, registrations=(REGISTERED,), checks=checks))
        assert waiting == ("tax-ext-1: its health check does not pass yet",)


def test_what_concerns_other_services_may_be_left_out() -> None:
    seen = observe({"web-v1-1": view("starting")}, registrations=(REGISTERED,))
    assert find_waiting(seen, frozenset({"tax"})) == ("tax-ext-1: its health check does not pass yet",)
    assert find_waiting(seen, frozenset({"web"})) == ("web-v1-1: starting",)
    assert find_waiting(seen, frozenset({"bank"})) == ()


def test_what_failed_is_found_by_name_and_what_goes_is_not() -> None:
    views = {
        "b": view("failed"),
        "a": view("starting", state={"failed_starts": 2}),
        "gone": view("failed", removed=True),
        "good": view(),
    }
    assert find_failed(views) == (views["a"], views["b"])


@pytest.mark.parametrize(
    ("shown", "was_ready", "stopping", "state"),
    [
        (view(), False, False, "ready"),
        (view("starting"), False, False, "starting"),
        (view("starting"), True, False, "degraded"),
        (view("failed"), True, False, "failed"),
        (view("failed"), True, True, "stopping"),
    ],
)
def test_the_state_of_the_mesh_in_one_word(shown: InstanceView, was_ready: bool, stopping: bool, state: str) -> None:
    assert mesh_state(observe({"web-v1-1": shown}), was_ready=was_ready, stopping=stopping) == state
