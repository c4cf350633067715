"""Baskets: what a customer is about to order, with prices and whether it can be had.

PUT /carts/<id> {"customer": "ada", "items": [{"sku": "tea", "quantity": 2}]}    GET /carts/<id>
"""

from __future__ import annotations

import json
from typing import Any

from shopdb import Database
from shoplib import Failure, Request, route, run

DATABASE = Database("cart", "carts (id TEXT PRIMARY KEY, content TEXT NOT NULL)")
LARGEST_QUANTITY = 100


@route("PUT", "/carts/{}")
def put_cart(request: Request) -> tuple[int, Any]:
    """Fill a basket; the same again changes nothing."""
    body = request.json()
    wanted = _check_items(body["items"])
    products = {product["sku"]: product for product in request.call("catalog", "GET", "/products")["products"]}
    unknown = [sku for sku in wanted if sku not in products]
    if unknown:
        raise Failure(404, f"the shop does not sell {', '.join(unknown)}")
    stock = request.call("inventory", "GET", f"/stock?skus={','.join(wanted)}")["stock"]
    lines = [
        {
            "sku": sku,
            "quantity": quantity,
            "price_cents": products[sku]["price_cents"],
            "in_stock": stock.get(sku, 0) >= quantity,
        }
        for sku, quantity in wanted.items()
    ]
    cart = {"id": request.argument, "customer": body.get("customer", "guest"), "items": lines}
    with DATABASE.writing() as connection:
        connection.execute("REPLACE INTO carts VALUES (?, ?)", (request.argument, json.dumps(cart)))
    return 200, cart


def _check_items(items: Any) -> dict[str, int]:
    """The quantities by product."""
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        raise Failure(400, 'items must be a list such as [{"sku": "tea", "quantity": 2}]')
    for item in items:
        if not isinstance(item["sku"], str):
            raise Failure(400, "a sku is a text")
        if type(item["quantity"]) is not int or not 0 < item["quantity"] <= LARGEST_QUANTITY:
            raise Failure(400, f"a quantity is a whole number from 1 to {LARGEST_QUANTITY}")
    return {item["sku"]: item["quantity"] for item in items}


@route("GET", "/carts/{}")
def get_cart(request: Request) -> tuple[int, Any]:
    """A basket as it was filled."""
    rows = DATABASE.read("SELECT content FROM carts WHERE id = ?", request.argument)
    if not rows:
        raise Failure(404, f"there is no basket {request.argument}")
    return 200, json.loads(rows[0]["content"])


if __name__ == "__main__":
    run()
