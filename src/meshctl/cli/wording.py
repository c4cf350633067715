"""How results are put into words: counts, durations, a change that is in effect."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshctl.cli.options import Output
from meshctl.cli.project import Screen

if TYPE_CHECKING:
    from meshctl.wire.models import AppliedResult
    from meshctl.wire.policies import PolicyResult
    from meshctl.wire.shifts import TrafficResult


def print_applied(screen: Screen, result: AppliedResult, *, output: Output) -> None:
    """Say what changed and which sidecars acknowledged it, or print the result as JSON."""
    if output is Output.JSON:
        from meshctl.cli.render import print_json  # noqa: PLC0415 - rich is loaded when something is printed
        from meshctl.wire.models import encode  # noqa: PLC0415

        print_json(encode(result))
        return
    said = describe_applied(result)
    screen.say(f"{result.message}; {said}" if result.message else said)


def describe_applied(result: AppliedResult | PolicyResult | TrafficResult) -> str:
    """``applied to 5/5 sidecars in 12 ms``."""
    sidecars = count_nouns(result.total, "sidecar")
    return f"applied to {result.acked}/{sidecars} in {describe_duration(result.duration_ms)}"


def describe_duration(milliseconds: float) -> str:
    """``12 ms`` below ten seconds, then ``12.3 s``."""
    return f"{milliseconds:.0f} ms" if milliseconds < 10_000 else f"{milliseconds / 1000:.1f} s"


def count_nouns(number: int, noun: str) -> str:
    """``1 service``, ``8 services``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
