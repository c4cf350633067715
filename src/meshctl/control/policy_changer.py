"""Changes policies: one function through which every command that changes a policy goes.  I/O.

The way of a change: is it made from the revision in force? -> commit as pending -> publish -> every sidecar concerned
acknowledges -> applied. If one refuses, the policies before are restored as a revision of their own. Whatever moment
the control plane is killed at, ``resume`` brings the newest revision to its end in the same way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from meshctl.control.engine import Engine
from meshctl.control.revisions import Draft, Stamp
from meshctl.errors import ConflictError, MeshctlError, NotFoundError, RejectedError, WaitTimeoutError, Where
from meshctl.ports import Revision
from meshctl.spec.merge import merge as lay_over
from meshctl.spec.policies import EVERY, MESH, Document, Documents, Origin, PolicyKey, kinds_of, order_documents
from meshctl.spec.policy_changes import PolicyChange, find_changes, return_to, same_node
from meshctl.spec.render import Value, to_node
from meshctl.spec.schema import Mesh
from meshctl.spec.source import MapNode, make_map

_ACK_TIMEOUT = 10.0
_RESTORE_TIMEOUT = 5.0
_RESUME_TIMEOUT = 15.0
_RESUME_AGAIN = 1.0

Edit = Callable[[Documents, Documents, Origin], Mapping[PolicyKey, Document]]
"""Makes the policies that shall be: of those in force, those of the files, and the origin of what it sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changed:
    """A change that is in effect: the revision, and how many sidecars acknowledged it within how many ms."""

    revision: int
    changes: tuple[PolicyChange, ...]
    sidecars: int
    duration_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """A change that is not made yet: its revision, the mesh that would be, and what would change."""

    draft: Draft
    mesh: Mesh
    changes: tuple[PolicyChange, ...]


