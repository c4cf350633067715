"""The text of an experiment file -> an Experiment, or every problem with its place.  Pure.

YAML or JSON, which YAML contains. What Chaos Toolkit knows and meshctl does not run is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

from meshctl.errors import InvalidTopology, Where
from meshctl.experiments import keys
from meshctl.experiments.model import (
    Activity,
    Experiment,
    HttpProvider,
    Kind,
    MeshProvider,
    ProcessProvider,
    Provider,
    Strategy,
)
from meshctl.experiments.problems import CODES
from meshctl.experiments.read_tolerance import read_tolerance, text_of
from meshctl.experiments.variables import fill_in, read_variables
from meshctl.experiments.verbs import VERBS, find_verb, read_arguments
from meshctl.ports import SourceFile
from meshctl.spec.reader import Fields, read_scalar
from meshctl.spec.render import Value, to_value
from meshctl.spec.report import Report, quote
from meshctl.spec.shapes import Duration
from meshctl.spec.source import Entry, ListNode, MapNode, Node, ScalarNode, describe, is_null, make_map, parse

MODULES = {"meshctl.chaostoolkit.actions": "action", "meshctl.chaostoolkit.probes": "probe"}
"""Modules of functions for Chaos Toolkit, and the kind of their verbs."""

_BEGIN = "begin with `title:`; docs/guides/experiments.md shows how"
_PARTS = ("steady-state-hypothesis", "method", "rollbacks")


def load(file: SourceFile, environ: Mapping[str, str], given: Mapping[str, Value] | None = None) -> Experiment:
    """The experiment of a file.

    Args:
        file: its text.
        environ: where ``configuration`` takes what comes from the environment.
        given: values that hold before those of ``configuration``.

    Raises:
        InvalidTopology: every problem, each with its place.
    """
    report = Report([file.path], codes=CODES)
    root = parse(file, report, begin=_BEGIN)
    experiment = None if root is None else _Reader(root, environ, given or {}, report).read()
    if report.count or experiment is None:
        raise InvalidTopology(report.problems)
    return experiment


class _Reader:
    """Reads one file."""

    def __init__(self, root: MapNode, environ: Mapping[str, str], given: Mapping[str, Value], report: Report) -> None:
        self._report = report
        self._raw = root
        configuration = root.get("configuration")
        entries = configuration.entries if isinstance(configuration, MapNode) else {}
        self._values = read_variables(entries, environ, given, report)
        known = frozenset(entries) | frozenset(given)
        filled = {
            key: Entry(where=entry.where, node=fill_in(entry.node, self._values, known, report))
            if key in _PARTS
            else entry
            for key, entry in root.entries.items()
        }
        self._root = make_map(filled, root.where)
        self._named = {name: node for node in self._activities() if (name := text_of(node, "name"))}
        self._reading: list[str] = []

    def read(self) -> Experiment:
        fields = Fields(keys.EXPERIMENT, self._root, self._report, where=self._root.where)
        self._refuse(fields, "controls", "meshctl runs no controls", "run the file with `chaos run`")
        hint = "use `configuration` with `type: env`; the journal holds what stands there"
        self._refuse(fields, "secrets", "meshctl keeps no secrets out of the journal", hint)
        fields.named("configuration")
        runtime = Fields(keys.RUNTIME, fields.node("runtime"), self._report, where=fields.place("runtime"))
        looks = Fields(
            keys.RUNTIME_HYPOTHESIS, runtime.node("hypothesis"), self._report, where=runtime.place("hypothesis")
        )
        backs = Fields(
            keys.RUNTIME_ROLLBACKS, runtime.node("rollbacks"), self._report, where=runtime.place("rollbacks")
        )
        backs.choice("strategy", "always")
        strategy: Strategy = looks.choice("strategy", "default")
        title, probes = self._read_hypothesis(fields)
        return Experiment(
            title=fields.text("title", ""),
            description=fields.text("description", ""),
            tags=tuple(str(to_value(item)) for item in fields.items("tags")),
            configuration=self._values,
            hypothesis_title=title,
            hypothesis=probes,
            method=self._read_activities(fields, "method"),
            rollbacks=self._read_activities(fields, "rollbacks"),
            strategy=strategy,
            frequency=looks.duration("frequency", 1.0),
            raw=_to_mapping(self._raw),
        )

    def _activities(self) -> list[MapNode]:
        hypothesis = self._root.get("steady-state-hypothesis")
        probes = hypothesis.get("probes") if isinstance(hypothesis, MapNode) else None
        lists = [probes, self._root.get("method"), self._root.get("rollbacks")]
        return [n for part in lists if isinstance(part, ListNode) for n in part.items if isinstance(n, MapNode)]

    def _read_hypothesis(self, fields: Fields) -> tuple[str, tuple[Activity, ...]]:
        node = fields.node("steady-state-hypothesis")
        if node is None:
            return "", ()
        place = fields.place("steady-state-hypothesis")
        hypothesis = Fields(keys.HYPOTHESIS, node, self._report, where=place)
        self._refuse(hypothesis, "controls", "meshctl runs no controls", "run the file with `chaos run`")
        probes = self._read_activities(hypothesis, "probes")
        for probe in probes:
            if probe.kind == "action":
                hint = "move it to the `method`"
                self._report.add("bad-choice", "a hypothesis holds probes, no actions", probe.where, hint)
            elif probe.tolerance is None and "tolerance" not in probe.raw:
                hint = "add `tolerance`: what it may find"
                message = f"the probe {quote(probe.name)} of the hypothesis needs the key `tolerance`"
                self._report.add("missing-key", message, probe.where, hint)
        return hypothesis.text("title", ""), probes

    def _read_activities(self, fields: Fields, name: str) -> tuple[Activity, ...]:
        found = (self._read_activity(item) for item in fields.items(name))
        return tuple(activity for activity in found if activity is not None)

    def _read_activity(self, node: Node) -> Activity | None:
        if isinstance(node, MapNode) and "ref" in node.entries:
            return self._follow(node)
        fields = Fields(keys.ACTIVITY, node, self._report, where=node.where)
        if not isinstance(node, MapNode):
            return None
        for name in ("controls", "secrets"):
            self._refuse(fields, name, f"`{name}` of an activity are not supported", "run the file with `chaos run`")
        kind: Kind = fields.choice("type", "probe")
        pauses = Fields(keys.PAUSES, fields.node("pauses"), self._report, where=fields.place("pauses"))
        provider = self._read_provider(fields, kind)
        tolerance = read_tolerance(fields)
        if kind == "action" and fields.has("tolerance"):
            hint = "an action that fails ends the method; a probe after it can be held to a tolerance"
            self._report.add("unknown-key", "an action has no `tolerance`", fields.key_place("tolerance"), hint)
        return Activity(
            kind=kind,
            name=fields.text("name", ""),
            provider=provider or ProcessProvider(path=""),
            where=node.where,
            raw=_to_mapping(node),
            background=fields.boolean("background", False),
            pause_before=pauses.duration("before", 0.0),
            pause_after=pauses.duration("after", 0.0),
            tolerance=tolerance,
        )

    def _follow(self, node: MapNode) -> Activity | None:
        fields = Fields(keys.REFERENCE, node, self._report, where=node.where)
        name = fields.text("ref", "")
        target = self._named.get(name)
        if target is None or name in self._reading:
            message = f"no activity is called {quote(name)}{self._report.suggest(name, self._named)}"
            self._report.add("unknown-reference", message, fields.place("ref"))
            return None
        self._reading.append(name)
        activity = self._read_activity(target)
        self._reading.pop()
        return activity

    def _read_provider(self, fields: Fields, kind: Kind) -> Provider | None:
        node = fields.node("provider")
        return None if node is None else self._choose_provider(node, kind)

    def _choose_provider(self, node: Node, kind: Kind) -> Provider | None:
        known = ", ".join(f"`{name}`" for name in keys.PROVIDERS)
        if not isinstance(node, MapNode):
            message = f"`provider` must be a mapping, not {describe(node)}"
            self._report.add(
                "wrong-type", message, node.where, f"write `type: meshctl`, `verb: call`; types are {known}"
            )
            return None
        name = text_of(node, "type")
        table = keys.PROVIDERS.get(name)
        if table is None:
            place = entry.where if (entry := node.entries.get("type")) else node.where
            message = f"there is no provider {quote(name)}{self._report.suggest(name, keys.PROVIDERS)}"
            if not name:
                message = "a provider needs the key `type`"
            self._report.add("bad-choice" if name else "missing-key", message, place, f"providers are {known}")
            return None
        inner = Fields(table, node, self._report, where=node.where)
        match name:
            case "meshctl":
                return self._read_verb(inner, inner.text("verb", ""), kind, inner.place("verb"))
            case "python":
                return self._read_function(inner, kind)
            case "http":
                return self._read_http(inner)
            case _:
                return self._read_process(inner)

    def _read_verb(self, fields: Fields, name: str, kind: Kind, place: Where) -> Provider | None:
        verb = find_verb(name, kind)
        if verb is not None:
            arguments = read_arguments(verb, fields.node("arguments"), self._report, where=fields.where)
            return MeshProvider(verb=verb.name, arguments=arguments)
        if name:
            other = find_verb(name, "probe" if kind == "action" else "action")
            known = [each.name for each in VERBS if each.kind == kind]
            message = f"there is no {kind} {quote(name)}{self._report.suggest(name, known)}"
            if other is not None:
                message = f"{quote(other.name)} is {_article(other.kind)}, not {_article(kind)}"
            self._report.add("unknown-verb", message, place, f"{kind}s are {', '.join(known)}")
        return None

    def _read_function(self, fields: Fields, kind: Kind) -> Provider | None:
        module = fields.text("module", "")
        if module and module not in MODULES:
            hint = "use a `process` provider, or run the file with `chaos run`"
            message = f"meshctl imports no Python of others: {quote(module)}"
            self._report.add("not-supported", message, fields.place("module"), hint)
            return None
        return self._read_verb(fields, fields.text("func", ""), kind, fields.place("func")) if module else None

    def _read_http(self, fields: Fields) -> Provider:
        node = fields.alternative("timeout")
        bounds = [10.0, 10.0]
        if isinstance(node, ListNode) and len(node.items) == len(bounds):
            read = [read_scalar(Duration(), item, "`timeout`", self._report) for item in node.items]
            bounds = [each if isinstance(each, float) else 10.0 for each in read]
        elif node is not None:
            bounds = [fields.duration("timeout", 10.0)] * 2
        arguments = fields.node("arguments")
        return HttpProvider(
            url=fields.text("url", ""),
            method=fields.text("method", "GET").upper(),
            headers={name: str(to_value(entry.node)) for name, entry in fields.named("headers").items()},
            arguments=None if arguments is None else to_value(arguments),
            connect_timeout=bounds[0],
            timeout=bounds[1],
        )

    def _read_process(self, fields: Fields) -> Provider:
        node = fields.alternative("arguments")
        arguments: tuple[str, ...] | str = ()
        if isinstance(node, MapNode):
            pairs = [(key, _write(entry.node)) for key, entry in node.entries.items()]
            arguments = tuple(word for pair in pairs for word in pair if word)
        elif isinstance(node, ListNode):
            arguments = tuple(word for item in node.items if (word := _write(item)))
        elif node is not None:
            arguments = _write(node)
        return ProcessProvider(
            path=fields.text("path", ""), arguments=arguments, timeout=fields.duration("timeout", None)
        )

    def _refuse(self, fields: Fields, name: str, message: str, hint: str) -> None:
        node = fields.node(name)
        if node is not None and to_value(node):
            self._report.add("not-supported", message, fields.key_place(name), hint)


def name_of(path: str) -> str:
    """The name of an experiment: that of its file, without folder and ending."""
    return PurePath(path).stem


def _to_mapping(node: MapNode) -> Mapping[str, Value]:
    return {key: to_value(entry.node) for key, entry in node.entries.items()}


def _write(node: Node) -> str:
    """A scalar as a word of a command line."""
    return node.text if isinstance(node, ScalarNode) and not is_null(node) else ""


def _article(kind: Kind) -> str:
    return "an action" if kind == "action" else "a probe"
