"""What OTLP says of a span -> a Span, whoever made it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.envoy.tracing import seen_fields
from meshctl.telemetry.intake import Intake
from meshctl.telemetry.spans import MAX_NAME, MAX_VALUE, Span, has_failed, make_span

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def make(**changes: Any) -> Span | None:
    given: dict[str, Any] = {
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_id": "",
        "resource": {"service.name": "checkout"},
        "name": "GET",
        "start_ns": 10,
        "end_ns": 20,
        "failed": False,
        "message": "",
        "attributes": {},
    }
    return make_span(**{**given, **changes})


def must(**changes: Any) -> Span:
    span = make(**changes)
    assert span is not None
    return span


@pytest.mark.parametrize(
    ("attributes", "kind", "instance"),
    [
        ({"meshctl.seen": "upstream/payment"}, "caller", ""),
        ({"meshctl.seen": "gateway"}, "caller", ""),
        ({"meshctl.seen": "inbound/checkout-v1-2"}, "callee", "checkout-v1-2"),
        ({}, "own", ""),
    ],
)
def test_a_listener_tells_who_saw_what(attributes: dict[str, str], kind: str, instance: str) -> None:
    span = must(attributes=attributes)
    assert (span.kind, span.instance) == (kind, instance)


def test_a_service_may_say_which_instance_it_is() -> None:
    assert must(resource={"service.name": "a", "service.instance.id": "a-v1-1"}).instance == "a-v1-1"


def test_only_what_a_sidecar_knows_is_kept_of_its_span() -> None:
    known = {"details": "via_upstream", "tries": "3", "circuit": "open", "denied": ""}
    seen = "\t".join(("gateway", *(known.get(field, "-") for field in seen_fields("gateway"))))
    span = must(
        attributes={"node_id": "gateway", "component": "proxy", "user_agent": "-", "meshctl.seen": seen,
                    "http.method": "GET"}
    )  # fmt: skip
    assert dict(span.attributes) == {
        "http.method": "GET",
        "meshctl.details": "via_upstream",
        "meshctl.tries": "3",
        "meshctl.circuit": "open",
    }


def test_a_tag_that_was_cut_off_tells_what_is_left_of_it() -> None:
    assert dict(must(attributes={"meshctl.seen": "gateway\tvia_up"}).attributes) == {"meshctl.details": "via_up"}


@pytest.mark.parametrize("status", ["0", "500", "503", "-", ""])
def test_no_answer_and_a_status_from_500_are_failures(status: str) -> None:
    assert has_failed(status)
    assert must(attributes={"meshctl.seen": "gateway", "http.status_code": status or "-"}).failed


def test_a_status_below_500_is_none() -> None:
    assert not has_failed("404")
    assert not must(attributes={"meshctl.seen": "gateway", "http.status_code": "404"}).failed


@pytest.mark.parametrize(
    ("code", "failed"), [("0", False), ("5", False), ("7", False), ("13", True), ("14", True), ("-", True)]
)
def test_a_grpc_status_fails_a_request_when_it_is_the_servers_fault(code: str, failed: bool) -> None:
    """As it does in the figures; Envoy marks every status but OK."""
    seen = {"meshctl.seen": "gateway", "http.status_code": "200", "grpc.status_code": code}
    assert must(attributes=seen, failed=True).failed is failed


def test_the_span_that_envoy_makes_of_a_copy_is_one_of_its_sender() -> None:
    tags = {"component": "proxy", "upstream_cluster": "mirror/payment/v2", "http.status_code": "503"}
    span = must(name="mirror", attributes=tags)
    assert (span.kind, span.service, span.failed) == ("caller", "checkout", True)
    assert "component" not in span.attributes
    assert must(attributes=tags | {"upstream_cluster": "mirror/v2"}).kind == "own", "a service of that name"


@pytest.mark.parametrize(
    "changes",
    [
        {"trace_id": TRACE[:-2]},
        {"trace_id": "0" * 32},
        {"trace_id": TRACE.upper()},
        {"span_id": ""},
        {"span_id": "0" * 16},
        {"span_id": SPAN + "00"},
    ],
)
def test_without_ids_it_is_no_span(changes: dict[str, str]) -> None:
    assert make(**changes) is None


def test_a_parent_that_is_none_makes_it_the_first() -> None:
    assert must(parent_id="0" * 16).parent_id == ""
    assert must(parent_id="xyz").parent_id == ""


def test_a_span_never_ends_before_it_begins() -> None:
    assert must(start_ns=50, end_ns=20).end_ns == 50


@given(st.text(max_size=2000), st.text(max_size=2000), st.text(max_size=2000))
def test_texts_have_a_bound(name: str, message: str, service: str) -> None:
    span = must(name=name, message=message, resource={"service.name": service})
    assert len(span.name) <= MAX_NAME
    assert len(span.service) <= MAX_NAME
    assert len(span.message) <= MAX_VALUE


def test_what_is_taken_is_bounded_and_fills_up_with_time() -> None:
    intake = Intake(rate=100, burst=1000)
    assert intake.take(1000, 1.0)
    assert not intake.take(1, 1.0)
    assert intake.take(200, 3.0)
    assert not intake.take(150, 4.0)
    assert intake.take(1000, 1000.0)
    assert not intake.take(1, 0.0)
