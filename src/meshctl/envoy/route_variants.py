"""Forward -> the routes that Envoy needs for it: what depends on the request itself becomes routes of its own.  Pure.

Envoy's timeout of a route is one number. Three things decide what it has to be, and each is a match of the request
(docs/adr/0012-deadlines-that-travel.md and 0013-timeouts-and-streams.md say why it is done in this way):

- whoever accepts an event stream must not be cut off in the midst of it: no timeout, but one for the answer to begin;
- an application that says how long its own caller still waits shortens the timeout, and never lengthens it;
- otherwise the timeout is that of the plan.

A split that is sticky by cookie has each of them twice: a user without the cookie is given one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.route_actions import add_header, build_forward, hash_policy
from meshctl.envoy.route_matches import build_match, regex_matcher
from meshctl.plan.model import FilterPlan, Forward, Match
from meshctl.plan.policies.hashing import HashOn
from meshctl.plan.policies.timeouts import TOLD_HEADER, KeepDeadline

EVENT_STREAM = "text/event-stream"
_REQUEST_ID = "x-request-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One route: its match and action as messages, and what it has beside those of the plan's route."""

    match: Any
    action: Any
    filters: tuple[FilterPlan, ...] = ()
    response_headers: tuple[Any, ...] = ()


def forward_variants(match: Match, action: Forward) -> Iterator[Variant]:
    """The routes of one forwarding, in their order."""
    for variant in _by_time(match, action):
        yield from _by_cookie(variant, action)


def _by_time(match: Match, action: Forward) -> Iterator[Variant]:
    per_try = action.retry.per_try_timeout if action.retry is not None else 0.0
    timeout = action.timeout
    if timeout:
        stream = pb.string_pb2.StringMatcher(contains=EVENT_STREAM, ignore_case=True)
        accepts = build_match(match, pb.route_components_pb2.HeaderMatcher(name="accept", string_match=stream))
        # Until an answer begins, an attempt is bounded by this one; after that it holds no more.
        begin = min(per_try, timeout) if per_try else timeout
        yield Variant(match=accepts, action=build_forward(action, timeout=0.0, per_try_timeout=begin))
        if round(timeout * 1000) > 1:
            less = pb.range_pb2.Int64Range(start=1, end=round(timeout * 1000))
            told = build_match(match, pb.route_components_pb2.HeaderMatcher(name=TOLD_HEADER, range_match=less))
            forward = build_forward(action, timeout=timeout, per_try_timeout=per_try)
            yield Variant(match=told, action=forward, filters=(KeepDeadline(),))
    yield Variant(match=build_match(match), action=build_forward(action, timeout=timeout, per_try_timeout=per_try))


def _by_cookie(variant: Variant, action: Forward) -> Iterator[Variant]:
    first = action.hash_on[0] if action.hash_on else None
    if first is None or not action.sticky or first.kind != "cookie":
        variant.action.hash_policy.extend(hash_policy(item, generate=not action.sticky) for item in action.hash_on)
        yield variant
        return
    # When Envoy chooses among clusters it gives no cookie to a request that has none, and would choose at random. So
    # the id of the request stands in for the cookie, and becomes its value: the next request hashes to the same.
    # Source: https://github.com/envoyproxy/envoy/blob/main/source/common/router/weighted_cluster_specifier.cc
    known = pb.route_components_pb2.RouteMatch()
    known.CopyFrom(variant.match)
    known.headers.add(name="cookie", string_match=regex_matcher(rf"(?:.*[;,]\s*)?{_escape(first.name)}=[^;]+.*"))
    chosen = pb.route_components_pb2.RouteAction()
    chosen.CopyFrom(variant.action)
    chosen.hash_policy.append(hash_policy(first, generate=False))
    yield replace(variant, match=known, action=chosen)
    variant.action.hash_policy.append(hash_policy(HashOn(kind="header", name=_REQUEST_ID), generate=False))
    yield replace(variant, response_headers=(add_header("set-cookie", _cookie(first)),))


def _cookie(hash_on: HashOn) -> str:
    age = f"; Max-Age={round(hash_on.ttl)}" if hash_on.ttl else ""
    return f"{hash_on.name.replace('%', '%%')}=%REQ({_REQUEST_ID})%; Path=/{age}; HttpOnly; SameSite=Lax"


def _escape(name: str) -> str:
    return "".join(char if char.isalnum() else f"\\{char}" if char != "_" else char for char in name)
