"""Numbers as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.figures import (
    NOTHING,
    draw_sparkline,
    format_age,
    format_byte_rate,
    format_bytes,
    format_count,
    format_counts,
    format_cpu,
    format_ms,
    format_rate,
    format_share,
)

NUMBERS = st.floats(min_value=0, max_value=1e12)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, NOTHING), (0.0, "0"), (0.004, "<0.01"), (0.05, "0.05"), (4.2, "4.2"), (9.96, "10"), (123.4, "123"),
     (999.6, "1.0k"), (1500.0, "1.5k"), (2e6, "2.0M")],
)  # fmt: skip
def test_rates(value: float | None, text: str) -> None:
    assert format_rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, NOTHING), (0.0, "0%"), (1.0, "100%"), (0.99999, "99.99%"), (0.995, "99.50%"),
     (0.00001, "<0.01%"), (0.5, "50.00%")],
)  # fmt: skip
def test_shares(value: float | None, text: str) -> None:
    assert format_share(value) == text


@given(st.integers(min_value=1, max_value=10**9), st.data())
def test_a_share_is_100_percent_only_when_all_is_well_and_0_only_when_nothing_is(
    count: int, data: st.DataObject
) -> None:
    good = data.draw(st.integers(min_value=0, max_value=count))
    text = format_share(good / count)
    assert (text == "100%") == (good == count)
    assert (text == "0%") == (good == 0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, NOTHING), (0.83, "0.8ms"), (9.96, "10ms"), (48.2, "48ms"), (999.6, "1.00s"), (1234.0, "1.23s"),
     (9996.0, "10s"), (34_000.0, "34s"), (180_000.0, "3m"), (7.2e6, "2h")],
)  # fmt: skip
def test_durations(value: float | None, text: str) -> None:
    assert format_ms(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, NOTHING), (512, "512B"), (2048, "2.0K"), (48 * 2**20, "48M"), (1.2 * 2**30, "1.2G")]
)
def test_sizes(value: int | None, text: str) -> None:
    assert format_bytes(None if value is None else int(value)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, NOTHING), (5, "5B/s"), (999.4, "999B/s"), (1500, "1.5kB/s"), (2e6, "2.0MB/s"), (3e9, "3.0GB/s")],
)
def test_bytes_a_second(value: float | None, text: str) -> None:
    assert format_byte_rate(value) == text


def test_counts_are_sorted_by_name() -> None:
    assert format_counts({"503": 5, "200": 95}) == "200:95,503:5"
    assert format_counts({}) == NOTHING


@pytest.mark.parametrize(("value", "text"), [(None, NOTHING), (0.003, "0.3%"), (0.12, "12%"), (2.5, "250%")])
def test_cpu(value: float | None, text: str) -> None:
    assert format_cpu(value) == text


@pytest.mark.parametrize(("value", "text"), [(None, NOTHING), (7, "7"), (9999, "9999"), (12_000, "12k")])
def test_counts(value: int | None, text: str) -> None:
    assert format_count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "never"), (3.9, "3s"), (119.0, "119s"), (120.0, "2m"), (10_800.0, "3h"), (200_000.0, "2d")],
)
def test_ages(value: float | None, text: str) -> None:
    assert format_age(value) == text


@given(NUMBERS)
def test_figures_stay_short(value: float) -> None:
    for text in (format_rate(value), format_ms(min(value, 1e8)), format_bytes(int(value)), format_count(int(value))):
        assert 1 <= len(text) <= 6


@given(st.lists(st.none() | NUMBERS, max_size=40), st.integers(min_value=0, max_value=30))
def test_a_sparkline_is_as_wide_as_asked_and_higher_for_more(values: list[float | None], width: int) -> None:
    drawn = draw_sparkline(values, width)
    assert len(drawn) == width
    shown = list(zip(reversed(values[-width:] if width else []), reversed(drawn), strict=False))
    known = [(value, block) for value, block in shown if value is not None]
    assert all(block == " " for value, block in shown if value is None)
    assert [block for _, block in sorted(known)] == sorted(block for _, block in known)


def test_a_sparkline_tells_something_from_nothing() -> None:
    assert draw_sparkline([0.0, 0.001, 100.0, None], 4) == "▁▂█ "
    assert draw_sparkline([0.5, 1.0], 2, top=1.0)[1] == "█"
