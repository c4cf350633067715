"""What starts before what, and what stops before what."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.instances import make_job, make_sidecar, make_spec

from meshctl.lifecycle.health import InstanceView
from meshctl.lifecycle.model import InstanceState
from meshctl.lifecycle.order import find_levels, find_stop_levels, find_unmet
from meshctl.spec.schema import Condition

NAMES = ["a", "b", "c", "d", "e"]


def test_levels_put_what_is_needed_first() -> None:
    assert find_levels({"web": ["cart", "stock"], "cart": ["db"], "stock": ["db"], "db": []}) == (
        ("db",),
        ("cart", "stock"),
        ("web",),
    )


def test_levels_leave_out_what_is_not_there() -> None:
    assert find_levels({"web": ["elsewhere"]}) == (("web",),)


def test_a_cycle_comes_together_in_the_last_level() -> None:
    assert find_levels({"a": ["b"], "b": ["a"], "c": [], "d": ["a"]}) == (("c",), ("a", "b", "d"))


@given(st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES))))
def test_levels_hold_every_name_once_whatever_the_dependencies(needs: Mapping[str, set[str]]) -> None:
    levels = find_levels(needs)
    assert sorted(name for level in levels for name in level) == sorted(needs)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_without_cycles_every_need_is_in_an_earlier_level(pairs: list[tuple[int, int]]) -> None:
    needs: dict[str, set[str]] = {str(n): set() for n in range(10)}
    for one, other in pairs:
        if one < other:
            needs[str(other)].add(str(one))
    level_of = {name: number for number, level in enumerate(find_levels(needs)) for name in level}
    assert all(level_of[need] < level_of[name] for name, wanted in needs.items() for need in wanted)


def test_dependents_stop_first_and_sidecars_last() -> None:
    specs = [
        make_spec("db-v1-1"),
        make_spec("web-v1-1", depends_on={"cart": "healthy"}),
        make_spec("cart-v1-2", depends_on={"db": "started"}),
        make_spec("cart-v1-1", depends_on={"db": "started"}),
        make_sidecar("sidecar.web"),
        make_sidecar("sidecar.cart"),
    ]
    assert find_stop_levels(specs) == (
        ("web-v1-1",),
        ("cart-v1-1", "cart-v1-2"),
        ("db-v1-1",),
        ("sidecar.cart", "sidecar.web"),
    )
    assert find_stop_levels(specs[:1]) == (("db-v1-1",),)


UP = InstanceState(phase="ready", ready=True, started_at=1.0, pid=7)
SICK = InstanceState(phase="ready", ready=False, started_at=1.0, pid=7)
NEW = InstanceState(phase="starting")
DOWN = InstanceState(phase="pending")
DEAD = InstanceState(phase="failed", started_at=1.0)
DONE = InstanceState(phase="completed")


@pytest.mark.parametrize(
    ("condition", "states", "reason"),
    [
        ("started", [UP, SICK], ""),
        ("started", [UP, NEW], "waiting for db to be started"),
        ("started", [DOWN], "waiting for db to be started"),
        ("started", [DONE], ""),
        ("healthy", [UP, NEW], ""),
        ("healthy", [SICK], "waiting for db to be healthy"),
        ("healthy", [], ""),
        ("healthy", [DEAD], "waiting for db, which failed"),
        ("completed_successfully", [DONE], ""),
        ("completed_successfully", [NEW], "waiting for db to complete"),
        ("completed_successfully", [DEAD], "waiting for db, which failed"),
    ],
)
def test_a_dependency_is_met_or_the_reason_says_what_is_awaited(
    condition: Condition, states: list[InstanceState], reason: str
) -> None:
    views = [InstanceView(spec=make_spec(f"db-v1-{n}"), state=state) for n, state in enumerate(states, 1)]
    assert find_unmet(make_spec(depends_on={"db": condition}), views) == reason


def test_several_unmet_dependencies_are_named_together() -> None:
    views = [InstanceView(spec=make_spec("db-v1-1"), state=NEW), InstanceView(spec=make_job("seed-v1-1"), state=NEW)]
    spec = make_spec(depends_on={"db": "healthy", "seed": "completed_successfully"})
    assert find_unmet(spec, views) == "waiting for db to be healthy and seed to complete"


def test_sidecars_and_instances_that_go_do_not_count() -> None:
    views = [
        InstanceView(spec=make_sidecar("sidecar.db", service="db"), state=DOWN),
        InstanceView(spec=make_spec("db-v1-1"), state=SICK, removed=True),
    ]
    assert find_unmet(make_spec(depends_on={"db": "healthy"}), views) == ""
