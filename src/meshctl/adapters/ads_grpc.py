"""Sidecars' gRPC streams -> sessions, and snapshots to them: the xDS server.  I/O.

Enters: snapshots by ``publish``, requests by ``DeltaAggregatedResources`` on a unix socket.  Leaves: responses,
statuses by ``on_status``.  Every decision is made by ads.session; here a stream is read, written, and kept apart from
the others, so that a fault in one of them ends that stream alone.  Nothing polls: a snapshot wakes the streams that it
concerns, and an acknowledgement those who wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2

from meshctl.ads.session import (
    Acked,
    Event,
    Nacked,
    RenewLeases,
    Request,
    RetryRejected,
    Send,
    Session,
    SnapshotChanged,
)
from meshctl.ads.snapshot import TYPE_URLS, Snapshot
from meshctl.ads.status import TYPE_NAMES, SyncStatus, describe, describe_disconnected
from meshctl.errors import RejectedError, StartError, WaitTimeoutError
from meshctl.ports import Clock
from meshctl.tasks import TaskBag

_SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
_UNLIMITED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_REMEMBERED_VERSIONS = 256

LEASE = 10.0
"""Seconds that a leased resource is in effect unless it is renewed."""

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Stream:
    """One connection of a sidecar; None in ``outgoing`` ends it."""

    session: Session
    outgoing: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)


@dataclass(slots=True, eq=False)
class _Node:
    """What is known of one sidecar. Publications are numbered, so that "this version or a newer one" can be told."""

    name: str
    snapshot: Snapshot | None = None
    stream: _Stream | None = None
    published: int = 0
    numbers: dict[str, int] = field(default_factory=dict)
    synced: int = 0
    nacked: int = 0
    acked_at: dict[str, float] = field(default_factory=dict)
    reported: SyncStatus | None = None


class AdsServer:
    """Serves every sidecar of the mesh what was published for it.

    Args:
        socket: path of the unix socket to listen on; at most 104 bytes.
        on_status: called in the event loop with the node and its status whenever that changes; must not raise.
        clock: gives the times of acknowledgements.
        handlers: other services for sidecars, to be served on the same socket.
    """

    def __init__(
        self,
        *,
        socket: str,
        on_status: Callable[[str, SyncStatus], None],
        clock: Clock,
        handlers: Sequence[Any] = (),
    ) -> None:
        self._socket = socket
        self._on_status = on_status
        self._clock = clock
        self._handlers = handlers
        self._nodes: dict[str, _Node] = {}
        self._waiters: set[asyncio.Event] = set()
        self._server: grpc.aio.Server | None = None
        self._tasks = TaskBag(_log_bug)
        self.lease: Callable[[str], float] = lambda _node: LEASE
        """Says of a node how many seconds its leases last from now; whoever knows when they are to end sets it."""
        self.resources_sent = 0
        """How many resources were sent to all sidecars since the server was made; removals do not count."""

    async def start(self) -> None:
        """Listen. Raises StartError when the socket cannot be used."""
        server = grpc.aio.server(options=_UNLIMITED)
        server.add_generic_rpc_handlers((self._build_handlers(), *self._handlers))
        try:
            server.add_insecure_port(f"unix:{self._socket}")
            await server.start()
            os.chmod(self._socket, 0o600)  # noqa: PTH101 - pathlib's would count as blocking, which it is not
        except (RuntimeError, OSError) as error:
            raise StartError(
                f"the control plane cannot listen on {self._socket}: {error}",
                hint="Check that its folder exists, is yours, and that the path has at most 104 bytes.",
            ) from error
        self._server = server

    async def stop(self) -> None:
        """End every stream and stop listening; sidecars keep their configuration."""
        if self._server is not None:
            await self._server.stop(grace=None)
            self._server = None
        await self._tasks.close()
        for node in tuple(self._nodes.values()):
            if node.stream is not None:
                self._close(node, node.stream)

    def publish(self, snapshot: Snapshot) -> None:
        """Make a snapshot the one that its node should have; one of equal version changes nothing."""
        node = self._nodes.setdefault(snapshot.node, _Node(snapshot.node))
        if node.snapshot is not None and node.snapshot.version == snapshot.version:
            return
        node.snapshot = snapshot
        node.published += 1
        node.numbers.pop(snapshot.version, None)
        node.numbers[snapshot.version] = node.published
        while len(node.numbers) > _REMEMBERED_VERSIONS:
            del node.numbers[next(iter(node.numbers))]
        if node.stream is not None:
            self._feed(node, node.stream, SnapshotChanged(snapshot))
        else:
            self._report(node)

    def forget(self, node: str) -> None:
        """Drop what a node that is no more should have; a stream that it still has goes on and is sent no changes."""
        known = self._nodes.get(node)
        if known is not None:
            known.snapshot = None
            if known.stream is None:
                del self._nodes[node]
            self._wake()

    def retry_rejected(self, node: str) -> None:
        """Send once more what a sidecar refused, now that the reason may have gone (a port that was taken)."""
        known = self._nodes.get(node)
        if known is not None and known.stream is not None:
            self._feed(known, known.stream, RetryRejected())

    def renew_leases(self, node: str) -> None:
        """Send a sidecar what it has for a time only once more, so that the time begins anew."""
        known = self._nodes.get(node)
        if known is not None and known.stream is not None:
            self._feed(known, known.stream, RenewLeases())

    def status(self, node: str) -> SyncStatus:
        """The status of one sidecar; "disconnected" for one that has no stream or was never heard of."""
        known = self._nodes.get(node)
        if known is None:
            return describe_disconnected(node)
        return known.reported or _describe(known)

    def statuses(self) -> tuple[SyncStatus, ...]:
        """The status of every sidecar that something was published for, or that is connected, by node."""
        return tuple(self.status(name) for name in sorted(self._nodes))

    async def wait_synced(
        self, node_versions: Mapping[str, str], timeout: float, *, require_connected: bool = True
    ) -> None:
        """Return when every named node has acknowledged its snapshot version or a newer one.

        Args:
            node_versions: the version to wait for, by node.
            timeout: seconds.
            require_connected: also wait for nodes that are not connected; otherwise they are passed over.

        Raises:
            RejectedError: a sidecar refused something since that version was published; holds Envoy's words.
            WaitTimeoutError: not all did in time; names who is missing.
        """
        changed = asyncio.Event()
        self._waiters.add(changed)
        missing: dict[str, str] = {}
        try:
            async with asyncio.timeout(timeout):
                while missing := self._find_missing(node_versions, require_connected=require_connected):
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            total = len(node_versions)
            listing = ", ".join(f"{name} ({why})" for name, why in sorted(missing.items()))
            raise WaitTimeoutError(
                f"{len(missing)} of {total} sidecars did not acknowledge within {timeout:g} s: {listing}",
                hint="`meshctl proxy status` shows what each sidecar has acknowledged.",
            ) from None
        finally:
            self._waiters.discard(changed)

    # ------------------------------------------------------------------------------------------------------ waiting

    def _find_missing(self, node_versions: Mapping[str, str], *, require_connected: bool) -> dict[str, str]:
        """Who is awaited, and for what; raises RejectedError when somebody refused."""
        missing: dict[str, str] = {}
        for name, version in node_versions.items():
            node = self._nodes.get(name)
            if node is None or node.stream is None:
                if require_connected:
                    missing[name] = "not connected"
                continue
            number = node.numbers.get(version)
            if number is None:
                missing[name] = "nothing of this version was published"
            elif node.synced < number:
                session = node.stream.session
                rejections = session.find_rejections()
                if rejections and node.nacked >= number:
                    raise _rejected(name, rejections)
                # What was refused before this version is not its fault: it is in effect when all else is.
                if not (rejections and session.is_settled):
                    pending = [TYPE_NAMES[url] for url in TYPE_URLS if session.count_pending(url)]
                    missing[name] = f"{', '.join(pending)} not acknowledged" if pending else "not acknowledged"
        return missing

    def _wake(self) -> None:
        for waiter in self._waiters:
            waiter.set()

    # ------------------------------------------------------------------------------------------------------ streams

    def _build_handlers(self) -> Any:
        return grpc.method_handlers_generic_handler(
            _SERVICE,
            {
                "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(
                    self._serve_delta,
                    request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
                    response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
                ),
                "StreamAggregatedResources": grpc.stream_stream_rpc_method_handler(_refuse_state_of_the_world),
            },
        )

    async def _serve_delta(self, requests: AsyncIterator[Any], context: Any) -> None:
        """One stream, from its first request to its end."""
        request = await anext(requests, None)
        if request is None:
            return
        if not request.node.id:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the first request of a stream has to name its node")
        node, stream = self._open(request.node.id)
        reader = self._tasks.spawn(f"ads.{node.name}", self._read(node, stream, requests))
        try:
            self._feed(node, stream, _parse(request))
            while (response := await stream.outgoing.get()) is not None:
                await context.write(response)
        finally:
            reader.cancel()
            self._close(node, stream)

    async def _read(self, node: _Node, stream: _Stream, requests: AsyncIterator[Any]) -> None:
        try:
            async for request in requests:
                self._feed(node, stream, _parse(request))
        finally:
            stream.outgoing.put_nowait(None)

    def _open(self, name: str) -> tuple[_Node, _Stream]:
        node = self._nodes.setdefault(name, _Node(name))
        if node.stream is not None:
            # The sidecar was started anew, or lost its connection before this side noticed.
            node.stream.outgoing.put_nowait(None)
        node.stream = stream = _Stream(Session(name))
        node.synced = node.nacked = 0
        node.acked_at.clear()
        if node.snapshot is not None:
            stream.session.receive(SnapshotChanged(node.snapshot))
        return node, stream

    def _close(self, node: _Node, stream: _Stream) -> None:
        if node.stream is not stream:
            return
        node.stream = None
        if node.snapshot is None and self._nodes.get(node.name) is node:
            del self._nodes[node.name]
        self._report(node)

    def _feed(self, node: _Node, stream: _Stream, event: Event) -> None:
        """Give the session an event and carry out what it says; a bug in it ends this stream, not the server."""
        if node.stream is not stream:
            return
        try:
            self._carry_out(node, stream, event)
        except Exception:  # noqa: BLE001 - the boundary of one stream: the sidecar reconnects and starts afresh
            _log.exception("a bug ended the stream of sidecar %s", node.name)
            stream.outgoing.put_nowait(None)
            self._close(node, stream)

    def _carry_out(self, node: _Node, stream: _Stream, event: Event) -> None:
        for command in stream.session.receive(event):
            match command:
                case Send():
                    self.resources_sent += len(command.resources)
                    stream.outgoing.put_nowait(_build(command, self.lease(node.name)))
                case Acked():
                    node.acked_at[command.type_url] = self._clock.now()
                case Nacked():
                    node.nacked = node.published
                    _log.warning("sidecar %s refused %s: %s", node.name, command.type_url, command.message)
        snapshot = stream.session.snapshot
        if stream.session.is_synced and snapshot is not None:
            node.synced = node.numbers.get(snapshot.version, node.synced)
        self._report(node)

    def _report(self, node: _Node) -> None:
        status = _describe(node)
        if status != node.reported:
            node.reported = status
            self._on_status(node.name, status)
        self._wake()


def _describe(node: _Node) -> SyncStatus:
    if node.stream is None:
        return describe_disconnected(node.name, node.snapshot.version if node.snapshot is not None else "")
    status = describe(node.stream.session)
    times = (node.acked_at.get(url) for url in TYPE_URLS)
    types = tuple(replace(item, acked_at=at) for item, at in zip(status.types, times, strict=True))
    return replace(status, types=types)


def _log_bug(task: str, error: BaseException) -> None:
    _log.error("task %s failed", task, exc_info=error)


def _rejected(node: str, rejections: list[tuple[str, str, str]]) -> RejectedError:
    url, name, words = rejections[0]
    lines = [f"{TYPE_NAMES[url]} {name}: {words.strip()}" for url, name, words in rejections]
    return RejectedError(
        f"the sidecar of {node} refused {TYPE_NAMES[url]} {name}: {words.strip()}",
        hint="It goes on with the last configuration that it accepted.",
        detail="\n".join(lines) if len(lines) > 1 else "",
    )


async def _refuse_state_of_the_world(_requests: Any, context: Any) -> None:
    await context.abort(
        grpc.StatusCode.UNIMPLEMENTED,
        "only incremental xDS is served: set api_type to DELTA_GRPC in the sidecar's ads_config",
    )


def _parse(request: Any) -> Request:
    return Request(
        type_url=request.type_url,
        subscribe=tuple(request.resource_names_subscribe),
        unsubscribe=tuple(request.resource_names_unsubscribe),
        initial_versions=dict(request.initial_resource_versions),
        nonce=request.response_nonce,
        error=request.error_detail.message if request.HasField("error_detail") else None,
    )


def _build(command: Send, lease: float) -> Any:
    response = discovery_pb2.DeltaDiscoveryResponse(
        type_url=command.type_url, nonce=command.nonce, removed_resources=command.removed
    )
    for item in command.resources:
        entry = response.resources.add(name=item.name, version=item.version)
        entry.resource.type_url = item.type_url
        entry.resource.value = item.body
        if item.leased:
            entry.ttl.FromMilliseconds(max(1, round(lease * 1000)))
    return response
