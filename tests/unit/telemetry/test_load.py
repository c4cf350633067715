"""When requests of an open-loop load are due, and how what came of them is counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.telemetry.buckets import LAST, OVERFLOW, bucket_of, upper_bound
from meshctl.telemetry.load import Arrivals, Ended, LoadTally, make_bars, order_versions, shares

RATES = st.floats(0.01, 5000)
TIMES = st.floats(0, 3600)


@pytest.mark.parametrize(
    ("rate", "duration", "count"),
    [(20, 30, 600), (0.1, 30, 3), (1, 0.5, 1), (0.01, 1, 1), (3, 1.1, 4), (1000, 0.0015, 2)],
)
def test_as_many_are_due_as_fit_into_the_time(rate: float, duration: float, count: int) -> None:
    assert Arrivals(rate=rate, duration=duration).count == count


@given(RATES, st.floats(0.001, 3600), TIMES)
def test_exactly_those_are_due_whose_time_has_come(rate: float, duration: float, elapsed: float) -> None:
    arrivals = Arrivals(rate=rate, duration=duration)
    due = arrivals.due(elapsed)
    assert 1 <= due <= arrivals.count
    assert arrivals.time_of(due - 1) <= elapsed
    assert due == arrivals.count or arrivals.time_of(due) > elapsed
    assert arrivals.time_of(arrivals.count - 1) <= duration


def test_rounding_moves_no_request() -> None:
    # 1 / 49 * 49 is less than 1, and the number before 3 / 10, times 10, is 3.
    assert Arrivals(rate=49, duration=1).due(1 / 49) == 2
    before = math.nextafter(5 / 3, 0)
    assert before * 3 == 5
    assert Arrivals(rate=3, duration=9).due(before) == 5


def test_nothing_is_due_before_the_start() -> None:
    assert Arrivals(rate=5, duration=1).due(-0.001) == 0


def test_a_request_counts_from_when_it_was_due() -> None:
    tally = LoadTally()
    tally.note_sent(due=1.0, now=1.004, waited=False)
    tally.note_sent(due=1.1, now=3.0, waited=True)
    tally.note_sent(due=1.2, now=3.0, waited=True)
    assert (tally.sent, tally.under_way, round(tally.late_ms)) == (3, 3, 4)
    tally.note_ended(due=1.0, now=1.05, status=200, version="v1")
    tally.note_ended(due=1.1, now=3.1, status=503)
    tally.note_ended(due=1.2, now=4.2, error="timeout")
    total = tally.total
    assert (total.requests, total.failures, tally.under_way) == (3, 2, 0)
    assert total.success == pytest.approx(1 / 3)
    assert (total.statuses, total.errors, round(total.longest_ms)) == ({200: 1, 503: 1}, {"timeout": 1}, 3000)
    assert total.quantile(1.0) == total.longest_ms
    assert order_versions(tally.versions) == ("v1", "")
    assert shares(tally.versions) == {"v1": pytest.approx(1 / 3), "": pytest.approx(2 / 3)}


def test_where_nothing_was_counted_nothing_is_known() -> None:
    ended = Ended()
    assert (ended.requests, ended.success, ended.quantile(0.5)) == (0, None, None)
    assert (shares({}), make_bars({}, 5)) == ({}, ())


def test_each_of_the_last_seconds_has_figures_of_its_own() -> None:
    tally = LoadTally()
    for number in range(200):
        tally.note_ended(due=number, now=number + 0.5, status=200 if number % 2 else 500)
    tally.note_ended(due=199.0, now=199.7, status=500)
    last = tally.recent(200.0, 3)
    assert [ended.requests for ended in last] == [1, 1, 2]
    assert [ended.failures for ended in last] == [0, 1, 1]
    assert tally.recent(0.5, 3) == ()
    assert len(tally.recent(2.0, 60)) == 2
    assert tally.recent(205.0, 2) == (Ended(), Ended())


@given(st.dictionaries(st.integers(-38, OVERFLOW), st.integers(0, 1000), max_size=30), st.integers(1, 20))
def test_bars_hold_every_request_and_have_no_gap(histogram: dict[int, int], most: int) -> None:
    bars = make_bars(histogram, most)
    assert len(bars) <= most
    assert sum(bar.count for bar in bars) == sum(histogram.values())
    uppers = [bar.upper_ms for bar in bars]
    assert uppers == sorted(set(uppers))
    if bars:
        assert bars[0].count
        assert bars[-1].count


def test_a_bar_ends_where_its_last_bucket_does() -> None:
    first = bucket_of(5.0)
    assert [bar.count for bar in make_bars({first: 1, first + 3: 2}, 2)] == [1, 2]
    assert make_bars({first: 1, first + 3: 2}, 2)[0].upper_ms == upper_bound(first + 1)
    assert make_bars({OVERFLOW: 1, LAST: 1}, 5)[-1].upper_ms == math.inf
