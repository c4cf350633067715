"""Whatever happens in whatever order, a sidecar ends with what it should have, and no rule is broken on the way."""

from __future__ import annotations

import sys
from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tests.unit.ads.model_envoy import ModelEnvoy
from tests.unit.ads.playbook import cluster, endpoints, listener, routes, secret, snap

from meshctl.ads.session import Acked, Command, Nacked, Send, Session, SnapshotChanged
from meshctl.ads.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, Resource, Snapshot
from meshctl.ads.status import describe

CONTENT = st.sampled_from(["1", "2", "3", "1", "2", "3", "1", "2", "3", "bad", "ugly"])
CLUSTERS = ("a", "b", "c")


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    names = draw(st.lists(st.sampled_from(CLUSTERS), unique=True))
    made: list[Resource] = [secret(f"s@{draw(CONTENT)}")]
    for name in names:
        made += [cluster(f"{name}@{draw(CONTENT)}"), endpoints(f"{name}@{draw(CONTENT)}")]
    for name in draw(st.lists(st.sampled_from(["l", "m"]), unique=True)):
        content = draw(CONTENT)
        used = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
        text = content if content in ("bad", "ugly") else f"{content}:{','.join(used)}"
        made += [listener(f"{name}@{draw(CONTENT)}"), routes(f"{name}@{text}", *used)]
    return snap(*made)


def clusters_of(item: Resource) -> set[str]:
    return set(filter(None, item.body.decode().partition(":")[2].split(",")))


class Stream(RuleBasedStateMachine):
    """A session and a model of Envoy with two queues between them, delivered in any interleaving."""

    def __init__(self) -> None:
        super().__init__()
        self.envoy = ModelEnvoy()
        self.snapshot: Snapshot | None = None
        self._connect()

    def _connect(self) -> None:
        self.session = Session("checkout")
        self.incoming: list[tuple[Send, set[str]]] = []
        self.unanswered: Counter[str] = Counter()
        self.blamed: set[tuple[str, str, str]] = set()
        if self.snapshot is not None:
            self._carry_out(self.session.receive(SnapshotChanged(self.snapshot)))
        self.envoy.connect()

    @initialize(first=snapshots())
    def begin(self, first: Snapshot) -> None:
        self.publish(first)

    @rule(new=snapshots())
    def publish(self, new: Snapshot) -> None:
        self.snapshot = new
        self._carry_out(self.session.receive(SnapshotChanged(new)))

    @precondition(lambda self: self.envoy.outgoing)
    @rule()
    def hear(self) -> None:
        self._carry_out(self.session.receive(self.envoy.outgoing.pop(0)))

    @precondition(lambda self: self.incoming)
    @rule()
    def deliver(self) -> None:
        response, refused = self.incoming.pop(0)
        self._check_order(response, refused)
        words = self.envoy.receive(response)
        if words is not None:
            items = response.resources
            bad = [item for item in items if len(items) == 1 or (words.startswith("Error") and item.body == b"bad")]
            self.blamed |= {(item.type_url, item.name, item.version) for item in bad}

    @rule()
    def reconnect(self) -> None:
        self._connect()

    @rule()
    def restart_envoy(self) -> None:
        self.envoy = ModelEnvoy()
        self._connect()

    @rule(name=st.sampled_from(CLUSTERS))
    def ask_again(self, name: str) -> None:
        self.envoy.ask_again(name)

    @rule()
    def settle(self) -> None:
        for _ in range(2000):
            if self.incoming:
                self.deliver()
            elif self.envoy.outgoing:
                self.hear()
            elif self.envoy.warming:
                assert self.snapshot is not None
                for name in self.envoy.warming:
                    endpoints_wanted = self.snapshot.of(ENDPOINT)[name]
                    key = (ENDPOINT, name, endpoints_wanted.version)
                    assert key in self.blamed, "only endpoints that were rejected keep a cluster waiting"
                self.envoy.give_up_waiting()
            else:
                break
        else:
            raise AssertionError("it never comes to rest")
        self._check_end()

    def teardown(self) -> None:
        if self.snapshot is not None and sys.exc_info()[0] is None:
            self.settle()

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send():
                    self.unanswered[command.type_url] += 1
                    assert self.unanswered[command.type_url] == 1, "one response of a type at a time"
                    for item in command.resources:
                        key = (item.type_url, item.name, item.version)
                        assert key not in self.blamed, "what was rejected is not sent again"
                    self.incoming.append((command, self._find_refused_clusters()))
                case Acked() | Nacked():
                    self.unanswered[command.type_url] -= 1

    def _find_refused_clusters(self) -> set[str]:
        assert self.snapshot is not None
        wanted = self.snapshot.of(CLUSTER).items()
        return {name for name, item in wanted if (CLUSTER, name, item.version) in self.blamed}

    def _check_order(self, response: Send, refused: set[str]) -> None:
        """Make before break, as the sidecar sees it; ``refused`` are the clusters that routes did not wait for."""
        if response.type_url == ROUTE:
            for item in response.resources:
                assert clusters_of(item) <= self.envoy.active | refused, "routes wait for their clusters"
        if response.type_url == CLUSTER:
            for item in self.envoy.has[ROUTE].values():
                assert not clusters_of(item) & set(response.removed), "a cluster in use is not removed"

    def _check_end(self) -> None:
        assert self.snapshot is not None
        assert self.session.is_settled
        rejected = {(url, name) for url, name, _ in self.session.find_rejections()}
        for url in (CLUSTER, ENDPOINT, SECRET, LISTENER, ROUTE):
            has = {name: item.version for name, item in self.envoy.has[url].items()}
            for name, item in self.snapshot.of(url).items():
                wanted = url not in self.envoy.subscribed or name in self.envoy.subscribed[url]
                if wanted and item.body in (b"bad", b"ugly"):
                    assert (url, name) in rejected
                elif wanted and (url, name) not in self.envoy.ghosts:
                    assert has.get(name) == item.version
            extra = {name for name in has.keys() - self.snapshot.of(url).keys() if (url, name) not in self.envoy.ghosts}
            assert not extra or rejected, "what is gone was removed"
        assert self.session.is_synced == (not rejected)
        assert describe(self.session).state == ("rejected" if rejected else "synced")


Stream.TestCase.settings = settings(max_examples=75, stateful_step_count=40, deadline=None, report_multiple_bugs=False)
TestStream = Stream.TestCase
