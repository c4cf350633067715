"""The desired state: topology, policies, selection, replica counts, registrations, ports, in the store.  I/O (store).

Invariant 6: every change is committed before anything acts on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from meshctl.control.revisions import Draft, Revisions, Stamp
from meshctl.errors import ConflictError, InvalidTopology, NotFoundError, PortTakenError, Problem
from meshctl.plan.addresses import LOOPBACK, assign_ports, fixed_ports, needed_keys
from meshctl.plan.effective import add_registered, open_services, select_services
from meshctl.ports import Registration, StateStore, TopologySource
from meshctl.spec.load import TopologyTree, load_tree, read_tree
from meshctl.spec.policies import EVERY, FILES, MESH, Document, Documents, PolicyKey, places_of
from meshctl.spec.policy_changes import describe_differences, take_files
from meshctl.spec.render import to_value
from meshctl.spec.schema import Mesh
from meshctl.spec.shifts import FULL, count_started

LAST_TCP_PORT = 65535


class Claims(Protocol):
    """Keeps meshes that run side by side from being given the same ports (adapters.port_claims)."""

    def choosing(self) -> AbstractContextManager[frozenset[int]]:
        """Keep other meshes from choosing meanwhile; yields the ports that they have."""
        ...

    def hold(self, ports: Iterable[int]) -> None:
        """Say which ports this mesh has from now on."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PortProbe:
    """How to learn of ports: why one cannot be listened on (empty when it can), whether it is free, and what other
    meshes have.
    """

    explain: Callable[[str, int], str]
    is_free: Callable[[str, int], bool]
    claims: Claims


_UP = Stamp(author="up")


