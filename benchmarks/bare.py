"""Two minimally configured Envoys in a row: mTLS and HTTP/2 between them, a router and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from meshctl.adapters.cert_files import FileAuthority
from meshctl.adapters.envoy_binary import find_envoy

_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@contextmanager
def bare_pair(folder: Path, app_port: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Start the pair in front of an application; yields the port to send to and the two pids."""
    authority = FileAuthority(str(folder / "ca"), mesh="bare", trust_domain="bare.mesh")
    now = time.time()
    authority.ensure_root(now)
    roots = b"".join(root.certificate_pem for root in authority.roots()).decode()
    leaf = authority.issue("pair", now=now, lifetime=86400.0)
    pem = (leaf.certificate_pem.decode(), leaf.private_key_pem.decode())
    front, back = _free_port(), _free_port()
    server_tls = _transport("DownstreamTlsContext", pem, roots) | {}
    client_tls = _transport("UpstreamTlsContext", pem, roots)
    server_tls["typed_config"]["require_client_certificate"] = True
    h2 = {_HTTP: {"@type": f"type.googleapis.com/{_HTTP}", "explicit_http_config": {"http2_protocol_options": {}}}}
    configs = [
        _config(folder / "front.admin", front, None, _cluster(back, transport_socket=client_tls, options=h2)),
        _config(folder / "back.admin", back, server_tls, _cluster(app_port)),
    ]
    processes = []
    try:
        for name, config in zip(("front", "back"), configs, strict=True):
            path = folder / f"{name}.json"
            path.write_text(json.dumps(config))
            argv = [find_envoy(os.environ).path, "-c", str(path), "--concurrency", "1", "--disable-hot-restart"]
            processes.append(subprocess.Popen([*argv, "--log-level", "error"]))
        asyncio.run(_wait_for(front))
        asyncio.run(_wait_for(back))
        yield front, (processes[0].pid, processes[1].pid)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=10)


def _transport(kind: str, pem: tuple[str, str], roots: str) -> dict[str, Any]:
    common = {
        "tls_certificates": [
            {"certificate_chain": {"inline_string": pem[0]}, "private_key": {"inline_string": pem[1]}}
        ],
        "validation_context": {"trusted_ca": {"inline_string": roots}},
        "alpn_protocols": ["h2"],
    }
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TLS}.{kind}", "common_tls_context": common},
    }


def _cluster(port: int, **more: Any) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    cluster: dict[str, Any] = {
        "name": "next",
        "connect_timeout": "1s",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "next", "endpoints": endpoints},
    }
    if "options" in more:
        cluster["typed_extension_protocol_options"] = more.pop("options")
    return cluster | more


def _config(admin: Path, port: int, transport: dict[str, Any] | None, cluster: dict[str, Any]) -> dict[str, Any]:
    base = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{base}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "route_config": {
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next"}}]}
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{base}.http.router.v3.Router"}}
        ],
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if transport is not None:
        chain["transport_socket"] = transport
    listener = {
        "name": "in",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [chain],
    }
    return {
        "admin": {"address": {"pipe": {"path": str(admin)}}},
        "static_resources": {"listeners": [listener], "clusters": [cluster]},
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _wait_for(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                return
