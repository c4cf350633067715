"""How often the judge of canaries takes a good version back, and how soon a bad one: its real code, made-up traffic.

    python -m benchmarks.canary_simulation [--runs 400] [--seed 1] [--only NAME]

Traffic comes as a Poisson process and is split at random; times are log-normal around 50 ms. Each run is 1,800 s with a
tick every 5 s at one weight, unless the setting says that it is a whole rollout. Beside the judge stands the plain rule
that it replaces: roll back as soon as the figures of the window are beyond 1.1x or 1.2x, with at least 100 requests.
"""

from __future__ import annotations

import argparse
import bisect
import math
import random
import statistics
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks.figures import Figure
from meshctl.canary.machine import begin, step
from meshctl.canary.model import Applied, Counts, Rollout, Sample, Settings, Tick
from meshctl.canary.statistics import TAIL, allowed_ms
from meshctl.telemetry.buckets import FIRST, LAST, OVERFLOW, quantile, upper_bound

MEDIAN_MS = 50.0
SIGMA = 0.6
PLAIN_REQUESTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Made-up traffic. ``worse_from`` is when the version becomes what the settings say; before, it is like the stable
    one. ``bursts`` multiplies both versions' errors in six spells of 30 s. ``cluster`` is by how many at a time errors
    come, of each version for itself. ``steps`` other than one weight make it a whole rollout. A ``good`` version may be
    taken back with a probability of ``allowed``, where more than alpha is known to be so.
    """

    name: str
    rps: float
    weight: int = 10
    errors: float = 0.01
    stable_errors: float = 0.01
    slower: float = 1.0
    worse_from: float = 0.0
    bursts: float = 1.0
    cluster: int = 1
    good: bool = False
    allowed: float = 0.01
    steps: tuple[int, ...] = ()
    seconds: int = 1800
    every: int = 5


@dataclass(frozen=True, slots=True)
class Run:
    """Seconds until the judge and the plain rule took the version back; None for never. ``ended`` is how it ended."""

    judged: float | None
    plain: float | None
    ended: str


SETTINGS = (
    Setting(name="same, 5 rps, 10%", rps=5, good=True),
    Setting(name="same, 50 rps, 10%", rps=50, good=True),
    Setting(name="same, 50 rps, 50%", rps=50, weight=50, good=True),
    Setting(name="same, few errors", rps=50, errors=0.0005, stable_errors=0.0005, good=True),
    Setting(name="same, shared bursts", rps=50, bursts=30, good=True),
    Setting(name="at the bounds", rps=50, errors=0.011, slower=1.2, good=True),
    Setting(name="at the bounds, 50%", rps=50, weight=50, errors=0.11, stable_errors=0.1, slower=1.2, good=True),
    Setting(name="same, clusters of 20", rps=50, cluster=20, good=True, allowed=0.05),
    Setting(name="same, clusters of 20, 50%", rps=50, weight=50, cluster=20, good=True, allowed=0.1),
    Setting(name="same, all steps", rps=20, steps=(5, 10, 25, 50, 100), seconds=2400, good=True),
    Setting(name="errors 1% to 5%", rps=50, errors=0.05),
    Setting(name="errors 1% to 3%", rps=50, errors=0.03),
    Setting(name="errors 1% to 2%", rps=50, errors=0.02),
    Setting(name="errors 0% to 2%", rps=50, errors=0.02, stable_errors=0.0),
    Setting(name="errors 1% to 20%, 5 rps", rps=5, errors=0.2),
    Setting(name="1.5 times as slow", rps=50, slower=1.5),
    Setting(name="twice as slow", rps=50, slower=2),
    Setting(name="3 times as slow, 5 rps", rps=5, slower=3),
    Setting(name="errors 5% from 900 s on", rps=50, errors=0.05, worse_from=900),
    Setting(name="all fails from 900 s on", rps=50, errors=1.0, worse_from=900),
    Setting(name="twice as slow, all steps", rps=20, slower=2, steps=(5, 10, 25, 50, 100)),
)


class Version:
    """One version's traffic, and its last window."""

    def __init__(self, source: random.Random, ticks_of_window: int) -> None:
        self._random = source
        self._ticks: deque[tuple[int, int, Counter[int]]] = deque()
        self._kept = ticks_of_window
        self.requests = 0
        self.errors = 0
        self.durations: Counter[int] = Counter()

    def forget(self) -> None:
        """A new window begins."""
        self._ticks.clear()
        self.requests, self.errors, self.durations = 0, 0, Counter()

    def happen(self, expected: float, errors: float, slower: float, cluster: int = 1) -> Counts:
        """A tick of requests."""
        draw = self._random
        requests = draw_poisson(draw, expected)
        failed = sum(draw.random() < errors / cluster for _ in range(requests)) if errors else 0
        failed = min(requests, cluster * failed)
        taken = Counter(draw_bucket(draw, slower) for _ in range(requests))
        self._ticks.append((requests, failed, taken))
        self.requests += requests
        self.errors += failed
        self.durations.update(taken)
        if len(self._ticks) > self._kept:
            requests_then, failed_then, taken_then = self._ticks.popleft()
            self.requests -= requests_then
            self.errors -= failed_then
            self.durations.subtract(taken_then)
        return Counts(requests=requests, errors=failed, durations=taken)

    @property
    def window(self) -> Counts:
        """The counts of the window."""
        found = {bucket: count for bucket, count in self.durations.items() if count}
        return Counts(requests=self.requests, errors=self.errors, durations=found)


