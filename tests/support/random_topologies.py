"""Random topologies and facts about them, for property tests; everything in them points to loopback."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import reject
from hypothesis import strategies as st
from tests.support.cases import load_mesh

from meshctl.errors import InvalidTopology
from meshctl.plan.addresses import instance_ids

NAMES = ("a", "b", "a-v1", "v1", "upstream", "gift-cards", "inbound", "ext", "s" * 40)
"""Names that might be taken for something else: kinds of clusters, of listeners, parts of instance ids."""

VERSIONS = ("v1", "v2", "1.0.3", "ext", "b-v1-1", "a", "canary", "9")
PATHS = ("/", "/api", "/api/", "/api/v1", "/%41", "/a+b", "/~x", "/$1")
KINDS = ("runs", "runs", "runs", "external", "registered", "job")
PROTOCOLS = ("http", "http", "grpc", "tcp")
ADDRESSES = ("127.66.0.1:9", "localhost:9", "https://localhost:9", "https://127.66.0.1:9", "[::1]:9", "https://[::1]")

_DURATIONS = st.sampled_from(["1ms", "250ms", "1s", "2m", "1h", 0.5])


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A valid topology, and facts for ``cases.make_case``: instances in any health, registered ones."""
    topology = draw(topologies())
    text = yaml.safe_dump(topology, sort_keys=False)
    try:
        mesh = load_mesh(text)
    except InvalidTopology:
        reject()
    ids = [name for service in mesh.services.values() for name in instance_ids(service, {})]
    health = draw(
        st.dictionaries(st.sampled_from(ids), st.sampled_from(["healthy", "unhealthy", "draining", "starting"]))
        if ids
        else st.just({})
    )
    open_to_all = [s.name for s in mesh.services.values() if s.address is None and not s.is_job]
    registered = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "service": st.sampled_from([*open_to_all, "newcomer"]),
                    "version": st.sampled_from(VERSIONS),
                    "port": st.integers(1, 1000),
                }
            ),
            max_size=3,
        )
    )
    return text, {"health": health, "registered": registered}


@st.composite
def topologies(draw: st.DrawFn) -> dict[str, Any]:
    """A topology as a file has it; a few are not valid after all (names of instances may clash)."""
    # The size first: lists of any size would mostly be short.
    names: list[str] = draw(st.permutations(NAMES))[: draw(st.integers(1, 6))]
    kinds = {name: draw(st.sampled_from(KINDS)) for name in names}
    protocols = {name: draw(st.sampled_from(PROTOCOLS)) for name in names}
    services: dict[str, Any] = {}
    for name in names:
        callable_names = [other for other in names if other != name and kinds[other] != "job"]
        service = _without_effectless(draw(policies()), protocols[name], kinds[name]) | {"protocol": protocols[name]}
        if kinds[name] == "external":
            service["address"] = draw(st.sampled_from(ADDRESSES))
        elif callable_names:
            service["upstreams"] = [other for other in callable_names if draw(st.booleans())]
        if kinds[name] == "job":
            service |= {"command": ["job"], "job": True}
        elif kinds[name] == "runs":
            service |= draw(processes())
            if protocols[name] != "tcp":
                service |= draw(routing(sorted(service.get("versions", {"v1": None}))))
        services[name] = service
    topology: dict[str, Any] = {"name": "random", "services": services}
    topology |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "egress": st.sampled_from(["allow_any", "registry_only"]),
                "trust_domain": st.sampled_from(["random.mesh", "r", "a.b-c.d"]),
                "defaults": policies(),
            },
        )
    )
    targets = [name for name in names if kinds[name] != "job" and protocols[name] != "tcp"]
    has_gateway: bool = draw(st.booleans())
    if targets and has_gateway:
        paths = draw(st.lists(st.sampled_from(PATHS), min_size=1, max_size=4, unique_by=lambda path: path.rstrip("/")))
        routes = [{"path": path, "service": draw(st.sampled_from(targets))} for path in paths]
        topology["gateway"] = {"port": 40000, "routes": routes}
    return topology


@st.composite
def processes(draw: st.DrawFn) -> dict[str, Any]:
    """What runs of a service: one command, or versions with a split."""
    if draw(st.booleans()):
        return {"command": ["run"], "replicas": draw(st.integers(0, 3))}
    names = draw(st.lists(st.sampled_from(VERSIONS), min_size=1, max_size=3, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=len(names) - 1, max_size=len(names) - 1)))
    weights = [high - low for low, high in zip([0, *cuts], [*cuts, 100], strict=True)]
    return {
        "command": ["run"],
        "versions": {name: {"replicas": draw(st.integers(0, 2))} for name in names},
        "stable": draw(st.sampled_from(names)),
        "split": dict(zip(names, weights, strict=True)),
    }


