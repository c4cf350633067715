"""Every kind of problem that a topology file can have.  Pure: a table.

The codes are stable: people search for them and scripts match on them. docs/reference/problems.md is made from this
table, and a test proves that each example has just the problem it stands for.
"""

from __future__ import annotations

from dataclasses import dataclass

_OK = "services:\n  web: {command: ./web}\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemKind:
    """One kind: a one-line explanation and the shortest file (``.env`` file when ``dotenv``) that has it."""

    code: str
    explanation: str
    example: str
    dotenv: bool = False


def _kind(code: str, explanation: str, example: str) -> ProblemKind:
    return ProblemKind(code=code, explanation=explanation, example=example)


def _web(body: str) -> str:
    return f"services:\n  web: {{command: ./web, {body}}}\n"


_RULES = "{rules: [{name: r, %s}]}"


def _rule(body: str) -> str:
    return _web(f"security: {_RULES % body}")


PROBLEM_KINDS = (
    _kind(
        "ambiguous-name",
        "Two pairs of service and version would give instances of the same name (`service-version-number`).",
        "services:\n  a: {versions: {b-c: {command: ./one}}}\n  a-b: {versions: {c: {command: ./two}}}\n",
    ),
    _kind(
        "bad-address",
        "An address is not `host:port`, `https://host[:port]` or an IP address.",
        "services:\n  db: {address: db}\n",
    ),
    _kind("bad-boolean", "A yes-or-no value is neither `true` nor `false`.", _web("circuit_breaker: {enabled: on}")),
    _kind("bad-choice", "A value is not among the words that its key takes.", _web("protocol: htpp")),
    _kind("bad-command", "A command has a quote that is not closed.", 'services:\n  web: {command: "sh -c \'ls"}\n'),
    ProblemKind(
        code="bad-dotenv",
        explanation="A line of a `.env` file is not `NAME=value`.",
        example="NAME value\n",
        dotenv=True,
    ),
    _kind(
        "bad-duration",
        "A duration is not `5s`, `300ms`, `2m`, `1h30m` or a number of seconds, or is too short.",
        _web("timeout: 5 sec"),
    ),
    _kind("bad-env", "An environment variable is not `NAME=value`, or its name cannot be one.", _web("env: [DEBUG]")),
    _kind(
        "bad-interpolation", "A `${...}` is not closed or is not a reference to a variable.", _web('env: {A: "${1}"}')
    ),
    _kind(
        "bad-key",
        "A key is empty, a mapping or a list. Often a value that begins with a brace needs quotes.",
        "services:\n  web: {command: ./web, port: {{port}}}\n",
    ),
    _kind("bad-merge", "`<<` takes an alias of a mapping.", "services:\n  web: {command: ./web, <<: common}\n"),
    _kind(
        "bad-name",
        "A name has other characters than the key takes, or too many.",
        "services:\n  Web: {command: ./web}\n",
    ),
    _kind("bad-number", "A number is not a whole one or lies outside its bounds.", _web("replicas: 101")),
    _kind("bad-path", "A path does not begin as it must.", _web("readiness: {http: health}")),
    _kind(
        "bad-percentage",
        "A percentage is not a number from 0 to 100, with or without `%`.",
        _web("circuit_breaker: {failure_rate: 0.5}"),
    ),
    _kind(
        "bad-regex",
        "A regular expression is not valid, or Envoy (RE2) would read it in another way.",
        _rule('action: allow, headers: {x-role: {regex: "(?=a)"}}'),
    ),
    _kind(
        "bad-rollout",
        "Rules of a rollout that cannot be kept to: steps that do not rise to 100, a window shorter than the interval, "
        "the stable version as the one to roll out.",
        _web("rollout: {steps: [50, 10, 100]}"),
    ),
    _kind(
        "bad-rule-path",
        "A path of a rule is none that a request could have, or has its `*` elsewhere than at its end.",
        _rule('action: deny, paths: ["/a/*/b"]'),
    ),
    _kind(
        "bad-split",
        "The weights of a split do not sum to 100.",
        "services:\n  web:\n    split: {v1: 90, v2: 5}\n    versions: {v1: {command: ./v1}, v2: {command: ./v2}}\n",
    ),
    _kind(
        "bad-status",
        "A status is not from 100 to 599, nor a range or class of such.",
        _web("readiness: {http: {path: /, expected: 999}}"),
    ),
    _kind(
        "bad-text",
        "A text holds a character that cannot be handed to a process.",
        'services:\n  web: {command: ["./web", "\\0"]}\n',
    ),
    _kind(
        "condition-no-job",
        "`completed_successfully` waits for a service that never completes.",
        f"{_OK}  api: {{command: ./api, depends_on: {{web: completed_successfully}}}}\n",
    ),
    _kind(
        "conflicting-keys", "Keys exclude each other.", "services:\n  db: {address: 'db.example:5432', command: ./db}\n"
    ),
    _kind(
        "dependency-cycle",
        "Services wait for each other, so that none could start.",
        "services:\n  a: {command: ./a, depends_on: [b]}\n  b: {command: ./b, depends_on: [a]}\n",
    ),
    _kind("duplicate-item", "A name is listed twice.", f"{_OK}  api: {{command: ./api, upstreams: [web, web]}}\n"),
    _kind(
        "duplicate-key", "A key is there twice in one mapping.", "services:\n  web: {command: ./web, command: ./app}\n"
    ),
    _kind(
        "duplicate-path",
        "Two routes of the gateway have the same path.",
        f"gateway: {{port: 80, routes: [{{path: /a, service: web}}, {{path: /a/, service: web}}]}}\n{_OK}",
    ),
    _kind("empty-command", "A command has no words.", 'services:\n  web: {command: ""}\n'),
    _kind("empty-list", "A list must have an item at least.", f"gateway: {{port: 80, routes: []}}\n{_OK}"),
    _kind(
        "fault-place",
        "A fault cannot be made where it is asked for: no requests are seen there, or what it needs is not known.",
        "faults: {slow: {service: db, delay: 1s}}\nservices:\n  db: {command: ./db, protocol: tcp}\n",
    ),
    _kind(
        "interval-order",
        "The longest of two intervals is shorter than the first.",
        _web("restart: {backoff: 2s, max_backoff: 1s}"),
    ),
    _kind(
        "job-key",
        "A job has no port and no probes: it runs to its end, and is ready when it has exited with 0.",
        _web("job: true, port: 8080"),
    ),
    _kind("job-replicas", "A job runs once, so it has no replicas.", _web("job: true, replicas: 2")),
    _kind("job-restart", "A job that is always restarted never completes.", _web("job: true, restart: always")),
    _kind("missing-command", "A version has nothing to run.", "services:\n  web: {replicas: 2}\n"),
    _kind("missing-key", "A key that is needed is not there.", f"gateway: {{port: 80}}\n{_OK}"),
    _kind(
        "mixed-job",
        "Some versions of a service are jobs and some are not.",
        "services:\n  web: {versions: {v1: {command: ./v1}, v2: {command: ./v2, job: true}}}\n",
    ),
    _kind("multiple-documents", "One file holds more than one YAML document.", f"{_OK}---\n{_OK}"),
    _kind(
        "no-effect",
        "A key has no effect beside the others or for the kind of service it is written at.",
        _web("load_balancing: {algorithm: random, slow_start: 10s}"),
    ),
    _kind("no-services", "The files name no service.", "name: shop\n"),
    _kind("not-a-mapping", "The top of a file is not a mapping of keys.", "- web\n"),
    _kind(
        "port-twice",
        "Two users of one port, the replicas' ports included.",
        "services:\n  a: {command: ./a, port: 9000, replicas: 2}\n  b: {command: ./b, port: 9001}\n",
    ),
    _kind(
        "probe-check",
        "A probe names none of `http`, `tcp` and `exec`, or more than one.",
        _web("liveness: {interval: 5s}"),
    ),
    _kind(
        "recursive-alias", "An alias stands within the value that its anchor names.", "services: &all\n  web: *all\n"
    ),
    _kind("reserved-name", "The mesh uses this name itself.", "services:\n  gateway: {command: ./gateway}\n"),
    _kind(
        "route-caller",
        "A route is for requests from a service that does not call this one.",
        f"{_OK}  api: {{command: ./api, routes: [{{match: {{from: [web]}}, version: v1}}]}}\n",
    ),
    _kind(
        "route-target",
        "A route of the gateway leads to a job or to a service that speaks plain TCP.",
        "gateway: {port: 80, routes: [{path: /, service: db}]}\nservices:\n  db: {command: ./db, protocol: tcp}\n",
    ),
    _kind(
        "rule-needs-http",
        "A rule names methods, paths or headers, but the service speaks plain TCP.",
        f"services:\n  db: {{command: ./db, protocol: tcp, security: {_RULES % 'action: deny, methods: [GET]'}}}\n",
    ),
    _kind(
        "rule-needs-mtls",
        "A rule names callers, but without mTLS nobody is known by name.",
        _web(f"security: {{mtls: false, {(_RULES % 'action: deny, from: [gateway]')[1:]}"),
    ),
    _kind(
        "rules-without-effect",
        "A service has rules of its own that nobody would look at.",
        _web(f"security: {{authz_policy: none, {(_RULES % 'action: deny')[1:]}"),
    ),
    _kind("too-deep", "Values are nested deeper than any topology needs.", f"services: {'[' * 41}{']' * 41}\n"),
    _kind(
        "too-large",
        "A file or a list is larger than any topology needs. Aliases count with all that they stand for.",
        _web(f"retry_policy: {{retriable_status_codes: [{', '.join(['503'] * 51)}]}}"),
    ),
    _kind("unknown-alias", "An alias has no anchor before it.", "services:\n  web: *common\n"),
    _kind(
        "unknown-instance",
        "A name cannot be that of an instance of the service.",
        _web("load_balancing: {weights: {web-v2-1: 3}}"),
    ),
    _kind(
        "unknown-key", "A key is not known here; keys near to it are suggested.", "services:\n  web: {comand: ./web}\n"
    ),
    _kind("unknown-service", "A name is that of no service.", _web("upstreams: [catalog]")),
    _kind("unknown-tag", "A YAML tag is not known.", "services:\n  web: {command: !env ./web}\n"),
    _kind(
        "unknown-version",
        "A name is that of no version of the service.",
        "services:\n  web: {stable: v2, versions: {v1: {command: ./web}}}\n",
    ),
    _kind(
        "unreachable-route",
        "A route can never match, because one before it takes every request that it could.",
        _web("routes: [{version: v1}, {match: {path: /beta}, version: v1}]"),
    ),
    _kind(
        "unset-variable",
        "A `${VAR}` is set neither in the environment nor in `.env`, and has no default.",
        _web('env: {KEY: "${API_KEY}"}'),
    ),
    _kind(
        "upstream-job",
        "A job takes no calls, so it cannot be an upstream.",
        "services:\n  web: {command: ./web, upstreams: [migrate]}\n  migrate: {command: ./migrate, job: true}\n",
    ),
    _kind("upstream-self", "A service names itself as its upstream.", _web("upstreams: [web]")),
    _kind(
        "wrong-type",
        "A value has another form than its key takes: a text, a list or a mapping.",
        _web("upstreams: catalog"),
    ),
    _kind("yaml-syntax", "The file is not valid YAML.", "services:\n\tweb: {command: ./web}\n"),
)
"""All kinds, by code."""
