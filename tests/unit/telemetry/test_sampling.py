"""Of how many requests spans are made: all while there are few, about as many as the budget allows above."""

from __future__ import annotations

import math
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from meshctl.telemetry.sampling import FULL, LEAST, RAISE_AFTER, Sampling, find_level, step

BUDGET = 1000.0


def simulate(
    loads: Iterable[float], *, spans_per_request: float = 30.0, others: int = 4, delay: float = 0.5
) -> list[tuple[float, int]]:
    """What one entry of a mesh records: (spans made in a second, share in the next), one for each second of load.

    The other sidecars see twice as many requests, none of which begins there. A part of the spans comes a second late.
    """
    state, before, seen = Sampling(), 0.0, []
    for load in loads:
        made = load * spans_per_request * state.shares().get("entry", FULL) / FULL
        came = made * (1 - delay) + before * delay
        before = made
        requests = {"entry": load, **{f"other{i}": load * 2 for i in range(others)}}
        state = step(state, spans={"entry": round(came)}, requests=requests, budget=BUDGET)
        seen.append((made, state.shares().get("entry", FULL)))
    return seen


def test_every_request_is_recorded_while_there_are_few() -> None:
    assert {share for _, share in simulate([0, 1, 5, 20, 30, 30, 30, 3, 0])} == {FULL}


def test_a_sudden_load_is_within_the_budget_two_seconds_later() -> None:
    seen = simulate([0, 5, *[3000.0] * 30])
    assert all(made <= 2 * BUDGET for made, _ in seen[4:])
    # Once that settled, most of the budget is used.
    assert all(BUDGET / 3 <= made <= 1.2 * BUDGET for made, _ in seen[15:])


def test_a_steady_load_changes_nothing_once_it_has_settled() -> None:
    """Sidecars are not told a new share each second."""
    assert len({share for _, share in simulate([1000.0] * 60)[20:]}) == 1


def test_when_load_goes_every_request_is_recorded_again_after_a_few_seconds() -> None:
    seen = simulate([*[3000.0] * 20, *[5.0] * (RAISE_AFTER + 2)])
    assert seen[19][1] < FULL
    assert seen[-1][1] == FULL


def test_a_short_lull_raises_no_share() -> None:
    seen = simulate([*[3000.0] * 20, *[5.0] * (RAISE_AFTER - 2), *[3000.0] * 5])
    assert all(share <= FULL / 10 for _, share in seen[10:])


def test_a_sidecar_at_which_no_trace_begins_takes_nothing_from_the_others() -> None:
    state = Sampling()
    for _ in range(20):
        made = round(20 * 40 * state.shares().get("entry", FULL) / FULL)
        state = step(state, spans={"entry": made}, requests={"entry": 20.0, "busy": 5000.0}, budget=BUDGET)
    assert "entry" not in state.shares()


def test_a_quiet_entry_is_recorded_whole_beside_a_busy_one() -> None:
    state = Sampling()
    for _ in range(30):
        shares = state.shares()
        spans = {
            "quiet": round(5 * 20 * shares.get("quiet", FULL) / FULL),
            "busy": round(4000 * 20 * shares.get("busy", FULL) / FULL),
        }
        state = step(state, spans=spans, requests={"quiet": 5.0, "busy": 4000.0}, budget=BUDGET)
    assert "quiet" not in state.shares()
    assert LEAST < state.shares()["busy"] < FULL / 50


def test_a_sidecar_that_is_no_more_is_forgotten() -> None:
    state = step(Sampling(), spans={"gone": 50000}, requests={"gone": 5000.0}, budget=BUDGET)
    assert "gone" in state.shares()
    assert step(state, spans={}, requests={"other": 1.0}, budget=BUDGET).shares() == {}


@given(st.lists(st.floats(0, 1e6), max_size=8), st.floats(1, 1e5))
def test_the_level_meets_the_budget_or_every_demand(demands: list[float], budget: float) -> None:
    """Max-min fairness: nobody gets more than the level, and nobody less who wants less."""
    level = find_level(demands, budget)
    met = sum(min(demand, level) for demand in demands)
    if level == math.inf:
        assert sum(demands) <= budget * (1 + 1e-9)
    else:
        assert math.isclose(met, budget, rel_tol=1e-9)


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**6)),
            st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e6)),
        ),
        max_size=30,
    )
)
def test_whatever_is_counted_shares_stay_in_bounds(steps: list[tuple[dict[str, int], dict[str, float]]]) -> None:
    state = Sampling()
    for spans, requests in steps:
        state = step(state, spans=spans, requests=requests, budget=BUDGET)
        assert set(state.sidecars) == set(requests)
        assert all(LEAST <= share < FULL for share in state.shares().values())


@given(st.floats(0, 1e5), st.floats(1, 100), st.floats(0, 1))
def test_any_steady_load_settles_within_twice_the_budget(load: float, spans: float, delay: float) -> None:
    seen = simulate([load] * 40, spans_per_request=spans, delay=delay)
    least = load * spans * LEAST / FULL
    assert all(made <= max(2 * BUDGET, least) for made, _ in seen[25:])
