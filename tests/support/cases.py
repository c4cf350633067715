"""Golden cases: a topology, facts about it, and what follows from both."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml

from meshctl.envoy import pb
from meshctl.envoy.translate import Credentials, Translated, translate
from meshctl.plan.addresses import (
    LOOPBACK,
    app_key,
    assign_ports,
    fixed_ports,
    inbound_key,
    instance_ids,
    needed_keys,
)
from meshctl.plan.build import build
from meshctl.plan.effective import add_registered, open_services
from meshctl.plan.facts import Facts, InstanceFact
from meshctl.plan.model import MeshPlan
from meshctl.plan.routes import GATEWAY
from meshctl.ports import Registration, SourceFile, TopologySource
from meshctl.spec.load import load
from meshctl.spec.schema import Mesh

PLACEHOLDER = Credentials(leaf_chain=b"(leaf)", leaf_key=b"(key)", roots=b"(roots)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A topology with facts, planned."""

    mesh: Mesh
    facts: Facts
    plan: MeshPlan

    def resources(self, credentials: Credentials = PLACEHOLDER) -> dict[str, tuple[Translated, ...]]:
        """The resources of every proxy, by node."""
        return {node: translate(proxy, credentials) for node, proxy in self.plan.proxies.items()}


def load_mesh(text: str, directory: str = "/srv/shop") -> Mesh:
    """A topology from its text."""
    file = SourceFile(path="mesh.yaml", directory=directory, text=text)
    return load(TopologySource(files=(file,), variables={}))


def make_case(text: str, facts: dict[str, Any] | None = None) -> Case:
    """Plan a topology.

    ``facts`` may hold ``health`` (instance -> health; others are healthy) and ``registered`` (a list of
    service, version, port).
    """
    given = facts or {}
    registered = tuple(
        Registration(
            id=f"{item['service']}-ext-{number}",
            service=item["service"],
            version=item.get("version", "v1"),
            host=LOOPBACK,
            port=item["port"],
            ttl=None,
            expires_at=None,
        )
        for number, item in enumerate(given.get("registered", []), start=1)
    )
    declared = load_mesh(text)
    mesh = add_registered(declared, registered)
    reserved = [mesh.gateway.port] if mesh.gateway else []
    ports = assign_ports(
        needed_keys(mesh, {}, [item.id for item in registered]),
        fixed=fixed_ports(mesh, {}),
        remembered={},
        reserved=reserved,
        seed="golden",
        is_free=lambda _: True,
    )
    health = given.get("health", {})
    instances = [
        InstanceFact(
            id=instance,
            service=service.name,
            version=version,
            host=LOOPBACK,
            port=ports[app_key(instance)],
            inbound_port=ports[inbound_key(instance)],
            listening=health.get(instance, "healthy") != "starting",
            health=health.get(instance, "healthy"),
        )
        for service in mesh.services.values()
        for instance, (version, _) in instance_ids(service, {}).items()
        if not service.versions[version].job
    ]
    instances += [
        InstanceFact(
            id=item.id,
            service=item.service,
            version=item.version,
            host=item.host,
            port=item.port,
            inbound_port=ports[inbound_key(item.id)],
            listening=True,
            health="healthy",
        )
        for item in registered
    ]
    known = Facts(
        instances=tuple(sorted(instances, key=lambda i: i.id)),
        ports=ports,
        gateway_pipe="/run/meshctl/gateway.out",
        open_services=open_services(declared, registered),
        circuit_files={name: f"/run/meshctl/{name}.circuits-1" for name in (*mesh.services, GATEWAY)},
    )
    return Case(mesh=mesh, facts=known, plan=build(mesh, known))


def read_case(folder: Path) -> Case:
    """The case of a folder: ``mesh.yaml`` and, if there is one, ``facts.yaml``."""
    facts = folder / "facts.yaml"
    return make_case((folder / "mesh.yaml").read_text(), yaml.safe_load(facts.read_text()) if facts.exists() else None)


def outputs(case: Case) -> dict[str, str]:
    """What follows from a case, by file name: the plan, and every resource by node and kind."""
    files = {"plan.json": _pretty(_plain(case.plan))}
    for node, resources in case.resources().items():
        kinds: dict[str, list[Any]] = {}
        for item in resources:
            shown = json.loads(pb.json_format.MessageToJson(item.message, preserving_proto_field_name=True))
            kinds.setdefault(item.kind, []).append(_without_scripts(shown))
        for kind, shown_resources in kinds.items():
            files[f"envoy/{node}.{kind}.json"] = _pretty(shown_resources)
    return files


def _without_scripts(shown: Any) -> Any:
    """Without the text of Lua scripts, which have tests of their own; what a listener fills in stays."""
    if isinstance(shown, dict):
        return {key: _without_scripts(item) for key, item in shown.items()}
    if isinstance(shown, list):
        return [_without_scripts(item) for item in shown]
    if isinstance(shown, str) and "function envoy_on_" in shown:
        return f"(a script) {shown.splitlines()[0]}"
    return shown


def _plain(value: Any) -> Any:
    """Dataclasses as mappings, without what has its default: a case shows what it is about."""
    if is_dataclass(value) and not isinstance(value, type):
        shown = {"kind": type(value).__name__}
        return shown | {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if field.default is MISSING or getattr(value, field.name) != field.default
        }
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True) + "\n"
