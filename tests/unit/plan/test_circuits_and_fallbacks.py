"""Which circuit breakers and fallbacks callers have, of which services."""

from __future__ import annotations

import pytest
from tests.support.cases import load_mesh, make_case

from meshctl.envoy.filters.circuit_breaker import write_parameters
from meshctl.plan.circuits import find_circuits
from meshctl.plan.model import Forward
from meshctl.plan.policies.circuit_breaker import plan_circuit_breaker
from meshctl.plan.policies.fallback import CachedFallbackPlan, StaticFallbackPlan, plan_fallback
from meshctl.spec.schema import Service


def service(text: str) -> Service:
    return load_mesh(f"services: {{a: {{command: ./a, {text}}}}}").services["a"]


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("timeout: 5s", "a|5|2|30|0|100|0|6|0|0"),
        ("timeout: 250ms", "a|5|2|30|0|100|0|1.25|0|0"),
        ("protocol: grpc", "a|5|2|30|0|100|0|10|1|0"),
        ("circuit_breaker: {probe_timeout: 300ms, forced: closed}", "a|5|2|30|0|100|0|0.3|0|2"),
        ("circuit_breaker: {failure_rate: 12.5%, minimum_requests: 7}", "a|5|2|30|12.5|7|0|6|0|0"),
        ("circuit_breaker: {slow_call: {threshold: 1500ms}, timeout: 90s}", "a|5|2|90|0|100|1500|6|0|0"),
        ("circuit_breaker: {enabled: false, forced: open}", "a|5|2|30|0|100|0|6|0|1"),
    ],
)
def test_parameters_of_a_breaker(text: str, parameters: str) -> None:
    plan = plan_circuit_breaker(service(text))
    assert plan is not None
    assert write_parameters(plan) == parameters


@pytest.mark.parametrize("text", ["protocol: tcp", "circuit_breaker: {enabled: false}"])
def test_no_breaker(text: str) -> None:
    assert plan_circuit_breaker(service(text)) is None


def test_fallbacks_are_for_http() -> None:
    cached = plan_fallback(service("fallback: {strategy: cached_response, max_age: 1m, share_credentials: true}"))
    assert isinstance(cached, CachedFallbackPlan)
    assert (cached.target, cached.max_age, cached.share_credentials) == ("a", 60.0, True)
    fixed = plan_fallback(service("fallback: {strategy: static, status: 204}"))
    assert isinstance(fixed, StaticFallbackPlan)
    assert (fixed.status, fixed.body) == (204, "")
    assert plan_fallback(service("timeout: 1s")) is None
    mesh = load_mesh("{defaults: {fallback: {strategy: static}}, services: {a: {command: ./a, protocol: grpc}}}")
    assert plan_fallback(mesh.services["a"]) is None


def test_the_circuits_of_a_proxy_and_where_traffic_is_meant_to_go() -> None:
    case = make_case(
        """
        gateway: {port: 8080, routes: [{path: /, service: web}]}
        services:
          web: {command: ./web, upstreams: [api, db]}
          api: {command: ./api}
          db: {command: ./db, protocol: tcp}
        """
    )
    found = {
        node: [(plan.target, meant) for plan, meant in find_circuits(proxy)]
        for node, proxy in case.plan.proxies.items()
    }
    assert found == {"web": [("api", True)], "api": [], "db": [], "gateway": [("api", False), ("web", True)]}


def test_a_redirect_has_neither() -> None:
    case = make_case(
        """
        services:
          web: {command: ./web, upstreams: [api]}
          api:
            command: ./api
            fallback: {strategy: static}
            routes: [{name: old, match: {path: /old}, redirect: {path: /new}}]
        """
    )
    table = next(item for item in case.plan.proxies["web"].route_tables if item.name == "upstream/api")
    (host,) = table.virtual_hosts
    assert host.filters == ()
    kinds = {
        isinstance(route.action, Forward): {type(item).__name__ for item in route.filters} for route in host.routes
    }
    assert kinds[False] == set()
    assert kinds[True] >= {"CircuitBreakerPlan", "StaticFallbackPlan"}
