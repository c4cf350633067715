"""Golden cases: a topology, facts about it, and what follows from both."""

from __future__ import annotations

import json
from collections.abc import Iterable
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
from meshctl.plan.facts import ActiveFault, Facts, InstanceFact
from meshctl.plan.model import MeshPlan
from meshctl.plan.policies.telemetry import TapPlan
from meshctl.plan.routes import GATEWAY
from meshctl.ports import Registration, SourceFile, TopologySource
from meshctl.spec.load import load
from meshctl.spec.schema import Mesh

_WIDTH = 120

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

    The faults of the topology are on.
    ``facts`` may hold ``health`` (instance -> health; others are healthy), ``registered`` (a list of
    service, version, port) and ``taps`` (node -> the values of its TapPlan).
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
        taps={node: _tap(**values) for node, values in given.get("taps", {}).items()},
        faults=tuple(ActiveFault(id=name, fault=fault) for name, fault in mesh.faults.items()),
        circuit_files={name: f"/run/meshctl/{name}.circuits-1" for name in (*mesh.services, GATEWAY)},
    )
    return Case(mesh=mesh, facts=known, plan=build(mesh, known))


def _tap(*, upstreams: Iterable[str] = (), **values: Any) -> TapPlan:
    return TapPlan(upstreams=tuple(upstreams), **values)


def read_case(folder: Path) -> Case:
    """The case of a folder: ``mesh.yaml`` and, if there is one, ``facts.yaml``."""
    facts = folder / "facts.yaml"
    return make_case((folder / "mesh.yaml").read_text(), yaml.safe_load(facts.read_text()) if facts.exists() else None)


def outputs(case: Case, *, whole: bool = False) -> dict[str, str]:
    """What follows from a case, by file name: the plan, and every resource by node and kind.

    Unless it is to be shown as a whole, what is the same in every case is left out: the gateway's part where the
    topology has no gateway, secrets, and the routine of listeners.
    """
    shown = {node for node in case.plan.proxies if whole or node != GATEWAY or case.mesh.gateway is not None}
    plan = MeshPlan(proxies={node: proxy for node, proxy in case.plan.proxies.items() if node in shown})
    files = {"plan.json": _pretty(_plain(plan))}
    for node, resources in case.resources().items():
        kinds: dict[str, list[Any]] = {}
        for item in resources:
            if node not in shown or (item.kind == "secret" and not whole):
                continue
            resource = json.loads(pb.json_format.MessageToJson(item.message, preserving_proto_field_name=True))
            kinds.setdefault(item.kind, []).append(_without_scripts(resource) if whole else _without_routine(resource))
        for kind, found in kinds.items():
            files[f"envoy/{node}.{kind}.json"] = _pretty(found)
    return files


def _without_routine(value: Any) -> Any:
    """JSON without what every listener has alike: HTTP filters are only named, logs and local replies left out."""
    if isinstance(value, list):
        return [_without_routine(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: [item["name"] for item in inner] if key == "http_filters" else _without_routine(inner)
        for key, inner in value.items()
        if key not in ("access_log", "local_reply_config")
    }


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
    return f"{_lay_out(value, '')}\n"


def _lay_out(value: Any, indent: str) -> str:
    """JSON with sorted keys: on one line what fits on one, so that a case can be read."""
    flat = json.dumps(value, sort_keys=True)
    if len(indent) + len(flat) <= _WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    inner = f"{indent} "
    if isinstance(value, dict):
        rows = [f"{json.dumps(key)}: {_lay_out(value[key], inner)}" for key in sorted(value)]
    else:
        rows = [_lay_out(item, inner) for item in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    lines = ",\n".join(f"{inner}{row}" for row in rows)
    return f"{first}\n{lines}\n{indent}{last}"
