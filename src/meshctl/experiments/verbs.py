"""The actions and probes that meshctl has of its own, as one table.  Pure.

The reader of experiments, the conductor that carries them out, the functions for Chaos Toolkit and the reference are
made from it, or are held against it by tests. A verb has the words of the command line; the function for Chaos Toolkit
has the same name with underscores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from meshctl.errors import UsageError, Where
from meshctl.experiments.model import Kind
from meshctl.experiments.problems import CODES
from meshctl.spec.reader import Fields
from meshctl.spec.render import Value, to_node, to_value
from meshctl.spec.report import Report
from meshctl.spec.shapes import (
    AnyOf,
    Boolean,
    Choice,
    Duration,
    Integer,
    Key,
    ListOf,
    MapOf,
    Percentage,
    Shape,
    Table,
    Text,
)
from meshctl.spec.source import Node

SERVICE = Text(what="the name of a service")
NAMED = MapOf(name=Text(what="a name"), value=Text())
ANYTHING = MapOf(name=Text(what="a name"), value=Text())


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One action or probe: its arguments, and what it answers."""

    name: str
    kind: Kind
    doc: str
    arguments: Table
    answer: str = ""

    @property
    def function(self) -> str:
        """Its function for Chaos Toolkit."""
        return self.name.replace(" ", "_").replace("-", "_")


def _key(name: str, shape: Shape, doc: str, default: str | float | None = None, *, required: bool = False) -> Key:
    return Key(name=name, shape=shape, doc=doc, default=default, required=required)


_SERVICE = _key("service", SERVICE, "The service.", required=True)
_WINDOW = _key("window", Duration(), "How far back to look.", "10s")
_SOURCE = _key("source", SERVICE, "Only the requests of this caller, or `gateway`.")
_VERSION = _key("version", Text(what="the name of a version"), "Only this version.")
_DURATION = _key("duration", Duration(), "When it ends by itself, whatever happens.", "5m")
_TARGET = _key(
    "target", Text(what="a service or an instance"), "The service, all its instances, or one.", required=True
)
_FORCE = _key("force", Boolean(), "Even while a rollout of the service is under way.")

_FAULT = (
    _SERVICE,
    _key("delay", Duration(), "How long to hold a request up."),
    _key("jitter", Duration(), "How far a delay may lie from `delay`."),
    _key("abort", Integer(minimum=200, maximum=599), "The status to answer with."),
    _key("grpc_status", Text(what="the name of a gRPC status"), "The gRPC status to answer with."),
    _key("percent", Percentage(), "The share of requests; fractions too.", 100.0),
    _key("exclusive", Boolean(), "Whether a request gets the delay or the abort, never both."),
    _key("rate", Text(what="a rate such as `10KB/s`"), "How fast bodies are let through."),
    _key("reset", Boolean(), "Whether to cut the connection."),
    _key("blackhole", Boolean(), "Whether to give no answer at all."),
    _key("source", SERVICE, "Only the requests of this caller."),
    _VERSION,
    _key("instance", Text(what="the id of an instance"), "Only this instance."),
    _key("path", Text(what="a path"), "Only paths that begin so."),
    _key("method", Text(what="an HTTP method"), "Only this method."),
    _key("header", Text(what="`name=value`, or a name"), "Only requests with this header."),
    _key("health_checks", Boolean(), "Whether requests to paths of health checks are hit too."),
    _key("side", Choice(values=("callee", "caller")), "Which sidecar does it.", "callee"),
    _DURATION,
    _FORCE,
)

_REQUEST = (
    _SERVICE,
    _key("path", Text(what="a path"), "The path, with its query.", "/"),
    _key("method", Text(what="an HTTP method"), "The method.", "GET"),
    _key("headers", NAMED, "Headers."),
    _key("body", Text(), "The body."),
    _key("source", SERVICE, "The service whose sidecar sends it.", "gateway"),
    _key("timeout", Duration(), "How long to wait for an answer.", "10s"),
)

_LOAD = (
    *_REQUEST,
    _key("rps", Integer(minimum=1, maximum=5000), "Requests a second, whatever becomes of them.", 20),
    _key("duration", Duration(), "How long.", "10s"),
)

_MEASURED = (_SERVICE, _SOURCE, _VERSION, _WINDOW)


def _verb(name: str, kind: Kind, doc: str, keys: tuple[Key, ...], answer: str = "") -> Verb:
    table = Table(id=name, title=f"`{name}`", doc=doc, keys=keys)
    return Verb(name=name, kind=kind, doc=doc, arguments=table, answer=answer)


