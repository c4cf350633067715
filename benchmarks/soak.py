"""``make soak``: the shop under fire. Orders come in steadily while payment fails a fifth of its requests at random and
instances of orders are killed, one every few seconds.

What clients were told is then held against the shop's own databases: at least 99.9 % of the orders answered with
success, none of those lost, none booked twice.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import socket
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.mesh import meshctl, status

ROOT = Path(__file__).parents[1]
SHOP = ROOT / "examples" / "shop"
UNITS = 1_000_000
"""What the seed job puts on every shelf."""

KILL_EVERY = 3.0
"""Seconds between two kills, at least: the next one waits until every instance is healthy again."""

_WORKERS = 32
_CUSTOMER = "soak"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of the exercise; ``complaints`` is empty when the books are right."""

    orders: int
    answered: int
    kills: int
    payment_failures: int
    seconds: float
    errors: dict[str, int]
    complaints: tuple[str, ...]

    @property
    def share(self) -> float:
        """The share of orders that were answered with success."""
        return self.answered / self.orders


class Killer(threading.Thread):
    """Kills an instance of orders, the other one each time, as soon as all of them are healthy."""

    def __init__(self, folder: Path, every: float) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._folder = folder
        self._every = every
        self._done = threading.Event()

    def run(self) -> None:
        """Kill until told to stop."""
        while not self._done.wait(self._every):
            orders = next(item for item in status(self._folder)["services"] if item["name"] == "orders")
            if all(item["health"] == "healthy" and item["pid"] for item in orders["instances"]):
                os.kill(orders["instances"][self.kills % len(orders["instances"])]["pid"], signal.SIGKILL)
                self.kills += 1

    def stop(self) -> None:
        """Return when no more is killed."""
        self._done.set()
        self.join(60)


def exercise(folder: Path, *, orders: int, rate: float, every: float = KILL_EVERY, kills: int = 0) -> Result:
    """Bring the shop up in an empty folder, place so many orders, ``rate`` a second, and look into the books.

    Instances are killed at most ``every`` so many seconds. Orders are placed a second longer, again and again, until
    there were so many ``kills``. The mesh is taken down at the end.
    """
    url = _write_shop(folder)
    try:
        meshctl(folder, "up", "-d", "--wait")
        killer = Killer(folder, every)
        killer.start()
        began = time.monotonic()
        try:
            results = _place(url, range(orders), rate)
            while killer.kills < kills:
                results |= _place(url, range(len(results), len(results) + math.ceil(rate)), rate)
        finally:
            killer.stop()
        seconds = time.monotonic() - began
        failures = sum(line["text"].startswith("payment fails") for line in _log(folder, "payment"))
    finally:
        meshctl(folder, "down")
    told = {key: result["order"]["id"] for key, result in results.items() if result["ok"]}
    errors = Counter(
        f"{result['status'] or 'no answer'}: {result['order'].get('error', '')}"
        for result in results.values()
        if not result["ok"]
    )
    return Result(
        orders=len(results),
        answered=len(told),
        kills=killer.kills,
        payment_failures=failures,
        seconds=seconds,
        errors=dict(errors),
        complaints=tuple(audit(folder / ".meshctl" / "data", told, results.keys())),
    )


def _write_shop(folder: Path) -> str:
    """The example shop, with what goes wrong in it laid over; where its gateway will be."""
    (folder / "examples").symlink_to(ROOT / "examples")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    topology = yaml.safe_load((ROOT / "mesh.example.yaml").read_text())
    topology["gateway"]["port"] = port
    services = topology["services"]
    services["payment"]["env"] = {"FAILURE_PERCENT": 20, "FAILURE_STATUS": 503, "FAILURE_SPREAD": "random"}
    # What is asked here is whether orders are lost, not how long a machine may stand still.
    topology["defaults"]["timeout"] = "30s"
    services["payment"]["timeout"] = "20s"
    # A fifth of all attempts fails: with three of them one order in 125 still would, with ten one in ten million.
    services["payment"]["retry_policy"] = {"max_attempts": 10, "base_interval": "20ms", "max_interval": "200ms"}
    services["orders"]["replicas"] = 2
    # Otherwise what is killed again and again would be started later each time.
    services["orders"]["restart"] = {"max_backoff": "500ms"}
    (folder / "mesh.yaml").write_text(yaml.safe_dump(topology, sort_keys=False))
    return f"http://127.0.0.1:{port}"


