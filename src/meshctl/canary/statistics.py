"""The sequential test behind a canary: evidence that a version is worse, valid whenever it is looked at.  Pure.

Enters: requests and bad ones of two versions, tick by tick.  Leaves: one number that starts at 1 and, while the
version is no worse, is above any ``1/a`` at any time with a probability of at most ``a``.  docs/canary-statistics.md
derives it.  Sums are in logarithms.

Sources: Ville's inequality, as in Ramdas, Grünwald, Vovk and Shafer, arXiv 2210.01948; Lindon and Malek, arXiv
2011.03567, for tests of ratios of counts; Shin, Ramdas and Rinaldo, arXiv 2203.03532, for starting over.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from meshctl.canary.model import Process, Spread
from meshctl.telemetry.buckets import LAST, bucket_of, upper_bound

GRID = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""By how much more than allowed the version may be worse: the alternatives that are bet on, in equal parts."""

MAX_STARTS = 64
"""How often a test is started over at the most: its state is bounded, and later starts would weigh next to nothing."""

MOST = 1e12
"""Evidence is not told beyond this."""

TAIL = 0.99
ENOUGH_FOR_TAIL = 200
"""Requests of the stable version of which the slowest hundredth is known well enough to ask about."""

SLACK_MS = 5.0
"""A p99 may be this much longer in any case: below 25 ms a factor of 1.2 is within the noise of one machine."""

_DOUBT = 3
# So many pairs of ticks without clusters are taken to have been seen: the first few say little.

_Z = 3.0
# Standard deviations to the upper end of what a share may be.


def start_over(process: Process) -> Process:
    """The test with one more start, which begins now and sees only what comes."""
    if len(process.rows) >= MAX_STARTS:
        return process
    return Process(rows=(*process.rows, (0.0,) * len(GRID)))


def compare(
    process: Process,
    canary: tuple[int, int],
    stable: tuple[int, int],
    *,
    ratio: float,
    dispersions: tuple[float, float] = (1.0, 1.0),
) -> Process:
    """Take in one tick of two versions, each as (bad, requests), against "the version is at most ``ratio`` as bad".

    For each r of the grid times ``ratio`` the likelihood of the split of bad requests over the versions is compared
    with that at ``ratio``: ``(t/t0)**bad_c * ((1-t)/(1-t0))**bad_s`` with ``t = n_c*r / (n_c*r + n_s)``. Its mean is at
    most 1 while the version's share of bad requests is at most ``ratio`` times that of the stable one.
    ``dispersions`` are those before this tick and with it: see ``dispersion``.
    """
    (bad, requests), (bad_stable, requests_stable) = canary, stable
    if not requests or not requests_stable:
        return process
    none = _odds_of_canary(requests, requests_stable, ratio)
    gains = []
    for factor in GRID:
        some = _odds_of_canary(requests, requests_stable, ratio * factor)
        gains.append(bad * math.log(some / none) + bad_stable * math.log((1 - some) / (1 - none)))
    return _add(process, _temper(gains, dispersions))


def hold_to(
    process: Process, bad: int, requests: int, *, share: float, dispersions: tuple[float, float] = (1.0, 1.0)
) -> Process:
    """Take in one tick of a version that has nothing beside it, against "its share of bad ones is at most ``share``".

    For each r of the grid the odds are r times those of ``share``; the mean of ``(q/p)**bad * ((1-q)/(1-p))**good`` is
    at most 1 while the true share is at most ``p``, since it grows with the true share and is 1 at ``p``.
    """
    gains = []
    for factor in GRID:
        other = factor * share / (1 - share + factor * share)
        gains.append(bad * math.log(other / share) + (requests - bad) * math.log((1 - other) / (1 - share)))
    return _add(process, _temper(gains, dispersions))


def spread_over(spread: Spread, bad: int, requests: int) -> Spread:
    """Take in one tick of a version: how far its share of bad requests is from that of the tick before."""
    if not requests:
        return spread
    pairs, squares = spread.pairs, spread.squares
    if spread.last is not None:
        bad_before, requests_before = spread.last
        moved = bad / requests - bad_before / requests_before
        pairs, squares = pairs + 1, squares + moved * moved / (1 / requests + 1 / requests_before)
    return Spread(
        requests=spread.requests + requests,
        bad=spread.bad + bad,
        pairs=pairs,
        squares=squares,
        last=(bad, requests),
    )


