"""What waits for what: topological levels, and whether a dependency is met.  Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.model import InstanceSpec
from meshctl.spec.schema import Condition

_WANTED: Mapping[Condition, str] = {
    "started": "to be started",
    "healthy": "to be healthy",
    "completed_successfully": "to complete",
}


def find_levels(dependencies: Mapping[str, Collection[str]]) -> tuple[tuple[str, ...], ...]:
    """Names in levels, each level sorted: whatever a name depends on is in an earlier level.

    Dependencies on names that are not keys are left out.  Names in a cycle, and those that depend on one, come
    together in a last level: an order to stop in must always exist.
    """
    waiting = {name: {need for need in needs if need in dependencies} for name, needs in dependencies.items()}
    levels: list[tuple[str, ...]] = []
    while waiting:
        free = tuple(sorted(name for name, needs in waiting.items() if not needs))
        if not free:
            levels.append(tuple(sorted(waiting)))
            break
        levels.append(free)
        done = set(free)
        waiting = {name: needs - done for name, needs in waiting.items() if name not in done}
    return tuple(levels)


def find_stop_levels(specs: Iterable[InstanceSpec]) -> tuple[tuple[str, ...], ...]:
    """Instance ids in the order to stop them, level by level.

    What depends on others stops before them; sidecars stop last, because a service may call others until its end.
    """
    sidecars: list[str] = []
    by_service: dict[str, list[str]] = {}
    needs: dict[str, set[str]] = {}
    for spec in specs:
        if spec.kind == "sidecar":
            sidecars.append(spec.id)
        else:
            by_service.setdefault(spec.service, []).append(spec.id)
            needs.setdefault(spec.service, set()).update(spec.depends_on)
    levels = [
        tuple(sorted(instance for service in level for instance in by_service[service]))
        for level in reversed(find_levels(needs))
    ]
    return (*levels, tuple(sorted(sidecars))) if sidecars else tuple(levels)


def find_unmet(spec: InstanceSpec, views: Iterable[InstanceView]) -> str:
    """Why an instance may not start yet, as a sentence for people; empty when it may.

    ``started`` is met when every instance of the service has been started, ``healthy`` when at least one is
    healthy, ``completed_successfully`` when every one has completed.  A service with no instances counts as met: it
    is external, or registered by someone else.
    """
    by_service: dict[str, list[InstanceView]] = {name: [] for name in spec.depends_on}
    for view in views:
        if view.spec.kind != "sidecar" and not view.removed and view.spec.service in by_service:
            by_service[view.spec.service].append(view)
    wanted = [
        _describe_wait(name, condition, by_service[name])
        for name, condition in spec.depends_on.items()
        if by_service[name] and not _is_met(condition, by_service[name])
    ]
    return f"waiting for {' and '.join(wanted)}" if wanted else ""


def _describe_wait(service: str, condition: Condition, views: Collection[InstanceView]) -> str:
    if any(view.state.phase == "failed" for view in views):
        return f"{service}, which failed"
    return f"{service} {_WANTED[condition]}"


def _is_met(condition: Condition, views: Collection[InstanceView]) -> bool:
    if condition == "started":
        return all(view.state.started_at is not None or view.state.phase == "completed" for view in views)
    if condition == "healthy":
        return any(view.health == "healthy" for view in views)
    return all(view.state.phase == "completed" for view in views)
