"""The mesh as it is meant to run now: the part that was asked for, with what was registered.  Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from meshctl.errors import NotFoundError, Where
from meshctl.ports import Registration
from meshctl.spec.schema import Mesh, Service

REGISTERED = Where("(registered)", 0, 0)
"""The place of services that are in no file."""


def select_services(mesh: Mesh, names: Iterable[str]) -> Mesh:
    """The part of a mesh that holds the named services and all that they call or depend on; all when none is named.

    Raises:
        NotFoundError: a name is no service of the mesh.
    """
    wanted = list(names)
    if not wanted:
        return mesh
    unknown = sorted(set(wanted) - set(mesh.services))
    if unknown:
        known = ", ".join(sorted(mesh.services))
        raise NotFoundError(f"no service {', '.join(unknown)} in {mesh.name}", hint=f"services: {known}")
    chosen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name not in chosen:
            chosen.add(name)
            wanted += [*mesh.services[name].upstreams, *mesh.services[name].depends_on]
    gateway = mesh.gateway
    if gateway is not None:
        gateway = replace(gateway, routes=tuple(r for r in gateway.routes if r.service in chosen))
    services = {name: service for name, service in mesh.services.items() if name in chosen}
    return replace(mesh, gateway=gateway, services=services)


def open_services(mesh: Mesh, registrations: Iterable[Registration]) -> tuple[str, ...]:
    """Names that were registered without being in the topology; every service may call them."""
    return tuple(sorted({r.service for r in registrations} - set(mesh.services)))


def add_registered(mesh: Mesh, registrations: Iterable[Registration]) -> Mesh:
    """The mesh with a service for every registered name that the topology does not know."""
    names = open_services(mesh, registrations)
    if not names:
        return mesh
    added = {
        name: Service(
            name=name,
            versions={},
            stable="v1",
            split={"v1": 100},
            depends_on={},
            policies=mesh.defaults,
            where=REGISTERED,
        )
        for name in names
    }
    return replace(mesh, services={**mesh.services, **added})
