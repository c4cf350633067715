"""Every key of the topology file: its shape, its built-in value, what it means.  Pure declarations.

The one source of keys: the loader, the JSON Schema and docs/reference/mesh-yaml.md are all made from these tables.
Built-in values are read from the dataclasses in ``schema``. Policies are in ``policy_keys``.
"""

from __future__ import annotations

from typing import get_args

from meshctl.spec.fault_keys import FAULT, FAULT_NAME
from meshctl.spec.policy_keys import POLICY_KEYS
from meshctl.spec.rollout_keys import ROLLOUT
from meshctl.spec.routing_keys import ROUTING_KEYS, SPLIT
from meshctl.spec.schema import Condition, Egress, HttpProbe, Probe, Protocol, RestartMode, RestartPolicy
from meshctl.spec.service_mesh_keys import SERVICE_MESH
from meshctl.spec.shapes import (
    COUNT,
    UNBOUNDED,
    AnyOf,
    Boolean,
    Choice,
    Duration,
    Integer,
    Key,
    ListOf,
    MapOf,
    Statuses,
    Table,
    Text,
)
from meshctl.spec.telemetry_keys import TELEMETRY
from meshctl.spec.values import format_duration

PORT = Integer(minimum=1, maximum=65535)
URL_PATH = Text(
    what="a path that begins with `/`", pattern=r"/[!-~]*", code="bad-path", hint="write a path such as `/health`"
)
SERVICE_NAME = Text(
    what="a service name",
    pattern=r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?",
    code="bad-name",
    hint="use lower-case letters, digits and hyphens, at most 40, beginning with a letter",
)
VERSION_NAME = Text(
    what="a version name",
    pattern=r"[a-z0-9]([-a-z0-9.]{0,22}[a-z0-9])?",
    code="bad-name",
    hint="use lower-case letters, digits, hyphens and dots, at most 24, beginning and ending with a letter or digit",
)
ENV_NAME = Text(what="an environment variable", pattern=r"[^=\x00]+", code="bad-env", hint="a name holds no `=`")
MESH_NAME = Text(what="a mesh name", pattern=SERVICE_NAME.pattern, code="bad-name", hint=SERVICE_NAME.hint)
TRUST_DOMAIN = Text(
    what="a trust domain",
    pattern=r"[a-z0-9]([-a-z0-9.]{0,98}[a-z0-9])?",
    code="bad-name",
    hint="use lower-case letters, digits, dots and hyphens, such as `shop.mesh`",
)
COMMAND = AnyOf(shapes=(Text(what="a command"), ListOf(item=Text(what="an argument"), minimum=1)))

_PROBE = Probe(check=HttpProbe(path="/"))
_RESTART = RestartPolicy()
_EXPECTED = AnyOf(shapes=(Statuses(), ListOf(item=Statuses(), minimum=1)))

HTTP_PROBE = Table(
    id="http_probe",
    title="an HTTP check",
    doc="A GET on the instance's own port.",
    keys=(
        Key(name="path", shape=URL_PATH, doc="What is asked for.", required=True),
        Key(name="expected", shape=_EXPECTED, doc="The statuses of a healthy answer.", default="200-399"),
    ),
)

PROBE = Table(
    id="probe",
    title="a check",
    doc="One of `http`, `tcp` and `exec`, and its rhythm.",
    keys=(
        Key(name="http", shape=AnyOf(shapes=(URL_PATH, HTTP_PROBE)), doc="A GET on the instance's own port."),
        Key(name="tcp", shape=Boolean(only=True), doc="A connection to the instance's own port."),
        Key(name="exec", shape=COMMAND, doc="A command that exits with 0, run with the service's environment."),
        Key(
            name="interval",
            shape=Duration(),
            doc="Time between two checks.",
            default=format_duration(_PROBE.interval),
        ),
        Key(
            name="timeout",
            shape=Duration(),
            doc="How long an answer may take.",
            default=format_duration(_PROBE.timeout),
        ),
        Key(
            name="initial_delay",
            shape=Duration(zero=True),
            doc="Time from the start of the process to the first check.",
            default=format_duration(_PROBE.initial_delay),
        ),
        Key(
            name="success_threshold",
            shape=COUNT,
            doc="Successes in a row that make it pass.",
            default=_PROBE.success_threshold,
        ),
        Key(
            name="failure_threshold",
            shape=COUNT,
            doc="Failures in a row that make it fail.",
            default=_PROBE.failure_threshold,
        ),
    ),
)

