"""What Envoy's active checks say of each instance, read from its own sidecar.  I/O.

A sidecar's local cluster holds one instance; Envoy counts it in the gauge ``membership_healthy`` while its checks
pass.  Reading a gauge each second costs next to nothing; while an answer is expected it is read much faster, so that
an instance enters the mesh milliseconds after its first check.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping

from meshctl.ports import ProxyAdmin

_STATS_PATH = r"/stats?filter=^cluster\.local/.*\.(membership_healthy|upstream_rq_active)$"
_GAUGE = re.compile(r"^cluster\.local/(?P<instance>.+)\.(?P<gauge>membership_healthy|upstream_rq_active): (?P<n>\d+)$")

_STEADY = 1.0
_EAGER = 0.02
_EAGER_TURNS = 250
# Five seconds of eager reading: an instance that does not pass by then is looked at once a second.


class HealthReader:
    """Reads the gauges of all sidecars and reports every answer that changed."""

    def __init__(
        self,
        *,
        admin: ProxyAdmin,
        sidecars: Callable[[], Mapping[str, tuple[str, ...]]],
        report: Callable[[str, bool | None], None],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """``sidecars`` gives the instances behind each running sidecar's admin socket; ``report`` takes an instance
        and whether Envoy's check passes (None: its sidecar does not answer, or does not know the instance yet).
        """
        self._admin = admin
        self._sidecars = sidecars
        self._report = report
        self._wait = wait
        self._eager = asyncio.Event()
        self._turns_left = 0

    def hurry(self) -> None:
        """Read fast for a while: an instance began to listen."""
        self._turns_left = _EAGER_TURNS
        self._eager.set()

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            settled = await self.read()
            if settled:
                self._turns_left = 0
            if self._turns_left > 0:
                self._turns_left -= 1
                await self._wait(_EAGER)
                continue
            self._eager.clear()
            try:
                async with asyncio.timeout(_STEADY):
                    await self._eager.wait()
            except TimeoutError:
                continue

    async def read(self) -> bool:
        """Read every sidecar once; True when every instance passes."""
        sidecars = self._sidecars()
        answers = await asyncio.gather(
            *(self._read_sidecar(socket, instances) for socket, instances in sidecars.items())
        )
        return all(answers)

    async def active_requests(self, socket: str, instance: str) -> int:
        """Requests that an instance is working on; 0 when its sidecar does not answer."""
        return (await self._gauges(socket)).get((instance, "upstream_rq_active"), 0)

    async def _read_sidecar(self, socket: str, instances: tuple[str, ...]) -> bool:
        gauges = await self._gauges(socket)
        settled = True
        for instance in instances:
            healthy = gauges.get((instance, "membership_healthy"))
            passes = None if healthy is None else healthy > 0
            settled = settled and passes is True
            self._report(instance, passes)
        return settled

    async def _gauges(self, socket: str) -> dict[tuple[str, str], int]:
        try:
            text = await self._admin.get(socket, _STATS_PATH)
        except OSError:
            return {}
        found = (_GAUGE.match(line) for line in text.splitlines())
        return {(m["instance"], m["gauge"]): int(m["n"]) for m in found if m}
