"""A customer: sends a bounded stream of orders through the gateway and tells how they went.

    python examples/shop/place_orders.py --url http://127.0.0.1:8080 --count 40 --rate 20

Every order has an Idempotency-Key of its own and is sent once. Ends with 1 when an order failed or was not booked
exactly once.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import Any
from urllib.parse import urlsplit

WORKERS = 16
TIMEOUT = 15.0
_own = local()


def ask(url: str, method: str, path: str, *, key: str = "", body: object = None) -> tuple[int, Any]:
    """Status and JSON of one request, over this thread's connection; raises OSError or HTTPException."""
    if not hasattr(_own, "connection"):
        _own.connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT)
    headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key else {})
    try:
        _own.connection.request(method, path, None if body is None else json.dumps(body).encode(), headers)
        response = _own.connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException):
        _own.connection.close()  # opened anew by the next request
        raise
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, {"error": text.decode(errors="replace").strip()}


def place(url: str, customer: str, number: int, due: float) -> dict[str, Any]:
    """Send one order when it is due; what came of it."""
    time.sleep(max(0.0, due - time.monotonic()))
    began = time.monotonic()
    try:
        status, order = ask(url, "POST", "/orders", key=f"{customer}-{number}", body={"customer": customer})
    except (OSError, http.client.HTTPException) as error:
        status, order = 0, {"error": str(error) or type(error).__name__}
    took = (time.monotonic() - began) * 1000
    return {"ok": status in (200, 201), "status": status, "ms": took, "order": order}


def run(url: str, count: int, rate: float) -> dict[str, Any]:
    """Place the orders, `rate` a second, and sum up."""
    customer = f"customer-{os.urandom(4).hex()}"
    began = time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        results = list(pool.map(lambda n: place(url, customer, n, began + n / rate), range(count)))
    seconds = time.monotonic() - began
    good = [result["order"] for result in results if result["ok"]]
    errors = Counter(f"{r['status'] or 'no answer'}: {r['order'].get('error', '')}" for r in results if not r["ok"])
    try:
        booked = ask(url, "GET", f"/orders?customer={customer}")[1].get("count")
    except (OSError, http.client.HTTPException):
        booked = None
    times = sorted(result["ms"] for result in results)
    return {
        "count": count,
        "ok": len(good),
        "failed": count - len(good),
        "errors": dict(errors),
        "seconds": round(seconds, 3),
        "p50_ms": round(times[len(times) // 2], 1),
        "p95_ms": round(times[min(len(times) - 1, len(times) * 95 // 100)], 1),
        "versions": dict(sorted(Counter(order["checkout"] for order in good).items())),
        "distinct": len({order["id"] for order in good}),
        "booked": booked,
        "last": good[-1] if good else None,
    }


def show(summary: dict[str, Any], say: Callable[[str], object] = print) -> None:
    """The summary for people."""
    seconds = f"{summary['seconds']:.1f} s"
    say(f"orders     {summary['ok']} ok, {summary['failed']} failed, in {seconds}")
    say(f"latency    p50 {summary['p50_ms']} ms, p95 {summary['p95_ms']} ms")
    shares = (f"{version} {n} ({n * 100 // summary['ok']}%)" for version, n in summary["versions"].items())
    say(f"checkout   {', '.join(shares) or 'none'}")
    say(f"booked     {summary['booked']} in the order book, {summary['distinct']} distinct in the answers")
    for error, times in summary["errors"].items():
        say(f"failed     {times} x {error}")
    if summary["last"]:
        say(f"\nthe way of order {summary['last']['id']}, {summary['last']['total']}, and who called whom:")
        for hop in summary["last"]["path"]:
            name = "  " * (hop["depth"] + 1) + (hop["instance"] or hop["service"])
            note = f" (as {hop['noted_by']} notes)" if "noted_by" in hop else ""
            say(f"{name:<30} called by {hop['caller'] or 'a caller without identity'}{note}")


def main() -> int:
    """Parse, run, print; 0 when every order was booked exactly once."""
    parser = argparse.ArgumentParser(description="Place orders in the example shop.")
    parser.add_argument("--url", default=f"http://127.0.0.1:{os.environ.get('GATEWAY_PORT', '8080')}")
    parser.add_argument("--count", type=int, default=40, help="how many orders")
    parser.add_argument("--rate", type=float, default=20.0, help="orders a second")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    options = parser.parse_args()
    if options.count < 1 or options.rate <= 0:
        parser.error("--count and --rate must be above 0")
    summary = run(options.url, options.count, options.rate)
    if options.json:
        print(json.dumps(summary, indent=2))
    else:
        show(summary)
    return 0 if summary["failed"] == 0 and summary["booked"] == summary["distinct"] == summary["count"] else 1


if __name__ == "__main__":
    sys.exit(main())
