"""The verbs about policies: what is in force, changing it, what changed it.  I/O; fits api.backend.PolicyBackend."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from meshctl.control.engine import Engine
from meshctl.control.explain import explain_request
from meshctl.control.policy_changer import Changed, Drafted, Edit, PolicyChanger
from meshctl.control.revisions import Stamp
from meshctl.errors import ConflictError, NotFoundError, RejectedError, UsageError
from meshctl.plan.model import ProxyPlan
from meshctl.ports import Revision, SourceFile, TopologySource
from meshctl.spec.load import load_tree, read_policies_of, read_tree
from meshctl.spec.policies import EVERY, KINDS, MESH, Document, Documents, Origin, PolicyKey, order_documents, written
from meshctl.spec.policy_changes import PolicyChange, Side, find_changes
from meshctl.spec.render import to_value, to_words, to_yaml
from meshctl.spec.report import Report
from meshctl.wire.explain import ExplainRequest, Explanation
from meshctl.wire.models import FaultShape, SourceFileShape
from meshctl.wire.policies import (
    ApplyRequest,
    DeleteRequest,
    DiffRequest,
    PolicyChangeShape,
    PolicyDiff,
    PolicyList,
    PolicyOrigin,
    PolicyResult,
    PolicyShape,
    RevisionList,
    RevisionShape,
    RollbackRequest,
)

EnvoyCheck = Callable[[Mapping[str, ProxyPlan]], Awaitable[Mapping[str, str]]]
"""Has Envoy look at the configuration of some proxies; the words about those that it would refuse, by node."""


async def accept_all(_proxies: Mapping[str, ProxyPlan]) -> Mapping[str, str]:
    """An EnvoyCheck where there is no Envoy to ask."""
    return {}


class Policies:
    """The policies of a running mesh. ``changer`` is what other commands change them through."""

    def __init__(self, engine: Engine, check_envoy: EnvoyCheck) -> None:
        self._engine = engine
        self._check_envoy = check_envoy
        self.changer = PolicyChanger(engine)
        self.find_rollout: Callable[[str], str] = lambda _service: ""
        self.list_disturbances: Callable[[], Sequence[FaultShape]] = tuple
        """Says of a service which rollout is under way, in words; empty when none is. Whoever runs rollouts sets it."""

    def list(self, owner: str = "", kind: str = "") -> PolicyList:
        """The policies that are written, of one owner and of one kind when these are not empty."""
        if owner:
            self.changer.check_names(owner, kind)
        elif kind and kind not in KINDS:
            raise NotFoundError(f"there is no policy {kind}", hint=f"policies: {', '.join(KINDS)}")
        found = [
            document
            for document in written(self._documents)
            if (not owner or document.owner == owner) and (not kind or document.kind == kind)
        ]
        return PolicyList(
            revision=self._engine.parts.topology.revisions.number,
            policies=[_shape_document(document) for document in found],
            yaml=to_yaml(found),
        )

    async def apply(self, request: ApplyRequest) -> PolicyResult:
        """Set the policies that files name; what they do not name stays as it is."""
        edit = self._edit_by_files(_read_source(request.files, request.variables))
        stamp = Stamp(author=request.author, reason=request.reason)
        if request.dry_run:
            return await self.try_draft(self.changer.draft(edit, stamp, base=request.base))
        return self.tell(await self.changer.change(edit, stamp, base=request.base))

    async def delete(self, request: DeleteRequest) -> PolicyResult:
        """Take one policy away."""
        stamp = Stamp(author=request.author, reason=request.reason)
        return self.tell(await self.changer.delete(request.owner, request.kind, stamp, base=request.base))

    async def roll_back(self, request: RollbackRequest) -> PolicyResult:
        """Return to the policies of an earlier revision."""
        stamp = Stamp(author=request.author, reason=request.reason)
        return self.tell(await self.changer.roll_back(request.revision, stamp, base=request.base))

    def diff(self, request: DiffRequest) -> PolicyDiff:
        """What differs between two revisions, or between what is in force and what files say."""
        if request.files:
            return PolicyDiff(changes=[_shape_change(change) for change in self._compare_files(request)])
        revisions = self._engine.parts.topology.revisions
        before, after = (
            self._documents if number is None else revisions.read(number) for number in (request.before, request.after)
        )
        return PolicyDiff(changes=[_shape_change(change) for change in find_changes(before, after)])

    def history(self, owner: str = "", limit: int | None = None) -> RevisionList:
        """The newest revisions that are kept, newest first; those that concern one owner when it is not empty."""
        heads = reversed(self._engine.parts.topology.revisions.heads)
        mesh = self._engine.parts.topology.declared
        concerned = [head for head in heads if not owner or owner in head.owners]
        if owner and not concerned and (mesh is None or owner not in (*mesh.services, EVERY, MESH)):
            known = ", ".join(sorted(mesh.services)) if mesh is not None else "none"
            raise NotFoundError(f"no service {owner}", hint=f"services: {known}; or {EVERY}")
        shown = [_shape_revision(head) for head in concerned[:limit]]
        return RevisionList(revisions=shown, total=len(concerned))

    def explain(self, request: ExplainRequest) -> Explanation:
        """What will happen to a request, and which policies say so."""
        rollout = self.find_rollout(request.service)
        return explain_request(self._engine, request, rollout=rollout, faults=self.list_disturbances())

    # ------------------------------------------------------------------------------------------ helpers

    @property
    def _documents(self) -> Documents:
        documents = self._engine.parts.topology.revisions.documents
        if documents is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        return documents

    def _edit_by_files(self, source: TopologySource) -> Edit:
        def edit(current: Documents, _files: Documents, origin: Origin) -> Mapping[PolicyKey, Document]:
            report = Report(file.path for file in source.files)
            mesh = self._engine.parts.topology.declared
            named = read_policies_of(source, mesh.services if mesh is not None else (), report)
            changed = {**current}
            for key, document in named.items():
                changed[key] = Document(
                    owner=document.owner, kind=document.kind, where=document.where, node=document.node, origin=origin
                )
            if report.problems:
                # Raised with those that the whole mesh would have besides.
                self._engine.parts.topology.load_policies(order_documents(changed.values()), found=report.problems)
            if not named:
                names = ", ".join(file.path for file in source.files)
                hint = "for example: services: {NAME: {timeout: 1s}}; what else a topology file has, `meshctl up` takes"
                raise UsageError(f"{names} names no policy", hint=hint)
            return changed

        return edit

    def _compare_files(self, request: DiffRequest) -> tuple[PolicyChange, ...]:
        source = _read_source(request.files, request.variables)
        if request.whole:
            tree = read_tree(source)
            load_tree(tree)
            return find_changes(self._documents, tree.policies)
        return self.changer.draft(self._edit_by_files(source), Stamp(author="")).changes

    async def try_draft(self, drafted: Drafted) -> PolicyResult:
        """Have Envoy look at what a change would send to sidecars. Raises RejectedError with its words."""
        engine, clock = self._engine, self._engine.parts.clock
        start = clock.monotonic()
        running = engine.mesh
        changed: dict[str, ProxyPlan] = {}
        if running is not None and drafted.changes:
            now, then = engine.plan(running), engine.plan(engine.parts.topology.mesh_of(drafted.mesh))
            changed = {node: proxy for node, proxy in then.proxies.items() if now.proxies.get(node) != proxy}
        refused = await self._check_envoy(changed)
        if refused:
            node, words = min(refused.items())
            raise RejectedError(
                f"the sidecar of {node} would refuse this: {words.strip()}",
                hint="nothing was changed",
                detail="\n".join(f"{name}: {said.strip()}" for name, said in sorted(refused.items())[1:]),
            )
        return PolicyResult(
            message="nothing was changed",
            revision=engine.parts.topology.revisions.number,
            changes=[_shape_change(change) for change in drafted.changes],
            acked=len(changed),
            total=len(changed),
            duration_ms=engine.milliseconds_since(start),
        )

    def tell(self, changed: Changed) -> PolicyResult:
        """A change that is in effect, as JSON shows it."""
        return PolicyResult(
            message=f"revision {changed.revision}" if changed.changes else "nothing changed",
            revision=changed.revision,
            changes=[_shape_change(change) for change in changed.changes],
            acked=changed.sidecars,
            total=changed.sidecars,
            duration_ms=changed.duration_ms,
        )


def _read_source(files: Sequence[SourceFileShape], variables: Mapping[str, str]) -> TopologySource:
    if not files:
        raise UsageError("there is no file to read policies from")
    read = tuple(SourceFile(path=file.path, directory=file.directory, text=file.text) for file in files)
    return TopologySource(files=read, variables=dict(variables))


def shape_origin(side: Side | Document) -> PolicyOrigin:
    """An origin as JSON shows it."""
    where = side.node.where if isinstance(side, Document) and side.node is not None else side.where
    return PolicyOrigin(
        file=where.file,
        line=where.line,
        column=where.column,
        # What is only looked at has no author, and no revision either.
        revision=side.origin.revision if side.origin.author else 0,
        author=side.origin.author,
    )


def _shape_document(document: Document) -> PolicyShape:
    assert document.node is not None
    return PolicyShape(
        owner=document.owner,
        kind=document.kind,
        value=to_value(document.node),
        words=to_words(document.node),
        origin=shape_origin(document),
    )


def _shape_change(change: PolicyChange) -> PolicyChangeShape:
    return PolicyChangeShape(
        owner=change.owner,
        kind=change.kind,
        path=change.path,
        before=change.before.words if change.before else None,
        after=change.after.words if change.after else None,
        before_origin=shape_origin(change.before) if change.before else None,
        after_origin=shape_origin(change.after) if change.after else None,
    )


def _shape_revision(head: Revision) -> RevisionShape:
    return RevisionShape(
        number=head.number,
        time=head.time,
        author=head.author,
        reason=head.reason,
        state=head.state,
        changes=list(head.changes),
        owners=list(head.owners),
        note=head.note,
    )
