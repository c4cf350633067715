"""Answers of Envoy's admin interface, and what counts as a failure."""

from __future__ import annotations

import json

import pytest

from meshctl.telemetry.buckets import bucket_of
from meshctl.telemetry.names import Outcome
from meshctl.telemetry.stats import read_stats
from meshctl.telemetry.tally import Tally, add_tallies, grpc_name, is_failure

ANSWER = {
    "stats": [
        {"name": "caller.rq", "value": 7},
        {"name": "a.text", "value": "words"},
        {
            "histograms": {
                "supported_percentiles": [0, 50],
                "details": [
                    {
                        "name": "caller.us",
                        "totals": [
                            {"lower_bound": 1000, "width": 100, "count": 3},
                            {"lower_bound": 1010, "width": 10, "count": 2},
                            {"lower_bound": 52000, "width": 1000, "count": 1},
                        ],
                        "intervals": [],
                        "percentiles": [{"cumulative": 1.0, "interval": None}],
                    }
                ],
            }
        },
    ]
}


def test_an_answer_is_read() -> None:
    found = read_stats(json.dumps(ANSWER))
    assert found.numbers == {"caller.rq": 7}
    assert found.histograms == {"caller.us": {bucket_of(1.05): 5, bucket_of(52.5): 1}}


@pytest.mark.parametrize("text", ["", "{}", "<html>", '{"stats": [{"name": 3}]}'])
def test_what_is_no_answer_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read_stats(text)


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (Outcome(200, -1, ""), False),
        (Outcome(200, 0, ""), False),
        (Outcome(404, -1, ""), False),
        (Outcome(200, 5, ""), False),
        (Outcome(500, -1, ""), True),
        (Outcome(200, 13, ""), True),
        (Outcome(200, 14, "UF"), True),
        (Outcome(0, -1, "DC"), True),
        (Outcome(200, -1, "DC"), False),
    ],
)
def test_failures_are_the_servers(outcome: Outcome, failed: bool) -> None:
    assert is_failure(outcome) is failed


def test_no_request_is_neither_success_nor_failure() -> None:
    assert Tally().success is None
    assert Tally(outcomes={Outcome(500, -1, ""): 4}).success == 0


def test_rates_that_nobody_knows_add_nothing() -> None:
    assert add_tallies([Tally(), Tally(rate=2.0), Tally(rate=3.0)]).rate == 5
    assert add_tallies([Tally(), Tally()]).rate is None


def test_grpc_statuses_have_names() -> None:
    assert (grpc_name(0), grpc_name(16), grpc_name(17)) == ("OK", "UNAUTHENTICATED", "17")
