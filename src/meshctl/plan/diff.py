"""What a change of the topology means, in words for people.  Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from meshctl.spec.policy_schema import Policies
from meshctl.spec.schema import Mesh, Service, Version

_RESTARTS = ("command", "env", "working_dir", "port")
# Fields of a version whose change demands new processes.


def describe_changes(before: Mesh | None, after: Mesh) -> tuple[str, ...]:
    """One line per change from one mesh to another, sorted by service; empty when nothing changed.

    Without a mesh before, one line for all that starts.
    """
    if before is None:
        count = len(after.services)
        return (f"{after.name}: starting {count} service{'' if count == 1 else 's'}",)
    lines: list[str] = []
    if before.name != after.name:
        lines.append(f"mesh: name {before.name} -> {after.name}, which restarts every service")
    if before.gateway != after.gateway and _gateway_of(before) != _gateway_of(after):
        lines.append("gateway: changed")
    if before.telemetry != after.telemetry:
        lines.append("telemetry: changed")
    if (before.egress, before.trust_domain) != (after.egress, after.trust_domain):
        lines.append("mesh: egress or trust domain changed")
    for name in sorted({*before.services, *after.services}):
        old, new = before.services.get(name), after.services.get(name)
        if old is None:
            lines.append(f"{name}: added")
        elif new is None:
            lines.append(f"{name}: removed")
        else:
            lines.extend(f"{name}: {change}" for change in _service_changes(old, new))
    return tuple(lines)


def _gateway_of(mesh: Mesh) -> object:
    gateway = mesh.gateway
    return gateway and (gateway.host, gateway.port, [(r.path, r.service) for r in gateway.routes])


def _service_changes(old: Service, new: Service) -> Iterator[str]:
    for version in sorted({*old.versions, *new.versions}):
        was, now = old.versions.get(version), new.versions.get(version)
        if was is None:
            yield f"version {version} added"
        elif now is None:
            yield f"version {version} removed"
        else:
            yield from (f"{version} {change}" for change in _version_changes(was, now))
    if old.split != new.split:
        yield f"split {_weights(old)} -> {_weights(new)}"
    if old.upstreams != new.upstreams:
        yield f"upstreams are now {', '.join(new.upstreams) or 'none'}"
    for name in ("protocol", "address", "stable", "depends_on", "rollout"):
        if getattr(old, name) != getattr(new, name):
            yield f"{name} changed"
    for field in fields(Policies):
        if getattr(old.policies, field.name) != getattr(new.policies, field.name):
            yield f"{field.name} changed"


def _version_changes(old: Version, new: Version) -> Iterator[str]:
    restarts = [name for name in _RESTARTS if getattr(old, name) != getattr(new, name)]
    if restarts:
        yield f"restarts ({', '.join(restarts)} changed)"
    if old.replicas != new.replicas:
        yield f"replicas {old.replicas} -> {new.replicas}"
    for name in ("restart", "readiness", "liveness", "stop_grace", "job"):
        if getattr(old, name) != getattr(new, name):
            yield f"{name} changed"


def _weights(service: Service) -> str:
    return ", ".join(f"{version} {weight}" for version, weight in service.split.items())
