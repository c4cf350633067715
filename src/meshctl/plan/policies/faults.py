"""Faults on requests: which filters make them, and the shares that switch these on.  Pure.

A fault is made by Envoy's fault filter, of which every listener holds a few (slots). What it does and to which
requests is part of the routes; how often is a runtime value of its own, 0 where there is none. So a fault ends by
itself when the control plane no longer renews the values (docs/adr/0022).

Envoy draws delay and failure each by itself. What cannot be drawn so takes a second slot: a fault that keeps the two
apart fails requests first and delays a share of those that are left; a throttled answer is drawn by a script.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from meshctl.identity.spiffe import spiffe_id
from meshctl.plan.facts import ActiveFault
from meshctl.plan.splits import cluster_name
from meshctl.spec.fault_schema import GRPC_CODES, Fault, FaultSide
from meshctl.spec.routing_schema import PathMatch, ValueMatch
from meshctl.spec.schema import HttpProbe, Mesh, Service
from meshctl.spec.validate_routes import GATEWAY, is_under

SLOTS = 6
"""How many fault filters a listener has: so many faults can be on at one service and side."""

NEVER = 86_400.0
"""Seconds that a request waits which is to get no answer: longer than any caller does."""

MILLION = 1_000_000
"""Shares are counted in millionths."""

KEY = "meshctl.fault."
"""The beginning of every runtime value of a fault."""

_MARKING_DELAY = 0.001
# A throttled answer is marked by being delayed, too: by as little as Envoy can.

_GRPC_HEALTH = "/grpc.health.v1.Health/Check"


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultMatch:
    """Which requests a fault is for: all conditions hold at once, what is empty leaves none out.

    ``identities`` are those of callers, ``cluster`` is where the request is routed to. ``spared`` are whole paths that
    are left alone.
    """

    identities: tuple[str, ...] = ()
    cluster: str = ""
    path: PathMatch = field(default_factory=PathMatch)
    methods: tuple[str, ...] = ()
    headers: tuple[ValueMatch, ...] = ()
    spared: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultPlan:
    """What one slot does, for some requests: seconds of ``delay``, a failure, KiB a second of ``rate``; 0 for none.

    ``key`` begins the runtime values: ``<key>.delay``, ``<key>.abort`` and ``<key>.rate`` are the shares of requests.
    ``drawn`` slots get delay or rate for each request from the script before them. ``again`` slots are further parts
    of a fault whose first part marks answers already.
    """

    slot: int
    fault: str
    key: str
    delay: float = 0.0
    abort: int = 0
    grpc_status: int | None = None
    cut: bool = False
    rate: int = 0
    drawn: bool = False
    again: bool = False
    match: FaultMatch = field(default_factory=FaultMatch)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultDraw:
    """What the script before a slot draws for each request: whole milliseconds from ``shortest`` to ``longest``, and
    for a ``share`` of the requests, a rate in KiB a second (0 for none).
    """

    slot: int
    shortest: int
    longest: int
    rate: int = 0
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One slot's worth of a fault: ``delay_share`` and ``abort_share`` from 0 to 1."""

    delay: float = 0.0
    jitter: float = 0.0
    fails: bool = False
    rate: int = 0
    delay_share: float = 0.0
    fail_share: float = 0.0


def count_slots(fault: Fault) -> int:
    """How many slots a fault takes."""
    return len(_parts(fault))


def plan_callee_faults(
    mesh: Mesh, service: Service, version: str, instance: str, faults: Iterable[ActiveFault]
) -> tuple[FaultPlan | FaultDraw, ...]:
    """The faults that the sidecar of one instance makes of requests to it."""
    mine = [
        active
        for active in _on(faults, service.name, "callee")
        if active.fault.version in ("", version) and active.fault.instance in ("", instance)
    ]
    return _assign(
        (active, replace(_match(active.fault, service), identities=_identities(mesh, active.fault))) for active in mine
    )


def plan_caller_faults(
    service: Service, caller: str, faults: Iterable[ActiveFault]
) -> tuple[FaultPlan | FaultDraw, ...]:
    """The faults that a caller's sidecar makes of its own requests to a service."""
    return _assign(_of_caller(service, caller, faults))


def plan_gateway_faults(service: Service, faults: Iterable[ActiveFault]) -> tuple[FaultPlan | FaultDraw, ...]:
    """The faults that the gateway makes of requests that come in through it for a service."""
    everything = [active for active in faults if active.fault.service == GATEWAY]
    return _assign(
        [
            *((active, _match(active.fault, service)) for active in everything),
            *_of_caller(service, GATEWAY, faults),
        ]
    )


def find_shares(plans: Iterable[object], faults: Iterable[ActiveFault]) -> tuple[tuple[str, int], ...]:
    """The runtime values of the faults among a proxy's filters: (key, millionths), by key."""
    keys = {plan.key for plan in plans if isinstance(plan, FaultPlan)}
    shares = dict(pair for active in faults for pair in _shares(active))
    return tuple(sorted((key, share) for key, share in shares.items() if key.rpartition(".")[0] in keys))


