"""An Envoy in miniature, as far as incremental xDS goes; it behaves as Envoy 1.40 was seen to.

Content decides the fate of a resource: ``bad`` is refused by name, ``ugly`` cannot be read and takes the whole
response with it. Routes are written ``content:cluster,cluster``.
"""

from __future__ import annotations

from meshctl.ads.session import Request, Send
from meshctl.ads.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, TYPE_URLS, Resource


class ModelEnvoy:
    """``has`` is what is in effect, ``known`` the versions that it would tell when it reconnects.

    Of a response that it refused in part it remembers no version, so that after a reconnect nobody knows of the good
    part: these are its ``ghosts``.
    """

    def __init__(self) -> None:
        self.has: dict[str, dict[str, Resource]] = {url: {} for url in TYPE_URLS}
        self.known: dict[str, dict[str, str]] = {url: {} for url in TYPE_URLS}
        self.subscribed: dict[str, set[str]] = {ENDPOINT: set(), SECRET: {"s"}, ROUTE: set()}
        self.active: set[str] = set()
        self.warming: set[str] = set()
        self.ghosts: set[tuple[str, str]] = set()
        self.outgoing: list[Request] = []
        self._withheld: list[Request] = []
        self._asked: set[str] = set()

    def connect(self) -> None:
        """Begin a new stream: tell what is wanted and had."""
        self.outgoing, self._withheld, self._asked = [], [], set()
        for url in TYPE_URLS:
            known = self.known[url]
            self.ghosts |= {(url, name) for name, item in self.has[url].items() if known.get(name) != item.version}
        for url in TYPE_URLS:
            # Listeners are asked for when the clusters are there; who was there before asks for all at once.
            if url != LISTENER or self.known[CLUSTER] or self.known[LISTENER]:
                self._ask(url)

    def ask_again(self, name: str) -> None:
        """Ask for endpoints that it has already."""
        if name in self.subscribed[ENDPOINT]:
            self.outgoing.append(Request(type_url=ENDPOINT, subscribe=(name,)))

    def give_up_waiting(self) -> None:
        """The end of the 15 s that a cluster waits for its endpoints."""
        self._finish(*self.warming)
        self._flush()

    def receive(self, response: Send) -> str | None:
        """Take in a response; returns the words of refusal."""
        url = response.type_url
        words = self._judge(response)
        named = words is not None and words.startswith("Error adding")
        if words is None or named:
            for item in response.resources:
                if item.body not in (b"bad", b"ugly"):
                    self._apply(item)
            for name in response.removed:
                self._drop(url, name)
        elif url == ENDPOINT:
            # A failed update ends the wait of every cluster, as an update does.
            self._finish(*self.warming)
        if words is None:
            for item in response.resources:
                self.known[url][item.name] = item.version
                self.ghosts.discard((url, item.name))
        answer = Request(type_url=url, nonce=response.nonce, error=words)
        if url == CLUSTER and self.warming and LISTENER in self._asked:
            self._withheld.append(answer)
        else:
            self.outgoing.append(answer)
        self._flush()
        return words

    def _judge(self, response: Send) -> str | None:
        if any(item.body == b"ugly" for item in response.resources):
            return "Proto constraint validation failed"
        bad = [item.name for item in response.resources if item.body == b"bad"]
        if not bad:
            return None
        if response.type_url in (CLUSTER, LISTENER):
            kind = "cluster" if response.type_url == CLUSTER else "listener"
            return f"Error adding/updating {kind}(s) " + ", ".join(f"{name}: it is bad" for name in bad)
        return f"there is something bad about {bad[0]}"

    def _apply(self, item: Resource) -> None:
        url, name = item.type_url, item.name
        if url in self.subscribed and name not in self.subscribed[url]:
            return
        before = self.has[url].get(name)
        self.has[url][name] = item
        if url == CLUSTER and (before is None or before.version != item.version):
            self.warming.add(name)
            self._follow(ENDPOINT, name)
        elif url == ENDPOINT:
            self._finish(name)
        elif url == LISTENER:
            self._follow(ROUTE, name)

    def _drop(self, url: str, name: str) -> None:
        self.has[url].pop(name, None)
        self.known[url].pop(name, None)
        self.ghosts.discard((url, name))
        if url == ENDPOINT:
            self._finish(name)
        if url == CLUSTER:
            self.warming.discard(name)
            self.active.discard(name)
        used = {CLUSTER: ENDPOINT, LISTENER: ROUTE}.get(url)
        if used is not None and name in self.subscribed[used]:
            self.subscribed[used].discard(name)
            self.has[used].pop(name, None)
            self.known[used].pop(name, None)
            self.outgoing.append(Request(type_url=used, unsubscribe=(name,)))

    def _follow(self, url: str, name: str) -> None:
        if name not in self.subscribed[url]:
            self.subscribed[url].add(name)
            self.outgoing.append(Request(type_url=url, subscribe=(name,)))

    def _ask(self, url: str) -> None:
        self._asked.add(url)
        names = tuple(sorted(self.subscribed.get(url, ())))
        if url in (CLUSTER, LISTENER) or names:
            request = Request(type_url=url, subscribe=names, initial_versions=dict(self.known[url]))
            # Nothing is said about clusters while some of them warm.
            (self._withheld if url == CLUSTER and self.warming else self.outgoing).append(request)

    def _finish(self, *names: str) -> None:
        """Clusters have what they need: they take the place of what they were before."""
        self.active |= self.warming & set(names)
        self.warming -= set(names)

    def _flush(self) -> None:
        if self.warming:
            return
        self.outgoing += self._withheld
        self._withheld = []
        if LISTENER not in self._asked:
            self._ask(LISTENER)
