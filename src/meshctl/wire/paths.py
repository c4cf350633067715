"""Where a mesh keeps its files and sockets.  Pure: environment and user id are arguments.

``<directory>/.meshctl`` holds what must last; the runtime directory holds sockets, whose paths must stay below the
104 bytes that macOS allows, and is named by a hash of the directory so that meshes never meet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MeshPaths:
    """The paths of one mesh; both fields are absolute."""

    directory: str
    runtime: str

    @property
    def tag(self) -> str:
        """What marks the processes of this mesh, in their environment."""
        return _digest(self.directory)

    @property
    def state(self) -> str:
        """The state folder."""
        return f"{self.directory}/.meshctl"

    @property
    def database(self) -> str:
        """The SQLite database."""
        return f"{self.state}/state.db"

    @property
    def ca(self) -> str:
        """The certificate authority's folder."""
        return f"{self.state}/ca"

    @property
    def logs(self) -> str:
        """The folder of captured output."""
        return f"{self.state}/logs"

    @property
    def sidecars(self) -> str:
        """The folder of the sidecars' bootstrap files."""
        return f"{self.state}/sidecars"

    @property
    def api_socket(self) -> str:
        """The control plane's API."""
        return f"{self.runtime}/api.sock"

    @property
    def ads_socket(self) -> str:
        """The control plane's xDS server."""
        return f"{self.runtime}/ads.sock"

    @property
    def collector_socket(self) -> str:
        """Where sidecars send their spans."""
        return f"{self.runtime}/spans.sock"

    @property
    def keeper_socket(self) -> str:
        """The process keeper."""
        return f"{self.runtime}/keeper.sock"

    @property
    def gateway_pipe(self) -> str:
        """Where the command line reaches any service as the gateway."""
        return f"{self.runtime}/gateway.out"

    @property
    def daemon_log(self) -> str:
        """The control plane's own log."""
        return f"{self.logs}/daemon.log"

    def log(self, process: str) -> str:
        """The captured output of one process."""
        return f"{self.logs}/{process}.log"

    def admin_socket(self, sidecar: str) -> str:
        """The admin interface of a sidecar; long service names are hashed to keep the path short."""
        short = sidecar if len(sidecar) <= 24 else f"{sidecar[:15]}-{_digest(sidecar)}"
        return f"{self.runtime}/{short}.admin"

    def circuits(self, sidecar: str) -> str:
        """Where a sidecar keeps the state of its circuit breakers; the number is that of the layout."""
        return f"{self.admin_socket(sidecar).removesuffix('.admin')}.circuits-1"

    def bootstrap(self, sidecar: str) -> str:
        """The bootstrap file of a sidecar."""
        return f"{self.sidecars}/{sidecar}.json"


def locate(directory: str, *, environ: Mapping[str, str], uid: int) -> MeshPaths:
    """The paths of the mesh whose topology lies in an absolute ``directory``."""
    base = environ.get("XDG_RUNTIME_DIR", "")
    root = f"{base}/meshctl" if base else f"/tmp/meshctl-{uid}"  # noqa: S108 - made 0700 and its owner checked
    if len(root) > 60:
        root = f"/tmp/meshctl-{uid}"  # noqa: S108
    return MeshPaths(directory, f"{root}/{_digest(directory)}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
