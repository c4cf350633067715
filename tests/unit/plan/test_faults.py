"""Faults in plans: slots, shares, and what callers are told that they will see."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.cases import load_mesh

from meshctl.errors import Where
from meshctl.plan.facts import ActiveFault
from meshctl.plan.fault_forecast import ONCE, REPEATABLE, Forecast, combine, describe_fault, forecast, is_for
from meshctl.plan.matching import Asked
from meshctl.plan.policies.faults import (
    MILLION,
    SLOTS,
    FaultDraw,
    FaultPlan,
    count_slots,
    find_shares,
    find_spared,
    plan_callee_faults,
    plan_caller_faults,
)
from meshctl.spec.fault_schema import Fault
from meshctl.spec.routing_schema import PathMatch, ValueMatch
from meshctl.spec.schema import Mesh

TOPOLOGY = """
gateway: {port: 8080, routes: [{path: /, service: web}]}
services:
  web: {command: ./web, upstreams: [cart, prices]}
  cart: {command: ./cart, readiness: {http: /ready}}
  prices: {command: ./prices, protocol: grpc, retry_policy: {retriable_grpc_codes: [unavailable]}}
"""


def make(**changes: Any) -> Fault:
    values: dict[str, Any] = {"name": "f1", "service": "cart", "where": Where("x", 1, 1), **changes}
    return Fault(**values)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return load_mesh(TOPOLOGY)


def shares_of(fault: Fault, mesh: Mesh) -> dict[str, float]:
    active = (ActiveFault(id="f1", fault=fault),)
    plans = plan_callee_faults(mesh, mesh.services["cart"], "v1", "cart-v1-1", active)
    return {key.removeprefix("meshctl.fault.f1."): value / MILLION for key, value in find_shares(plans, active)}


# ------------------------------------------------------------------------------------------------------------ plans


def test_every_effect_has_a_share_of_its_own(mesh: Mesh) -> None:
    assert shares_of(make(delay=0.3, abort=503, percent=20), mesh) == {"0.delay": 0.2, "0.abort": 0.2}
    assert shares_of(make(abort=503, percent=0.01), mesh) == {"0.abort": 0.0001}
    assert shares_of(make(blackhole=True, percent=7.5), mesh) == {"0.delay": 0.075}
    # Which answers are slow is drawn by the script; the shares only say whether the fault is on.
    assert shares_of(make(rate=10, percent=5), mesh) == {"0.delay": 1.0, "0.rate": 1.0}


@given(percent=st.floats(min_value=0.01, max_value=50))
def test_an_exclusive_fault_delays_and_fails_as_many_and_none_twice(percent: float) -> None:
    mesh = load_mesh(TOPOLOGY)
    shares = shares_of(make(delay=0.3, abort=503, percent=percent, exclusive=True), mesh)
    failed = shares["0.abort"]
    delayed = (1 - failed) * shares["1.delay"]
    assert failed == pytest.approx(percent / 100, abs=2e-6)
    assert delayed == pytest.approx(percent / 100, abs=2e-6)


def test_slots_are_taken_in_the_order_of_faults_and_are_never_more_than_there_are(mesh: Mesh) -> None:
    faults = [make(delay=0.1, abort=503, exclusive=True, percent=10), make(rate=10, delay=1.0), make(reset=True)]
    active = [ActiveFault(id=f"f{number}", fault=fault) for number, fault in enumerate(faults)]
    assert [count_slots(fault) for fault in faults] == [2, 2, 1]
    plans = plan_callee_faults(mesh, mesh.services["cart"], "v1", "cart-v1-1", active)
    assert [(p.slot, p.fault, p.again) for p in plans if isinstance(p, FaultPlan)] == [
        (0, "f0", False),
        (1, "f0", True),
        (2, "f1", False),
        (3, "f1", True),
        (4, "f2", False),
    ]
    assert [plan.slot for plan in plans if isinstance(plan, FaultDraw)] == [3]
    many = [ActiveFault(id=f"m{number}", fault=make(abort=503)) for number in range(SLOTS + 3)]
    plans = plan_callee_faults(mesh, mesh.services["cart"], "v1", "cart-v1-1", many)
    assert len(plans) == SLOTS


def test_a_fault_is_made_where_it_is_meant_and_nowhere_else(mesh: Mesh) -> None:
    cart = mesh.services["cart"]
    at_callee = ActiveFault(id="a", fault=make(abort=503, callers=("web",), version="v1"))
    at_caller = ActiveFault(id="b", fault=make(abort=503, side="caller", callers=("web",), version="v1"))
    both = (at_callee, at_caller)
    (plan,) = plan_callee_faults(mesh, cart, "v1", "cart-v1-1", both)
    assert isinstance(plan, FaultPlan)
    assert (plan.fault, plan.match.identities) == ("a", ("spiffe://shop.mesh/web",))
    assert plan_callee_faults(mesh, cart, "v2", "cart-v2-1", both) == ()
    (plan,) = plan_caller_faults(cart, "web", both)
    assert isinstance(plan, FaultPlan)
    assert (plan.fault, plan.match.cluster, plan.match.identities) == ("b", "cart/v1", ())
    assert plan_caller_faults(cart, "gateway", both) == ()


@pytest.mark.parametrize(
    ("fault", "spared"),
    [
        (make(delay=1.0), ("/health", "/ready")),
        (make(delay=1.0, health_checks=True), ()),
        (make(delay=1.0, path=PathMatch(kind="prefix", value="/health")), ()),
        (make(delay=1.0, path=PathMatch(kind="prefix", value="/api")), ()),
        (make(delay=1.0, path=PathMatch(kind="exact", value="/ready")), ()),
        (make(delay=1.0, path=PathMatch(kind="regex", value="/.*")), ("/health", "/ready")),
    ],
)
def test_paths_of_health_checks_are_left_alone_unless_asked_for(
    mesh: Mesh, fault: Fault, spared: tuple[str, ...]
) -> None:
    assert find_spared(fault, mesh.services["cart"]) == spared


def test_a_page_that_is_also_a_health_check_is_not_left_alone() -> None:
    service = load_mesh("services: {web: {command: ./web, load_balancing: {health_check: {path: /}}}}").services["web"]
    assert find_spared(make(service="web", delay=1.0), service) == ()


# -------------------------------------------------------------------------------------------------------- forecasts


def table(seen: Forecast) -> dict[str, float]:
    return {outcome.what: round(outcome.share, 6) for outcome in seen.outcomes}


def fails(seen: Forecast) -> dict[str, float]:
    return {item.which: item.fails for item in seen.calls}


@given(
    percent=st.floats(min_value=0.0001, max_value=100),
    delay=st.sampled_from([0.0, 0.3, 9.0]),
    abort=st.sampled_from([0, 200, 418, 503]),
    rest=st.sampled_from([{}, {"rate": 10}, {"exclusive": True}]),
)
def test_outcomes_are_shares_of_one_whole(percent: float, delay: float, abort: int, rest: dict[str, Any]) -> None:
    fault = make(delay=delay, abort=abort, percent=min(percent, 50) if "exclusive" in rest else percent, **rest)
    seen = forecast(fault, load_mesh(TOPOLOGY))
    assert math.fsum(outcome.share for outcome in seen.outcomes) == pytest.approx(1)
    assert all(-1e-12 <= outcome.share <= 1 for outcome in seen.outcomes)
    assert all(-1e-12 <= item.fails <= 1 + 1e-12 for item in seen.calls)


def test_the_table_is_that_of_two_draws(mesh: Mesh) -> None:
    both = make(delay=0.3, abort=503, percent=20)
    assert table(forecast(both, mesh)) == {
        "nothing": 0.64,
        "delay 300ms alone": 0.16,
        "abort 503 alone": 0.16,
        "delay 300ms, then abort 503": 0.04,
    }
    apart = make(delay=0.3, abort=503, percent=20, exclusive=True)
    assert table(forecast(apart, mesh)) == {
        "nothing": 0.6,
        "delay 300ms alone": 0.2,
        "abort 503 alone": 0.2,
        "delay 300ms, then abort 503": 0.0,
    }


@pytest.mark.parametrize(
    ("changes", "repeatable", "once"),
    [
        ({"abort": 503, "percent": 50}, 0.125, 0.5),
        ({"abort": 500, "percent": 50}, 0.5, 0.5),
        ({"reset": True, "percent": 10}, 0.001, 0.1),
        ({"delay": 0.3, "percent": 10}, 0.0, 0.0),
        ({"delay": 6.0, "percent": 10}, 0.1, 0.1),
        ({"blackhole": True, "percent": 25}, 0.25, 0.25),
        # Late ones are over with the timeout; of the others a failure is tried again.
        ({"delay": 6.0, "abort": 503, "percent": 50}, 0.5 * (1 + 0.25 + 0.25**2) + 0.25**3, 0.75),
    ],
)
def test_what_is_left_after_retries(mesh: Mesh, changes: dict[str, Any], repeatable: float, once: float) -> None:
    assert fails(forecast(make(**changes), mesh)) == pytest.approx({REPEATABLE: repeatable, ONCE: once})


def test_what_is_left_is_what_a_simulation_finds() -> None:
    """The formula against attempts that are really drawn; a fixed seed."""
    draw = random.Random(7)
    retriable, final, attempts, count = 0.4, 0.1, 3, 40_000

    def fails_in_the_end() -> bool:
        for _ in range(attempts):
            value = draw.random()
            if value < final:
                return True
            if value >= final + retriable:
                return False
        return True

    found = sum(fails_in_the_end() for _ in range(count)) / count
    expected = combine(retriable, final, attempts)
    assert abs(found - expected) < 5 * math.sqrt(expected * (1 - expected) / count)


def test_grpc_calls_are_retried_by_their_status(mesh: Mesh) -> None:
    assert fails(forecast(make(service="prices", grpc_status="UNAVAILABLE", percent=50), mesh)) == {"all": 0.125}
    assert fails(forecast(make(service="prices", grpc_status="INTERNAL", percent=50), mesh)) == {"all": 0.5}
    # What Envoy makes of a status of HTTP for a gRPC client.
    assert fails(forecast(make(service="prices", abort=503, percent=50), mesh)) == {"all": 0.125}
    assert fails(forecast(make(service="prices", abort=404, percent=50), mesh)) == {"all": 0.5}


def test_notes_say_what_else_will_happen(mesh: Mesh) -> None:
    notes = "\n".join(forecast(make(abort=503, blackhole=False, percent=60), mesh).notes)
    assert "circuit opens after 5 failed calls in a row, about once in 30 calls" in notes
    assert "retry budget" in notes
    assert "health checks are not hit: /health and /ready" in notes
    assert "callers get 504 after the timeout of 5s" in forecast(make(blackhole=True), mesh).notes
    assert "circuit" not in "\n".join(forecast(make(abort=404, percent=60), mesh).notes)
    assert "no retry, circuit breaker or ejection sees it" in forecast(make(abort=503, side="caller"), mesh).notes[-1]


@pytest.mark.parametrize(
    ("changes", "dangerous"),
    [
        ({"service": "gateway", "abort": 503}, True),
        ({"service": "gateway", "abort": 503, "percent": 99}, False),
        ({"service": "gateway", "delay": 1.0}, False),
        ({"service": "gateway", "blackhole": True}, True),
        ({"service": "web", "abort": 503}, True),
        ({"service": "web", "abort": 503, "callers": ("gateway",)}, True),
        ({"service": "web", "abort": 503, "methods": ("POST",)}, False),
        ({"service": "cart", "abort": 503}, False),
    ],
)
def test_what_leaves_nothing_of_what_comes_in_wants_a_confirmation(
    mesh: Mesh, changes: dict[str, Any], dangerous: bool
) -> None:
    assert bool(forecast(make(**changes), mesh).danger) == dangerous


@pytest.mark.parametrize(
    ("changes", "asked", "caller", "meant"),
    [
        ({}, Asked(path="/x?y=1"), "web", True),
        ({}, Asked(path="/health"), "web", False),
        ({"service": "prices"}, Asked(), "web", False),
        ({"service": "gateway"}, Asked(), "gateway", True),
        ({"service": "gateway"}, Asked(), "web", False),
        ({"callers": ("gateway",)}, Asked(), "web", False),
        ({"methods": ("POST",)}, Asked(), "web", False),
        ({"path": PathMatch(value="/pay")}, Asked(path="/pay/now"), "web", True),
        ({"path": PathMatch(kind="exact", value="/pay")}, Asked(path="/pay/now"), "web", False),
        ({"path": PathMatch(kind="regex", value="/p.y")}, Asked(path="/pay"), "web", True),
        ({"headers": (ValueMatch(name="x-a", kind="exact", value="1"),)}, Asked(headers={"x-a": "1"}), "web", True),
        ({"headers": (ValueMatch(name="x-a", kind="exact", value="1"),)}, Asked(headers={"x-a": "2"}), "web", False),
    ],
)
def test_a_request_may_be_hit_if_it_is_what_the_fault_is_for(
    mesh: Mesh, changes: dict[str, Any], asked: Asked, caller: str, meant: bool
) -> None:
    assert is_for(make(delay=1.0, **changes), mesh.services["cart"], caller, asked) == meant


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"delay": 0.3, "jitter": 0.05, "percent": 20}, "delay 300ms±50ms, 20% of requests"),
        ({"delay": 0.3, "abort": 503}, "delay 300ms and abort 503, each 100% of requests"),
        ({"delay": 0.3, "reset": True, "exclusive": True, "percent": 1}, "delay 300ms or reset, 1% of requests"),
        (
            {"blackhole": True, "callers": ("web",), "version": "v2", "methods": ("GET",)},
            "no answer, 100% of requests from web to v2 by GET",
        ),
        (
            {"rate": 10, "path": PathMatch(value="/a"), "headers": (ValueMatch(name="x-a", kind="present"),)},
            "bodies at 10KiB/s, 100% of requests under /a with x-a",
        ),
        ({"grpc_status": "INTERNAL", "side": "caller"}, "INTERNAL, 100% of requests (at the caller)"),
    ],
)
def test_faults_are_told_on_one_line(changes: dict[str, Any], words: str) -> None:
    assert describe_fault(make(**changes)) == words
