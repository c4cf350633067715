"""Runs rollouts: reads the traffic, asks the machine, writes its decision down, then acts on it.  I/O.

Every verb answers with the rollout as it stands then; ``wire`` shapes are made of it by whoever asks.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from meshctl.canary.codec import Entry
from meshctl.canary.machine import SETTLING, begin, step
from meshctl.canary.model import (
    Applied,
    Cancelled,
    Command,
    Decision,
    Event,
    PauseAsked,
    PromoteAsked,
    Refused,
    ResumeAsked,
    RollBackAsked,
    Rollout,
    Sample,
    Settings,
    SetWeight,
    Tick,
)
from meshctl.canary.settings import check_settings
from meshctl.control.engine import Engine
from meshctl.control.events import Level
from meshctl.control.metrics import MetricsDesk
from meshctl.control.rollout_book import RolloutBook
from meshctl.control.rollout_notices import find_change, find_loss, split_of
from meshctl.control.rollout_samples import Samples
from meshctl.control.rollout_starts import check_start, check_version, find_service, revision_of
from meshctl.control.shifting import Shifts
from meshctl.errors import ConflictError, MeshctlError, NotFoundError, WaitTimeoutError
from meshctl.wire.shifts import ShiftRequest

LOOK_EVERY = 0.25
"""Seconds between two looks at what is due."""

TAKES_EFFECT = 90.0
"""Seconds that a command waits for the weight that it asked for: instances may have to be started for it."""

_SETTLES = 30.0
_LOOK = 0.05
_LEVELS: dict[str, Level] = {
    "rolling_back": "warning",
    "rolled_back": "warning",
    "frozen": "warning",
    "failed": "error",
}


class Rollouts:
    """The rollouts of a running mesh; at most one of a service is under way."""

    def __init__(
        self,
        engine: Engine,
        shifts: Shifts,
        metrics: MetricsDesk,
        *,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._shifts = shifts
        self._wait = wait
        self._book = RolloutBook(engine.parts.rollouts)
        self._work: dict[int, asyncio.Task[None]] = {}
        self._awake: set[int] = set()
        # Those that this control plane began, or has taken up.
        self._trouble = ""
        self._faults: dict[str, tuple[str, float]] = {}
        # The last fault of a service, in words, and when it was last seen to be on.
        self.find_fault: Callable[[str], str] = lambda _service: ""
        """Says of a service which fault is on, such as ``30% abort``; empty when none is. Whoever injects sets it."""
        self.read = Samples(engine, metrics, self._fault_since).read
        self.now: Callable[[], float] = engine.parts.metrics.reader.now
        shifts.find_rollout = self.describe

    # ------------------------------------------------------------------------------------------ verbs

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
        return self._begin(
            service, version, settings, author=author, reason=reason, replace=replace, force=force, again=False
        )

    def status(self, service: str = "") -> list[Rollout]:
        """The newest rollout of each service, or of one. Raises NotFoundError for a service that is not there."""
        if service:
            find_service(self._engine, service)
        services = [service] if service else sorted({rollout.service for rollout in self._book.all.values()})
        found = (self._book.newest(name) for name in services)
        return [rollout for rollout in found if rollout is not None]

    async def pause(self, service: str, *, author: str, reason: str = "") -> Rollout:
        """Hold the weight until ``resume``. Raises ConflictError when nothing is under way."""
        rollout = self._find(service)
        if rollout.phase in ("paused", "frozen", "rolling_back"):
            raise ConflictError(self._words(rollout), hint=_next_steps(rollout))
        return self._feed(rollout, PauseAsked(author=author, reason=reason))

    async def resume(self, service: str, *, author: str, reason: str = "") -> Rollout:
        """Go on with a paused or frozen rollout. Raises ConflictError when there is none."""
        rollout = self._find(service)
        if rollout.phase not in ("paused", "frozen"):
            raise ConflictError(f"{self._words(rollout)}, and not paused", hint=_next_steps(rollout))
        return self._feed(rollout, ResumeAsked(author=author, reason=reason))

    async def promote(self, service: str, *, full: bool, author: str, reason: str = "") -> Rollout:
        """Take the next step now, or with ``full`` all of the traffic; returns when it is in effect everywhere.

        Raises ConflictError when nothing is under way, and what stood in the way of the shift.
        """
        rollout = self._find(service)
        if rollout.phase == "rolling_back" or (not full and rollout.phase in ("starting", "shifting")):
            raise ConflictError(f"{self._words(rollout)}, which is not in effect yet", hint="try again in a moment")
        asked = self._feed(rollout, PromoteAsked(author=author, reason=reason, full=full))
        return await self._in_effect(asked)

    async def rollback(self, service: str, *, author: str, reason: str = "") -> Rollout:
        """Take all traffic from the version; returns when that is in effect everywhere. Raises as ``promote``."""
        asked = self._feed(self._find(service), RollBackAsked(author=author, reason=reason))
        return await self._in_effect(asked)

    async def retry(self, service: str, *, version: str = "", author: str, reason: str = "") -> Rollout:
        """Begin the last rollout of a service, or of one of its versions, anew, though it was rolled back.

        Raises as ``start``.
        """
        find_service(self._engine, service)
        last = self._book.newest(service)
        if version and (last is None or last.ended):
            found = [each for each in self._book.all.values() if (each.service, each.version) == (service, version)]
            last = found[-1] if found else None
        if last is None or not last.ended or last.phase == "promoted":
            if last is not None and not last.ended:
                raise ConflictError(self._words(last), hint=_next_steps(last))
            of = f" of {version}" if version else ""
            raise ConflictError(
                f"{service} has no rollout{of} to retry", hint=f"meshctl canary start {service} VERSION"
            )
        return self._begin(
            service, last.version, last.settings, author=author, reason=reason, replace=False, force=False, again=True
        )

    def history(self, service: str = "", number: int = 0) -> list[tuple[Rollout, list[Decision]]]:
        """Rollouts, oldest first, each with its decisions; of one service, or one by its number.

        Raises NotFoundError for a service or a number that is not there.
        """
        chosen = [
            rollout
            for rollout in self._book.all.values()
            if (not service or rollout.service == service) and number in (0, rollout.number)
        ]
        if number and not chosen:
            of = f" of {service}" if service else ""
            raise NotFoundError(f"there is no rollout {number}{of}", hint="`meshctl canary history` lists them")
        if service and not chosen:
            find_service(self._engine, service)
        return [(rollout, [entry.decision for entry in self.entries(rollout.number)]) for rollout in chosen]

    def entries(self, number: int) -> list[Entry]:
        """Everything that came to a rollout, with the numbers that each decision rests on: what can be replayed."""
        try:
            return self._book.read(number)
        except ValueError as error:
            raise MeshctlError(f"the history of rollout {number} cannot be read: {error}") from None

    async def stream(self, service: str) -> AsyncIterator[Rollout]:
        """The newest rollout of a service: as it is now, and again after each change; ends when the rollout has.

        Raises NotFoundError when the service has had none.
        """
        find_service(self._engine, service)
        seen = self._book.newest(service)
        if seen is None:
            raise NotFoundError(f"{service} has had no rollout", hint=f"meshctl canary start {service} VERSION")
        yield seen
        number = seen.number
        while not seen.ended:
            told = seen
            await self._engine.wait_for(lambda told=told: self._book.all[number] is not told)  # type: ignore[misc]
            seen = self._book.all[number]
            yield seen

    def find_tried(self, service: str, version: str, revision: str) -> Rollout | None:
        """The newest rollout of a version as it is at a revision; None when it was never rolled out."""
        wanted, found = (service, version, revision), reversed(list(self._book.all.values()))
        return next((each for each in found if (each.service, each.version, each.revision) == wanted), None)

    def how_to_retry(self, rollout: Rollout) -> str:
        """The command that begins a rollout that has ended anew; it names the version where that is not the last."""
        newest = self._book.newest(rollout.service)
        named = newest is not None and newest.version != rollout.version
        return f"meshctl canary retry {rollout.service}{f' {rollout.version}' if named else ''}"

    def describe(self, service: str) -> str:
        """A sentence on the rollout of a service that is under way; empty when none is."""
        rollout = self._book.newest(service)
        return "" if rollout is None or rollout.ended else self._words(rollout)

    # ------------------------------------------------------------------------------------------ the loop

    async def run(self) -> None:
        """Take up what was under way, then do what is due, until cancelled."""
        for number in self._book.unreadable:
            message = f"rollout {number} was written by another version of meshctl, and is left alone"
            self._engine.parts.events.add("rollout.unreadable", "rollouts", message, "warning")
        while True:
            self.look()
            await self._wait(LOOK_EVERY)

    def look(self) -> None:
        """Do what is due now."""
        mesh = self._engine.mesh
        if mesh is None or self._engine.stopping:
            return
        for rollout in self._book.under_way():
            if fault := self.find_fault(rollout.service):
                self._faults[rollout.service] = (fault, self.now())
            try:
                event = self._find_due(rollout)
                if event is not None:
                    self._feed(rollout, event)
            except MeshctlError as error:
                # What cannot be written down is not done; it is due again at the next look.
                self._tell_trouble(rollout, error)

    def _find_due(self, rollout: Rollout) -> Event | None:
        mesh = self._engine.mesh
        assert mesh is not None
        if lost := find_loss(rollout, mesh, self._engine.parts.topology.declared):
            return lost
        service = mesh.services.get(rollout.service)
        if service is None:
            return None
        known, busy = rollout.number in self._awake, rollout.number in self._work
        self._awake.add(rollout.number)
        if changed := find_change(rollout, service, busy=busy, known=known):
            return changed
        now = self.now()
        if rollout.next_at is None or now < rollout.next_at:
            return None
        if rollout.phase == "rolling_back":
            return Tick(sample=Sample(until=now, seconds=0.0, window_seconds=0.0))
        sample = self.read(rollout, now)
        return None if sample is None else Tick(sample=sample)

    # ------------------------------------------------------------------------------------------ the steps

    def _begin(
        self,
        service: str,
        version: str,
        settings: Settings,
        *,
        author: str,
        reason: str,
        replace: bool,
        force: bool,
        again: bool,
    ) -> Rollout:
        check_settings(settings)
        found = find_service(self._engine, service)
        check_version(found, version)
        current = self._book.newest(service)
        under_way = current is not None and not current.ended
        if current is not None and under_way and not replace:
            raise ConflictError(
                self._words(current), hint="end it with `meshctl canary rollback`, or give --replace to take over"
            )
        weight = check_start(found, version, replaced=current.version if current is not None and under_way else "")
        if not under_way and not again:
            self._refuse_latched(found.name, version, revision_of(found.versions[version]))
        fault = self.find_fault(service)
        if fault and not force:
            raise ConflictError(
                f"a fault is on at {service} ({fault}): its errors would be taken for the version's",
                hint="wait until it is over, or give --force: what it does then does not count as evidence",
            )
        if current is not None and not current.ended:
            self._feed(current, Cancelled(message=f"replaced by rollout {self._book.next_number} to {version}"))
        rollout, commands = begin(
            number=self._book.next_number,
            service=service,
            version=version,
            stable=found.stable,
            revision=revision_of(found.versions[version]),
            settings=settings,
            author=author,
            reason=reason,
            weight=weight,
            now=self.now(),
        )
        self._book.write(rollout, None)
        self._awake.add(rollout.number)
        self._tell(rollout, "begin")
        self._carry_out(rollout, commands)
        return rollout

    def _refuse_latched(self, service: str, version: str, revision: str) -> None:
        tried = self.find_tried(service, version, revision)
        if tried is not None and tried.phase == "rolled_back":
            raise ConflictError(
                f"this {version} of {service} was rolled back (rollout {tried.number}): {tried.why}",
                hint=f"change the version, or try the same again: {self.how_to_retry(tried)}",
            )

    def _feed(self, rollout: Rollout, event: Event) -> Rollout:
        """Let something come to a rollout: its decision is written down, then acted on. Raises MeshctlError."""
        moved, commands = step(rollout, event, self.now())
        if moved is rollout:
            return rollout
        self._book.write(moved, event)
        if (moved.phase, moved.weight) != (rollout.phase, rollout.weight):
            self._tell(moved, moved.phase)
        if moved.ended and rollout.number in self._work:
            self._work[rollout.number].cancel()
        self._carry_out(moved, commands)
        self._engine.notify()
        return moved

    def _tell(self, rollout: Rollout, what: str) -> None:
        words = f"rollout {rollout.number} to {rollout.version}, {rollout.weight}%: {rollout.why}"
        level = _LEVELS.get(rollout.phase, "warning" if rollout.pause in ("inconclusive", "disturbed") else "info")
        self._engine.parts.events.add(f"rollout.{what}", rollout.service, words, level)

    def _tell_trouble(self, rollout: Rollout, error: MeshctlError) -> None:
        if error.message != self._trouble:
            self._engine.parts.events.add("rollout.trouble", rollout.service, error.message, "warning")
        self._trouble = error.message

    def _carry_out(self, rollout: Rollout, commands: tuple[Command, ...]) -> None:
        for command in commands:
            before = self._work.pop(rollout.number, None)
            if before is not None:
                before.cancel()
            work = self._set_weight(rollout, command, before)
            self._work[rollout.number] = self._engine.spawn(f"rollout {rollout.number}", work)

    async def _set_weight(self, rollout: Rollout, command: SetWeight, before: asyncio.Task[None] | None) -> None:
        """Bring a weight into effect, and let the rollout know."""
        if before is not None:
            # A change that has begun goes to its end; what waited for instances stops waiting.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([before])
        request = ShiftRequest(
            service=rollout.service,
            weights={rollout.version: command.weight},
            author=rollout.author,
            reason=command.reason,
            force=True,
        )
        event: Event = Applied(weight=command.weight)
        try:
            await self._shifts.shift(request, wait=command.wait)
        except MeshctlError as error:
            if self._engine.stopping:
                return
            if isinstance(error, WaitTimeoutError) and self._is_in_force(rollout, command.weight):
                await self._settle()
            else:
                event = Refused(weight=command.weight, message=error.message)
        if self._work.get(rollout.number) is asyncio.current_task():
            del self._work[rollout.number]
        try:
            self._feed(self._book.all[rollout.number], event)
        except MeshctlError as error:
            # It still says that the weight is on its way: the next look has it pushed again.
            self._tell_trouble(rollout, error)
        else:
            self._trouble = ""

    def _fault_since(self, service: str, since: float) -> str:
        """The fault that was on since a time, in words. Requests that it delayed end a while after it."""
        words, seen = self._faults.get(service, ("", 0.0))
        return words if seen >= since - SETTLING else ""

    def _is_in_force(self, rollout: Rollout, weight: int) -> bool:
        mesh = self._engine.mesh
        service = mesh.services.get(rollout.service) if mesh is not None else None
        return service is not None and dict(service.split) == split_of(rollout, weight)

    async def _settle(self) -> None:
        """Wait a while for sidecars that have not acknowledged: those that are away get it when they come back."""
        revisions = self._engine.parts.topology.revisions
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLES):
                while revisions.newest is not None and revisions.newest.state == "pending":
                    await self._wait(_LOOK)

    async def _in_effect(self, asked: Rollout) -> Rollout:
        """The rollout once what was decided has come into effect. Raises ConflictError when it did not."""
        number = asked.number

        def is_decided() -> bool:
            rollout = self._book.all[number]
            return self._engine.stopping or rollout.phase not in ("starting", "shifting", "rolling_back")

        try:
            async with asyncio.timeout(TAKES_EFFECT):
                await self._engine.wait_for(is_decided)
        except TimeoutError:
            raise WaitTimeoutError(
                f"{asked.service}: {asked.weight}% to {asked.version} is not in effect after {TAKES_EFFECT:g} s",
                hint="`meshctl canary status` shows how it stands",
            ) from None
        self._engine.refuse_while_stopping()
        rollout = self._book.all[number]
        if rollout.pause == "disturbed" or rollout.phase == "failed":
            raise ConflictError(
                f"{asked.weight}% to {asked.version} is not in effect: {rollout.why}", hint=_next_steps(rollout)
            )
        return rollout

    # ------------------------------------------------------------------------------------------ what is so

    def _find(self, service: str) -> Rollout:
        """The rollout of a service that is under way. Raises ConflictError when none is."""
        find_service(self._engine, service)
        rollout = self._book.newest(service)
        if rollout is None or rollout.ended:
            ended = f"; rollout {rollout.number} {_PAST[rollout.phase]}" if rollout is not None else ""
            raise ConflictError(
                f"no rollout of {service} is under way{ended}", hint=f"meshctl canary start {service} VERSION"
            )
        return rollout

    def _words(self, rollout: Rollout) -> str:
        state = (
            "is" if rollout.phase in ("starting", "shifting", "running") else f"is {rollout.phase.replace('_', ' ')}"
        )
        return f"a rollout of {rollout.service} to {rollout.version} {state} at {rollout.weight}%"


_PAST = {
    "promoted": "was promoted",
    "rolled_back": "was rolled back",
    "failed": "failed to start",
    "cancelled": "was cancelled",
}


def _next_steps(rollout: Rollout) -> str:
    if rollout.phase in ("paused", "frozen"):
        return f"go on: meshctl canary resume {rollout.service}; or end it: promote, rollback"
    if rollout.ended:
        return f"try the same again: meshctl canary retry {rollout.service}"
    return f"look at it: meshctl canary status {rollout.service}"
