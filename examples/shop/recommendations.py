"""What goes with what is in the basket, as long as it is in stock.

GET /recommendations?skus=kettle,cup
"""

from __future__ import annotations

from typing import Any

from shoplib import Request, route, run

MOST = 3


@route("GET", "/recommendations")
def recommend(request: Request) -> tuple[int, Any]:
    """Products that go with those named; the whole catalogue goes with nothing in particular."""
    chosen = [sku for sku in request.query.get("skus", "").split(",") if sku]
    products = {product["sku"]: product for product in request.call("catalog", "GET", "/products")["products"]}
    fitting = [other for sku in chosen if sku in products for other in products[sku]["goes_with"]] or list(products)
    fresh = [sku for sku in dict.fromkeys(fitting) if sku not in chosen]
    stock = request.call("inventory", "GET", f"/stock?skus={','.join(fresh)}")["stock"]
    return 200, {"recommendations": [sku for sku in fresh if stock.get(sku, 0) > 0][:MOST]}


if __name__ == "__main__":
    run()
