"""The experiments that come with the shop: valid, in both forms, and about services that there are."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.shop import SHOP, UPSTREAMS

from meshctl.cli.starter import starter_files
from meshctl.experiments.load import load
from meshctl.experiments.model import MeshProvider, ProcessProvider
from meshctl.ports import SourceFile

FOLDER = SHOP.parent / "experiments"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_is_valid_and_puts_right_what_it_does(path: Path) -> None:
    found = load(SourceFile(path=path.name, directory=str(FOLDER), text=path.read_text()), {})
    activities = (*found.hypothesis, *found.method, *found.rollbacks)
    assert found.hypothesis
    for activity in activities:
        if isinstance(activity.provider, MeshProvider):
            assert activity.provider.arguments.get("service", "payment") in UPSTREAMS, activity.name
        if isinstance(activity.provider, ProcessProvider):
            assert activity.provider.timeout is not None
    faults = [a for a in found.method if isinstance(a.provider, MeshProvider) and a.provider.verb == "inject fault"]
    for fault in faults:
        assert isinstance(fault.provider, MeshProvider)
        assert "duration" in fault.provider.arguments
    verbs = {activity.provider.verb for activity in found.rollbacks if isinstance(activity.provider, MeshProvider)}
    assert not faults or "inject clear" in verbs
    changes = [a for a in found.method if isinstance(a.provider, MeshProvider) and a.provider.verb == "apply"]
    assert not changes or "rollback" in verbs


def test_there_is_one_for_each_question() -> None:
    assert {path.stem for path in FILES} == {
        "breaker-opens",
        "fallback-serves",
        "orders-lost",
        "payment-slow",
        "recommendations-fail",
        "retry-storm",
        "window-slow",
    }


def test_init_writes_them_beside_the_shop() -> None:
    files = starter_files("shop")
    assert [name for name in files if name.startswith("examples/experiments/")] == [
        f"examples/experiments/{path.name}" for path in FILES
    ]
