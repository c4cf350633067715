"""Samples into windows: nothing lost, nothing twice, nothing negative, bounded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.telemetry.names import Flow, Outcome
from meshctl.telemetry.rollup import COARSE_KEPT, FINE_KEPT, MOST_FLOWS, Rollup, Sample, forget, reduce
from meshctl.telemetry.stats import Stats
from meshctl.telemetry.windows import STALE_AFTER, read_window

T0 = 1_000_000.0
COUNTER = "caller.rq.C.orders/v1.S.200.G..F.-.R.orders"
HISTOGRAM = "caller.us.C.orders/v1.R.orders"
RETRIES = "cluster.orders/v1.upstream_rq_retry"
FLOW = Flow("caller", "orders/v1", "orders")
OK = Outcome(200, -1, "")


def sample(at: float, count: int = 0, *, born: str = "a", started: float = T0, **more: Any) -> Sample:
    numbers = {COUNTER: count, RETRIES: count // 10, **more.get("numbers", {})}
    histograms = {HISTOGRAM: {10: count}} if count else {}
    stats = Stats(numbers=numbers, histograms=histograms)
    return Sample(time=at, started_at=started, incarnation=born, stats=stats)


def roll(*samples: Sample) -> Rollup:
    rollup = Rollup()
    for each in samples:
        rollup = reduce(rollup, {"cart": each}, each.time)
    return rollup


def total(rollup: Rollup, seconds: float, until: float) -> int:
    return sum(t.requests for t in window(rollup, seconds, until).flows.values())


def window(rollup: Rollup, seconds: float, until: float, now: float | None = None) -> Any:
    return read_window(rollup.sidecars["cart"], until=until, seconds=seconds, now=until if now is None else now)


def test_what_was_added_is_what_happened() -> None:
    found = window(roll(sample(T0 + 1, 10), sample(T0 + 2, 30), sample(T0 + 3, 30)), 2, T0 + 3)
    tally = found.flows[FLOW]
    assert (tally.requests, tally.outcomes, tally.durations) == (20, {OK: 20}, {10: 20})
    assert tally.rate == pytest.approx(10)
    assert found.clusters["orders/v1"].retries == 2
    assert found.seconds == pytest.approx(2)


def test_what_one_just_started_counted_happened_since_its_start() -> None:
    assert total(roll(sample(T0 + 1, 10)), 5, T0 + 1) == 10


def test_what_one_that_runs_for_long_counted_before_is_not_news() -> None:
    rollup = roll(sample(T0 + 900, 1_000_000), sample(T0 + 901, 1_000_005))
    assert total(rollup, 5, T0 + 901) == 5


def test_a_restart_loses_nothing_that_was_counted_and_counts_nothing_twice() -> None:
    rollup = roll(
        sample(T0 + 1, 100), sample(T0 + 2, 150), sample(T0 + 4, 160, born="b"), sample(T0 + 5, 170, born="b")
    )
    assert total(rollup, 10, T0 + 5) == 100 + 50 + 160 + 10
    assert rollup.sidecars["cart"].resets == 1


def test_a_counter_that_shrinks_began_anew() -> None:
    rollup = roll(sample(T0 + 1, 100), sample(T0 + 2, 7))
    assert total(rollup, 1, T0 + 2) == 7
    assert window(rollup, 1, T0 + 2).flows[FLOW].durations == {10: 7}
    assert rollup.sidecars["cart"].resets == 0


def test_one_that_hung_is_told_over_the_time_that_it_hung() -> None:
    rollup = roll(sample(T0 + 1, 0), sample(T0 + 11, 50))
    assert window(rollup, 1, T0 + 11).flows[FLOW].rate == pytest.approx(5)
    silent = window(rollup, 5, T0 + 20, T0 + 20)
    assert (silent.seconds, silent.flows, silent.stale) == (0, {}, True)
    assert silent.age == pytest.approx(9)
    assert silent.age > STALE_AFTER


def test_a_sample_that_is_late_changes_nothing() -> None:
    rollup = roll(sample(T0 + 1, 10), sample(T0 + 2, 20))
    assert reduce(rollup, {"cart": sample(T0 + 1.5, 15)}, T0 + 2) == rollup


def test_samples_of_one_second_are_one_slot() -> None:
    rollup = roll(sample(T0 + 1, 10), sample(T0 + 2.1, 20), sample(T0 + 2.9, 40))
    assert [slot.at for slot in rollup.sidecars["cart"].fine] == [T0 + 1, T0 + 2]
    assert total(rollup, 1, T0 + 2) == 30


@given(
    st.lists(st.tuples(st.floats(0.2, 4.0), st.integers(0, 50), st.booleans()), min_size=1, max_size=120),
    st.integers(1, 20),
)
def test_windows_side_by_side_hold_every_request_once(steps: list[tuple[float, int, bool]], length: int) -> None:
    """Counters only ever grow or begin anew, and what was added is found again exactly once."""
    at, count, born, added = T0, 0, 0, 0
    samples: list[Sample] = []
    for seconds, more, restart in steps:
        at += seconds
        if restart and samples:
            born, count = born + 1, 0
        count, added = count + more, added + more
        started = T0 if born == 0 else at - seconds / 2
        samples.append(sample(at, count, born=str(born), started=started))
    # The first is the one from which counting begins.
    begin = replace(samples[0], time=T0, stats=Stats())
    rollup = roll(begin, *samples)
    span = int(at - T0) + 1
    if span <= FINE_KEPT - length:
        tiles = range(int(T0) + span, int(T0) - length, -length)
        assert sum(total(rollup, length, until) for until in tiles) == added
    for slot in (*rollup.sidecars["cart"].fine, *rollup.sidecars["cart"].coarse):
        assert slot.seconds > 0
        assert all(n > 0 for delta in slot.flows.values() for n in delta.outcomes.values())


def test_an_hour_is_kept_and_no_more() -> None:
    rollup = Rollup()
    for second in range(1, COARSE_KEPT + 1000):
        rollup = reduce(rollup, {"cart": sample(T0 + second, second)}, T0 + second)
    history = rollup.sidecars["cart"]
    assert len(history.fine) == FINE_KEPT
    assert COARSE_KEPT / 10 <= len(history.coarse) <= COARSE_KEPT / 10 + 1
    end = T0 + COARSE_KEPT + 999
    assert total(rollup, 60, end) == 60
    assert total(rollup, COARSE_KEPT, end) == pytest.approx(COARSE_KEPT, abs=10)
    assert window(rollup, COARSE_KEPT, end).flows[FLOW].rate == pytest.approx(1)
    # Long ago, only the coarse slots tell.
    assert total(rollup, 20, T0 + 2000) == 20


def test_a_mesh_at_rest_keeps_no_flows() -> None:
    same = Stats(numbers={COUNTER: 5}, histograms={HISTOGRAM: {1: 5}})
    rollup = roll(*(replace(sample(T0 + n), stats=same, started_at=0.0) for n in range(1, 50)))
    assert all(not slot.flows for slot in rollup.sidecars["cart"].fine)


def test_flows_beyond_measure_are_left_out() -> None:
    numbers = {f"caller.rq.C.orders/v1.S.200.G..F.-.R.r{n}": 1 for n in range(MOST_FLOWS + 50)}
    rollup = roll(sample(T0 + 1, numbers=numbers))
    assert len(rollup.sidecars["cart"].fine[0].flows) == MOST_FLOWS


def test_sidecars_that_left_are_forgotten() -> None:
    rollup = roll(sample(T0 + 1))
    assert forget(rollup, {"cart", "other"}) is rollup
    assert forget(rollup, {"other"}) == Rollup()
    late = reduce(rollup, {}, T0 + COARSE_KEPT + FINE_KEPT + 2)
    assert late == Rollup()
