"""InstanceSpecs for tests: short to write, with rhythms that are easy to reckon with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from meshctl.lifecycle.model import InstanceSpec
from meshctl.ports import ProcessSpec
from meshctl.spec.schema import Probe, RestartPolicy, TcpProbe

READINESS = Probe(check=TcpProbe(), interval=1.0)
LIVENESS = Probe(check=TcpProbe(), interval=5.0)


def make_spec(name: str = "web-v1-1", **changes: Any) -> InstanceSpec:
    """A service's instance with a readiness probe; the service's name is that of the instance before the first dash."""
    spec = InstanceSpec(
        id=name,
        service=name.removeprefix("sidecar.").split("-")[0],
        version="v1",
        kind="service",
        process=ProcessSpec(name=name, argv=("serve",), env={}, cwd="/", log_path=f"/logs/{name}.log"),
        fingerprint="one",
        restart=RestartPolicy(),
        readiness=READINESS,
        host="127.0.0.1",
        port=20000,
    )
    return replace(spec, **changes)


def make_job(name: str = "seed-v1-1", **changes: Any) -> InstanceSpec:
    """A job that is not restarted."""
    given = {"kind": "job", "readiness": None, "port": None, "restart": RestartPolicy(mode="no")}
    return make_spec(name, **{**given, **changes})


def make_sidecar(name: str = "sidecar.web", **changes: Any) -> InstanceSpec:
    """A sidecar without probes."""
    policy = RestartPolicy(mode="always", backoff=0.1, max_backoff=5.0)
    return make_spec(name, **{"kind": "sidecar", "readiness": None, "port": None, "restart": policy, **changes})
