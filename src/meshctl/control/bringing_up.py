"""Brings versions of a service up before requests are sent to them, and takes that back.  I/O.

Enters: a service and the versions that are going to get requests.  Leaves: the instances that were started, once they
are healthy and every caller's sidecar knows of them; a StartError or WaitTimeoutError with what they wrote otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshctl.control.engine import Engine
from meshctl.control.failures import Failures
from meshctl.errors import ConflictError, MeshctlError, StartError, WaitTimeoutError
from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.machine import failed_to_start
from meshctl.spec.schema import Service
from meshctl.wire.models import StartFailure

_ACK_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BroughtUp:
    """Instances that were started, and the instance counts by ``service/version`` that there were before."""

    started: tuple[str, ...] = ()
    replicas: Mapping[str, int | None] | None = None


class Starter:
    """Starts versions that do not run."""

    def __init__(self, engine: Engine, failures: Failures) -> None:
        """``failures`` tells why an instance did not come up."""
        self._engine = engine
        self._failures = failures

    def find_missing(self, service: Service, versions: Iterable[str]) -> tuple[str, ...]:
        """Those of some versions that have no instance: each would have to be started.

        Raises ConflictError for one that has no command to start.
        """
        missing = tuple(version for version in versions if not self._count(service, version))
        for version in missing:
            if not service.versions[version].command:
                raise ConflictError(
                    f"{service.name}/{version} has no instance, and no command to start one",
                    hint=f"meshctl register {service.name} --version {version} --address HOST:PORT",
                )
        return missing

    def is_running(self, service: str, version: str) -> bool:
        """Whether a version has an instance that is not about to go."""
        return bool(self._views(service, version)) or bool(self._registered(service, version))

    async def bring_up(self, service: Service, versions: tuple[str, ...], timeout: float) -> BroughtUp:
        """Start what does not run of some versions; returns when each of them can take requests.

        A version of which some instance is healthy is left as it is. What was started is stopped again when this fails.

        Raises:
            ConflictError: there is nothing to start.
            StartError: an instance does not come up; with the end of its output.
            WaitTimeoutError: one is not healthy after ``timeout`` seconds; with the end of its output.
        """
        engine = self._engine
        waiting = tuple(version for version in versions if not self._is_healthy(service.name, version))
        if not waiting:
            return BroughtUp()
        missing = self.find_missing(service, waiting)
        since = engine.parts.clock.now() if missing else None
        before: dict[str, int | None] = {}
        try:
            if missing:
                before = await self._scale_up(service, missing)
            self._start_again(service, waiting)
            async with asyncio.timeout(timeout):
                await engine.wait_for(lambda: engine.stopping or self._is_decided(service.name, waiting))
            engine.refuse_while_stopping()
            await self._explain_failure(service.name, waiting, since)
            await self._announce()
        except TimeoutError:
            late = await self._late(service.name, waiting, timeout, since)
            await self.take_back(BroughtUp(replicas=before))
            raise late from None
        except MeshctlError:
            await self.take_back(BroughtUp(replicas=before))
            raise
        except asyncio.CancelledError:
            # Whoever asked has gone away: nobody wants these any more.
            engine.spawn("take back", self.take_back(BroughtUp(replicas=before)))
            raise
        started = tuple(view.spec.id for version in missing for view in self._views(service.name, version))
        return BroughtUp(started=started, replicas=before)

    async def take_back(self, brought: BroughtUp) -> None:
        """Stop again what was started."""
        if not brought.replicas or self._engine.stopping:
            return
        async with self._engine.changing:
            topology = self._engine.parts.topology
            topology.restore_replicas(brought.replicas, in_use=self._engine.ports_in_use)
            await self._engine.apply()

    # ------------------------------------------------------------------------------------------ the steps

    async def _scale_up(self, service: Service, versions: tuple[str, ...]) -> dict[str, int | None]:
        engine = self._engine
        before: dict[str, int | None] = {}
        async with engine.changing:
            engine.refuse_while_stopping()
            topology = engine.parts.topology
            for version in versions:
                key, count = f"{service.name}/{version}", service.versions[version].replicas or 1
                before[key] = topology.replicas.get(key)
                topology.set_replicas(service.name, version, count, in_use=engine.ports_in_use)
                instances = "1 instance, which gets" if count == 1 else f"{count} instances, which get"
                message = f"{key}: starting {instances} requests once healthy"
                engine.parts.events.add("traffic.starting", key, message)
            await engine.apply()
        return before

    def _start_again(self, service: Service, versions: tuple[str, ...]) -> None:
        """Give instances that were given up, or ended by themselves, another chance."""
        ended = {
            view.spec.id
            for version in versions
            for view in self._views(service.name, version)
            if view.state.phase in ("failed", "stopped") or failed_to_start(view.state, view.spec)
        }
        if ended:
            self._engine.parts.supervisor.retry(ended)

    def _is_decided(self, service: str, versions: tuple[str, ...]) -> bool:
        return bool(self._failed(service, versions)) or all(self._is_up(service, version) for version in versions)

    def _is_up(self, service: str, version: str) -> bool:
        views = self._views(service, version)
        checks = self._engine.checks.answers
        registered = self._registered(service, version)
        if not views:
            return any(checks.get(item) for item in registered)
        return all(view.health == "healthy" and not view.outdated for view in views)

    def _is_healthy(self, service: str, version: str) -> bool:
        checks = self._engine.checks.answers
        return any(view.health == "healthy" for view in self._views(service, version)) or any(
            checks.get(item) for item in self._registered(service, version)
        )

    async def _announce(self) -> None:
        """Return when the sidecars know the new instances, so that no request is sent to a version without any."""
        engine = self._engine
        engine.publish()
        versions = {n: v for n, v in engine.running_versions().items() if engine.parts.sync(n).state != "rejected"}
        await engine.parts.publisher.wait(versions, _ACK_TIMEOUT)

    async def _explain_failure(self, service: str, versions: tuple[str, ...], since: float | None) -> None:
        for view in self._failed(service, versions):
            first = await self._failures.explain(view, since=since)
            raise StartError(
                f"{first.name} did not come up: {first.message}; nothing was changed",
                hint=f"its log: {first.log}",
                detail=_tail_of(first),
            )

    async def _late(
        self, service: str, versions: tuple[str, ...], timeout: float, since: float | None
    ) -> WaitTimeoutError:
        waiting = [
            view
            for version in versions
            for view in self._views(service, version)
            if view.health != "healthy" or view.outdated
        ]
        if not waiting:
            names = ", ".join(f"{service}/{version}" for version in versions)
            return WaitTimeoutError(
                f"{names} is not healthy after {timeout:g} s; nothing was changed",
                hint="`meshctl status` shows its instances",
            )
        first = await self._failures.explain(waiting[0], since=since)
        reason = first.message or "its sidecar's health check does not pass"
        return WaitTimeoutError(
            f"{first.name} is not healthy after {timeout:g} s ({reason}); nothing was changed",
            hint=f"its log: {first.log}; --timeout allows more time",
            detail=_tail_of(first),
        )

    # ------------------------------------------------------------------------------------------ what is so

    def _count(self, service: Service, version: str) -> int:
        declared = service.versions[version].replicas if service.versions[version].command else 0
        wanted = self._engine.parts.topology.replicas.get(f"{service.name}/{version}", declared)
        return wanted + len(self._registered(service.name, version))

    def _views(self, service: str, version: str) -> list[InstanceView]:
        views = self._engine.parts.supervisor.views().values()
        return [
            view
            for view in views
            if view.spec.kind == "service"
            and (view.spec.service, view.spec.version) == (service, version)
            and not view.removed
        ]

    def _registered(self, service: str, version: str) -> list[str]:
        items = self._engine.parts.topology.registrations
        return [item.id for item in items if (item.service, item.version) == (service, version)]

    def _failed(self, service: str, versions: tuple[str, ...]) -> list[InstanceView]:
        views = [view for version in versions for view in self._views(service, version)]
        return [view for view in views if failed_to_start(view.state, view.spec)]


def _tail_of(failure: StartFailure) -> str:
    lines = [f"exit code: {failure.exit_code}"] if failure.exit_code is not None else []
    if failure.tail:
        lines += ["last lines of its output:", *(f"  {line}" for line in failure.tail)]
    return "\n".join(lines)
