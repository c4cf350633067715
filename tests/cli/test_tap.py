"""`meshctl tap` shows requests as they pass, and says how much of the traffic that was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.taps import make_request, make_summary

from meshctl.cli.tap import describe_summary
from meshctl.wire.requests import TapItem
from meshctl.wire.taps import TapQuery

REQUESTS = [
    make_request(),
    make_request(
        source="gateway",
        destination="frontend",
        instance="frontend-v1-1",
        method="GET",
        path="/a-very-long-path/" + "x" * 60,
        status=200,
        duration_ms=1240.0,
        reasons=[],
        flags=[],
        tries=1,
    ),
    make_request(path="/\x1b[31m\n", status=0, duration_ms=0.42, reasons=["caller went away"], tries=1, version=""),
]


@pytest.fixture
def tapped(served: ServedMesh) -> ServedMesh:
    """A mesh in which three of 1,240 requests are reported."""
    requests = [TapItem(request=request) for request in REQUESTS]
    served.backend.taps.items = [
        TapItem(summary=make_summary(shown=0, reported=0, passed=0)),
        *requests,
        TapItem(summary=make_summary(shown=3, reported=4, passed=1240, dropped=1)),
    ]
    return served


def test_requests_are_lines_and_the_last_one_says_how_many_they_were_of(tapped: ServedMesh, run_cli: RunCli) -> None:
    outcome = run_cli("tap", width=110)
    stamp = "2026-02-02T02:40:00.000Z"
    assert outcome.stdout.splitlines() == [
        f"{stamp}  checkout -> payment  payment-v1-1  503    12ms  POST /charge  no healthy upstream, 3 tries",
        f"{stamp}  gateway -> frontend  frontend-v1-1  200   1.24s  GET  /a-very-long-path/xxxxxxxxxxx…",
        # A column never becomes narrower again, and what a terminal would act on is written out.
        f"{stamp}  checkout -> payment  payment-v1-1   ---   0.4ms  POST /\\x1b[31m\\n  caller went away",
    ]
    assert outcome.stderr == (
        "tapping 4 sidecars; Ctrl+C ends it\n"
        "3 of 1,240 requests shown; 1,236 were not reported: a sidecar reports at most 100 a second; "
        "1 came faster than they were read\n"
    )


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_leaves_out_time_and_instance(tapped: ServedMesh, run_cli: RunCli, width: int) -> None:
    out = run_cli("tap", width=width).stdout
    assert "2026" not in out
    assert "payment-v1-1" not in out
    assert "v1" in out
    assert "no healthy upstream, 3 tries" in out


def test_wide_adds_trace_and_detail(tapped: ServedMesh, run_cli: RunCli) -> None:
    out = run_cli("tap", "-o", "wide", width=220).stdout
    assert "4bf92f3577b34da6a3ce929d0e0e4736  no_healthy_upstream" in out


def test_json_is_one_object_a_line(tapped: ServedMesh, run_cli: RunCli) -> None:
    lines = run_cli("tap", "-o", "json").stdout.splitlines()
    assert [json.loads(line)["path"] for line in lines] == [request.path for request in REQUESTS]


def test_what_is_asked_for_is_passed_on(tapped: ServedMesh, run_cli: RunCli) -> None:
    run_cli(
        *("tap", "--to", "payment", "--to", "catalog", "--from", "checkout", "--path", "/a*", "--method", "post"),
        *(
            "--status",
            "5XX",
            "--status",
            "0",
            "--min-duration",
            "20ms",
            "--side",
            "callee",
            "--max",
            "7",
            "--for",
            "5m",
        ),
    )
    (query, count, seconds) = tapped.backend.taps.asked[-1]
    assert query == TapQuery(
        to=["payment", "catalog"],
        source=["checkout"],
        side="callee",
        path="/a*",
        methods=["POST"],
        statuses=["5xx", "0"],
        minimum_ms=20.0,
    )
    assert count == 7
    assert seconds is not None
    assert 200 < seconds <= 300


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--status", "9xx"), "error: --status: '9xx' is no status\nhint: write 503, 5xx, or 0 for no answer\n"),
        (("--side", "both"), "error: --side: 'both' is no side\nhint: write caller or callee\n"),
    ],
)
def test_mistakes_are_usage_errors(served: ServedMesh, run_cli: RunCli, words: tuple[str, ...], message: str) -> None:
    assert run_cli("tap", *words).shown == f"--- exit 2\n--- stdout\n--- stderr\n{message}"


def test_sidecars_that_do_not_answer_are_named_once(served: ServedMesh, run_cli: RunCli) -> None:
    silent = TapItem(summary=make_summary(silent=["cart", "orders"]))
    served.backend.taps.items = [silent, silent, TapItem(request=make_request())]
    assert run_cli("tap").stderr.count("no reports yet of: cart, orders (their sidecars do not answer)") == 1


@pytest.mark.parametrize(
    ("summary", "shown", "words"),
    [
        ({"shown": 0, "reported": 0, "passed": 0}, 0, "0 of 0 requests shown"),
        ({"shown": 1, "reported": 1, "passed": 1}, 1, "1 of 1 request shown"),
        ({"shown": 2, "reported": 5, "passed": 5}, 2, "2 of 5 requests shown; 3 did not fit"),
    ],
)
def test_a_summary_accounts_for_every_request(summary: dict[str, object], shown: int, words: str) -> None:
    assert describe_summary(make_summary(**summary), shown) == words


def test_without_a_mesh_it_is_exit_3(project: Path, run_cli: RunCli) -> None:
    assert run_cli("tap").code == 3
