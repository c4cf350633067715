"""Processes that did not come up: which, and why.  I/O (their logs)."""

from __future__ import annotations

from meshctl.control.engine import Engine
from meshctl.control.readiness import find_failed
from meshctl.lifecycle.health import InstanceView
from meshctl.ports import LogReader
from meshctl.wire.models import StartFailure

_TAIL = 10


class Failures:
    """What failed since the last ``up``."""

    def __init__(self, engine: Engine, logs: LogReader) -> None:
        """``logs`` reads what processes wrote."""
        self._engine = engine
        self._logs = logs
        # Output of earlier runs is not this one's failure.
        self.since = engine.parts.clock.now()
        """Seconds since the epoch: earlier output is not told of."""

    def find(self) -> tuple[InstanceView, ...]:
        """Every process that is given up."""
        return find_failed(self._engine.parts.supervisor.views())

    async def explain(self, view: InstanceView, *, since: float | None = None) -> StartFailure:
        """Why it failed, with its exit code and the last lines that it wrote since a time, or since the last ``up``."""
        path = self._engine.parts.paths.log(view.spec.id)
        entries = self._logs(
            lambda: {view.spec.id: path}, tail=_TAIL, since=since or self.since, until=None, grep=None, follow=False
        )
        return StartFailure(
            name=view.spec.id,
            message=view.state.reason,
            exit_code=view.state.exit_code,
            log=path,
            tail=[entry.line.text async for entry in entries],
        )
