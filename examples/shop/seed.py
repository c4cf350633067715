"""A job: fills the warehouse with everything that is in the catalogue, then ends."""

from __future__ import annotations

import json
import os
import sys

from shopcall import Answer, Failure, send

UNITS = int(os.environ.get("SEED_UNITS", "1000000"))


def _ask(service: str, method: str, path: str, body: object = None) -> Answer:
    answer = send(service, method, path, body, {})
    if answer.status >= 400:
        raise Failure(answer.status, f"{service} answered {answer.status}: {answer.message()}")
    return answer


def main() -> None:
    """Seed, or end with 1 and the reason."""
    try:
        products = json.loads(_ask("catalog", "GET", "/products").body)["products"]
        _ask("inventory", "PUT", "/stock", {"stock": {product["sku"]: UNITS for product in products}})
    except Failure as failure:
        sys.exit(f"seed: {failure}")
    print(f"seeded {len(products)} products with {UNITS} units each")


if __name__ == "__main__":
    main()
