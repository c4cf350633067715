"""What the judge is shown: which requests of which windows are which version's."""

from __future__ import annotations

from pathlib import Path

from tests.support.control_world import ControlWorld, make_request
from tests.support.rollouts import running

from meshctl.control.rollout_samples import Samples, count_active, tally_versions
from meshctl.telemetry.names import Flow, Outcome
from meshctl.telemetry.tally import Tally
from meshctl.telemetry.windows import Gauges, Window

OK = Outcome(200, -1, "")


def tally(count: int) -> Tally:
    return Tally(outcomes={OK: count})


def window(flows: dict[tuple[str, str, str], int], active: int = 0) -> Window:
    return Window(
        seconds=1.0,
        age=0.1,
        resets=0,
        flows={Flow(view, place, detail): tally(count) for (view, place, detail), count in flows.items()},  # type: ignore[arg-type]
        cluster_gauges={"shop/v2": Gauges(active=active)} if active else {},
    )


WINDOWS = {
    "front": window(
        {("caller", "shop/v1", "shop"): 90, ("caller", "shop/v2", "shop"): 10, ("caller", "cart/v2", "cart"): 7},
        active=2,
    ),
    "gateway": window({("caller", "shop/v2", "shop"): 5, ("caller", "shop/v2", "admins"): 3}, active=1),
    "shop": window({("callee", "shop-v2-1", ""): 15}),
}


def test_requests_are_those_of_callers_by_version_and_route() -> None:
    found = tally_versions(WINDOWS, "shop")
    assert {key: each.requests for key, each in found.items()} == {
        ("v1", "shop"): 90,
        ("v2", "shop"): 15,
        ("v2", "admins"): 3,
    }


def test_requests_under_way_are_added_over_callers() -> None:
    assert count_active(WINDOWS, "shop", "v2") == 3
    assert count_active(WINDOWS, "shop", "v1") == 0


async def test_a_sample_is_of_whole_seconds_that_are_over(tmp_path: Path) -> None:
    world = ControlWorld(tmp_path)
    async with world.running() as plane:
        await plane.up(make_request("services: {front: {command: ./web, upstreams: [shop]}, shop: {command: ./web}}"))
        asked: list[float] = []

        def find_fault(_service: str, since: float) -> str:
            asked.append(since)
            return "30% abort"

        samples = Samples(world.engine, plane.metrics, find_fault)
        rollout = running(now=1000.0)
        assert samples.read(rollout, 1002.9) is None
        sample = samples.read(rollout, 1006.3)
        assert sample is not None
        assert (sample.until, sample.seconds, sample.window_seconds) == (1005.0, 4.0, 4.0)
        assert (sample.fault, sample.canary.requests, asked) == ("30% abort", 0, [rollout.counted_until])
