"""What a screen of ``top`` is about: the whole mesh, or one service, version, instance, edge.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["service", "version", "instance", "edge", "route"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One thing of the mesh. ``service`` is the destination of an edge; names that do not apply are empty."""

    kind: Kind
    service: str
    source: str = ""
    version: str = ""
    instance: str = ""
    route: str = ""

    @property
    def key(self) -> str:
        """What it is known by in a table of its kind, or of the parts of something."""
        names = (self.kind, self.source, self.service, self.version, self.instance, self.route)
        return "\t".join(names)

    @property
    def label(self) -> str:
        """What it is called among the breadcrumbs."""
        match self.kind:
            case "version":
                return f"{self.service}/{self.version}"
            case "instance":
                return self.instance
            case "edge":
                return f"{self.source} → {self.service}"
            case "route":
                return f"{self.service} {self.route}"
        return self.service

    @property
    def log_sources(self) -> tuple[str, ...]:
        """Whose logs tell of it; a version's are those of its service."""
        match self.kind:
            case "instance":
                return (self.instance,)
            case "edge":
                return (self.source, self.service)
        return (self.service,)
