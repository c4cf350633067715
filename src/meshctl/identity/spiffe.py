"""SPIFFE IDs: the URI by which a service is known to its peers.  Pure.

Source: https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, sections 2.1 to 2.4.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "spiffe://"

MAX_ID_BYTES = 2048
"""Longest SPIFFE ID that every implementation must support (section 2.3)."""

MAX_TRUST_DOMAIN_BYTES = 255
"""Longest trust domain (section 2.3)."""

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """A SPIFFE ID in parts: ``path`` starts with ``/``, or is empty for the ID of a trust domain itself."""

    trust_domain: str
    path: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"


def spiffe_id(trust_domain: str, service: str) -> str:
    """The SPIFFE ID of a service. Raises ValueError when one of the two cannot be part of an ID."""
    _check_trust_domain(trust_domain)
    _check_segment(service)
    return _check_length(f"{SCHEME}{trust_domain}/{service}")


def trust_domain_id(trust_domain: str) -> str:
    """The SPIFFE ID of a trust domain, which its roots carry. Raises ValueError for a name that cannot be one."""
    _check_trust_domain(trust_domain)
    return f"{SCHEME}{trust_domain}"


def parse_spiffe_id(uri: str) -> SpiffeId:
    """Take a SPIFFE ID apart. Raises ValueError, saying what the specification forbids in it."""
    if not uri.startswith(SCHEME):
        raise ValueError(f"a SPIFFE ID starts with {SCHEME}: {uri!r}")
    _check_length(uri)
    trust_domain, slash, path = uri.removeprefix(SCHEME).partition("/")
    _check_trust_domain(trust_domain)
    if slash:
        for segment in path.split("/"):
            _check_segment(segment)
    return SpiffeId(trust_domain, f"{slash}{path}")


def parse_service(uri: str, trust_domain: str) -> str:
    """The service that a SPIFFE ID names. Raises ValueError when it is of another trust domain or names no service."""
    parsed = parse_spiffe_id(uri)
    if parsed.trust_domain != trust_domain:
        raise ValueError(f"{uri} is of trust domain {parsed.trust_domain}, not {trust_domain}")
    service = parsed.path.removeprefix("/")
    if not service or "/" in service:
        raise ValueError(f"{uri} names no service")
    return service


def _check_length(uri: str) -> str:
    if len(uri.encode()) > MAX_ID_BYTES:
        raise ValueError(f"a SPIFFE ID has at most {MAX_ID_BYTES} bytes, this one has {len(uri.encode())}")
    return uri


def _check_trust_domain(name: str) -> None:
    if not name:
        raise ValueError("a trust domain is not empty")
    if not _TRUST_DOMAIN.fullmatch(name):
        raise ValueError(f"a trust domain holds only a-z, 0-9, dots, dashes and underscores: {name!r}")
    if len(name) > MAX_TRUST_DOMAIN_BYTES:
        raise ValueError(f"a trust domain has at most {MAX_TRUST_DOMAIN_BYTES} bytes, this one has {len(name)}")


def _check_segment(segment: str) -> None:
    if segment in {"", ".", ".."}:
        raise ValueError(f"a segment of a SPIFFE ID's path is neither empty nor relative: {segment!r}")
    if not _SEGMENT.fullmatch(segment):
        raise ValueError(f"a path segment holds only letters, digits, dots, dashes and underscores: {segment!r}")
