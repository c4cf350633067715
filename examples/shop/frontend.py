"""The shop's front door, and the only service that customers talk to.

GET /    GET /products    POST /orders (or /checkout)    GET /orders[?customer=ada]    GET /orders/<id>
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote

from shoplib import Failure, Request, route, run, say

DEFAULT_ITEMS = [{"sku": "kettle", "quantity": 1}, {"sku": "tea", "quantity": 2}]


@route("GET", "/")
def show_home(request: Request) -> tuple[int, Any]:
    """The shop window."""
    products = request.call("catalog", "GET", "/products")["products"]
    window = [{key: product[key] for key in ("sku", "name", "price_cents")} for product in products]
    return 200, {"shop": "meshctl example shop", "products": window, "recommended": _recommend(request, [])}


@route("GET", "/products")
def show_products(request: Request) -> tuple[int, Any]:
    """The catalogue."""
    return 200, request.call("catalog", "GET", "/products")


@route("POST", "/orders")
@route("POST", "/checkout")
def place_order(request: Request) -> tuple[int, Any]:
    """Order {"customer", "items"}; without items, a kettle and tea. The same Idempotency-Key orders only once."""
    # Without a key the order gets one of its own, so that at least the mesh may repeat what is done for it.
    key = request.passed_on.setdefault("idempotency-key", os.urandom(8).hex())
    body = request.json()
    items = body.get("items", DEFAULT_ITEMS)
    products = request.call("catalog", "GET", "/products")["products"]
    names = {product["sku"]: product["name"] for product in products}
    cart_id = quote(key, safe="")
    content = {"customer": body.get("customer", "guest"), "items": items}
    cart = request.call("cart", "PUT", f"/carts/{cart_id}", content)
    recommended = _recommend(request, [item["sku"] for item in cart["items"]])
    receipt = request.call("checkout", "POST", "/checkout", {"cart": cart_id})
    order = request.call("orders", "GET", f"/orders/{receipt['id']}")
    order["items"] = [{**item, "name": names.get(item["sku"], item["sku"])} for item in order["items"]]
    more = {"payment": receipt["payment"], "discount": receipt["discount"], "recommended": recommended}
    say(f"order {order['id']} for {order['customer']}: {order['total']}, checkout {order['checkout']}")
    return 201, {**order, **more, "path": request.hops}


@route("GET", "/orders")
def list_orders(request: Request) -> tuple[int, Any]:
    """Orders booked, newest first."""
    customer = request.query.get("customer")
    return 200, request.call("orders", "GET", f"/orders?customer={quote(customer)}" if customer else "/orders")


@route("GET", "/orders/{}")
def show_order(request: Request) -> tuple[int, Any]:
    """One order."""
    return 200, request.call("orders", "GET", f"/orders/{quote(request.argument, safe='')}")


def _recommend(request: Request, skus: list[str]) -> list[str]:
    """What else may please; a shop without recommendations still sells."""
    try:
        answer = request.call("recommendations", "GET", f"/recommendations?skus={quote(','.join(skus))}")
    except Failure:
        return []
    return list(answer["recommendations"])


if __name__ == "__main__":
    run()
