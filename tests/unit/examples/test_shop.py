"""The example shop as real processes that talk to one another directly, with no mesh between them."""

from __future__ import annotations

import ast
import json
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.support.shop import DEADLINE, SHOP, UPSTREAMS, Fleet, Running, ask

FRONTEND_IDENTITY = "By=spiffe://shop.mesh/frontend;Hash=ab12;URI=spiffe://shop.mesh/gateway"
TEA = [{"sku": "tea", "quantity": 3}]


def new_key() -> str:
    return uuid.uuid4().hex


def order(url: str, key: str, **body: Any) -> Any:
    answer = ask(f"{url}/orders", "POST", body, Idempotency_Key=key)
    assert answer.status == 201, answer
    return answer.json


def edges(path: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(caller, callee) of a path, from its depths."""
    found, above = set(), list[str]()
    for hop in path:
        above[hop["depth"] :] = [hop["service"]]
        if hop["depth"]:
            found.add((above[-2], above[-1]))
    return found


def race(count: int, action: Callable[[int], Any]) -> list[Any]:
    """What an action gives in so many threads that begin together."""
    start = threading.Barrier(count)

    def run(number: int) -> Any:
        start.wait(DEADLINE)
        return action(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_an_order_makes_sixteen_calls_along_every_declared_edge(shop: Fleet) -> None:
    placed = order(shop.urls["frontend"], new_key(), customer="ada")
    assert len(placed["path"]) == 16, "fifteen between services, and one to the frontend"
    assert edges(placed["path"]) == {(caller, callee) for caller, called in UPSTREAMS.items() for callee in called}
    assert {hop["service"] for hop in placed["path"]} == set(UPSTREAMS)


def test_an_order_says_what_it_costs_and_who_booked_it(shop: Fleet) -> None:
    placed = order(shop.urls["frontend"], new_key(), customer="ada", items=TEA)
    assert placed["total"] == "38.70 EUR"
    assert placed["total_cents"] == 3 * 1290
    assert placed["checkout"] == "v1"
    assert placed["items"] == [{"sku": "tea", "quantity": 3, "name": "Darjeeling, 250 g"}]
    assert placed["recommended"] == ["biscuits"]
    shown = ask(f"{shop.urls['frontend']}/orders/{placed['id']}").json
    assert shown == {key: placed[key] for key in shown} | {"items": TEA}


def test_checkout_is_another_name_for_orders(shop: Fleet) -> None:
    answer = ask(f"{shop.urls['frontend']}/checkout", "POST", {"customer": "ada"}, Idempotency_Key=new_key())
    assert answer.status == 201
    assert answer.json["checkout"] == "v1"


def test_a_hop_carries_the_identity_that_the_sidecar_found(shop: Fleet) -> None:
    answer = ask(f"{shop.urls['frontend']}/products", x_forwarded_client_cert=FRONTEND_IDENTITY)
    frontend, catalog = json.loads(answer.headers["x-shop-path"])
    assert frontend["caller"] == "spiffe://shop.mesh/gateway"
    # The catalogue knows nothing of identities, so the frontend notes the one by which it calls.
    assert catalog["caller"] == "spiffe://shop.mesh/frontend"
    assert catalog["noted_by"] == "frontend"


def test_the_same_key_again_books_reserves_and_charges_nothing_more(shop: Fleet) -> None:
    customer, key = new_key(), new_key()
    stock = f"{shop.urls['inventory']}/stock"
    first = order(shop.urls["frontend"], key, customer=customer, items=TEA)
    left = ask(stock).json
    again = order(shop.urls["frontend"], key, customer=customer, items=TEA)
    assert {**first, "path": []} == {**again, "path": []}
    assert ask(stock).json == left
    assert ask(f"{shop.urls['frontend']}/orders?customer={customer}").json["count"] == 1


def test_the_order_book_answers_a_repeat_with_the_first_order(shop: Fleet) -> None:
    url, key = f"{shop.urls['orders']}/orders", new_key()
    first = ask(url, "POST", {"items": TEA, "total_cents": 3870}, Idempotency_Key=key)
    again = ask(url, "POST", {"items": [], "total_cents": 1}, Idempotency_Key=key)
    assert (first.status, again.status) == (201, 200)
    assert first.json == again.json


def test_eight_racing_requests_at_two_instances_book_one_order(fleet: Fleet) -> None:
    instances = [fleet.start("orders", ORDERS_DB=str(fleet.folder / "shared" / "orders.db")) for _ in range(2)]
    keys = [new_key() for _ in range(5)]

    def book_all(number: int) -> list[tuple[int, str]]:
        answers = [
            ask(f"{instances[number % 2].url}/orders", "POST", {"items": [], "total_cents": 1}, Idempotency_Key=key)
            for key in keys
        ]
        return [(answer.status, answer.json["id"]) for answer in answers]

    results = race(8, book_all)
    for column in zip(*results, strict=True):
        assert sorted(status for status, _ in column) == [200] * 7 + [201]
        assert len({order_id for _, order_id in column}) == 1
    assert [ask(f"{instance.url}/orders").json["count"] for instance in instances] == [len(keys)] * 2


def test_eight_racing_orders_with_one_key_are_one_order(shop: Fleet) -> None:
    customer, key = new_key(), new_key()
    placed = race(8, lambda _: order(shop.urls["frontend"], key, customer=customer))
    assert len({one["id"] for one in placed}) == 1
    assert len({one["payment"] for one in placed}) == 1
    assert ask(f"{shop.urls['frontend']}/orders?customer={customer}").json["count"] == 1


def test_instances_that_start_together_share_a_new_database(fleet: Fleet) -> None:
    shared = str(fleet.folder / "orders.db")
    instances: list[Running] = race(4, lambda _: fleet.start("orders", ORDERS_DB=shared))
    assert [ask(f"{instance.url}/orders").json["count"] for instance in instances] == [0] * 4


def test_a_booked_order_survives_a_kill(fleet: Fleet) -> None:
    first = fleet.start("orders")
    booked = ask(f"{first.url}/orders", "POST", {"items": [], "total_cents": 1}, Idempotency_Key=new_key()).json
    first.process.kill()
    first.process.wait(DEADLINE)
    assert ask(f"{fleet.start('orders').url}/orders/{booked['id']}").json == booked
    assert (fleet.folder / ".meshctl" / "data" / "orders.db").is_file()


def test_v2_gives_a_discount_and_says_that_it_is_v2(shop: Fleet, fleet: Fleet) -> None:
    fleet.urls.update(shop.urls)
    fleet.urls["checkout"] = fleet.start("checkout", MESH_VERSION="v2", LOYALTY_PERCENT="10").url
    frontend = fleet.start("frontend")
    placed = order(frontend.url, new_key(), items=TEA)
    assert (placed["checkout"], placed["total_cents"], placed["discount"]) == ("v2", 3483, "3.87 EUR")


def test_a_repeat_at_the_other_version_is_booked_as_it_was_charged(shop: Fleet, fleet: Fleet) -> None:
    fleet.urls.update(shop.urls)
    v2 = fleet.start("checkout", MESH_VERSION="v2", LOYALTY_PERCENT="10")
    key = new_key()
    first = order(shop.urls["frontend"], key, items=TEA)
    again = ask(f"{v2.url}/checkout", "POST", {"cart": key}, Idempotency_Key=key)
    assert {name: again.json[name] for name in ("id", "total_cents", "checkout", "discount")} == {
        name: first[name] for name in ("id", "total_cents", "checkout", "discount")
    }


def test_the_shop_sells_without_recommendations(shop: Fleet, fleet: Fleet) -> None:
    fleet.urls.update(shop.urls)
    with socket.socket() as deaf:  # bound, so that nobody else is given its port, and not listening
        deaf.bind(("127.0.0.1", 0))
        fleet.urls["recommendations"] = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        placed = order(fleet.start("frontend").url, new_key(), items=TEA)
    assert placed["recommended"] == []
    assert next(hop for hop in placed["path"] if hop.get("failed"))["service"] == "recommendations"


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"items": [{"sku": "samovar", "quantity": 1}]}, 404, "the shop does not sell samovar"),
        ({"items": [{"sku": "tea", "quantity": 0}]}, 400, "a quantity is a whole number from 1 to 100"),
        ({"items": [{"sku": "tea"}]}, 400, "'quantity' is missing"),
        ({"items": []}, 400, 'items must be a list such as [{"sku": "tea", "quantity": 2}]'),
        ({"items": "tea"}, 400, 'items must be a list such as [{"sku": "tea", "quantity": 2}]'),
        ([], 400, "the body is not a JSON object"),
    ],
)
def test_what_cannot_be_ordered_is_refused_in_words(shop: Fleet, body: Any, status: int, error: str) -> None:
    answer = ask(f"{shop.urls['frontend']}/orders", "POST", body, Idempotency_Key=new_key())
    assert (answer.status, answer.json["error"]) == (status, error)


def test_what_is_sold_out_is_neither_charged_nor_booked(fleet: Fleet) -> None:
    for service in UPSTREAMS:
        fleet.urls[service] = fleet.start(service).url
    assert fleet.run("seed.py", SEED_UNITS="5").returncode == 0
    frontend = fleet.urls["frontend"]
    order(frontend, new_key(), items=TEA)
    answer = ask(f"{frontend}/orders", "POST", {"items": TEA}, Idempotency_Key=new_key())
    assert (answer.status, answer.json["error"]) == (409, "sold out: tea")
    assert ask(f"{frontend}/orders").json["count"] == 1
    direct = ask(f"{fleet.urls['inventory']}/reservations", "POST", {"items": TEA}, Idempotency_Key=new_key())
    assert direct.status == 409
    assert ask(f"{fleet.urls['inventory']}/stock?skus=tea").json == {"stock": {"tea": 2}}


def test_a_change_without_an_idempotency_key_is_refused(shop: Fleet) -> None:
    for service, path in (("orders", "/orders"), ("payment", "/charges"), ("inventory", "/reservations")):
        body = {"items": [], "total_cents": 1, "amount_cents": 1}
        answer = ask(f"{shop.urls[service]}{path}", "POST", body)
        assert (answer.status, answer.json["error"]) == (400, "the header Idempotency-Key is missing")


def test_failures_on_demand_are_exactly_so_many_of_every_hundred(fleet: Fleet) -> None:
    payment = fleet.start("payment", FAILURE_PERCENT="20", FAILURE_STATUS="503")
    statuses = [
        ask(f"{payment.url}/charges", "POST", {"amount_cents": 1}, Idempotency_Key=new_key()).status for _ in range(100)
    ]
    assert (statuses.count(503), statuses.count(201)) == (20, 80)


def test_a_failure_below_is_a_500_that_no_mesh_repeats(fleet: Fleet, shop: Fleet) -> None:
    fleet.urls.update(shop.urls)
    fleet.urls["payment"] = fleet.start("payment", FAILURE_PERCENT="100", FAILURE_STATUS="503").url
    fleet.urls["checkout"] = fleet.start("checkout").url
    frontend = fleet.start("frontend")
    key = new_key()
    answer = ask(f"{frontend.url}/orders", "POST", {}, Idempotency_Key=key)
    assert answer.status == 500
    assert "payment answered 503" in answer.json["error"]
    # Once payment works again the same wish goes through.
    assert order(shop.urls["frontend"], key)["checkout"] == "v1"


def test_a_connection_that_was_closed_while_idle_fails_no_call(fleet: Fleet) -> None:
    first = fleet.start("catalog")
    fleet.urls["catalog"] = first.url
    frontend = fleet.start("frontend")
    assert ask(f"{frontend.url}/products").status == 200
    fleet.stop(first)
    fleet.start("catalog", PORT=first.url.rpartition(":")[2])
    assert ask(f"{frontend.url}/products").status == 200


def test_sigterm_lets_a_request_finish_and_exits_with_0(fleet: Fleet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(DEADLINE)
        fleet.urls["catalog"] = f"http://127.0.0.1:{upstream.getsockname()[1]}"
        frontend = fleet.start("frontend")
        answers: list[Any] = []
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        client = threading.Thread(target=lambda: answers.append(ask(f"{frontend.url}/products", traceparent=trace)))
        client.start()
        connection, _ = upstream.accept()
        with connection:
            asked = connection.recv(65536).decode()
            frontend.process.send_signal(signal.SIGTERM)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            client.join(DEADLINE)
    assert "traceparent: " + trace in asked
    assert answers[0].status == 200
    assert frontend.process.wait(DEADLINE) == 0


@pytest.mark.parametrize("service", UPSTREAMS)
def test_sigterm_ends_every_service_with_0_even_while_a_client_keeps_its_connection(fleet: Fleet, service: str) -> None:
    running = fleet.start(service)
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), DEADLINE) as idle:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")
        assert fleet.stop(running) == 0


def test_a_chunked_body_is_read(fleet: Fleet) -> None:
    payment = fleet.start("payment")
    host, port = payment.url.removeprefix("http://").split(":")
    request = (
        b"POST /charges HTTP/1.1\r\nHost: shop\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'a\r\n{"amount_c\r\n9;x=y\r\nents": 7}\r\n0\r\n\r\n'
    )
    with socket.create_connection((host, int(port)), DEADLINE) as connection:
        for _ in range(2):
            connection.sendall(request)
            assert b'"amount_cents": 7' in connection.recv(65536)


def test_the_catalogue_imports_the_standard_library_only_and_mentions_no_mesh() -> None:
    text = (SHOP / "catalog.py").read_text()
    tree = ast.walk(ast.parse(text))
    modules = {
        name.split(".")[0]
        for node in tree
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert modules <= sys.stdlib_module_names
    for word in ("mesh", "sidecar", "envoy", "shoplib", "_URL", "proxy"):
        assert word.lower() not in text.lower(), word


@pytest.mark.parametrize("path", sorted(SHOP.glob("*.py")), ids=lambda path: path.name)
def test_every_file_of_the_shop_is_small_and_needs_nothing_but_python(path: Any) -> None:
    text = path.read_text()
    assert len(text.splitlines()) < 150
    own = {other.stem for other in SHOP.glob("*.py")}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] in sys.stdlib_module_names | own
        elif isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= sys.stdlib_module_names | own
