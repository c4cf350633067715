"""Payments: charges a customer, once per Idempotency-Key.

POST /charges {"customer": "ada", "amount_cents": 2580} with an Idempotency-Key
"""

from __future__ import annotations

import os
from typing import Any

from shopdb import Database
from shoplib import Failure, Request, route, run, say

CHARGES = Database(
    "payment",
    "charges (key TEXT PRIMARY KEY, id TEXT NOT NULL, customer TEXT NOT NULL, amount_cents INTEGER NOT NULL)",
)


@route("POST", "/charges")
def charge(request: Request) -> tuple[int, Any]:
    """Charge the amount; the same key again gives the first charge, whatever the amount."""
    body = request.json()
    amount = body["amount_cents"]
    if type(amount) is not int or amount <= 0:
        raise Failure(400, "amount_cents must be a whole number above 0")
    with CHARGES.writing() as connection:
        new = connection.execute(
            "INSERT OR IGNORE INTO charges VALUES (?, ?, ?, ?)",
            (request.key, f"ch_{os.urandom(6).hex()}", body.get("customer", "guest"), amount),
        )
        row = connection.execute("SELECT * FROM charges WHERE key = ?", (request.key,)).fetchone()
    if new.rowcount:
        say(f"charged {row['customer']} {row['amount_cents'] / 100:.2f} EUR: {row['id']}")
    return 201 if new.rowcount else 200, dict(row)


if __name__ == "__main__":
    run()
