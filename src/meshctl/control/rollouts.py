"""Runs rollouts: reads the traffic, asks the machine, writes its decision down, then acts on it.  I/O.

Every verb answers with the rollout as it stands then; ``wire`` shapes are made of it by whoever asks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from meshctl.canary.model import Decision, Rollout, Settings
from meshctl.control.engine import Engine
from meshctl.control.metrics import MetricsDesk
from meshctl.control.shifting import Shifts


class Rollouts:
    """The rollouts of a running mesh; at most one of a service is under way."""

    def __init__(self, engine: Engine, shifts: Shifts, metrics: MetricsDesk) -> None:
        self._engine = engine
        self._shifts = shifts
        self._metrics = metrics
        self.find_fault: Callable[[str], str] = lambda _service: ""
        """Says of a service which fault is on, such as ``30% abort``; empty when none is. Whoever injects sets it."""

    async def start(
        self,
        service: str,
        version: str,
        settings: Settings,
        *,
        author: str,
        reason: str = "",
        replace: bool = False,
        force: bool = False,
    ) -> Rollout:
        """Begin a rollout; returns when the first weight is decided and written down, not when it is in effect.

        ``replace`` takes the place of one that is under way; ``force`` begins although a fault is on.

        Raises:
            NotFoundError: there is no such service or version; says which there are.
            UsageError: the settings make no sense (see ``canary.settings.check_settings``).
            ConflictError: the version is the stable one; another rollout is under way; this revision was rolled back;
                a fault is on; other versions or routes of their own get traffic; the service speaks plain TCP.
        """
        raise NotImplementedError

    def status(self, service: str = "") -> list[Rollout]:
        """The newest rollout of each service, or of one. Raises NotFoundError for a service that is not there."""
        raise NotImplementedError

    async def pause(self, service: str, *, author: str, reason: str = "") -> Rollout:
        """Hold the weight until ``resume``. Raises ConflictError when nothing is under way."""
        raise NotImplementedError

    async def resume(self, service: str, *, author: str, reason: str = "") -> Rollout:
        """Go on with a paused or frozen rollout. Raises ConflictError when there is none."""
        raise NotImplementedError

    async def promote(self, service: str, *, full: bool, author: str, reason: str = "") -> Rollout:
        """Take the next step now, or with ``full`` all of the traffic; returns when it is in effect everywhere.

        Raises ConflictError when nothing is under way, and what stood in the way of the shift.
        """
        raise NotImplementedError

    async def rollback(self, service: str, *, author: str, reason: str = "") -> Rollout:
        """Take all traffic from the version; returns when that is in effect everywhere. Raises as ``promote``."""
        raise NotImplementedError

    async def retry(self, service: str, *, author: str, reason: str = "") -> Rollout:
        """Begin the service's last rollout anew, though its revision was rolled back. Raises as ``start``."""
        raise NotImplementedError

    def history(self, service: str = "", number: int = 0) -> list[tuple[Rollout, list[Decision]]]:
        """Rollouts, oldest first, each with its decisions; of one service, or one by its number.

        Raises NotFoundError for a service or a number that is not there.
        """
        raise NotImplementedError

    def stream(self, service: str) -> AsyncIterator[Rollout]:
        """The newest rollout of a service: as it is now, and again after each change; ends when the rollout has.

        Raises NotFoundError when the service has had none.
        """
        raise NotImplementedError
