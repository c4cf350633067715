"""The judge: what it takes to fail, to go on, and what each of its sentences is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.rollouts import QUICK, make_counts, make_sample, running

from meshctl.canary.judge import LEAST_REFERENCE, allowed_alone, judge, take_in
from meshctl.canary.model import Counts, Evidence, Rollout, Sample, Settings, Verdict

GOOD, STABLE, NONE = make_counts(50), make_counts(450), Counts()


def give(rollout: Rollout, sample: Sample, now: float = 1001.0) -> Verdict:
    """The verdict on a sample that is counted."""
    counted = replace(
        rollout,
        requests=rollout.requests + sample.canary.requests,
        stable_requests=rollout.stable_requests + sample.stable.requests,
    )
    return judge(counted, sample, now)[1]


def at(rollout: Rollout, **more: Any) -> Rollout:
    return replace(rollout, **more)


def test_much_evidence_and_a_figure_beyond_the_bound_take_a_version_back() -> None:
    verdict = give(running(), make_sample(1001.0, make_counts(50, 10), make_counts(450, 4)))
    assert verdict.action == "roll_back"
    assert verdict.errors.failed
    assert verdict.errors.evidence > 200
    assert verdict.why.startswith("20% errors at v2, 0.889% at v1 (evidence ")
    assert verdict.why.endswith(" of 200)")


def test_evidence_alone_does_not_while_the_window_is_within_the_bound() -> None:
    """The difference is real and lies behind: of late the version is no worse."""
    sample = make_sample(1001.0, make_counts(50, 10), make_counts(450, 4), window_canary=GOOD, window_stable=STABLE)
    verdict = give(running(), sample)
    assert verdict.errors.evidence > 200
    assert (verdict.action, verdict.errors.exceeded) == ("hold", False)


def test_a_figure_beyond_the_bound_does_not_while_there_is_little_evidence() -> None:
    verdict = give(running(), make_sample(1001.0, make_counts(50, 1), make_counts(450, 4)))
    assert verdict.errors.exceeded
    assert verdict.action == "hold"


def test_who_wants_to_look_at_a_failure_has_it_frozen() -> None:
    verdict = give(running(replace(QUICK, on_failure="freeze")), make_sample(1001.0, make_counts(50, 10), STABLE))
    assert verdict.action == "freeze"


def test_slow_ones_are_those_that_the_requests_before_call_slow() -> None:
    """The first tick asks about nothing: the bucket is chosen by what came before a tick, never by the tick."""
    slow = make_sample(1001.0, make_counts(50, slow=20), make_counts(450))
    evidence = take_in(running(), slow)
    assert evidence.slow_bucket is not None
    assert evidence.latency.rows == ((0.0,) * 7,)
    again = judge(at(running(), evidence=evidence), slow, 1002.0)[1]
    assert again.action == "roll_back"
    assert again.why.startswith("p99 5")


def test_of_few_requests_of_the_stable_version_nothing_is_called_slow() -> None:
    evidence = take_in(running(), make_sample(1001.0, make_counts(50), make_counts(199)))
    assert evidence.slow_bucket is None
    known = replace(evidence, slow_bucket=40)
    kept = take_in(at(running(), evidence=known), make_sample(1002.0, make_counts(50), make_counts(10)))
    assert kept.slow_bucket == 40


@pytest.mark.parametrize(
    ("more", "sample", "now", "action", "why"),
    [
        ({}, {}, 1005.0, "hold", "at 5% for 4s of 10s"),
        ({}, {"canary": NONE, "active": 12}, 1020.0, "hold", "too few requests to v2 yet: n=0/20, 12 under way"),
        ({}, {"canary": make_counts(7), "active": 12}, 1020.0, "hold", "too few requests to v2 yet: n=7/20"),
        (
            {},
            {"canary": Counts(rejected=9)},
            1020.0,
            "hold",
            "too few requests to v2 yet: n=0/20, 9 turned away by an open circuit",
        ),
        ({}, {"stable": make_counts(3)}, 1020.0, "hold", "too few requests to v1 to compare with yet: n=3/20"),
        (
            {},
            {"stale": ("front",)},
            1020.0,
            "hold",
            "the sidecar of front does not answer, so its requests are not known",
        ),
        ({}, {"fault": "30% abort"}, 1020.0, "hold", "30% abort is on: what it does is not held against v2"),
        ({}, {}, 1020.0, "advance", "no worse at 5%: on to 10%"),
        ({"deadline_at": 1015.0}, {}, 1014.0, "advance", "no worse at 5%: on to 10%"),
        ({"step": 4, "weight": 100}, {"stable": NONE}, 1011.0, "promote", "v2 has had all of the traffic for 10s"),
    ],
)  # fmt: skip
def test_what_follows_when_nothing_failed(
    more: dict[str, Any], sample: dict[str, Any], now: float, action: str, why: str
) -> None:
    given: dict[str, Any] = {"canary": GOOD, "stable": STABLE, **sample}
    rollout = at(running(), **more)
    verdict = give(rollout, make_sample(now, given.pop("canary"), given.pop("stable"), **given), now)
    assert (verdict.action, verdict.why) == (action, why)


def test_at_its_deadline_a_rollout_says_what_it_waits_for() -> None:
    rollout = running(replace(QUICK, deadline=60.0))
    verdict = give(rollout, make_sample(1060.0, make_counts(3), STABLE), 1060.0)
    assert verdict.action == "pause"
    assert verdict.why == "inconclusive at its deadline of 1m: too few requests to v2 yet: n=3/20"


def test_doubt_holds_and_does_not_take_back() -> None:
    """Evidence of 14 to 200 with a figure beyond the bound: neither on nor back."""
    sample = make_sample(1020.0, make_counts(100, 7), make_counts(900, 9))
    verdict = give(running(), sample, 1020.0)
    assert QUICK.doubt <= verdict.errors.evidence < 200
    assert verdict.action == "hold"
    assert verdict.why.startswith("not sure yet: 7% errors at v2, 1% at v1")


def test_a_test_starts_over_once_a_window() -> None:
    rollout = running()
    for second in range(1, 31):
        sample = make_sample(1000.0 + second, GOOD, STABLE)
        rollout = at(rollout, evidence=take_in(rollout, sample))
    assert len(rollout.evidence.errors.rows) == 3


# ---------------------------------------------------------------------------------------------- injected faults


@pytest.mark.parametrize("told", [{"fault": "30% abort"}, {"canary": Counts(requests=50, errors=20, injected=20)}])
def test_what_was_injected_is_no_evidence_unless_asked(told: dict[str, Any]) -> None:
    given: dict[str, Any] = {"canary": make_counts(50, 20), "stable": STABLE, **told}
    sample = make_sample(1001.0, given.pop("canary"), given.pop("stable"), **given)
    assert give(running(), sample).action == "hold"
    assert take_in(running(), sample) == Evidence()
    asked = running(replace(QUICK, count_faults=True))
    assert give(asked, sample).action == "roll_back"


# ---------------------------------------------------------------------------------------------- nothing beside it


def test_alone_a_version_is_held_to_what_the_stable_one_may_have_had() -> None:
    assert allowed_alone(QUICK, Evidence()) == LEAST_REFERENCE
    assert allowed_alone(QUICK, Evidence(reference_requests=10**6, reference_errors=10)) == LEAST_REFERENCE
    assert 0.055 < allowed_alone(QUICK, Evidence(reference_requests=10**5, reference_errors=5000)) < 0.06
    assert allowed_alone(QUICK, Evidence(reference_requests=10, reference_errors=10)) == 0.99


def test_alone_errors_take_it_back_and_slowness_does_not() -> None:
    evidence = Evidence(reference_requests=10000, reference_errors=10, slow_bucket=40)
    rollout = at(running(), step=4, weight=100, evidence=evidence)
    failing = give(rollout, make_sample(1001.0, make_counts(200, 30), make_counts(0)))
    assert (failing.action, failing.pairing, failing.errors.stable) == ("roll_back", "unpaired", None)
    assert failing.errors.bound == LEAST_REFERENCE
    assert failing.why.startswith("15% errors at v2, 1% allowed alone (evidence ")
    slow = give(rollout, make_sample(1011.0, make_counts(200, slow=100), make_counts(0)), 1011.0)
    assert (slow.action, slow.latency.bound) == ("promote", None)


def test_a_hung_version_fails_by_its_timeouts() -> None:
    """Requests that hang end when their timeout does: as errors."""
    hung = Counts(requests=10, errors=10, durations={100: 10})
    verdict = give(running(), make_sample(1006.0, hung, make_counts(190)), 1006.0)
    assert verdict.action == "roll_back"


def test_a_whole_percent_of_difference_is_told_in_short() -> None:
    settings = Settings(alpha=0.1)
    verdict = give(running(settings), make_sample(1001.0, make_counts(0), make_counts(0)))
    assert (verdict.errors.canary, verdict.errors.bound, verdict.errors.exceeded) == (None, None, False)
    assert verdict.errors.threshold == 20
