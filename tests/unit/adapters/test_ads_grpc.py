"""The xDS server as a gRPC client sees it: who is let in, who is replaced, what a fault may bring down."""

from __future__ import annotations

import asyncio
import socket as sockets
import stat
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from meshctl.adapters.ads_grpc import AdsServer
from meshctl.ads.snapshot import CLUSTER, LISTENER, TYPE_URLS, Resource, Snapshot, resource, snapshot
from meshctl.ads.status import SyncStatus
from meshctl.errors import RejectedError, StartError, WaitTimeoutError

END: Any = getattr(grpc.aio, "EOF")  # noqa: B009 - the type stubs lack it


class StoppedClock:
    def now(self) -> float:
        return 7.0

    def monotonic(self) -> float:
        return 0.0


class World:
    """A server, what it reported, and clients that speak xDS by hand."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ads"
        self.seen: list[SyncStatus] = []
        self.changed = asyncio.Event()
        self.server = AdsServer(socket=str(self.path), on_status=self._note, clock=StoppedClock())
        self.channels: list[Any] = []

    def _note(self, node: str, status: SyncStatus) -> None:
        assert node == status.node
        self.seen.append(status)
        self.changed.set()

    def stub(self) -> Any:
        channel = grpc.aio.insecure_channel(f"unix:{self.path}", options=[("grpc.use_local_subchannel_pool", 1)])
        self.channels.append(channel)
        return ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel)

    async def connect(self, node: str) -> Client:
        return Client(self.stub().DeltaAggregatedResources(), node)

    async def wait_state(self, node: str, state: str) -> None:
        async with asyncio.timeout(60):
            while self.server.status(node).state != state:
                self.changed.clear()
                await self.changed.wait()


class Client:
    """One stream."""

    def __init__(self, call: Any, node: str) -> None:
        self.call = call
        self._node: str | None = node

    async def ask(self, type_url: str, **more: Any) -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, **more)
        if self._node is not None:
            request.node.id, self._node = self._node, None
        await self.call.write(request)

    async def get(self) -> Any:
        return await asyncio.wait_for(self.call.read(), 60)

    async def answer(self, response: Any, error: str = "") -> None:
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        if error:
            request.error_detail.message = error
        await self.call.write(request)

    async def take_all(self) -> None:
        """Ask for clusters and listeners and acknowledge them."""
        for url in (CLUSTER, LISTENER):
            await self.ask(url)
            await self.answer(await self.get())


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="ads") as folder:
        made = World(Path(folder))
        await made.server.start()
        yield made
        for channel in made.channels:
            await channel.close()
        await made.server.stop()


def one_cluster(node: str, content: str = "1") -> Snapshot:
    return snapshot(node, [resource(CLUSTER, "a", content.encode())])


async def test_resources_travel_with_their_names_and_versions(world: World) -> None:
    made = one_cluster("n")
    world.server.publish(made)
    client = await world.connect("n")
    await client.ask(CLUSTER)
    response = await client.get()
    assert response.type_url == CLUSTER
    assert [(item.name, item.version) for item in response.resources] == [("a", made.of(CLUSTER)["a"].version)]
    assert (response.resources[0].resource.type_url, response.resources[0].resource.value) == (CLUSTER, b"1")


async def test_the_socket_is_for_its_owner_alone(world: World) -> None:
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o600


async def test_a_large_response_passes(world: World) -> None:
    world.server.publish(snapshot("n", [resource(CLUSTER, "big", b"x" * 6_000_000)]))
    channel = grpc.aio.insecure_channel(f"unix:{world.path}", options=[("grpc.max_receive_message_length", -1)])
    world.channels.append(channel)
    client = Client(ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources(), "n")
    await client.ask(CLUSTER)
    assert len((await client.get()).resources[0].resource.value) == 6_000_000


async def test_state_of_the_world_is_refused_with_the_remedy(world: World) -> None:
    call = world.stub().StreamAggregatedResources()
    with pytest.raises(grpc.aio.AioRpcError, match="set api_type to DELTA_GRPC") as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_stream_without_node_is_refused(world: World) -> None:
    client = await world.connect("")
    await client.ask(CLUSTER)
    with pytest.raises(grpc.aio.AioRpcError, match="has to name its node"):
        await client.call.read()


async def test_a_stream_that_says_nothing_does_no_harm(world: World) -> None:
    client = await world.connect("n")
    await client.call.done_writing()
    assert await client.get() is END
    assert world.server.statuses() == ()


async def test_an_unknown_node_is_shown_until_it_leaves(world: World) -> None:
    client = await world.connect("stranger")
    await client.ask(CLUSTER)
    await world.wait_state("stranger", "stale")
    assert [item.node for item in world.server.statuses()] == ["stranger"]
    await client.call.done_writing()
    await world.wait_state("stranger", "disconnected")
    assert world.server.statuses() == ()


async def test_a_node_that_connects_again_replaces_its_older_stream(world: World) -> None:
    world.server.publish(one_cluster("n"))
    first = await world.connect("n")
    await first.take_all()
    second = await world.connect("n")
    await second.ask(CLUSTER)
    assert await first.get() is END
    response = await second.get()
    assert [item.name for item in response.resources] == ["a"]
    assert world.server.status("n").connected


async def test_every_change_of_state_is_reported_once(world: World) -> None:
    world.server.publish(one_cluster("n"))
    client = await world.connect("n")
    await client.take_all()
    await world.wait_state("n", "synced")
    world.server.publish(one_cluster("n"))
    states = [item.state for item in world.seen]
    assert (states[0], states[-1]) == ("disconnected", "synced")
    assert all(one != two for one, two in zip(world.seen, world.seen[1:], strict=False))
    assert world.seen[-1].types[0].acked_at == 7.0


# ------------------------------------------------------------------------------------------------------------ waiting


async def test_an_older_version_counts_as_reached_when_a_newer_one_is(world: World) -> None:
    old, new = one_cluster("n", "1"), one_cluster("n", "2")
    world.server.publish(old)
    world.server.publish(new)
    client = await world.connect("n")
    waiting = asyncio.ensure_future(world.server.wait_synced({"n": old.version}, 60))
    await client.take_all()
    await waiting


async def test_a_version_published_again_has_to_be_acknowledged_again(world: World) -> None:
    one, two = one_cluster("n", "1"), one_cluster("n", "2")
    world.server.publish(one)
    client = await world.connect("n")
    await client.take_all()
    await world.server.wait_synced({"n": one.version}, 60)
    world.server.publish(two)
    await client.answer(await client.get())
    await world.server.wait_synced({"n": two.version}, 60)
    world.server.publish(one)
    with pytest.raises(WaitTimeoutError, match=r"n \(clusters not acknowledged\)"):
        await world.server.wait_synced({"n": one.version}, 0.05)
    await client.answer(await client.get())
    await world.server.wait_synced({"n": one.version}, 60)


async def test_who_is_missing_is_named(world: World) -> None:
    published = one_cluster("n")
    world.server.publish(published)
    await (await world.connect("n")).ask(CLUSTER)
    await world.wait_state("n", "stale")
    with pytest.raises(WaitTimeoutError) as caught:
        await world.server.wait_synced({"n": published.version, "m": "1", "o": "1"}, 0.05)
    assert caught.value.message == (
        "3 of 3 sidecars did not acknowledge within 0.05 s: "
        "m (not connected), n (clusters not acknowledged), o (not connected)"
    )
    with pytest.raises(WaitTimeoutError, match="nothing of this version was published"):
        await world.server.wait_synced({"n": "never"}, 0.05)
    world.server.publish(snapshot("n", []))
    with pytest.raises(WaitTimeoutError, match=r"n \(not acknowledged\)"):
        await world.server.wait_synced({"n": snapshot("n", []).version}, 0.05)


async def test_a_refusal_ends_the_wait_with_the_words(world: World) -> None:
    good, bad = one_cluster("n", "1"), one_cluster("n", "bad")
    world.server.publish(good)
    client = await world.connect("n")
    await client.take_all()
    world.server.publish(bad)
    waiting = asyncio.ensure_future(world.server.wait_synced({"n": bad.version}, 60))
    await client.answer(await client.get(), error="it is bad\n")
    with pytest.raises(RejectedError) as caught:
        await waiting
    assert caught.value.message == "the sidecar of n refused clusters a: it is bad"

    # What comes later is not held responsible for it.
    later = snapshot("n", [resource(CLUSTER, "a", b"bad"), resource(CLUSTER, "b", b"1")])
    world.server.publish(later)
    await client.answer(await client.get())
    await world.server.wait_synced({"n": later.version}, 60)
    assert world.server.status("n").error == "a: it is bad"

    world.server.retry_rejected("n")
    world.server.retry_rejected("nobody")
    assert [item.name for item in (await client.get()).resources] == ["a"]


async def test_all_refusals_are_listed(world: World) -> None:
    made = snapshot("n", [resource(CLUSTER, "a", b"1"), resource(CLUSTER, "b", b"1")])
    world.server.publish(made)
    client = await world.connect("n")
    await client.ask(CLUSTER)
    await client.answer(await client.get(), error="Error adding/updating cluster(s) a: bad, b: worse")
    await client.ask(LISTENER)
    with pytest.raises(RejectedError) as caught:
        await world.server.wait_synced({"n": made.version}, 60)
    assert [line.split(":")[0] for line in caught.value.detail.splitlines()] == ["clusters a", "clusters b"]


async def test_a_forgotten_node_is_not_listed_and_may_come_back(world: World) -> None:
    made = one_cluster("n")
    world.server.publish(made)
    world.server.publish(one_cluster("gone"))
    client = await world.connect("n")
    await client.take_all()
    await world.server.wait_synced({"n": made.version}, 60)
    world.server.forget("gone")
    world.server.forget("never-known")
    world.server.forget("n")
    assert [item.node for item in world.server.statuses()] == ["n"], "it is still connected"
    world.server.publish(made)
    await world.server.wait_synced({"n": made.version}, 60)


async def test_only_the_newest_versions_are_remembered(world: World) -> None:
    for number in range(300):
        world.server.publish(one_cluster("n", str(number)))
    await (await world.connect("n")).take_all()
    await world.server.wait_synced({"n": one_cluster("n", "250").version}, 60)
    with pytest.raises(WaitTimeoutError):
        await world.server.wait_synced({"n": one_cluster("n", "1").version}, 0.01)


# ------------------------------------------------------------------------------------------------------------- faults


class Broken(Mapping[str, Mapping[str, Resource]]):
    """Resources that cannot be looked at."""

    def __getitem__(self, key: str) -> Mapping[str, Resource]:
        raise RuntimeError("broken")

    def __iter__(self) -> Any:
        return iter(TYPE_URLS)

    def __len__(self) -> int:
        return len(TYPE_URLS)

    def get(self, key: str, default: Any = None) -> Any:
        return self[key]


async def test_a_fault_in_one_stream_ends_that_stream_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for node in ("n", "m"):
        world.server.publish(one_cluster(node))
    first, second = await world.connect("n"), await world.connect("m")
    await first.take_all()
    await second.take_all()
    await world.wait_state("n", "synced")
    world.server.publish(Snapshot(node="n", resources=Broken(), version="broken"))
    assert await first.get() is END
    await world.wait_state("n", "disconnected")
    world.server.publish(one_cluster("m", "2"))
    assert [item.name for item in (await second.get()).resources] == ["a"]
    assert "a bug ended the stream of sidecar n" in caplog.text


async def test_a_socket_left_behind_by_a_dead_server_is_taken_over() -> None:
    with tempfile.TemporaryDirectory(prefix="ads") as folder:
        world = World(Path(folder))
        left = sockets.socket(sockets.AF_UNIX)
        left.bind(str(world.path))
        left.close()
        await world.server.start()
        await (await world.connect("n")).ask(CLUSTER)
        await world.wait_state("n", "stale")
        await world.channels[0].close()
        await world.server.stop()


async def test_a_socket_that_cannot_be_made_is_an_error_that_says_so(tmp_path: Path) -> None:
    world = World(tmp_path / "missing")
    with pytest.raises(StartError, match=r"cannot listen on .*/missing/ads"):
        await world.server.start()
    await world.server.stop()


async def test_stopping_ends_every_stream_and_reports_it(world: World) -> None:
    client = await world.connect("n")
    await client.ask(CLUSTER)
    await world.wait_state("n", "stale")
    await world.server.stop()
    assert world.server.status("n").state == "disconnected"
    assert world.seen[-1].state == "disconnected"
