"""The supervisor's readiness and Envoy's active check give one answer."""

import pytest
from tests.support.instances import make_spec

from meshctl.lifecycle.health import InstanceView, verdict
from meshctl.lifecycle.model import InstanceState, Phase


@pytest.mark.parametrize(
    ("ready", "check", "checked", "health"),
    [
        (True, None, False, "healthy"),
        (True, False, False, "healthy"),
        (True, True, True, "healthy"),
        (True, None, True, "unknown"),
        (True, False, True, "unhealthy"),
        (False, True, True, "unhealthy"),
        (False, None, True, "unhealthy"),
        (False, None, False, "unhealthy"),
    ],
)
def test_a_ready_instance_is_healthy_when_every_check_that_counts_passes(
    ready: bool, check: bool | None, checked: bool, health: str
) -> None:
    assert verdict("ready", ready, check, checked) == health


@pytest.mark.parametrize(
    ("phase", "health"),
    [
        ("pending", "unknown"),
        ("starting", "unknown"),
        ("stopped", "unknown"),
        ("completed", "healthy"),
        ("draining", "unhealthy"),
        ("stopping", "unhealthy"),
        ("backoff", "unhealthy"),
        ("failed", "unhealthy"),
    ],
)
def test_in_every_other_phase_the_phase_decides(phase: Phase, health: str) -> None:
    assert {verdict(phase, ready, check, True) for ready in (True, False) for check in (True, False, None)} == {health}


def test_a_view_takes_all_four_facts_together() -> None:
    state = InstanceState(phase="ready", ready=True)
    spec = make_spec(envoy_checked=True)
    assert InstanceView(spec=spec, state=state).health == "unknown"
    assert InstanceView(spec=spec, state=state, envoy_check=True).health == "healthy"
