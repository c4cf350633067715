"""Checkout: turns a basket into an order.  Everything it asks others to do carries the order's Idempotency-Key, so
that a checkout that failed half-way is simply done again.

POST /checkout {"cart": "<id>"} with an Idempotency-Key. Version v2 gives LOYALTY_PERCENT off.
"""

from __future__ import annotations

import os
from typing import Any

from shoplib import Failure, Request, route, run
from shopspans import span

VERSION = os.environ.get("MESH_VERSION") or "v1"
LOYALTY_PERCENT = int(os.environ.get("LOYALTY_PERCENT", "0"))


@route("POST", "/checkout")
def check_out(request: Request) -> tuple[int, Any]:
    """Reserve, charge, book."""
    cart = request.call("cart", "GET", f"/carts/{request.json()['cart']}")
    sold_out = [item["sku"] for item in cart["items"] if not item["in_stock"]]
    if sold_out:
        raise Failure(409, f"sold out: {', '.join(sold_out)}")
    items = [{"sku": item["sku"], "quantity": item["quantity"]} for item in cart["items"]]
    # Spans of its own, beside those of the sidecars: see them with `meshctl traces`.
    with span(request, "price the basket", items=len(items), loyalty_percent=LOYALTY_PERCENT):
        # What counts is today's price, not the one shown when the basket was filled.
        products = request.call("catalog", "GET", "/products")["products"]
        prices = {product["sku"]: product["price_cents"] for product in products}
        full = sum(prices[item["sku"]] * item["quantity"] for item in items)
        discount = full * LOYALTY_PERCENT // 100
    with span(request, "reserve and charge", amount_cents=full - discount):
        request.call("inventory", "POST", "/reservations", {"items": items})
        wanted = {"customer": cart["customer"], "amount_cents": full - discount}
        # A repeat may come to the other version, with another price: what was charged first is what is booked.
        charge = request.call("payment", "POST", "/charges", wanted)
    order = {
        "customer": cart["customer"],
        "items": items,
        "total_cents": charge["amount_cents"],
        "checkout": VERSION,
    }
    booked = request.call("orders", "POST", "/orders", order)
    booked |= {"payment": charge["id"], "discount": f"{(full - booked['total_cents']) / 100:.2f} EUR"}
    return 201, booked


if __name__ == "__main__":
    run()
