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
from itertools import chain, count
from pathlib import Path

import meshctl
from meshctl.control.engine import Engine
from meshctl.control.faults import Faults, Reach
from meshctl.errors import MeshctlError, StartError
from meshctl.lifecycle.specs import RELAY_PREFIX
from meshctl.ports import FaultRecord, ProcessSpec

DETOUR_KINDS = ("partition", "latency")

_READY_TIMEOUT = 10.0
_SUFFIX = ".ports"


class Detours:
    """The faults that lead connections elsewhere; a ``faults.FaultKind`` for each of DETOUR_KINDS.

    ``detail`` of a record has ``pairs`` (of caller and callee), ``delay``, ``jitter`` and ``drop``. Instances that the
    callees get meanwhile are led elsewhere too, by a relay of their own. ``publish`` hands sidecars what has changed
    and tells how many acknowledged.
    """

    def __init__(self, engine: Engine, faults: Faults, publish: Callable[[FaultRecord], Awaitable[int]]) -> None:
        self._engine = engine
        self._faults = faults
        self._publish = publish
        self._ports: dict[str, dict[str, int]] = {}

    def plan(self) -> Mapping[tuple[str, str], int]:
        """Where callers find instances instead of where they are: a port by caller and instance."""
        found: dict[tuple[str, str], int] = {}
        for record in self._meant():
            ports, drops = self._read_ports(record), _drops(record)
            for caller, callee in read_pairs(record):
                for instance in self._instances_of(callee):
                    # What is dropped may be dropped by any of its relays, while a new instance has none of its own.
                    port = ports.get(instance) or (next(iter(ports.values()), None) if drops else None)
                    if port is not None:
                        found[caller, instance] = port
        return found

    def cuts(self) -> Mapping[tuple[str, str], str]:
        """The faults that cut off connections which are open, by caller and callee."""
        return {pair: record.id for record in self._meant() if _drops(record) for pair in read_pairs(record)}

    async def begin(self, fault: FaultRecord) -> int:
        """Start a relay, then lead callers to it."""
        await self._extend(fault)
        self._engine.spawn("new ways", self._follow(fault))
        return await self._publish(fault)

    async def end(self, fault: FaultRecord) -> int:
        """Lead callers straight again; a relay ends with the last connection that goes through it."""
        acked = await self._publish(fault)
        host = self._engine.parts.host
        for name in await self._running(fault):
            await host.signal(name, signal.SIGTERM)
            if self._engine.stopping:
                await host.sweep(name)
        self._ports.pop(fault.id, None)
        for file in self._files(fault):
            file.unlink(missing_ok=True)
        return acked

    async def resume(self, fault: FaultRecord) -> None:
        """Make sure that every instance has a relay that runs; one that died is started anew, at other ports."""
        alive = await self._running(fault)
        for file in self._files(fault):
            if file.stem not in alive:
                file.unlink(missing_ok=True)
        self._ports.pop(fault.id, None)
        if not self._targets(fault):
            raise MeshctlError("its instances are gone")
        if await self._extend(fault):
            await self._publish(fault)
        self._engine.spawn("new ways", self._follow(fault))

    def reach(self, fault: FaultRecord) -> Reach:
        """The callers that are led elsewhere."""
        return Reach(callers=tuple(sorted({caller for caller, _ in read_pairs(fault)})))

    async def _follow(self, fault: FaultRecord) -> None:
        """Lead instances elsewhere that come while a fault is on."""

        def is_over() -> bool:
            return not self._faults.is_meant(fault)

        while not is_over():
            await self._engine.wait_for(lambda: is_over() or bool(self._missing(fault)))
            try:
                if not is_over() and await self._extend(fault):
                    await self._publish(fault)
            except MeshctlError as error:
                message = f"{fault.subject}: fault {fault.id} does not hold for what is new: {error}"
                self._engine.parts.events.add("fault.stuck", fault.subject, message, "error")
                return

    async def _extend(self, fault: FaultRecord) -> bool:
        """Start a relay for the instances that have none; False when all have one."""
        engine, detail, missing = self._engine, json.loads(fault.detail), self._missing(fault)
        if not missing:
            return False
        used = {*await self._running(fault), *(file.stem for file in self._files(fault))}
        base = _name(fault)
        name = next(name for name in chain((base,), (f"{base}.{number}" for number in count(2))) if name not in used)
        ready = self._file(name)
        spec = {
            "targets": missing,
            "delay": detail["delay"],
            "jitter": detail["jitter"],
            "drop": detail["drop"],
            "seconds": self._faults.remaining(fault),
            "ready": str(ready),
        }
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
                while not (ports := _read(ready)):  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(0.02)
        except TimeoutError:
            log = engine.parts.paths.log(name)
            raise StartError(f"the relay of the fault {fault.id} did not start", hint=f"its log: {log}") from None
        self._ports[fault.id] = {**self._read_ports(fault), **ports}
        return True

    def _meant(self) -> list[FaultRecord]:
        return [r for kind in DETOUR_KINDS for r in self._faults.active(kind) if self._faults.is_meant(r)]

    def _instances_of(self, service: str) -> list[str]:
        parts = self._engine.parts
        specs = [view.spec for view in parts.supervisor.views().values()]
        found = [spec.id for spec in specs if spec.service == service and spec.kind == "service"]
        return [*found, *(item.id for item in parts.topology.registrations if item.service == service)]

    def _targets(self, fault: FaultRecord) -> dict[str, int]:
        mesh, services = self._engine.mesh, {callee for _, callee in read_pairs(fault)}
        instances = self._engine.facts(mesh).instances if mesh is not None else ()
        return {item.id: item.inbound_port for item in instances if item.service in services}

    def _missing(self, fault: FaultRecord) -> dict[str, int]:
        ports = self._read_ports(fault)
        return {name: port for name, port in self._targets(fault).items() if name not in ports}

    async def _running(self, fault: FaultRecord) -> list[str]:
        base = _name(fault)
        names = [handle.name for handle in await self._engine.parts.host.running()]
        return [name for name in names if name == base or name.startswith(f"{base}.")]

    def _read_ports(self, fault: FaultRecord) -> Mapping[str, int]:
        if fault.id not in self._ports:
            self._ports[fault.id] = {name: port for file in self._files(fault) for name, port in _read(file).items()}
        return self._ports[fault.id]

    def _files(self, fault: FaultRecord) -> list[Path]:
        base, folder = _name(fault), Path(self._engine.parts.paths.runtime)
        return [path for path in (self._file(base), *folder.glob(f"{base}.*{_SUFFIX}")) if path.exists()]

    def _file(self, name: str) -> Path:
        return Path(self._engine.parts.paths.runtime) / f"{name}{_SUFFIX}"


def write_detail(pairs: list[tuple[str, str]], *, delay: float = 0.0, jitter: float = 0.0, drop: bool = False) -> str:
    """What a record of a detour holds; ``pairs`` are of caller and callee, durations are seconds."""
    return json.dumps({"pairs": pairs, "delay": delay, "jitter": jitter, "drop": drop})


def read_pairs(fault: FaultRecord) -> list[tuple[str, str]]:
    """The callers and callees of a record."""
    return [(str(caller), str(callee)) for caller, callee in json.loads(fault.detail)["pairs"]]


def _drops(fault: FaultRecord) -> bool:
    return bool(json.loads(fault.detail)["drop"])


def _name(fault: FaultRecord) -> str:
    return f"{RELAY_PREFIX}{fault.id}"


def _read(file: Path) -> dict[str, int]:
    try:
        return {str(name): int(port) for name, port in json.loads(file.read_text(encoding="ascii")).items()}
    except (OSError, ValueError):
        return {}
