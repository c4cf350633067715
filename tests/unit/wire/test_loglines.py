"""Lines of captured output: written and read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.wire.loglines import Line, Stream, format_line, parse_line


@given(
    time=st.floats(0, 4_000_000_000),
    stream=st.sampled_from(["stdout", "stderr"]),
    text=st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"])),
)
def test_a_line_is_read_back_to_the_microsecond(time: float, stream: Stream, text: str) -> None:
    raw = format_line(time, stream, text)
    assert raw.endswith("\n")
    found = parse_line(raw)
    assert found is not None
    assert (found.stream, found.text) == (stream, text)
    assert found.time == pytest.approx(time, abs=2e-6)


def test_the_form_is_that_of_container_runtimes() -> None:
    assert format_line(0.5, "stderr", "hello world") == "1970-01-01T00:00:00.500000Z stderr F hello world\n"


@pytest.mark.parametrize(
    "raw",
    ["", "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z stdout", "2024-01-01T00:00:00Z stdout F",
     "2024-01-01T00:00:00Z stdlog F text", "today stdout F text", "\x00\x00 stdout F text"],
)  # fmt: skip
def test_what_was_cut_off_is_no_line(raw: str) -> None:
    assert parse_line(raw) is None


def test_a_line_may_be_empty() -> None:
    assert parse_line("1970-01-01T00:00:01Z stdout F \n") == Line(1.0, "stdout", "")
