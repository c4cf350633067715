"""Requests as sidecars tell of them: lines of access logs, flags in words, what taps ask for."""

from __future__ import annotations

import json

import pytest
from envoy.data.accesslog.v3 import accesslog_pb2
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.taps import make_request

from meshctl.wire.requests import MAX_PATH, MAX_TEXT, SeenRequest, read_fields, read_line
from meshctl.wire.response_flags import LONG_NAMES, WORDS, explain, split_flags
from meshctl.wire.taps import TapQuery, is_status

FIELDS = ["cluster", "details", "flags", "peer", "status", "time", "tries", "us"]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def line(**changes: object) -> str:
    fields = {
        "access": "caller",
        "cluster": "payment/v1",
        "details": "via_upstream",
        "flags": "-",
        "listener": "upstream/payment",
        "method": "GET",
        "path": "/charge",
        "status": 200,
        "time": "1770000000.25",
        "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
        "tries": 1,
        "upstream": "127.0.0.1:30001",
        "us": 12500,
    }
    return json.dumps({**fields, **changes}, sort_keys=True, separators=(",", ":"))


def read(text: str, sidecar: str = "checkout") -> SeenRequest:
    found = read_line(text, sidecar=sidecar, instances={"127.0.0.1:30001": "payment-v1-1"})
    assert found is not None
    return found


def test_a_caller_tells_destination_version_and_instance() -> None:
    found = read(line())
    assert (found.source, found.destination, found.version, found.instance) == (
        "checkout",
        "payment",
        "v1",
        "payment-v1-1",
    )
    assert (found.status, found.duration_ms, found.trace_id, found.reasons) == (200, 12.5, TRACE, [])


def test_a_callee_tells_its_caller_by_identity() -> None:
    text = line(access="callee", listener="inbound/payment-v2-beta-1", peer="spiffe://shop.mesh/checkout")
    found = read(text, "payment")
    assert (found.side, found.source, found.destination, found.version) == ("callee", "checkout", "payment", "v2-beta")


def test_what_is_no_service_is_told_by_its_host() -> None:
    outside = line(cluster="passthrough", listener="outbound", host="example.org:81")
    assert read(outside).destination == "example.org:81"


@pytest.mark.parametrize(
    ("listener", "expected"), [("upstream/payment", "payment"), ("outbound", "orders"), ("gateway", "frontend")]
)
def test_what_a_sidecar_answers_itself_has_a_destination_too(listener: str, expected: str) -> None:
    text = line(cluster=None, listener=listener, host="orders:80", route="frontend/2", details="lua_response")
    assert read(text).destination == expected


def test_an_external_service_has_no_version() -> None:
    assert read(line(cluster="external/mail")).destination == "mail"


def test_a_copy_goes_to_the_version_that_it_is_mirrored_to() -> None:
    found = read(line(cluster="mirror/payment/v2"))
    assert (found.destination, found.version) == ("payment", "v2")
    found = read(line(cluster="mirror/v2"))
    assert (found.destination, found.version) == ("mirror", "v2")


def test_a_grpc_status_is_among_the_reasons() -> None:
    assert read(line(grpc=14)).describe() == "grpc UNAVAILABLE"
    assert read(line(grpc=0)).describe() == read(line(grpc="-")).describe() == ""


@pytest.mark.parametrize("text", ["", "starting", '{"access":"', '{"access":"caller"', '{"meshctl":"authorization"}'])
def test_other_lines_are_none(text: str) -> None:
    assert read_line(text, sidecar="a", instances={}) is None


