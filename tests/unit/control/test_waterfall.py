"""Spans -> waterfalls: order, words, and what is missing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.support.spans import make_span, span_id, trace_id

from meshctl.control.waterfall import build_trace, read_request, summarize
from meshctl.telemetry.spans import Span
from meshctl.telemetry.trace_store import Bounds, KeptTrace, TraceStore
from meshctl.wire.traces import SpanRow, Trace

MS = 1_000_000


def keep(*spans: Span) -> KeptTrace:
    store = TraceStore()
    store.add(spans, 100.0)
    kept = store.get(trace_id(1))
    assert kept is not None
    return kept


def caller(number: int, *, parent: int = 0, to: str = "payment/v1", status: int = 200, **changes: object) -> Span:
    attributes = {
        "http.url": "http://payment/charges?id=1",
        "http.method": "POST",
        "http.status_code": str(status),
        "upstream_cluster": to,
        "meshctl.details": "via_upstream",
        **(changes.pop("attributes", {}) or {}),  # type: ignore[dict-item]
    }
    given: dict[str, object] = {"kind": "caller", "service": "checkout", "listener": "upstream/payment"}
    return make_span(1, number, parent=parent, attributes=attributes, failed=status >= 500, **{**given, **changes})  # type: ignore[arg-type]


def callee(number: int, *, parent: int, **changes: object) -> Span:
    given = {"kind": "callee", "service": "payment", "instance": "payment-v1-1", "listener": "inbound/payment-v1-1"}
    return caller(number, parent=parent, **{**given, "to": "local/payment-v1-1", **changes})  # type: ignore[arg-type]


def drawn(trace: Trace) -> list[tuple[int, str, str]]:
    return [(row.depth, row.kind, row.name if row.kind == "own" else row.instance or row.name) for row in trace.spans]


def row_of(trace: Trace, number: int) -> SpanRow:
    return next(row for row in trace.spans if row.id == span_id(number))


def test_a_call_has_both_sides_and_what_the_service_did() -> None:
    own = make_span(1, 4, parent=3, kind="own", service="payment", instance="payment-v1-1", name="charge card")
    trace = build_trace(keep(own, callee(3, parent=1), caller(1)))
    assert drawn(trace) == [
        (0, "caller", "POST /charges?id=1"),
        (1, "callee", "payment-v1-1"),
        (2, "own", "charge card"),
    ]
    assert (trace.complete, trace.failed, trace.services) == (True, False, ["checkout", "payment"])
    assert (row_of(trace, 1).source, row_of(trace, 1).destination) == ("checkout", "payment")


def test_each_try_of_a_call_has_a_row_of_its_own() -> None:
    call = caller(1, end=9 * MS, attributes={"meshctl.tries": "2"})
    tries = [callee(3, parent=1, start=5 * MS), callee(2, parent=1, start=1 * MS, status=503)]
    trace = build_trace(keep(call, *tries))
    assert [(row.id, row.attempt, row.status) for row in trace.spans] == [
        (span_id(1), 0, 200),
        (span_id(2), 1, 503),
        (span_id(3), 2, 200),
    ]
    assert row_of(trace, 1).notes == ["2 tries"]
    assert (trace.failed, trace.complete) == (False, True)
    assert summarize(keep(call, *tries)).notes[0] == "retried"


def test_tries_that_reached_nobody_are_counted() -> None:
    def notes(*spans: Span, tries: str, to: str = "payment/v1") -> list[str]:
        return row_of(build_trace(keep(caller(1, to=to, attributes={"meshctl.tries": tries}), *spans)), 1).notes

    assert notes(callee(2, parent=1), tries="3") == ["3 tries, 2 of them reached no instance"]
    assert notes(tries="2", to="external/bank") == ["2 tries"]
    # What came beside the only try is no other one: a mirrored request.
    assert notes(callee(2, parent=1), callee(3, parent=1), tries="1") == []
    assert notes(tries="0") == notes(tries="-") == notes(tries="9" * 5000) == []


def test_a_mirrored_copy_is_a_call_of_its_own_and_no_try() -> None:
    copy = make_span(
        *(1, 5),
        parent=1,
        service="checkout",
        listener="",
        name="mirror",
        attributes={"upstream_cluster": "mirror/payment/v2", "http.status_code": "503"},
        failed=True,
    )
    told = callee(6, parent=5, instance="payment-v2-1", listener="inbound/payment-v2-1", status=503)
    trace = build_trace(keep(caller(1, attributes={"meshctl.tries": "2"}), callee(2, parent=1), copy, told))
    row = row_of(trace, 5)
    assert (row.kind, row.source, row.destination, row.version) == ("caller", "checkout", "payment", "v2")
    assert (row.name, row.status, row.notes) == ("mirrored copy", 503, [])
    assert (row_of(trace, 6).attempt, row_of(trace, 6).depth) == (0, 2)
    assert row_of(trace, 1).notes == ["2 tries, 1 of them reached no instance"]
    assert (trace.failed, trace.complete) == (False, True)


def test_a_grpc_status_is_told_by_its_name() -> None:
    span = caller(1, attributes={"grpc.status_code": "14"})
    assert build_trace(keep(span)).spans[0].notes == ["grpc UNAVAILABLE"]


def test_flags_and_answers_of_the_mesh_are_told_in_words() -> None:
    span = caller(1, status=504, attributes={"response_flags": "UT", "meshctl.details": "response_timeout"})
    assert build_trace(keep(span)).spans[0].notes == ["timeout"]
    span = caller(1, status=503, attributes={"meshctl.circuit": "open", "meshctl.details": ""})
    assert build_trace(keep(span)).spans[0].notes == ["circuit open"]
    span = caller(1, attributes={"meshctl.fallback": "cached"})
    assert build_trace(keep(span)).spans[0].notes == ["fallback answer"]
    span = caller(1, status=503, attributes={"response_flags": "FI", "meshctl.details": "fault_filter_abort"})
    assert build_trace(keep(span)).spans[0].notes == ["injected error"]


def test_a_span_whose_parent_never_came_stands_where_it_fell_into() -> None:
    """A service that makes spans of its own and sends them elsewhere."""
    outer = callee(3, parent=1, service="checkout", instance="checkout-v1-1", start=0, end=50 * MS)
    inner = caller(6, parent=99, to="external/bank", start=10 * MS, end=20 * MS)
    trace = build_trace(keep(caller(1, service="frontend"), outer, inner))
    assert row_of(trace, 6).placed == "by_time"
    assert row_of(trace, 6).depth == 2
    assert trace.missing == ["spans that checkout made itself and did not send here"]


def test_a_trace_that_a_caller_outside_began_is_whole() -> None:
    trace = build_trace(keep(caller(1, parent=77, service="gateway"), callee(2, parent=1)))
    assert trace.complete


def test_what_only_one_side_told_is_named() -> None:
    assert build_trace(keep(caller(1))).missing == ["what payment saw of a request"]
    assert build_trace(keep(callee(3, parent=2))).missing == ["what the caller of payment-v1-1 saw"]


def test_an_address_outside_the_mesh_has_one_side() -> None:
    trace = build_trace(keep(caller(1, to="external/bank")))
    assert trace.complete


def test_spans_without_room_are_counted_as_missing() -> None:
    store = TraceStore(Bounds(spans_per_trace=1))
    store.add([caller(1), callee(2, parent=1)], 0.0)
    kept = store.get(trace_id(1))
    assert kept is not None
    assert build_trace(kept).missing[-1:] == ["1 spans for which there was no room: a trace has at most 1"]


def test_what_goes_on_after_its_caller_is_marked() -> None:
    trace = build_trace(keep(caller(1, end=10 * MS), callee(2, parent=1, end=90 * MS)))
    assert [row.late for row in trace.spans] == [False, True]


def test_a_url_that_is_none_breaks_nothing() -> None:
    span = caller(1, attributes={"http.url": "http://[::1/x]y"})
    request = read_request(span)
    assert request is not None
    assert request.method == "POST"


def test_a_call_is_not_put_under_what_came_of_it() -> None:
    first = make_span(1, 1, parent=9, kind="caller", service="b", start=0, end=10 * MS)
    second = make_span(1, 2, parent=1, kind="callee", service="b", listener="inbound/b-v1-1", start=0, end=9 * MS)
    assert [row.id for row in build_trace(keep(first, second)).spans] == [first.span_id, second.span_id]


SPANS = st.builds(
    lambda number, parent, kind, start, length, service: make_span(
        1,
        number,
        parent=parent,
        kind=kind,
        service=service,
        listener="" if kind == "own" else "inbound/a-v1-1" if kind == "callee" else "outbound",
        start=start * MS,
        end=(start + length) * MS,
    ),
    st.integers(1, 12),
    st.integers(0, 14),
    st.sampled_from(["caller", "callee", "own"]),
    st.integers(0, 50),
    st.integers(0, 50),
    st.sampled_from(["a", "b", "gateway"]),
)


@given(st.lists(SPANS, min_size=1, max_size=14))
def test_every_span_has_one_row_whatever_its_parents(spans: list[Span]) -> None:
    """Circles, orphans and spans that are their own parents among them."""
    kept = keep(*spans)
    trace = build_trace(kept)
    assert sorted(row.id for row in trace.spans) == sorted(kept.spans)
    seen: set[str] = set()
    for row in trace.spans:
        assert not row.parent or row.parent in seen
        assert row.start_ms >= 0
        seen.add(row.id)
    assert summarize(kept).spans == len(kept.spans)
