"""Turns what is said of deadlines into what the router obeys.  Pure.

The router can be told to obey a caller's ``x-envoy-expected-rq-timeout-ms``, but then a larger value lengthens its
timeout, and cuts off answers that have begun. So it is told by headers that it always obeys, where that is right.
Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/header_mutation_filter
"""

from __future__ import annotations

from typing import Any

from meshctl.envoy import pb
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.timeouts import DEADLINE_HEADER, HeedDeadline, KeepDeadline

NAME = "envoy.filters.http.header_mutation"
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


def _copy_to(name: str) -> Any:
    option = pb.base_pb2.HeaderValueOption(
        header=pb.base_pb2.HeaderValue(key=name, value=f"%REQ({DEADLINE_HEADER})%"),
        append_action=pb.base_pb2.HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
    )
    mutations = pb.header_mutation_pb2.Mutations()
    mutations.request_mutations.add(append=option)
    return pb.header_mutation_pb2.HeaderMutationPerRoute(mutations=mutations)
