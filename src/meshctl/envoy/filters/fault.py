"""Faults on requests: a few fault filters, each with an empty script before it, all switched off.  Pure.

Routes say what a slot does and to which requests; how often is a runtime value of the fault, which is 0 where the value
is not there. A fault that a route configures ignores the runtime values of the filter itself, so each names its own.
Sources: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/fault_filter and
https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/filters/http/fault/v3/fault.proto

What a slot did to a request it notes in the request's metadata, from where the header that names the fault is made. A
request that is to be cut off is answered with more headers than the other sidecar takes (100), which resets its stream
and no other: nothing else in Envoy does that before an answer has begun (docs/adr/0022).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.route_matches import build_header, regex_matcher
from meshctl.plan.model import HttpListener
from meshctl.plan.policies.faults import MILLION, SLOTS, FaultDraw, FaultMatch, FaultPlan
from meshctl.plan.policies.rate_limits import CALLER_HEADER
from meshctl.spec.routing_schema import PathMatch

FAULT_HEADER = "x-meshctl-fault"
"""Names the fault that made an answer, delayed it or slowed it."""

_DELAY_HEADER = "x-envoy-fault-delay-request"
_RATE_HEADER = "x-envoy-fault-throughput-response"
# Where the fault filter reads what is drawn for a request.

_CUTTING_HEADERS = 120
_HTTP_OF_CUT = 503
_APPEND = pb.base_pb2.HeaderValueOption.HeaderAppendAction
_FAULT = pb.fault_pb2.HTTPFault

_SCRIPT = """\
math.randomseed(os.time() + (tonumber(tostring({{}}):match("0x(%x+)") or "0", 16) % 2147483647))
for _ = 1, 8 do math.random() end
function envoy_on_request(handle)
  local headers = handle:headers()
  if math.random() >= {share} then
    headers:remove("{delay_header}")
    headers:remove("{rate_header}")
    return
  end
  headers:replace("{delay_header}", tostring(math.random({shortest}, {longest})))
  headers:{set_rate}
