"""What must hold for policies between services: names, and where what is asked for can have an effect.  Pure.

Enters: a Mesh and the tree it came from, for places.  Leaves: problems.  Only what is written at a service itself is
held to what that service is; what it inherits from the defaults may well be of no use to it.
"""

from __future__ import annotations

import re

from meshctl.errors import Where
from meshctl.spec.report import Report, join_names, quote
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.source import Entry, ListNode, MapNode, Node, ScalarNode

_ANYWHERE = ("gateway",)
_FOR_HTTP: tuple[tuple[str, ...], ...] = (
    ("rate_limits",),
    ("limits", "max_pending_requests"),
    ("limits", "max_requests"),
    ("limits", "max_retries"),
    ("limits", "max_request_bytes"),
    ("limits", "adaptive_concurrency"),
    ("load_balancing", "hash"),
    ("circuit_breaker",),
    ("fallback",),
)
"""Keys that mean nothing where single requests are not seen."""

_AT_THE_CALLEE: tuple[tuple[str, ...], ...] = (
    ("rate_limits",),
    ("limits", "max_request_bytes"),
    ("limits", "adaptive_concurrency"),
    ("load_balancing", "weights"),
)
"""Keys that take a sidecar at the called service, or instances."""


def check_limits(mesh: Mesh, root: MapNode, report: Report) -> None:
    """Report weights of unknown instances, rate limits of unknown callers, and keys without effect."""
    for service in mesh.services.values():
        _check_weights(mesh, service, root, report)
        _check_callers(mesh, service, root, report)
        _check_effect(service, root, report)


def _check_weights(mesh: Mesh, service: Service, root: MapNode, report: Report) -> None:
    own = _own(root, service, "load_balancing", "weights")
    if own and service.address is not None:
        return  # reported as being without effect
    for instance, _ in service.policies.load_balancing.weights:
        entry = own.node.entries.get(instance) if own and isinstance(own.node, MapNode) else None
        # The defaults may weigh the instances of any service.
        candidates = [service] if entry else list(mesh.services.values())
        if any(may_be_instance(instance, candidate) for candidate in candidates):
            continue
        of = f"of {quote(service.name)}" if entry else "of any service"
        message = f"{quote(instance)} cannot be an instance {of}"
        known = ", ".join(f"{service.name}-{version}-1" for version in service.versions) or f"{service.name}-ext-1"
        hint = f"instances are named by service, version and number: {known} and so on"
        report.add("unknown-instance", message, entry.where if entry else _place_in_defaults(root, instance), hint)


def may_be_instance(instance: str, service: Service) -> bool:
    """Whether an instance of the service can have this name, now or once more are run or registered."""
    names = [*service.versions, "ext"]
    return any(re.fullmatch(rf"{re.escape(f'{service.name}-{name}')}-[1-9][0-9]*", instance) for name in names)


def _check_callers(mesh: Mesh, service: Service, root: MapNode, report: Report) -> None:
    own = _own(root, service, "rate_limits")
    where = own.where if own else _place_in_defaults(root)
    known = [*(name for name, other in mesh.services.items() if other.address is None), *_ANYWHERE]
    for limit in service.policies.rate_limits:
        for name in limit.callers:
            if name not in known:
                message = (
                    f"the rate limit {quote(limit.name)} is for the caller {quote(name)}, which is no service here"
                )
                place = _item_place(own.node, limit.name, name) if own else None
                hint = f"callers are services and `gateway`: {join_names(known)}"
                report.add("unknown-service", message + report.suggest(name, known), place or where, hint)
        if own and (limit.callers or limit.each_caller) and service.policies.security.mtls == "off":
            message = f"the rate limit {quote(limit.name)} tells callers apart, which takes mTLS"
            report.add("no-effect", message, where, "remove `mtls: false`, or limit by `header` or `path`")


def _check_effect(service: Service, root: MapNode, report: Report) -> None:
    kinds: list[tuple[tuple[tuple[str, ...], ...], str]] = []
    if service.address is not None:
        kinds.append((_AT_THE_CALLEE, "has no sidecar here that could hold it"))
    if service.protocol == "tcp":
        kinds.append((_FOR_HTTP, "speaks plain TCP, in which no single requests are seen"))
    if service.protocol == "grpc":
        kinds.append(((("limits", "max_request_bytes"),), "speaks gRPC, whose streams have no length of their own"))
        kinds.append(((("fallback",),), "speaks gRPC, and only GET is answered by a fallback"))
    for paths, reason in kinds:
        for path in paths:
            own = _own(root, service, *path)
            if own is not None and not _is_false(own.node):
                message = f"{quote('.'.join(path))} has no effect: {quote(service.name)} {reason}"
                report.add("no-effect", message, own.where, "remove it")


def _is_false(node: Node) -> bool:
    """Whether what a key is set to is that there is none of it."""
    return isinstance(node, ScalarNode) and node.text == "false"


def _own(root: MapNode, service: Service, *path: str) -> Entry | None:
    """What is written at a service itself under a path of keys."""
    return _at(root, "services", service.name, *path)


def _at(root: MapNode, *path: str) -> Entry | None:
    node: Node = root
    entry: Entry | None = None
    for key in path:
        entry = node.entries.get(key) if isinstance(node, MapNode) else None
        if entry is None:
            return None
        node = entry.node
    return entry


def _place_in_defaults(root: MapNode, weighed: str = "") -> Where:
    entry = _at(root, "defaults", "load_balancing", "weights", weighed) or _at(root, "defaults", "rate_limits")
    return entry.where if entry else root.where


def _item_place(node: Node, limit: str, caller: str) -> Where | None:
    """The place of a caller's name under the rate limit of a name."""
    for item in node.items if isinstance(node, ListNode) else ():
        if not isinstance(item, MapNode) or "name" not in item.entries or "from" not in item.entries:
            continue
        named, callers = item.entries["name"].node, item.entries["from"].node
        if isinstance(named, ScalarNode) and named.text == limit and isinstance(callers, ListNode):
            return next((c.where for c in callers.items if isinstance(c, ScalarNode) and c.text == caller), None)
    return None
