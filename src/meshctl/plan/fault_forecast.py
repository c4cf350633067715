"""What callers will see of a fault: the table of its effects, and what is left of them after retries.  Pure.

Envoy draws the delay and the failure each by itself, delay first. With shares d and a: both d*a, delay alone d(1-a),
failure alone (1-d)a, none (1-d)(1-a). Of k attempts, each failing with probability q in a way that is tried again and r
in one that is not, r(1+q+...+q^(k-1)) + q^k fail in the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from meshctl.plan.matching import Asked, matches
from meshctl.plan.model import Match
from meshctl.plan.policies.faults import find_spared
from meshctl.plan.policies.retry import IDEMPOTENT_METHODS, RetryPlan, plan_retry
from meshctl.spec.fault_schema import Fault
from meshctl.spec.report import join_names
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.validate_routes import GATEWAY
from meshctl.spec.values import format_duration

REPEATABLE = "GET, PUT, DELETE, Idempotency-Key"
ONCE = "POST, PATCH"
"""Kinds of requests: those that may be repeated, and others."""

_GRPC_OF_HTTP = {
    400: "INTERNAL",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "UNIMPLEMENTED",
    429: "UNAVAILABLE",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "UNAVAILABLE",
}
# What Envoy makes of its own answers to gRPC requests, UNKNOWN of others. Source:
# https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md

_BREAKING_CODES = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
_FIRST_FAILED_STATUS = 500
_SELDOM = 1_000_000
_TIMED_OUT = 504


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One thing that may happen to an attempt, and its share of them, from 0 to 1."""

    what: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """One kind of requests: how often they are tried at most, and the share that fails in the end, from 0 to 1."""

    which: str
    attempts: int
    fails: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What callers will see: ``outcomes`` sum to 1; ``notes`` are in words; ``danger`` is why it should be asked for
    twice, empty for no reason.
    """

    outcomes: tuple[Outcome, ...]
    calls: tuple[Calls, ...]
    notes: tuple[str, ...]
    danger: str = ""


def forecast(fault: Fault, mesh: Mesh) -> Forecast:
    """What a fault that can be made in a mesh will do."""
    service = mesh.services.get(fault.service)
    calls = tuple(_calls(fault, service))
    return Forecast(
        outcomes=tuple(_outcomes(fault)),
        calls=calls,
        notes=tuple(_notes(fault, service, max((item.fails for item in calls), default=0.0))),
        danger=_find_danger(fault, mesh),
    )


def describe_fault(fault: Fault) -> str:
    """What a fault does and to which requests, on one line: ``delay 300ms, abort 503: 20% of requests from web``."""
    effects = []
    if fault.delay:
        spread = f"±{format_duration(fault.jitter)}" if fault.jitter else ""
        effects.append(f"delay {format_duration(fault.delay)}{spread}")
    if fault.fails:
        effects.append(_name_failure(fault))
    if fault.blackhole:
        effects.append("no answer")
    if fault.rate:
        effects.append(f"bodies at {fault.rate}KiB/s")
    both = " or " if fault.exclusive else " and "
    conditions = [f"from {join_names(fault.callers, 'or')}" if fault.callers else ""]
    conditions += [f"to {fault.instance or fault.version}" if fault.instance or fault.version else ""]
    path = fault.path
    if path.kind != "prefix" or path.value != "/":
        conditions.append(f"under {path.value}" if path.kind == "prefix" else f"for {path.value}")
    conditions.append(f"by {join_names(fault.methods, 'or')}" if fault.methods else "")
    conditions.append(f"with {join_names(header.name for header in fault.headers)}" if fault.headers else "")
    narrowed = " ".join(part for part in conditions if part)
    where = " (at the caller)" if fault.side == "caller" and fault.service != GATEWAY else ""
    share = "each " if len(effects) > 1 and not fault.exclusive else ""
    return f"{both.join(effects)}, {share}{fault.percent:g}% of requests{f' {narrowed}' if narrowed else ''}{where}"


def is_for(fault: Fault, service: Service, caller: str, asked: Asked) -> bool:
    """Whether a request of a caller to a service is one that a fault may hit, whichever version it goes to."""
    if fault.service != service.name and not (fault.service == GATEWAY == caller):
        return False
    path = fault.path
    match = Match(
        path_prefix=path.value if path.kind == "prefix" else "/",
        path_exact=path.value if path.kind == "exact" else "",
        path_regex=path.value if path.kind == "regex" else "",
        methods=fault.methods,
        headers=fault.headers,
    )
    meant = not fault.callers or caller in fault.callers
    return meant and matches(match, asked) and asked.bare_path not in find_spared(fault, service)


def combine(retriable: float, final: float, attempts: int) -> float:
    """The share of requests that fail in the end: see the module's text."""
    tried_again = sum(retriable**number for number in range(attempts))
    return final * tried_again + retriable**attempts


