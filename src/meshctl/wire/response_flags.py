"""Envoy's response flags in words.  Pure.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage (RESPONSE_FLAGS). Where
no flag tells what happened, the details of the answer or a header that the mesh sets do.
"""

from __future__ import annotations

from collections.abc import Iterable

from meshctl.spec.fault_schema import GRPC_CODES

WORDS: dict[str, str] = {
    "UH": "no healthy upstream",
    "UF": "connection failed",
    "UO": "too many requests under way",
    "NR": "no route",
    "NC": "no such cluster",
    "URX": "retry limit",
    "UT": "timeout",
    "DT": "timeout",
    "UMSDR": "timeout",
    "SI": "idle timeout",
    "UC": "connection lost",
    "UR": "reset by upstream",
    "LR": "reset by sidecar",
    "UPE": "upstream broke the protocol",
    "DPE": "caller broke the protocol",
    "DC": "caller went away",
    "DR": "caller went away",
    "DI": "injected delay",
    "FI": "injected error",
    "RL": "rate limited",
    "RLSE": "rate limit service failed",
    "UAEX": "denied",
    "IH": "invalid header",
    "LH": "unhealthy",
    "RFCF": "cached answer",
    "NFCF": "filter not configured",
    "OM": "sidecar overloaded",
    "DF": "name not resolved",
    "DO": "load shed",
    "UDO": "load shed",
}
"""What each flag means, as short as it can be said."""

LONG_NAMES: dict[str, str] = {
    "failed_local_healthcheck": "LH",
    "no_healthy_upstream": "UH",
    "upstream_request_timeout": "UT",
    "local_reset": "LR",
    "upstream_remote_reset": "UR",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_overflow": "UO",
    "no_route_found": "NR",
    "delay_injected": "DI",
    "fault_injected": "FI",
    "rate_limited": "RL",
    "unauthorized_details": "UAEX",
    "rate_limit_service_error": "RLSE",
    "downstream_connection_termination": "DC",
    "upstream_retry_limit_exceeded": "URX",
    "stream_idle_timeout": "SI",
    "invalid_envoy_request_headers": "IH",
    "downstream_protocol_error": "DPE",
    "upstream_max_stream_duration_reached": "UMSDR",
    "response_from_cache_filter": "RFCF",
    "no_filter_config_found": "NFCF",
    "duration_timeout": "DT",
    "upstream_protocol_error": "UPE",
    "no_cluster_found": "NC",
    "overload_manager": "OM",
    "dns_resolution_failure": "DF",
    "downstream_remote_reset": "DR",
}
"""The flag of each field of Envoy's message ``ResponseFlags``."""

CIRCUIT_OPEN = "circuit open"
DENIED = "denied"
WOULD_DENY = "would be denied"
RATE_LIMITED = "rate limited"
OVERLOADED = "too many requests under way"
FALLBACK = "fallback answer"
LATE = WORDS["UT"]

_GRPC_NAMES = {str(number): name for name, number in GRPC_CODES.items()}
_GRPC_OK = "0"

_DETAILS: tuple[tuple[str, str], ...] = (
    ("rbac_access_denied", DENIED),
    ("local_rate_limited", RATE_LIMITED),
    ("reached_concurrency_limit", OVERLOADED),
    ("request_payload_too_large", "request too large"),
    ("overload", "sidecar overloaded"),
    ("fault_filter_abort", "injected error"),
    ("direct_response", "answered by sidecar"),
)
"""How details begin where no flag is set."""


def explain(
    flags: Iterable[str],
    details: str,
    *,
    circuit: str = "",
    denied: str = "",
    would_deny: str = "",
    overloaded: str = "",
    limited: str = "",
    fallback: str = "",
    late: str = "",
    fault: str = "",
    grpc: str = "",
) -> tuple[str, ...]:
    """Why an answer is what it is, in words, the most telling first; empty for one that needs no reason.

    Args:
        flags: Envoy's response flags (``UH``); one that is not known is shown as it is.
        details: Envoy's details of the answer (``via_upstream``).
        circuit: the header by which an open circuit answers.
        denied: which rule refused the request, empty when none did.
        would_deny: which rule would have, if it did not only audit.
        overloaded: the header that says what there was too much of.
        limited: the header that names the rate limit that was used up.
        fallback: the header of an answer that a fallback gave.
        late: the header of an answer that the instance's sidecar gave when the deadline had passed.
        fault: the header that names the fault which made, delayed or slowed the answer.
        grpc: the number of a gRPC status, which says more than the HTTP status beside it; empty for none.
    """
    reasons = [f"fault {fault}"] if fault else []
    reasons += [CIRCUIT_OPEN] if circuit == "open" else []
    reasons += [WORDS.get(flag, flag) for flag in flags]
    reasons += [word for begin, word in _DETAILS if details.startswith(begin)]
    given = ((denied, DENIED), (would_deny, WOULD_DENY), (limited, RATE_LIMITED), (overloaded, OVERLOADED))
    reasons += [word for value, word in (*given, (fallback, FALLBACK), (late, LATE)) if value]
    reasons += [f"grpc {_GRPC_NAMES.get(grpc, grpc)}"] if grpc not in ("", _GRPC_OK) else []
    return tuple(dict.fromkeys(reasons))


def split_flags(text: str) -> tuple[str, ...]:
    """The flags of ``UF,URX``; none of ``-``."""
    return tuple(flag for flag in text.split(",") if flag and flag != "-")
