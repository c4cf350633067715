"""``meshctl traces`` and ``trace``: tables and waterfalls, wide and narrow, and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.traces import TRACE_ID, make_list, make_row, make_summary, make_trace

from meshctl.cli.waterfall import draw_waterfall
from meshctl.wire.models import decode
from meshctl.wire.traces import SidecarShare, SpanMoment, Trace, TraceList, TraceQuery

FAILED = make_summary(id="a" * 32, name="GET /slow", status=504, failed=True, slow=True, duration_ms=2030.0,
                      notes=["retried", "timeout"], failed_spans=4)  # fmt: skip


def make_rows() -> Trace:
    return make_trace(
        make_row(name="POST /orders"),
        make_row(id="2", parent="00f067aa0ba902b7", depth=1, kind="callee", instance="frontend-v1-1", start_ms=1.0,
                 duration_ms=98.0),
        make_row(id="3", parent="2", depth=2, kind="own", name="price the basket", service="frontend",
                 instance="frontend-v1-1", start_ms=2.0, duration_ms=20.0, status=0,
                 attributes={"items": "3"}, events=[SpanMoment(at_ms=4.0, name="discount", attributes={"of": "5"})]),
        make_row(id="4", parent="2", depth=2, source="frontend", destination="payment", name="POST /charges",
                 start_ms=25.0, duration_ms=60.0, status=503, failed=True, notes=["retry limit", "2 tries"]),
        make_row(id="5", parent="4", depth=3, kind="callee", instance="payment-v1-1", attempt=1, start_ms=25.0,
                 duration_ms=20.0, status=503, failed=True),
        make_row(id="6", parent="4", depth=3, kind="callee", instance="payment-v1-2", attempt=2, start_ms=50.0,
                 duration_ms=35.0, status=0, failed=True, notes=["connection lost"]),
        missing=["what payment saw of a request"],
    )  # fmt: skip


def test_traces_are_a_table_and_the_last_line_says_how_they_were_chosen(served: ServedMesh, run_cli: RunCli) -> None:
    shares = [SidecarShare(sidecar="gateway", share=0.125)]
    served.backend.tracing.listed = make_list(make_summary(), FAILED, sampling=shares, forward_dropped=2)
    done = run_cli("traces")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["TRACE", "AGE", "SERVICE", "REQUEST", "STATUS", "DURATION", "SPANS", "NOTES"]
    assert (lines[1][0], lines[1][2:]) == ("4bf92f35", ["frontend", "POST", "/orders", "201", "45ms", "12"])
    assert lines[2][-2:] == ["retried,", "timeout"]
    assert done.stderr == (
        "2 of 2 traces kept; requests recorded now: 12.50% of those that begin at gateway; "
        "2 reports could not be passed on\n"
    )


def test_what_happened_on_the_way_is_told_in_a_narrow_terminal_too(served: ServedMesh, run_cli: RunCli) -> None:
    notes = ["retried", "retry limit", "connection failed"]
    served.backend.tracing.listed = make_list(make_summary(name="GET /by-host", notes=notes))
    out = run_cli("traces", width=80).stdout
    assert all(len(line) <= 80 for line in out.splitlines())
    assert {"SERVICE", "NOTES", "retried,", "connection", "failed"} <= set(out.split())


def test_what_is_asked_for_reaches_the_control_plane(served: ServedMesh, run_cli: RunCli) -> None:
    words = ("--error", "--slow", "--service", "payment", "--min-duration", "200ms", "-n", "5")
    assert run_cli("traces", *words).code == 0
    assert served.backend.tracing.asked == [
        TraceQuery(service="payment", error=True, slow=True, minimum_ms=200.0, limit=5)
    ]


def test_nothing_that_fits_is_said(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.tracing.listed = make_list(mode="off")
    done = run_cli("traces")
    assert (done.code, done.stdout) == (0, "")
    assert done.stderr == "no trace fits; 0 are kept; tracing is off (telemetry.tracing)\n"


def test_json_is_one_document(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.tracing.listed = make_list(FAILED)
    served.backend.tracing.traces[TRACE_ID] = make_rows()
    assert decode(run_cli("traces", "-o", "json").stdout.encode(), TraceList).traces == [FAILED]
    assert json.loads(run_cli("trace", TRACE_ID[:6], "-o", "json").stdout)["id"] == TRACE_ID


def test_a_trace_that_is_not_there_is_an_error(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("trace", "abc")
    assert done.code == 1
    assert "there is no trace abc" in done.stderr


def test_a_trace_is_drawn_with_what_is_missing_and_where_its_logs_are(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.tracing.traces[TRACE_ID] = make_rows()
    done = run_cli("trace", TRACE_ID[:8])
    assert "├ price the basket  (frontend-v1-1)" in done.stdout
    assert done.stderr == (
        f"incomplete: what payment saw of a request\nits requests in the access logs: meshctl logs --trace {TRACE_ID}\n"
    )


@pytest.mark.parametrize(
    ("changes", "ended"),
    [({}, "succeeded"), ({"attempt": 2}, "succeeded in the end"), ({"failed": True}, "succeeded in the end")],
)
def test_a_call_that_took_more_than_one_try_succeeded_in_the_end(changes: dict[str, object], ended: str) -> None:
    """Also when the tries before reached nobody, who could tell of them."""
    row = make_row(kind="callee", parent="00f067aa0ba902b7", depth=1, id="1" * 16, **changes)
    heading = next(draw_waterfall(make_trace(make_row(notes=["2 tries"]), row), width=80)).plain
    assert heading.endswith(f"  {ended}")


@pytest.mark.parametrize("width", [60, 80, 140])
def test_a_waterfall_fits_the_terminal(width: int, update_golden: bool) -> None:
    lines = [line.plain.rstrip() for line in draw_waterfall(make_rows(), width=width, wide=True)]
    assert all(len(line) <= width for line in lines)
    text = "\n".join(lines) + "\n"
    path = Path(__file__).parents[1] / "golden" / "traces" / f"waterfall-{width}.txt"
    if update_golden:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()
