"""The xDS server against a real Envoy: what it serves takes effect, in order, once, and without a lost request."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from tests.support.ads_resources import (
    make_cluster,
    make_endpoints,
    make_listener,
    make_routes,
    make_secret,
    make_unbuildable_cluster,
    make_unbuildable_routes,
    make_unparsable_cluster,
)
from tests.support.envoy_sidecar import Sidecar, run_backend, run_sidecar, until
from tests.support.envoy_validate import throwaway_credentials

from meshctl.adapters.ads_grpc import AdsServer
from meshctl.ads.snapshot import Resource, snapshot
from meshctl.ads.status import SyncStatus
from meshctl.errors import RejectedError, WaitTimeoutError

pytestmark = pytest.mark.e2e

NODE = "checkout"


class SteadyClock:
    """A clock that stands still."""

    def now(self) -> float:
        return 1000.0

    def monotonic(self) -> float:
        return 0.0


class Bench:
    """An xDS server, one Envoy and its backends, all in one short folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[tuple[str, SyncStatus]] = []
        self.server = self._make_server()
        self.sidecar: Sidecar
        self.backends: dict[str, str] = {}
        self.release = asyncio.Event()

    def _make_server(self) -> AdsServer:
        return AdsServer(
            socket=str(self.folder / "ads"),
            on_status=lambda node, status: self.seen.append((node, status)),
            clock=SteadyClock(),
        )

    async def restart_server(self, resources: Iterable[Resource]) -> None:
        await self.server.stop()
        self.server = self._make_server()
        self.server.publish(snapshot(NODE, resources))
        await self.server.start()

    async def apply(self, resources: Iterable[Resource], timeout: float = 60.0) -> None:
        made = snapshot(NODE, resources)
        self.server.publish(made)
        await self.server.wait_synced({NODE: made.version}, timeout)

    def parts(self, name: str, **cluster: str) -> list[Resource]:
        return [make_cluster(name, **cluster), make_endpoints(name, self.backends[name])]

    def front(self, **weights: int) -> list[Resource]:
        return [make_listener("front", str(self.folder / "front"), "routes"), make_routes("routes", weights)]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.UnixConnector(str(self.folder / "front"), limit=4, keepalive_timeout=600)
        async with aiohttp.ClientSession(connector=connector, base_url="http://front") as client:
            yield client

    async def warmed_at_once(self) -> bool:
        """Whether Envoy had all that it asked for, and gave up waiting (after 15 s) for nothing."""
        _, text = await self.sidecar.admin("/stats?filter=init_fetch_timeout$")
        counts = [int(line.rsplit(":", 1)[1]) for line in text.splitlines()]
        return bool(counts) and not any(counts)

    async def ask(self, path: str = "/") -> str:
        async with self.client() as client, client.get(path) as got:
            return f"{got.status} {await got.text()}"


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="ads") as name:
        made = Bench(Path(name))
        await made.server.start()
        async with (
            run_backend(made.folder / "a", "a", release=made.release) as a,
            run_backend(made.folder / "b", "b") as b,
            run_sidecar(made.folder, node=NODE, ads_socket=str(made.folder / "ads")) as made.sidecar,
        ):
            made.backends = {"a": a, "b": b}
            try:
                yield made
            finally:
                await made.server.stop()


async def test_a_sidecar_is_served_all_types_and_serves(bench: Bench) -> None:
    credentials = throwaway_credentials()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    chain, key = bench.folder / "chain.pem", bench.folder / "key.pem"
    chain.write_bytes(credentials.leaf_chain)
    key.write_bytes(credentials.leaf_key)
    context.load_cert_chain(chain, key)
    async with run_backend(bench.folder / "s", "secure", ssl=context) as bench.backends["s"]:
        secret = make_secret("leaf", chain=credentials.leaf_chain, key=credentials.leaf_key)
        await bench.apply([*bench.parts("s", client_secret="leaf"), secret, *bench.front(s=100)])
        assert await bench.ask() == "200 secure"
    status = bench.server.status(NODE)
    assert (status.state, status.connected, status.error) == ("synced", True, "")
    assert {item.type: (item.state, item.resources, item.acked_at) for item in status.types} == {
        "runtime": ("synced", 0, 1000.0),
        "clusters": ("synced", 1, 1000.0),
        "endpoints": ("synced", 1, 1000.0),
        "secrets": ("synced", 1, 1000.0),
        "listeners": ("synced", 1, 1000.0),
        "routes": ("synced", 1, 1000.0),
        "rates": ("synced", 0, None),
    }
    assert bench.seen[-1] == (NODE, status)


