"""What every proxy is to do: rules that hold whatever the mesh."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.cases import make_case

from meshctl.plan.build import build
from meshctl.plan.facts import Facts, InstanceFact, InstanceHealth
from meshctl.plan.model import EndpointsPlan, Forward, HttpListener, ProxyPlan, Reply, RouteTable, TcpListener
from meshctl.plan.policies.retry import plan_retry
from meshctl.plan.policies.timeouts import plan_timeout
from meshctl.plan.routes import gateway_table
from meshctl.plan.splits import split_of

CASE = make_case(
    """
name: shop
gateway:
  port: 48080
  routes: [{path: /, service: front}, {path: /cart/, service: cart}, {path: /cart/items, service: front}]
services:
  front: {command: ./front, upstreams: [cart, cache]}
  cart: {command: ./cart, replicas: 2}
  cache: {command: ./cache, protocol: tcp}
  stream: {command: ./stream, protocol: grpc, retry_policy: {max_attempts: 1}}
  seed: {command: ./seed, job: true, upstreams: [cart]}
""",
    {"registered": [{"service": "tax", "port": 9000}]},
)
HEALTHS: tuple[InstanceHealth, ...] = ("healthy", "unhealthy", "draining", "starting")


def with_facts(**healths: InstanceHealth) -> Facts:
    found = {name.replace("_", "-"): health for name, health in healths.items()}
    instances = tuple(replace(item, health=found.get(item.id, item.health)) for item in CASE.facts.instances)
    return replace(CASE.facts, instances=instances)


def endpoints(proxy: ProxyPlan, cluster: str) -> EndpointsPlan:
    return next(item for item in proxy.endpoints if item.cluster == cluster)


def table(proxy: ProxyPlan, name: str) -> RouteTable:
    return next(item for item in proxy.route_tables if item.name == name)


@pytest.mark.parametrize(
    ("health", "shown"), [("healthy", "healthy"), ("unhealthy", "unhealthy"), ("draining", None), ("starting", None)]
)
def test_callers_see_instances_that_were_ready_once_and_do_not_leave(health: InstanceHealth, shown: str | None) -> None:
    plan = build(CASE.mesh, with_facts(cart_v1_1=health))
    found = endpoints(plan.proxies["front"], "cart/v1").endpoints
    ports = {item.id: item.inbound_port for item in CASE.facts.instances}
    assert [item.health for item in found if item.port == ports["cart-v1-1"]] == ([] if shown is None else [shown])
    assert [item.health for item in found if item.port == ports["cart-v1-2"]] == ["healthy"]


def test_what_is_registered_beside_the_topology_may_be_called_by_all() -> None:
    for node in ("front", "cart", "seed", "gateway"):
        hosts = {host.name for host in table(CASE.plan.proxies[node], "outbound").virtual_hosts}
        assert "tax" in hosts


def test_a_service_calls_only_what_it_declares() -> None:
    hosts = {host.name for host in table(CASE.plan.proxies["seed"], "outbound").virtual_hosts}
    assert hosts == {"cart", "tax", "localhost", "*"}


def test_a_job_and_the_gateway_can_call_and_not_be_called() -> None:
    seed, gateway = CASE.plan.proxies["seed"], CASE.plan.proxies["gateway"]
    assert not [item for proxy in (seed, gateway) for item in proxy.listeners if item.name.startswith("inbound/")]
    assert "seed" not in {host.name for host in table(gateway, "outbound").virtual_hosts}


def test_a_tcp_service_called_by_host_name_is_explained() -> None:
    front = CASE.plan.proxies["front"]
    host = next(host for host in table(front, "outbound").virtual_hosts if host.name == "cache")
    action = host.routes[0].action
    assert isinstance(action, Reply)
    assert "$CACHE_HOST and $CACHE_PORT" in action.body
    listener = next(item for item in front.listeners if item.name == "upstream/cache")
    assert isinstance(listener, TcpListener)


def test_the_longest_path_of_the_gateway_wins() -> None:
    assert CASE.mesh.gateway is not None
    routes = gateway_table(CASE.mesh.gateway, CASE.mesh.services, CASE.facts).virtual_hosts[0].routes
    paths = list(dict.fromkeys(route.match.path_prefix for route in routes))
    assert paths == ["/cart/items", "/cart/", "/"]


def test_without_a_way_for_all_the_gateway_names_those_there_are() -> None:
    assert CASE.mesh.gateway is not None
    only = replace(CASE.mesh.gateway, routes=CASE.mesh.gateway.routes[1:])
    last = gateway_table(only, CASE.mesh.services, CASE.facts).virtual_hosts[0].routes[-1].action
    assert isinstance(last, Reply)
    assert (last.status, "/cart/, /cart/items" in last.body) == (404, True)


def test_grpc_is_given_no_timeout_and_one_attempt_is_no_retry() -> None:
    stream = CASE.mesh.services["stream"]
    assert (plan_timeout(stream), plan_retry(stream, repeatable=True)) == (0.0, None)


@pytest.mark.parametrize("count", range(1, 12))
def test_versions_that_only_were_registered_share_the_traffic_evenly(count: int) -> None:
    tax = CASE.mesh.services["tax"]
    instance = next(item for item in CASE.facts.instances if item.service == "tax")
    instances = tuple(replace(instance, id=f"tax-ext-{n}", version=f"v{n}") for n in range(count))
    weights = [weight for _, weight in split_of(tax, replace(CASE.facts, instances=instances))]
    assert (len(weights), sum(weights)) == (count, 100)
    assert max(weights) - min(weights) <= 1


def test_a_name_that_nobody_is_registered_for_any_more_keeps_a_cluster() -> None:
    assert split_of(CASE.mesh.services["tax"], replace(CASE.facts, instances=())) == (("tax/v1", 100),)


@settings(max_examples=60)
@given(
    healths=st.fixed_dictionaries({item.id: st.sampled_from(HEALTHS) for item in CASE.facts.instances}),
    listening=st.sets(st.sampled_from([item.id for item in CASE.facts.instances])),
    shuffled=st.permutations(CASE.facts.instances),
)
def test_whatever_the_facts_every_reference_holds_and_the_order_of_facts_is_nothing(
    healths: dict[str, InstanceHealth], listening: set[str], shuffled: list[InstanceFact]
) -> None:
    """Invariant 1."""

    def facts(instances: list[InstanceFact]) -> Facts:
        known = (replace(i, health=healths[i.id], listening=i.id in listening) for i in instances)
        return replace(CASE.facts, instances=tuple(known))

    plan = build(CASE.mesh, facts(list(CASE.facts.instances)))
    assert build(CASE.mesh, facts(shuffled)) == plan
    for proxy in plan.proxies.values():
        clusters = {item.name for item in proxy.clusters}
        tables = {item.name for item in proxy.route_tables}
        assert {item.cluster for item in proxy.endpoints} <= clusters
        for listener in proxy.listeners:
            if isinstance(listener, HttpListener):
                assert listener.route_table in tables
            else:
                assert {name for name, _ in listener.split} <= clusters
        for host in (host for item in proxy.route_tables for host in item.virtual_hosts):
            for route in host.routes:
                if isinstance(route.action, Forward):
                    assert {name for name, _ in route.action.split} <= clusters
                    assert sum(weight for _, weight in route.action.split) == 100
        addresses = [item.address for item in proxy.listeners]
        assert len(set(addresses)) == len(addresses)


def test_a_detour_leads_one_caller_elsewhere_and_no_other() -> None:
    port = {item.id: item.inbound_port for item in CASE.facts.instances}
    plan = build(CASE.mesh, replace(CASE.facts, detours={("front", "cart-v1-1"): 61000}))
    assert [item.port for item in endpoints(plan.proxies["front"], "cart/v1").endpoints] == [61000, port["cart-v1-2"]]
    for node in ("seed", "gateway"):
        found = endpoints(plan.proxies[node], "cart/v1")
        assert found == endpoints(CASE.plan.proxies[node], "cart/v1")
    assert plan.proxies["cart"] == CASE.plan.proxies["cart"]


def test_a_cut_makes_the_listener_of_one_caller_anew_and_no_other() -> None:
    mesh, facts = CASE.mesh, CASE.facts
    cart = replace(mesh.services["cart"], protocol="tcp")
    mesh = replace(mesh, services={**mesh.services, "cart": cart})
    before, after = build(mesh, facts), build(mesh, replace(facts, cuts={("front", "cart"): "f1"}))
    changed = {
        (node, item.name, item.cut)
        for node, proxy in after.proxies.items()
        for item in proxy.listeners
        if item not in before.proxies[node].listeners and isinstance(item, TcpListener)
    }
    assert changed == {("front", "upstream/cart", "f1")}
    assert after.proxies["cart"] == before.proxies["cart"]


def test_connections_of_a_renewed_service_are_made_anew_both_ways() -> None:
    plan = build(CASE.mesh, replace(CASE.facts, renewed=frozenset({"cart"})))
    renewed = {
        (node, cluster.name)
        for node, proxy in plan.proxies.items()
        for cluster in proxy.clusters
        if getattr(cluster, "renewed", False)
    }
    assert ("front", "cart/v1") in renewed
    assert {cluster for node, cluster in renewed if node == "cart"} == {"tax/v1"}
    assert all(cluster == "cart/v1" for node, cluster in renewed if node != "cart")
