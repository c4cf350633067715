"""Scripts for a session: what comes in, and what has to go out for it.

Resources are written ``name@content``; a response as ``clusters +a@1 -b``; what it says of itself as ``ack clusters``,
``nack clusters a`` and ``synced``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from meshctl.ads.session import Acked, Command, Event, Nacked, Request, Send, Session, SnapshotChanged, Synced
from meshctl.ads.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, Resource, Snapshot, resource, snapshot
from meshctl.ads.status import TYPE_NAMES

URLS: dict[str, str] = {name: url for url, name in TYPE_NAMES.items()}
NODE = "checkout"


def make(type_url: str, text: str, needs: Iterable[tuple[str, str]] = ()) -> Resource:
    """The resource ``name@content``."""
    name, content = text.split("@")
    return resource(type_url, name, content.encode(), needs)


def cluster(text: str) -> Resource:
    return make(CLUSTER, text)


def endpoints(text: str) -> Resource:
    return make(ENDPOINT, text)


def secret(text: str) -> Resource:
    return make(SECRET, text)


def listener(text: str, *clusters: str) -> Resource:
    return make(LISTENER, text, _needs(clusters))


def routes(text: str, *clusters: str) -> Resource:
    return make(ROUTE, text, _needs(clusters))


def version(text: str) -> str:
    """The version of ``name@content``."""
    return make(CLUSTER, text).version


def snap(*resources: Resource) -> Snapshot:
    return snapshot(NODE, resources)


def _needs(clusters: Iterable[str]) -> list[tuple[str, str]]:
    return [need for name in clusters for need in ((CLUSTER, name), (ENDPOINT, name))]


class Playbook:
    """Plays a sidecar by hand; every step says what the session has to do in answer."""

    def __init__(self) -> None:
        self.session = Session(NODE)
        self._nonces: dict[str, str] = {}

    def publish(self, *resources: Resource, then: str | Iterable[str] = ()) -> Self:
        return self.event(SnapshotChanged(snap(*resources)), then=then)

    def subscribe(
        self, kind: str, *names: str, has: Mapping[str, str] | None = None, then: str | Iterable[str] = ()
    ) -> Self:
        versions = {name: version(f"{name}@{content}") for name, content in (has or {}).items()}
        return self.event(Request(type_url=URLS[kind], subscribe=names, initial_versions=versions), then=then)

    def unsubscribe(self, kind: str, *names: str, then: str | Iterable[str] = ()) -> Self:
        return self.event(Request(type_url=URLS[kind], unsubscribe=names), then=then)

    def ack(self, kind: str, *, subscribe: tuple[str, ...] = (), then: str | Iterable[str] = ()) -> Self:
        """Acknowledge the last response of a type; the acknowledgement itself need not be written in ``then``."""
        steps = [then] if isinstance(then, str) else list(then)
        request = Request(type_url=URLS[kind], nonce=self._nonces[kind], subscribe=subscribe)
        return self.event(request, then=[f"ack {kind}", *steps])

    def nack(self, kind: str, words: str, *, then: str | Iterable[str] = ()) -> Self:
        return self.event(Request(type_url=URLS[kind], nonce=self._nonces[kind], error=words), then=then)

    def event(self, event: Event, *, then: str | Iterable[str] = ()) -> Self:
        expected = [then] if isinstance(then, str) else list(then)
        assert [self._write(command) for command in self.session.receive(event)] == expected
        return self

    def _write(self, command: Command) -> str:
        match command:
            case Send():
                kind = TYPE_NAMES[command.type_url]
                self._nonces[kind] = command.nonce
                sent = [f"+{item.name}@{item.body.decode()}" for item in command.resources]
                return " ".join([kind, *sent, *(f"-{name}" for name in command.removed)])
            case Acked():
                return f"ack {TYPE_NAMES[command.type_url]}"
            case Nacked():
                return " ".join(["nack", TYPE_NAMES[command.type_url], *command.names])
            case Synced():
                return "synced"


def synced_playbook(*resources: Resource) -> Playbook:
    """A sidecar that came back with exactly these resources."""
    by_type: dict[str, dict[str, str]] = {kind: {} for kind in URLS}
    for item in resources:
        by_type[TYPE_NAMES[item.type_url]][item.name] = item.body.decode()
    play = Playbook()
    play.session.receive(SnapshotChanged(snap(*resources)))
    for kind, has in by_type.items():
        if kind in ("clusters", "listeners"):
            play.session.receive(
                Request(type_url=URLS[kind], initial_versions={n: version(f"{n}@{c}") for n, c in has.items()})
            )
        elif has:
            versions = {n: version(f"{n}@{c}") for n, c in has.items()}
            play.session.receive(Request(type_url=URLS[kind], subscribe=tuple(has), initial_versions=versions))
    return play
