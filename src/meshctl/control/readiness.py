"""Is the mesh up? What is awaited, and what failed.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from meshctl.control.observe import Observed
from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.machine import failed_to_start
from meshctl.lifecycle.specs import sidecar_name
from meshctl.wire.models import MeshState


def find_failed(views: Mapping[str, InstanceView]) -> tuple[InstanceView, ...]:
    """Instances and sidecars that will not come up by themselves, by name."""
    return tuple(
        view for _, view in sorted(views.items()) if not view.removed and failed_to_start(view.state, view.spec)
    )


def find_waiting(seen: Observed) -> tuple[str, ...]:
    """What is not ready yet, one line each with the reason; empty when the mesh is up."""
    return (*_waiting_instances(seen), *_waiting_sidecars(seen))


def mesh_state(seen: Observed, *, was_ready: bool, stopping: bool) -> MeshState:
    """The state of the mesh in one word; ``was_ready`` is True once it has been ready."""
    if stopping:
        return "stopping"
    if find_failed(seen.views):
        return "failed"
    if find_waiting(seen):
        return "degraded" if was_ready else "starting"
    return "ready"


def _waiting_instances(seen: Observed) -> tuple[str, ...]:
    waiting: list[str] = []
    for name, view in sorted(seen.views.items()):
        if view.removed:
            waiting.append(f"{name}: {view.state.phase}, to be removed")
            continue
        done = view.state.phase == "completed" if view.spec.kind == "job" else view.health == "healthy"
        if not done:
            reason = view.state.reason or _explain(view)
            waiting.append(f"{name}: {view.state.phase}{f' ({reason})' if reason else ''}")
    waiting += [
        f"{item.id}: its health check does not pass yet" for item in seen.registrations if not seen.checks.get(item.id)
    ]
    return tuple(waiting)


def _explain(view: InstanceView) -> str:
    if view.state.phase == "ready" and view.state.ready and not view.envoy_check:
        return "its sidecar's health check does not pass yet"
    return ""


def _waiting_sidecars(seen: Observed) -> tuple[str, ...]:
    waiting: list[str] = []
    for name, view in sorted(seen.views.items()):
        if view.spec.kind != "sidecar" or view.removed:
            continue
        node = view.spec.service
        assert name == sidecar_name(node)
        sync = seen.sync(node)
        if sync.state != "synced":
            words = f": {sync.error}" if sync.error else ""
            waiting.append(f"{name}: configuration {sync.state}{words}")
    return tuple(waiting)
