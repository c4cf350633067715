"""Forward, Redirect, Reply -> what a route does.  Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import Forward, PathRewrite, Redirect, Reply
from meshctl.plan.policies.hashing import HashOn
from meshctl.plan.policies.mirror import MIRRORED_HEADER, MirrorPlan
from meshctl.plan.policies.retry import NOT_REACHED_HEADER, RetryPlan

_APPEND = pb.base_pb2.HeaderValueOption.HeaderAppendAction
_NO_RETRY = RetryPlan(
    retries=0, base_interval=0.0, max_interval=0.0, per_try_timeout=0.0, status_codes=(), repeatable=False
)


def build_forward(action: Forward, *, timeout: float, per_try_timeout: float) -> Any:
    """The forwarding of a request, with timeouts in seconds (0 for none) that may differ from those of the action."""
    built = pb.route_components_pb2.RouteAction(timeout=pb.duration(timeout))
    if action.idle_timeout is not None:
        built.idle_timeout.CopyFrom(pb.duration(action.idle_timeout))
    if len(action.split) == 1:
        built.cluster = action.split[0][0]
    else:
        for cluster, weight in action.split:
            built.weighted_clusters.clusters.append(
                pb.route_components_pb2.WeightedCluster.ClusterWeight(name=cluster, weight=pb.uint32(weight))
            )
        if action.sticky:
            built.weighted_clusters.use_hash_policy.value = True
    if action.timeout == 0:
        # With no timeout of the mesh's own a gRPC client's grpc-timeout holds, whatever its length. Where there is one,
        # this must not be set: Envoy would no longer look at the route's timeout at all.
        built.max_stream_duration.grpc_timeout_header_max.CopyFrom(pb.duration(0))
    if action.host_rewrite:
        built.host_rewrite_literal = action.host_rewrite
    if action.path_rewrite is not None:
        _rewrite_path(built, action.path_rewrite)
    if action.retry is not None or per_try_timeout:
        built.retry_policy.CopyFrom(_retry(action.retry or _NO_RETRY, per_try_timeout))
    if action.mirror is not None:
        built.request_mirror_policies.append(_mirror(action.mirror))
    return built


def hash_policy(hash_on: HashOn, *, generate: bool, terminal: bool = False) -> Any:
    """What a request is hashed on; ``generate`` gives a cookie to whoever has none."""
    policy = pb.route_components_pb2.RouteAction.HashPolicy(terminal=terminal)
    if hash_on.kind == "source" and hash_on.name:
        # A header that every request has, made to say who calls.
        policy.header.header_name = ":authority"
        policy.header.regex_rewrite.pattern.regex = "^.*$"
        policy.header.regex_rewrite.substitution = hash_on.name
    elif hash_on.kind == "source":
        policy.connection_properties.source_ip = True
    elif hash_on.kind == "header":
        policy.header.header_name = hash_on.name
    else:
        policy.cookie.name = hash_on.name
        if generate and hash_on.ttl is not None:
            policy.cookie.ttl.CopyFrom(pb.duration(hash_on.ttl))
            policy.cookie.path = "/"
    return policy


def set_header(name: str, value: str) -> Any:
    """A header that replaces what there is; in the value ``%`` is doubled where it is no format."""
    return _header_option(name, value, _APPEND.OVERWRITE_IF_EXISTS_OR_ADD)


def add_header(name: str, value: str) -> Any:
    """A header beside what there is."""
    return _header_option(name, value, _APPEND.APPEND_IF_EXISTS_OR_ADD)


def change_headers(built: Any, action: Forward) -> None:
    """The changes of headers of a route."""
    request, response = action.request_changes, action.response_changes
    built.request_headers_to_add.extend(_options(request.replace, set_header))
    built.request_headers_to_add.extend(_options(request.add, add_header))
    built.request_headers_to_remove.extend(request.remove)
    built.response_headers_to_add.extend(_options((*action.response_headers, *response.replace), set_header))
    built.response_headers_to_add.extend(_options(response.add, add_header))
    built.response_headers_to_remove.extend(response.remove)


def build_redirect(action: Redirect) -> Any:
    """The answer that sends a caller elsewhere."""
    built = pb.route_components_pb2.RedirectAction()
    codes = pb.route_components_pb2.RedirectAction.RedirectResponseCode
    built.response_code = {
        301: codes.MOVED_PERMANENTLY,
        302: codes.FOUND,
        303: codes.SEE_OTHER,
        307: codes.TEMPORARY_REDIRECT,
        308: codes.PERMANENT_REDIRECT,
    }[action.status]
    if action.path:
        built.path_redirect = action.path
    host, _, port = action.host.partition(":")
    if host:
        built.host_redirect = host
    if port:
        built.port_redirect = int(port)
    if action.scheme:
        built.scheme_redirect = action.scheme
    return built


def build_reply(action: Reply) -> Any:
    """The answer that is given at once."""
    # Envoy's format strings: a literal % is doubled (https://www.envoyproxy.io/docs/envoy/latest/configuration/
    # observability/access_log/usage#format-strings).
    text = _escape(action.body).replace("{host}", "%REQ(:AUTHORITY)%").replace("{path}", "%REQ(:PATH)%")
    body = pb.substitution_format_string_pb2.SubstitutionFormatString(
        text_format_source=pb.base_pb2.DataSource(inline_string=text), content_type="text/plain; charset=utf-8"
    )
    return pb.route_components_pb2.DirectResponseAction(status=action.status, body_format=body)


def _rewrite_path(built: Any, rewrite: PathRewrite) -> None:
    # RE2's replacements refer to groups with a backslash, which paths may hold too.
    replacement = rewrite.replacement.replace("\\", r"\\")
    prefix = rewrite.prefix.rstrip("/")
    if not rewrite.prefix:
        pattern = "^.*$"
    elif not prefix:
        pattern, replacement = "^/", f"{replacement.rstrip('/')}/"
    elif replacement.rstrip("/"):
        pattern, replacement = rf"^{re.escape(prefix)}", replacement.rstrip("/")
    else:
        # `/api/x` becomes `/x` and `/api` becomes `/`, never `//x` or nothing.
        pattern, replacement = rf"^{re.escape(prefix)}/?", "/"
    built.regex_rewrite.pattern.CopyFrom(pb.regex_pb2.RegexMatcher(regex=pattern))
    built.regex_rewrite.substitution = replacement


def _retry(plan: RetryPlan, per_try_timeout: float) -> Any:
    built = pb.route_components_pb2.RetryPolicy(num_retries=pb.uint32(plan.retries))
    if per_try_timeout:
        built.per_try_timeout.CopyFrom(pb.duration(per_try_timeout))
    if not plan.retries:
        return built
    conditions = [*_conditions(plan), *plan.grpc_codes]
    built.retry_on = ",".join(sorted(conditions))
    built.retriable_status_codes.extend(plan.status_codes)
    if "retriable-headers" in conditions:
        built.retriable_headers.append(
            pb.route_components_pb2.HeaderMatcher(name=NOT_REACHED_HEADER, present_match=True)
        )
    built.retry_back_off.base_interval.CopyFrom(pb.duration(plan.base_interval))
    built.retry_back_off.max_interval.CopyFrom(pb.duration(plan.max_interval))
    if plan.other_instance:
        # How often to choose anew when an instance was tried before; then it is taken all the same. Chosen at random
        # among two, three times would be the same one too often.
        built.host_selection_retry_max_attempts = 20
        built.retry_host_predicate.add(
            name="envoy.retry_host_predicates.previous_hosts",
            typed_config=pb.any_of(pb.previous_hosts_pb2.PreviousHostsPredicate()),
        )
    return built


def _conditions(plan: RetryPlan) -> Iterable[str]:
    # Never delivered: no connection, refused by the peer's HTTP/2, reset before anything was sent, or the callee's
    # sidecar says that it could not hand the request on.
    if "connect-failure" in plan.conditions:
        yield from ("connect-failure", "retriable-headers")
    if "refused-stream" in plan.conditions:
        yield "refused-stream"
    if "reset" in plan.conditions:
        yield "reset-before-request"
        if plan.repeatable:
            yield "reset"
    if plan.repeatable:
        yield "retriable-status-codes"


def _mirror(plan: MirrorPlan) -> Any:
    fraction = pb.percent_pb2.FractionalPercent(
        numerator=round(plan.percent * 10_000), denominator=pb.percent_pb2.FractionalPercent.DenominatorType.MILLION
    )
    policy = pb.route_components_pb2.RouteAction.RequestMirrorPolicy(
        cluster=plan.cluster,
        runtime_fraction=pb.base_pb2.RuntimeFractionalPercent(default_value=fraction),
        # Envoy would add "-shadow" to the host, which frameworks that check it refuse.
        disable_shadow_host_suffix_append=True,
    )
    policy.request_headers_mutations.add(append=set_header(MIRRORED_HEADER, "1"))
    return policy


def _options(pairs: Iterable[tuple[str, str]], make: Any) -> list[Any]:
    return [make(name, _escape(value)) for name, value in pairs]


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def _header_option(name: str, value: str, action: Any) -> Any:
    return pb.base_pb2.HeaderValueOption(
        header=pb.base_pb2.HeaderValue(key=name, value=value), append_action=action, keep_empty_value=not value
    )
