"""What Envoy's active checks say of each instance: of whom they are asked, what came back.  No I/O of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meshctl.control.parts import Parts
from meshctl.lifecycle.specs import sidecar_name


class Checks:
    """The answers about registered instances; those about the mesh's own processes are the supervisor's to keep."""

    def __init__(self, parts: Callable[[], Parts], changed: Callable[[], None]) -> None:
        """``changed`` is called when what is known of a registered instance has changed."""
        self._parts = parts
        self._changed = changed
        self._answers: dict[str, bool] = {}
        self._awaited: frozenset[str] = frozenset()

    @property
    def answers(self) -> Mapping[str, bool]:
        """Whether the checks of a registered instance pass, by its id."""
        return self._answers

    def keep(self, registered: frozenset[str]) -> None:
        """Forget all but those that are registered: an id may come again, for another address."""
        self._answers = {name: passes for name, passes in self._answers.items() if name in registered}

    def take(self, instance: str, passes: bool | None) -> None:  # noqa: FBT001 - Envoy's answer
        """Take Envoy's answer about an instance; no answer changes nothing."""
        parts = self._parts()
        view = parts.supervisor.views().get(instance)
        if view is not None and view.state.phase not in ("ready", "draining"):
            # An answer that was long on its way, about a process that is no more.
            return
        if view is None and instance not in {item.id for item in parts.topology.registrations}:
            return
        before = view.envoy_check if view is not None else self._answers.get(instance)
        if passes is None or (view is not None and before is None and not passes and parts.health.is_eager):
            # The check that failed may have been one of the process before: what lasts is an answer about this one.
            return
        if view is not None:
            parts.supervisor.set_envoy_check(instance, passes)
        elif before is not passes:
            self._answers[instance] = passes
            state = "healthy" if passes else "unhealthy"
            parts.events.add(f"instance.{state}", instance, f"{instance} is {state}")
            self._changed()

    def expect(self) -> None:
        """Have the answers read in a hurry when there are instances of which none is known yet."""
        parts = self._parts()
        views = parts.supervisor.views()
        awaited = frozenset(
            instance
            for instances in self.sidecars().values()
            for instance in instances
            if (views[instance].envoy_check if instance in views else self._answers.get(instance)) is None
        )
        # Only for those that are new: one that never passes must not keep the reader in a hurry.
        if awaited - self._awaited:
            parts.health.hurry()
        self._awaited = awaited

    def sidecars(self) -> Mapping[str, tuple[str, ...]]:
        """The instances behind each running sidecar's admin socket."""
        parts = self._parts()
        behind: dict[str, list[str]] = {}
        views = parts.supervisor.views()
        for name, view in views.items():
            if view.spec.kind == "service" and view.state.phase in ("ready", "draining"):
                behind.setdefault(view.spec.service, []).append(name)
        for item in parts.topology.registrations:
            behind.setdefault(item.service, []).append(item.id)
        return {
            parts.paths.admin_socket(service): tuple(sorted(instances))
            for service, instances in sorted(behind.items())
            if (sidecar := views.get(sidecar_name(service))) is not None and sidecar.state.pid is not None
        }
