"""Mesh + ports -> what is to run: one InstanceSpec per instance, sidecar and gateway.  Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from meshctl.lifecycle.environment import mesh_environment, process_environment
from meshctl.lifecycle.model import InstanceSpec
from meshctl.plan.addresses import LOOPBACK, app_key, instance_ids
from meshctl.plan.routes import GATEWAY
from meshctl.ports import ProcessSpec
from meshctl.spec.schema import HttpProbe, Mesh, Probe, RestartPolicy, Service, TcpProbe, Version

_SIDECAR_RESTART = RestartPolicy(mode="always", backoff=0.1, max_backoff=5.0)
_SIDECAR_GRACE = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What specs need to know of this machine and run.

    ``environment`` is that of ``meshctl up``; ``bootstrap`` and ``log`` give the path of a sidecar's bootstrap file
    and of a process's captured output.
    """

    envoy: str
    environment: Mapping[str, str]
    fallback_path: str
    bootstrap: Callable[[str], str]
    log: Callable[[str], str]


RELAY_PREFIX = "relay."
"""How the names of processes begin that are parts of faults, and no instances."""


def sidecar_name(service: str) -> str:
    """The process name of a service's sidecar; the gateway's is ``gateway``."""
    return GATEWAY if service == GATEWAY else f"sidecar.{service}"


def build_specs(
    mesh: Mesh, *, ports: Mapping[str, int], replicas: Mapping[str, int], around: Surroundings
) -> dict[str, InstanceSpec]:
    """Everything that is to run for a mesh, by process name."""
    specs = {sidecar_name(GATEWAY): _sidecar(mesh, GATEWAY, around)}
    for service in mesh.services.values():
        if service.address is not None:
            continue
        specs[sidecar_name(service.name)] = _sidecar(mesh, service.name, around)
        for instance, (version, _) in instance_ids(service, replicas).items():
            specs[instance] = _instance(
                mesh, service, service.versions[version], instance=instance, ports=ports, around=around
            )
    return specs


def _instance(
    mesh: Mesh,
    service: Service,
    version: Version,
    *,
    instance: str,
    ports: Mapping[str, int],
    around: Surroundings,
) -> InstanceSpec:
    given = mesh_environment(mesh, service, version, instance=instance, ports=ports)
    process = ProcessSpec(
        name=instance,
        argv=version.command,
        env=process_environment(around.environment, given, fallback_path=around.fallback_path),
        cwd=version.working_dir,
        log_path=around.log(instance),
    )
    return InstanceSpec(
        id=instance,
        service=service.name,
        version=version.name,
        kind="job" if version.job else "service",
        process=process,
        fingerprint=_fingerprint(version.command, given, version.working_dir),
        restart=version.restart,
        readiness=None if version.job else version.readiness or _built_in_readiness(service),
        liveness=version.liveness,
        host=LOOPBACK,
        port=ports.get(app_key(instance)),
        depends_on=service.depends_on,
        stop_grace=version.stop_grace,
        envoy_checked=not version.job,
    )


def _sidecar(mesh: Mesh, service: str, around: Surroundings) -> InstanceSpec:
    name = sidecar_name(service)
    argv = (
        around.envoy,
        "--config-path",
        around.bootstrap(service),
        # One worker is plenty for one service on one machine, and keeps memory low.
        "--concurrency",
        "1",
        "--disable-hot-restart",
        "--log-level",
        "warning",
        # While there is no control plane nobody takes spans, which is no line of log twice a second.
        "--component-log-level",
        "tracing:critical",
        "--log-format",
        "%l %n: %v",
        "--drain-time-s",
        "5",
        # Lines about who was refused are of use while they are new; Envoy would keep them for 10 s.
        "--file-flush-interval-msec",
        "500",
    )
    process = ProcessSpec(
        name=name, argv=argv, env=dict(around.environment), cwd=mesh.directory, log_path=around.log(name)
    )
    return InstanceSpec(
        id=name,
        service=service,
        version="",
        kind="sidecar",
        process=process,
        fingerprint=_fingerprint(argv, {}, ""),
        restart=_SIDECAR_RESTART,
        readiness=None,
        liveness=None,
        host=LOOPBACK,
        port=None,
        depends_on={},
        stop_grace=_SIDECAR_GRACE,
        envoy_checked=False,
    )


def _built_in_readiness(service: Service) -> Probe:
    # Without a probe of its own a service is ready when its health check's path answers; one that has no health
    # check, or speaks no HTTP/1.1, is ready when it accepts connections.
    check = service.policies.load_balancing.health_check
    if service.protocol != "http" or check is None:
        return Probe(check=TcpProbe())
    return Probe(check=HttpProbe(path=check.path, expected=check.expected), timeout=check.timeout)


def _fingerprint(argv: Sequence[str], given: Mapping[str, str], cwd: str) -> str:
    # Of what the topology says, not of the shell that ran `up`: another terminal must not restart anything.
    text = json.dumps([list(argv), dict(given), cwd], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
