"""Runs the state machines of lifecycle against real processes: one loop, one queue of events.  I/O.

Enters: what is to run (InstanceSpecs), exits from the process host, answers of probes, Envoy's checks.  Leaves:
processes started, signalled and swept; events for the log; a call of ``changed`` after every visible change.
Decides nothing about a single instance: that is ``lifecycle.machine``.  What concerns several of them is here:
dependencies, rolling restarts, the order of stopping, adoption after the control plane died (invariant 4).
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

from meshctl.control.adoption import plan_adoption
from meshctl.control.effects import Effects, ReportEvent, RunOneProbe
from meshctl.control.entries import Entry
from meshctl.errors import ConflictError, MeshctlError, NotFoundError, StartError
from meshctl.lifecycle.describe import describe_exit, report
from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.machine import failed_to_start, next_wakeup, step
from meshctl.lifecycle.model import (
    DependenciesMet,
    Event,
    Exited,
    Forced,
    InstanceSpec,
    Level,
    Refreshed,
    StopRequested,
    Tick,
    Waiting,
)
from meshctl.lifecycle.order import find_stop_levels, find_unmet
from meshctl.lifecycle.specs import RELAY_PREFIX
from meshctl.ports import Clock, InstanceRecord, ProcessHost
from meshctl.tasks import TaskBag


class Supervisor:
    """Keeps what runs equal to what is to run.

    Args:
        host: owns the processes.
        probe: asks an instance once, see control.probes.run_probe.
        clock: wall clock and monotonic clock.
        drain: takes an instance id; returns when no caller has it in its endpoints any more.
        recall: what is remembered of instances.
        remember: remembers an instance; durable when it returns.
        forget: forgets an instance.
        report: takes (kind, subject, message, level) for the event log.
        changed: called in the event loop after every visible change; must be cheap.
        wait: sleeps so many seconds of ``clock``.
    """

    def __init__(
        self,
        *,
        host: ProcessHost,
        probe: RunOneProbe,
        clock: Clock,
        drain: Callable[[str], Awaitable[None]],
        recall: Callable[[], tuple[InstanceRecord, ...]],
        remember: Callable[[InstanceRecord], None],
        forget: Callable[[str], None],
        report: ReportEvent,
        changed: Callable[[], None],
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._host = host
        self._clock = clock
        self._recall = recall
        self._remember = remember
        self._forget = forget
        self._report = report
        self._changed = changed
        self._wait = wait
        self._bag = TaskBag(self._report_bug)
        self._effects = Effects(
            host=host, probe=probe, drain=drain, remember=remember, report=report, post=self._post, bag=self._bag
        )
        self._entries: dict[str, Entry] = {}
        self._views: dict[str, InstanceView] | None = None
        self._queue: deque[tuple[Entry, Event]] = deque()
        self._wake = asyncio.Event()
        self._pulse = asyncio.Event()
        self._processing = False
        self._has_changed = False
        self._timers: list[tuple[float, int, Entry]] = []
        self._timers_made = 0
        self._timer: tuple[float, asyncio.Task[None]] | None = None
        self._rolls: dict[str, asyncio.Task[None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._stopping = False
        self._forced = False
        self._closed = False

    # ------------------------------------------------------------------------------------------ what is so

    def views(self) -> Mapping[str, InstanceView]:
        """Every instance and sidecar by id, those that are being removed included; a snapshot."""
        if self._views is None:
            self._views = {name: entry.view() for name, entry in self._entries.items()}
        return self._views

    def set_envoy_check(self, instance_id: str, ok: bool | None) -> None:  # noqa: FBT001 - Envoy's answer
        """Take the answer of Envoy's active check of an instance; None when Envoy cannot tell."""
        entry = self._entries.get(instance_id)
        if entry is None or entry.envoy_check is ok:
            return
        before = entry.view().health
        entry.envoy_check = ok
        health = entry.view().health
        if entry.state.phase == "ready" and entry.state.ready and health != before:
            # Before its first check an instance counts as failing it, which is no news.
            if health == "unhealthy" and before == "healthy":
                self._report("instance.unhealthy", instance_id, "Envoy's health check of it fails", "warning")
            elif health == "healthy":
                self._report("instance.healthy", instance_id, "Envoy's health check of it passes", "info")
        self._note_change()
        self._look_at_pending()
        self._process()

    # ------------------------------------------------------------------------------------------ what is to be

    async def adopt(self, specs: Mapping[str, InstanceSpec], *, only_running: bool = False) -> None:
        """Take up what an earlier control plane left; comes before ``run``.

        What runs with the fingerprint it was remembered with goes on untouched; what runs with another is restarted
        like any changed instance; what runs and is not in ``specs`` is stopped. Returns before the stops are done.
        With ``only_running`` nothing is started or restarted: everything is about to be stopped.
        """
        alive = {handle.name: handle for handle in await self._host.running()}
        if not only_running:
            # What belongs to a fault is that fault's own, see control.detours.
            alive = {name: handle for name, handle in alive.items() if not name.startswith(RELAY_PREFIX)}
        if only_running:
            specs = {name: spec for name, spec in specs.items() if name in alive}
        missed = {item.name: item.code for item in self._host.missed() if item.name not in alive}
        plan = plan_adoption(specs, alive=alive, records=self._recall(), missed=missed, now=self._clock.now())
        # What died unseen may have left children that hold its port.
        await asyncio.gather(*(self._sweep_remains(name) for name in plan.dead))
        for name in plan.forgotten:
            self._forget(name)
        for record in plan.learned:
            self._remember(record)
        for name in (name for name in plan.dead if name in missed and name in specs):
            level: Level = "info" if missed[name] == 0 else "warning"
            told = report(specs[name], "exited", f"{describe_exit(missed[name])} while no control plane ran", level)
            self._report(told.kind, name, told.message, told.level)
        for found in plan.entries:
            self._entries[found.entry.spec.id] = found.entry
            for event in found.events:
                if only_running and event == StopRequested(then="restart", immediate=True):
                    continue
                self._post(found.entry, event)
        self._note_change()
        self._look_at_pending()
        self._process()
        if not only_running:
            self._restart_outdated()
            self._process()

    def reconcile(self, specs: Mapping[str, InstanceSpec]) -> None:
        """Make what runs equal to ``specs``, without waiting for it.

        New instances start when their dependencies are met; removed ones stop gracefully and are forgotten; those
        whose fingerprint changed are restarted, running ones one at a time within a service; all others are left
        alone, though changed probes and policies take effect at once.
        """
        for name, spec in specs.items():
            entry = self._entries.get(name)
            if entry is None:
                self._entries[name] = Entry(spec=spec, wanted=spec)
                continue
            if entry.removed:
                entry.removed = False
                self._post(entry, StopRequested(then="restart"))
            if entry.wanted != spec:
                entry.wanted = spec
                if spec.fingerprint == entry.state.fingerprint:
                    entry.spec = spec
                    self._post(entry, Refreshed())
        for name, entry in self._entries.items():
            if name not in specs and not entry.removed:
                entry.removed = True
                self._post(entry, StopRequested(then="stop"))
        self._note_change()
        self._look_at_pending()
        self._process()
        self._restart_outdated()
        self._process()

    def retry(self, ids: Collection[str] | None = None) -> tuple[str, ...]:
        """Start again what failed, gave up or waits to be tried again, as if for the first time; gives its ids.

        With ``ids``, only of these.
        """
        again = [
            entry
            for name, entry in sorted(self._entries.items())
            if not entry.removed
            and (ids is None or name in ids)
            and (entry.state.phase in ("failed", "stopped", "backoff") or failed_to_start(entry.state, entry.spec))
        ]
        for entry in again:
            self._post(entry, StopRequested(then="restart"))
        self._process()
        return tuple(entry.spec.id for entry in again)

    async def restart(self, ids: Iterable[str]) -> None:
        """Restart instances, within a service one at a time; returns when each is ready again.

        Raises:
            NotFoundError: an id that does not exist; nothing was restarted.
            StartError: one did not come up; those of its service that were still to come were left alone.
        """
        groups: dict[str, list[str]] = {}
        for name in ids:
            entry = self._entries.get(name)
            if entry is None or entry.removed:
                raise NotFoundError(f"there is no instance {name}", hint="meshctl status lists them")
            groups.setdefault(entry.group, []).append(name)
        results = await asyncio.gather(
            *(self._restart_group(group, names) for group, names in groups.items()), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def stop_all(self, order: Sequence[Collection[str]] | None = None, *, force: bool = False) -> None:
        """Stop everything and forget it; returns when nothing of it is left, strays of process groups included.

        ``order`` gives the ids level by level, the first stops first; what it leaves out stops last. Without it
        dependents stop before what they depend on, and sidecars last. ``force`` kills without grace.
        """
        self._stopping = True
        self._forced = self._forced or force
        for roll in self._rolls.values():
            roll.cancel()
        levels = find_stop_levels(view.spec for view in self.views().values()) if order is None else order
        try:
            for entry in self._entries.values():
                if entry.state.pid is None:
                    self._post(entry, StopRequested(then="stop"))
            for level in (*levels, tuple(self._entries)):
                await self._stop_level([self._entries[name] for name in level if name in self._entries])
            for entry in tuple(self._entries.values()):
                self._delete(entry)
        finally:
            self._stopping = False
            self._forced = False
        self._note_change()
        self._process()

    def force(self) -> None:
        """Kill what is being stopped, and by a ``stop_all`` under way whatever is still to be."""
        self._forced = self._stopping
        for entry in self._entries.values():
            self._post(entry, Forced())
        self._process()

    # ------------------------------------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Supervise until cancelled; processes go on after that."""
        self._bag.spawn("exits", self._watch_exits())
        try:
            while True:
                self._wake.clear()
                self._fire_timers()
                self._process()
                self._set_timer()
                await self._wake.wait()
        finally:
            self._closed = True
            self._pulse.set()
            await self._bag.close()

    async def _watch_exits(self) -> None:
        async for item in self._host.exits():
            entry = self._entries.get(item.name)
            if entry is not None:
                self._post(entry, Exited(pid=item.pid, code=item.code))

    def _post(self, entry: Entry, event: Event) -> None:
        self._queue.append((entry, event))
        self._wake.set()

    def _process(self) -> None:
        """Take every event that waits, and those that follow from them."""
        if self._processing:
            return
        self._processing = True
        try:
            while self._queue:
                entry, event = self._queue.popleft()
                if self._entries.get(entry.spec.id) is entry:
                    self._apply(entry, event)
                if not self._queue:
                    self._look_at_pending()
        finally:
            self._processing = False
        if self._has_changed:
            self._has_changed = False
            self._pulse.set()
            self._pulse = asyncio.Event()
            self._changed()

    def _apply(self, entry: Entry, event: Event) -> None:
        entry.take_wanted()
        before = entry.state
        entry.state, commands = step(before, event, spec=entry.spec, now=self._clock.monotonic())
        if entry.state.starts > before.starts and entry.state.pid is None:
            # What Envoy said was of the process before.
            entry.envoy_check = None
        for command in commands:
            self._effects.execute(entry, command)
        wakeup = next_wakeup(entry.state)
        if wakeup is not None and wakeup != entry.wakeup:
            self._timers_made += 1
            heapq.heappush(self._timers, (wakeup, self._timers_made, entry))
        entry.wakeup = wakeup
        if entry.has_changed_since(before):
            self._note_change()
        if entry.removed and entry.state.settled:
            self._delete(entry)

    def _look_at_pending(self) -> None:
        if self._stopping:
            return
        for entry in self._entries.values():
            if entry.state.phase != "pending" or entry.removed:
                continue
            reason = find_unmet(entry.wanted, self.views().values())
            if not reason:
                self._post(entry, DependenciesMet())
            elif reason != entry.state.reason:
                self._post(entry, Waiting(reason=reason))

    def _note_change(self) -> None:
        self._views = None
        self._has_changed = True

    def _delete(self, entry: Entry) -> None:
        entry.cancel_tasks()
        del self._entries[entry.spec.id]
        self._forget(entry.spec.id)
        self._note_change()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Return when a condition holds; it is looked at after every visible change."""
        while not condition():
            if self._closed:
                raise ConflictError("the control plane shuts down", hint="run the command again")
            await self._pulse.wait()

    def _fire_timers(self) -> None:
        now = self._clock.monotonic()
        while self._timers and (self._timers[0][0] <= now or self._timers[0][2].wakeup != self._timers[0][0]):
            when, _, entry = heapq.heappop(self._timers)
            if entry.wakeup == when:
                entry.wakeup = None
                self._post(entry, Tick())

    def _set_timer(self) -> None:
        """Wake the loop when the next timer is due. One that is set for an earlier time may stay: it does no harm."""
        if not self._timers:
            return
        when = self._timers[0][0]
        if self._timer is not None:
            if self._timer[0] <= when and not self._timer[1].done():
                return
            self._timer[1].cancel()
        self._timer = (when, self._bag.spawn("timer", self._sleep_until(when)))

    async def _sleep_until(self, when: float) -> None:
        await self._wait(max(0.0, when - self._clock.monotonic()))
        self._wake.set()

    # ------------------------------------------------------------------------------------------ several together

    def _restart_outdated(self) -> None:
        if self._stopping or self._closed:
            return
        for entry in self._entries.values():
            if entry.removed or not entry.is_outdated or entry.state.phase in ("draining", "stopping"):
                continue
            if entry.state.phase != "ready":
                # Nobody depends on it now: nothing is gained by waiting for its turn.
                self._post(entry, StopRequested(then="restart"))
            elif entry.group not in self._rolls or self._rolls[entry.group].done():
                self._rolls[entry.group] = self._bag.spawn(f"roll {entry.group}", self._roll(entry.group))

    async def _roll(self, group: str) -> None:
        """Restart the outdated instances of a group one at a time, until none is left or one does not come up."""
        try:
            while outdated := [
                entry
                for entry in self._entries.values()
                if entry.group == group and entry.is_outdated and not entry.removed
            ]:
                await self._restart_group(group, [outdated[0].spec.id])
        except MeshctlError as error:
            message = f"the others go on as they were: {error}"
            self._report("service.halted", group, message, "error")

    async def _restart_group(self, group: str, names: Iterable[str]) -> None:
        async with self._locks.setdefault(group, asyncio.Lock()):
            for name in names:
                await self._restart_one(name)

    async def _restart_one(self, name: str) -> None:
        entry = self._entries.get(name)
        if entry is None or entry.removed or self._stopping:
            raise StartError(f"{name} was removed")
        before = entry.state.starts
        self._post(entry, StopRequested(then="restart"))
        self._process()

        def has_failed() -> bool:
            if self._entries.get(name) is not entry or entry.removed or self._stopping:
                return True
            return entry.state.starts > before and (
                entry.state.phase == "stopped" or failed_to_start(entry.state, entry.spec)
            )

        await self._until(lambda: has_failed() or (entry.state.starts > before and entry.is_up))
        if has_failed():
            reason = entry.state.reason or "it was stopped"
            log = entry.spec.process.log_path
            raise StartError(f"{name} did not come up: {reason}", hint=f"its output is in {log}" if log else "")

    async def _stop_level(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._post(entry, StopRequested(then="stop", immediate=self._forced))
            if self._forced:
                self._post(entry, Forced())
        self._process()
        await self._until(lambda: all(e.state.settled or self._entries.get(e.spec.id) is not e for e in entries))

    async def _sweep_remains(self, name: str) -> None:
        try:
            await self._host.sweep(name)
        except (MeshctlError, OSError) as error:
            self._report("instance.trouble", name, f"what it left behind could not be ended: {error}", "warning")

    def _report_bug(self, name: str, error: BaseException) -> None:
        self._report("daemon.error", name, f"internal error: {error!r}", "error")