async def test_a_route_change_is_in_effect_when_it_is_acknowledged(bench: Bench) -> None:
    both = [*bench.parts("a"), *bench.parts("b")]
    await bench.apply([*both, *bench.front(a=100, b=0)])
    async with bench.client() as client:
        for weights in ({"a": 0, "b": 100}, {"a": 100, "b": 0}) * 5:
            before = bench.server.resources_sent
            await bench.apply([*both, *bench.front(**weights)])
            assert bench.server.resources_sent == before + 1
            async with client.get("/") as got:
                assert await got.text() == max(weights, key=lambda name: weights[name])


async def test_a_sidecar_that_reconnects_is_sent_only_what_differs(bench: Bench) -> None:
    both = [*bench.parts("a"), *bench.parts("b")]
    await bench.apply([*both, *bench.front(a=100)])
    async with bench.client() as client:
        await (await client.get("/")).text()
        accepted = await bench.sidecar.gauge("http.http.downstream_cx_total")

        same = [*both, *bench.front(a=100)]
        await bench.restart_server(same)
        await bench.server.wait_synced({NODE: snapshot(NODE, same).version}, 60)
        assert bench.server.resources_sent == 0

        changed = [*both, *bench.front(b=100)]
        await bench.restart_server(changed)
        await bench.server.wait_synced({NODE: snapshot(NODE, changed).version}, 60)
        assert bench.server.resources_sent == 1
        async with client.get("/") as got:
            assert await got.text() == "b"
        assert await bench.sidecar.gauge("http.http.downstream_cx_total") == accepted


async def test_a_cluster_that_changed_while_no_server_ran_warms_at_once(bench: Bench) -> None:
    await bench.apply([*bench.parts("a"), *bench.front(a=100)])
    changed = [*bench.parts("a", connect_timeout="2s"), *bench.front(a=100)]
    await bench.restart_server(changed)
    await bench.server.wait_synced({NODE: snapshot(NODE, changed).version}, 60)
    assert bench.server.resources_sent == 2, "the cluster, and its endpoints with it"
    assert await bench.warmed_at_once()


async def test_what_was_removed_while_no_server_ran_is_removed(bench: Bench) -> None:
    await bench.apply([*bench.parts("a"), *bench.parts("b"), *bench.front(a=100)])
    await bench.restart_server([*bench.parts("a"), *bench.front(a=100)])
    await bench.server.wait_synced({NODE: snapshot(NODE, [*bench.parts("a"), *bench.front(a=100)]).version}, 60)
    assert "b::" not in (await bench.sidecar.admin("/clusters"))[1]
    assert bench.server.resources_sent == 0


async def test_refused_routes_are_shown_and_the_last_good_ones_go_on(bench: Bench) -> None:
    good = [*bench.parts("a"), *bench.front(a=100)]
    await bench.apply(good)
    bad = [*bench.parts("a"), good[2], make_unbuildable_routes("routes")]
    with pytest.raises(RejectedError, match=r"checkout refused routes routes: Only a single wildcard domain"):
        await bench.apply(bad)
    assert await bench.ask() == "200 a"
    status = bench.server.status(NODE)
    assert status.state == "rejected"
    assert status.error == "routes: Only a single wildcard domain is permitted in route routes"

    sent = bench.server.resources_sent
    await bench.apply([*bad, make_cluster("late"), make_endpoints("late")])
    assert bench.server.resources_sent == sent + 2, "what was refused is not sent again, and blocks nothing else"
    await bench.apply(good)
    assert bench.server.status(NODE).state == "synced"


