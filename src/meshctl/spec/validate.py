"""What must hold between services: references, cycles, ports, names.  Pure.

Enters: a Mesh in which every value by itself has been read, and the tree it came from, for places.  Leaves: problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from meshctl.errors import Where
from meshctl.spec.report import Report, join_names, quote
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.source import MapNode
from meshctl.spec.tree import find, key_place
from meshctl.spec.validate_faults import check_fault
from meshctl.spec.validate_limits import check_limits
from meshctl.spec.validate_rollout import check_rollout
from meshctl.spec.validate_routes import check_routes
from meshctl.spec.validate_security import check_security

RESERVED = frozenset({"anonymous", "daemon", "defaults", "external", "gateway", "keeper", "local", "localhost", "mesh"})
"""Names that the mesh uses itself: for its processes, for hosts, for kinds of clusters (``local/cart-v1-1``), for the
owners of policies that belong to no service."""

_REGISTERED = "ext"
# Instances that are registered at run time are named ``service-ext-n``.


def validate(mesh: Mesh, root: MapNode, report: Report) -> None:
    """Report everything that does not fit together."""
    for service in mesh.services.values():
        _check_name(service, report)
        _check_upstreams(service, mesh.services, root, report)
        _check_depends_on(service, mesh.services, root, report)
        _check_split(service, root, report)
        _check_versions(service, report)
        check_routes(service, mesh.services, root, report)
        check_rollout(service, root, report)
    _check_instances(mesh, report)
    _check_cycles(mesh.services, root, report)
    _check_gateway(mesh, report)
    _check_ports(mesh, root, report)
    check_security(mesh, root, report)
    check_limits(mesh, root, report)
    for fault in mesh.faults.values():
        check_fault(fault, mesh, report)


def _check_name(service: Service, report: Report) -> None:
    if service.name in RESERVED:
        message = f"{quote(service.name)} cannot be the name of a service: the mesh uses it itself"
        report.add("reserved-name", message, service.where, "choose another name")


def _check_upstreams(service: Service, services: Mapping[str, Service], root: MapNode, report: Report) -> None:
    for name in service.upstreams:
        where = key_place(root, "services", service.name, "upstreams", name)
        upstream = services.get(name)
        if name == service.name:
            hint = "remove it: a service need not declare itself"
            report.add("upstream-self", f"{quote(name)} is its own upstream", where, hint)
        elif upstream is None:
            message = f"{quote(service.name)} has the upstream {quote(name)}, which is no service"
            report.add("unknown-service", message + report.suggest(name, services), where, _hint_add(name))
        elif upstream.is_job:
            hint = "a job runs once and takes no calls; to run after it use `depends_on`"
            report.add("upstream-job", f"the upstream {quote(name)} is a job", where, hint)


def _check_depends_on(service: Service, services: Mapping[str, Service], root: MapNode, report: Report) -> None:
    for name, condition in service.depends_on.items():
        where = key_place(root, "services", service.name, "depends_on", name)
        other = services.get(name)
        if other is None:
            message = f"{quote(service.name)} depends on {quote(name)}, which is no service"
            report.add("unknown-service", message + report.suggest(name, services), where, _hint_add(name))
        elif condition == "completed_successfully" and not other.is_job:
            hint = f"write `job: true` under {quote(name)} if it runs to its end, or wait for `healthy`"
            report.add("condition-no-job", f"{quote(name)} is no job, so it never completes", where, hint)


def _check_split(service: Service, root: MapNode, report: Report) -> None:
    if not service.versions:
        return
    for name in service.split:
        if name not in service.versions:
            message = f"`split` names {quote(name)}, which is no version{report.suggest(name, service.versions)}"
            where = key_place(root, "services", service.name, "split", name)
            report.add("unknown-version", message, where, f"versions: {', '.join(service.versions)}")


def _check_versions(service: Service, report: Report) -> None:
    jobs = [version for version in service.versions.values() if version.job]
    if jobs and len(jobs) < len(service.versions):
        message = f"{quote(jobs[0].name)} of {quote(service.name)} is a job and other versions are not"
        report.add("mixed-job", message, jobs[0].where, "make the job a service of its own")
    for version in service.versions.values():
        if version.name == _REGISTERED or version.name.endswith(f"-{_REGISTERED}"):
            message = f"{quote(version.name)} cannot be the name of a version: registered instances are named so"
            report.add("reserved-name", message, version.where, "choose another name")


def _check_instances(mesh: Mesh, report: Report) -> None:
    """Instances are named ``service-version-n``: two ways to make the same name would be two with one name."""
    owners: dict[str, str] = {}
    for service in mesh.services.values():
        for version in service.versions.values():
            name, owner = f"{service.name}-{version.name}", f"{service.name} {version.name}"
            if name in owners:
                message = f"the instances of {quote(owner)} have the same names as those of {quote(owners[name])}"
                report.add("ambiguous-name", message, version.where, "rename one of the two services or versions")
            owners.setdefault(name, owner)


def _check_cycles(services: Mapping[str, Service], root: MapNode, report: Report) -> None:
    for cycle in find_cycles({name: tuple(service.depends_on) for name, service in services.items()}):
        path = [*cycle, cycle[0]]
        where = key_place(root, "services", path[0], "depends_on", path[1])
        message = f"these wait for each other and none could start: {' -> '.join(path)}"
        report.add("dependency-cycle", message, where, "take one of them out of `depends_on`")


def find_cycles(edges: Mapping[str, tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The cycles of a graph that a walk in the order of ``edges`` closes: at least one of every knot.

    Edges to names that are no key are left out. Without recursion: a chain may be long.
    """
    cycles: list[tuple[str, ...]] = []
    done: set[str] = set()
    for start in edges:
        if start in done:
            continue
        path: list[str] = []
        on_path: dict[str, int] = {}
        stack: list[Iterator[str]] = [iter((start,))]
        while stack:
            name = next(stack[-1], None)
            if name is None:
                stack.pop()
                if path:
                    left = path.pop()
                    del on_path[left]
                    done.add(left)
            elif name in on_path:
                cycles.append(tuple(path[on_path[name] :]))
            elif name in edges and name not in done:
                on_path[name] = len(path)
                path.append(name)
                stack.append(iter(edges[name]))
    return cycles


