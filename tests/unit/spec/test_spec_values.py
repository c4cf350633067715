"""Values as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.spec.readers.command import parse_command
from meshctl.spec.values import (
    MAX_DURATION,
    format_duration,
    parse_address,
    parse_duration,
    parse_percentage,
    parse_statuses,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5), ("300ms", 0.3), ("2m", 120), ("1h", 3600), ("1m30s", 90), ("1h2m3s4ms", 3723.004), ("0", 0),
        ("7", 7), ("1.5", 1.5), ("1.5s", 1.5), ("0.25m", 15), ("90s", 90), ("+3", 3), ("8760h", MAX_DURATION),
    ],
)  # fmt: skip
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "s", "5 s", "5sec", "-1", "-1s", "1d", "1e3", "inf", "nan", "٣s", "8761h", "1.s", ".5s", "5s\n", "1_000"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=int(MAX_DURATION) * 1000))
def test_a_duration_survives_being_written_and_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.3, "300ms"), (1.5, "1500ms"), (5, "5s"), (90, "1m30s"), (7200, "2h"), (0.0005, "0.5ms")],
)
def test_durations_are_written_shortly(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(("text", "value"), [("50%", 50), ("50", 50), ("12.5%", 12.5), ("0", 0), ("100 %", 100)])
def test_percentages_are_numbers_to_100(text: str, value: float) -> None:
    assert parse_percentage(text) == value


@pytest.mark.parametrize("text", ["", "%", "101", "-1", "half", "5%%", "1e1"])
def test_what_is_no_percentage_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_percentage(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [("200", (200, 201)), ("2xx", (200, 300)), ("5XX", (500, 600)), ("200-399", (200, 400)), ("301 - 302", (301, 303))],
)
def test_statuses_are_half_open_ranges(text: str, found: tuple[int, int]) -> None:
    assert parse_statuses(text) == found


@pytest.mark.parametrize("text", ["", "99", "600", "6xx", "300-200", "2x", "200-", "abc", "099", "500-600"])
def test_what_is_no_status_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_statuses(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("db:5432", ("db", 5432, False)),
        ("127.0.0.1:80", ("127.0.0.1", 80, False)),
        ("[::1]:80", ("::1", 80, False)),
        ("https://example.com", ("example.com", 443, True)),
        ("https://example.com:8443/", ("example.com", 8443, True)),
        ("http://example.com", ("example.com", 80, False)),
    ],
)
def test_addresses_are_host_port_and_tls(text: str, found: tuple[str, int, bool]) -> None:
    assert parse_address(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "db",
        "db:",
        ":80",
        "db:0",
        "db:65536",
        "db:x",
        "a b:80",
        "ftp://a",
        "https://",
        "https://a/b",
        "a@b:80",
        "[::1",
        "https://a?b",
        "-a:80",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_address(text)


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_percentage, parse_statuses, parse_address, parse_command):
        try:
            parse(text)
        except ValueError:
            continue


@pytest.mark.parametrize(
    "text", ["python app.py", "python 'my app.py' --x=1", "a FOO=1", "./run-it", "a # b", "x [y] {z} !"]
)
def test_plain_commands_are_split_into_words(text: str) -> None:
    assert parse_command(text)[0] != "/bin/sh"


@pytest.mark.parametrize(
    "text",
    [
        "a | b",
        "a & b",
        "a; b",
        "a < b",
        "a > b",
        "(a)",
        "`a`",
        "a $B",
        "a *.py",
        "a ?",
        "a ~",
        "a\nb",
        "A=1 b",
        "a '$'",
    ],
)
def test_commands_with_shell_syntax_go_to_the_shell(text: str) -> None:
    assert parse_command(text) == ("/bin/sh", "-c", text)