RESTART_MODE = Choice(values=get_args(RestartMode), false_is="no")
_RESTART_DOC = "`always` starts a process again whenever it exits, `on_failure` when it exits with other than 0."

RESTART = Table(
    id="restart",
    title="a restart policy",
    doc="When a process that has exited is started again, and how soon.",
    keys=(
        Key(name="mode", shape=RESTART_MODE, doc=f"{_RESTART_DOC} Default for a job: `no`.", default=_RESTART.mode),
        Key(name="policy", shape=RESTART_MODE, doc="Another name for `mode`."),
        Key(
            name="backoff",
            shape=Duration(zero=True),
            doc="Delay before the first restart; it doubles each time.",
            default=format_duration(_RESTART.backoff),
        ),
        Key(
            name="max_backoff",
            shape=Duration(zero=True),
            doc="The longest delay.",
            default=format_duration(_RESTART.max_backoff),
        ),
        Key(
            name="max_restarts",
            shape=Integer(minimum=0, maximum=UNBOUNDED),
            doc="After so many restarts the instance has failed. No bound when it is not written.",
        ),
        Key(
            name="reset_after",
            shape=Duration(),
            doc="A process that stayed up so long starts counting anew.",
            default=format_duration(_RESTART.reset_after),
        ),
    ),
)

DEPENDENCY = Table(
    id="dependency",
    title="a dependency",
    doc="What another service must have reached before this one is started.",
    keys=(
        Key(
            name="condition",
            shape=Choice(values=get_args(Condition)),
            doc="`completed_successfully` is for jobs.",
            default="started",
        ),
    ),
)

_ENV_VALUE = Text(what="a text, a number or a boolean")

PROCESS_KEYS = (
    Key(
        name="command",
        shape=COMMAND,
        doc=(
            "What runs. A list is taken as it is; a text is split into words, or handed to `/bin/sh -c` when it holds "
            "shell syntax (any of `| & ; < > ( ) $ * ? ~`, a backquote, a newline, or a leading `NAME=value`)."
        ),
    ),
    Key(
        name="env",
        shape=AnyOf(
            shapes=(
                MapOf(name=ENV_NAME, value=_ENV_VALUE, nullable=True),
                ListOf(item=Text(what="`NAME=value`", pattern=r"[^=\x00]+=[\s\S]*", code="bad-env")),
            )
        ),
        doc="Environment variables, as a mapping or a list of `NAME=value`. An empty value takes one away.",
    ),
    Key(
        name="working_dir",
        shape=Text(what="a folder"),
        doc="Where the command runs; relative to the file it is written in. Default: the folder of the first file.",
    ),
    Key(name="replicas", shape=Integer(minimum=0, maximum=100), doc="How many instances run.", default=1),
    Key(
        name="port",
        shape=PORT,
        doc=(
            "The first instance's own port; the next instances take the ports after it. The process finds its port in "
            "`PORT`. When it is not written, a free port is chosen and remembered."
        ),
    ),
    Key(
        name="job",
        shape=Boolean(),
        doc="Runs once to completion: a migration, say. It cannot be called.",
        default=False,
    ),
    Key(name="restart", shape=AnyOf(shapes=(RESTART_MODE, RESTART)), doc=_RESTART_DOC, default=_RESTART.mode),
    Key(
        name="readiness",
        shape=PROBE,
        doc="When an instance may have traffic. Default: when its health check's path answers over HTTP; when its port "
        "accepts connections if it has no health check or speaks gRPC or TCP.",
    ),
    Key(name="liveness", shape=PROBE, doc="An instance that fails it is restarted. Default: none."),
    Key(
        name="stop_grace",
        shape=Duration(zero=True),
        doc="Time from SIGTERM to SIGKILL when an instance is stopped.",
        default="5s",
    ),
)
"""How a process runs: keys of a version, and of a service, whose versions inherit them."""

VERSION = Table(id="version", title="a version", doc="One version of a service.", keys=PROCESS_KEYS)

ADDRESS = Table(
    id="address",
    title="an address",
    doc="Where a service outside the mesh is.",
    keys=(
        Key(name="host", shape=Text(what="a host"), doc="A host name or an IP address.", required=True),
        Key(name="port", shape=PORT, doc="Its port.", required=True),
        Key(name="tls", shape=Boolean(), doc="Whether to connect with TLS.", default=False),
    ),
)

