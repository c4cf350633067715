"""What the supervisor holds of one instance beside its pure state.  Mutable, no I/O of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.model import InstanceSpec, InstanceState


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One instance.

    ``spec`` is what its process was started from, or will be; ``wanted`` what it is to be after its next start.
    ``wakeup`` is the time of the timer set for it; ``tasks`` are its probes and its drain.
    """

    spec: InstanceSpec
    wanted: InstanceSpec
    state: InstanceState = field(default_factory=InstanceState)
    envoy_check: bool | None = None
    removed: bool = False
    wakeup: float | None = None
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def group(self) -> str:
        """Instances of one group are restarted one at a time: those of a service; each sidecar is its own."""
        return self.spec.id if self.spec.kind == "sidecar" else self.spec.service

    @property
    def is_outdated(self) -> bool:
        """True when its process was started from something else than what it is to be."""
        return self.state.phase != "pending" and self.state.fingerprint != self.wanted.fingerprint

    @property
    def is_up(self) -> bool:
        """True when it is as good as it gets: healthy, for a job completed."""
        return self.view().health == "healthy"

    def take_wanted(self) -> None:
        """Turn to what it is to be, while there is no process that knows it otherwise."""
        if self.state.pid is None and self.state.phase != "starting":
            self.spec = self.wanted

    def view(self) -> InstanceView:
        """The entry as others see it."""
        return InstanceView(
            spec=self.spec,
            state=self.state,
            envoy_check=self.envoy_check,
            removed=self.removed,
            outdated=self.is_outdated,
        )

    def has_changed_since(self, before: InstanceState) -> bool:
        """True when something that others see has changed; the rhythm of its probes is not."""
        return self.state is not before and _seen(self.state) != _seen(before)

    def cancel_tasks(self) -> None:
        """End its probes and its drain; their answers are of no use any more."""
        for task in self.tasks.values():
            task.cancel()
        self.tasks.clear()


def _seen(state: InstanceState) -> tuple[object, ...]:
    return (
        state.phase,
        state.pid,
        state.started_at,
        state.restarts,
        state.exit_code,
        state.reason,
        state.ready,
        state.sweeping,
        state.spawn_failed,
        state.failed_starts,
        state.starts,
    )
