"""What counts for or against a version."""

from __future__ import annotations

from meshctl.canary.counts import count, count_version
from meshctl.canary.model import Counts
from meshctl.telemetry.names import Outcome
from meshctl.telemetry.tally import Tally


def test_each_request_counts_once_by_how_it_ended() -> None:
    tally = Tally(
        outcomes={
            Outcome(200, -1, ""): 90,
            Outcome(404, -1, ""): 3,
            Outcome(503, -1, "UH"): 2,
            Outcome(504, -1, "UT"): 4,
            Outcome(0, -1, "DC"): 1,
            Outcome(200, 13, ""): 5,
        },
        durations={40: 104},
    )
    assert count(tally) == Counts(requests=105, errors=12, durations={40: 104})


def test_what_an_open_circuit_turned_away_counts_for_no_version() -> None:
    tally = Tally(
        outcomes={
            Outcome(200, -1, ""): 10,
            Outcome(503, -1, "circuit_open"): 7,
            Outcome(200, -1, "circuit_open"): 2,
            Outcome(503, -1, "UF,circuit_open"): 1,
        }
    )
    assert count(tally) == Counts(requests=10, errors=0, rejected=10)


def test_what_was_injected_is_counted_apart() -> None:
    tally = Tally(outcomes={Outcome(503, -1, "FI"): 3, Outcome(200, -1, "DI"): 2, Outcome(200, -1, ""): 5})
    assert count(tally) == Counts(requests=10, errors=3, injected=5)


def test_routes_with_versions_of_their_own_are_left_out() -> None:
    one = Tally(outcomes={Outcome(200, -1, ""): 1})
    tallies = {("v2", "shop"): one, ("v2", "admins"): one, ("v1", "shop"): one, ("v2", "slowly"): one}
    assert count_version(tallies, "v2", apart=("admins",)).requests == 2
    assert count_version(tallies, "v3", apart=()) == Counts()
