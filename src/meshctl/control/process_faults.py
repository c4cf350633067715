"""Faults of processes: killed, ended, stopped for a while, robbed of their time.  I/O; through the process host.

Enters: instances.  Leaves: signals to their groups, and holds that end by themselves. What was killed comes back as
after any crash, by the restart policy of its service. A process that is held is one that answers nothing: health
checks see it, sidecars eject it, and a liveness check may have it started anew, which ends the hold.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Mapping, Sequence

from meshctl.control.engine import Engine
from meshctl.control.faults import Faults, Reach
from meshctl.errors import ConflictError, NotFoundError
from meshctl.lifecycle.health import InstanceView
from meshctl.ports import FaultRecord

_END_TIMEOUT = 10.0

HELD_KINDS = ("pause", "cpu")
"""The kinds of faults that hold a process."""


class HeldProcesses:
    """The faults that hold processes; a ``faults.FaultKind``. ``detail`` has the share and the pid of each instance."""

    def __init__(self, engine: Engine, faults: Faults) -> None:
        self._engine = engine
        self._faults = faults

    async def begin(self, fault: FaultRecord) -> int:
        """Hold every process. Raises ConflictError when one of them does not run."""
        share, pids = read_detail(fault)
        for name, pid in pids.items():
            if self._pid(name) != pid or not await self._engine.parts.host.hold(name, share, fault.ends_at):
                raise ConflictError(f"{name} does not run any more", hint="`meshctl status` shows what does")
        self._engine.spawn("held processes", self._watch(fault, pids))
        return 0

    async def end(self, fault: FaultRecord) -> int:
        """Let every process go on."""
        for name in read_detail(fault)[1]:
            await self._engine.parts.host.release(name)
        return 0

    async def resume(self, fault: FaultRecord) -> None:
        """Hold on. Raises NotFoundError when none of the processes is left."""
        share, pids = read_detail(fault)
        left = {name: pid for name, pid in pids.items() if self._pid(name) == pid}
        if not left:
            raise NotFoundError("its processes are gone")
        for name in left:
            await self._engine.parts.host.hold(name, share, fault.ends_at)
        self._engine.spawn("held processes", self._watch(fault, left))

    def reach(self, _fault: FaultRecord) -> Reach:
        """Everybody who calls the service."""
        return Reach()

    async def _watch(self, fault: FaultRecord, pids: Mapping[str, int]) -> None:
        """End the fault when none of its processes is left: they were restarted, or died."""

        def is_over() -> bool:
            return not self._faults.is_meant(fault) or all(self._pid(name) != pid for name, pid in pids.items())

        await self._engine.wait_for(is_over)
        if self._faults.is_meant(fault):
            await self._faults.clear([fault.id], why="its processes are gone")

    def _pid(self, name: str) -> int | None:
        view = self._engine.parts.supervisor.views().get(name)
        return view.state.pid if view is not None else None


def write_detail(share: float, views: Sequence[InstanceView]) -> str:
    """What a record of held processes holds."""
    return json.dumps({"share": share, "pids": {view.spec.id: view.state.pid for view in views}})


def read_detail(fault: FaultRecord) -> tuple[float, dict[str, int]]:
    """The share that is taken, and the pid of each instance."""
    found = json.loads(fault.detail)
    return float(found["share"]), {str(name): int(pid) for name, pid in found["pids"].items()}


def find_targets(engine: Engine, target: str) -> tuple[InstanceView, ...]:
    """The instances that run of a service, or one of them, also as ``service/version`` or ``service/instance``.

    Raises:
        NotFoundError: there is no such service or instance; says which are.
        ConflictError: none of them runs here.
    """
    service, _, part = target.partition("/")
    views = [v for v in engine.parts.supervisor.views().values() if v.spec.kind != "sidecar" and not v.removed]
    found = [
        v
        for v in views
        if target in (v.spec.id, v.spec.service)
        or (service == v.spec.service and part in (v.spec.id, v.spec.version, v.spec.id.removeprefix(f"{service}-")))
    ]
    if not found:
        known = ", ".join(sorted({name for v in views for name in (v.spec.service, v.spec.id)}))
        raise NotFoundError(f"nothing that runs here is called {target}", hint=f"services and instances: {known}")
    running = tuple(v for v in found if v.state.pid is not None and v.state.phase in ("starting", "ready"))
    if not running:
        reason = found[0].state.reason or found[0].state.phase
        raise ConflictError(f"no instance of {target} runs: {reason}", hint="`meshctl status` shows what does")
    return running


async def strike(engine: Engine, views: Sequence[InstanceView], signum: int) -> None:
    """Send a signal that ends them to instances, as if it came from outside: nobody here expects their end.

    Returns when each of them has ended, or ten seconds later.
    """
    pids = {view.spec.id: view.state.pid for view in views}
    for name in pids:
        word = "killed" if signum == signal.SIGKILL else "told to end"
        engine.parts.events.add("fault.struck", name, f"{name} is {word} by a fault", "warning")
        await engine.parts.host.signal(name, signum)

    def have_ended() -> bool:
        seen = engine.parts.supervisor.views()
        return all(name not in seen or seen[name].state.pid != pid for name, pid in pids.items())

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_TIMEOUT):
            await engine.wait_for(have_ended)


def describe_return(views: Sequence[InstanceView]) -> str:
    """What comes of instances that end unasked."""
    mode = views[0].spec.restart.mode
    if mode == "no":
        return f"its restart policy is `{mode}`: `meshctl restart {views[0].spec.id}` starts it again"
    return "its restart policy starts it again"