_SERVICE_KEYS = (
    Key(
        name="protocol",
        shape=Choice(values=get_args(Protocol)),
        doc="What the service speaks: HTTP/1.1, gRPC (HTTP/2), or any TCP protocol.",
        default="http",
    ),
    Key(
        name="upstreams",
        shape=ListOf(item=Text(what="the name of a service")),
        doc="The services that it calls. Each is handed to it as `NAME_URL`, and reached by name through the mesh.",
    ),
    Key(
        name="depends_on",
        shape=AnyOf(
            shapes=(
                ListOf(item=Text(what="the name of a service")),
                MapOf(
                    name=Text(what="the name of a service"),
                    value=AnyOf(shapes=(Choice(values=get_args(Condition)), DEPENDENCY)),
                ),
            )
        ),
        doc="Services that must have started (list), or be `started`, `healthy` or `completed_successfully` (mapping).",
    ),
    Key(
        name="versions",
        shape=MapOf(name=VERSION_NAME, value=VERSION, nullable=True),
        doc="The versions by name. They inherit what is written at the service.",
    ),
    Key(
        name="stable",
        shape=Text(what="the name of a version"),
        doc="The version that serves when no other is asked for. Default: the first one.",
    ),
    Key(
        name="split",
        shape=SPLIT,
        doc="The share of the traffic of each version; it must sum to 100. Default: all to the stable one.",
    ),
    *ROUTING_KEYS,
    Key(name="rollout", shape=ROLLOUT, doc="How a version takes over, step by step. Default: as its keys say."),
    Key(
        name="address",
        shape=AnyOf(shapes=(Text(what="`host:port` or `https://host`"), ADDRESS)),
        doc="A service outside the mesh: `host:port`, `https://host[:port]`, or a mapping.",
    ),
)

_BLOCK_KEY = Key(name="service_mesh", shape=SERVICE_MESH, doc="The policies in another notation; keys beside it win.")

SERVICE = Table(
    id="service",
    title="a service",
    doc=(
        "One service: a command (one version, `v1`), or `versions`, or an `address` outside the mesh. With none of "
        "these its instances are registered at run time."
    ),
    keys=(*_SERVICE_KEYS, *PROCESS_KEYS, *POLICY_KEYS, _BLOCK_KEY),
)

DEFAULTS = Table(
    id="defaults",
    title="`defaults`",
    doc="Policies under those of every service, key by key.",
    keys=(*POLICY_KEYS, _BLOCK_KEY),
)

ROUTE = Table(
    id="route",
    title="a gateway route",
    doc="Requests whose path begins with `path` (whole segments) go to `service`; the longest path wins.",
    keys=(
        Key(
            name="path",
            shape=Text(
                what="a path that begins with `/`",
                pattern=r"/(?:(?![?#])[!-~])*",
                code="bad-path",
                hint="write a path such as `/` or `/api`, with no query",
            ),
            doc="The beginning of the path.",
            required=True,
        ),
        Key(name="service", shape=Text(what="the name of a service"), doc="Where they go.", required=True),
    ),
)

GATEWAY = Table(
    id="gateway",
    title="`gateway`",
    doc="The proxy that lets the outside in.",
    keys=(
        Key(name="port", shape=PORT, doc="The port it listens on.", required=True),
        Key(name="host", shape=Text(what="an IP address"), doc="The address it listens on.", default="127.0.0.1"),
        Key(name="routes", shape=ListOf(item=ROUTE, minimum=1), doc="Which paths go where.", required=True),
    ),
)

TOPOLOGY = Table(
    id="topology",
    title="the topology",
    doc="A mesh: its services, its gateway, its policies.",
    keys=(
        Key(name="name", shape=MESH_NAME, doc="The mesh's name. Default: the folder's."),
        Key(name="trust_domain", shape=TRUST_DOMAIN, doc="The domain of all identities. Default: `<name>.mesh`."),
        Key(
            name="egress",
            shape=Choice(values=get_args(Egress)),
            doc="Whether services may reach hosts outside the mesh that are no service of it.",
            default="allow_any",
        ),
        Key(name="gateway", shape=GATEWAY, doc="The proxy that lets the outside in. Default: none."),
        Key(name="telemetry", shape=TELEMETRY, doc="What is told of the traffic, and where it goes."),
        Key(
            name="faults",
            shape=MapOf(name=FAULT_NAME, value=FAULT),
            doc="Faults by name, for a mesh that starts broken on purpose. They begin when it starts, or with the `up` "
            "that brings them, and end by themselves.",
        ),
        Key(name="defaults", shape=DEFAULTS, doc="Policies under those of every service."),
        _BLOCK_KEY,
        Key(
            name="services",
            shape=MapOf(name=SERVICE_NAME, value=SERVICE, nullable=True),
            doc="The services by name.",
            required=True,
        ),
    ),
    extensible=True,
)
