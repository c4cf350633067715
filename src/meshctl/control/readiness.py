"""Is the mesh up? What is awaited, and what failed.  Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from meshctl.ads.status import SyncStatus
from meshctl.control.observe import Observed
from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.machine import failed_to_start
from meshctl.wire.models import MeshState


def find_failed(views: Mapping[str, InstanceView]) -> tuple[InstanceView, ...]:
    """Instances and sidecars that will not come up by themselves, by name."""
    return tuple(
        view for _, view in sorted(views.items()) if not view.removed and failed_to_start(view.state, view.spec)
    )


def find_waiting(seen: Observed, services: frozenset[str] | None = None) -> tuple[str, ...]:
    """What is not ready yet, one line each with the reason; empty when the mesh is up.

    With ``services``, only what concerns their instances and sidecars.
    """

    def concerns(service: str) -> bool:
        return services is None or service in services

    views = [(name, view) for name, view in sorted(seen.views.items()) if concerns(view.spec.service)]
    registered = [item for item in seen.registrations if concerns(item.service)]
    return (
        *_waiting_instances(views),
        *(f"{item.id}: its health check does not pass yet" for item in registered if not seen.checks.get(item.id)),
        *_waiting_sidecars(views, seen.sync),
    )


def mesh_state(seen: Observed, *, was_ready: bool, stopping: bool) -> MeshState:
    """The state of the mesh in one word; ``was_ready`` is True once it has been ready."""
    if stopping:
        return "stopping"
    if find_failed(seen.views):
        return "failed"
    if find_waiting(seen):
        return "degraded" if was_ready else "starting"
    return "ready"


def _waiting_instances(views: Iterable[tuple[str, InstanceView]]) -> tuple[str, ...]:
    waiting: list[str] = []
    for name, view in views:
        if view.removed:
            waiting.append(f"{name}: {view.state.phase}, to be removed")
            continue
        if view.outdated:
            waiting.append(f"{name}: {view.state.phase}, to be restarted with what changed")
            continue
        done = view.state.phase == "completed" if view.spec.kind == "job" else view.health == "healthy"
        if not done:
            reason = view.state.reason or _explain(view)
            waiting.append(f"{name}: {view.state.phase}{f' ({reason})' if reason else ''}")
    return tuple(waiting)


def _explain(view: InstanceView) -> str:
    if view.state.phase == "ready" and view.state.ready and not view.envoy_check:
        return "its sidecar's health check does not pass yet"
    return ""


def _waiting_sidecars(
    views: Iterable[tuple[str, InstanceView]], sync_of: Callable[[str], SyncStatus]
) -> tuple[str, ...]:
    waiting: list[str] = []
    for name, view in views:
        if view.spec.kind != "sidecar" or view.removed:
            continue
        sync = sync_of(view.spec.service)
        if sync.state != "synced":
            words = f": {sync.error}" if sync.error else ""
            waiting.append(f"{name}: configuration {sync.state}{words}")
    return tuple(waiting)