@given(
    st.dictionaries(
        st.sampled_from(FIELDS),
        st.none() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_whatever_a_line_holds_is_read(fields: dict[str, object]) -> None:
    """Nothing that a caller sends can break the log, or make a request that has no bounds."""
    found = read(line(**fields, path="/" + "x" * 100_000, host="y" * 100_000))
    assert len(found.path) <= MAX_PATH
    assert all(len(text) <= MAX_TEXT for text in (found.destination, found.source, found.detail, found.route))


def test_a_traceparent_that_is_none_gives_no_trace() -> None:
    assert read(line(traceparent="00-" + "z" * 32 + "-1-1")).trace_id == ""


def test_every_flag_of_envoy_has_words() -> None:
    known = {field.name for field in accesslog_pb2.ResponseFlags.DESCRIPTOR.fields}
    assert known == set(LONG_NAMES)
    assert set(LONG_NAMES.values()) <= set(WORDS)


@pytest.mark.parametrize(
    ("flags", "details", "headers", "words"),
    [
        ("-", "via_upstream", {}, ()),
        ("UH", "no_healthy_upstream", {}, ("no healthy upstream",)),
        ("-", "via_upstream", {"late": "1"}, ("timeout",)),
        ("UT", "response_timeout", {}, ("timeout",)),
        ("UF,URX", "upstream_reset_before_response_started", {}, ("connection failed", "retry limit")),
        ("DI", "via_upstream", {}, ("injected delay",)),
        ("FI", "fault_filter_abort", {}, ("injected error",)),
        ("-", "lua_response", {"circuit": "open"}, ("circuit open",)),
        ("-", "rbac_access_denied_matched_policy[none]", {}, ("denied",)),
        ("UAEX", "rbac_access_denied_matched_policy[x]", {"denied": "x"}, ("denied",)),
        ("RL", "local_rate_limited", {"limited": "all"}, ("rate limited",)),
        ("XX", "", {}, ("XX",)),
        ("-", "via_upstream", {"grpc": "0"}, ()),
        ("-", "via_upstream", {"grpc": "14"}, ("grpc UNAVAILABLE",)),
        ("URX", "via_upstream", {"grpc": "99"}, ("retry limit", "grpc 99")),
    ],
)
def test_reasons_are_in_words(flags: str, details: str, headers: dict[str, str], words: tuple[str, ...]) -> None:
    assert explain(split_flags(flags), details, **headers) == words


@pytest.mark.parametrize(
    ("changes", "rule", "words"),
    [
        ({}, "", ""),
        ({"authorization": "allowed", "rule": "rule:all", "audit": "allowed", "audit_rule": "rule:x"}, "", ""),
        ({"audit": "denied", "audit_rule": "rule:x"}, "rule:x", "would be denied (x)"),
        ({"details": "rbac_access_denied_matched_policy[rule:x]"}, "rule:x", "denied (x)"),
        ({"denied": "rbac_access_denied_matched_policy[no-allow-rule]"}, "no-allow-rule", "denied (no-allow-rule)"),
        ({"denied": "rbac_access_denied_matched_policy[a-name-that-was-cut"}, *["a-name-that-was-cut"] * 2),
        ({"details": "rbac_access_denied"}, "", "denied"),
    ],
)
def test_a_refusal_names_its_rule(changes: dict[str, object], rule: str, words: str) -> None:
    found = read(line(**changes))
    assert found.rule == rule
    assert words in found.describe()


def query(**changes: object) -> TapQuery:
    empty: dict[str, object] = {"to": [], "source": [], "path": "", "methods": [], "statuses": []}
    return TapQuery(**{**empty, "side": "caller", "minimum_ms": 0.0, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"to": ["payment"]}, True),
        ({"to": ["orders"]}, False),
        ({"source": ["checkout"]}, True),
        ({"source": ["frontend"]}, False),
        ({"side": "callee"}, False),
        ({"path": "/cha"}, True),
        ({"path": "*arg*"}, True),
        ({"path": "/orders"}, False),
        ({"methods": ["GET"]}, False),
        ({"statuses": ["5xx"]}, True),
        ({"statuses": ["200", "503"]}, True),
        ({"statuses": ["4xx"]}, False),
        ({"minimum_ms": 12.0}, True),
        ({"minimum_ms": 13.0}, False),
    ],
)
def test_a_tap_shows_what_fits_all_it_asks(changes: dict[str, object], fits: bool) -> None:
    assert query(**changes).match(make_request()) is fits


def test_sidecars_are_asked_for_the_range_of_statuses() -> None:
    assert query(statuses=["5xx", "404"]).status_range() == (404, 599)
    assert query().status_range() == (0, 999)
    assert [is_status(text) for text in ("5xx", "503", "0", "6xx", "50", "x")] == [
        True,
        True,
        True,
        False,
        False,
        False,
    ]


def test_fields_that_are_missing_leave_names_empty() -> None:
    found = read_fields({}, sidecar="a", instances={})
    assert (found.destination, found.status, found.side) == ("", 0, "caller")
