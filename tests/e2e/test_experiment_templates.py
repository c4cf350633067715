"""The experiments of the example shop: each holds or deviates on a real shop, for the reason that it says."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.e2e.harness import MeshUnderTest
from tests.e2e.traffic import free_port

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shop() -> Iterator[MeshUnderTest]:
    with tempfile.TemporaryDirectory(prefix="mesh-") as folder:
        mesh = MeshUnderTest(Path(folder).resolve())
        port = free_port()
        mesh.environ |= {
            "SHOP_URL": f"http://127.0.0.1:{port}",
            "SHOP_PYTHON": sys.executable,
            "PATH": f"{Path(sys.executable).parent}:{mesh.environ['PATH']}",
        }
        shutil.copytree(ROOT / "examples" / "shop", mesh.folder / "examples" / "shop")
        shutil.copytree(ROOT / "examples" / "experiments", mesh.folder / "examples" / "experiments")
        mesh.write(make_patient_shop(port))
        try:
            mesh.up()
            yield mesh
        finally:
            mesh.close()


def make_patient_shop(port: int) -> dict[str, Any]:
    """The example shop, which waits longer than a busy machine may stand still, and starts again at once."""
    topology: dict[str, Any] = yaml.safe_load((ROOT / "mesh.example.yaml").read_text())
    topology["gateway"]["port"] = port
    topology["defaults"]["timeout"] = "60s"
    for name in ("payment", "recommendations"):
        topology["services"][name]["timeout"] = "30s"
    topology["services"]["orders"]["restart"] = {"backoff": "100ms", "max_backoff": "100ms"}
    return topology


def run(shop: MeshUnderTest, name: str, **given: object) -> dict[str, Any]:
    words = [word for key, value in given.items() for word in ("--var", f"{key}={value}")]
    done = shop.run("experiment", "run", f"examples/experiments/{name}.yaml", "-o", "json", *words)
    assert done.out, done.err
    journal: dict[str, Any] = json.loads(done.out)
    assert all(entry["status"] == "succeeded" for entry in journal["rollbacks"]), done.err
    assert json.loads(shop.must("inject", "list", "-o", "json"))["faults"] == []
    return journal


def found(journal: dict[str, Any], name: str) -> Any:
    return next(entry for entry in journal["run"] if entry["activity"]["name"] == name)["output"]


def verdict(journal: dict[str, Any]) -> str:
    reason: str = journal["meshctl"]["verdict"]
    return reason


def test_checkout_survives_payment_being_slow_within_its_timeout(shop: MeshUnderTest) -> None:
    journal = run(shop, "payment-slow", seconds="1s", most=20_000)
    assert verdict(journal) == "held"
    after = journal["steady_states"]["after"]["probes"][1]["output"]
    assert after["p50_ms"] > 400  # the fault was there


def test_a_slow_recommendation_keeps_the_window_shut(shop: MeshUnderTest) -> None:
    journal = run(shop, "window-slow", seconds="1s", most=2000, delay="2500ms")
    assert verdict(journal) == "deviated"
    opened, slowest = journal["steady_states"]["after"]["probes"]
    assert (opened["tolerance_met"], slowest["tolerance_met"]) == (True, False)
    assert slowest["output"]["p99_ms"] > 2000


def test_the_breaker_opens_and_closes(shop: MeshUnderTest) -> None:
    journal = run(shop, "breaker-opens", seconds="1s")
    assert verdict(journal) == "held", journal["run"]
    assert found(journal, "customers order")["success"] < 0.5
    assert found(journal, "the circuit is open") in ("open", "half_open")


def test_breakers_keep_retries_from_a_storm(shop: MeshUnderTest) -> None:
    journal = run(shop, "retry-storm", seconds="2s", window="4s")
    assert verdict(journal) == "held", journal["run"]
    with_breakers = found(journal, "tries at payment for each order")
    journal = run(shop, "retry-storm", seconds="2s", window="4s", breaker="false")
    assert verdict(journal) == "deviated"
    assert found(journal, "tries at payment for each order") > 2 > with_breakers


def test_the_fallback_serves(shop: MeshUnderTest) -> None:
    journal = run(shop, "fallback-serves")
    assert verdict(journal) == "held"
    assert json.loads(found(journal, "the answer is the fallback")["body"]) == {"recommendations": []}


def test_recommendations_that_fail_are_missed_without_a_fallback(shop: MeshUnderTest) -> None:
    journal = run(shop, "recommendations-fail")
    assert verdict(journal) == "deviated"
    order, answer = journal["steady_states"]["after"]["probes"]
    assert (order["tolerance_met"], answer["output"]["status"]) == (True, 503)


def test_no_order_is_lost_when_the_order_book_is_killed(shop: MeshUnderTest) -> None:
    journal = run(shop, "orders-lost", count=60, every=2)
    assert verdict(journal) == "held", journal["run"]
    assert sum(entry["activity"]["name"] == "kill an order book" for entry in journal["run"]) == 3
