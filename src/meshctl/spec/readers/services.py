"""Services, external addresses and the gateway.  Pure.

What can be said of one service by itself is checked here; what takes the others too is in ``validate``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from meshctl.errors import Where
from meshctl.spec.keys import (
    ADDRESS,
    DEPENDENCY,
    GATEWAY,
    PROCESS_KEYS,
    ROUTE,
    SERVICE,
    VERSION,
)
from meshctl.spec.merge import as_map
from meshctl.spec.policy_keys import POLICY_KEYS
from meshctl.spec.policy_schema import Policies
from meshctl.spec.reader import Fields, read_scalar
from meshctl.spec.readers.policies import read_policies
from meshctl.spec.readers.processes import Folders, layer_version, read_version
from meshctl.spec.readers.rollout import read_rollout
from meshctl.spec.readers.routing import read_mirror, read_routes, read_sticky
from meshctl.spec.readers.splits import read_split
from meshctl.spec.report import Report, join_names, quote
from meshctl.spec.schema import Condition, ExternalAddress, Gateway, GatewayRoute, Service, Version
from meshctl.spec.service_mesh import BLOCK, check_block, lay_policies
from meshctl.spec.shapes import Choice, Table, Text
from meshctl.spec.source import MapNode, Node, ScalarNode, is_null
from meshctl.spec.values import is_host, parse_address

ONLY_VERSION = "v1"
"""The version of a service that names none."""

_NOT_OUTSIDE = (
    "versions",
    "stable",
    "split",
    "sticky",
    "mirror",
    "rollout",
    "upstreams",
    "depends_on",
    *(key.name for key in PROCESS_KEYS),
)
_POLICY_NAMES = frozenset(key.name for key in POLICY_KEYS) | {BLOCK}
_SERVICE_TEXT = Text(what="the name of a service")


def belongs(*tables: Table) -> Mapping[str, str]:
    """Key -> the table it belongs to, for hints on keys that stand in the wrong place; the first table wins."""
    found: dict[str, str] = {}
    for table in tables:
        for name in table.names:
            found.setdefault(name, table.title if table is SERVICE else f"`{table.id}`")
    return found


ELSEWHERE = belongs(SERVICE, GATEWAY, *(key.shape for key in POLICY_KEYS if isinstance(key.shape, Table)))
"""Hints for keys in the wrong place."""


def read_service(
    name: str,
    node: Node,
    where: Where,
    *,
    root: MapNode,
    defaults: Policies,
    folders: Folders,
    report: Report,
) -> Service:
    """One service from its node; ``where`` is the place of its name and ``root`` holds the defaults' layers."""
    fields = Fields(SERVICE, node, report, where=where, label=f"the service {quote(name)}", elsewhere=ELSEWHERE)
    keys = as_map(node, root)
    check_block(keys, report)
    own = any(key in _POLICY_NAMES for key in keys.entries)
    laid = lay_policies(root, keys, report) if own or fields.has("routes") else keys
    policies = read_policies(laid, report) if own else defaults
    address = _read_address(fields)
    versions: Mapping[str, Version] = {}
    if fields.has("address"):
        _check_outside(fields)
    else:
        versions = _read_versions(fields, keys, where, folders=folders)
    stable = _read_stable(fields, versions)
    return Service(
        name=name,
        protocol=fields.choice("protocol", "http"),
        versions=versions,
        stable=stable,
        split=read_split(fields) or {stable: 100},
        upstreams=_read_upstreams(fields),
        address=address,
        depends_on=_read_depends_on(fields),
        policies=policies,
        routes=read_routes(fields, laid),
        sticky=read_sticky(fields),
        mirror=read_mirror(fields),
        rollout=read_rollout(fields),
        where=where,
    )


def read_gateway(node: Node | None, where: Where, report: Report) -> Gateway | None:
    """The gateway, or None when the file has none; ``where`` is the place of its key."""
    if node is None or is_null(node):
        return None
    fields = Fields(GATEWAY, node, report, where=where)
    host = fields.text("host", "127.0.0.1")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        hint = "write 127.0.0.1 for this machine only, or 0.0.0.0 for all of its networks"
        message = f"`host` must be an IP address, not {quote(host)}"
        report.add("bad-address", message, fields.place("host"), hint)
    routes: list[GatewayRoute] = []
    for item in fields.items("routes"):
        route = Fields(ROUTE, item, report, where=item.where)
        path, service = route.text("path", None), route.text("service", None)
        if path is not None and service is not None:
            routes.append(GatewayRoute(path=path, service=service, where=item.where))
    return Gateway(port=fields.integer("port", 0), host=host, routes=tuple(routes), where=where)


