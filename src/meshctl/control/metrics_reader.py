"""Reads the counters of every sidecar each second and rolls them up.  I/O.

No sidecar waits for another: one that hangs is left to answer later, and its figures are known to be old. A sidecar
at rest gives the same answer again, which is then not even looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from meshctl.ports import Clock, ProxyAdmin
from meshctl.tasks import TaskBag
from meshctl.telemetry.names import STATS_PATH
from meshctl.telemetry.rollup import Rollup, Sample, forget, reduce
from meshctl.telemetry.stats import Stats, read_stats

PERIOD = 1.0
"""Seconds from one reading to the next."""

_SPREAD = 0.7
# Seconds over which the sidecars are read one after the other: all at once they would keep the machine busy for long
# enough that requests of that moment are among the slowest of their second.


@dataclass(frozen=True, slots=True, kw_only=True)
class SidecarProcess:
    """A running sidecar: where its admin interface is, its pid, and when it was started (seconds since the epoch)."""

    socket: str
    pid: int
    started_at: float

    @property
    def incarnation(self) -> str:
        """Another one after each start."""
        return f"{self.pid}@{self.started_at}"


class MetricsReader:
    """The rollup of all sidecars, kept up to date while ``run`` runs."""

    def __init__(
        self,
        *,
        admin: ProxyAdmin,
        sidecars: Callable[[], Mapping[str, SidecarProcess]],
        known: Callable[[], frozenset[str]],
        clock: Clock,
        on_error: Callable[[str, BaseException], None],
        heard: Callable[[str, Mapping[str, int]], None] = lambda _socket, _numbers: None,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``sidecars`` gives those that run now, by name; ``known`` all whose past is worth keeping.
        ``heard`` is given the counters and gauges of each answer, by the socket that gave it.
        """
        self._admin = admin
        self._sidecars = sidecars
        self._known = known
        self._clock = clock
        self._heard = heard
        self._wait = wait
        self._tasks = TaskBag(on_error)
        self._reading: set[str] = set()
        self._answers: dict[str, tuple[str, Stats]] = {}
        self._errors: dict[str, str] = {}
        self._epoch = clock.now() - clock.monotonic()
        self.rollup = Rollup()

    def now(self) -> float:
        """Seconds since the epoch by a clock that is never set back: the one by which samples are dated."""
        return self._epoch + self._clock.monotonic()

    @property
    def errors(self) -> Mapping[str, str]:
        """Why the newest reading of a sidecar failed, by name; those that answered are not in it."""
        return self._errors

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                # On the second, so that windows of whole seconds hold as many readings as they have seconds.
                await self._wait(PERIOD - self.now() % PERIOD)
                self.begin_reading(spread=_SPREAD)
        finally:
            await self._tasks.close()

    def begin_reading(self, *, spread: float = 0.0) -> list[asyncio.Task[None]]:
        """Begin to read every sidecar that is not being read yet, each in its turn within ``spread`` seconds."""
        sidecars = self._sidecars()
        known = self._known()
        self.rollup = forget(self.rollup, known)
        for gone in self._errors.keys() - known:
            del self._errors[gone]
        for gone in self._answers.keys() - known:
            del self._answers[gone]
        begun = []
        for index, (name, process) in enumerate(sidecars.items()):
            if name not in self._reading:
                self._reading.add(name)
                begun.append(
                    self._tasks.spawn(f"metrics {name}", self._read(name, process, index * spread / len(sidecars)))
                )
        return begun

    async def _read(self, name: str, process: SidecarProcess, delay: float) -> None:
        try:
            if delay > 0:
                await self._wait(delay)
            answer = await self._admin.get(process.socket, STATS_PATH)
            if self._sidecars().get(name) != process:
                # It was restarted meanwhile: who answered counts from its own start, and is read in its turn.
                return
            before = self._answers.get(name)
            stats = before[1] if before is not None and before[0] == answer else read_stats(answer)
        except (OSError, ValueError) as error:
            self._errors[name] = str(error)
            return
        finally:
            self._reading.discard(name)
        self._errors.pop(name, None)
        self._answers[name] = (answer, stats)
        self._heard(process.socket, stats.numbers)
        now = self.now()
        sample = Sample(time=now, started_at=process.started_at, incarnation=process.incarnation, stats=stats)
        self.rollup = reduce(self.rollup, {name: sample}, now)
