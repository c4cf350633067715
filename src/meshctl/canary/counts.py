"""What sidecars counted of requests -> what counts for or against a version.  Pure.

Counted is what callers saw: each request once, after its last try, when it has ended.  A request that hangs ends when
its timeout does, and is an error then.  What callers' sidecars turned away because a circuit was open reached no
version and counts for none; what faults were injected into is counted apart.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from meshctl.canary.model import Counts
from meshctl.envoy.signals import CIRCUIT_OPEN
from meshctl.telemetry.tally import Tally, add_tallies, is_failure

INJECTED = frozenset({"FI", "DI"})
"""Envoy's response flags of requests that a fault was injected into: aborted, delayed. Source:
https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage#response-flags
"""


def count(tally: Tally) -> Counts:
    """A tally as the judge is shown it."""
    requests = errors = rejected = injected = 0
    for outcome, number in tally.outcomes.items():
        flags = frozenset(outcome.flags.split(","))
        if CIRCUIT_OPEN in flags:
            rejected += number
            continue
        requests += number
        errors += number if is_failure(outcome) else 0
        injected += number if flags & INJECTED else 0
    # Times are not known by outcome: those that were turned away are among them, at both versions by their shares.
    return Counts(
        requests=requests, errors=errors, rejected=rejected, injected=injected, durations=dict(tally.durations)
    )


def count_version(tallies: Mapping[tuple[str, str], Tally], version: str, *, apart: Collection[str]) -> Counts:
    """What went to one version of a service by its split, of tallies by version and route.

    ``apart`` are routes that do not go by the split.
    """
    return count(
        add_tallies(tally for (found, route), tally in tallies.items() if found == version and route not in apart)
    )
