"""The sequential test: its inequality exactly, its laws as properties, and what it says of plain cases."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.canary.model import Process, Spread
from meshctl.canary.statistics import (
    GRID,
    MAX_STARTS,
    MOST,
    allowed_bucket,
    allowed_ms,
    compare,
    count_above,
    dispersion,
    find_slow_bucket,
    hold_to,
    spread_over,
    start_over,
    upper_share,
    weigh,
)
from meshctl.telemetry.buckets import LAST, OVERFLOW, bucket_of, upper_bound

BEGUN = start_over(Process())


def binomial(count: int, total: int, share: float) -> float:
    return math.comb(total, count) * share**count * (1 - share) ** (total - count)


def ratios(process: Process) -> list[float]:
    """The likelihood ratios of the first start, one for each alternative."""
    return [math.exp(log) for log in process.rows[0]]


@given(
    canary=st.integers(1, 12),
    stable=st.integers(1, 12),
    share=st.floats(0.0, 0.9),
    ratio=st.sampled_from([1.0, 1.1, 2.0]),
    within=st.floats(0.0, 1.0),
)
def test_no_alternative_gains_on_average_while_the_version_is_no_worse(
    canary: int, stable: int, share: float, ratio: float, within: float
) -> None:
    """The one inequality that everything rests on, by adding up every outcome there can be."""
    mine = min(1.0, within * ratio * share)
    means = [0.0] * len(GRID)
    for bad, bad_stable in product(range(canary + 1), range(stable + 1)):
        chance = binomial(bad, canary, mine) * binomial(bad_stable, stable, share)
        gained = ratios(compare(BEGUN, (bad, canary), (bad_stable, stable), ratio=ratio))
        means = [mean + chance * gain for mean, gain in zip(means, gained, strict=True)]
    assert max(means) <= 1 + 1e-9


@given(requests=st.integers(1, 30), allowed=st.floats(0.001, 0.9), within=st.floats(0.0, 1.0))
def test_nothing_gains_on_average_while_a_version_alone_keeps_to_its_share(
    requests: int, allowed: float, within: float
) -> None:
    means = [0.0] * len(GRID)
    for bad in range(requests + 1):
        gained = ratios(hold_to(BEGUN, bad, requests, share=allowed))
        chance = binomial(bad, requests, within * allowed)
        means = [mean + chance * gain for mean, gain in zip(means, gained, strict=True)]
    assert max(means) <= 1 + 1e-9


@given(
    canary=st.integers(1, 8),
    stable=st.integers(1, 8),
    share=st.floats(0.0, 0.9),
    within=st.floats(0.0, 1.0),
    found=st.lists(st.floats(1.0, 20.0), min_size=10, max_size=10),
)
def test_nothing_gains_on_average_whatever_is_taken_for_dispersion(
    canary: int, stable: int, share: float, within: float, found: list[float]
) -> None:
    """That of the tick itself may depend on what the tick brings, as long as that before it does not."""
    before, *now = found
    mine = min(1.0, within * 1.1 * share)
    means = [0.0] * len(GRID)
    for bad, bad_stable in product(range(canary + 1), range(stable + 1)):
        chance = binomial(bad, canary, mine) * binomial(bad_stable, stable, share)
        moved = compare(BEGUN, (bad, canary), (bad_stable, stable), ratio=1.1, dispersions=(before, now[bad]))
        means = [mean + chance * gain for mean, gain in zip(means, ratios(moved), strict=True)]
    assert max(means) <= 1 + 1e-9


@given(
    size=st.integers(1, 30),
    canary=st.integers(1, 8),
    stable=st.integers(1, 8),
    share=st.floats(0.0, 0.9),
    within=st.floats(0.0, 1.0),
)
def test_nothing_gains_on_average_where_errors_come_in_clusters_of_the_dispersion(
    size: int, canary: int, stable: int, share: float, within: float
) -> None:
    mine = min(1.0, within * 1.1 * share)
    means = [0.0] * len(GRID)
    for bad, bad_stable in product(range(canary + 1), range(stable + 1)):
        chance = binomial(bad, canary, mine) * binomial(bad_stable, stable, share)
        counts = (bad * size, canary * size), (bad_stable * size, stable * size)
        found = compare(BEGUN, *counts, ratio=1.1, dispersions=(size, size))
        means = [mean + chance * gain for mean, gain in zip(means, ratios(found), strict=True)]
    assert max(means) <= 1 + 1e-9


def spread_of(ticks: list[tuple[int, int]]) -> Spread:
    spread = Spread()
    for bad, requests in ticks:
        spread = spread_over(spread, bad, requests)
    return spread


def test_errors_that_come_in_clusters_are_told_from_those_that_come_one_by_one() -> None:
    source = random.Random(1)
    alone = [(sum(source.random() < 0.02 for _ in range(200)), 200) for _ in range(200)]
    clusters = [(20 * sum(source.random() < 0.02 for _ in range(10)), 200) for _ in range(200)]
    assert dispersion([spread_of(alone)]) < 1.6
    assert 14 < dispersion([spread_of(clusters)]) < 28
    assert dispersion([spread_of(alone), spread_of(clusters)]) == dispersion([spread_of(clusters)])


def test_a_version_that_goes_bad_and_stays_so_does_not_look_clustered_for_long() -> None:
    good, bad = [(0, 50), (1, 50)] * 10, [(50, 50)]
    found = [dispersion([spread_of(good + bad * ticks)]) for ticks in (1, 2, 4, 8)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 5


@pytest.mark.parametrize("ticks", [[], [(3, 50)], [(0, 50)] * 5, [(50, 50)] * 5, [(0, 0)] * 5])
def test_of_what_does_not_vary_each_error_counts(ticks: list[tuple[int, int]]) -> None:
    assert dispersion([spread_of(ticks)]) == 1


@given(st.integers(0, MAX_STARTS + 3))
def test_a_test_that_has_seen_nothing_says_nothing(starts: int) -> None:
    process = Process()
    for _ in range(starts):
        process = start_over(process)
    assert weigh(process) == pytest.approx(1.0)
    assert len(process.rows) <= MAX_STARTS


def test_a_tick_without_requests_of_both_says_nothing() -> None:
    assert compare(BEGUN, (0, 0), (3, 100), ratio=1.1) is BEGUN
    assert compare(BEGUN, (3, 100), (0, 0), ratio=1.1) is BEGUN


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(5, 50), st.integers(0, 5), st.integers(5, 500)), max_size=20),
    st.integers(0, 20),
)
def test_evidence_is_the_weighted_mean_over_starts(ticks: list[tuple[int, int, int, int]], second: int) -> None:
    """In logarithms as by multiplying: a start sees what comes after it, weights are 1/2, 1/6, and the rest waits."""
    process, products = BEGUN, [[1.0] * len(GRID), [1.0] * len(GRID)]
    begun = 1
    for index, (bad, canary, bad_stable, stable) in enumerate(ticks):
        if index == second:
            process, begun = start_over(process), 2
        process = compare(process, (bad, canary), (bad_stable, stable), ratio=1.1)
        for row in products[:begun]:
            for place, factor in enumerate(GRID):
                theta = canary * 1.1 * factor / (canary * 1.1 * factor + stable)
                null = canary * 1.1 / (canary * 1.1 + stable)
                row[place] *= (theta / null) ** bad * ((1 - theta) / (1 - null)) ** bad_stable
    means = [sum(row) / len(GRID) for row in products]
    expected = means[0] / 2 + (means[1] / 6 + 1 / 3 if begun == 2 else 1 / 2)
    assert weigh(process) == pytest.approx(min(expected, MOST), rel=1e-9)


def test_evidence_grows_with_errors_of_the_version_and_shrinks_with_those_of_the_other() -> None:
    worse = compare(BEGUN, (10, 100), (9, 900), ratio=1.1)
    same = compare(BEGUN, (1, 100), (9, 900), ratio=1.1)
    better = compare(BEGUN, (0, 100), (90, 900), ratio=1.1)
    assert weigh(worse) > 200
    assert 2 > weigh(same) > weigh(better)


def test_evidence_without_end_is_told_up_to_a_bound() -> None:
    assert weigh(compare(BEGUN, (10**6, 10**6), (0, 10**7), ratio=1.1)) == pytest.approx(MOST)


def test_the_slowest_hundredth_begins_where_it_does() -> None:
    assert find_slow_bucket({10: 199}) is None
    assert find_slow_bucket({10: 198, 20: 2}) == 10
    assert find_slow_bucket({10: 197, 20: 3}) == 20
    assert find_slow_bucket({OVERFLOW: 500}) is None
    assert find_slow_bucket({10: 900, OVERFLOW: 5}) == 10


@given(st.integers(bucket_of(25.1), LAST - 2))
def test_a_factor_of_1_2_is_two_buckets_above_25_ms(bucket: int) -> None:
    assert allowed_bucket(bucket, 1.2) == bucket + 2


@given(st.floats(0.1, 1e4), st.floats(1, 5))
def test_what_is_allowed_is_the_ratio_and_five_milliseconds_in_any_case(ms: float, ratio: float) -> None:
    assert allowed_ms(ms, ratio) == max(ms * ratio, ms + 5)


@given(st.integers(-38, LAST - 20), st.floats(1, 3))
def test_the_bucket_that_is_allowed_holds_what_is_allowed(bucket: int, ratio: float) -> None:
    assert upper_bound(allowed_bucket(bucket, ratio)) >= allowed_ms(upper_bound(bucket), ratio) * (1 - 1e-6)


def test_slow_ones_are_those_beyond_a_bucket() -> None:
    assert count_above({1: 10, 2: 5, 3: 1}, 1) == (6, 16)


def test_the_upper_end_of_a_share() -> None:
    """Against Wilson's formula worked by hand for 10 of 1000 at z = 3."""
    assert upper_share(0, 0) == 1.0
    assert upper_share(10, 1000) == pytest.approx(0.024734, abs=1e-6)
    assert upper_share(0, 1000) == pytest.approx(9 / 1009)
