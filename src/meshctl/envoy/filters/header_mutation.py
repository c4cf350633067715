"""Turns what is said of deadlines into what the router obeys.  Pure.

The router can be told to obey a caller's ``x-envoy-expected-rq-timeout-ms``, but then a larger value lengthens its
timeout, and cuts off answers that have begun. So it is told by headers that it always obeys, where that is right.
Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/header_mutation_filter
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.timeouts import DEADLINE_HEADER, TOLD_HEADER, HeedDeadline, KeepDeadline

NAME = "envoy.filters.http.header_mutation"

ASK_HEADER = "x-client-trace-id"
"""By this, whatever it holds, a client asks Envoy for a trace; it goes no further than the sidecar. Source:
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers#x-client-trace-id"""

_WHOLE = "x-envoy-upstream-rq-timeout-ms"
_UNTIL_ANSWER = "x-envoy-upstream-rq-per-try-timeout-ms"


def build(listener: HttpListener) -> Any:
    """The filter, off until a route switches it on."""
    del listener
    config = pb.header_mutation_pb2.HeaderMutation(mutations=pb.header_mutation_pb2.Mutations())
    return pb.http_connection_manager_pb2.HttpFilter(name=NAME, typed_config=pb.any_of(config), disabled=True)


def keep_deadline(plan: KeepDeadline) -> Any:
    """The timeout of a request is what its own header says."""
    del plan
    return _copy_to(_WHOLE)


def heed_deadline(plan: HeedDeadline) -> Any:
    """An answer must begin before its caller stops waiting."""
    del plan
    return _copy_to(_UNTIL_ANSWER)


def build_early(listener: HttpListener) -> Any:
    """What happens to a request's headers before anything else does.

    Envoy takes a caller's ``x-envoy-`` headers away unless its address counts as internal, which depends on what
    ``x-forwarded-for`` holds. So what is said of a deadline is copied first. The gateway believes nobody.

    A request that brings a trace context is recorded or not as that says: the header by which a client asks for a
    trace makes Envoy heed it, whatever the share is; without, it would record only what both choose. At the gateway the
    share holds for all.
    """
    told = pb.mutation_rules_pb2.HeaderMutation()
    traced = pb.mutation_rules_pb2.HeaderMutation()
    if listener.role == "gateway":
        told.remove = TOLD_HEADER
        traced.remove = ASK_HEADER
    else:
        told.append.CopyFrom(_copy(DEADLINE_HEADER, TOLD_HEADER))
        traced.append.CopyFrom(_copy("traceparent", ASK_HEADER))
    config = pb.early_header_mutation_pb2.HeaderMutation(mutations=[told, traced])
    return pb.extension_pb2.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation", typed_config=pb.any_of(config)
    )


def _copy_to(name: str) -> Any:
    mutations = pb.header_mutation_pb2.Mutations()
    mutations.request_mutations.add(append=_copy(TOLD_HEADER, name))
    return pb.header_mutation_pb2.HeaderMutationPerRoute(mutations=mutations)


def _copy(source: str, target: str) -> Any:
    return pb.base_pb2.HeaderValueOption(
        header=pb.base_pb2.HeaderValue(key=target, value=f"%REQ({source})%"),
        append_action=pb.base_pb2.HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
