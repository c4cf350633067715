"""mTLS between sidecars: TLS contexts whose certificates and roots come by SDS.  Pure.

Peers are matched by SPIFFE ID, a URI in the subject alternative name
(https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md), never by host name.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from meshctl.envoy import pb
from meshctl.envoy.sources import ads_source
from meshctl.identity.spiffe import spiffe_id
from meshctl.plan.policies.mtls import InboundTls, Peers

LEAF_SECRET = "leaf"  # noqa: S105 - the name of a resource
ROOTS_SECRET = "roots"  # noqa: S105
PEERS_SECRET = "peers"  # noqa: S105


def downstream_tls(plan: InboundTls) -> Any:
    """The transport socket of an inbound listener: a client certificate of the trust domain is required.

    Where clients are listed, who is on the list comes by SDS, so that it changes without a new listener.
    """
    common = _common(_any_of(plan.trust_domain), alpn=("h2", "http/1.1"))
    if plan.listed:
        common = _common(_any_of(plan.trust_domain), alpn=())
        common.validation_context_sds_secret_config.CopyFrom(_sds(PEERS_SECRET))
    context = pb.tls_pb2.DownstreamTlsContext(
        common_tls_context=common,
        require_client_certificate=pb.bool_value(True),
    )
    return _socket(context)


def upstream_tls(identity: str, *, http: bool) -> Any:
    """The transport socket of a cluster whose sidecars must prove ``identity``."""
    exact = pb.string_pb2.StringMatcher(exact=identity)
    context = pb.tls_pb2.UpstreamTlsContext(common_tls_context=_common(exact, alpn=("h2",) if http else ()))
    return _socket(context)


def external_tls(host: str, *, roots_file: str, http2: bool) -> Any:
    """The transport socket to an address outside the mesh: its certificate must hold its host name or IP address."""
    validation = pb.common_pb2.CertificateValidationContext(trusted_ca=pb.base_pb2.DataSource(filename=roots_file))
    common = pb.tls_pb2.CommonTlsContext(validation_context=validation, alpn_protocols=["h2"] if http2 else [])
    context = pb.tls_pb2.UpstreamTlsContext(common_tls_context=common)
    try:
        address = str(ipaddress.ip_address(host))
    except ValueError:
        context.sni = host
        context.auto_sni_san_validation = True
    else:
        # RFC 6066, section 3: an address is no server name, so none is sent.
        matcher = pb.common_pb2.SubjectAltNameMatcher(
            san_type=pb.common_pb2.SubjectAltNameMatcher.SanType.IP_ADDRESS,
            matcher=pb.string_pb2.StringMatcher(exact=address),
        )
        context.common_tls_context.validation_context.match_typed_subject_alt_names.append(matcher)
    return _socket(context)


def build_secrets(leaf_chain: bytes, leaf_key: bytes, roots: bytes) -> tuple[Any, Any]:
    """The two secrets of a sidecar, PEM in both: its certificate with key, and the roots that it trusts."""
    certificate = pb.common_pb2.TlsCertificate(
        certificate_chain=pb.base_pb2.DataSource(inline_bytes=leaf_chain),
        private_key=pb.base_pb2.DataSource(inline_bytes=leaf_key),
    )
    trusted = pb.common_pb2.CertificateValidationContext(trusted_ca=pb.base_pb2.DataSource(inline_bytes=roots))
    return (
        pb.secret_pb2.Secret(name=LEAF_SECRET, tls_certificate=certificate),
        pb.secret_pb2.Secret(name=ROOTS_SECRET, validation_context=trusted),
    )


def build_peers(peers: Peers, roots: bytes) -> Any:
    """The secret that says who may connect to listeners whose clients are listed."""
    allowed = [_any_of(peers.trust_domain)]
    if peers.names is not None:
        # Without any matcher everybody would do; no SPIFFE ID is empty.
        identities = [spiffe_id(peers.trust_domain, name) for name in peers.names] or ["(nobody)"]
        allowed = [pb.string_pb2.StringMatcher(exact=identity) for identity in identities]
    context = pb.common_pb2.CertificateValidationContext(
        trusted_ca=pb.base_pb2.DataSource(inline_bytes=roots),
        match_typed_subject_alt_names=[_san(matcher) for matcher in allowed],
    )
    return pb.secret_pb2.Secret(name=PEERS_SECRET, validation_context=context)


def _any_of(trust_domain: str) -> Any:
    return pb.string_pb2.StringMatcher(prefix=f"spiffe://{trust_domain}/")


def _san(matcher: Any) -> Any:
    kind = pb.common_pb2.SubjectAltNameMatcher.SanType.URI
    return pb.common_pb2.SubjectAltNameMatcher(san_type=kind, matcher=matcher)


def _common(peer: Any, *, alpn: tuple[str, ...]) -> Any:
    combined = pb.tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
        default_validation_context=pb.common_pb2.CertificateValidationContext(
            match_typed_subject_alt_names=[_san(peer)]
        ),
        validation_context_sds_secret_config=_sds(ROOTS_SECRET),
    )
    return pb.tls_pb2.CommonTlsContext(
        # Both ends: the newest that Envoy's clients offer by themselves is 1.2.
        tls_params=pb.common_pb2.TlsParameters(
            tls_minimum_protocol_version=pb.common_pb2.TlsParameters.TLSv1_3,
            tls_maximum_protocol_version=pb.common_pb2.TlsParameters.TLSv1_3,
        ),
        tls_certificate_sds_secret_configs=[_sds(LEAF_SECRET)],
        combined_validation_context=combined,
        alpn_protocols=list(alpn),
    )


def _sds(name: str) -> Any:
    return pb.secret_pb2.SdsSecretConfig(name=name, sds_config=ads_source())


def _socket(context: Any) -> Any:
    return pb.base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=pb.any_of(context))
