"""The circuit breaker as it is meant to be: a plain model that the Lua is held to."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from meshctl.envoy.circuit_layout import MAX_PROBES
from meshctl.plan.policies.circuit_breaker import CircuitBreakerPlan


@dataclass(slots=True, eq=False)
class Admission:
    """A request that was let through: in which generation, as a probe or not."""

    generation: int
    probe: bool = False


@dataclass(slots=True)
class CircuitModel:
    """One caller's breaker of one target."""

    plan: CircuitBreakerPlan
    state: str = "closed"
    generation: int = 0
    failures: int = 0
    successes: int = 0
    opened_at: float = 0.0
    window: deque[bool] = field(default_factory=deque)
    probes: dict[Admission, float] = field(default_factory=dict)

    def set_plan(self, plan: CircuitBreakerPlan) -> None:
        """Other parameters: forcing and letting go begin anew, and so does a window of another size."""
        if plan.forced != self.plan.forced:
            self._go("open" if plan.forced == "open" else "closed")
            self.window.clear()
        if self._window_size(plan) != self._window_size(self.plan):
            self.window.clear()
        self.plan = plan

    def admit(self, now: float) -> Admission | float:
        """A request: let through, or the seconds after which to try again."""
        if self.plan.forced == "open":
            return self.plan.timeout
        if self.state == "closed":
            return Admission(self.generation)
        if self.state == "open":
            left = self.opened_at + self.plan.timeout - now
            if left > 0:
                return left
            self._go("half_open")
        self.probes = {probe: until for probe, until in self.probes.items() if until > now}
        if len(self.probes) >= min(self.plan.success_threshold, MAX_PROBES):
            return 1.0
        admission = Admission(self.generation, probe=True)
        self.probes[admission] = now + self.plan.probe_timeout
        return admission

    def finish(self, admission: Admission, now: float, *, failed: bool | None) -> None:
        """The end of a request: failed, succeeded, or neither (None)."""
        if admission.generation != self.generation or self.plan.forced != "auto":
            return
        if self.state == "half_open":
            self.probes.pop(admission, None)
            if failed:
                self._open(now)
            elif failed is False:
                self.successes += 1
                if self.successes >= self.plan.success_threshold:
                    self._go("closed")
                    self.window.clear()
        elif self.state == "closed" and failed is not None:
            self.failures = self.failures + 1 if failed else 0
            size = self._window_size(self.plan)
            if size:
                self.window.append(failed)
                while len(self.window) > size:
                    self.window.popleft()
            rate_is_over = size and len(self.window) == size and sum(self.window) * 100 >= self.plan.failure_rate * size
            if self.failures >= self.plan.failure_threshold or rate_is_over:
                self._open(now)

    def _open(self, now: float) -> None:
        self._go("open")
        self.opened_at = now

    def _go(self, state: str) -> None:
        self.state = state
        self.generation += 1
        self.failures = self.successes = 0
        self.probes.clear()

    @staticmethod
    def _window_size(plan: CircuitBreakerPlan) -> int:
        return plan.minimum_requests if plan.failure_rate else 0