VERBS: tuple[Verb, ...] = (
    _verb("inject fault", "action", "Delay, abort, throttle or cut requests to a service.", _FAULT, "the fault"),
    _verb("inject kill", "action", "Kill instances; they are started again.", (_TARGET, _FORCE), "the instances"),
    _verb(
        "inject pause", "action", "Stop instances in their tracks (SIGSTOP).", (_TARGET, _DURATION, _FORCE), "the fault"
    ),
    _verb(
        "inject cpu",
        "action",
        "Take processor time from instances.",
        (_TARGET, _key("percent", Percentage(), "How much of it.", 80.0), _DURATION, _FORCE),
        "the fault",
    ),
    _verb(
        "inject exit",
        "action",
        "Let instances end by themselves (SIGTERM) though nobody expects it; they are started again.",
        (_TARGET, _FORCE),
        "the instances",
    ),
    _verb(
        "inject partition",
        "action",
        "Let no traffic pass between two services.",
        (
            _key("source", SERVICE, "One of them.", required=True),
            _key("service", SERVICE, "The other.", required=True),
            _key("one_way", Boolean(), "Whether only requests from the first to the second are cut."),
            _DURATION,
            _FORCE,
        ),
        "the fault",
    ),
    _verb(
        "inject latency",
        "action",
        "Let all that passes between a service and its callers come late, below HTTP.",
        (
            _SERVICE,
            _key("delay", Duration(), "How late, each way.", required=True),
            _key("jitter", Duration(zero=True), "How far from that it may be."),
            _key("source", SERVICE, "Only for this caller."),
            _DURATION,
            _FORCE,
        ),
        "the fault",
    ),
    _verb(
        "inject cert-expired",
        "action",
        "Let the sidecar of a service serve a certificate that is not valid.",
        (_SERVICE, _DURATION, _FORCE),
        "the fault",
    ),
    _verb(
        "inject clear",
        "action",
        "End faults: one by its id, or all of them.",
        (_key("fault", Text(what="the id of a fault"), "Which one; without it, all."),),
        "how many were ended",
    ),
    _verb(
        "load",
        "action",
        "Send requests at a steady rate, whatever becomes of them.",
        _LOAD,
        "as the probe of that name",
    ),
    _verb(
        "canary shift",
        "action",
        "Set how much of the traffic each version gets.",
        (
            _SERVICE,
            _key(
                "weights",
                MapOf(name=Text(what="a version"), value=Percentage(whole=True)),
                "Weights by version; the stable one takes what is left.",
                required=True,
            ),
        ),
        "what changed",
    ),
    _verb(
        "apply",
        "action",
        "Set policies, as `meshctl apply` does.",
        (
            _key("policies", ANYTHING, "The policies, as a file of them is written."),
            _key("file", Text(what="a path"), "A file of them, beside the experiment."),
        ),
        "what changed",
    ),
    _verb(
        "delete",
        "action",
        "Take a policy away.",
        (
            _key("owner", Text(what="a service, or `defaults`"), "Whose.", required=True),
            _key("kind", Text(what="the kind of a policy"), "Which.", required=True),
        ),
        "what changed",
    ),
    _verb(
        "rollback",
        "action",
        "Return to the policies of an earlier revision.",
        (_key("revision", Integer(minimum=0, maximum=1_000_000_000), "Which; without it, the one at the start."),),
        "what changed",
    ),
    _verb("circuit open", "action", "Hold the circuits to a service open.", (_SERVICE,), "what changed"),
    _verb("circuit close", "action", "Hold the circuits to a service closed.", (_SERVICE,), "what changed"),
    _verb("circuit auto", "action", "Let the circuits to a service work by themselves.", (_SERVICE,), "what changed"),
    _verb(
        "scale",
        "action",
        "Set how many instances run.",
        (_SERVICE, _VERSION, _key("replicas", Integer(minimum=0, maximum=100), "How many.", required=True)),
        "what changed",
    ),
    _verb(
        "restart",
        "action",
        "Restart services or instances, one after another.",
        (_key("targets", ListOf(item=Text()), "Which; without it, all."),),
        "what changed",
    ),
    _verb(
        "call",
        "probe",
        "Send one request as a service would.",
        _REQUEST,
        "`status`, `headers`, `body`, `duration_ms`, `instance`, `version`; `status` is 0 without an answer",
    ),
    _verb(
        "load",
        "probe",
        "Send requests at a steady rate, whatever becomes of them, and tell what came of them.",
        _LOAD,
        "`requests`, `failures`, `success` (0 to 1), `rate`, `p50_ms`, `p95_ms`, `p99_ms`, `max_ms`, `statuses`",
    ),
    _verb("success", "probe", "The share of requests that succeeded.", _MEASURED, "0 to 1; null without traffic"),
    _verb(
        "latency",
        "probe",
        "A quantile of how long requests took.",
        (*_MEASURED, _key("quantile", Choice(values=("50", "90", "95", "99")), "Which, in percent.", "99")),
        "milliseconds; null without traffic",
    ),
    _verb("rate", "probe", "How many requests a second there are.", _MEASURED, "requests a second"),
    _verb("requests", "probe", "How many requests there were.", _MEASURED, "a number"),
    _verb("failures", "probe", "How many requests failed.", _MEASURED, "a number"),
    _verb(
        "retries",
        "probe",
        "How many tries there were for each request, beside the first.",
        _MEASURED,
        "retries per request: 0 for none; null without traffic",
    ),
    _verb(
        "tries",
        "probe",
        "How many requests reached the instances of a service for each one that entered at the gateway.",
        (_SERVICE, _WINDOW),
        "a ratio; null without traffic at the gateway",
    ),
    _verb(
        "reasons",
        "probe",
        "Why requests ended without a plain answer, by Envoy's response flags.",
        _MEASURED,
        "requests by flag",
    ),
    _verb(
        "circuit state",
        "probe",
        "The state of the circuits to a service: the worst of its callers', or one caller's.",
        (_SERVICE, _SOURCE),
        "`closed`, `half_open` or `open`",
    ),
    _verb("instances", "probe", "How many instances are ready.", (_SERVICE, _VERSION), "a number"),
    _verb("weights", "probe", "The weights of a service's versions.", (_SERVICE,), "percent by version"),
    _verb("faults", "probe", "How many faults are on.", (), "a number"),
)
"""Every verb; one that is both an action and a probe has two rows."""