class Topology:
    """What the mesh is meant to be. Everything that changes it writes the store first."""

    def __init__(self, store: StateStore, probe: PortProbe) -> None:
        self._store = store
        self._probe = probe
        self.source: TopologySource | None = None
        self.tree: TopologyTree | None = None
        # The files as they were read, so that a change of policy need not read them again.
        self.declared: Mesh | None = None
        self.revisions = Revisions(store)
        self.selection: tuple[str, ...] = store.selection()
        self.replicas: dict[str, int] = dict(store.scales())
        self.registrations: tuple[Registration, ...] = store.registrations()
        self.ports: dict[str, int] = dict(store.ports())

    @property
    def probe(self) -> PortProbe:
        """Tells of ports."""
        return self._probe

    def restore(self) -> bool:
        """Take up the topology of an earlier control plane; False when there is none.

        Raises InvalidTopology or NotFoundError, and takes nothing up, when this version cannot read it any more.
        """
        source = self._store.topology()
        if source is None:
            return False
        # What the files say is read from them again: the places in it are those of the files as they are.
        tree = read_tree(source)
        documents = take_files(self.revisions.restore() or {}, tree.policies)
        declared = load_tree(tree, documents)
        select_services(declared, self.selection)
        self.source, self.tree, self.declared = source, tree, declared
        self.revisions.documents = documents
        return True

    @property
    def mesh(self) -> Mesh | None:
        """The mesh that is meant to run: the part asked for, with what was registered; None before any ``up``."""
        return None if self.declared is None else self.mesh_of(self.declared)

    def mesh_of(self, declared: Mesh) -> Mesh:
        """The mesh that would run of a topology: the part asked for, with what was registered."""
        return add_registered(select_services(declared, self.selection), self.registrations)

    @property
    def open_services(self) -> tuple[str, ...]:
        """Registered names that the topology does not know."""
        return open_services(self.declared, self.registrations) if self.declared is not None else ()

    def replace(
        self,
        source: TopologySource,
        services: tuple[str, ...],
        *,
        in_use: frozenset[str],
        stamp: Stamp = _UP,
        reset: bool = False,
    ) -> tuple[str, ...]:
        """Take a new topology, or raise and change nothing; says which policies set by command differ from its own.

        ``services`` is the part to run, empty for all; ``in_use`` are the keys of ports that the running mesh holds.
        Policies that changed are a revision by ``stamp``; with ``reset`` what commands had set is given up.

        Raises:
            InvalidTopology: the files have problems.
            NotFoundError: a service asked for does not exist.
            PortTakenError: a port that the topology fixes is held by another process.
            ConflictError: it would change the trust domain of a running mesh.
        """
        tree = read_tree(source)
        declared, files = load_tree(tree), tree.policies
        current = self._current_policies()
        documents, dropped = ({**files}, ()) if reset else _keep_commands(current, files, declared)
        if documents != files:
            declared = _load(tree, documents)
        # Where something is written in a file may have changed without a change of policy: that is no revision.
        drafted = self.revisions.draft(documents, stamp, state="applied", before=current)
        draft = drafted if drafted.revision.changes else None
        before = self.declared
        if before is not None and before.trust_domain != declared.trust_domain:
            raise ConflictError(
                f"the trust domain of a running mesh cannot change ({before.trust_domain} to {declared.trust_domain})",
                hint="run: meshctl down, then meshctl up",
            )
        # What was asked for by an earlier command and has left the files is asked for no more.
        services = tuple(name for name in services if name in declared.services or name not in self.selection)
        mesh = add_registered(select_services(declared, services), self.registrations)
        replicas = {
            key: count for key, count in self.replicas.items() if _replicas(declared, key) == _replicas(before, key)
        }
        replicas = {**count_started(declared.services, documents), **replicas}
        ports = self._assign(mesh, replicas, self.registrations, in_use=in_use)
        self._store.commit(
            topology=source,
            ports=ports,
            scales=replicas,
            selection=services,
            revision=draft.revision if draft else None,
            content=draft.content if draft else "",
            settled=draft.settled if draft else (),
        )
        self.source, self.tree, self.declared, self.selection = source, tree, declared, services
        self.replicas, self.ports = replicas, ports
        if draft is not None:
            self.revisions.take(draft)
        self.revisions.documents = documents
        return (*dropped, *describe_differences(documents, files))

    def load_policies(self, documents: Documents, *, found: tuple[Problem, ...] = ()) -> Mesh:
        """The mesh as it would be with other policies.

        Raises:
            InvalidTopology: it has problems, or there were some in what was ``found`` before.
            ConflictError: there was no ``up`` yet.
        """
        if self.tree is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        return load_tree(self.tree, documents, found=found)

    def set_policies(self, draft: Draft, declared: Mesh) -> None:
        """Take other policies, which ``load_policies`` made a mesh of, or raise and change nothing."""
        self._store.commit(revision=draft.revision, content=draft.content, settled=draft.settled)
        self.declared = declared
        self.revisions.take(draft)

    @property
    def files(self) -> Documents:
        """The policies that the topology's files say, whatever commands have set since."""
        return {} if self.tree is None else self.tree.policies

    def _current_policies(self) -> Documents:
        if self.revisions.documents is not None:
            return self.revisions.documents
        # The first `up` of a control plane, after one that was stopped: what commands set holds on.
        stored, source = self.revisions.restore() or {}, self._store.topology()
        try:
            return stored if source is None else take_files(stored, read_tree(source).policies)
        except InvalidTopology:
            return stored

    def set_replicas(self, service: str, version: str, count: int, *, in_use: frozenset[str]) -> str:
        """Set how many instances of a version run; returns the version, which may be left empty for the only one."""
        mesh = self._running()
        found = mesh.services.get(service)
        if found is None or not found.versions:
            if self.declared is not None and service in self.declared.services and service not in mesh.services:
                raise ConflictError(
                    f"{service} is no part of what was started", hint=f"start it first: meshctl up {service}"
                )
            known = ", ".join(sorted(name for name, item in mesh.services.items() if item.versions))
            raise NotFoundError(f"no service {service} whose instances meshctl runs", hint=f"services: {known}")
        version = version or found.stable
        if version not in found.versions:
            raise NotFoundError(
                f"{service} has no version {version}", hint=f"its versions: {', '.join(found.versions)}"
            )
        if found.versions[version].job:
            raise ConflictError(f"{service} is a job: it runs once, in one instance")
        if not found.versions[version].command:
            raise ConflictError(
                f"{service}/{version} has no command: its instances are started by somebody else",
                hint=f"meshctl register {service} --version {version} --address HOST:PORT",
            )
        replicas = {**self.replicas, f"{service}/{version}": count}
        ports = self._assign(mesh, replicas, self.registrations, in_use=in_use)
        self._store.commit(ports=ports, scales=replicas)
        self.replicas, self.ports = replicas, ports
        return version

    def restore_replicas(self, counts: Mapping[str, int | None], *, in_use: frozenset[str]) -> None:
        """Return to earlier counts by ``service/version``; None is the count of the files."""
        replicas = {key: count for key, count in self.replicas.items() if key not in counts}
        replicas |= {key: count for key, count in counts.items() if count is not None}
        ports = self._assign(self._running(), replicas, self.registrations, in_use=in_use)
        self._store.commit(ports=ports, scales=replicas)
        self.replicas, self.ports = replicas, ports

    def set_registrations(self, registrations: tuple[Registration, ...], *, in_use: frozenset[str]) -> None:
        """Replace the registered instances; before any ``up`` none of them is given a port."""
        if self.declared is None:
            self._store.commit(registrations=registrations)
            self.registrations = registrations
            return
        mesh = add_registered(select_services(self.declared, self.selection), registrations)
        ports = self._assign(mesh, self.replicas, registrations, in_use=in_use)
        self._store.commit(ports=ports, registrations=registrations)
        self.registrations, self.ports = registrations, ports

    def renew_registrations(self, registrations: tuple[Registration, ...]) -> None:
        """Replace the registered instances by the same ones with other times of expiry; no port changes."""
        assert {item.id for item in registrations} == {item.id for item in self.registrations}
        self._store.commit(registrations=registrations)
        self.registrations = registrations

    def clear(self) -> None:
        """Forget what holds only while the mesh runs: replica counts, registrations, the part asked for."""
        self._store.commit(scales={}, registrations=(), selection=())
        self.replicas, self.registrations, self.selection = {}, (), ()

    def _running(self) -> Mesh:
        mesh = self.mesh
        if mesh is None:
            raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
        return mesh

    def _assign(
        self,
        mesh: Mesh,
        replicas: Mapping[str, int],
        registrations: tuple[Registration, ...],
        *,
        in_use: frozenset[str],
    ) -> dict[str, int]:
        fixed = fixed_ports(mesh, replicas)
        reserved: list[int] = []
        if mesh.gateway is not None:
            reserved.append(mesh.gateway.port)
        if mesh.telemetry.prometheus is not None:
            reserved.append(mesh.telemetry.prometheus.port)
        self._check_fixed(mesh, fixed, in_use)
        with self._probe.claims.choosing() as others:

            def is_free(port: int) -> bool:
                return port not in others and self._probe.is_free(LOOPBACK, port)

            remembered = {
                key: port for key, port in self.ports.items() if key in in_use or (key not in fixed and is_free(port))
            }
            try:
                ports = assign_ports(
                    needed_keys(mesh, replicas, [item.id for item in registrations]),
                    fixed=fixed,
                    remembered=remembered,
                    reserved=reserved,
                    seed=mesh.directory,
                    is_free=is_free,
                )
            except LookupError as error:
                raise ConflictError(str(error), hint="stop what uses them; `meshctl doctor` shows who does") from error
            self._probe.claims.hold(ports.values())
        return ports

    def _check_fixed(self, mesh: Mesh, fixed: Mapping[str, int], in_use: frozenset[str]) -> None:
        _check_distinct(mesh, fixed)
        ours = {self.ports[key] for key in in_use if key in self.ports}
        wanted = [(LOOPBACK, port, key) for key, port in fixed.items() if port not in ours]
        if mesh.gateway is not None and not self._gateway_unchanged(mesh, in_use):
            wanted.append((mesh.gateway.host, mesh.gateway.port, "the gateway"))
        prometheus = mesh.telemetry.prometheus
        before = self.declared.telemetry.prometheus if self.declared is not None else None
        if prometheus is not None and prometheus != before:
            wanted.append((LOOPBACK, prometheus.port, "the Prometheus endpoint"))
        for host, port, key in wanted:
            why = self._probe.explain(host, port)
            if why:
                what = key.removeprefix("app/")
                raise PortTakenError(
                    f"{what} cannot listen: {why}",
                    hint="stop that process, or give another port in the topology",
                )

    def _gateway_unchanged(self, mesh: Mesh, in_use: frozenset[str]) -> bool:
        before = self.declared.gateway if self.declared is not None else None
        return (
            "gateway" in in_use
            and before is not None
            and mesh.gateway is not None
            and (before.host, before.port) == (mesh.gateway.host, mesh.gateway.port)
        )