def dispersion(spreads: Iterable[Spread]) -> float:
    """How many bad requests count as one, by the version whose come in the greater clusters; 1 when none do.

    It is the variance of the share from one tick to the next over that of independent requests. Neighbours are
    compared, not each tick with the mean, so that a version that goes bad and stays so does not look clustered for
    long. Source: J. von Neumann, Ann. Math. Stat. 12 (1941), 367-395, the mean square successive difference.
    """
    return max((1.0, *map(_dispersion, spreads)))


def _dispersion(spread: Spread) -> float:
    if not 0 < spread.bad < spread.requests:
        return 1.0
    share = spread.bad / spread.requests
    return (spread.squares / (share * (1 - share)) + _DOUBT) / (spread.pairs + _DOUBT)


def weigh(process: Process) -> float:
    """The evidence so far: the mean over the grid, and over the starts with weights 1/(k(k+1)), which sum to 1.

    What has not started yet counts as 1. Not told beyond MOST.
    """
    logs = [-math.log(len(process.rows) + 1)]
    for number, row in enumerate(process.rows, start=1):
        weight = -math.log(number * (number + 1) * len(GRID))
        logs += [weight + log for log in row]
    most = max(logs)
    total = most + math.log(sum(math.exp(log - most) for log in logs))
    return math.exp(min(total, math.log(MOST)))


def find_slow_bucket(durations: Mapping[int, int]) -> int | None:
    """The bucket in which the slowest hundredth begins; None when too few are known, or it has no end."""
    total = sum(durations.values())
    if total < ENOUGH_FOR_TAIL:
        return None
    below = 0
    for bucket in sorted(durations):
        below += durations[bucket]
        if below >= TAIL * total:
            return bucket if bucket <= LAST else None
    raise AssertionError("the counts sum to less than themselves")  # pragma: no cover - TAIL is less than 1


def allowed_ms(stable_ms: float, ratio: float) -> float:
    """Milliseconds that the version may take where the stable one takes so many."""
    return max(stable_ms * ratio, stable_ms + SLACK_MS)


def allowed_bucket(slow_bucket: int, ratio: float) -> int:
    """The last bucket that is not slow for the version, where ``slow_bucket`` is the last for the stable one.

    At 1.2 and above 25 ms it is two further on, exactly.
    """
    return bucket_of(allowed_ms(upper_bound(slow_bucket), ratio))


def count_above(durations: Mapping[int, int], bucket: int) -> tuple[int, int]:
    """How many took longer than a bucket, and how many there are."""
    return sum(count for found, count in durations.items() if found > bucket), sum(durations.values())


def upper_share(bad: int, requests: int) -> float:
    """What a share may well be, seeing so many: the upper end of Wilson's interval at three standard deviations.

    Source: E. B. Wilson, JASA 22 (1927), 209-212. 1 when nothing was seen.
    """
    if not requests:
        return 1.0
    share, spread = bad / requests, _Z * _Z / requests
    middle = share + spread / 2
    return (middle + math.sqrt(spread * share * (1 - share) + spread * spread / 4)) / (1 + spread)


def _odds_of_canary(canary: int, stable: int, ratio: float) -> float:
    """The probability that a bad request is the canary's, were it ``ratio`` times as bad."""
    return canary * ratio / (canary * ratio + stable)


def _temper(gains: Iterable[float], dispersions: tuple[float, float]) -> list[float]:
    """Gains over the dispersion: what speaks against the version over the greater, what speaks for it over the former.

    So it is never more than the gain over the former, which was known before the tick, and whose mean is at most 1.
    """
    before, now = dispersions
    return [gain / (max(before, now) if gain > 0 else before) for gain in gains]


def _add(process: Process, gains: list[float]) -> Process:
    return Process(rows=tuple(tuple(log + gain for log, gain in zip(row, gains, strict=True)) for row in process.rows))
