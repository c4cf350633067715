"""One request as a sidecar saw it: the shape of ``tap`` and of access logs, and how both are read.  Pure.

Enters: what Envoy says of a request, as a line of its JSON access log or as the same fields from its stream.  Leaves:
a SeenRequest. Every text is cut to a length, and what cannot be read is left empty: callers choose what stands there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from meshctl.plan.policies.mirror import mirrored_by
from meshctl.wire.models import Shape
from meshctl.wire.response_flags import DENIED, WOULD_DENY, explain, split_flags

Side = Literal["caller", "callee"]

MARK = '{"access":"'
"""How a line of a sidecar's access log begins: Envoy sorts the keys, so nothing stands before it."""

MAX_PATH = 1024
MAX_TEXT = 256
"""Characters of a path, and of any other text, that are kept."""

GATEWAY = "gateway"

_SPIFFE = re.compile(r"spiffe://[^/]+/([^/,;]+)")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
# Source: https://www.w3.org/TR/trace-context/#traceparent-header
_MATCHED = re.compile(r"rbac_access_denied_matched_policy\[([^\]]+)")


class SeenRequest(Shape, frozen=True, kw_only=True):
    """One request, at its end, as one sidecar saw it. Names that are not known are empty.

    ``side`` is ``caller`` for the sidecar of who sent it (the gateway's too), which counts a request once, however
    often it was tried; ``callee`` for that of the instance, which sees every try. ``status`` is 0 without an answer;
    ``grpc_status`` is the number that a gRPC answer carries. ``flags`` are Envoy's, ``reasons`` the same in words, with
    the name of a gRPC status that is not OK.
    ``rule`` is that of authorization which refused the request, or would have. ``trace_id`` is that of the request's
    W3C trace context.
    """

    time: float
    sidecar: str
    side: Side
    source: str
    destination: str
    version: str
    instance: str
    method: str
    path: str
    status: int
    grpc_status: str
    duration_ms: float
    flags: list[str]
    reasons: list[str]
    detail: str
    rule: str
    tries: int
    trace_id: str
    route: str
    protocol: str
    request_bytes: int
    response_bytes: int

    def describe(self) -> str:
        """Why the answer is what it is, and how many tries it took; empty if there is nothing to say."""
        named = {word: f"{word} ({self.rule.removeprefix('rule:')})" for word in (DENIED, WOULD_DENY) if self.rule}
        words = [named.get(reason, reason) for reason in self.reasons]
        if self.tries > 1:
            words.append(f"{self.tries} tries")
        return ", ".join(words)


class TapSummary(Shape, frozen=True, kw_only=True):
    """How much of the traffic a tap has shown so far.

    ``shown`` requests were sent to this tap. Of ``passed`` requests that sidecars saw and that any tap might want,
    they reported ``reported``; they report at most ``per_second`` each. ``dropped`` were reported, but this tap did not
    take them fast enough. ``silent`` names sidecars that have not acknowledged that they are tapped.
    """

    shown: int
    reported: int
    passed: int
    dropped: int
    per_second: int
    sidecars: int
    silent: list[str]


class TapItem(Shape, frozen=True, kw_only=True):
    """One line of a tap: a request, or where it stands."""

    request: SeenRequest | None = None
    summary: TapSummary | None = None


def read_line(text: str, *, sidecar: str, instances: Mapping[str, str]) -> SeenRequest | None:
    """The request in a line of an access log; None when the line is none.

    Args:
        text: the line, without what the log puts before it.
        sidecar: whose log it is, by node.
        instances: the instance behind each ``host:port`` of an inbound listener.
    """
    if not text.startswith(MARK):
        return None
    try:
        fields = msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
    return read_fields(fields, sidecar=sidecar, instances=instances)


def read_fields(fields: Mapping[str, Any], *, sidecar: str, instances: Mapping[str, str]) -> SeenRequest:
    """The request that the fields of an access log tell of; see ``envoy.request_logs`` for their names."""
    listener = _text(fields, "listener")
    is_callee = listener.startswith("inbound/")
    destination, version = find_destination(fields, listener)
    instance = instances.get(_text(fields, "upstream"), "")
    source = sidecar
    if is_callee:
        destination, version, instance = sidecar, "", listener.removeprefix("inbound/")
        version = _version_of(instance, sidecar)
        found = _SPIFFE.match(_text(fields, "peer"))
        source = found.group(1) if found else ""
    flags = split_flags(_text(fields, "flags"))
    details = _text(fields, "details")
    refused = _MATCHED.search(_text(fields, "denied") or details)
    would_deny = _text(fields, "audit_rule") if _text(fields, "audit") == "denied" else ""
    reasons = explain(
        flags,
        details,
        circuit=_text(fields, "circuit"),
        denied=_text(fields, "denied"),
        would_deny=would_deny,
        overloaded=_text(fields, "overloaded"),
        limited=_text(fields, "limited"),
        fallback=_text(fields, "fallback"),
        late=_text(fields, "late"),
        fault=_text(fields, "fault"),
        grpc=_text(fields, "grpc")[:16],
    )
    return SeenRequest(
        time=_number(fields, "time"),
        sidecar=sidecar,
        side="callee" if is_callee else "caller",
        source=source,
        destination=destination,
        version=version,
        instance=instance,
        method=_text(fields, "method")[:16],
        path=_text(fields, "path", MAX_PATH),
        status=int(_number(fields, "status")),
        grpc_status=_text(fields, "grpc"),
        duration_ms=round(_number(fields, "us") / 1000 or _number(fields, "ms"), 3),
        flags=list(flags),
        reasons=list(reasons),
        detail=details,
        rule=refused.group(1) if refused else would_deny,
        tries=int(_number(fields, "tries")),
        trace_id=_trace_id(fields),
        route=_text(fields, "route"),
        protocol=_text(fields, "protocol"),
        request_bytes=int(_number(fields, "received")),
        response_bytes=int(_number(fields, "sent")),
    )


def find_destination(fields: Mapping[str, Any], listener: str) -> tuple[str, str]:
    """Destination and version of what a caller's sidecar tells.

    The cluster ``checkout/v1`` is both, so is ``mirror/checkout/v1`` of a copy; an external service has no version.

    A report of what a sidecar answered itself, before it chose a cluster, tells the listener, the route and the host.
    """
    cluster, host = _text(fields, "cluster"), _text(fields, "host")
    first, separator, rest = cluster.partition("/")
    if mirrored_by(cluster)[0]:
        return mirrored_by(cluster)
    if separator:
        return (rest, "") if first == "external" else (first, rest)
    if listener.startswith("upstream/"):
        return listener.removeprefix("upstream/"), ""
    if listener == GATEWAY and not cluster:
        return _text(fields, "route").partition("/")[0] or host, ""
    return (host if cluster else host.partition(":")[0]), ""


def _version_of(instance: str, service: str) -> str:
    """``checkout-v1-2`` of checkout is v1; the name of a registered instance does not tell."""
    version = instance.removeprefix(f"{service}-").rpartition("-")[0]
    return "" if version == "ext" else version


def _trace_id(fields: Mapping[str, Any]) -> str:
    found = _TRACEPARENT.fullmatch(_text(fields, "traceparent"))
    return _text(fields, "trace") or (found.group(1) if found else "")


def _text(fields: Mapping[str, Any], name: str, limit: int = MAX_TEXT) -> str:
    value = fields.get(name)
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return "" if text == "-" else text[:limit]


def _number(fields: Mapping[str, Any], name: str) -> float:
    value = fields.get(name)
    try:
        number = float(value) if isinstance(value, int | float | str) else 0.0
    except (ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0
