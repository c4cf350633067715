"""Match -> RouteMatch.  Pure."""

from __future__ import annotations

import re
from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import Match
from meshctl.spec.routing_schema import ValueMatch

_SINGLE_LABEL = r"[^.:\[\]]+(:[0-9]+)?"
# A host of one label, with or without a port: the form of a service's name.


def build_match(match: Match, *also: Any) -> Any:
    """What a request must look like, with conditions of headers that are asked before the others."""
    built = pb.route_components_pb2.RouteMatch(headers=also)
    _set_path(built, match)
    if match.methods:
        pattern = "|".join(re.escape(method) for method in match.methods)
        built.headers.append(_text_header(":method", regex_matcher(pattern)))
    if match.header_present:
        built.headers.append(pb.route_components_pb2.HeaderMatcher(name=match.header_present, present_match=True))
    built.headers.extend(build_header(condition) for condition in match.headers)
    built.query_parameters.extend(_query(condition) for condition in match.query)
    if match.body_over:
        beyond = pb.range_pb2.Int64Range(start=match.body_over + 1, end=2**63 - 1)
        built.headers.append(pb.route_components_pb2.HeaderMatcher(name="content-length", range_match=beyond))
    if match.body_undeclared:
        built.headers.extend(_absent(name) for name in ("content-length", "upgrade"))
    if match.single_label_host:
        built.headers.append(_text_header(":authority", regex_matcher(_SINGLE_LABEL)))
    return built


def regex_matcher(pattern: str) -> Any:
    """A text that a regular expression matches as a whole."""
    return pb.string_pb2.StringMatcher(safe_regex=pb.regex_pb2.RegexMatcher(regex=pattern))


def _set_path(built: Any, match: Match) -> None:
    prefix = match.path_prefix.rstrip("/")
    if match.path_regex:
        built.safe_regex.CopyFrom(pb.regex_pb2.RegexMatcher(regex=match.path_regex))
        if prefix:
            # A route has one condition for its path; this header holds the path too, with its query.
            within = rf"{re.escape(prefix)}(?:[/?].*)?"
            built.headers.append(_text_header(":path", regex_matcher(within)))
    elif match.path_exact:
        built.path = match.path_exact
    elif prefix:
        built.path_separated_prefix = prefix
    else:
        built.prefix = "/"


def _absent(name: str) -> Any:
    return pb.route_components_pb2.HeaderMatcher(name=name, present_match=True, invert_match=True)


def build_header(condition: ValueMatch) -> Any:
    """The condition of a header."""
    if condition.kind in ("present", "absent"):
        return pb.route_components_pb2.HeaderMatcher(name=condition.name, present_match=condition.kind == "present")
    return _text_header(condition.name, _text(condition))


def _query(condition: ValueMatch) -> Any:
    if condition.kind == "present":
        return pb.route_components_pb2.QueryParameterMatcher(name=condition.name, present_match=True)
    return pb.route_components_pb2.QueryParameterMatcher(name=condition.name, string_match=_text(condition))


def _text(condition: ValueMatch) -> Any:
    if condition.kind == "regex":
        return regex_matcher(condition.value)
    return pb.string_pb2.StringMatcher(exact=condition.value)


def _text_header(name: str, matcher: Any) -> Any:
    return pb.route_components_pb2.HeaderMatcher(name=name, string_match=matcher)
