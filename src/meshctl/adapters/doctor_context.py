"""What the doctor's checks look at, and the three ways to say what was found.  Pure values."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from meshctl.spec.schema import Mesh
from meshctl.wire.models import DoctorCheck, MeshStatus
from meshctl.wire.paths import MeshPaths


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorContext:
    """The machine and the mesh as the checks see them.

    ``environ`` is the environment of the command; ``uid`` that of the user; ``now`` seconds since the epoch.  ``mesh``
    is None without a valid topology: then ``topology`` is the path of the file that is not valid (empty when there is
    no file) and ``problems`` counts what is wrong with it.  ``status`` is None when no control plane answers.
    """

    environ: Mapping[str, str]
    uid: int
    now: float
    paths: MeshPaths
    topology: str = ""
    mesh: Mesh | None = None
    problems: int = 0
    status: MeshStatus | None = None

    @property
    def process_count(self) -> int:
        """How many processes the topology asks for: instances, a sidecar a service, the gateway; 0 without one."""
        if self.mesh is None:
            return 0
        services = self.mesh.services.values()
        instances = sum(version.replicas for service in services for version in service.versions.values())
        return instances + sum(1 for service in services if service.address is None) + (self.mesh.gateway is not None)


Findings = Sequence[DoctorCheck]
Check = Callable[[DoctorContext], Awaitable[Findings]] | Callable[[DoctorContext], Findings]


def good(name: str, message: str) -> DoctorCheck:
    """A check that found nothing wrong."""
    return DoctorCheck(name=name, level="ok", message=message, fix="")


def doubtful(name: str, message: str, *, fix: str) -> DoctorCheck:
    """Something that may do harm, or that a person should know."""
    return DoctorCheck(name=name, level="warning", message=message, fix=fix)


def bad(name: str, message: str, *, fix: str) -> DoctorCheck:
    """Something that keeps a mesh from working."""
    return DoctorCheck(name=name, level="error", message=message, fix=fix)
