"""Topology files -> Mesh, or every problem in them at once.  Pure: texts and variables are passed in.

The way: parse each file (``source``), fill in variables (``interpolate``), write out short notations (``shorthand``),
lay later files over earlier ones (``merge``), read values (``readers``), check what must hold between them
(``validate``).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from meshctl.errors import InvalidTopology, Problem, Where
from meshctl.ports import SourceFile, TopologySource
from meshctl.spec.interpolate import find_variables, interpolate_map
from meshctl.spec.keys import DEFAULTS, TOPOLOGY
from meshctl.spec.merge import merge
from meshctl.spec.policies import Document, Documents, PolicyKey, embed, extract, read_policy_file
from meshctl.spec.reader import Fields
from meshctl.spec.readers.faults import read_faults
from meshctl.spec.readers.policies import read_policies
from meshctl.spec.readers.processes import Folders
from meshctl.spec.readers.services import ELSEWHERE, read_gateway, read_service
from meshctl.spec.readers.telemetry import read_telemetry
from meshctl.spec.report import Report
from meshctl.spec.schema import Mesh
from meshctl.spec.service_mesh import check_block, lay_policies
from meshctl.spec.shorthand import expand_shorthand
from meshctl.spec.source import MapNode, make_map, parse
from meshctl.spec.validate import validate

__all__ = ["TopologyTree", "find_variables", "load", "load_tree", "read_policies_of", "read_tree"]

_MAX_NAME = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class TopologyTree:
    """Topology files as one tree, read once: ``problems`` are those found so far."""

    source: TopologySource
    root: MapNode
    problems: tuple[Problem, ...]

    @property
    def policies(self) -> dict[PolicyKey, Document]:
        """The policies that the files have."""
        return extract(self.root)


def load(source: TopologySource, documents: Documents | None = None) -> Mesh:
    """Make a Mesh of topology files; later files are laid over earlier ones.

    Args:
        source: the files.
        documents: the policies to use in place of those in the files; None for those in the files.

    Raises:
        InvalidTopology: with all problems, in the order of files and lines; each names the file as the user gave it,
            the line and the column (from 1).
    """
    return load_tree(read_tree(source), documents)


def read_tree(source: TopologySource) -> TopologyTree:
    """Read topology files. Raises InvalidTopology when one of them is no YAML at all."""
    report = _start_report(source)
    root = _read_root(source, report)
    return TopologyTree(source=source, root=root, problems=report.problems)


def load_tree(tree: TopologyTree, documents: Documents | None = None, *, found: tuple[Problem, ...] = ()) -> Mesh:
    """Like ``load``, for files that have been read; ``found`` are problems to be told with those found here."""
    report = _start_report(tree.source)
    for problem in (*tree.problems, *found):
        report.add(problem.code, problem.message, problem.where, problem.hint)
    root = tree.root if documents is None else embed(tree.root, documents, report)
    mesh = _read_mesh(root, tree.source.files, report)
    validate(mesh, root, report)
    if report.problems:
        raise InvalidTopology(report.problems)
    return mesh


def read_policies_of(source: TopologySource, services: Iterable[str], report: Report) -> dict[PolicyKey, Document]:
    """The policies that files name, which need not be whole topologies.

    Keys that are not known, and services that are not among ``services``, are reported.

    Raises:
        InvalidTopology: a file cannot be read at all.
    """
    return read_policy_file(_read_root(source, report), services, report)


def name_from_folder(directory: str) -> str:
    """A mesh name from a folder's path: ``/home/me/My Shop`` -> ``my-shop``; ``mesh`` when nothing is left."""
    base = posixpath.basename(directory.rstrip("/")).lower()
    name = re.sub(r"[^a-z0-9]+", "-", base).lstrip("-0123456789")[:_MAX_NAME].strip("-")
    return name or "mesh"


def _start_report(source: TopologySource) -> Report:
    return Report(file.path for file in source.files)


def _read_root(source: TopologySource, report: Report) -> MapNode:
    trees = [_read_tree(file, source.variables, report) for file in source.files]
    if not trees:
        report.add("no-services", "there is no topology file", None, "write a mesh.yaml with `services:`")
    whole = [tree for tree in trees if tree is not None]
    if not whole or len(whole) < len(trees):
        # What a broken file would have given is not known, so the others cannot be judged without it.
        raise InvalidTopology(report.problems)
    root = whole[0]
    for tree in whole[1:]:
        root = merge(root, tree)
    return root


def _read_tree(file: SourceFile, variables: Mapping[str, str], report: Report) -> MapNode | None:
    tree = parse(file, report)
    if tree is None:
        return None
    kept = {key: entry for key, entry in tree.entries.items() if not key.startswith("x-")}
    filled = interpolate_map(make_map(kept, tree.where), variables, report)
    return expand_shorthand(filled, report)


def _read_mesh(root: MapNode, files: Iterable[SourceFile], report: Report) -> Mesh:
    by_file = {file.path: file.directory for file in files}
    directory = next(iter(by_file.values()))
    folders = Folders(mesh=directory, by_file=by_file)
    fields = Fields(TOPOLOGY, root, report, where=root.where, elsewhere=ELSEWHERE)
    Fields(DEFAULTS, fields.node("defaults"), report, where=fields.place("defaults"), elsewhere=ELSEWHERE)
    for owner in (root, fields.node("defaults")):
        if isinstance(owner, MapNode):
            check_block(owner, report)
    defaults = read_policies(lay_policies(root, None, report), report)
    entries = fields.named("services")
    if fields.has("services") and not entries:
        _report_none(fields.key_place("services"), report)
    name = fields.text("name", name_from_folder(directory))
    return Mesh(
        name=name,
        directory=directory,
        trust_domain=fields.text("trust_domain", f"{name}.mesh"),
        egress=fields.choice("egress", "allow_any"),
        gateway=read_gateway(fields.node("gateway"), fields.key_place("gateway"), report),
        services={
            key: read_service(
                key, entry.node, entry.where, root=root, defaults=defaults, folders=folders, report=report
            )
            for key, entry in entries.items()
        },
        defaults=defaults,
        telemetry=read_telemetry(fields.node("telemetry"), fields.key_place("telemetry"), report),
        faults=read_faults(fields.named("faults"), report),
    )


def _report_none(where: Where, report: Report) -> None:
    report.add("no-services", "`services` names no service", where, "add one: a name, and under it a `command`")
