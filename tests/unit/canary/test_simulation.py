"""The judge on made-up traffic with fixed seeds: seldom wrong about a good version, never about a bad one for long.

``benchmarks/canary_simulation.py`` has the figures over many runs; the code that judges is the same.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from benchmarks.canary_simulation import SETTINGS, Setting, draw_poisson, main, simulate

GOOD = [replace(setting, every=10) for setting in SETTINGS if setting.good]
CLEARLY_BAD = [setting for setting in SETTINGS if not setting.good and setting.errors != 0.02]


def test_a_version_like_the_other_is_taken_back_within_alpha() -> None:
    """Thirty minutes each, at 5 and 50 requests a second, 10% and 50%: 16 runs, of which 0.16 may fail on average."""
    taken_back = [
        setting.name
        for setting in GOOD
        for seed in range(2)
        if simulate(setting, random.Random(f"{seed} {setting.name}"), plain=False).judged is not None
    ]
    assert len(taken_back) <= 2, taken_back


def test_the_plain_rule_takes_nearly_all_back() -> None:
    """Why there is a test at all."""
    setting = Setting(name="same", rps=50)
    plain = [simulate(setting, random.Random(seed)).plain for seed in range(2)]
    assert None not in plain


@pytest.mark.parametrize("setting", CLEARLY_BAD, ids=lambda setting: setting.name)
def test_a_bad_version_is_taken_back(setting: Setting) -> None:
    for seed in range(3):
        found = simulate(setting, random.Random(seed), plain=False)
        assert found.judged is not None
        assert setting.worse_from < found.judged <= setting.worse_from + 900


def test_a_good_version_goes_through_all_steps_to_the_end() -> None:
    setting = Setting(name="all", rps=20, steps=(5, 10, 25, 50, 100), seconds=2400, good=True)
    ends = [simulate(setting, random.Random(seed), plain=False).ended for seed in range(4)]
    assert ends.count("promoted") >= 3


def test_made_up_requests_are_as_many_as_expected() -> None:
    source = random.Random(1)
    drawn = [draw_poisson(source, 25.0) for _ in range(2000)]
    assert abs(sum(drawn) / len(drawn) - 25) < 5 * (25 / 2000) ** 0.5


def test_the_report_says_what_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--runs", "2", "--only", "twice as slow"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("ok") for line in lines)