def _place(url: str, orders: range, rate: float) -> dict[str, dict[str, Any]]:
    """Every order's outcome by its Idempotency-Key, sent once each as a customer of the shop does; by their numbers."""
    sys.path.insert(0, str(SHOP))
    from place_orders import place  # noqa: PLC0415 - an example, not a package

    began = time.monotonic()
    with ThreadPoolExecutor(_WORKERS) as pool:
        due = {number: began + index / rate for index, number in enumerate(orders)}
        results = pool.map(lambda number: place(url, _CUSTOMER, number, due[number]), orders)
        return {f"{_CUSTOMER}-{number}": result for number, result in zip(orders, results, strict=True)}


def _log(folder: Path, service: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in meshctl(folder, "logs", service, "-o", "json").splitlines()]


def audit(data: Path, told: dict[str, str], sent: Collection[str]) -> list[str]:
    """What is wrong in the books, given the order ids that customers were told by key, and all keys that were sent."""
    booked = _rows(data / "orders.db", "SELECT key, id FROM orders")
    charged = Counter(key for (key,) in _rows(data / "payment.db", "SELECT key FROM charges"))
    reserved = _rows(data / "inventory.db", "SELECT key FROM reservations")
    ((kettles,),) = _rows(data / "inventory.db", "SELECT units FROM stock WHERE sku = 'kettle'")
    ids = dict(booked)
    times = Counter(key for key, _ in booked)
    lost = [key for key, order in told.items() if ids.get(key) != order]
    checks = (
        (not lost, f"{len(lost)} orders that customers were told of are not in the order book: {lost[:5]}"),
        (max(times.values(), default=0) <= 1, f"booked twice: {[key for key, n in times.items() if n > 1][:5]}"),
        (set(times) <= set(sent), "orders are booked that nobody placed"),
        (max(charged.values(), default=0) <= 1, f"charged twice: {[key for key, n in charged.items() if n > 1][:5]}"),
        (set(times) <= set(charged), "orders are booked that nobody paid for"),
        (UNITS - kettles == len(reserved), f"{UNITS - kettles} kettles left the shelf for {len(reserved)} orders"),
    )
    return [words for holds, words in checks if not holds]


def _rows(path: Path, query: str) -> list[Any]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=10_000, help="how many orders (default: 10000)")
    parser.add_argument("--rate", type=float, default=20.0, help="orders a second (default: 20)")
    parser.add_argument("--every", type=float, default=KILL_EVERY, help="seconds between kills (default: 3)")
    parser.add_argument("--kills", type=int, default=0, help="go on until there were so many")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    say = print if not options.json else lambda _: None
    say(f"{options.orders} orders, {options.rate:g} a second: about {options.orders / options.rate / 60:.1f} minutes")
    with tempfile.TemporaryDirectory(prefix="meshctl-soak-") as folder:
        wanted = {"orders": options.orders, "rate": options.rate, "every": options.every, "kills": options.kills}
        result = exercise(Path(folder).resolve(), **wanted)
    say(f"answered   {result.answered} of {result.orders} ({result.share:.3%}) in {result.seconds:.0f} s")
    say(f"meanwhile  {result.kills} instances of orders killed, payment failed {result.payment_failures} requests")
    for error, times in result.errors.items():
        say(f"failed     {times} x {error}")
    for complaint in result.complaints or ("every order that was answered is booked, once",):
        say(f"books      {complaint}")
    if options.json:
        print(json.dumps(asdict(result)))
    return 0 if result.share >= 0.999 and not result.complaints else 1


if __name__ == "__main__":
    sys.exit(main())