def simulate(setting: Setting, source: random.Random, *, plain: bool = True) -> Run:
    """One run of a setting. Without ``plain`` the plain rule is left out, and a run ends with the judge's."""
    whole = bool(setting.steps)
    settings = Settings(
        steps=setting.steps or (setting.weight, 100),
        interval=setting.every,
        min_requests=100 if whole else 10**9,
        deadline=0,
    )
    rollout, _ = begin(
        number=1,
        service="app",
        version="v2",
        stable="v1",
        revision="a",
        settings=settings,
        author="",
        now=0.0,
    )
    rollout, _ = step(rollout, Applied(weight=rollout.weight), 0.0)
    canary, stable = (Version(source, int(settings.window / setting.every)) for _ in range(2))
    spells = [source.uniform(0, setting.seconds) for _ in range(6)] if setting.bursts > 1 else []
    judged: float | None = None
    noticed: float | None = None
    share = 0.0
    for now in range(setting.every, setting.seconds + 1, setting.every):
        factor = setting.bursts if any(spell <= now < spell + 30 for spell in spells) else 1.0
        worse = now > setting.worse_from
        if judged is None:
            share = rollout.weight / 100
        sample = Sample(
            until=float(now),
            seconds=setting.every,
            window_seconds=min(settings.window, now - rollout.since),
            canary=canary.happen(
                setting.rps * setting.every * share,
                min(1.0, factor * (setting.errors if worse else setting.stable_errors)),
                setting.slower if worse else 1.0,
                setting.cluster,
            ),
            stable=stable.happen(
                setting.rps * setting.every * (1 - share),
                min(1.0, factor * setting.stable_errors),
                1.0,
                setting.cluster,
            ),
            window_canary=canary.window,
            window_stable=stable.window,
        )
        if plain and noticed is None and is_beyond(sample, settings):
            noticed = now
        if judged is None:
            rollout, commands = step(rollout, Tick(sample=sample), float(now))
            if rollout.phase == "rolling_back":
                judged = now
            elif commands:
                rollout = _shift(rollout, now)
                canary.forget()
                stable.forget()
        if rollout.ended or (judged is not None and (not plain or noticed is not None)):
            break
    return Run(judged, noticed, rollout.phase)


def is_beyond(sample: Sample, settings: Settings) -> bool:
    """The plain rule: the figures of the window are beyond the bounds."""
    canary, stable = sample.window_canary, sample.window_stable
    if canary.requests < PLAIN_REQUESTS or not stable.requests:
        return False
    slow, slow_stable = quantile(canary.durations, TAIL), quantile(stable.durations, TAIL)
    assert slow is not None
    assert slow_stable is not None
    errors = canary.errors / canary.requests > settings.max_error_ratio * stable.errors / stable.requests
    return errors or slow > allowed_ms(slow_stable, settings.max_p99_ratio)