def _read_versions(fields: Fields, keys: MapNode, where: Where, *, folders: Folders) -> Mapping[str, Version]:
    report = fields.report
    if not fields.has("versions"):
        if fields.has("command"):
            own = layer_version(keys, None)
            return {ONLY_VERSION: read_version(ONLY_VERSION, own, where, folders=folders, report=report)}
        _check_nothing_to_run(fields)
        return {}
    # Read for its problems only: what every version overrides must be right all the same.
    read_version(ONLY_VERSION, layer_version(keys, None), where, folders=folders, report=report)
    versions: dict[str, Version] = {}
    for name, entry in fields.named("versions").items():
        own_fields = Fields(
            VERSION, entry.node, report, where=entry.where, label=f"the version {quote(name)}", elsewhere=ELSEWHERE
        )
        version = read_version(name, layer_version(keys, entry.node), entry.where, folders=folders, report=report)
        if not fields.has("command") and not own_fields.has("command"):
            _check_nothing_to_run(own_fields)
            # Nothing to start: its instances are registered at run time.
            version = replace(version, replicas=0)
        versions[name] = version
    if not any(version.replicas or version.command for version in versions.values()):
        _check_nothing_to_run(fields)
    return versions


def _check_nothing_to_run(fields: Fields) -> None:
    """Report keys that say how a process runs where there is none; without any, instances are registered."""
    written = [key.name for key in PROCESS_KEYS if fields.has(key.name)]
    if written and "command" not in written:
        keys = join_names(quote(name) for name in written)
        message = f"there is no `command` to run, but {keys}"
        hint = "add `command`; without any of these, instances are registered at run time"
        fields.report.add("missing-command", message, fields.key_place(written[0]), hint)


def _read_stable(fields: Fields, versions: Mapping[str, Version]) -> str:
    first = next(iter(versions), ONLY_VERSION)
    stable = fields.text("stable", first)
    if versions and stable not in versions:
        message = f"`stable` names {quote(stable)}, which is no version{fields.report.suggest(stable, versions)}"
        fields.report.add("unknown-version", message, fields.place("stable"), _list_versions(versions))
        return first
    return stable


def _read_upstreams(fields: Fields) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for item in fields.items("upstreams"):
        name = read_scalar(_SERVICE_TEXT, item, "an item of `upstreams`", fields.report)
        if not isinstance(name, str):
            continue
        if name in names:
            fields.report.add("duplicate-item", f"{quote(name)} is listed twice", item.where, "remove one of them")
        names[name] = None
    return tuple(names)


def _read_depends_on(fields: Fields) -> Mapping[str, Condition]:
    node = fields.alternative("depends_on")
    if not isinstance(node, MapNode):
        return {}
    conditions: dict[str, Condition] = {}
    started: Condition = "started"
    for name, entry in node.entries.items():
        conditions[name] = started
        if isinstance(entry.node, MapNode):
            inner = Fields(DEPENDENCY, entry.node, fields.report, where=entry.where)
            conditions[name] = inner.choice("condition", started)
        elif not is_null(entry.node):
            shape = DEPENDENCY.keys[0].shape
            assert isinstance(shape, Choice)
            value = read_scalar(shape, entry.node, f"the condition of {quote(name)}", fields.report)
            conditions[name] = started if value is None else cast("Condition", value)
    return conditions


def _read_address(fields: Fields) -> ExternalAddress | None:
    node = fields.alternative("address")
    if node is None:
        return None
    if isinstance(node, ScalarNode):
        text = fields.text("address", "")
        try:
            host, port, tls = parse_address(text)
        except ValueError as error:
            hint = "write `host:port`, `https://host` or `https://host:port`"
            fields.report.add("bad-address", f"`address` cannot be {quote(text)}: {error}", node.where, hint)
            return None
        return ExternalAddress(host=host, port=port, tls=tls)
    inner = Fields(ADDRESS, node, fields.report, where=fields.key_place("address"))
    host_text, port_number = inner.text("host", None), inner.integer("port", None)
    tls_flag = inner.boolean("tls", False)
    if host_text is not None and not is_host(host_text):
        message = f"`host` must be a host name or an IP address, not {quote(host_text)}"
        fields.report.add("bad-address", message, inner.place("host"))
    if host_text is None or port_number is None:
        return None
    return ExternalAddress(host=host_text.strip("[]"), port=port_number, tls=tls_flag)


def _check_outside(fields: Fields) -> None:
    for name in _NOT_OUTSIDE:
        if fields.has(name):
            message = f"{quote(name)} means nothing for a service with an `address`"
            hint = f"a service either runs here or has an address outside the mesh: remove {quote(name)} or `address`"
            fields.report.add("conflicting-keys", message, fields.key_place(name), hint)


def _list_versions(versions: Mapping[str, Version]) -> str:
    return f"versions: {', '.join(versions)}"