def _check_gateway(mesh: Mesh, report: Report) -> None:
    if mesh.gateway is None:
        return
    paths: dict[str, str] = {}
    for route in mesh.gateway.routes:
        service = mesh.services.get(route.service)
        if service is None:
            message = f"the route {quote(route.path)} goes to {quote(route.service)}, which is no service"
            suggestion = report.suggest(route.service, mesh.services)
            report.add("unknown-service", message + suggestion, route.where, _hint_add(route.service))
        elif service.is_job:
            message = f"the route {quote(route.path)} goes to {quote(route.service)}, which is a job"
            report.add("route-target", message, route.where, "a job takes no calls")
        elif service.protocol == "tcp":
            message = f"the route {quote(route.path)} goes to {quote(route.service)}, which speaks plain TCP"
            report.add("route-target", message, route.where, "routes lead to services that speak http or grpc")
        key = route.path.rstrip("/")
        if key in paths:
            message = f"the path {quote(route.path)} is there twice: for {quote(paths[key])} and {quote(route.service)}"
            report.add("duplicate-path", message, route.where, "remove one of the routes")
        paths.setdefault(key, route.service)


def _check_ports(mesh: Mesh, root: MapNode, report: Report) -> None:
    owners: dict[int, list[tuple[str, Where]]] = {}
    if mesh.gateway is not None and mesh.gateway.port:
        owners[mesh.gateway.port] = [("the gateway", key_place(root, "gateway", "port"))]
    prometheus = mesh.telemetry.prometheus
    if prometheus is not None and prometheus.port:
        place = key_place(root, "telemetry", "prometheus", "port")
        owners.setdefault(prometheus.port, []).append(("the Prometheus endpoint", place))
    for service in mesh.services.values():
        for version in service.versions.values():
            if version.port is None:
                continue
            at = ("services", service.name)
            own = find(root, *at, "versions", version.name, "port")
            where = own.where if own else key_place(root, *at, "port")
            for index in range(1 if version.job else version.replicas):
                owner = f"{service.name}-{version.name}-{index + 1}"
                owners.setdefault(version.port + index, []).append((owner, where))
    for port, users in sorted(owners.items()):
        if len(users) > 1:
            message = f"port {port} is used by {join_names(name for name, _ in users)}"
            report.add("port-twice", message, users[-1][1], "give each its own port, or leave `port` out")


def _hint_add(name: str) -> str:
    return f"add {quote(name)} under `services`, or correct the name"
