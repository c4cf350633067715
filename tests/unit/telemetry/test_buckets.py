"""Buckets and quantiles."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.telemetry.buckets import (
    FIRST,
    LAST,
    OVERFLOW,
    add,
    bucket_of,
    bucket_of_bin,
    lower_bound,
    pack,
    quantile,
    unpack,
    upper_bound,
)

HISTOGRAMS = st.dictionaries(st.integers(FIRST, OVERFLOW), st.integers(1, 2**31), max_size=30)


@given(st.floats(0.04, 60_000))
def test_a_duration_lies_in_its_bucket(milliseconds: float) -> None:
    bucket = bucket_of(milliseconds)
    assert lower_bound(bucket) <= milliseconds * (1 + 1e-6)
    assert milliseconds <= upper_bound(bucket) * (1 + 1e-6)


def test_two_buckets_make_a_fifth_more() -> None:
    assert all(upper_bound(k + 2) / upper_bound(k) == pytest.approx(1.2) for k in range(FIRST, LAST - 1))
    assert upper_bound(0) == 1


@pytest.mark.parametrize(("milliseconds", "bucket"), [(0, FIRST), (-1, FIRST), (1e-9, FIRST), (1e9, OVERFLOW), (1, 0)])
def test_the_ends_take_what_is_beyond_them(milliseconds: float, bucket: int) -> None:
    assert bucket_of(milliseconds) == bucket


def test_envoys_bins_are_taken_by_their_middle() -> None:
    assert bucket_of_bin(1000, 100) == bucket_of(1.05)


@given(HISTOGRAMS)
def test_packing_keeps_everything(histogram: dict[int, int]) -> None:
    assert unpack(pack(histogram)) == histogram


@given(HISTOGRAMS, HISTOGRAMS)
def test_sums_count_everything_once(one: dict[int, int], other: dict[int, int]) -> None:
    assert sum(add((one, other)).values()) == sum(one.values()) + sum(other.values())


@given(st.lists(st.floats(0.05, 50_000), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_a_quantile_is_right_to_the_bucket(values: list[float], share: float) -> None:
    found = quantile(add({bucket_of(value): 1} for value in values), share)
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    assert found is not None
    assert abs(bucket_of(found) - bucket_of(exact)) <= 1


def test_nothing_has_no_quantile() -> None:
    assert quantile({}, 0.5) is None


def test_beyond_the_last_bound_that_is_what_is_told() -> None:
    assert quantile({OVERFLOW: 3}, 0.5) == pytest.approx(upper_bound(LAST))
