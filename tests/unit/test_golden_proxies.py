"""From topology to Envoy, case by case: one folder shows the whole flow of one feature."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.cases import outputs, read_case
from tests.support.envoy_validate import throwaway_credentials, validate_all

from meshctl.envoy.translate import serialize

CASES = sorted(path for path in (Path(__file__).parents[1] / "golden" / "proxies").iterdir() if path.is_dir())

WHOLE = "minimal"
"""The case that shows everything; the others leave out what is the same in all of them."""


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_plan_and_resources_are_those_on_file(folder: Path, request: pytest.FixtureRequest) -> None:
    made = outputs(read_case(folder), whole=folder.name == WHOLE)
    kept = {str(path.relative_to(folder)): path for path in folder.rglob("*.json")}
    if request.config.getoption("--update-golden"):
        for name in set(kept) - set(made):
            kept[name].unlink()
        for name, text in made.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
    else:
        assert sorted(made) == sorted(kept), "stale or missing files: run pytest --update-golden and review"
        for name, text in made.items():
            assert text == kept[name].read_text(), f"{name} changed: run pytest --update-golden and review"


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_equal_inputs_give_equal_bytes(folder: Path) -> None:
    """Invariant 1."""
    first, second = (read_case(folder).resources() for _ in range(2))
    assert first.keys() == second.keys()
    for node, resources in first.items():
        assert [serialize(item) for item in resources] == [serialize(item) for item in second[node]]


@pytest.mark.e2e
@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
async def test_envoy_accepts_every_resource(folder: Path) -> None:
    """Invariant 1."""
    assert await validate_all(dict(read_case(folder).resources(throwaway_credentials()))) == {}