def find_verb(name: str, kind: Kind) -> Verb | None:
    """The verb of that name and kind, whatever stands between its words."""
    plain = _plain(name)
    return next((verb for verb in VERBS if verb.kind == kind and _plain(verb.name) == plain), None)


def read_arguments(verb: Verb, node: Node | None, report: Report, *, where: Where) -> dict[str, Value]:
    """The arguments of a verb, durations in seconds; what does not fit is reported."""
    fields = Fields(verb.arguments, node, report, where=where, label=f"the arguments of `{verb.name}`")
    found: dict[str, Value] = {}
    for key in verb.arguments.keys:
        if fields.has(key.name):
            value = _read(fields, key)
            if value is not None:
                found[key.name] = value
        elif key.default is not None:
            found[key.name] = _default(key)
    return found


def convert_arguments(verb: Verb, arguments: Mapping[str, Value]) -> dict[str, Value]:
    """The same of plain values, which come from no file. Raises UsageError with every problem."""
    report = Report(codes=CODES)
    nowhere = Where("", 0, 0)
    given = {name: value for name, value in arguments.items() if value is not None}
    found = read_arguments(verb, to_node(given, nowhere), report, where=nowhere)
    if report.count:
        raise UsageError("; ".join(problem.message for problem in report.problems), hint=f"see `{verb.name}`")
    return found


def _read(fields: Fields, key: Key) -> Value:  # noqa: PLR0911 - one case per shape reads best
    match key.shape:
        case Text():
            return fields.text(key.name, None)
        case Choice():
            return fields.choice(key.name, "") or None
        case Duration():
            return fields.duration(key.name, None)
        case Integer():
            return fields.integer(key.name, None)
        case Boolean():
            return fields.boolean(key.name, None)
        case Percentage():
            return fields.percentage(key.name, None)
        case ListOf():
            return [to_value(item) for item in fields.items(key.name)]
        case MapOf() if key.shape is not ANYTHING:
            return {name: to_value(entry.node) for name, entry in fields.named(key.name).items()}
        case MapOf() | Table() | AnyOf() | _:
            node = fields.node(key.name)
            return None if node is None else to_value(node)


def _default(key: Key) -> Value:
    if isinstance(key.shape, Duration) and isinstance(key.default, str):
        return _SECONDS[key.default]
    return key.default if isinstance(key.default, str | int | float) else None


_SECONDS = {"10s": 10.0, "5m": 300.0}


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("-", " ")
