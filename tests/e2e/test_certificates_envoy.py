"""Real Envoy takes the certificates: both roots of a rotation at once, and its admin interface names what it serves."""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.support.envoy_validate import envoy_path

from meshctl.adapters.cert_files import FileAuthority
from meshctl.adapters.clock import SystemClock
from meshctl.adapters.envoy_admin import EnvoyAdmin
from meshctl.identity.rotation import LEAF_LIFETIME, ROOT_LIFETIME
from meshctl.identity.served import read_served_serials
from meshctl.ports import LeafCertificate, RootCertificate

pytestmark = pytest.mark.e2e


@pytest.fixture
def folder() -> Iterator[Path]:
    # The paths of sockets must be short: macOS allows 104 bytes.
    with tempfile.TemporaryDirectory(prefix="mesh-", dir="/tmp") as name:
        yield Path(name)


def make_config(folder: Path, leaf: LeafCertificate, roots: tuple[RootCertificate, ...]) -> str:
    trusted = b"".join(root.certificate_pem for root in roots).decode()
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [
                {
                    "certificate_chain": {"inline_string": leaf.certificate_pem.decode()},
                    "private_key": {"inline_string": leaf.private_key_pem.decode()},
                }
            ],
            "validation_context": {
                "trusted_ca": {"inline_string": trusted},
                "match_typed_subject_alt_names": [
                    {"san_type": "URI", "matcher": {"prefix": "spiffe://shop.local/"}},
                ],
            },
        },
    }
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 204}}
    manager = {
        "@type": (
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": "in",
        "http_filters": [router],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    chain = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
    listener = {"name": "in", "address": {"pipe": {"path": str(folder / "in")}}, "filter_chains": [chain]}
    config = {
        "admin": {"address": {"pipe": {"path": str(folder / "admin")}}},
        "static_resources": {"listeners": [listener]},
    }
    return json.dumps(config)


@asynccontextmanager
async def running_envoy(config: str, admin: Path) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        envoy_path(), "--use-dynamic-base-id", "--concurrency", "1", "--config-yaml", config, "-l", "error"
    )
    try:
        async with asyncio.timeout(30):
            while not await is_live(admin):
                assert process.returncode is None, "Envoy did not take the configuration"
                await asyncio.sleep(0.02)
        yield
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def is_live(admin: Path) -> bool:
    try:
        return (await EnvoyAdmin().get(str(admin), "/ready")).strip() == "LIVE"
    except OSError:
        return False


async def request(folder: Path, leaf: LeafCertificate, roots: tuple[RootCertificate, ...]) -> bytes:
    """The first line of the answer to a request with a certificate. Raises ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata="".join(root.certificate_pem.decode() for root in roots))
    pair = folder / f"{leaf.serial}.pem"
    pair.write_bytes(leaf.certificate_pem + leaf.private_key_pem)
    context.load_cert_chain(pair)
    reader, writer = await asyncio.open_unix_connection(str(folder / "in"), ssl=context, server_hostname="")
    try:
        writer.write(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
        return await reader.readline()
    finally:
        writer.transport.abort()


async def test_envoy_trusts_leafs_of_both_roots_of_a_rotation_and_of_no_other(folder: Path) -> None:
    now = SystemClock().now()
    authority = FileAuthority(str(folder / "ca"), mesh="shop", trust_domain="shop.local")
    authority.ensure_root(now)
    of_old = authority.issue("orders", now=now, lifetime=LEAF_LIFETIME)
    server = authority.issue("web", now=now, lifetime=LEAF_LIFETIME)
    authority.activate_root(authority.add_root(now=now, lifetime=ROOT_LIFETIME).serial)
    of_new = authority.issue("orders", now=now, lifetime=LEAF_LIFETIME)
    stranger = FileAuthority(str(folder / "other"), mesh="shop", trust_domain="shop.local")
    stranger.ensure_root(now)
    of_other = stranger.issue("orders", now=now, lifetime=LEAF_LIFETIME)

    roots = authority.roots()
    async with running_envoy(make_config(folder, server, roots), folder / "admin"):
        assert await request(folder, of_old, roots) == b"HTTP/1.1 204 No Content\r\n"
        assert await request(folder, of_new, roots) == b"HTTP/1.1 204 No Content\r\n"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            assert await request(folder, of_other, roots) == b"refused"
        certs = await EnvoyAdmin().get(str(folder / "admin"), "/certs")
    assert read_served_serials(certs) == {server.serial}