def _check_distinct(mesh: Mesh, fixed: Mapping[str, int]) -> None:
    """Refuse ports that cannot be, or that two would share: `scale` adds instances that no file was checked with."""
    users = {} if mesh.gateway is None else {mesh.gateway.port: "the gateway"}
    for key, port in fixed.items():
        name = key.removeprefix("app/")
        if port > LAST_TCP_PORT:
            raise ConflictError(f"{name} would listen on port {port}, which does not exist", hint="run fewer instances")
        if port in users:
            raise ConflictError(
                f"{name} and {users[port]} would both listen on port {port}",
                hint="run fewer instances, or give other ports in the topology",
            )
        users[port] = name


def _keep_commands(
    current: Documents, files: Documents, declared: Mesh
) -> tuple[dict[PolicyKey, Document], tuple[str, ...]]:
    """The files' policies with those of commands over them, and what commands had set for services that are gone."""
    gone = [
        document
        for document in current.values()
        if document.origin != FILES and document.owner not in (*declared.services, EVERY, MESH)
    ]
    kept = {
        key: document
        for key, document in current.items()
        if document not in gone and (key in files or not _is_built_in(document, declared))
    }
    lines = tuple(
        f"{document.owner} {document.kind}: given up (revision {document.origin.revision}, {document.origin.author}), "
        f"because the files have no service {document.owner}"
        for document in gone
    )
    return take_files(kept, files), lines