def _name_failure(fault: Fault) -> str:
    if fault.reset:
        return "reset"
    return f"abort {fault.abort}" if fault.abort else fault.grpc_status


def _outcomes(fault: Fault) -> Iterator[Outcome]:
    share = fault.percent / 100
    if fault.blackhole:
        yield Outcome(what="nothing", share=1 - share)
        yield Outcome(what="no answer", share=share)
        return
    if fault.rate and not fault.delay and not fault.fails:
        yield Outcome(what="nothing", share=1 - share)
        yield Outcome(what=f"body at {fault.rate}KiB/s", share=share)
        return
    delay, fail = share if fault.delay else 0.0, share if fault.fails else 0.0
    both = 0.0 if fault.exclusive else delay * fail
    failure = _name_failure(fault)
    held = f"delay {format_duration(fault.delay)}"
    yield Outcome(what="nothing", share=1 - delay - fail + both)
    if delay:
        yield Outcome(what=f"{held} alone" if fail else held, share=delay - both)
    if fail:
        yield Outcome(what=f"{failure} alone" if delay else failure, share=fail - both)
    if delay and fail:
        yield Outcome(what=f"{held}, then {failure}", share=both)


def _calls(fault: Fault, service: Service | None) -> Iterator[Calls]:
    if service is None or fault.side == "caller":
        # Whoever made the request is answered at once; there is nobody who tries again.
        yield Calls(which="all", attempts=1, fails=_failing_once(fault))
        return
    kinds = {True: "all"} if service.protocol == "grpc" else {True: REPEATABLE, False: ONCE}
    for repeatable, which in kinds.items():
        if fault.methods and service.protocol != "grpc" and not _has_method(fault, repeatable=repeatable):
            continue
        plan = plan_retry(service, repeatable=repeatable and service.protocol != "grpc")
        attempts = 1 if plan is None else plan.retries + 1
        retriable, final = _chances(fault, service, plan, repeatable=repeatable)
        if not retriable:
            attempts = 1
        yield Calls(which=which, attempts=attempts, fails=combine(retriable, final, attempts))


def _has_method(fault: Fault, *, repeatable: bool) -> bool:
    return any((method in IDEMPOTENT_METHODS) == repeatable for method in fault.methods)


def _failing_once(fault: Fault) -> float:
    return fault.percent / 100 if fault.fails or fault.blackhole else 0.0


def _chances(fault: Fault, service: Service, plan: RetryPlan | None, *, repeatable: bool) -> tuple[float, float]:
    """The probabilities that an attempt fails so that it is tried again, and that it fails for good."""
    share = fault.percent / 100
    fail = share if fault.fails else 0.0
    late = share if _is_too_late(fault, service, plan) else 0.0
    punctual_fail = fail if fault.exclusive else fail * (1 - late)
    retriable = final = 0.0
    if _is_retried(fault, service, plan, repeatable=repeatable):
        retriable += punctual_fail
    else:
        final += punctual_fail
    # An attempt that is too late by itself is one that was reset; where the whole request is, nothing is left to try.
    per_try = plan.per_try_timeout if plan is not None else 0.0
    if late and per_try and repeatable and plan is not None and "reset" in plan.conditions:
        retriable += late
    else:
        final += late
    return retriable, final


def _is_too_late(fault: Fault, service: Service, plan: RetryPlan | None) -> bool:
    bounds = [bound for bound in (_timeout_of(service), plan.per_try_timeout if plan is not None else 0.0) if bound]
    return bool(bounds) and (fault.blackhole or bool(fault.delay and fault.delay >= min(bounds)))


def _timeout_of(service: Service) -> float:
    return 0.0 if service.protocol == "grpc" else service.policies.timeout.request


def _is_retried(fault: Fault, service: Service, plan: RetryPlan | None, *, repeatable: bool) -> bool:
    if plan is None:
        return False
    if fault.reset:
        return repeatable and service.protocol != "grpc" and "reset" in plan.conditions
    code = _grpc_code(fault, service)
    if code:
        return code.lower().replace("_", "-") in plan.grpc_codes
    return fault.abort in plan.status_codes


