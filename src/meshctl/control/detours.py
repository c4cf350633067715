"""Faults on the way between two services: nothing passes (``partition``), or all of it comes late (``latency``).  I/O.

Enters: who calls whom.  Leaves: a relay process, kept by the process host, and endpoints that lead callers' sidecars to
it instead of to the instances. It works below HTTP, so for plain TCP too, and what passes stays mTLS from sidecar to
sidecar. When the time is over the relay lets everything pass by itself, whether the control plane lives or not; when
it lives, the endpoints lead straight again.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import meshctl
from meshctl.control.engine import Engine
from meshctl.control.faults import Faults, Reach
from meshctl.errors import MeshctlError, StartError
from meshctl.lifecycle.specs import RELAY_PREFIX
from meshctl.ports import FaultRecord, ProcessSpec

DETOUR_KINDS = ("partition", "latency")

_READY_TIMEOUT = 10.0


class Detours:
    """The faults that lead connections elsewhere; a ``faults.FaultKind`` for each of DETOUR_KINDS.

    ``detail`` of a record has ``ways`` (pairs of caller and instance), ``delay``, ``jitter`` and ``drop``.
    ``publish`` hands sidecars what has changed and tells how many acknowledged.
    """

    def __init__(self, engine: Engine, faults: Faults, publish: Callable[[FaultRecord], Awaitable[int]]) -> None:
        self._engine = engine
        self._faults = faults
        self._publish = publish
        self._ports: dict[str, Mapping[str, int]] = {}

    def plan(self) -> Mapping[tuple[str, str], int]:
        """Where callers find instances instead of where they are: a port by caller and instance."""
        found: dict[tuple[str, str], int] = {}
        for kind in DETOUR_KINDS:
            for record in self._faults.active(kind):
                if self._faults.is_meant(record):
                    ports = self._read_ports(record)
                    found |= {(way[0], way[1]): ports[way[1]] for way in _ways(record) if way[1] in ports}
        return found

    async def begin(self, fault: FaultRecord) -> int:
        """Start the relay, then lead callers to it."""
        await self._start(fault)
        return await self._publish(fault)

    async def end(self, fault: FaultRecord) -> int:
        """Lead callers straight again; the relay ends with the last connection that goes through it."""
        acked = await self._publish(fault)
        host = self._engine.parts.host
        await host.signal(_name(fault), signal.SIGTERM)
        if self._engine.stopping:
            await host.sweep(_name(fault))
        self._ports.pop(fault.id, None)
        self._file(fault).unlink(missing_ok=True)
        return acked

    async def resume(self, fault: FaultRecord) -> None:
        """Make sure that the relay runs; one that died is started anew, at other ports."""
        alive = {handle.name for handle in await self._engine.parts.host.running()}
        if _name(fault) not in alive or not self._read_ports(fault):
            self._ports.pop(fault.id, None)
            self._file(fault).unlink(missing_ok=True)
            await self._start(fault)
            await self._publish(fault)

    def reach(self, fault: FaultRecord) -> Reach:
        """The callers that are led elsewhere."""
        return Reach(callers=tuple(sorted({caller for caller, _ in _ways(fault)})))

    async def _start(self, fault: FaultRecord) -> None:
        engine, detail = self._engine, json.loads(fault.detail)
        spec = {
            "targets": _targets(engine, fault),
            "delay": detail["delay"],
            "jitter": detail["jitter"],
            "drop": detail["drop"],
            "seconds": self._faults.remaining(fault),
            "ready": str(self._file(fault)),
        }
        name = _name(fault)
        await engine.parts.host.start(
            ProcessSpec(
                name=name,
                argv=(sys.executable, "-S", "-P", "-m", "meshctl.adapters.relay", json.dumps(spec)),
                env={"PYTHONPATH": str(Path(meshctl.__file__).parent.parent)},
                cwd="/",
                log_path=engine.parts.paths.log(name),
            )
        )
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                while not self._read_ports(fault):  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log = engine.parts.paths.log(name)
            raise StartError(f"the relay of the fault {fault.id} did not start", hint=f"its log: {log}") from None

    def _read_ports(self, fault: FaultRecord) -> Mapping[str, int]:
        if fault.id not in self._ports:
            try:
                self._ports[fault.id] = json.loads(self._file(fault).read_text(encoding="ascii"))
            except (OSError, ValueError):
                return {}
        return self._ports[fault.id]

    def _file(self, fault: FaultRecord) -> Path:
        return Path(self._engine.parts.paths.runtime) / f"{_name(fault)}.ports"


def write_detail(ways: list[tuple[str, str]], *, delay: float = 0.0, jitter: float = 0.0, drop: bool = False) -> str:
    """What a record of a detour holds; durations are seconds."""
    return json.dumps({"ways": ways, "delay": delay, "jitter": jitter, "drop": drop})


def _name(fault: FaultRecord) -> str:
    return f"{RELAY_PREFIX}{fault.id}"


def _ways(fault: FaultRecord) -> list[tuple[str, str]]:
    return [(str(caller), str(instance)) for caller, instance in json.loads(fault.detail)["ways"]]


def _targets(engine: Engine, fault: FaultRecord) -> dict[str, int]:
    mesh = engine.mesh
    inbound = {item.id: item.inbound_port for item in engine.facts(mesh).instances} if mesh is not None else {}
    targets = {instance: inbound[instance] for _, instance in _ways(fault) if instance in inbound}
    if not targets:
        raise MeshctlError("its instances are gone")
    return targets
