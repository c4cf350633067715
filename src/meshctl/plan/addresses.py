"""Which ports a mesh needs, and which it gets.  Pure: whether a port is free is asked of a function passed in.

Ports are assigned once and remembered by key, so that URLs and bookmarks hold across restarts:
``app/<instance>``, ``inbound/<instance>``, ``outbound/<service>``, ``upstream/<service>/<upstream>``, ``otlp``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from meshctl.spec.schema import Mesh, Service

FIRST_PORT = 20000
LAST_PORT = 29999
"""The range to choose from: below the ephemeral ports of Linux (32768) and macOS (49152), above well-known ones."""

LOOPBACK = "127.0.0.1"

COLLECTOR_KEY = "otlp"
"""Where services send their spans to."""


def app_key(instance: str) -> str:
    """Where an instance's application listens."""
    return f"app/{instance}"


def inbound_key(instance: str) -> str:
    """Where an instance's sidecar takes requests for it."""
    return f"inbound/{instance}"


def outbound_key(service: str) -> str:
    """A service's outbound listener, by host name."""
    return f"outbound/{service}"


def upstream_key(service: str, upstream: str) -> str:
    """A service's listener for one upstream."""
    return f"upstream/{service}/{upstream}"


def instance_id(service: str, version: str, index: int) -> str:
    """The name of the index-th instance (from 1) of a version."""
    return f"{service}-{version}-{index}"


def instance_ids(service: Service, replicas: Mapping[str, int]) -> dict[str, tuple[str, int]]:
    """Instance ids of a service -> (version, index from 1); ``replicas`` by ``service/version`` override the file's."""
    ids: dict[str, tuple[str, int]] = {}
    for version in service.versions.values():
        count = 1 if version.job else replicas.get(f"{service.name}/{version.name}", version.replicas)
        for index in range(1, count + 1):
            ids[instance_id(service.name, version.name, index)] = (version.name, index)
    return ids


def fixed_ports(mesh: Mesh, replicas: Mapping[str, int]) -> dict[str, int]:
    """The ports that the topology fixes itself, by key."""
    fixed: dict[str, int] = {}
    for service in mesh.services.values():
        for instance, (version, index) in instance_ids(service, replicas).items():
            port = service.versions[version].port
            if port is not None:
                fixed[app_key(instance)] = port + index - 1
    return fixed


def needed_keys(mesh: Mesh, replicas: Mapping[str, int], registered: Iterable[str] = ()) -> tuple[str, ...]:
    """The keys of every port that has to be assigned, in order; ``registered`` are ids of instances run by others."""
    keys: set[str] = {inbound_key(instance) for instance in registered}
    for service in mesh.services.values():
        if service.address is not None:
            continue
        keys.add(outbound_key(service.name))
        keys.update(upstream_key(service.name, upstream) for upstream in service.upstreams)
        for instance, (version, _) in instance_ids(service, replicas).items():
            if not service.versions[version].job:
                keys.update((app_key(instance), inbound_key(instance)))
    return (*sorted(keys), COLLECTOR_KEY)


def assign_ports(
    keys: Iterable[str],
    *,
    fixed: Mapping[str, int],
    remembered: Mapping[str, int],
    reserved: Iterable[int],
    seed: str,
    is_free: Callable[[int], bool],
) -> dict[str, int]:
    """Give every key a port.

    Args:
        keys: what needs a port.
        fixed: ports that the topology demands, by key; taken as they are.
        remembered: ports of earlier runs, by key; kept as they are (the caller drops those it found taken).
        reserved: ports that must not be given (the gateway's, say).
        seed: names the mesh; two meshes start at different places in the range and so rarely meet.
        is_free: whether a port can be bound now; asked only of new ports.

    Raises:
        LookupError: no port of the range is free.
    """
    wanted = tuple(keys)
    ports = {key: fixed[key] for key in wanted if key in fixed}
    used = set(reserved) | set(fixed.values())
    for key in wanted:
        if key not in ports and key in remembered and remembered[key] not in used:
            ports[key] = remembered[key]
            used.add(remembered[key])
    size = LAST_PORT - FIRST_PORT + 1
    start = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "big") % size
    candidates = (FIRST_PORT + (start + step) % size for step in range(size))
    for key in wanted:
        if key in ports:
            continue
        for port in candidates:
            if port not in used and is_free(port):
                ports[key] = port
                used.add(port)
                break
        else:
            raise LookupError(f"no free port between {FIRST_PORT} and {LAST_PORT} for {key}")
    return dict(sorted(ports.items()))


def instances_by_address(ports: Mapping[str, int]) -> dict[str, str]:
    """The instance behind each ``host:port`` of an inbound listener."""
    prefix = inbound_key("")
    return {f"{LOOPBACK}:{port}": key.removeprefix(prefix) for key, port in ports.items() if key.startswith(prefix)}