@st.composite
def routing(draw: st.DrawFn, versions: list[str]) -> dict[str, Any]:
    """Rules, sticky splits and mirrors of a service with these versions."""
    found: dict[str, Any] = {}
    if draw(st.booleans()):
        found["routes"] = draw(st.lists(rules(versions), max_size=4))
    if draw(st.booleans()):
        found["sticky"] = draw(_STICKY)
    if draw(st.booleans()):
        found["mirror"] = {"version": draw(st.sampled_from(versions)), "percent": draw(st.sampled_from([0, 0.01, 100]))}
    return found


@st.composite
def rules(draw: st.DrawFn, versions: list[str]) -> dict[str, Any]:
    """One rule; some can never match for one before it, and make the topology a bad one."""
    conditions = draw(st.fixed_dictionaries({}, optional=_CONDITIONS))
    rule: dict[str, Any] = {"match": conditions}
    if draw(st.integers(0, 4)) == 0:
        return rule | {"redirect": draw(st.sampled_from(_REDIRECTS))}
    if draw(st.booleans()):
        rule["version"] = draw(st.sampled_from(versions))
    path = conditions.get("path", {"prefix": "/"})
    if draw(st.booleans()):
        replacement = draw(st.sampled_from(["/", "/new", r"/a\\1%", "/b/"]))
        rule["rewrite"] = {"prefix" if "prefix" in path else "path": replacement}
    extra = {"sticky": _STICKY, "headers": st.sampled_from(_CHANGES), **_POLICIES}
    for key in ("sticky", "headers", "timeout", "retry_policy"):
        if draw(st.integers(0, 2)) == 0:
            rule[key] = draw(extra[key])
    rule.get("retry_policy", {}).pop("budget", None)
    if isinstance(rule.get("timeout"), dict):
        rule["timeout"].pop("connect", None)
    return rule


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    """Policies of a service, or of all; each is there every other time."""
    found: dict[str, Any] = {}
    for key, policy in _POLICIES.items():
        if draw(st.booleans()):
            found[key] = draw(policy)
    return found


def _without_effectless(found: dict[str, Any], protocol: str, kind: str) -> dict[str, Any]:
    """Policies of a service without those that would be refused as being without effect there."""
    limits = found.get("limits", {})
    if protocol == "grpc" or kind == "external":
        limits.pop("max_request_bytes", None)
    if kind == "external":
        limits.pop("adaptive_concurrency", None)
        found.pop("rate_limits", None)
    if protocol == "tcp":
        found["limits"] = {key: value for key, value in limits.items() if key == "max_connections"}
        found.pop("rate_limits", None)
        if "hash" in found.get("load_balancing", {}):
            del found["load_balancing"]
    return found


