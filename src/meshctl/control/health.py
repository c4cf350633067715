"""What Envoy's active checks say of each instance, read from its own sidecar.  I/O.

A sidecar's local cluster holds one instance; Envoy counts it in the gauge ``membership_healthy`` while its checks
pass.  It does not before the first check either, which has no answer until one has failed: a sidecar that was started
anew says nothing of an instance that it has not asked yet.  The gauge comes with the figures that are read of each
sidecar every second (``hear``), and is asked for where they do not come; while an answer is expected it is read much
faster, so that an instance enters the mesh milliseconds after its first check.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

from meshctl.ports import ProxyAdmin
from meshctl.tasks import TaskBag
from meshctl.telemetry.names import HEALTH_STATS

_HEALTHY, _FAILURES = HEALTH_STATS
_ACTIVE = "upstream_rq_active"
_STATS = "|".join(map(re.escape, (*HEALTH_STATS, _ACTIVE)))
_STATS_PATH = rf"/stats?filter=^cluster\.local/.*\.({_STATS})$"
_STAT = re.compile(rf"^(cluster\.local/.+\.(?:{_STATS})): (\d+)$")

_STEADY = 1.0
_EAGER = 0.02
_EAGER_TURNS = 250
# Five seconds of eager reading: an instance that does not pass by then is looked at once a second.
_TURNS_OF_ALL = 50
# While some are awaited the others are still read once a second.
_SPREAD = 0.7
# Seconds over which the sidecars of a steady turn are asked one after the other, those that were not heard meanwhile.
_PATIENCE = 0.1
# Seconds that a turn waits for answers: a sidecar that hangs is left to answer later, and holds up none of the others.

_Stats = Mapping[str, int]


class HealthReader:
    """Reads the gauges of all sidecars and reports every answer that changed."""

    def __init__(
        self,
        *,
        admin: ProxyAdmin,
        sidecars: Callable[[], Mapping[str, tuple[str, ...]]],
        report: Callable[[str, bool | None], None],
        on_error: Callable[[str, BaseException], None],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``sidecars`` gives the instances behind each running sidecar's admin socket; ``report`` takes an instance
        and whether Envoy's check passes (None: its sidecar does not answer, or has not checked the instance yet).
        """
        self._admin = admin
        self._sidecars = sidecars
        self._report = report
        self._wait = wait
        self._tasks = TaskBag(on_error)
        self._reading: set[str] = set()
        self._passing: set[str] = set()
        self._heard: set[str] = set()
        self._eager = asyncio.Event()
        self._turns_left = 0

    @property
    def is_eager(self) -> bool:
        """True while first answers of instances are awaited: one that does not pass then does not pass *yet*."""
        return self._turns_left > 0

    def hurry(self) -> None:
        """Read fast for a while: an instance began to listen."""
        self._turns_left = _EAGER_TURNS
        self._passing.clear()
        self._eager.set()

    async def run(self) -> None:
        """Read until cancelled."""
        try:
            while True:
                if self._turns_left > 0:
                    settled = await self._take_turn()
                    self._turns_left = 0 if settled else self._turns_left - 1
                    await self._wait(_EAGER)
                    continue
                self._eager.clear()
                heard, self._heard = self._heard, set()
                self._begin({s: i for s, i in self._sidecars().items() if s not in heard}, spread=_SPREAD)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STEADY):
                        await self._eager.wait()
        finally:
            await self._tasks.close()

    def hear(self, socket: str, numbers: _Stats) -> None:
        """Take what somebody else has read of a sidecar just now: it need not be asked in this turn."""
        self._heard.add(socket)
        self._tell(self._sidecars().get(socket, ()), numbers)

    async def read(self) -> bool:
        """Read every sidecar once; True when every instance passes."""
        sidecars = self._sidecars()
        answers = await asyncio.gather(
            *(self._read_sidecar(socket, instances) for socket, instances in sidecars.items())
        )
        return all(answers)

    async def _take_turn(self) -> bool:
        """Read those that are due, as far as they answer in time; True when every instance passes."""
        sidecars = self._sidecars()
        everybody = self._turns_left % _TURNS_OF_ALL == 0
        begun = self._begin({s: i for s, i in sidecars.items() if everybody or not self._passing.issuperset(i)})
        if begun:
            await asyncio.wait(begun, timeout=_PATIENCE)
        known = {instance for instances in sidecars.values() for instance in instances}
        self._passing &= known
        return self._passing == known

    def _begin(self, sidecars: Mapping[str, tuple[str, ...]], *, spread: float = 0.0) -> list[asyncio.Task[bool]]:
        """Begin to read those that are not being read yet, each in its turn within ``spread`` seconds."""
        begun: list[asyncio.Task[bool]] = []
        for index, (socket, instances) in enumerate(sidecars.items()):
            if socket not in self._reading:
                self._reading.add(socket)
                delay = index * spread / len(sidecars)
                begun.append(self._tasks.spawn(f"health {socket}", self._read_for_turn(socket, instances, delay)))
        return begun

    async def active_requests(self, socket: str, instance: str) -> int:
        """Requests that an instance is working on; 0 when its sidecar is gone, 1 when that does not answer in time."""
        try:
            text = await self._admin.get(socket, _STATS_PATH)
        except (ConnectionError, FileNotFoundError):
            return 0
        except OSError:
            # It hangs, or the whole machine stands still: what it is working on is not lost by that.
            return 1
        return _parse_stats(text).get(_name(instance, _ACTIVE), 0)

    async def _read_for_turn(self, socket: str, instances: tuple[str, ...], delay: float) -> bool:
        try:
            if delay > 0:
                # Who is awaited is asked at once, whoever's turn it is.
                with suppress(TimeoutError):
                    async with asyncio.timeout(delay):
                        await self._eager.wait()
            return await self._read_sidecar(socket, instances)
        finally:
            self._reading.discard(socket)

    async def _read_sidecar(self, socket: str, instances: tuple[str, ...]) -> bool:
        return self._tell(instances, await self._read_stats(socket))

    def _tell(self, instances: tuple[str, ...], stats: _Stats) -> bool:
        """Report what was read of each instance; True when all of them pass."""
        settled = True
        for instance in instances:
            passes = _passes(stats, instance)
            settled = settled and passes is True
            if passes:
                self._passing.add(instance)
            else:
                self._passing.discard(instance)
            self._report(instance, passes)
        return settled

    async def _read_stats(self, socket: str) -> _Stats:
        try:
            text = await self._admin.get(socket, _STATS_PATH)
        except OSError:
            return {}
        return _parse_stats(text)


def _parse_stats(text: str) -> _Stats:
    found = (_STAT.match(line) for line in text.splitlines())
    return {m[1]: int(m[2]) for m in found if m}


def _name(instance: str, stat: str) -> str:
    return f"cluster.local/{instance}.{stat}"


def _passes(stats: _Stats, instance: str) -> bool | None:
    if stats.get(_name(instance, _HEALTHY), 0) > 0:
        return True
    return False if stats.get(_name(instance, _FAILURES), 0) > 0 else None
