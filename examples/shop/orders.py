"""The order book.  An Idempotency-Key is booked once, however often and however many instances at a time are asked.

POST /orders {"customer", "items", "total_cents", "checkout"}    GET /orders[?customer=ada]    GET /orders/<id>
"""

from __future__ import annotations

import json
import os
import sqlite3
from typing import Any

from shopdb import Database
from shoplib import Failure, Request, route, run, say

ORDERS = Database(
    "orders",
    "orders (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, id TEXT NOT NULL UNIQUE,"
    " customer TEXT NOT NULL, items TEXT NOT NULL, total_cents INTEGER NOT NULL, checkout TEXT NOT NULL)",
)
LISTED = 1000


def _show(row: sqlite3.Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "customer": row["customer"],
        "items": json.loads(row["items"]),
        "total": f"{row['total_cents'] / 100:.2f} EUR",
        "total_cents": row["total_cents"],
        "checkout": row["checkout"],
    }


@route("POST", "/orders")
def book(request: Request) -> tuple[int, Any]:
    """Book an order: 201 for a new one, 200 and the first order for a key that was booked before."""
    body, key = request.json(), request.key
    items, total = json.dumps(body["items"]), body["total_cents"]
    if type(total) is not int:
        raise Failure(400, "total_cents must be a whole number")
    with ORDERS.writing() as connection:
        # The unique key decides, in the database, so that two instances cannot both believe to be the first.
        new = connection.execute(
            "INSERT OR IGNORE INTO orders (key, id, customer, items, total_cents, checkout) VALUES (?, ?, ?, ?, ?, ?)",
            (key, os.urandom(6).hex(), body.get("customer", "guest"), items, total, body.get("checkout", "")),
        )
        order = _show(connection.execute("SELECT * FROM orders WHERE key = ?", (key,)).fetchone())
    if new.rowcount:
        say(f"booked order {order['id']} of {order['customer']}: {order['total']}")
    return 201 if new.rowcount else 200, order


@route("GET", "/orders")
def list_orders(request: Request) -> tuple[int, Any]:
    """The number of orders, of one customer or of all, and the latest of them, newest first."""
    customer = request.query.get("customer")
    where, arguments = ("WHERE customer = ?", (customer,)) if customer else ("", ())
    count = ORDERS.read(f"SELECT count(*) AS n FROM orders {where}", *arguments)[0]["n"]
    rows = ORDERS.read(f"SELECT * FROM orders {where} ORDER BY number DESC LIMIT {LISTED}", *arguments)
    return 200, {"count": count, "orders": [_show(row) for row in rows]}


@route("GET", "/orders/{}")
def show_order(request: Request) -> tuple[int, Any]:
    """One order."""
    rows = ORDERS.read("SELECT * FROM orders WHERE id = ?", request.argument)
    if not rows:
        raise Failure(404, f"there is no order {request.argument}")
    return 200, _show(rows[0])


if __name__ == "__main__":
    run()
