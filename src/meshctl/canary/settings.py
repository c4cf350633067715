"""Refuses settings of a rollout that make no sense, whoever gives them.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from meshctl.canary.model import FULL, Settings
from meshctl.errors import UsageError
from meshctl.spec.values import format_duration

MOST_STEPS = 100
LONGEST_WINDOW = 3600.0
"""Seconds that figures are kept for."""


def check_settings(settings: Settings) -> None:
    """Raise UsageError for the first of the mistakes in some settings."""
    for message, hint in find_mistakes(settings):
        raise UsageError(message, hint=hint)


def find_mistakes(settings: Settings) -> Iterator[tuple[str, str]]:
    """What is wrong, each with what to write instead."""
    yield from _find_in_steps(settings.steps)
    interval, window = settings.interval, settings.window
    if interval < 1:
        yield f"an interval of {_words(interval)} is too short", "traffic is counted by the second: at least 1s"
    if window > LONGEST_WINDOW:
        yield f"a window of {_words(window)} is too long", f"traffic is remembered for {_words(LONGEST_WINDOW)}"
    if window < interval:
        yield (
            f"the window ({_words(window)}) is shorter than the interval ({_words(interval)})",
            "each look compares what a whole window holds: make the window at least as long as the interval",
        )
    for name, ratio in (("error", settings.max_error_ratio), ("p99", settings.max_p99_ratio)):
        if not 1 <= ratio <= 100:
            yield (
                f"a greatest {name} ratio of {ratio:g} cannot be kept to",
                "1.1 allows a tenth more than the stable version has; it must be from 1 to 100",
            )
    if not 1e-6 <= settings.alpha <= 0.5:
        yield (
            f"an alpha of {settings.alpha:g} is none",
            "it is the probability of taking a good version back: above 0 and up to 0.5, such as 0.01",
        )
    if settings.min_requests < 1:
        yield f"{settings.min_requests} requests tell nothing", "at least 1 request has to be seen at each step"
    least = len(settings.steps) * window
    if settings.deadline < 0 or 0 < settings.deadline < least:
        yield (
            f"a deadline of {_words(settings.deadline)} is over before the steps are",
            f"{len(settings.steps)} steps of {_words(window)} each take {_words(least)} at least; 0 is for no deadline",
        )


def _find_in_steps(steps: Sequence[int]) -> Iterator[tuple[str, str]]:
    told = ",".join(str(step) for step in steps) or "none"
    example = "such as 5,10,25,50,100"
    if not steps:
        yield "a rollout needs steps", example
    elif any(not 1 <= step <= FULL for step in steps):
        yield f"the steps {told} are not all weights", f"a weight is a whole percentage from 1 to 100, {example}"
    elif any(later <= earlier for earlier, later in pairwise(steps)):
        yield f"the steps {told} do not rise", f"each has to be greater than the one before, {example}"
    elif steps[-1] != FULL:
        yield (
            f"the steps {told} do not end with {FULL}",
            f"the last step is all of the traffic, {example}; `canary pause` holds a rollout at any step",
        )


def _words(seconds: float) -> str:
    return format_duration(seconds) if seconds >= 0 else f"{seconds:g}s"
