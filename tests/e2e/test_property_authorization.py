"""What we say of a request is what Envoy does to it: random rules, random requests, one real sidecar."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from contextlib import AsyncExitStack
from http.client import HTTPResponse
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.support.envoy_sidecar import run_sidecar
from tests.support.random_authorization import ANONYMOUS, CALLERS, TRUST_DOMAIN, Asked, plans, requests

from meshctl.adapters.ads_grpc import AdsServer
from meshctl.adapters.cert_files import FileAuthority
from meshctl.adapters.clock import SystemClock
from meshctl.control.publisher import Publisher
from meshctl.envoy.translate import Credentials
from meshctl.plan.model import (
    HttpListener,
    Match,
    MeshPlan,
    PipeAddress,
    ProxyPlan,
    Reply,
    Route,
    RouteTable,
    VirtualHost,
)
from meshctl.plan.policies.authorization import AuthorizationPlan, Call, decide
from meshctl.plan.policies.mtls import InboundTls
from meshctl.plan.policies.request_paths import normalise

pytestmark = pytest.mark.e2e

NODE = "callee"
HOUR = 3600.0


class Bench:
    """An Envoy with one inbound listener; each case is a host name of its own, so that one push brings many."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        now = SystemClock().now()
        self._authority = FileAuthority(str(folder / "ca"), mesh="random", trust_domain=TRUST_DOMAIN)
        self._authority.ensure_root(now)
        for name in (*CALLERS, NODE):
            self._authority.issue(name, now=now, lifetime=HOUR)
        self._roots = b"".join(root.certificate_pem for root in self._authority.roots())
        self._server = AdsServer(socket=str(folder / "ads"), on_status=lambda *_: None, clock=SystemClock())
        self._publisher = Publisher(self._server, lambda _: self._credentials())
        self._stack = AsyncExitStack()
        self._connections: dict[str, socket.socket] = {}
        self.asked = 0

    async def start(self) -> None:
        await self._server.start()
        self._stack.push_async_callback(self._server.stop)
        sidecar = run_sidecar(self._folder, node=NODE, ads_socket=str(self._folder / "ads"))
        await self._stack.enter_async_context(sidecar)

    async def stop(self) -> None:
        for connection in self._connections.values():
            connection.close()
        await self._stack.aclose()

    async def publish(self, cases: list[AuthorizationPlan]) -> None:
        route = Route(name="all", match=Match(), action=Reply(status=200, body="{path}"))
        hosts = [
            VirtualHost(name=f"case-{number}", domains=(f"case-{number}",), routes=(route,), filters=(plan,))
            for number, plan in enumerate(cases)
        ]
        listener = HttpListener(
            name="inbound/callee",
            address=PipeAddress(str(self._folder / "in")),
            role="inbound",
            route_table="inbound/callee",
            tls=InboundTls(trust_domain=TRUST_DOMAIN, plain=True),
        )
        proxy = ProxyPlan(
            node=NODE,
            identity=f"spiffe://{TRUST_DOMAIN}/{NODE}",
            listeners=(listener,),
            route_tables=(RouteTable(name="inbound/callee", virtual_hosts=tuple(hosts)),),
            clusters=(),
            endpoints=(),
        )
        self._publisher.publish(MeshPlan(proxies={NODE: proxy}))
        await self._publisher.wait(self._publisher.versions, 60, require_connected=True)

    def ask(self, case: int, asked: Asked) -> tuple[int, str, str]:
        """Status, the policy that refused, and the path that the sidecar made of it."""
        self.asked += 1
        connection = self._connections.get(asked.source) or self._connect(asked.source)
        lines = [f"{asked.method} {asked.path} HTTP/1.1", f"host: case-{case}"]
        lines += [f"{name}: {value}" for name, value in asked.headers]
        connection.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode())
        response = HTTPResponse(connection, method=asked.method)
        response.begin()
        body = response.read().decode()
        if response.will_close:
            self._connections.pop(asked.source).close()
        details = response.headers.get("x-meshctl-denied", "")
        return response.status, details.removeprefix("rbac_access_denied_matched_policy[").removesuffix("]"), body

    def _connect(self, source: str) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(60)
        connection.connect(str(self._folder / "in"))
        if source != ANONYMOUS:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False  # identities are URIs, which Python does not match
            context.load_verify_locations(cadata=self._roots.decode())
            leaf = self._authority.leaf(source)
            assert leaf is not None
            pair = self._folder / f"{source}.pem"
            pair.write_bytes(leaf.certificate_pem + leaf.private_key_pem)
            context.load_cert_chain(pair)
            connection = context.wrap_socket(connection)
        self._connections[source] = connection
        return connection

    def _credentials(self) -> Credentials:
        leaf = self._authority.leaf(NODE)
        assert leaf is not None
        return Credentials(leaf_chain=leaf.certificate_pem, leaf_key=leaf.private_key_pem, roots=self._roots)


def as_call(asked: Asked) -> Call:
    headers: dict[str, tuple[str, ...]] = {}
    for name, value in asked.headers:
        headers[name.lower()] = (*headers.get(name.lower(), ()), value)
    return Call(source=asked.source, method=asked.method, path=asked.path, headers=headers)


CASES = st.lists(st.tuples(plans(), st.lists(requests(), min_size=6, max_size=6)), min_size=6, max_size=6)


def test_evaluator_and_envoy_say_the_same_of_every_request() -> None:
    with tempfile.TemporaryDirectory(prefix="authz", dir="/tmp") as name, asyncio.Runner() as runner:
        bench = Bench(Path(name))
        refused = {True: 0, False: 0}
        try:
            runner.run(bench.start())

            @settings(
                max_examples=60,
                # Nothing is made smaller: each case is small, and each try would cost a push.
                phases=[Phase.generate],
                deadline=None,
                derandomize=True,
                database=None,
                suppress_health_check=[
                    HealthCheck.too_slow,
                    HealthCheck.data_too_large,
                    HealthCheck.large_base_example,
                ],
            )
            @given(cases=CASES)
            def check(cases: list[tuple[AuthorizationPlan, list[Asked]]]) -> None:
                runner.run(bench.publish([plan for plan, _ in cases]))
                for number, (plan, asked) in enumerate(cases):
                    for one in asked:
                        status, policy, body = bench.ask(number, one)
                        expected = decide(plan, as_call(one))
                        path = normalise(one.path)
                        if path is None:
                            assert status == 400, (one, status)
                            continue
                        said = (200, "") if expected.allowed else (403, expected.policy)
                        assert (status, policy) == said, (plan, one, body)
                        if status == 200 and one.method != "HEAD":
                            assert body == path, one
                        refused[status == 403] += 1

            check()
        finally:
            runner.run(bench.stop())
        assert min(refused.values()) > 300, refused
        print(refused, bench.asked)
