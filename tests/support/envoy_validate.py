"""Runs ``envoy --mode validate`` on what a sidecar would be sent over ADS.

Validation reaches no control plane, so every resource is put where it is used: routes into connection managers,
endpoints into clusters, secrets into the static section.
"""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import functools
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshctl.adapters.envoy_binary import find_envoy
from meshctl.envoy import pb
from meshctl.envoy.bootstrap import build_bootstrap
from meshctl.envoy.translate import Credentials, Translated

_HCM = pb.http_connection_manager_pb2.HttpConnectionManager
_LOCAL = pb.config_source_pb2.ConfigSource


def envoy_path() -> str:
    """The Envoy that the tests run."""
    return find_envoy(os.environ).path


@functools.cache
def throwaway_credentials() -> Credentials:
    """A self-signed certificate: enough for Envoy to load."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Credentials(leaf_chain=pem, leaf_key=key_pem, roots=pem)


def static_config(node: str, resources: Sequence[Translated]) -> str:
    """A bootstrap that holds the resources themselves, as JSON."""
    text = build_bootstrap(node=node, mesh="test", admin_socket="/tmp/none.admin", ads_socket="/tmp/none.ads")
    config = pb.json_format.Parse(text, pb.bootstrap_pb2.Bootstrap())
    routes = {item.name: item.message for item in resources if item.kind == "routes"}
    endpoints = {item.name: item.message for item in resources if item.kind == "endpoints"}
    for item in resources:
        message = copy.deepcopy(item.message)
        if item.kind == "secret":
            config.static_resources.secrets.append(message)
        elif item.kind == "cluster":
            if item.name in endpoints:
                message.type = pb.cluster_pb2.Cluster.DiscoveryType.STATIC
                message.ClearField("eds_cluster_config")
                message.load_assignment.CopyFrom(endpoints[item.name])
            _use_static_secrets(message.transport_socket, pb.tls_pb2.UpstreamTlsContext)
            config.static_resources.clusters.append(message)
        elif item.kind == "listener":
            for chain in message.filter_chains:
                _use_static_secrets(chain.transport_socket, pb.tls_pb2.DownstreamTlsContext)
                for network_filter in chain.filters:
                    _inline_routes(network_filter, routes)
            config.static_resources.listeners.append(message)
    return json.dumps(json.loads(pb.json_format.MessageToJson(config)))


def validate(node: str, resources: Sequence[Translated]) -> tuple[bool, str]:
    """Whether Envoy accepts the resources of one proxy, and its words."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "envoy.json"
        path.write_text(static_config(node, resources))
        argv = [envoy_path(), "--mode", "validate", "--config-path", str(path), "--log-level", "error"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode == 0, done.stderr


async def validate_all(proxies: dict[str, Sequence[Translated]]) -> dict[str, str]:
    """Validates several proxies, two at a time; the words about those that were refused, by node."""
    places = asyncio.Semaphore(2)

    async def one(node: str, resources: Sequence[Translated]) -> tuple[str, bool, str]:
        async with places:
            ok, words = await asyncio.to_thread(validate, node, resources)
            return node, ok, words

    done = await asyncio.gather(*(one(node, resources) for node, resources in proxies.items()))
    return {node: words for node, ok, words in done if not ok}


def _use_static_secrets(socket: Any, kind: Any) -> None:
    if not socket.HasField("typed_config"):
        return
    context = kind()
    socket.typed_config.Unpack(context)
    common = context.common_tls_context
    for secret in common.tls_certificate_sds_secret_configs:
        secret.ClearField("sds_config")
    if common.HasField("combined_validation_context"):
        common.combined_validation_context.validation_context_sds_secret_config.ClearField("sds_config")
    socket.typed_config.Pack(context)


def _inline_routes(network_filter: Any, routes: dict[str, Any]) -> None:
    if not network_filter.typed_config.Is(_HCM.DESCRIPTOR):
        return
    manager = _HCM()
    network_filter.typed_config.Unpack(manager)
    manager.route_config.CopyFrom(routes[manager.rds.route_config_name])
    network_filter.typed_config.Pack(manager)
