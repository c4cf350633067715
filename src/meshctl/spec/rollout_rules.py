"""Refuses rules of a rollout that make no sense, wherever they were written.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

from meshctl.spec.rollout_keys import LONGEST_WINDOW
from meshctl.spec.values import format_duration

FULL = 100
SHORTEST_INTERVAL = 1.0
"""Seconds: traffic is counted by the second."""

_EXAMPLE = "such as 5, 10, 25, 50, 100"


class Rules(Protocol):
    """What is looked at; see ``rollout_schema.RolloutRules``."""

    @property
    def steps(self) -> tuple[int, ...]:
        """Weights, in percent."""
        ...

    @property
    def interval(self) -> float:
        """Seconds."""
        ...

    @property
    def window(self) -> float:
        """Seconds."""
        ...

    @property
    def max_error_ratio(self) -> float:
        """A factor."""
        ...

    @property
    def max_p99_ratio(self) -> float:
        """A factor."""
        ...

    @property
    def alpha(self) -> float:
        """A probability."""
        ...

    @property
    def min_requests(self) -> int:
        """A count."""
        ...

    @property
    def deadline(self) -> float:
        """Seconds; 0 for none."""
        ...


def find_mistakes(rules: Rules) -> Iterator[tuple[str, str, str]]:
    """What is wrong: the key, a message, and what to write instead."""
    for message, hint in _find_in_steps(rules.steps):
        yield "steps", message, hint
    interval, window = rules.interval, rules.window
    if interval < SHORTEST_INTERVAL:
        yield (
            "interval",
            f"an interval of {_words(interval)} is too short",
            "traffic is counted by the second: at least 1s",
        )
    if window > LONGEST_WINDOW:
        yield "window", f"a window of {_words(window)} is too long", f"traffic is kept for {_words(LONGEST_WINDOW)}"
    if window < interval:
        yield (
            "window",
            f"the window ({_words(window)}) is shorter than the interval ({_words(interval)})",
            "each look compares what a whole window holds: make the window at least as long as the interval",
        )
    for key, name, ratio in (
        ("max_error_ratio", "error ratio", rules.max_error_ratio),
        ("max_p99_ratio", "p99 ratio", rules.max_p99_ratio),
    ):
        if not 1 <= ratio <= 100:
            yield (
                key,
                f"a greatest {name} of {ratio:g} cannot be kept to",
                "1.1 allows a tenth more than the stable version has; it is from 1 to 100",
            )
    if not 0.0001 <= rules.alpha <= 0.5:
        yield (
            "alpha",
            f"an alpha of {rules.alpha:g} is none",
            "it is the probability of taking a good version back: from 0.0001 to 0.5, such as 0.01",
        )
    if rules.min_requests < 1:
        yield "min_requests", f"{rules.min_requests} requests tell nothing", "at least 1 has to be seen at each step"
    least = len(rules.steps) * window
    if rules.deadline < 0 or 0 < rules.deadline < least:
        yield (
            "deadline",
            f"a deadline of {_words(rules.deadline)} is over before the steps are",
            f"{len(rules.steps)} steps of {_words(window)} each take {_words(least)} at least; 0 is for no deadline",
        )


def _find_in_steps(steps: Sequence[int]) -> Iterator[tuple[str, str]]:
    told = ", ".join(str(step) for step in steps)
    if not steps:
        yield "a rollout needs steps", _EXAMPLE
    elif any(not 1 <= step <= FULL for step in steps):
        yield f"the steps {told} are not all weights", f"a weight is a whole percentage from 1 to 100, {_EXAMPLE}"
    elif any(later <= earlier for earlier, later in pairwise(steps)):
        yield f"the steps {told} do not rise", f"each is greater than the one before, {_EXAMPLE}"
    elif steps[-1] != FULL:
        yield (
            f"the steps {told} do not end with {FULL}",
            f"the last step is all of the traffic, {_EXAMPLE}; `meshctl canary pause` holds a rollout at any step",
        )


def _words(seconds: float) -> str:
    return format_duration(seconds) if seconds >= 0 else f"{seconds:g}s"
