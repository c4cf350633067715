"""Refuses requests beyond a rate: one filter per slot, for each limit tells its name and headers of its own.  Pure.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/local_rate_limit_filter
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.rate_limits import VALUES_KEPT, RateLimitPlan
from meshctl.spec.limits_schema import MAX_RATE_LIMITS

NAME_HEADER = "x-meshctl-ratelimit"
"""Names the limit that refused a request."""

_ENDLESS = 4_294_967_295
_VALUE = "value"
_NONE = "none"
_OVERWRITE = pb.base_pb2.HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD
_RATE_LIMIT = pb.route_components_pb2.RateLimit
_ACTION = _RATE_LIMIT.Action


def filter_name(plan: RateLimitPlan) -> str:
    """The filter that a limit switches on."""
    return _slot_name(plan.slot)


def configure(plan: RateLimitPlan) -> Any:
    """One limit, for a route or a virtual host.

    A request that the limit is not for gets a token of a bucket that is never empty. One that it is for makes a
    descriptor, and the bucket of the descriptor counts.
    """
    bucket = _bucket(plan.burst, plan.tokens, plan.per)
    plain = not plan.conditional and not plan.header
    config = pb.local_rate_limit_pb2.LocalRateLimit(
        stat_prefix=f"ratelimit.{plan.name}",
        # Buckets of descriptors are filled in multiples of the time in which this one is.
        token_bucket=bucket if plain else _bucket(_ENDLESS, _ENDLESS, plan.per),
        filter_enabled=_always(),
        filter_enforced=_always(),
        response_headers_to_add=[_header(name, value) for name, value in _told(plan)],
        always_consume_default_token_bucket=pb.bool_value(False),
        rate_limited_as_resource_exhausted=True,
    )
    if plan.shown:
        config.enable_x_ratelimit_headers = pb.ratelimit_pb2.XRateLimitHeadersRFCVersion.DRAFT_VERSION_03
    if plain:
        return config
    for actions, entries in _descriptors(plan):
        config.rate_limits.append(_RATE_LIMIT(actions=actions))
        descriptor = pb.ratelimit_pb2.LocalRateLimitDescriptor(token_bucket=bucket)
        for key, value in entries:
            descriptor.entries.append(pb.ratelimit_pb2.RateLimitDescriptor.Entry(key=key, value=value))
        config.descriptors.append(descriptor)
    if plan.header:
        config.max_dynamic_descriptors.value = VALUES_KEPT
    return config


def _build(slot: int, listener: HttpListener) -> Any | None:
    if listener.role != "inbound":
        return None
    config = pb.local_rate_limit_pb2.LocalRateLimit(stat_prefix=f"slot-{slot}")
    return pb.http_connection_manager_pb2.HttpFilter(
        name=_slot_name(slot), typed_config=pb.any_of(config), disabled=True
    )


def _slot_name(slot: int) -> str:
    return f"meshctl.rate_limit.{slot}"


SLOTS: tuple[Callable[[HttpListener], Any | None], ...] = tuple(
    partial(_build, slot) for slot in range(MAX_RATE_LIMITS)
)
"""The filters of all slots, each disabled, for the listeners of instances."""


def _told(plan: RateLimitPlan) -> Iterator[tuple[str, str]]:
    """What a refused request is told.

    The names without x- are those of https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers. The bucket
    is empty, so all of it is known beforehand; a limit that is shown has its x- names from the filter itself.
    """
    window = max(1, math.ceil(plan.per))
    quota = max(1, math.floor(plan.tokens * window / plan.per))
    yield NAME_HEADER, plan.name
    yield "retry-after", str(plan.retry_after)
    yield "ratelimit-policy", f'"{plan.name}";q={quota};w={window}'
    yield "ratelimit", f'"{plan.name}";r=0;t={plan.retry_after}'
    if not plan.shown:
        yield "x-ratelimit-limit", str(plan.burst)
        yield "x-ratelimit-remaining", "0"
        yield "x-ratelimit-reset", str(plan.retry_after)


def _descriptors(plan: RateLimitPlan) -> Iterator[tuple[list[Any], list[tuple[str, str]]]]:
    """How descriptors are made of a request, and the ones that have buckets; an empty value stands for any."""
    actions = [_when("for", headers) for headers in [_conditions(plan)] if headers]
    entries = [("for", "it")] if actions else []
    if not plan.header:
        yield actions, entries
        return
    of_value = _ACTION(request_headers=_ACTION.RequestHeaders(header_name=plan.header, descriptor_key=_VALUE))
    yield [*actions, of_value], [*entries, (_VALUE, "")]
    # Without this, leaving the header away would be a way around the limit.
    absent = pb.route_components_pb2.HeaderMatcher(name=plan.header, present_match=True, invert_match=True)
    yield [*actions, _when(_NONE, [absent])], [*entries, (_NONE, "it")]


def _when(key: str, headers: list[Any]) -> Any:
    return _ACTION(
        header_value_match=_ACTION.HeaderValueMatch(descriptor_key=key, descriptor_value="it", headers=headers)
    )


def _conditions(plan: RateLimitPlan) -> list[Any]:
    found = []
    if plan.identities:
        # One element, made by this sidecar: By=<own identity>;Hash=<of the certificate>;URI=<the caller's>.
        found.append(("x-forwarded-client-cert", f".*;URI=(?:{_any_of(plan.identities)})"))
    if plan.path:
        beginning = re.escape(plan.path if plan.path_exact else plan.path.rstrip("/"))
        found.append((":path", f"{beginning}{'' if plan.path_exact else '(?:/[^?]*)?'}(?:[?].*)?"))
    if plan.methods:
        found.append((":method", _any_of(plan.methods)))
    return [
        pb.route_components_pb2.HeaderMatcher(
            name=name, string_match=pb.string_pb2.StringMatcher(safe_regex=pb.regex_pb2.RegexMatcher(regex=pattern))
        )
        for name, pattern in found
    ]


def _any_of(texts: tuple[str, ...]) -> str:
    return "|".join(re.escape(text) for text in texts)


def _bucket(most: int, tokens: int, per: float) -> Any:
    return pb.token_bucket_pb2.TokenBucket(
        max_tokens=most, tokens_per_fill=pb.uint32(tokens), fill_interval=pb.duration(per)
    )


def _always() -> Any:
    fraction = pb.percent_pb2.FractionalPercent(numerator=100)
    return pb.base_pb2.RuntimeFractionalPercent(default_value=fraction)


def _header(name: str, value: str) -> Any:
    return pb.base_pb2.HeaderValueOption(
        header=pb.base_pb2.HeaderValue(key=name, value=value), append_action=_OVERWRITE
    )