def _grpc_code(fault: Fault, service: Service) -> str:
    """The gRPC status that callers get, empty for an HTTP one."""
    if fault.grpc_status:
        return fault.grpc_status
    return _GRPC_OF_HTTP.get(fault.abort, "UNKNOWN") if fault.abort and service.protocol == "grpc" else ""


def _notes(fault: Fault, service: Service | None, fails: float) -> Iterator[str]:
    if fault.rate and (fault.delay or fault.fails):
        yield f"drawn by itself, {fault.percent:g}% of the answers come at {fault.rate} KiB a second"
    if service is None:
        yield "it is made at the gateway: whoever sends the request sees it as it is drawn, and no service does"
        return
    spared = find_spared(fault, service)
    if spared:
        yield f"health checks are not hit: {join_names(spared)} (--health-checks hits them too)"
    if fault.side == "caller":
        yield "it is made at the caller: no retry, circuit breaker or ejection sees it"
        return
    yield from _note_time(fault, service)
    yield from _note_breaker(fault, service, fails)
    if fault.fails and (fault.instance or fault.version):
        yield f"the table is for requests to {fault.instance or fault.version}; retries may go where there is no fault"
    if fails and service.policies.outlier_detection is not None:
        yield "outlier detection may leave out the instances that fail, and the share falls"
    if fails and service.policies.fallback is not None:
        yield f"{service.name} has a fallback: callers may get that in place of a failure"
    budget = service.policies.retry_policy.budget
    if fault.fails and fault.percent > budget.percent and any(plan_retry(service, repeatable=r) for r in (True, False)):
        yield (
            f"under load the retry budget ({budget.percent:g}% of the requests under way, at least "
            f"{budget.min_concurrency}) leaves retries out, and more fails"
        )
    own = [rule.name for rule in service.routes if rule.retry_policy != service.policies.retry_policy]
    if own and fault.fails:
        yield f"requests by the route{'s' if len(own) > 1 else ''} {join_names(own)} are retried by rules of their own"


def _note_time(fault: Fault, service: Service) -> Iterator[str]:
    plan = plan_retry(service, repeatable=True)
    timeout, per_try = _timeout_of(service), plan.per_try_timeout if plan is not None else 0.0
    if fault.blackhole and not timeout:
        yield "callers wait as long as they like: the mesh has no timeout for these requests"
    elif timeout and (fault.blackhole or fault.delay >= timeout):
        yield f"callers get {_TIMED_OUT} after the timeout of {format_duration(timeout)}"
    elif per_try and (fault.blackhole or fault.delay >= per_try):
        yield f"attempts are given up after {format_duration(per_try)} (per_try_timeout)"


def _note_breaker(fault: Fault, service: Service, fails: float) -> Iterator[str]:
    breaker = service.policies.circuit_breaker
    if not breaker.enabled or breaker.forced != "auto" or not fails:
        return
    code = _grpc_code(fault, service)
    breaks = code in _BREAKING_CODES if code else not fault.abort or fault.abort >= _FIRST_FAILED_STATUS
    late = fault.blackhole or bool(fault.delay)
    if not breaks and not late:
        return
    if breaker.failure_rate is not None and fails * 100 >= breaker.failure_rate:
        yield f"circuits will open: {breaker.failure_rate:g}% failed calls open them"
        return
    run = breaker.failure_threshold
    # The mean number of trials until a run of so many successes in a row: (1 - p^n) / ((1 - p) p^n). Source:
    # W. Feller, An Introduction to Probability Theory and Its Applications, vol. 1, XIII.7.
    expected = run if fails >= 1 else (1 - fails**run) / ((1 - fails) * fails**run)
    if expected < _SELDOM:
        yield (
            f"a caller's circuit opens after {run} failed calls in a row, about once in {round(expected):,} calls; "
            "while it is open callers get 503 at once"
        )


def _find_danger(fault: Fault, mesh: Mesh) -> str:
    """Why a fault leaves nothing of what comes in from outside; empty when it does not."""
    if fault.percent < 100 or not (fault.fails or fault.blackhole) or fault.is_narrow or mesh.gateway is None:
        return ""
    if fault.service == GATEWAY:
        return "every request from outside will fail"
    if fault.callers and GATEWAY not in fault.callers:
        return ""
    paths = [route.path for route in mesh.gateway.routes if route.service == fault.service]
    return f"every request from outside for {join_names(sorted(paths))} will fail" if paths else ""