def draw_poisson(source: random.Random, mean: float) -> int:
    """How many come where so many are expected: by the times between them."""
    count, at = 0, source.expovariate(1.0)
    while at < mean:
        count, at = count + 1, at + source.expovariate(1.0)
    return count


def draw_bucket(source: random.Random, slower: float) -> int:
    """The bucket of one time: by inverting the distribution over buckets."""
    return FIRST + bisect.bisect_left(_cumulated(slower), source.random())


def report(settings: Sequence[Setting], runs: int, seed: int) -> Iterator[tuple[str, bool]]:
    """A line for each setting, and whether what it promises is kept."""
    for setting in settings:
        source = random.Random(f"{seed} {setting.name}")
        found = [simulate(setting, source, plain=not setting.steps) for _ in range(runs)]
        judged = [run.judged for run in found if run.judged is not None]
        plain = [run.plain for run in found if run.plain is not None]
        share = len(judged) / runs
        holds = share <= _most_false(runs, setting.allowed) if setting.good else share >= 0.95
        late = [seconds - setting.worse_from for seconds in judged]
        plainly = "" if setting.steps else f"{100 * len(plain) / runs:5.1f}%"
        median = f"{statistics.median(late):5.0f} s" if share > 0.5 else "      -"
        kind = "good" if setting.good else "bad"
        mark = "ok  " if holds else "OVER"
        words = f"{kind:<5} rolled back {100 * share:5.1f}%  after {median}   plain rule {plainly:>7}   n={runs}"
        yield f"{mark} {setting.name:<26} {words}", holds


def measure_judge(runs: int, seed: int = 1) -> Iterator[Figure]:
    """The figures for ``make bench``: how often a good version is taken back, and how soon a bad one."""
    for name in _BRIEFLY:
        setting = next(each for each in SETTINGS if each.name == name)
        found = [simulate(setting, random.Random(f"{seed} {run} {name}"), plain=setting.good) for run in range(runs)]
        judged = [run.judged for run in found if run.judged is not None]
        if setting.good:
            plain = sum(run.plain is not None for run in found)
            note = f"{len(judged)} of {runs} runs of 30 minutes; the plain rule {plain}"
            yield Figure(f"canary: {name}, rolled back", len(judged) / runs, _most_false(runs), "", note)
        else:
            # What was not found at all was not found in time either.
            seconds = sorted(judged + [float(setting.seconds)] * (runs - len(judged)))
            yield Figure(f"canary: {name}, time to rollback", statistics.median(seconds), 300, "s", f"{runs} runs")


_BRIEFLY = ("same, 50 rps, 10%", "at the bounds", "errors 1% to 5%", "twice as slow")


def _most_false(runs: int, allowed: float = 0.01) -> float:
    """The share of good versions that may be taken back: five standard deviations beyond is a defect."""
    return round(allowed + 5 * math.sqrt(allowed * (1 - allowed) / runs), 3)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 1 when something in it is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.canary_simulation")
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    given = parser.parse_args(words)
    chosen = [setting for setting in SETTINGS if given.only in setting.name]
    every = True
    for line, holds in report(chosen, given.runs, given.seed):
        print(line, flush=True)
        every &= holds
    return 0 if every else 1


def _shift(rollout: Rollout, now: float) -> Rollout:
    moved, _ = step(rollout, Applied(weight=rollout.weight), float(now))
    return moved


_TABLES: dict[float, list[float]] = {}


def _cumulated(slower: float) -> list[float]:
    if slower not in _TABLES:
        middle = math.log(MEDIAN_MS * slower)
        bounds = (math.log(upper_bound(bucket)) for bucket in range(FIRST, LAST + 1))
        _TABLES[slower] = [0.5 * math.erfc(-(bound - middle) / SIGMA / math.sqrt(2)) for bound in bounds]
        assert len(_TABLES[slower]) == OVERFLOW - FIRST
    return _TABLES[slower]


if __name__ == "__main__":
    sys.exit(main())