@pytest.mark.parametrize("make_bad", [make_unbuildable_cluster, make_unparsable_cluster])
async def test_a_refused_cluster_takes_no_other_with_it(bench: Bench, make_bad: object) -> None:
    assert callable(make_bad)
    await bench.apply([*bench.parts("a"), *bench.front(a=100)])
    with pytest.raises(RejectedError, match="refused clusters bad: "):
        await bench.apply([*bench.parts("a"), make_bad("bad"), *bench.parts("b"), *bench.front(b=100)])

    async def is_b() -> bool:
        return await bench.ask() == "200 b"

    await until(is_b)
    status = bench.server.status(NODE)
    assert [(item.type, item.rejected) for item in status.types if item.rejected] == [("clusters", 1)]


async def test_new_clusters_and_routes_in_one_snapshot_fail_no_request(bench: Bench) -> None:
    await bench.apply([*bench.parts("a"), *bench.front(a=100)])
    answers: Counter[str] = Counter()
    done = asyncio.Event()

    async def ask_steadily() -> None:
        async with bench.client() as client:
            while not done.is_set():
                async with client.get("/") as got:
                    answers[f"{got.status} {await got.text()}"] += 1

    async def is_asked_slowly() -> bool:
        return await bench.sidecar.gauge("cluster.a.upstream_rq_active") == 1

    async with asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(bench.ask("/slow"))
        await until(is_asked_slowly)
        for _ in range(3):
            tasks.create_task(ask_steadily())
        for _ in range(10):
            await bench.apply([*bench.parts("b"), *bench.front(b=100)])
            await bench.apply([*bench.parts("a"), *bench.front(a=100)])
        bench.release.set()
        assert await slow == "200 a", "a request on its way outlives its cluster"
        done.set()
    assert set(answers) == {"200 a", "200 b"}


async def test_an_updated_cluster_warms_at_once(bench: Bench) -> None:
    await bench.apply([*bench.parts("a"), *bench.front(a=100)])
    before = bench.server.resources_sent
    await bench.apply([*bench.parts("a", connect_timeout="2s"), *bench.front(a=100)])
    assert bench.server.resources_sent == before + 2, "the cluster, and its endpoints with it"
    assert await bench.warmed_at_once()
    assert await bench.sidecar.gauge("cluster_manager.warming_clusters") == 0
    assert await bench.ask() == "200 a"


async def test_an_updated_listener_keeps_its_routes(bench: Bench) -> None:
    parts = bench.parts("a")
    await bench.apply([*parts, *bench.front(a=100)])
    listener = make_listener("front", str(bench.folder / "front"), "routes", prefix="other")
    await bench.apply([*parts, listener, make_routes("routes", {"a": 100})])
    assert await bench.sidecar.gauge("listener_manager.total_listeners_warming") == 0
    assert await bench.ask() == "200 a"


async def test_a_sidecar_with_nothing_to_do_is_live_at_once(bench: Bench) -> None:
    await bench.apply([])
    await until(bench.sidecar.is_live)
    assert await bench.warmed_at_once()


async def test_endpoints_that_do_not_exist_keep_no_cluster_waiting(bench: Bench) -> None:
    await bench.apply([make_cluster("empty"), *bench.parts("a"), *bench.front(a=100)])
    assert await bench.sidecar.gauge("cluster_manager.warming_clusters") == 0
    assert await bench.warmed_at_once()


async def test_a_dead_sidecar_is_shown_and_waited_for_only_if_asked(bench: Bench) -> None:
    resources = [*bench.parts("a"), *bench.front(a=100)]
    await bench.apply(resources)
    await bench.sidecar.kill()

    async def is_disconnected() -> bool:
        return bench.server.status(NODE).state == "disconnected"

    await until(is_disconnected)
    version = snapshot(NODE, resources).version
    await bench.server.wait_synced({NODE: version}, 60, require_connected=False)
    with pytest.raises(WaitTimeoutError, match=r"1 of 1 sidecars .* checkout \(not connected\)"):
        await bench.server.wait_synced({NODE: version}, 0.05)
    async with run_sidecar(bench.folder, node=NODE, ads_socket=str(bench.folder / "ads")):
        await bench.server.wait_synced({NODE: version}, 60)
        assert await bench.ask() == "200 a"
