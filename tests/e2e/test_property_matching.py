"""What ``plan.matching`` says of a request is what Envoy does, over random tables and requests."""

from __future__ import annotations

import asyncio
import json
import random
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from tests.support.envoy_sidecar import until
from tests.support.envoy_validate import envoy_path
from yarl import URL

from meshctl.envoy import pb
from meshctl.envoy.bootstrap import build_bootstrap
from meshctl.envoy.routes import build_route_table
from meshctl.plan.matching import Asked, find_host, find_route
from meshctl.plan.model import Match, Reply, Route, RouteTable, VirtualHost
from meshctl.spec.routing_schema import ValueKind, ValueMatch

pytestmark = pytest.mark.e2e

TABLES, REQUESTS = 120, 10

PATHS = ("/", "/a", "/a/", "/a/b", "/ab", "/a.b", "/A", "/v1/x", "/v12", "/a%2Fb")
REGEXES = (r"/v\d+(/.*)?", "/a|/ab", ".*b", "/[^/]*", r"(?i)/A/?.*", "1", "[a-z]{1,2}", "", "x,y|1")
QUERIES = ("", "?", "?q=1", "?q", "?q=&d=1", "?d=1&q=2&q=1", "?Q=1", "?q=%31", "?q=1=1", "?d=a+b", "?&q=1&")
VALUES = ("1", "", "ab", "x,y", "AB")
METHODS = ("GET", "POST", "PURGE")
HEADERS = ("x-a", "x-b", "idempotency-key")


def random_table(dice: random.Random, name: str) -> RouteTable:
    """A virtual host for its own name and one for the others, with routes that answer their own number."""
    hosts = []
    for domains in ((f"{name}.test", f"{name}.test:*"), (f"{name}.test:81",)):
        routes = [
            Route(name=f"{domains[0]}/{number}", match=random_match(dice), action=Reply(status=200, body=str(number)))
            for number in range(dice.randint(1, 6))
        ]
        hosts.append(VirtualHost(name=domains[0], domains=domains, routes=tuple(routes)))
    return RouteTable(name=name, virtual_hosts=tuple(hosts))


def random_match(dice: random.Random) -> Match:
    """Conditions of all kinds, few at a time."""

    def some(*values: object) -> list[object]:
        return [value for value in values if dice.random() < 0.2]

    kind = dice.choice(["prefix", "exact", "regex", "any", "any"])
    prefix = dice.choice(PATHS).rstrip("/") or "/" if kind in ("prefix", "regex") else "/"
    return Match(
        path_prefix=prefix,
        path_exact=dice.choice(PATHS) if kind == "exact" else "",
        path_regex=dice.choice([item for item in REGEXES if item]) if kind == "regex" else "",
        methods=tuple(str(item) for item in some(*METHODS)) if dice.random() < 0.3 else (),
        headers=tuple(random_value(dice, str(name), absent=True) for name in some("x-a", "x-b")),
        query=tuple(random_value(dice, str(name), absent=False) for name in some("q", "d")),
        header_present="idempotency-key" if dice.random() < 0.1 else "",
        single_label_host=dice.random() < 0.05,
        body_over=dice.choice([0, 0, 0, 0, 0, 0, 5]),
        body_undeclared=dice.random() < 0.05,
    )


def random_value(dice: random.Random, name: str, *, absent: bool) -> ValueMatch:
    """A condition of a header or a parameter."""
    kinds: list[ValueKind] = ["exact", "regex", "present"]
    kind: ValueKind = dice.choice([*kinds, "absent"]) if absent else dice.choice(kinds)
    value = {"exact": dice.choice(VALUES), "regex": dice.choice([item for item in REGEXES if item])}.get(kind, "")
    return ValueMatch(name=name, kind=kind, value=value)


def random_request(dice: random.Random, host: str) -> tuple[str, Asked]:
    """A request to one of the two virtual hosts."""
    headers = {name: dice.choice(VALUES) for name in HEADERS if dice.random() < 0.4}
    return dice.choice([host, f"{host}:80", f"{host}:81", host.upper()]), Asked(
        path=dice.choice(PATHS) + dice.choice(QUERIES),
        method=dice.choice(METHODS),
        headers=headers | dice.choice([{}, {"content-length": "5"}, {"content-length": "6"}]),
    )


@asynccontextmanager
async def serving(tables: Iterable[RouteTable]) -> AsyncIterator[str]:
    """One Envoy with the virtual hosts of all tables; yields its socket."""
    with tempfile.TemporaryDirectory(prefix="match-") as folder:
        sockets = [f"{folder}/{name}" for name in ("admin", "ads", "proxy")]
        text = build_bootstrap(
            node="n",
            mesh="m",
            admin_socket=sockets[0],
            ads_socket=sockets[1],
            collector_socket=f"{folder}/spans",
        )
        config = pb.json_format.Parse(text, pb.bootstrap_pb2.Bootstrap())
        config.ClearField("dynamic_resources")
        # Without a control plane nobody answers what the runtime is, and Envoy would wait for it.
        layers = [layer for layer in config.layered_runtime.layers if not layer.HasField("rtds_layer")]
        del config.layered_runtime.layers[:]
        config.layered_runtime.layers.extend(layers)
        hosts = [host for table in tables for host in table.virtual_hosts]
        manager = pb.http_connection_manager_pb2.HttpConnectionManager(
            stat_prefix="x", route_config=build_route_table(RouteTable(name="all", virtual_hosts=tuple(hosts)))
        )
        manager.http_filters.add(name="router", typed_config=pb.any_of(pb.router_pb2.Router()))
        listener = config.static_resources.listeners.add(name="x")
        listener.address.pipe.path = sockets[2]
        listener.filter_chains.add().filters.add(name="hcm", typed_config=pb.any_of(manager))
        path = Path(folder) / "envoy.json"
        path.write_text(json.dumps(json.loads(pb.json_format.MessageToJson(config))))
        process = await asyncio.create_subprocess_exec(
            *(envoy_path(), "-c", str(path), "--concurrency", "1", "--log-level", "error", "--disable-hot-restart")
        )

        async def listening() -> bool:
            try:
                _, writer = await asyncio.open_unix_connection(sockets[2])
            except OSError:
                return False
            writer.close()
            return True

        try:
            await until(listening)
            yield sockets[2]
        finally:
            process.kill()
            await process.wait()


async def test_the_route_that_is_foretold_is_the_one_that_envoy_takes() -> None:
    dice = random.Random(20)
    tables = [random_table(dice, f"t{number}") for number in range(TABLES)]
    taken = 0
    async with serving(tables) as path, aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as client:
        for table in tables:
            for _ in range(REQUESTS):
                host, asked = random_request(dice, f"{table.name}.test")
                body = b"x" * int(asked.headers.get("content-length", "0"))
                async with client.request(
                    asked.method,
                    URL(f"http://any{asked.path}", encoded=True),
                    headers={**asked.headers, "host": host},
                    data=body or None,
                ) as answer:
                    text = await answer.text()
                    told = dict(answer.request_info.headers)
                found = find_host(table, host)
                assert found is not None
                seen = replace(asked, headers={name.lower(): value for name, value in told.items()})
                expected = find_route(found, seen, name=host)
                if expected is None:
                    assert answer.status == 404, (table, host, seen)
                    continue
                taken += 1
                assert isinstance(expected.action, Reply)
                assert (answer.status, text) == (200, expected.action.body), (table, host, seen)
    assert TABLES * REQUESTS // 4 < taken < TABLES * REQUESTS
