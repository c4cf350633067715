"""Bootstrap files: what a sidecar reads when it starts, before it asks for anything.  I/O (files)."""

from __future__ import annotations

from pathlib import Path

from meshctl.envoy.bootstrap import build_bootstrap
from meshctl.wire.paths import MeshPaths


class Bootstraps:
    """Writes the bootstrap file of each sidecar, once while a control plane lives."""

    def __init__(self, paths: MeshPaths) -> None:
        self._paths = paths
        self._written: set[str] = set()

    def write(self, node: str, *, mesh: str) -> None:
        """Make sure that a sidecar of a mesh finds its file, whole and up to date. Raises OSError."""
        if node in self._written:
            return
        paths = self._paths
        text = build_bootstrap(
            node=node,
            mesh=mesh,
            admin_socket=paths.admin_socket(node),
            ads_socket=paths.ads_socket,
            collector_socket=paths.collector_socket,
        )
        path = Path(paths.bootstrap(node))
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            temporary = path.with_suffix(".new")
            temporary.write_text(text)
            temporary.replace(path)
        self._written.add(node)
