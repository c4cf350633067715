"""Traces of late in bounded memory: what failed or was slow stays longest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.support.spans import make_span, span_id, trace_id

from meshctl.telemetry.spans import Span
from meshctl.telemetry.trace_store import Bounds, TraceStore

MS = 1_000_000


def test_spans_of_a_trace_come_together_whatever_their_order() -> None:
    store = TraceStore()
    store.add([make_span(1, 2, parent=1, start=5 * MS, end=9 * MS)], 10.0)
    store.add([make_span(1, 1, start=0, end=20 * MS), make_span(2, 1)], 11.0)
    kept = store.get(trace_id(1))
    assert kept is not None
    assert set(kept.spans) == {span_id(1), span_id(2)}
    assert (kept.start_ns, kept.end_ns, kept.first_at, kept.last_at) == (0, 20 * MS, 10.0, 11.0)


def test_a_span_that_comes_twice_counts_once() -> None:
    """Who sends again because no answer came does no harm."""
    store = TraceStore()
    for _ in range(3):
        store.add([make_span(1, 1)], 0.0)
    assert store.kept().spans == 1
    assert store.take_counts() == {"frontend": 1}


def test_ids_are_found_by_how_they_begin() -> None:
    store = TraceStore()
    store.add([make_span(0x10, 1), make_span(0x11, 1)], 0.0)
    assert store.find(trace_id(0x10)[:-1]) == [trace_id(0x10), trace_id(0x11)]
    assert store.find(trace_id(0x11)) == [trace_id(0x11)]
    assert store.find("f") == []


def test_the_newest_come_first() -> None:
    store = TraceStore()
    store.add([make_span(1, 1, start=3), make_span(2, 1, start=9), make_span(3, 1, start=5)], 0.0)
    assert [kept.trace_id for kept in store.newest()] == [trace_id(n) for n in (2, 3, 1)]


def test_the_oldest_ordinary_trace_makes_room_for_a_new_one() -> None:
    store = TraceStore(Bounds(traces=4))
    store.add([make_span(1, 1, failed=True)], 0.0)
    for number in range(2, 7):
        store.add([make_span(number, 1)], float(number))
    assert [number for number in range(1, 7) if store.get(trace_id(number))] == [1, 4, 5, 6]
    assert store.kept().evicted == 2


def test_failures_leave_half_of_the_room_to_others() -> None:
    store = TraceStore(Bounds(traces=4))
    store.add([make_span(number, 1, failed=True) for number in range(1, 10)], 0.0)
    store.add([make_span(number, 1) for number in range(10, 13)], 1.0)
    found = [number for number in range(1, 13) if store.get(trace_id(number))]
    assert found == [8, 9, 11, 12]


def test_a_trace_that_turns_out_slow_is_kept_like_a_failed_one() -> None:
    store = TraceStore(Bounds(traces=2))
    store.add([make_span(1, 1, start=0, end=10 * MS)], 0.0, slow_ns=50 * MS)
    store.add([make_span(1, 2, parent=1, start=10 * MS, end=60 * MS)], 1.0, slow_ns=50 * MS)
    store.add([make_span(number, 1, end=MS) for number in range(2, 6)], 2.0, slow_ns=50 * MS)
    kept = store.get(trace_id(1))
    assert kept is not None
    assert kept.slow


def test_a_trace_takes_no_more_spans_than_its_bound() -> None:
    store = TraceStore(Bounds(spans_per_trace=3))
    store.add([make_span(1, number, parent=1 if number > 1 else 0) for number in range(1, 11)], 0.0)
    kept = store.get(trace_id(1))
    assert kept is not None
    assert (len(kept.spans), kept.dropped, store.kept().dropped) == (3, 7, 7)


def test_what_is_old_is_let_go_of() -> None:
    store = TraceStore(Bounds(age=60.0))
    store.add([make_span(1, 1, failed=True), make_span(2, 1)], 0.0)
    store.add([make_span(3, 1)], 61.0)
    assert [kept.trace_id for kept in store.newest()] == [trace_id(3)]


def test_spans_count_for_the_sidecar_at_which_their_trace_began() -> None:
    store = TraceStore()
    # The callee's span comes before that of the caller, which is the first of the trace.
    store.add([make_span(1, 2, parent=1, service="checkout")], 0.0)
    assert store.take_counts() == {}
    store.add([make_span(1, 1, service="gateway"), make_span(1, 3, parent=2, service="checkout")], 0.0)
    assert store.take_counts() == {"gateway": 3}
    store.add([make_span(1, 4, parent=2)], 0.0)
    assert store.take_counts() == {"gateway": 1}


def test_spans_of_a_trace_that_began_outside_count_for_nobody() -> None:
    store = TraceStore()
    store.add([make_span(1, 2, parent=1), make_span(1, 3, parent=2)], 0.0)
    assert store.take_counts() == {}


SPANS = st.builds(
    make_span,
    st.integers(1, 6),
    st.integers(1, 9),
    parent=st.integers(0, 9),
    start=st.integers(0, 2000).map(lambda n: n * MS),
    end=st.integers(0, 4000).map(lambda n: n * MS),
    failed=st.booleans(),
    text=st.integers(0, 500),
)


@given(st.lists(st.tuples(st.lists(SPANS, max_size=8), st.integers(0, 30)), max_size=25))
def test_no_bound_is_ever_exceeded(batches: list[tuple[list[Span], int]]) -> None:
    bounds = Bounds(spans_per_trace=4, traces=4, spans=10, size=12_000, age=50.0)
    store, now = TraceStore(bounds), 0.0
    for spans, later in batches:
        now += later
        store.add(spans, now)
        kept, traces = store.kept(), list(store.newest())
        assert kept.traces == len(traces) <= bounds.traces
        assert kept.spans == sum(len(found.spans) for found in traces) <= bounds.spans
        assert kept.size == sum(span.size for found in traces for span in found.spans.values()) <= bounds.size
        assert all(len(found.spans) <= bounds.spans_per_trace for found in traces)
        assert all(found.first_at >= now - bounds.age for found in traces)