end
"""
# Each state of Lua begins with the same random numbers, hence the seed: the time, and where a table lies in memory.


def configure(plan: FaultPlan) -> Any:
    """What one slot does."""
    config = _FAULT(
        headers=list(_conditions(plan.match)),
        upstream_cluster=plan.match.cluster,
        disable_downstream_cluster_stats=True,
        filter_metadata={"fault": plan.fault, **({"cut": "1"} if plan.cut else {})},
    )
    if plan.delay:
        config.delay.percentage.CopyFrom(_none())
        config.delay_percent_runtime = f"{plan.key}.delay"
        if plan.drawn:
            config.delay.header_delay.SetInParent()
        else:
            config.delay.fixed_delay.CopyFrom(pb.duration(plan.delay))
    if plan.abort or plan.cut:
        config.abort.http_status = plan.abort or _HTTP_OF_CUT
    elif plan.grpc_status is not None:
        config.abort.grpc_status = plan.grpc_status
    if config.HasField("abort"):
        config.abort.percentage.CopyFrom(_none())
        config.abort_percent_runtime = f"{plan.key}.abort"
    if plan.rate:
        config.response_rate_limit.header_limit.SetInParent()
        config.response_rate_limit.percentage.CopyFrom(_none())
        config.response_rate_limit_percent_runtime = f"{plan.key}.rate"
    return config


def configure_draw(draw: FaultDraw) -> Any:
    """The script before one slot."""
    set_rate = f'replace("{_RATE_HEADER}", "{draw.rate}")' if draw.rate else f'remove("{_RATE_HEADER}")'
    source = _SCRIPT.format(
        share=f"{draw.share:.9g}" if draw.share < 1 else "2",
        shortest=draw.shortest,
        longest=draw.longest,
        set_rate=set_rate,
        delay_header=_DELAY_HEADER,
        rate_header=_RATE_HEADER,
    )
    return pb.lua_pb2.LuaPerRoute(source_code=pb.base_pb2.DataSource(inline_string=source))


def filter_name(plan: FaultPlan) -> str:
    """The filter that a plan switches on."""
    return _slot_name(plan.slot)


def draw_name(draw: FaultDraw) -> str:
    """The filter of the script before a slot."""
    return _draw_name(draw.slot)


def mark(target: Any, plan: FaultPlan) -> None:
    """Have answers of a route or a virtual host (its message) say which fault made them.

    And have what a script wrote for the fault filter go no further.
    """
    name = _slot_name(plan.slot)
    target.response_headers_to_add.append(
        pb.base_pb2.HeaderValueOption(
            header=pb.base_pb2.HeaderValue(key=FAULT_HEADER, value=f"%DYNAMIC_METADATA({name}:fault)%"),
            append_action=_APPEND.ADD_IF_ABSENT if plan.again else _APPEND.APPEND_IF_EXISTS_OR_ADD,
        )
    )
    if plan.drawn:
        target.request_headers_to_remove.extend(
            header for header in (_DELAY_HEADER, _RATE_HEADER) if header not in target.request_headers_to_remove
        )
    for number in range(_CUTTING_HEADERS if plan.cut else 0):
        value = pb.base_pb2.HeaderValue(key=f"x-meshctl-cut-{number}", value=f"%DYNAMIC_METADATA({name}:cut)%")
        target.response_headers_to_add.append(
            pb.base_pb2.HeaderValueOption(header=value, append_action=_APPEND.OVERWRITE_IF_EXISTS_OR_ADD)
        )


def _build(slot: int, _listener: HttpListener) -> Any:
    return pb.http_connection_manager_pb2.HttpFilter(
        name=_slot_name(slot), typed_config=pb.any_of(_FAULT()), disabled=True
    )


def _build_draw(slot: int, _listener: HttpListener) -> Any:
    # Without a script there is no state of Lua, which would take more memory than all else of the listener.
    return pb.http_connection_manager_pb2.HttpFilter(
        name=_draw_name(slot), typed_config=pb.any_of(pb.lua_pb2.Lua()), disabled=True
    )


def _slot_name(slot: int) -> str:
    return f"meshctl.fault.{slot}"


def _draw_name(slot: int) -> str:
    return f"meshctl.fault.{slot}.draw"


FAULT_SLOTS: tuple[Callable[[HttpListener], Any], ...] = tuple(
    partial(build, slot) for slot in range(SLOTS) for build in (_build_draw, _build)
)
"""The filters of all slots, each disabled, for every listener."""


def _conditions(match: FaultMatch) -> Iterator[Any]:
    if match.identities:
        # One element, made by this sidecar: By=<own identity>;Hash=<of the certificate>;URI=<the caller's>.
        names = "|".join(re.escape(identity) for identity in match.identities)
        yield _text(CALLER_HEADER, f".*;URI=(?:{names})")
    if match.path != PathMatch():
        yield _text(":path", _path_pattern(match.path))
    if match.methods:
        yield _text(":method", "|".join(re.escape(method) for method in match.methods))
    yield from (build_header(condition) for condition in match.headers)
    if match.spared:
        paths = "|".join(re.escape(path) for path in match.spared)
        spared = _text(":path", f"(?:{paths})(?:[?].*)?")
        spared.invert_match = True
        yield spared


def _path_pattern(path: PathMatch) -> str:
    """What the whole of ``:path``, with its query, must be."""
    if path.kind == "regex":
        return f"(?:{path.value})(?:[?].*)?"
    beginning = re.escape(path.value.rstrip("/") if path.kind == "prefix" else path.value)
    return f"{beginning}{'(?:/[^?]*)?' if path.kind == 'prefix' else ''}(?:[?].*)?"


def _text(name: str, pattern: str) -> Any:
    return pb.route_components_pb2.HeaderMatcher(name=name, string_match=regex_matcher(pattern))


def _none() -> Any:
    return pb.percent_pb2.FractionalPercent(numerator=0, denominator=pb.percent_pb2.FractionalPercent.MILLION)


def build_share(millionths: int) -> dict[str, Any]:
    """A share of requests as a runtime value."""
    assert 0 <= millionths <= MILLION
    return {"numerator": millionths, "denominator": "MILLION"}
