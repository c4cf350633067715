"""The example's client: what it reports and when it fails."""

from __future__ import annotations

import json
import socket

import pytest
from tests.support.shop import Fleet


def test_it_places_every_order_and_shows_the_way_of_the_last(shop: Fleet) -> None:
    done = shop.run("place_orders.py", "--url", shop.urls["frontend"], "--count", "12", "--rate", "500")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("orders     12 ok, 0 failed")
    assert lines[2] == "checkout   v1 12 (100%)"
    assert lines[3] == "booked     12 in the order book, 12 distinct in the answers"
    hops = [line for line in lines if "called by" in line]
    assert len(hops) == 16
    assert hops[0].startswith("  frontend ")
    assert hops[3].startswith("      catalog "), "the catalogue, called by the cart, called by the frontend"


def test_its_summary_is_json_on_request(shop: Fleet) -> None:
    done = shop.run("place_orders.py", "--url", shop.urls["frontend"], "--count", "3", "--rate", "500", "--json")
    summary = json.loads(done.stdout)
    assert {name: summary[name] for name in ("count", "ok", "failed", "distinct", "booked", "versions")} == {
        "count": 3,
        "ok": 3,
        "failed": 0,
        "distinct": 3,
        "booked": 3,
        "versions": {"v1": 3},
    }


def test_it_ends_with_1_when_nobody_answers(fleet: Fleet) -> None:
    with socket.socket() as deaf:  # bound, so that nobody else is given its port, and not listening
        deaf.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        done = fleet.run("place_orders.py", "--url", url, "--count", "2", "--rate", "500")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].startswith("orders     0 ok, 2 failed")
    assert "failed     2 x no answer: " in done.stdout


def test_it_ends_with_1_when_an_order_fails(shop: Fleet, fleet: Fleet) -> None:
    fleet.urls.update(shop.urls)
    frontend = fleet.start("frontend", FAILURE_PERCENT="25")
    done = fleet.run("place_orders.py", "--url", frontend.url, "--count", "4", "--rate", "500")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0].startswith("orders     3 ok, 1 failed")


@pytest.mark.parametrize("arguments", [("--count", "0"), ("--rate", "0")])
def test_it_refuses_a_stream_without_orders(fleet: Fleet, arguments: tuple[str, str]) -> None:
    done = fleet.run("place_orders.py", *arguments)
    assert done.returncode == 2
    assert "must be above 0" in done.stderr
