"""What has to be so before a rollout may begin; what tells revisions of a version apart.  I/O (engine)."""

from __future__ import annotations

import hashlib
import json

from meshctl.canary.model import FULL
from meshctl.control.engine import Engine
from meshctl.errors import ConflictError, NotFoundError
from meshctl.spec.schema import Service, Version
from meshctl.spec.shifts import check_versions, find_route, list_versions


def find_service(engine: Engine, name: str) -> Service:
    """A service of the mesh that runs. Raises NotFoundError, or ConflictError while none runs."""
    if engine.mesh is None:
        raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
    engine.refuse_while_stopping()
    if name not in engine.mesh.services:
        raise NotFoundError(f"no service {name}", hint=f"services: {', '.join(sorted(engine.mesh.services))}")
    return engine.mesh.services[name]


def revision_of(version: Version) -> str:
    """A hash of what the topology says of a version: a rollback holds for it, and for no other."""
    said = [list(version.command), dict(version.env), version.working_dir]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:12]


def check_version(service: Service, version: str) -> None:
    """Refuse a version that can never be rolled out: NotFoundError for none of the service's, ConflictError for the
    stable one.
    """
    check_versions(service, {version: 0})
    if version == service.stable:
        raise ConflictError(
            f"{version} is the stable version of {service.name}: it is what others are compared with",
            hint=f"its versions: {list_versions(service)}",
        )


def check_start(service: Service, version: str, *, replaced: str = "") -> int:
    """Refuse a version (see ``check_version``) that cannot be rolled out as things are; the weight that it has now.

    ``replaced`` is the version of a rollout whose place it takes, and whose traffic with it.

    Raises:
        ConflictError: it has everything already, or traffic does not go by two versions alone.
    """
    name, stable = service.name, service.stable
    if service.protocol == "tcp":
        raise ConflictError(
            f"{name} speaks plain TCP: there are no requests to judge {version} by",
            hint=f"shift its connections by hand: meshctl canary shift {name} {version}=10",
        )
    others = sorted(set(service.split) - {stable, version, replaced})
    if others:
        raise ConflictError(
            f"{', '.join(others)} of {name} gets traffic too: a rollout compares {version} with {stable} alone",
            hint=f"take it away first: meshctl canary shift {name} {' '.join(f'{other}=0' for other in others)}",
        )
    made = find_route(service)
    if made is not None:
        header = made.match.headers[0].name
        raise ConflictError(
            f"requests to {name} with {header} go by a split of their own, made by `canary shift --header`",
            hint=f"take it away first: meshctl canary shift {name} {version}=0",
        )
    weight = service.split.get(version, 0)
    if weight == FULL:
        raise ConflictError(
            f"{version} has all of the traffic of {name} already",
            hint=f"declare it with `stable: {version}` in the topology",
        )
    return weight
