"""One answer to "is this instance healthy?", for the registry and the endpoints alike.  Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meshctl.lifecycle.model import InstanceSpec, InstanceState, Phase

Health = Literal["healthy", "unhealthy", "unknown"]


def verdict(phase: Phase, readiness_ok: bool, envoy_check: bool | None, envoy_checked: bool) -> Health:  # noqa: FBT001 - four facts, read in the order of the table below
    """The health of an instance.

    ``readiness_ok`` is the supervisor's own check, ``envoy_check`` the answer of Envoy's active check (None: it has
    not given one), which counts only where ``envoy_checked``.

    ==========================================  =========
    phase                                       health
    ==========================================  =========
    pending, starting, stopped                  unknown
    ready, and a check fails                    unhealthy
    ready, and Envoy's answer is awaited        unknown
    ready otherwise; completed                  healthy
    draining, stopping, backoff, failed         unhealthy
    ==========================================  =========
    """
    if phase in ("pending", "starting", "stopped"):
        return "unknown"
    if phase == "completed":
        return "healthy"
    if phase != "ready" or not readiness_ok:
        return "unhealthy"
    if not envoy_checked or envoy_check:
        return "healthy"
    return "unknown" if envoy_check is None else "unhealthy"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """One instance as others see it.

    ``spec`` is what it is to be (a restart towards it may be under way), ``envoy_check`` the last answer of Envoy's
    active check, ``removed`` True when it goes and does not come back, ``outdated`` when its process was started from
    something else than what it is to be, so that its restart is still to come.
    """

    spec: InstanceSpec
    state: InstanceState
    envoy_check: bool | None = None
    removed: bool = False
    outdated: bool = False

    @property
    def health(self) -> Health:
        """The one answer, see :func:`verdict`."""
        return verdict(self.state.phase, self.state.ready, self.envoy_check, self.spec.envoy_checked)