def find_spared(fault: Fault, service: Service | None) -> tuple[str, ...]:
    """The whole paths that a fault leaves alone, because health checks ask for them.

    ``/`` is never one: as much as it may be asked for by health checks, it is what a service is there for. Nor is one
    that the fault is narrowed to.
    """
    if fault.health_checks or service is None:
        return ()
    checks = [
        probe.check for v in service.versions.values() for probe in (v.readiness, v.liveness) if probe is not None
    ]
    paths = {check.path for check in checks if isinstance(check, HttpProbe)}
    health_check = service.policies.load_balancing.health_check
    if service.protocol == "grpc":
        paths.add(_GRPC_HEALTH)
    elif health_check is not None:
        paths.add(health_check.path)
    paths = {path.partition("?")[0] for path in paths} - {"/"}
    asked = fault.path
    if asked.kind == "prefix":
        paths = {path for path in paths if is_under(path, asked.value) and path != asked.value}
    elif asked.kind == "exact":
        paths = set()
    return tuple(sorted(paths))


def _on(faults: Iterable[ActiveFault], service: str, side: FaultSide) -> list[ActiveFault]:
    return [active for active in faults if active.fault.service == service and active.fault.side == side]


def _of_caller(
    service: Service, caller: str, faults: Iterable[ActiveFault]
) -> Iterator[tuple[ActiveFault, FaultMatch]]:
    for active in _on(faults, service.name, "caller"):
        fault = active.fault
        if not fault.callers or caller in fault.callers:
            cluster = cluster_name(service, fault.version) if fault.version else ""
            yield active, replace(_match(fault, service), cluster=cluster)


def _match(fault: Fault, service: Service) -> FaultMatch:
    return FaultMatch(path=fault.path, methods=fault.methods, headers=fault.headers, spared=find_spared(fault, service))


def _identities(mesh: Mesh, fault: Fault) -> tuple[str, ...]:
    return tuple(sorted(spiffe_id(mesh.trust_domain, caller) for caller in fault.callers))


def _assign(wanted: Iterable[tuple[ActiveFault, FaultMatch]]) -> tuple[FaultPlan | FaultDraw, ...]:
    """Slots for faults, in their order; one that finds none left is not made (whoever injects sees to that)."""
    plans: list[FaultPlan | FaultDraw] = []
    slot = 0
    for active, match in wanted:
        parts = _parts(active.fault)
        if slot + len(parts) > SLOTS:
            break
        for number, part in enumerate(parts):
            plans += _plan(active, number, part, slot, match)
            slot += 1
    return tuple(plans)


def _plan(
    active: ActiveFault, number: int, part: _Part, slot: int, match: FaultMatch
) -> Iterator[FaultPlan | FaultDraw]:
    fault = active.fault
    drawn = bool(part.jitter or part.rate)
    if drawn:
        spread = part.jitter
        yield FaultDraw(
            slot=slot,
            shortest=round((part.delay - spread) * 1000),
            longest=round((part.delay + spread) * 1000),
            rate=part.rate,
            share=fault.percent / 100 if part.rate else 1.0,
        )
    yield FaultPlan(
        slot=slot,
        fault=active.id,
        key=_key(active, number),
        delay=part.delay,
        abort=fault.abort if part.fails else 0,
        grpc_status=GRPC_CODES[fault.grpc_status] if part.fails and fault.grpc_status else None,
        cut=part.fails and fault.reset,
        rate=part.rate,
        drawn=drawn,
        again=number > 0,
        match=match,
    )


def _parts(fault: Fault) -> tuple[_Part, ...]:
    share = fault.percent / 100
    parts: list[_Part] = []
    if fault.blackhole:
        parts.append(_Part(delay=NEVER, delay_share=share))
    elif fault.exclusive and fault.delay and fault.fails:
        parts.append(_Part(fails=True, fail_share=share))
        # Of those that did not fail, so many that they are `share` of all.
        parts.append(_Part(delay=fault.delay, jitter=fault.jitter, delay_share=share / (1 - share)))
    elif fault.delay or fault.fails:
        parts.append(
            _Part(
                delay=fault.delay,
                jitter=fault.jitter,
                fails=fault.fails,
                delay_share=share if fault.delay else 0.0,
                fail_share=share if fault.fails else 0.0,
            )
        )
    if fault.rate:
        parts.append(_Part(delay=_MARKING_DELAY, rate=fault.rate, delay_share=1.0))
    return tuple(parts)


def _shares(active: ActiveFault) -> Iterator[tuple[str, int]]:
    for number, part in enumerate(_parts(active.fault)):
        key = _key(active, number)
        shares: Mapping[str, float] = {
            "delay": part.delay_share,
            "abort": part.fail_share,
            "rate": 1.0 if part.rate else 0.0,
        }
        yield from ((f"{key}.{name}", round(value * MILLION)) for name, value in shares.items() if value)


def _key(active: ActiveFault, number: int) -> str:
    return f"{KEY}{active.id}.{number}"