class PolicyChanger:
    """Changes the policies of a running mesh, one change at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.lock = asyncio.Lock()
        # Held from the commit of a revision until it is known what has become of it.
        self._resumed: asyncio.Task[None] | None = None

    async def set_policy(
        self, owner: str, kind: str, value: Value, *, author: str, reason: str = "", merge: bool = False
    ) -> Changed:
        """Set one policy to a value as JSON has it; what every other command that changes policy calls.

        Args:
            owner: a service, or ``defaults``.
            kind: the key of the policy, such as ``circuit_breaker``.
            value: what would stand under the key in a topology file.
            author: ``user@command``.
            reason: why, for the history.
            merge: lay the value over what is written there now, key by key, instead of replacing it.

        Raises:
            NotFoundError: there is no such service or kind.
            InvalidTopology: the value does not fit.
            RejectedError: a sidecar refused it; what was in force before is in force again.
            WaitTimeoutError: not every sidecar acknowledged in time; it is in force all the same.
        """
        where = Where(f"({author})", 0, 0)

        def edit(current: Documents, _files: Documents, origin: Origin) -> Mapping[PolicyKey, Document]:
            self.check_names(owner, kind)
            node = to_node(value, where)
            before = current.get((owner, kind))
            if merge and before is not None and isinstance(before.node, MapNode) and isinstance(node, MapNode):
                node = lay_over(before.node, node)
            document = Document(owner=owner, kind=kind, where=where, node=node, origin=origin)
            return {**current, document.key: document}

        return await self.change(edit, Stamp(author=author, reason=reason))

    async def release(self, owner: str, kind: str, key: str, value: str, stamp: Stamp) -> Changed:
        """Bring one key of a policy back to ``value``, which is built in. Raises as ``set_policy``.

        The key is taken away, so that nothing is left that differs from the files; where these or the defaults have it,
        it is set.
        """
        where = Where(f"({stamp.author})", 0, 0)

        def edit(current: Documents, files: Documents, origin: Origin) -> Mapping[PolicyKey, Document]:
            self.check_names(owner, kind)
            before, file = current.get((owner, kind)), files.get((owner, kind))
            written = before.node if before is not None else None
            others = [document.node for document in (file, current.get((EVERY, kind))) if document is not None]
            if any(isinstance(node, MapNode) and key in node.entries for node in others):
                node = to_node({key: value}, where)
                if isinstance(written, MapNode) and isinstance(node, MapNode):
                    node = lay_over(written, node)
                return {
                    **current,
                    (owner, kind): Document(owner=owner, kind=kind, where=where, node=node, origin=origin),
                }
            if not isinstance(written, MapNode) or key not in written.entries:
                return current
            kept = make_map({name: entry for name, entry in written.entries.items() if name != key}, written.where)
            left = {found: document for found, document in current.items() if found != (owner, kind)}
            if file is None and not kept.entries:
                return left
            if file is not None and same_node(file.node, kept):
                return {**left, file.key: file}
            made = Document(owner=owner, kind=kind, where=where, node=kept, origin=origin)
            return {**left, made.key: made}

        return await self.change(edit, stamp)

    async def delete(self, owner: str, kind: str, stamp: Stamp, *, base: int | None = None) -> Changed:
        """Take a policy away. Raises as ``set_policy``; NotFoundError when it is not written anywhere."""

        def edit(current: Documents, files: Documents, origin: Origin) -> Mapping[PolicyKey, Document]:
            self.check_names(owner, kind)
            found = current.get((owner, kind))
            if found is None or found.node is None:
                kinds = [d.kind for d in current.values() if d.owner == owner and d.node is not None]
                hint = f"policies of {owner}: {', '.join(kinds) or 'none; what holds is built in or from defaults'}"
                raise NotFoundError(f"{owner} has no {kind} of its own", hint=hint)
            left = {key: document for key, document in current.items() if key != found.key}
            below = files.get(found.key)
            return left if below is None else {**left, below.key: replace(below, node=None, origin=origin)}

        return await self.change(edit, stamp, base=base)

    async def roll_back(self, number: int, stamp: Stamp, *, base: int | None = None) -> Changed:
        """Return to the policies of an earlier revision, as a revision of its own. Raises as ``set_policy``."""
        revisions = self._engine.parts.topology.revisions
        if not stamp.reason:
            stamp = replace(stamp, reason=f"back to revision {number}")

        def edit(_current: Documents, files: Documents, origin: Origin) -> Mapping[PolicyKey, Document]:
            return return_to(revisions.read(number), files, origin)

        return await self.change(edit, stamp, base=base)

    async def change(self, edit: Edit, stamp: Stamp, *, base: int | None = None) -> Changed:
        """Bring changed policies into effect; returns when every sidecar concerned has acknowledged.

        Raises:
            ConflictError: another revision has come since ``base``, or the mesh is not up; nothing was changed.
            InvalidTopology: the policies have problems; nothing was changed.
            MeshctlError: they cannot be stored; nothing was changed.
            RejectedError: a sidecar refused; what was in force before is in force again.
            WaitTimeoutError: not every sidecar acknowledged in time; the revision is in force all the same.
        """
        engine = self._engine
        clock = engine.parts.clock
        async with self.lock:
            async with engine.changing:
                drafted = self.draft(edit, stamp, base=base)
                start = clock.monotonic()
                if not drafted.changes:
                    return Changed(revision=drafted.draft.revision.number - 1, changes=(), sidecars=0, duration_ms=0.0)
                before = self._documents
                if not engine.is_settled:
                    # What waits to be published goes first, so that what is awaited below is this change alone.
                    engine.publish()
                engine.parts.topology.set_policies(drafted.draft, drafted.mesh)
                revision = drafted.draft.revision
                self._stop_resuming()
                message = f"revision {revision.number} by {revision.author}: {'; '.join(revision.changes)}"
                engine.parts.events.add("policy.changed", ",".join(revision.owners), message)
                had = engine.running_versions()
                try:
                    versions = await self._publish()
                except Exception as error:
                    # A plan that cannot be made is published nowhere.
                    await self._restore(revision, before, repr(error))
                    raise
            try:
                await engine.parts.publisher.wait(versions, _ACK_TIMEOUT, require_connected=True)
                if not engine.transports.is_settled:
                    # The steps to another mode of mTLS concern callers as well.
                    await engine.transports.wait(_ACK_TIMEOUT)
                    now = engine.running_versions()
                    versions = {node: version for node, version in now.items() if had.get(node) != version}
                    await engine.parts.publisher.wait(versions, _ACK_TIMEOUT, require_connected=True)
            except RejectedError as error:
                async with engine.changing:
                    raise await self._refuse(error, revision, before) from None
            except WaitTimeoutError as error:
                self.resume()
                raise _late(error, revision) from None
            duration = engine.milliseconds_since(start)
            self._settle(revision)
            return Changed(
                revision=revision.number, changes=drafted.changes, sidecars=len(versions), duration_ms=duration
            )

    def draft(self, edit: Edit, stamp: Stamp, *, base: int | None = None) -> Drafted:
        """What a change would come to; nothing is changed. Raises as ``change`` does before it commits."""
        engine = self._engine
        if engine.stopping:
            raise ConflictError("the mesh is being stopped", hint="wait until it has ended, then run: meshctl up")
        topology, revisions, documents = engine.parts.topology, engine.parts.topology.revisions, self._documents
        if base is not None and base != revisions.number:
            raise self._lost(base)
        stamp = replace(stamp, time=engine.parts.clock.now())
        edited = edit(documents, topology.files, revisions.origin_of_next(stamp))
        wanted = order_documents(_settle_on(documents, topology.files, edited).values())
        changes = find_changes(documents, wanted)
        mesh = topology.load_policies(wanted)
        draft = revisions.draft(wanted, stamp, state="pending")
        return Drafted(draft=draft, mesh=mesh, changes=changes)

    def resume(self) -> None:
        """Bring the newest revision to its end in the background, if not every sidecar has acknowledged it yet."""
        newest = self._engine.parts.topology.revisions.newest
        if newest is not None and newest.state == "pending" and self._engine.mesh is not None:
            self._stop_resuming()
            self._resumed = self._engine.spawn("policies", self._resume(newest))

    def check_names(self, owner: str, kind: str = "") -> None:
        """Refuse an owner, or a kind of policy, that does not exist. Raises NotFoundError naming those that do."""
        mesh = self._engine.parts.topology.declared
        services = sorted(mesh.services) if mesh is not None else []
        if owner not in services and owner not in (EVERY, MESH):
            raise NotFoundError(f"no service {owner}", hint=f"services: {', '.join(services)}; or {EVERY}")
        if kind and kind not in kinds_of(owner):
            raise NotFoundError(f"{owner} has no policy {kind}", hint=f"policies: {', '.join(sorted(kinds_of(owner)))}")

    # ------------------------------------------------------------------------------------------ the steps

    @property
    def _documents(self) -> Documents:
        documents = self._engine.parts.topology.revisions.documents
        if documents is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        return documents

    def _lost(self, base: int) -> ConflictError:
        newest = self._engine.parts.topology.revisions.newest
        hint = "look at it with `meshctl history` and `meshctl diff`, then try again"
        if newest is None:
            return ConflictError(f"there is no revision {base}: no policy was ever changed", hint=hint)
        made = datetime.fromtimestamp(newest.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        reason = f" ({newest.reason})" if newest.reason else ""
        return ConflictError(
            f"the policies have changed since revision {base}: "
            f"revision {newest.number} by {newest.author} came first, at {made}{reason}",
            hint=hint,
        )

    async def _publish(self) -> Mapping[str, str]:
        """Bring the policies in memory into effect; the versions that sidecars have to acknowledge."""
        await self._engine.apply()
        return self._engine.publish_changed()

    async def _restore(self, refused: Revision, before: Documents, words: str) -> int:
        """Return to the policies before a revision that a sidecar refused; the number of the revision that does."""
        engine = self._engine
        revisions = engine.parts.topology.revisions
        stamp = Stamp(
            author=refused.author,
            reason=f"restored, because revision {refused.number} was refused: {words}",
            time=engine.parts.clock.now(),
        )
        gone = replace(revisions.find(refused.number), state="refused", note=words)
        draft = revisions.draft(before, stamp, state="pending", settled=(gone,))
        engine.parts.topology.set_policies(draft, engine.parts.topology.load_policies(before))
        message = f"revision {refused.number} was refused and undone by revision {draft.revision.number}: {words}"
        engine.parts.events.add("policy.refused", ",".join(refused.owners), message, "error")
        versions = await self._publish()
        try:
            await engine.parts.publisher.wait(versions, _RESTORE_TIMEOUT, require_connected=True)
        except MeshctlError as error:
            engine.parts.events.add("policy.restore", "mesh", f"revision {draft.revision.number}: {error}", "warning")
            self.resume()
        else:
            self._settle(draft.revision)
        return draft.revision.number

    def _settle(self, revision: Revision) -> None:
        try:
            self._engine.parts.topology.revisions.settle(revision.number, "applied")
        except MeshctlError as error:
            # It is in effect; that this is not written down yet is made up for by `resume`, now or after a restart.
            self._engine.parts.events.add("policy.state", "mesh", f"revision {revision.number}: {error}", "warning")
            self.resume()

    async def _refuse(self, error: RejectedError, revision: Revision, before: Documents) -> RejectedError:
        try:
            restored = await self._restore(revision, before, error.message)
        except MeshctlError as failure:
            self.resume()
            hint = f"revision {revision.number} could not be undone yet ({failure.message}): that is tried again"
        else:
            hint = f"revision {revision.number} was undone: the policies are those before it, as revision {restored}"
        return RejectedError(error.message, hint=hint, detail=error.detail)

    # ------------------------------------------------------------------------------------------ after a crash

    def _stop_resuming(self) -> None:
        if self._resumed is not None and self._resumed is not asyncio.current_task():
            self._resumed.cancel()
        self._resumed = None

    async def _resume(self, revision: Revision) -> None:
        """Wait for the sidecars that run until all have acknowledged a revision, or one refuses it."""
        engine = self._engine
        while not engine.stopping:
            versions = engine.running_versions()
            try:
                await engine.parts.publisher.wait(versions, _RESUME_TIMEOUT, require_connected=True)
                if versions:
                    engine.parts.topology.revisions.settle(revision.number, "applied")
                    return
            except RejectedError as error:
                if self._blames_policies(versions):
                    with contextlib.suppress(MeshctlError):
                        await self._undo(revision, error)
                        return
            except MeshctlError:
                # Who is missing may come, and a store that cannot be written to may be mended.
                pass
            await asyncio.sleep(_RESUME_AGAIN)

    def _blames_policies(self, nodes: Iterable[str]) -> bool:
        """Whether something else than listeners is refused: those depend on ports, which others may hold."""
        sync = self._engine.parts.sync
        return any(item.error and item.type != "listeners" for node in nodes for item in sync(node).types)

    async def _undo(self, revision: Revision, error: RejectedError) -> None:
        revisions = self._engine.parts.topology.revisions
        async with self.lock, self._engine.changing:
            if revisions.newest is None or revisions.newest.number != revision.number:
                return
            earlier = [r.number for r in revisions.heads if r.number < revision.number and r.state != "refused"]
            if not earlier:
                return
            self._resumed = None
            await self._restore(revision, revisions.read(earlier[-1]), error.message)


def _settle_on(current: Documents, files: Documents, edited: Mapping[PolicyKey, Document]) -> dict[PolicyKey, Document]:
    """What was edited, where what did not really change keeps its origin and what the files say is the files'."""
    settled: dict[PolicyKey, Document] = {}
    for key, document in edited.items():
        before, below = current.get(key), files.get(key)
        if document.node is None and below is None:
            continue
        if document.node is not None and below is not None and same_node(document.node, below.node):
            settled[key] = below
        elif before is not None and same_node(document.node, before.node):
            settled[key] = before
        else:
            settled[key] = document
    return settled


def _late(error: WaitTimeoutError, revision: Revision) -> WaitTimeoutError:
    return WaitTimeoutError(
        error.message,
        hint=f"revision {revision.number} is in force all the same: who is missing gets it when it connects; "
        f"`meshctl rollback {revision.number - 1}` takes it back",
        detail=error.detail,
    )