def _is_built_in(document: Document, declared: Mesh) -> bool:
    """Whether a split says what holds without one: all goes to the stable version, as the files call it now."""
    if document.kind != "split" or document.node is None or document.owner not in declared.services:
        return False
    return to_value(document.node) == {declared.services[document.owner].stable: FULL}


def _load(tree: TopologyTree, documents: Documents) -> Mesh:
    """The mesh of files and policies; problems of policies that commands set say so."""
    try:
        return load_tree(tree, documents)
    except InvalidTopology as error:
        raise InvalidTopology([_explain_problem(problem, documents) for problem in error.problems]) from None


def _explain_problem(problem: Problem, documents: Documents) -> Problem:
    for document in documents.values():
        if document.origin != FILES and problem.where in places_of(document):
            origin = document.origin
            made = f"set by revision {origin.revision} ({origin.author}); `meshctl up --reset` takes what the files say"
            if document.kind == "split":
                # Giving up everything that commands have set is much for a version that is to go.
                made += (
                    f"; or `meshctl canary rollback {document.owner}` or `canary shift` takes its traffic away first"
                )
            return replace(problem, hint=f"{problem.hint}; {made}" if problem.hint else made)
    return problem


def _replicas(mesh: Mesh | None, key: str) -> int | None:
    if mesh is None:
        return None
    service, _, version = key.partition("/")
    found = mesh.services.get(service)
    return found.versions[version].replicas if found is not None and version in found.versions else None
