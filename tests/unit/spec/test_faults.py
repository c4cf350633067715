"""Rates of faults as people write them."""

from __future__ import annotations

import pytest

from meshctl.spec.readers.faults import parse_rate


@pytest.mark.parametrize(
    ("text", "kib"),
    [("10KB/s", 10), ("10kb/s", 10), ("512KiB/s", 512), ("1MB/s", 977), ("1 MiB", 1024), ("1.5M", 1465), ("600B/s", 1)],
)
def test_a_rate_is_read_as_whole_kib(text: str, kib: int) -> None:
    assert parse_rate(text) == kib


@pytest.mark.parametrize("text", ["", "10", "fast", "-1KB/s", "10Kbit/s", "1B/s", "999999999MB/s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"rate|between"):
        parse_rate(text)
