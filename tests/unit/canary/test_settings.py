"""Settings that make no sense are refused, each with what to write instead."""

from __future__ import annotations

from typing import Any

import pytest

from meshctl.canary.model import Settings
from meshctl.canary.settings import check_settings
from meshctl.errors import UsageError
from meshctl.spec.rollout_rules import find_mistakes

MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"steps": ()}, "a rollout needs steps"),
    ({"steps": (0, 100)}, "the steps 0, 100 are not all weights"),
    ({"steps": (50, 101)}, "the steps 50, 101 are not all weights"),
    ({"steps": (10, 10, 100)}, "the steps 10, 10, 100 do not rise"),
    ({"steps": (10, 50)}, "the steps 10, 50 do not end with 100"),
    ({"interval": 0.5}, "an interval of 500ms is too short"),
    ({"window": 5}, "the window (5s) is shorter than the interval (10s)"),
    ({"window": -1}, "the window (-1s) is shorter than the interval (10s)"),
    ({"window": 4000, "deadline": 0}, "a window of 1h6m40s is too long"),
    ({"max_error_ratio": 0.9}, "a greatest error ratio of 0.9 cannot be kept to"),
    ({"max_p99_ratio": 1000}, "a greatest p99 ratio of 1000 cannot be kept to"),
    ({"alpha": 0.0}, "an alpha of 0 is none"),
    ({"alpha": float("nan")}, "an alpha of nan is none"),
    ({"min_requests": 0}, "0 requests tell nothing"),
    ({"deadline": 60}, "a deadline of 1m is over before the steps are"),
    ({"deadline": -1}, "a deadline of -1s is over before the steps are"),
]


@pytest.mark.parametrize(("given", "message"), MISTAKES)
def test_a_mistake_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as error:
        check_settings(Settings(**given))
    assert error.value.message == message
    assert error.value.hint


def test_what_is_built_in_makes_sense() -> None:
    assert list(find_mistakes(Settings())) == []
    assert list(find_mistakes(Settings(steps=(100,), interval=1, window=1, deadline=0))) == []
    assert (Settings().threshold, round(Settings().doubt, 1)) == (200, 14.1)
