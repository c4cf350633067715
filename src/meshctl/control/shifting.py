"""Shifting traffic between versions by hand, and copies of it: the verbs.  I/O; fits api.backend.ShiftBackend.

A shift is a change of policy like any other, with a revision; what is its own is that a version which is going to get
requests runs and is healthy before it is sent any, and that nothing is changed when it does not come up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from meshctl.control.bringing_up import BroughtUp, Starter
from meshctl.control.engine import Engine
from meshctl.control.failures import Failures
from meshctl.control.policies import Policies
from meshctl.control.policy_changer import Changed, Drafted, Edit
from meshctl.control.revisions import Stamp
from meshctl.errors import ConflictError, MeshctlError, NotFoundError, UsageError, WaitTimeoutError, Where
from meshctl.spec.policies import Document, Documents, Origin, PolicyKey
from meshctl.spec.render import to_node
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.shifts import (
    FULL,
    Shift,
    check_versions,
    complete_weights,
    find_own_routes,
    find_route,
    list_versions,
    read_header,
    read_sticking,
    shift_traffic,
    targets_of,
)
from meshctl.wire.policies import PolicyResult
from meshctl.wire.shifts import HeaderTraffic, MirrorRequest, MirrorTraffic, ShiftRequest, Traffic, TrafficResult

T = TypeVar("T")


class Shifts:
    """Shifts traffic between the versions of services."""

    def __init__(self, engine: Engine, policies: Policies, failures: Failures) -> None:
        self._engine = engine
        self._policies = policies
        self._starter = Starter(engine, failures)
        self.find_rollout: Callable[[str], str] = lambda _service: ""
        """Says of a service which rollout is under way, in words such as ``a rollout of checkout to v2 is at 25%``;
        empty when none is. Whoever runs rollouts sets it: a shift by hand is refused then, unless it is forced."""

    async def shift(self, request: ShiftRequest, *, wait: bool = True) -> TrafficResult:
        """Give versions other shares of the traffic; returns when every sidecar concerned has acknowledged.

        A version that is to get more than it has now is brought up first, and gets nothing before it is healthy.
        Without ``wait`` that is left out: what is to happen at once (a rollback, say) must not hang on it.

        Raises:
            NotFoundError: there is no such service or version; says which there are.
            UsageError: the weights are no split.
            ConflictError: a rollout of the service is under way, another revision came first, or the service has
                nothing to choose from.
            StartError, WaitTimeoutError: a version did not come up in time; what was started for it is stopped.
            InvalidTopology, RejectedError, WaitTimeoutError: as ``PolicyChanger.change``.
        """
        service = self._find(request.service)
        header, value = read_header(request.header, request.value)
        asked = Shift(weights=request.weights, header=header, value=value, sticking=read_sticking(request.sticky))
        wanted = complete_weights(service, request.weights)
        self._check_protocol(service, "--header" if request.header else "--sticky" if request.sticky else "")
        self._refuse_rollout(service, force=request.force)
        named = [version for version in request.weights if version in wanted]
        if request.header and any(version == service.stable for version in named):
            named.remove(service.stable)

        def edit(current: Documents, files: Documents, origin: Origin) -> Mapping[PolicyKey, Document]:
            # Of the service as it is then: its split may have changed while a version came up.
            return shift_traffic(self._find(request.service), asked, current=current, files=files, origin=origin)

        return await self._change(service, edit, request, needed=named if request.header else None, wait=wait)

    async def mirror(self, request: MirrorRequest) -> TrafficResult:
        """Send copies of requests to a version, or stop that; returns as ``shift`` does and raises what it raises."""
        service = self._find(request.service)
        name, version, percent = service.name, request.version, request.percent
        check_versions(service, {version: percent} if version else {})
        self._check_protocol(service, "mirroring")
        self._refuse_rollout(service, force=request.force)
        if not version and service.mirror is None:
            raise ConflictError(f"no copies of requests to {name} are sent", hint=f"meshctl canary mirror {name} v2")
        if version == service.stable:
            raise ConflictError(
                f"{version} is the stable version of {name}: it gets the requests themselves",
                hint=f"its versions: {list_versions(service)}",
            )
        if not 0 < percent <= FULL:
            raise UsageError(f"{percent:g} percent cannot be copied", hint="write a percentage above 0, up to 100")

        def edit(current: Documents, files: Documents, origin: Origin) -> Mapping[PolicyKey, Document]:
            key = (name, "mirror")
            left = {found: document for found, document in current.items() if found != key}
            where, file = Where(f"({origin.author})", 0, 0), files.get(key)
            node = to_node({"version": version, "percent": percent}, where) if version else None
            if node is None and (file is None or file.node is None):
                return left
            return {**left, key: Document(owner=name, kind="mirror", where=where, node=node, origin=origin)}

        return await self._change(service, edit, request, needed=None, wait=True)

    # ------------------------------------------------------------------------------------------ the steps

    async def _change(
        self,
        service: Service,
        edit: Edit,
        request: ShiftRequest | MirrorRequest,
        *,
        needed: list[str] | None,
        wait: bool,
    ) -> TrafficResult:
        """Bring up what is going to get more than it has, then change. ``needed`` are versions in any case."""
        changer, clock = self._policies.changer, self._engine.parts.clock
        stamp = Stamp(author=request.author, reason=request.reason)
        # Whatever is wrong with the change is told before anything is started.
        drafted = changer.draft(edit, stamp, base=request.base)
        had, gets = targets_of(service), targets_of(drafted.mesh.services[service.name])
        growing = tuple(name for name in gets if gets[name] > had.get(name, 0) or name in (needed or ()))
        if request.dry_run:
            return await self._try(service, drafted, growing)
        start = clock.monotonic()
        brought = BroughtUp()
        if wait:
            brought = await self._starter.bring_up(service, growing, request.timeout)
        waited = self._engine.milliseconds_since(start) if brought.started else 0.0

        async def change() -> Changed:
            try:
                return await changer.change(edit, stamp, base=request.base)
            except WaitTimeoutError:
                raise  # it is in force all the same
            except MeshctlError:
                await self._starter.take_back(brought)
                raise

        changed = await self._to_its_end(change())
        notes = list(self._notes(self._find(service.name), changed.changes != ()))
        return self._tell(service, self._policies.tell(changed), notes=notes, started=brought.started, waited=waited)

    async def _to_its_end(self, work: Coroutine[Any, Any, T]) -> T:
        """Do what must not stop half-way, though whoever asked for it may go away."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        # Where nobody is left to raise it to, a failure is no news: the revision's own state tells it.
        done.add_done_callback(lambda future: future.exception())

        async def run() -> None:
            try:
                done.set_result(await work)
            except Exception as error:  # noqa: BLE001 - it is raised again below, to whoever asked
                done.set_exception(error)

        await asyncio.shield(self._engine.spawn("shift", run()))
        return done.result()

    async def _try(self, service: Service, drafted: Drafted, growing: tuple[str, ...]) -> TrafficResult:
        missing = self._starter.find_missing(service, growing)
        notes = [
            f"{service.name}/{version} would be started, and waited for until it is healthy" for version in missing
        ]
        result = await self._policies.try_draft(drafted)
        return self._tell(service, result, notes=notes, drafted=drafted.mesh)

    def _tell(
        self,
        before: Service,
        result: PolicyResult,
        *,
        notes: list[str],
        started: tuple[str, ...] = (),
        waited: float = 0.0,
        drafted: Mesh | None = None,
    ) -> TrafficResult:
        after = self._find(before.name) if drafted is None else drafted.services[before.name]
        gets = targets_of(after)
        return TrafficResult(
            service=before.name,
            stable=after.stable,
            before=shape_traffic(before),
            after=shape_traffic(after),
            started=list(started),
            waited_ms=waited,
            idle=[name for name in after.versions if name not in gets and self._starter.is_running(after.name, name)],
            notes=notes,
            revision=result.revision,
            changes=result.changes,
            acked=result.acked,
            total=result.total,
            duration_ms=result.duration_ms,
        )

    def _notes(self, service: Service, changed: bool) -> list[str]:  # noqa: FBT001 - one fact
        notes = []
        own = find_own_routes(service)
        if own and changed:
            names = ", ".join(own)
            route, take = ("route", "takes") if len(own) == 1 else ("routes", "take")
            notes.append(
                f"requests that the {route} {names} {take} go where {'it says' if len(own) == 1 else 'they say'}"
            )
        if service.protocol == "tcp" and changed:
            # What a connection goes by is part of its listener, which Envoy drains when that changes.
            notes.append("open connections are closed after 5 s; their clients connect anew, by the new weights")
        made = find_route(service)
        passed = [rule.name for rule in service.routes if rule is not made]
        if made is not None and passed and changed:
            notes.append(f"requests with {made.match.headers[0].name} pass over the other routes ({', '.join(passed)})")
        return notes

    def _find(self, name: str) -> Service:
        mesh, declared = self._engine.mesh, self._engine.parts.topology.declared
        if mesh is None or declared is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        self._engine.refuse_while_stopping()
        if name in mesh.services:
            return mesh.services[name]
        if name in declared.services:
            raise ConflictError(f"{name} is no part of what was started", hint=f"start it first: meshctl up {name}")
        raise NotFoundError(f"no service {name}", hint=f"services: {', '.join(sorted(mesh.services))}")

    def _check_protocol(self, service: Service, what: str) -> None:
        if service.protocol == "tcp" and what:
            raise ConflictError(
                f"{service.name} speaks plain TCP: {what} is for requests",
                hint="its connections can be split by weight",
            )

    def _refuse_rollout(self, service: Service, *, force: bool) -> None:
        words = self.find_rollout(service.name)
        if words and not force:
            end = f"`meshctl canary rollback {service.name}`"
            raise ConflictError(words, hint=f"wait for its end, or end it with {end}; --force shifts, and it pauses")


def shape_traffic(service: Service) -> Traffic:
    """Where the requests to a service go, as JSON shows it."""
    route, sticky, mirror = find_route(service), service.sticky, service.mirror
    header = None
    if route is not None:
        match = route.match.headers[0]
        header = HeaderTraffic(
            header=match.name, value=match.value if match.kind == "exact" else None, weights=dict(route.split)
        )
    words = ""
    if sticky is not None:
        words = f"cookie:{sticky.cookie}" if sticky.cookie else f"header:{sticky.header}"
    return Traffic(
        weights={name: service.split.get(name, 0) for name in service.versions or service.split},
        header=header,
        sticky=words,
        mirror=MirrorTraffic(version=mirror.version, percent=mirror.percent) if mirror is not None else None,
    )
