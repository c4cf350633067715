"""Tells that a topology asks for policies without effect.  No I/O but the line it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshctl.cli.errors import print_warning
from meshctl.cli.project import Screen

if TYPE_CHECKING:
    from meshctl.spec.schema import Mesh


def warn_of_inert(screen: Screen, mesh: Mesh) -> None:
    """One warning per policy that this version takes but does not act on."""
    from meshctl.plan.inert import find_inert  # noqa: PLC0415 - loads the topology's modules

    if screen.quiet:
        return
    for key, services in find_inert(mesh).items():
        print_warning(screen.err, f"{key} has no effect yet in this version (asked for by {', '.join(services)})")
