"""The warehouse: how much is there, and what is put aside for an order.

PUT /stock {"stock": {"tea": 100}}    GET /stock?skus=tea,cup
POST /reservations {"items": [{"sku": "tea", "quantity": 2}]} with an Idempotency-Key
"""

from __future__ import annotations

import json
from typing import Any

from shopdb import Database
from shoplib import Failure, Request, route, run, say

STOCK = Database(
    "inventory",
    "stock (sku TEXT PRIMARY KEY, units INTEGER NOT NULL)",
    "reservations (key TEXT PRIMARY KEY, content TEXT NOT NULL)",
)


@route("PUT", "/stock")
def fill_stock(request: Request) -> tuple[int, Any]:
    """Set how much there is."""
    levels = request.json()["stock"]
    with STOCK.writing() as connection:
        connection.executemany("REPLACE INTO stock VALUES (?, ?)", levels.items())
    say(f"filled the shelves: {len(levels)} products")
    return 200, {"stock": levels}


@route("GET", "/stock")
def show_stock(request: Request) -> tuple[int, Any]:
    """How much there is of the products named, or of all."""
    wanted = [sku for sku in request.query.get("skus", "").split(",") if sku]
    levels = {row["sku"]: row["units"] for row in STOCK.read("SELECT sku, units FROM stock ORDER BY sku")}
    return 200, {"stock": {sku: levels.get(sku, 0) for sku in wanted or levels}}


@route("POST", "/reservations")
def reserve(request: Request) -> tuple[int, Any]:
    """Put goods aside, all of them or none; the same key again finds what was put aside for it."""
    items = request.json()["items"]
    key = request.key
    shelves = {product["sku"]: product["shelf"] for product in request.call("catalog", "GET", "/products")["products"]}
    reservation = {"key": key, "items": items, "shelves": sorted({shelves.get(item["sku"], "?") for item in items})}
    with STOCK.writing() as connection:
        known = connection.execute("SELECT content FROM reservations WHERE key = ?", (key,)).fetchone()
        if known is not None:
            return 200, json.loads(known["content"])
        for item in items:
            taken = connection.execute(
                "UPDATE stock SET units = units - ? WHERE sku = ? AND units >= ?",
                (item["quantity"], item["sku"], item["quantity"]),
            )
            if taken.rowcount == 0:
                raise Failure(409, f"there are not {item['quantity']} of {item['sku']} in stock")
        connection.execute("INSERT INTO reservations VALUES (?, ?)", (key, json.dumps(reservation)))
    return 201, reservation


if __name__ == "__main__":
    run()
