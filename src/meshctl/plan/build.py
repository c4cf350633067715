"""Mesh + facts -> MeshPlan: what every sidecar and the gateway are to do.  Pure.

Invariant 1: the same mesh and facts give the same plan, everything sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from meshctl.identity.spiffe import spiffe_id
from meshctl.plan.addresses import LOOPBACK, outbound_key, upstream_key
from meshctl.plan.facts import Facts, InstanceFact
from meshctl.plan.inbound import inbound_listener, inbound_table, transport_of
from meshctl.plan.model import (
    ClusterPlan,
    Endpoint,
    EndpointsPlan,
    ExternalCluster,
    HttpListener,
    ListenerPlan,
    LocalCluster,
    MeshCluster,
    MeshPlan,
    PassthroughCluster,
    PipeAddress,
    ProxyPlan,
    RouteTable,
    SocketAddress,
    TcpListener,
)
from meshctl.plan.policies.faults import find_shares
from meshctl.plan.policies.health_check import plan_health_check
from meshctl.plan.policies.limits import plan_caps
from meshctl.plan.policies.load_balancing import plan_load_balancing, plan_local_balancing, weight_of
from meshctl.plan.policies.mirror import mirror_cluster, mirrored_versions
from meshctl.plan.policies.mtls import plan_peers
from meshctl.plan.policies.outlier_detection import plan_outlier_detection
from meshctl.plan.policies.retry import plan_budget
from meshctl.plan.policies.telemetry import ALL_SAMPLED, plan_telemetry
from meshctl.plan.policies.timeouts import CONNECT_TIMEOUT, EXTERNAL_CONNECT_TIMEOUT, plan_connect_timeout
from meshctl.plan.routes import (
    GATEWAY,
    PASSTHROUGH,
    gateway_table,
    outbound_table,
    upstream_table,
)
from meshctl.plan.splits import cluster_name, split_of
from meshctl.spec.schema import Mesh, Service


def build(mesh: Mesh, facts: Facts) -> MeshPlan:
    """Plan every proxy of the mesh: one sidecar per service that runs here, and the gateway."""
    proxies = {
        service.name: _plan_sidecar(mesh, service, facts)
        for service in mesh.services.values()
        if service.address is None
    }
    proxies[GATEWAY] = _plan_gateway(mesh, facts)
    return MeshPlan(proxies=dict(sorted(proxies.items())))


def upstreams_of(mesh: Mesh, service: Service, facts: Facts) -> tuple[Service, ...]:
    """The services that a service may call: those it declares, and those that anyone may call."""
    names = (set(service.upstreams) | set(facts.open_services)) - {service.name}
    return tuple(mesh.services[name] for name in sorted(names) if name in mesh.services)


def _plan_sidecar(mesh: Mesh, service: Service, facts: Facts) -> ProxyPlan:
    upstreams = upstreams_of(mesh, service, facts)
    circuit_file = facts.circuit_files.get(service.name, "")
    own = [i for i in sorted(facts.instances, key=lambda i: i.id) if i.service == service.name]
    listeners: list[ListenerPlan] = [inbound_listener(mesh, service, instance, facts) for instance in own]
    tables = [inbound_table(mesh, service, instance, facts) for instance in own if service.protocol != "tcp"]
    listeners.append(
        HttpListener(
            name="outbound",
            address=SocketAddress(LOOPBACK, facts.ports[outbound_key(service.name)]),
            role="outbound",
            route_table="outbound",
            passthrough=mesh.egress == "allow_any",
            circuit_file=circuit_file,
        )
    )
    tables.append(outbound_table(mesh, service.name, upstreams, facts))
    for upstream in upstreams:
        if upstream.name not in service.upstreams:
            continue
        name = f"upstream/{upstream.name}"
        address = SocketAddress(LOOPBACK, facts.ports[upstream_key(service.name, upstream.name)])
        if upstream.protocol == "tcp":
            listeners.append(
                TcpListener(
                    name=name,
                    address=address,
                    role="outbound",
                    split=split_of(upstream, facts),
                    idle_timeout=upstream.policies.timeout.idle,
                    cut=facts.cuts.get((service.name, upstream.name), ""),
                )
            )
        else:
            listeners.append(
                HttpListener(name=name, address=address, role="outbound", route_table=name, circuit_file=circuit_file)
            )
            tables.append(upstream_table(upstream, service.name, facts))
    clusters, endpoints = _upstream_clusters(mesh, service.name, upstreams, facts)
    for instance in own:
        clusters.append(_local_cluster(service, instance))
        local = (Endpoint(host=instance.host, port=instance.port),) if instance.listening else ()
        endpoints.append(EndpointsPlan(cluster=f"local/{instance.id}", endpoints=local))
    proxy = _proxy(
        mesh, facts, service.name, listeners=listeners, tables=tables, clusters=clusters, endpoints=endpoints
    )
    return replace(proxy, peers=plan_peers(mesh, service, facts.open_services) if own else None)


def _plan_gateway(mesh: Mesh, facts: Facts) -> ProxyPlan:
    circuit_file = facts.circuit_files.get(GATEWAY, "")
    callable_services = [s for _, s in sorted(mesh.services.items()) if not s.is_job]
    listeners: list[ListenerPlan] = [
        HttpListener(
            name="outbound",
            address=PipeAddress(facts.gateway_pipe),
            role="outbound",
            route_table="outbound",
            passthrough=mesh.egress == "allow_any",
            circuit_file=circuit_file,
        )
    ]
    tables = [outbound_table(mesh, GATEWAY, callable_services, facts)]
    if mesh.gateway is not None:
        address = SocketAddress(mesh.gateway.host, mesh.gateway.port)
        listeners.append(
            HttpListener(name=GATEWAY, address=address, role="gateway", route_table=GATEWAY, circuit_file=circuit_file)
        )
        tables.append(gateway_table(mesh.gateway, mesh.services, facts))
    clusters, endpoints = _upstream_clusters(mesh, GATEWAY, callable_services, facts)
    return _proxy(mesh, facts, GATEWAY, listeners=listeners, tables=tables, clusters=clusters, endpoints=endpoints)


def _proxy(
    mesh: Mesh,
    facts: Facts,
    node: str,
    *,
    listeners: Iterable[ListenerPlan],
    tables: Iterable[RouteTable],
    clusters: list[ClusterPlan],
    endpoints: Iterable[EndpointsPlan],
) -> ProxyPlan:
    if mesh.egress == "allow_any":
        clusters.append(PassthroughCluster(name=PASSTHROUGH, connect_timeout=EXTERNAL_CONNECT_TIMEOUT))
    tables = tuple(tables)
    hosts = [host for table in tables for host in table.virtual_hosts]
    filters = (plan for host in hosts for plan in (*host.filters, *(p for route in host.routes for p in route.filters)))
    return ProxyPlan(
        node=node,
        identity=spiffe_id(mesh.trust_domain, node),
        listeners=tuple(sorted(listeners, key=lambda item: item.name)),
        route_tables=tuple(sorted(tables, key=lambda item: item.name)),
        clusters=tuple(sorted(clusters, key=lambda item: item.name)),
        endpoints=tuple(sorted(endpoints, key=lambda item: item.cluster)),
        telemetry=plan_telemetry(mesh.telemetry, facts.taps.get(node), facts.sampling.get(node, ALL_SAMPLED)),
        fault_shares=find_shares(filters, facts.faults) if facts.faults else (),
    )


def _local_cluster(service: Service, instance: InstanceFact) -> LocalCluster:
    return LocalCluster(
        name=f"local/{instance.id}",
        protocol=service.protocol,
        health_check=plan_health_check(service),
        connect_timeout=CONNECT_TIMEOUT,
        load_balancing=plan_local_balancing(service),
    )


def _upstream_clusters(
    mesh: Mesh, caller: str, upstreams: Sequence[Service], facts: Facts
) -> tuple[list[ClusterPlan], list[EndpointsPlan]]:
    clusters: list[ClusterPlan] = []
    endpoints: list[EndpointsPlan] = []
    for upstream in upstreams:
        if upstream.address is not None:
            clusters.append(_external_cluster(upstream, facts))
            continue
        instances = [i for i in facts.instances if i.service == upstream.name]
        named = {version for rule in upstream.routes for version in rule.split}
        versions = set(upstream.versions) | set(upstream.split) | named | {i.version for i in instances}
        pairs = [(cluster_name(upstream, version), version) for version in sorted(versions)]
        pairs += [(mirror_cluster(upstream, version), version) for version in mirrored_versions(upstream, caller)]
        for name, version in pairs:
            clusters.append(_mesh_cluster(mesh, caller, upstream, name, facts))
            found = [_detour(caller, i, facts) for i in instances if i.version == version]
            endpoints.append(_mesh_endpoints(upstream, name, found))
    return clusters, endpoints


def _identity_of(mesh: Mesh, upstream: Service, facts: Facts) -> str:
    return spiffe_id(mesh.trust_domain, upstream.name) if transport_of(upstream, facts).encrypted else ""


def _detour(caller: str, instance: InstanceFact, facts: Facts) -> InstanceFact:
    port = facts.detours.get((caller, instance.id))
    return instance if port is None else replace(instance, inbound_port=port)


def _mesh_cluster(mesh: Mesh, caller: str, upstream: Service, name: str, facts: Facts) -> MeshCluster:
    return MeshCluster(
        name=name,
        identity=_identity_of(mesh, upstream, facts),
        protocol=upstream.protocol,
        load_balancing=plan_load_balancing(upstream),
        connect_timeout=plan_connect_timeout(upstream),
        outlier_detection=plan_outlier_detection(upstream),
        caps=plan_caps(upstream),
        retry_budget=plan_budget(upstream),
        renewed=not facts.renewed.isdisjoint((caller, upstream.name)),
    )


def _mesh_endpoints(upstream: Service, cluster: str, instances: Iterable[InstanceFact]) -> EndpointsPlan:
    # Those that never were ready, and those being drained, are not endpoints at all: a draining one would be
    # sent requests still if it were the only one.
    shown = [
        Endpoint(
            host=LOOPBACK,
            port=i.inbound_port,
            health="healthy" if i.health == "healthy" else "unhealthy",
            weight=weight_of(upstream, i.id),
        )
        for i in sorted(instances, key=lambda i: i.id)
        if i.health in ("healthy", "unhealthy")
    ]
    return EndpointsPlan(cluster=cluster, endpoints=tuple(shown))


def _external_cluster(service: Service, facts: Facts) -> ExternalCluster:
    address = service.address
    assert address is not None
    return ExternalCluster(
        name=cluster_name(service, ""),
        host=address.host,
        port=address.port,
        tls=address.tls,
        roots_file=facts.system_roots,
        protocol=service.protocol,
        load_balancing=plan_load_balancing(service),
        health_check=plan_health_check(service),
        connect_timeout=plan_connect_timeout(service),
        outlier_detection=plan_outlier_detection(service),
        caps=plan_caps(service),
        retry_budget=plan_budget(service),
    )
