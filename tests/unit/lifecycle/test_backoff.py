"""How long to wait before a process is started again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshctl.lifecycle.backoff import delay
from meshctl.spec.schema import RestartPolicy


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(-1, 0.0), (0, 0.0), (1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (10_000, 30.0)],
)
def test_delays_double_from_backoff_to_max_backoff(failures: int, seconds: float) -> None:
    assert delay(RestartPolicy(backoff=0.5, max_backoff=30.0), failures) == seconds


@given(
    backoff=st.floats(0.001, 100),
    highest=st.floats(0.001, 1000),
    failures=st.integers(0, 10**6),
)
def test_delays_never_shrink_and_never_exceed_the_maximum(backoff: float, highest: float, failures: int) -> None:
    policy = RestartPolicy(backoff=backoff, max_backoff=highest)
    assert 0.0 <= delay(policy, failures) <= delay(policy, failures + 1) <= highest