_STICKY = st.sampled_from(
    [{"header": "x-user"}, {"cookie": {"name": "a.b$c_d"}}, {"cookie": {"name": "user", "ttl": "1h"}}]
)
_REDIRECTS = ({"path": "/x%20y"}, {"host": "new.example:81", "scheme": "https", "status": 308}, {"scheme": "https"})
_CHANGES = (
    {"request": {"set": {"x-a": "100% {b}", "x-empty": ""}, "add": {"X-B": "%REQ(x)%"}, "remove": ["x-c"]}},
    {"response": {"set": {"server": "me"}, "remove": ["x-powered-by"]}},
)
_VALUES = ("1", "", "a b%", {"regex": r"(?i)[a-z]{2,5}\.?|\d+"}, {"present": True}, {"exact": "x"})
_CONDITIONS: dict[str, st.SearchStrategy[Any]] = {
    "path": st.sampled_from(
        ["/api", "/%41", {"prefix": "/api"}, {"prefix": "/"}, {"prefix": "/a.b+c/"}, {"regex": "/v[0-9]{1,3}/.*"}]
    ),
    "methods": st.lists(st.sampled_from(["GET", "POST", "PURGE"]), min_size=1, unique=True),
    "headers": st.dictionaries(
        st.sampled_from(["x-a", "Accept", "host"]), st.sampled_from([*_VALUES, {"present": False}]), max_size=2
    ),
    "query": st.dictionaries(st.sampled_from(["a", "b[]", "c%20"]), st.sampled_from(_VALUES), max_size=2),
    "from": st.just(["gateway"]),
}
_RETRY = st.fixed_dictionaries(
    {"max_attempts": st.integers(1, 100), "base_interval": _DURATIONS},
    optional={
        "retriable_conditions": st.lists(st.sampled_from(["connect-failure", "reset", "refused-stream"]), unique=True),
        "retriable_grpc_codes": st.lists(st.sampled_from(["unavailable", "internal", "cancelled"]), unique=True),
        "other_instance": st.booleans(),
        "budget": st.fixed_dictionaries({"percent": st.sampled_from([0, 12.5, 100]), "min_concurrency": st.just(0)}),
        "max_interval": _DURATIONS,
        "per_try_timeout": _DURATIONS,
        "retriable_status_codes": st.lists(st.integers(100, 599), max_size=4, unique=True),
    },
)
_CHECK = st.fixed_dictionaries(
    {"interval": st.sampled_from(["30s", "1h"]), "timeout": _DURATIONS},
    optional={
        "path": st.sampled_from(["/", "/health", "/h?x=%20&y=$1"]),
        "healthy_threshold": st.integers(1, 10),
        "unhealthy_threshold": st.integers(1, 10),
        "expected_statuses": st.sampled_from(["2xx", "200-399", "404", "100-599", ["200", "5xx"]]),
    },
)
_HASH = st.sampled_from(
    [{"header": "X-User"}, {"cookie": {"name": "session"}}, {"cookie": {"name": "s", "ttl": "1ms"}}, {"source": True}]
)
_BALANCING: dict[str, st.SearchStrategy[Any]] = {
    "health_check": st.one_of(_CHECK, st.just(False)),
    "panic_threshold": st.integers(0, 100),
}
_RULE = st.fixed_dictionaries(
    # Such rules fit every service, whatever it speaks.
    {"name": st.sampled_from(["r", "s"]), "action": st.sampled_from(["allow", "deny"])},
    optional={"from": st.just(["anonymous"])},
)
_RATE_LIMIT = st.fixed_dictionaries(
    {
        "name": st.sampled_from("abcdefghij"),
        "requests": st.sampled_from([1, 7, 1_000_000]),
        "per": st.sampled_from(["50ms", "1s", "1500ms", "24h"]),
    },
    optional={
        "burst": st.sampled_from([1, 100, 1_000_000]),
        "path": st.sampled_from(["/", "/a.b+c/$1", {"exact": "/%41"}, {"prefix": "/api/"}]),
        "methods": st.lists(st.sampled_from(["GET", "POST", "PURGE"]), min_size=1, unique=True),
        "header": st.sampled_from(["x-user", "Accept", "host"]),
    },
)
_POLICIES: dict[str, st.SearchStrategy[Any]] = {
    "timeout": st.one_of(
        _DURATIONS,
        st.just(0),
        st.fixed_dictionaries(
            {}, optional={"request": _DURATIONS, "idle": st.sampled_from([0, "1ms", "1h"]), "connect": _DURATIONS}
        ),
    ),
    "retry_policy": _RETRY,
    "load_balancing": st.one_of(
        # What an algorithm has no use for is taken away, for it may come from the defaults.
        st.fixed_dictionaries(
            {"algorithm": st.sampled_from(["ring_hash", "maglev"]), "hash": _HASH, "slow_start": st.none()},
            optional=_BALANCING,
        ),
        st.fixed_dictionaries(
            {"algorithm": st.sampled_from(["round_robin", "least_request"]), "hash": st.none()},
            optional=_BALANCING | {"slow_start": st.sampled_from(["0s", "1ms", "1h"])},
        ),
        st.fixed_dictionaries(
            {"algorithm": st.just("random"), "hash": st.none(), "slow_start": st.none()}, optional=_BALANCING
        ),
    ),
    "outlier_detection": st.one_of(
        st.booleans(),
        st.fixed_dictionaries(
            {},
            optional={
                "consecutive_failures": st.integers(1, 1_000_000),
                "interval": _DURATIONS,
                "ejection_time": _DURATIONS,
                "max_ejection": st.integers(1, 100),
            },
        ),
    ),
    "limits": st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(
                ("max_connections", "max_pending_requests", "max_requests", "max_retries"),
                st.sampled_from([1, 20, 1_000_000]),
            ),
            "max_request_bytes": st.sampled_from([1, 65536, 4_000_000_000]),
            "adaptive_concurrency": st.booleans(),
        },
    ),
    "rate_limits": st.lists(_RATE_LIMIT, max_size=8, unique_by=lambda limit: str(limit["name"])),
    "security": st.fixed_dictionaries(
        {"mtls": st.sampled_from([True, "strict", "permissive", False])},
        optional={
            "authz_policy": st.sampled_from(["rbac", "rbac", "none"]),
            "default": st.sampled_from(["allow", "deny"]),
            "audit": st.booleans(),
            "rules": st.lists(_RULE, max_size=2, unique_by=lambda rule: str(rule["name"])),
        },
    ),
}
